"""Small squares of an image.

Owns cutting; never resamples and never scales.
"""

import numpy as np
from numpy.typing import NDArray

from astrid_workers.frame import Float32Image, Uint32Image


def cutout(image: NDArray[np.floating] | Uint32Image, x: float, y: float, size_px: int) -> Float32Image:
    """A float32 square `(size_px, size_px)` whose pixel `size_px // 2` is the one nearest to `x, y`; NaN
    outside.

    A copy: changing it does not change `image`. Raises ValueError unless `size_px` is positive.
    """
    if size_px < 1:
        msg = f"a cutout needs a positive size, got {size_px}"
        raise ValueError(msg)
    ny, nx = image.shape
    left, bottom = round(float(x)) - size_px // 2, round(float(y)) - size_px // 2
    square = np.full((size_px, size_px), np.nan, np.float32)
    rows = slice(max(bottom, 0), max(min(bottom + size_px, ny), 0))
    columns = slice(max(left, 0), max(min(left + size_px, nx), 0))
    if rows.start < rows.stop and columns.start < columns.stop:
        square[rows.start - bottom : rows.stop - bottom, columns.start - left : columns.stop - left] = image[
            rows, columns
        ]
    return square
