"""The sky that was measured when a frame was read is asked again only where it is still the frame's."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose

from astrid_workers.frame import Frame, HeaderFacts
from astrid_workers.imaging.background import estimate_background
from astrid_workers.imaging.known_sky import background_of, background_within
from astrid_workers.imaging.measured_frame import frame_from_pixels
from astrid_workers.mask import UNUSABLE, MaskBit
from astrid_workers.sky import make_sky


def _read(gain: float = 1.7, *, rise_e: float = 0.0, sigma: bool = False) -> Frame:
    sky = make_sky(seed=77, n_stars=80, gradient_e=rise_e).science
    pixels = sky.science / np.float32(gain)
    noise = np.sqrt(sky.variance) / np.float32(gain) if sigma else None
    return frame_from_pixels(pixels, facts=HeaderFacts(gain_e_per_adu=gain), unit="adu", sigma=noise)


def _unusable(frame: Frame) -> np.ndarray:
    return (frame.mask & np.uint32(UNUSABLE)) != 0


@pytest.mark.parametrize("rise_e", [0.0, 400.0], ids=["even", "steep"])
def test_a_read_frame_knows_its_sky_in_its_own_unit(rise_e: float) -> None:
    frame = _read(rise_e=rise_e)
    known, measured = background_of(frame, _unusable(frame)), estimate_background(frame.science)
    assert frame.unit == "electron"
    assert known is background_of(frame, _unusable(frame))
    assert_allclose(known.level, measured.level, rtol=1e-4)
    assert_allclose(known.rms, measured.rms, rtol=1e-3)
    assert known.median == pytest.approx(measured.median, rel=1e-4)
    assert known.rms_median == pytest.approx(measured.rms_median, rel=1e-3)
    assert np.mean(known.sources != measured.sources) < 1e-4


def test_a_window_shows_the_same_sky() -> None:
    frame = _read()
    window = np.s_[40:200, 100:290]
    part, whole = background_within(frame, _unusable(frame), window), background_of(frame, _unusable(frame))
    assert_allclose(part.level, whole.level[window])
    assert_allclose(part.rms, whole.rms[window])
    assert np.array_equal(part.sources, whole.sources[window])
    assert_allclose(part.times(3.0).level, 3 * whole.level[window], rtol=1e-6)


def test_without_a_known_sky_the_window_alone_is_measured() -> None:
    frame = replace(_read(), sky=None)
    window = np.s_[40:200, 100:290]
    part, alone = (
        background_within(frame, _unusable(frame), window),
        estimate_background(frame.science[window]),
    )
    assert_allclose(part.level, alone.level)
    assert_allclose(part.rms, alone.rms)


def test_other_pixels_have_another_sky() -> None:
    frame = _read()
    brighter = replace(frame, science=frame.science + np.float32(1000))
    assert brighter.sky is None
    level = background_of(brighter, _unusable(brighter)).median
    assert level == pytest.approx(background_of(frame, _unusable(frame)).median + 1000, abs=1)


def test_the_same_pixels_with_another_mask_keep_it_until_many_are_lost() -> None:
    frame = _read()
    known = background_of(frame, _unusable(frame))
    for rows, is_kept in ((1, True), (30, False)):
        mask = frame.mask.copy()
        mask[:rows] |= np.uint32(MaskBit.BAD_PIXEL)
        spoilt = replace(frame, mask=mask)
        assert (background_of(spoilt, _unusable(spoilt)) is known) == is_kept, rows


def test_another_mesh_is_measured() -> None:
    frame = _read()
    assert background_of(frame, _unusable(frame), box_px=32) is not background_of(frame, _unusable(frame))


def test_with_a_noise_map_no_sky_is_measured_on_reading() -> None:
    frame = _read(sigma=True)
    assert frame.sky is None
    assert background_of(frame, _unusable(frame)).rms_median > 0
