"""Cosmic rays are found, stars are spared."""

import numpy as np
import pytest
from scipy import ndimage

from astrid_workers.imaging.cosmic_rays import SHARPER, find_cosmic_rays, star_contrast
from astrid_workers.sky import make_sky


@pytest.mark.parametrize("fwhm", [1.7, 2.4, 3.4, 5.0])
def test_rays_are_found_and_stars_are_spared(fwhm: float) -> None:
    """97 % of the rays, none of the star cores, under 30 false groups per Mpix."""
    sky = make_sky(
        seed=1,
        n_stars=250,
        n_galaxies=80,
        n_cosmic_rays=60,
        n_saturated=3,
        fwhm_science_px=fwhm,
        ellipticity_science=0.1,
    )
    frame = sky.science
    found = find_cosmic_rays(frame.science, frame.variance, fwhm, unusable=frame.mask != 0)
    labels, count = ndimage.label(sky.cosmic_rays_science & (frame.mask == 0), np.ones((3, 3)))
    hit = np.setdiff1d(np.unique(labels[found]), [0])
    assert hit.size >= 0.97 * count
    far = found & ~ndimage.binary_dilation(sky.cosmic_rays_science, iterations=3)
    assert ndimage.label(far, np.ones((3, 3)))[1] <= 8
    x, y = np.rint(sky.star_x).astype(int), np.rint(sky.star_y).astype(int)
    inside = (x >= 0) & (x < 512) & (y >= 0) & (y < 512)
    cores = np.zeros(frame.shape, bool)
    cores[y[inside], x[inside]] = True
    assert np.count_nonzero(far & cores) == 0


def test_a_ray_on_a_star_is_found() -> None:
    """A sharp spike on the flank of a bright star stands out of it."""
    sky = make_sky(seed=2, shape=(128, 128), n_stars=0, n_transients=0, fwhm_science_px=4.0)
    yy, xx = np.mgrid[:128, :128]
    image = sky.science.science + (5e3 * (1 + ((xx - 64.3) ** 2 + (yy - 63.8) ** 2) / 3.9**2) ** -3.0).astype(
        "f4"
    )
    variance = sky.science.variance + np.maximum(image - 400, 0)
    assert not find_cosmic_rays(image, variance, 4.0).any()
    image[66, 66] += 4000
    assert find_cosmic_rays(image, variance, 4.0)[66, 66]


@pytest.mark.parametrize("seed", range(4))
def test_noise_is_not_flagged(seed: int) -> None:
    """A blank quarter of a Mpix: at most two pixels."""
    sky = make_sky(seed=seed, n_stars=0, n_transients=0).science
    assert find_cosmic_rays(sky.science, sky.variance, 3.0).sum() <= 4


def test_unusable_pixels_are_neither_flagged_nor_compared_with() -> None:
    """A masked hot block does not spread to its neighbours."""
    sky = make_sky(seed=3, shape=(128, 128), n_stars=0, n_transients=0).science
    image, mask = sky.science.copy(), np.zeros(sky.shape, bool)
    image[50:60, 50:60], mask[50:60, 50:60] = 5e4, True
    image[90:95, 20:25], mask[90:95, 20:25] = 0, True
    found = find_cosmic_rays(image, sky.variance, 3.0, unusable=mask)
    assert not found[40:70, 40:70].any()
    assert not found[80:105, 10:35].any()
    assert not find_cosmic_rays(image, np.full(sky.shape, np.inf, np.float32), 3.0).any()


@pytest.mark.parametrize("fwhm", [2.0, 3.0, 4.5, 7.0])
def test_flanks_of_bright_stars_are_no_rays(fwhm: float) -> None:
    """Round or drawn out by a fifth, up to just below saturation: where slopes are steepest and noise is least
    beside them.
    """
    rng = np.random.default_rng(7)
    yy, xx = np.mgrid[:60, :60]
    for k in range(12):
        x, y, drawn_out = 29.5 + rng.uniform(-0.5, 0.5), 29.5 + rng.uniform(-0.5, 0.5), rng.uniform(0, 0.2)
        squares = (xx - x) ** 2 * (1 - drawn_out) + (yy - y) ** 2 / (1 - drawn_out)
        alpha = fwhm / 2 / np.sqrt(2 ** (1 / 3.5) - 1)
        expected = 100 + rng.uniform(3e4, 1e5) * (1 + squares / alpha**2) ** -3.5
        image = rng.poisson(expected).astype(np.float32)
        found = find_cosmic_rays(image, expected.astype(np.float32), fwhm)
        assert not found[squares < (2.5 * fwhm) ** 2].any(), k


def test_agrees_with_its_slow_twin() -> None:
    """The same three filters over every pixel: what they flag is found, and nothing that does not touch it."""
    sky = make_sky(seed=4, shape=(200, 240), n_stars=60, n_cosmic_rays=40, fwhm_science_px=2.6)
    image, variance = sky.science.science, sky.science.variance
    cross = np.array([[0, 1, 0], [1, 0, 1], [0, 1, 0]]) / 4
    height = image - ndimage.convolve(image.astype(float), cross, mode="mirror")
    fine = ndimage.median_filter(image, 3, mode="mirror") - ndimage.median_filter(image, 7, mode="mirror")
    contrast = SHARPER * star_contrast(2.6)
    excess = (height - contrast * np.maximum(fine, 0)) / np.sqrt(variance)
    cores = excess > 4.5 * np.hypot(1.118, contrast * 0.41)
    found = find_cosmic_rays(image, variance, 2.6)
    assert np.count_nonzero(cores) > 40
    assert found[cores].all()
    assert not (found & ~ndimage.binary_dilation(cores, np.ones((3, 3)), iterations=2)).any()


def test_wider_stars_have_less_contrast() -> None:
    """The limit falls with the width: a broad star is never as sharp as a ray."""
    contrasts = [star_contrast(f) for f in (1.5, 2.0, 3.0, 5.0)]
    assert contrasts == sorted(contrasts, reverse=True)
    assert contrasts[2] < 0.7


@pytest.mark.parametrize("width", [0.0, -1.0, float("nan"), float("inf")])
def test_a_width_that_is_none_is_a_mistake_of_the_caller(width: float) -> None:
    """Without the PSF's width rays and stars cannot be told apart."""
    blank = np.zeros((8, 8), np.float32)
    with pytest.raises(ValueError, match="a PSF width must be positive"):
        find_cosmic_rays(blank, blank + 1, width)
