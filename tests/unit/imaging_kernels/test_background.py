"""The sky is measured under the sources, not with them."""

import numpy as np
import pytest

from astrid_workers.errors import FrameRejected
from astrid_workers.imaging.background import estimate_background
from astrid_workers.sky import make_sky


@pytest.mark.parametrize(("n_stars", "n_galaxies"), [(0, 0), (200, 0), (400, 200)])
def test_sources_do_not_raise_the_sky(n_stars: int, n_galaxies: int) -> None:
    """Level within 0.04 sigma and rms within 1.5 %, empty or crowded (1500 stars per Mpix and galaxies)."""
    sky = make_sky(seed=1, n_stars=n_stars, n_galaxies=n_galaxies, n_transients=0)
    found = estimate_background(sky.science.science)
    sigma = np.sqrt(425.0)
    assert found.median == pytest.approx(400.0, abs=0.04 * sigma)
    assert found.rms_median == pytest.approx(sigma, rel=0.015)


def test_a_gradient_is_followed() -> None:
    """A sky that rises by four sigma across the frame is tracked to 0.15 sigma."""
    sky = make_sky(seed=2, n_stars=100, gradient_e=80.0, n_transients=0)
    error = estimate_background(sky.science.science).level - sky.background_science
    assert np.sqrt(np.mean(error**2)) < 0.15 * np.sqrt(425.0)


@pytest.mark.parametrize(("rise_e", "error_sigma", "rms_error"), [(400.0, 0.15, 0.06), (1000.0, 0.35, 0.12)])
def test_a_steep_gradient_is_no_noise(rise_e: float, error_sigma: float, rms_error: float) -> None:
    """A sky that rises by three or eight sigma from cell to cell along both axes: the level follows, the rms is the pixels' own."""
    sky = make_sky(seed=2, shape=(768, 768), n_stars=500, n_transients=0)
    slope = (np.linspace(0, rise_e, 768)[:, None] + np.linspace(0, rise_e, 768)).astype(np.float32)
    found = estimate_background(sky.science.science + slope)
    sigma = np.sqrt(425.0)
    inside = np.s_[64:-64, 64:-64]
    error = found.level - (sky.background_science + slope)
    assert np.sqrt(np.mean(error[inside] ** 2)) < error_sigma * sigma
    assert found.rms[inside] == pytest.approx(np.full((640, 640), sigma), rel=rms_error)


def test_masked_pixels_do_not_count() -> None:
    """A burnt-out block, masked, changes nothing elsewhere and the level under it stays finite."""
    sky = make_sky(seed=3, n_stars=50, n_transients=0).science
    spoilt, mask = sky.science.copy(), np.zeros(sky.shape, bool)
    spoilt[100:260, 100:260], mask[100:260, 100:260] = 1e6, True
    found = estimate_background(spoilt, mask)
    assert np.isfinite(found.level).all()
    assert np.abs(found.level - 400).max() < 10


@pytest.mark.parametrize("share", [0.3, 0.45, 0.6])
def test_what_is_masked_makes_no_noise_a_source(share: float) -> None:
    """A frame of which a strip is missing has the sources of the whole frame in the rest, and no more."""
    image = make_sky(seed=3, n_stars=50, n_transients=0).science.science
    first = round(share * image.shape[1])
    cut, mask = image.copy(), np.zeros(image.shape, bool)
    cut[:, :first], mask[:, :first] = 0.0, True
    whole, rest = estimate_background(image), estimate_background(cut, mask)
    inside = np.s_[:, first + 8 :]
    assert rest.sources[inside].mean() == pytest.approx(whole.sources[inside].mean(), abs=0.02)


def test_a_sky_that_hardly_shows_is_measured() -> None:
    """Where sources cover more than half of every cell, the rest tells; it is not taken for no sky at all."""
    drawn = make_sky(
        seed=7, shape=(1024, 1024), n_stars=860, n_galaxies=480, n_transients=0, fwhm_science_px=3.6
    ).science.science
    binned = drawn.reshape(512, 2, 512, 2).sum(axis=(1, 3))
    found = estimate_background(binned)
    sigma = 2 * np.sqrt(425.0)
    assert found.sources.mean() > 0.55
    assert found.level == pytest.approx(np.full(binned.shape, 1600.0), abs=0.6 * sigma)
    assert found.rms_median == pytest.approx(sigma, rel=0.05)


@pytest.mark.parametrize("usable", [0.2, 0.4])
def test_cells_of_which_most_is_masked_are_measured(usable: float) -> None:
    """Masked rows in every cell: the level is that of what is left, to its own error."""
    image = np.random.default_rng(5).normal(400.0, 20.0, (512, 512)).astype(np.float32)
    mask = np.zeros(image.shape, bool)
    mask[np.arange(512) % 10 >= 10 * usable] = True
    image[mask] = 1e5
    found = estimate_background(image, mask)
    assert found.level == pytest.approx(np.full(image.shape, 400.0), abs=2.0)
    assert found.rms_median == pytest.approx(20.0, rel=0.03)


def test_the_unit_does_not_matter() -> None:
    """Scaling the image scales level and rms, however small or large the numbers."""
    sky = make_sky(seed=4, shape=(256, 256), n_stars=50).science.science
    one, other = estimate_background(sky), estimate_background(sky * np.float32(1e-6))
    np.testing.assert_allclose(other.rms, one.rms * 1e-6, rtol=1e-3)
    np.testing.assert_allclose(other.level, one.level * 1e-6, rtol=1e-3)


@pytest.mark.parametrize("shape", [(20, 20), (30, 700), (65, 33)])
def test_small_and_narrow_frames_are_measured(shape: tuple[int, int]) -> None:
    """The mesh shrinks to what fits."""
    pixels = np.random.default_rng(5).normal(50, 3, shape).astype(np.float32)
    found = estimate_background(pixels)
    assert found.median == pytest.approx(50, abs=1.0)
    assert found.rms_median == pytest.approx(3, rel=0.15)


def test_equal_pixels_have_no_scatter_and_no_nan() -> None:
    """A constant image is a level with a vanishing, positive rms."""
    found = estimate_background(np.full((64, 64), 7.0, np.float32))
    assert found.median == 7.0
    assert (found.rms > 0).all()
    assert found.rms_median < 1e-3


def test_a_masked_frame_is_refused_with_numbers() -> None:
    """Nothing can be said of a sky of a few pixels."""
    mask = np.ones((20, 20), bool)
    mask[0, :10] = False
    with pytest.raises(FrameRejected, match="10 usable pixels of 400, need 64 to measure the sky") as refused:
        estimate_background(np.zeros((20, 20), np.float32), mask)
    assert refused.value.numbers == {"usable_pixels": 10, "required_pixels": 64}


def test_the_image_is_not_changed() -> None:
    """Estimators read."""
    sky = make_sky(seed=6, shape=(128, 128)).science.science
    before = sky.copy()
    estimate_background(sky, sky > 1000)
    np.testing.assert_array_equal(sky, before)
