"""Cutouts are centred and honest about the edge."""

import numpy as np
import pytest

from astrid_workers.imaging.cutout import cutout

IMAGE = np.arange(100, dtype=np.float32).reshape(10, 10)


@pytest.mark.parametrize("size", [1, 4, 5])
def test_the_middle_pixel_is_the_nearest(size: int) -> None:
    """Pixel size // 2 of the square is the one that was asked for."""
    square = cutout(IMAGE, 5.4, 6.6, size)
    assert square.shape == (size, size)
    assert square[size // 2, size // 2] == IMAGE[7, 5]


@pytest.mark.parametrize(
    ("x", "y", "inside"), [(0, 0, 9), (9, 9, 9), (-2, 5, 5), (-3, 5, 0), (500, -500, 0), (5, 5, 25)]
)
def test_outside_is_nan(x: float, y: float, inside: int) -> None:
    """Beyond the frame nothing was measured, even far beyond."""
    assert np.isfinite(cutout(IMAGE, x, y, 5)).sum() == inside


def test_a_cutout_is_a_copy() -> None:
    """Scribbling on it leaves the frame alone."""
    square = cutout(IMAGE, 5, 5, 3)
    square[:] = -1
    assert IMAGE[5, 5] == 55


def test_a_size_must_be_positive() -> None:
    """A mistake of the caller."""
    with pytest.raises(ValueError, match="positive size"):
        cutout(IMAGE, 1, 1, 0)
