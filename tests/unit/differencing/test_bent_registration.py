"""A registration that bends within a tile: slopes of kernels do not follow it, pixels do."""

import numpy as np
import pytest

from astrid_workers.differencing.tiles import Prepared, plan_tiles, subtract
from astrid_workers.imaging.noise_model import white_noise
from astrid_workers.imaging.psf import given_psf, moffat_stamp
from astrid_workers.imaging.transfer import shift_hats, stamp_hat
from astrid_workers.sky.light import Galaxies, Points, PsfModel, render

SHAPE = (256, 256)
FWHM, FLUX, GAIN = 3.0, 1e4, 0.8
#: A wave that is two tiles of 128 px long.
WAVE_PX, AMPLITUDE_PX = 256.0, 0.06


def bend(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Relative gain, shift x and shift y that take the reference to the science frame, stacked."""
    phase = 2 * np.pi / WAVE_PX
    return np.stack(
        [
            1 + 0.01 * np.sin(phase * (x + y)),
            AMPLITUDE_PX * np.sin(phase * x + 1),
            AMPLITUDE_PX * np.cos(phase * y) + 0 * x,
        ]
    )


class Bent:
    """a_n = P and a_r = gain × P, moved as `bend` says; what bends within a tile may be kept from the tiles."""

    varies = True

    def __init__(self, *, is_told: bool) -> None:
        self.psf, self.is_told = moffat_stamp(FWHM, 27), is_told

    def transfer(self, x: float, y: float, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        """At a place."""
        hat = stamp_hat(self.psf, size)
        moves = bend(np.array([x]), np.array([y])).T
        return hat, GAIN * hat * shift_hats(moves, size)[0]

    def moves_on_grid(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """On a grid; a plane where nothing is told."""
        columns, rows = np.meshgrid(x, y)
        return bend(columns, rows) if self.is_told else np.zeros((3, len(y), len(x)))


def left_at_stars(*, is_told: bool) -> tuple[np.ndarray, np.ndarray]:
    """Largest |difference| and |statistic| near each star, over the star's own peak in a lone frame."""
    x, y = (
        axis.ravel().astype(float) for axis in np.meshgrid(np.arange(20, 240, 24), np.arange(20, 240, 24))
    )
    x, y = x + 0.3, y - 0.2
    gain, dx, dy = bend(x, y)
    none = Galaxies(*(np.empty(0) for _ in range(6)))
    psf = PsfModel(FWHM)
    science = render(SHAPE, Points(x, y, np.full(x.size, FLUX)), none, psf).astype(np.float32)
    reference = render(SHAPE, Points(x - dx, y - dy, FLUX / (GAIN * gain)), none, psf).astype(np.float32)
    one = np.ones(SHAPE, np.float32)
    given = given_psf(moffat_stamp(FWHM, 27), SHAPE)
    pair = Prepared(
        science, reference, one, one, np.ones(SHAPE, bool), white_noise(), white_noise(), given, given
    )
    parts = subtract(pair, Bent(is_told=is_told), plan_tiles(SHAPE, 13, 128))
    rows, columns = np.rint(y).astype(int), np.rint(x).astype(int)
    steps = np.arange(-3, 4)
    window = rows[:, None, None] + steps[None, :, None], columns[:, None, None] + steps[None, None, :]
    peak = np.abs(parts.subtracted[rows, columns])
    return (
        np.abs(parts.difference[window]).max(axis=(1, 2)) / science[rows, columns],
        np.abs(parts.statistic[window]).max(axis=(1, 2)) / peak,
    )


@pytest.mark.parametrize("plane", [0, 1], ids=["difference", "statistic"])
def test_stars_are_subtracted_where_the_registration_bends(plane: int) -> None:
    """Slopes leave 2 % of a star and more at the far side of a tile; moved pixel by pixel, some per mille."""
    followed, sloping = left_at_stars(is_told=True)[plane], left_at_stars(is_told=False)[plane]
    assert sloping.max() > 0.015
    assert np.median(followed) < 0.4 * np.median(sloping)
    assert followed.max() < 0.3 * sloping.max()
    assert followed.max() < 0.008
