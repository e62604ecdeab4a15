"""Integers whose step is wider than the sky's noise: 8-bit video, cameras at low gain, sums in few bits."""

from dataclasses import replace

import numpy as np
import pytest

from astrid_workers.differencing.pair import PairResult, run_pair
from astrid_workers.errors import FrameRejected
from astrid_workers.frame import Frame
from astrid_workers.imaging import stars
from astrid_workers.imaging.background import estimate_background
from astrid_workers.imaging.measured_frame import frame_from_pixels
from astrid_workers.sky import Sky, make_sky

#: Electrons per step; the sky's noise is 8.7 electrons.
GAIN = 14.0


def coarse(frame: Frame) -> Frame:
    """`frame` as a file of integers holds it."""
    facts = replace(frame.facts, gain_e_per_adu=GAIN, saturation=None)
    pixels = np.rint(frame.science / GAIN).astype(np.float32)
    return frame_from_pixels(
        pixels, facts=facts, unit="adu", wcs=frame.wcs, bad=frame.mask != 0, is_integer=True
    )


def sky_of(n_stars: int) -> Sky:
    return make_sky(
        seed=21, shape=(512, 512), n_stars=n_stars, n_galaxies=40, n_transients=20, transient_snr=(8.0, 60.0),
        sky_e=60.0, read_noise_e=4.0, fwhm_science_px=3.4, fwhm_reference_px=2.8, reference_depth=1.0,
    )  # fmt: skip


def subtracted(sky: Sky) -> PairResult:
    return run_pair(coarse(sky.science), coarse(sky.reference))


@pytest.mark.parametrize("n_stars", [60, 220])
def test_a_sky_of_few_values_has_an_honest_score(n_stars: int) -> None:
    """Median, scatter and what is found are those of finer integers; the spreading is said."""
    sky = sky_of(n_stars)
    pair = subtracted(sky)

    assert any("of the step between the file's integers" in said for said in coarse(sky.science).assumed)
    score = pair.difference.score[np.isfinite(pair.difference.score)]
    median = np.median(score)
    assert abs(median) < 0.1
    assert 1.4826 * np.median(np.abs(score - median)) == pytest.approx(1, abs=0.06)
    x, y = (np.array([getattr(each, of) for each in pair.candidates.items]) for of in ("x", "y"))
    strong = sky.truth[sky.truth["snr_local"] > 12]
    near = np.hypot(x[:, None] - strong["x"], y[:, None] - strong["y"]) < 3
    assert near.any(axis=0).mean() > 0.9


@pytest.mark.parametrize(
    ("noise", "is_spread"), [(0.0, False), (0.3, True), (0.62, True), (0.9, False), (6.0, False)]
)
def test_only_noise_below_the_step_is_spread(noise: float, is_spread: bool) -> None:
    """A noiseless sky and one of finer steps stay as they are, pixel by pixel."""
    pixels = np.rint(100 + np.random.default_rng(2).normal(0, noise, (64, 64))).astype(np.float32)
    facts = replace(sky_of(60).science.facts, saturation=None)
    frame = frame_from_pixels(pixels, facts=facts, unit="electron", is_integer=True)
    assert np.array_equal(frame.science, pixels) != is_spread
    assert np.abs(frame.science - pixels).max() <= 0.5


def test_the_step_is_that_of_the_scaled_values() -> None:
    """BSCALE makes it; a slope of one step for each pixel is no noise."""
    pixels = 0.25 * np.rint(100 + np.random.default_rng(2).normal(0, 0.5, (64, 64))).astype(np.float32)
    facts = replace(sky_of(60).science.facts, saturation=None)
    frame = frame_from_pixels(pixels, facts=facts, unit="electron", is_integer=True)
    assert 0.1 < np.abs(frame.science - pixels).max() <= 0.125
    ramp = np.arange(4096, dtype=np.float32).reshape(64, 64)
    frame = frame_from_pixels(ramp, facts=facts, unit="electron", is_integer=True)
    assert np.array_equal(frame.science, ramp)


def test_a_blend_without_end_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    """What sep gives up on is a refusal that no retry helps."""
    monkeypatch.setattr(stars, "MOST_IN_A_BLEND", 2)
    frame = sky_of(220).science
    background = estimate_background(frame.science)
    with pytest.raises(FrameRejected, match="sources cannot be told apart"):
        stars.find_stars(gaussian_crowd(frame), background, frame.mask)


def gaussian_crowd(frame: Frame) -> np.ndarray:
    """Peaks of one plateau, far above the sky."""
    y, x = np.indices(frame.shape)
    lattice = 2e4 * (2 + np.sin(x / 2.0) * np.sin(y / 2.0))
    return np.where((np.abs(x - 256) < 60) & (np.abs(y - 256) < 60), lattice, frame.science).astype(
        np.float32
    )
