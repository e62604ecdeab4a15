"""Bright stars of known places among galaxies, under masks and cosmic rays."""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from astrid_workers.imaging.bright_stars import bright_stars

FWHM, NOISE = 3.0, 10.0
SIGMA_PX = FWHM / 2.355


def blob(shape: tuple[int, int], x: float, y: float, sigma_px: float, flux: float) -> NDArray:
    """A round Gaussian."""
    rows, columns = np.indices(shape)
    square = (columns - x) ** 2 + (rows - y) ** 2
    return flux / (2 * np.pi * sigma_px**2) * np.exp(-square / (2 * sigma_px**2))


def places(image: NDArray, other: NDArray | None = None, seen: NDArray | None = None) -> set[tuple[int, int]]:
    """Of a frame and another one; `seen` is what was subtracted, if that differs."""
    error = np.full(image.shape, NOISE * np.sqrt(4 * np.pi) * SIGMA_PX, np.float32)
    light = (image if seen is None else seen) - 100.0
    filtered = ndimage.gaussian_filter(light, SIGMA_PX) * 4 * np.pi * SIGMA_PX**2
    images = [np.asarray(each, np.float32) for each in (image, image if other is None else other)]
    x, y = bright_stars((filtered / error).astype(np.float32), error, images, FWHM)
    return set(zip(x.astype(int).tolist(), y.astype(int).tolist(), strict=True))


def noise(seed: int, shape: tuple[int, int] = (200, 260)) -> NDArray:
    """A blank sky."""
    return np.random.default_rng(seed).normal(100.0, NOISE, shape)


def test_stars_are_found_and_galaxies_are_not() -> None:
    """Two stars, one at the very edge, a galaxy of as much light, and a star that is too faint to matter."""
    image = noise(1)
    shape = image.shape
    image += blob(shape, 60, 50, SIGMA_PX, 1e5) + blob(shape, 1, 120, SIGMA_PX, 5e4)
    image += blob(shape, 180, 140, 3.5, 1e5) + blob(shape, 200, 40, SIGMA_PX, 600)
    assert places(image) == {(60, 50), (1, 120)}


def test_a_star_whose_core_is_masked_is_found_at_its_peak() -> None:
    """The mask was filled smoothly before the subtraction, so that what was subtracted peaks beside it."""
    image = noise(2) + blob((200, 260), 90, 80, SIGMA_PX, 2e5)
    filled = noise(2) + blob((200, 260), 92, 79, 3.0, 4e4)
    assert places(image, seen=filled) == {(90, 80)}


def test_a_galaxy_that_a_cosmic_ray_hit_is_no_star() -> None:
    """A point in one frame is not enough."""
    galaxy = noise(3) + blob((200, 260), 180, 140, 3.5, 1e5)
    hit = galaxy.copy()
    hit[140, 181] += 5e4
    assert places(hit, other=galaxy) == set()
    assert places(galaxy, other=hit) == set()


def test_the_brightest_are_kept_where_there_are_too_many() -> None:
    """A hundred places per Mpix, ten at least; NaN does not disturb."""
    image, shape = noise(4), (200, 260)
    grid = [(18 + 36 * i, 18 + 48 * j) for i in range(7) for j in range(4)]  # each within one square
    for number, (x, y) in enumerate(grid):
        image += blob(shape, x, y, SIGMA_PX, 1e4 * (1 + number))
    seen = image.copy()
    image[20:24, 20:30] = np.nan
    assert places(image, seen=seen) == set(grid[-10:])


def test_an_empty_frame_has_none() -> None:
    """Noise only."""
    assert places(noise(5)) == set()
