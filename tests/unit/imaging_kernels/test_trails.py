"""Short trails of known length against points, pairs and broad light."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import signal

from astrid_workers.imaging.point_sources import moved_stamp
from astrid_workers.imaging.psf import moffat_stamp
from astrid_workers.imaging.streaks import Streak
from astrid_workers.imaging.trails import fitted_trail

FWHM, SIDE, MIDDLE = 3.4, 141, 70
PSF = moffat_stamp(FWHM, 33)
#: Flux of a point of one sigma.
ONE_SIGMA = 1 / float(np.sqrt((PSF.astype(float) ** 2).sum()))
Light = list[tuple[float, float, float]]


def drawn(light: Light, seed: int) -> NDArray:
    """Point sources (x and y from the middle, sigma) on white noise of one."""
    image = np.random.default_rng(seed).normal(0, 1, (SIDE, SIDE))
    for dx, dy, strength in light:
        x, y = MIDDLE + dx, MIDDLE + dy
        column, row = round(x), round(y)
        stamp = moved_stamp(PSF, x - column, y - row)
        image[row - 16 : row + 17, column - 16 : column + 17] += strength * ONE_SIGMA * stamp
    return image.astype(np.float32)


def trail(length_px: float, strength: float, degrees: float = 30.0) -> Light:
    """Even light: `strength` is that of a point of as much light."""
    n = int(4 * length_px)
    along = (np.arange(n) + 0.5) / n * length_px - length_px / 2
    turn = np.radians(degrees)
    return [(a * np.cos(turn) + 0.3, a * np.sin(turn) - 0.2, strength / n) for a in along]


def found(image: NDArray) -> Streak | None:
    """The trail of the strongest peak near the middle."""
    score = signal.fftconvolve(image, PSF[::-1, ::-1], mode="same") * ONE_SIGMA
    near = np.abs(score[MIDDLE - 20 : MIDDLE + 21, MIDDLE - 20 : MIDDLE + 21])
    row, column = np.unravel_index(int(np.argmax(near)), near.shape)
    place = (int(row) + MIDDLE - 20, int(column) + MIDDLE - 20)
    return fitted_trail(image, np.ones_like(image), score.astype(np.float32), PSF, place, FWHM)


@pytest.mark.parametrize(("length_px", "strength"), [(10.0, 60.0), (16.0, 60.0), (30.0, 80.0), (60.0, 120.0)])
@pytest.mark.parametrize("degrees", [0.0, 37.0, 90.0, 160.0])
@pytest.mark.parametrize("sign", [1, -1])
def test_a_trail_is_told_with_its_ends(length_px: float, strength: float, degrees: float, sign: int) -> None:
    """From three FWHM on, either way up; length within a fifth and a pixel, direction within five degrees."""
    told = found(sign * drawn(trail(length_px, strength, degrees), 1))

    assert told is not None
    assert told.length_px == pytest.approx(length_px, rel=0.2, abs=1.0)
    turn = np.degrees(np.arctan2(told.y1 - told.y0, told.x1 - told.x0))
    assert abs((turn - degrees + 90) % 180 - 90) < 5
    _, across = told.along_and_across(np.array([MIDDLE + 0.3]), np.array([MIDDLE - 0.2]))
    assert abs(across[0]) < 0.5


@pytest.mark.parametrize("strength", [8.0, 20.0, 60.0, 200.0])
@pytest.mark.parametrize(
    "light",
    [
        [(0.3, 0.1, 1.0)],
        [(0, 0, 1.0), (0.7 * FWHM, 0.4, 1.0)],
        [(0, 0, 1.0), (1.5 * FWHM, 0.4, 0.6)],
        [(0, 0, 1.0), (2.2 * FWHM, -1.0, 1.0)],
        [(0, 0, 1.0), (1.5 * FWHM, 0.4, 1.0), (1.5 * FWHM, 1.5 * FWHM, 1.0)],
        [(-1.2, 0.3, 1.0), (1.2, -0.3, -1.0)],
    ],
    ids=["point", "close pair", "pair", "wide pair", "three", "dipole"],
)
def test_points_are_no_trail(light: Light, strength: float) -> None:
    """However bright, alone, together, or one of them negative: eight draws of noise."""
    scaled = [(x, y, strength * share) for x, y, share in light]

    assert [found(drawn(scaled, seed)) for seed in range(8)] == [None] * 8


@pytest.mark.parametrize("strength", [30.0, 100.0])
def test_what_is_broader_than_the_psf_across_is_no_trail(strength: float) -> None:
    """A round blob and an even ellipse, twice the PSF across."""
    grid = [(x, y) for x in np.arange(-9, 10.0) for y in np.arange(-9, 10.0)]
    blob = [(x, y, np.exp(-(x * x + y * y) / 18)) for x, y in grid]
    ellipse = [(x, y, 1.0) for x, y in grid if (x / 9) ** 2 + (y / 4) ** 2 < 1]
    for shape in (blob, ellipse):
        total = sum(share for _, _, share in shape)
        scaled = [(x, y, strength * share / total) for x, y, share in shape]
        assert [found(drawn(scaled, seed)) for seed in range(4)] == [None] * 4


def test_what_is_narrower_than_the_psf_is_no_trail() -> None:
    """A cosmic ray: one pixel wide, twelve long."""
    for seed in range(4):
        image = drawn([], seed)
        image[MIDDLE, MIDDLE - 6 : MIDDLE + 6] += 15
        assert found(image) is None


def test_masked_pixels_and_the_frames_edge_are_no_reason_to_fail() -> None:
    """Half a trail without measured pixels is judged by the rest; a peak in the corner has a small window."""
    image = drawn(trail(24, 90.0, 0.0), 2)
    score = (signal.fftconvolve(image, PSF[::-1, ::-1], mode="same") * ONE_SIGMA).astype(np.float32)
    lost = image.copy()
    lost[:, MIDDLE + 4 : MIDDLE + 9] = np.nan
    variance = np.ones_like(image)
    told = fitted_trail(lost, variance, score, PSF, (MIDDLE, MIDDLE - 3), FWHM)
    assert told is not None
    assert fitted_trail(image[MIDDLE:, MIDDLE:], variance, score[MIDDLE:, MIDDLE:], PSF, (0, 0), FWHM) is None
    everywhere = np.full_like(image, np.nan)
    assert fitted_trail(everywhere, variance, score, PSF, (MIDDLE, MIDDLE), FWHM) is None
