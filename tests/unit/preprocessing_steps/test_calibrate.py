"""Raw frames come back to the sky that made them, with their errors, and nothing is claimed that was not done."""

from dataclasses import replace

import numpy as np
import pytest

from astrid_workers.errors import FrameRejected
from astrid_workers.frame import Frame, HeaderFacts
from astrid_workers.imaging.measured_frame import frame_from_pixels
from astrid_workers.mask import MaskBit
from astrid_workers.preprocessing.calibrate import calibrate
from astrid_workers.sky import make_sky

SHAPE = (200, 200)
GAIN, READ_ADU, BIAS, DARK_RATE = 2.0, 3.0, 1000.0, 0.5
RNG = np.random.default_rng(1)
YY, XX = np.mgrid[: SHAPE[0], : SHAPE[1]]
#: Vignetting to 70 % in a corner, and dust.
RESPONSE = (1 - 0.3 * (XX + YY) / (SHAPE[0] + SHAPE[1])) * np.where(
    (XX - 60) ** 2 + (YY - 80) ** 2 < 200, 0.8, 1.0
)
BIAS_SHAPE = BIAS + 20 * np.sin(XX / 15)


def adu_frame(
    adu: np.ndarray, name: str, *, exposure: float | None = 60.0, gain: float | None = GAIN
) -> Frame:
    facts = HeaderFacts(
        exposure_s=exposure,
        gain_e_per_adu=gain,
        read_noise_e=READ_ADU * GAIN,
        saturation=60_000.0,
        image_type=name if name in ("bias", "dark", "flat") else "object",
    )
    return frame_from_pixels(adu.astype(np.float32), facts=facts, unit="adu", name=name)


def masters() -> dict[str, Frame]:
    """Bias, dark of 120 s with its bias, and a flat, each with little noise."""
    return {
        "bias": adu_frame(BIAS_SHAPE + RNG.normal(0, 0.3, SHAPE), "bias", exposure=None),
        "dark": adu_frame(BIAS_SHAPE + 120 * DARK_RATE + RNG.normal(0, 0.3, SHAPE), "dark", exposure=120.0),
        "flat": adu_frame(30_000 * RESPONSE + RNG.normal(0, 20, SHAPE), "flat", exposure=2.0),
    }


def raw(electrons: np.ndarray, *, gain: float | None = GAIN) -> Frame:
    """What the detector makes of an expected image in electrons at full response: whole numbers."""
    light = RNG.poisson(np.maximum(electrons * RESPONSE, 0)) / GAIN
    dark = RNG.poisson(60 * DARK_RATE * GAIN, SHAPE) / GAIN
    adu = np.rint(BIAS_SHAPE + light + dark + RNG.normal(0, READ_ADU, SHAPE))
    return adu_frame(adu, "raw", gain=gain)


def normalised() -> np.ndarray:
    return RESPONSE / np.median(RESPONSE)


@pytest.mark.parametrize("gain", [GAIN, None])
def test_bias_dark_and_flat_bring_the_sky_back(gain: float | None) -> None:
    """A flat sky of 4000 e- comes out flat, in electrons, whether GAIN is known or read off the corrected sky."""
    sky = np.full(SHAPE, 4000.0)
    done = calibrate(raw(sky, gain=gain), **masters())
    expected = 4000.0 * np.median(RESPONSE)
    tolerance = 0.003 if gain else 0.08
    assert done.frame.unit == "electron"
    assert np.median(done.frame.science) == pytest.approx(expected, rel=tolerance)
    blocks = done.frame.science.reshape(10, 20, 10, 20).mean(axis=(1, 3))
    assert blocks.std() / blocks.mean() < 0.003
    assert done.frame.facts.gain_e_per_adu == pytest.approx(GAIN, rel=0.08)


def test_the_order_of_gain_and_corrections_does_not_show() -> None:
    """Calibration frames with another gain, or already in ADU, subtract the same ADU."""
    frame, parts = raw(np.full(SHAPE, 3000.0)), masters()
    one = calibrate(frame, **parts).frame
    other_gain = {**parts, "bias": adu_frame(_adu(parts["bias"]), "bias", gain=7.0)}
    in_adu = {**parts, "bias": replace(parts["bias"], science=_adu(parts["bias"]), unit="adu")}
    for changed in (other_gain, in_adu):
        np.testing.assert_allclose(calibrate(frame, **changed).frame.science, one.science, atol=0.05)


def _adu(frame: Frame) -> np.ndarray:
    return frame.science / np.float32(frame.facts.gain_e_per_adu or 1.0)


def test_the_variance_is_that_of_the_result() -> None:
    """Scatter over the variance is one, also where the flat is low."""
    done = calibrate(raw(np.full(SHAPE, 4000.0)), **masters()).frame
    pulls = (done.science - 4000 * np.median(RESPONSE)) / np.sqrt(done.variance)
    assert pulls.std() == pytest.approx(1.0, abs=0.06)
    corner = pulls[150:, 150:]
    assert corner.std() == pytest.approx(1.0, abs=0.12)


@pytest.mark.parametrize(("exposure", "ratio"), [(60.0, 0.5), (120.0, 1.0), (240.0, 2.0)])
def test_darks_scale_with_exposure(exposure: float, ratio: float) -> None:
    """The current grows with time, the pedestal does not."""
    bias = adu_frame(BIAS_SHAPE, "bias")
    dark = adu_frame(BIAS_SHAPE + 120 * DARK_RATE, "dark", exposure=120.0)
    frame = adu_frame(BIAS_SHAPE + exposure * DARK_RATE + RNG.normal(0, 3, SHAPE), "raw", exposure=exposure)
    done = calibrate(frame, bias=bias, dark=dark)
    assert done.dark.factor == pytest.approx(ratio)
    assert done.dark.exposure_s == 120.0
    assert np.mean(done.frame.science) == pytest.approx(0.0, abs=0.2)


def test_a_dark_cannot_be_scaled_without_a_bias() -> None:
    """One sentence with both exposures; equal exposures need no bias."""
    dark = adu_frame(BIAS_SHAPE + 60, "long dark", exposure=120.0)
    with pytest.raises(
        FrameRejected, match="long dark: a dark of 120 s cannot be scaled to 60 s without a bias"
    ):
        calibrate(raw(np.full(SHAPE, 100.0)), dark=dark)
    same = adu_frame(BIAS_SHAPE + 60 * DARK_RATE, "dark", exposure=60.0)
    done = calibrate(raw(np.full(SHAPE, 100.0)), dark=same)
    assert np.median(done.frame.science) == pytest.approx(100 * np.median(RESPONSE), rel=0.03)


def test_a_dark_whose_bias_is_gone_keeps_it_so() -> None:
    """A bias-subtracted master dark is recognised by its level, and it is said."""
    bias = adu_frame(BIAS_SHAPE, "bias")
    dark = adu_frame(np.full(SHAPE, 120 * DARK_RATE) + RNG.normal(0, 0.3, SHAPE), "dark", exposure=120.0)
    done = calibrate(raw(np.zeros(SHAPE)), bias=bias, dark=dark)
    assert np.mean(done.frame.science) == pytest.approx(0.0, abs=0.3)
    assert any("its bias is gone already" in sentence for sentence in done.frame.assumed)


def test_a_missing_exposure_is_said() -> None:
    """The dark is taken as long as the frame."""
    dark = adu_frame(BIAS_SHAPE, "dark", exposure=None)
    done = calibrate(raw(np.full(SHAPE, 50.0)), dark=dark)
    assert done.dark.factor == 1.0
    assert any("an exposure time is missing" in sentence for sentence in done.frame.assumed)


def test_nothing_given_is_nothing_claimed() -> None:
    """Without calibration frames the pixels stay, and no correction says that it was applied."""
    frame = make_sky(seed=2, shape=(256, 256), n_stars=40).science
    done = calibrate(frame)
    assert not done.calibration_applied
    assert not any(step.applied for step in (done.bias, done.dark, done.flat))
    assert done.bias.factor is None
    np.testing.assert_array_equal(done.frame.science, frame.science)
    np.testing.assert_array_equal(done.frame.variance, frame.variance)


def test_every_step_names_its_frame_and_number() -> None:
    """Level of the bias, ratio of the dark, median of the flat."""
    done = calibrate(raw(np.full(SHAPE, 3000.0)), **masters())
    assert done.calibration_applied
    assert (done.bias.frame_name, done.dark.frame_name, done.flat.frame_name) == ("bias", "dark", "flat")
    assert done.bias.factor == pytest.approx(BIAS, abs=25)
    assert done.flat.factor == pytest.approx(30_000 * np.median(RESPONSE) * GAIN, rel=0.01)


def test_masks_grow_from_maps_flats_and_darks() -> None:
    """Bad pixels of a map, dead pixels of the flat, hot pixels of the dark, lost pixels of any."""
    parts = masters()
    parts["flat"].science[10, 10] = 1.0
    parts["flat"].mask[11, 11] = np.uint32(MaskBit.NO_DATA)
    parts["dark"].science[20, 20] += 5e3
    given = np.zeros(SHAPE, bool)
    given[30, 30] = True
    done = calibrate(raw(np.full(SHAPE, 3000.0)), **parts, bad_pixels=given).frame
    for y, x in ((10, 10), (11, 11), (20, 20), (30, 30)):
        assert done.mask[y, x] & MaskBit.BAD_PIXEL
    assert np.count_nonzero(done.mask & MaskBit.BAD_PIXEL) == 4
    assert np.isfinite(done.science).all()


def test_lost_pixels_stay_lost() -> None:
    """NO_DATA keeps 0 and infinite variance through every step."""
    adu = BIAS_SHAPE + 1500 + RNG.normal(0, 30, SHAPE)
    adu[50:55, 50:55] = np.nan
    done = calibrate(adu_frame(adu, "raw"), **masters()).frame
    lost = (done.mask & MaskBit.NO_DATA) != 0
    assert lost.sum() == 25
    assert (done.science[lost] == 0).all()
    assert np.isposinf(done.variance[lost]).all()
    assert not np.isnan(done.variance).any()


def test_saturation_follows_the_corrections() -> None:
    """The level loses the bias that the pixels lose, so that it still marks the same pixels."""
    frame = raw(np.full(SHAPE, 3000.0))
    done = calibrate(frame, bias=masters()["bias"]).frame
    assert done.facts.saturation == pytest.approx((60_000 - BIAS) * GAIN, rel=1e-3)


def test_shapes_must_agree() -> None:
    """One sentence with both sizes."""
    small = adu_frame(np.ones((50, 60)), "small flat")
    with pytest.raises(FrameRejected, match="small flat: 60 x 50 pixels, the frame raw has 200 x 200"):
        calibrate(raw(np.full(SHAPE, 10.0)), flat=small)
    with pytest.raises(FrameRejected, match="the bad-pixel map is 5 x 4 pixels, the frame 200 x 200"):
        calibrate(raw(np.full(SHAPE, 10.0)), bad_pixels=np.zeros((4, 5), bool))


def test_a_flat_must_be_positive() -> None:
    """A flat of zeros divides nothing."""
    with pytest.raises(FrameRejected, match="dark flat: the flat's median is"):
        calibrate(raw(np.full(SHAPE, 10.0)), flat=adu_frame(np.zeros(SHAPE), "dark flat"))


def test_cosmic_rays_are_masked_and_counted() -> None:
    """Nearly all rays of a star field, counted as groups; the pixels themselves stay."""
    sky = make_sky(seed=3, shape=(400, 400), n_stars=100, n_cosmic_rays=40)
    done = calibrate(sky.science)
    flagged = (done.frame.mask & MaskBit.COSMIC_RAY) != 0
    assert flagged[sky.cosmic_rays_science].mean() > 0.9
    assert 35 <= (done.n_cosmic_rays or 0) <= 48
    np.testing.assert_array_equal(done.frame.science, sky.science.science)
    assert done.fwhm_px == pytest.approx(3.2, rel=0.05)


def test_without_stars_rays_are_not_looked_for() -> None:
    """Nothing tells a ray from a star then: None, and said."""
    done = calibrate(make_sky(seed=4, shape=(200, 200), n_stars=0, n_transients=0, n_cosmic_rays=5).science)
    assert done.n_cosmic_rays is None
    assert any("cosmic rays could not be told" in sentence for sentence in done.frame.assumed)


def test_inputs_are_not_changed() -> None:
    """Frames are immutable: the same arrays afterwards, bit for bit."""
    frame, parts = raw(np.full(SHAPE, 3000.0)), masters()
    before = [(f.science.copy(), f.variance.copy(), f.mask.copy()) for f in (frame, *parts.values())]
    calibrate(frame, **parts)
    for f, (science, variance, mask) in zip((frame, *parts.values()), before, strict=True):
        np.testing.assert_array_equal(f.science, science)
        np.testing.assert_array_equal(f.variance, variance)
        np.testing.assert_array_equal(f.mask, mask)
