"""A frame in files is the frame: same pixels, same results, and its memory can go and come back."""

import resource
from dataclasses import astuple
from pathlib import Path

import numpy as np
import pytest

from astrid_workers.differencing.pair import run_pair
from astrid_workers.frame import Frame, HeaderFacts
from astrid_workers.imaging import out_of_core
from astrid_workers.imaging.out_of_core import movable, set_aside
from astrid_workers.sky import make_sky


def resident_bytes() -> int:
    """What this process has in memory now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def frame(side: int) -> Frame:
    rng = np.random.default_rng(3)
    return Frame(
        rng.normal(100, 5, (side, side)).astype(np.float32),
        np.full((side, side), 25, np.float32),
        rng.integers(0, 3, (side, side)).astype(np.uint32),
        None,
        "electron",
        HeaderFacts(),
    )


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="resident memory is read from /proc")
def test_pixels_leave_memory_and_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(out_of_core, "LARGE_PX", 0)
    before = frame(2048)
    moved = movable(before)
    had = resident_bytes()
    set_aside(moved)
    assert had - resident_bytes() > 0.9 * 12 * 2048**2
    for plane in ("science", "variance", "mask"):
        assert np.array_equal(getattr(moved, plane), getattr(before, plane))
        assert getattr(moved, plane).dtype == getattr(before, plane).dtype


def test_small_frames_stay_where_they_are() -> None:
    before = frame(64)
    assert movable(before) is before
    set_aside(before)  # of no effect
    assert before.science.mean() == pytest.approx(100, abs=1)


def test_what_lies_in_a_file_is_not_copied_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(out_of_core, "LARGE_PX", 0)
    moved = movable(frame(64))
    assert movable(moved).science is moved.science


def test_a_full_disk_leaves_the_frame_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(out_of_core, "LARGE_PX", 0)
    monkeypatch.setattr(out_of_core.os, "posix_fallocate", full)
    before = frame(64)
    moved = movable(before)
    assert moved.science is before.science


def test_a_pair_in_files_gives_the_same_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bit by bit: images, candidates and numbers."""
    sky = make_sky(seed=6, shape=(320, 320), n_stars=70, n_transients=6, transient_snr=(20.0, 40.0))
    one = run_pair(sky.science, sky.reference)
    monkeypatch.setattr(out_of_core, "LARGE_PX", 0)
    two = run_pair(movable(sky.science), movable(sky.reference))
    for plane in ("difference", "score", "variance", "flux_error", "mask"):
        np.testing.assert_array_equal(getattr(one.difference, plane), getattr(two.difference, plane))
    assert [astuple(c) for c in one.candidates.items] == [astuple(c) for c in two.candidates.items]
    assert one.difference.numbers == two.difference.numbers
