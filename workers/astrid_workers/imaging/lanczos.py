"""Lanczos interpolation of order three.

Owns the kernel and its two arrangements (a pure shift, any map); never knows a mask.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from astrid_workers.frame import Float32Image

Float64Array = NDArray[np.float64]
#: What stands so many rows and columns from the first tap of each place of a block.
Taps = Callable[[int, int], Float32Image]

#: Pixels per axis that contribute to an interpolated one.
TAPS = 6
#: Sub-pixel places for which weights are kept: a place is rounded by at most 1/4096 pixel.
_STEPS = 2048
#: Columns that are interpolated together: what is touched stays inside the processor's cache.
_BLOCK_PX = 128


def lanczos_weights(fraction: Float64Array) -> Float64Array:
    """Weights of the six pixels around a place, `(…, 6)`, for `fraction` in [0, 1] beyond the third; they sum
    to 1.
    """
    distance = fraction[..., None] - np.arange(-2, 4)
    weights = np.sinc(distance) * np.sinc(distance / 3) * (np.abs(distance) < 3)
    normalised: Float64Array = weights / weights.sum(axis=-1, keepdims=True)
    return normalised


_TABLE = lanczos_weights(np.linspace(0.0, 1.0, _STEPS + 1)).astype(np.float32).T.copy()
_SQUARES = (_TABLE.astype(np.float64) ** 2).sum(axis=0).astype(np.float32)


def sum_of_squares(shift: float) -> float:
    """Variance of a pixel interpolated at a fraction of `shift`, in units of one pixel's: 1 for whole
    pixels.
    """
    weights = lanczos_weights(np.array([shift - np.floor(shift)]))
    return float((weights**2).sum())


def shifted(image: Float32Image, x: Float64Array, y: Float64Array) -> Float32Image:
    """`image` at columns `x` and rows `y`, each equally spaced by one pixel; the edge's values continue
    outside.
    """
    across = _shifted_axis(image, float(x[0]), x.size, 1)
    return _shifted_axis(across, float(y[0]), y.size, 0)


def _shifted_axis(image: Float32Image, first: float, size: int, axis: int) -> Float32Image:
    whole = int(np.floor(first))
    weights = lanczos_weights(np.array([first - whole]))[0]
    index = np.clip(np.arange(whole - 3, whole + size + 3), 0, image.shape[axis] - 1)
    band = np.take(image, index, axis=axis)
    if first == whole:
        moved = band
    else:
        # correlate1d of even length centres on tap 3: tap k holds the pixel at offset k - 3 … so 7 taps, one
        # of them 0
        moved = ndimage.correlate1d(band, np.concatenate([[0.0], weights]).astype(np.float32), axis=axis)
    inner = (slice(None), slice(3, 3 + size)) if axis == 1 else (slice(3, 3 + size), slice(None))
    return moved[inner]


def interpolated(image: Float32Image, x: Float64Array, y: Float64Array) -> tuple[Float32Image, Float32Image]:
    """`image` at places `x, y` (one shape `[y, x]`, inside the image), and the variance of each in units of
    one pixel's.

    Where a block of places lies on the image's own grid, shifted by less than a pixel more here than there,
    its taps are parts of the image; elsewhere they are gathered, which takes three times as long.
    """
    left, bottom = np.floor(x), np.floor(y)
    step_x = np.rint((x - left) * _STEPS).astype(np.intp)
    step_y = np.rint((y - bottom) * _STEPS).astype(np.intp)
    column, row = left.astype(np.intp), bottom.astype(np.intp)
    whole, column, row = _window(image, column, row)
    values = np.empty(x.shape, np.float32)
    for start in range(0, x.shape[1], _BLOCK_PX):
        part = (slice(None), slice(start, start + _BLOCK_PX))
        taps = _taps(whole, column[part], row[part])
        across = [_TABLE[tap].take(step_x[part]) for tap in range(TAPS)]
        values[part] = _weighted(taps, across, step_y[part])
    return values, _SQUARES.take(step_x) * _SQUARES.take(step_y)


def _weighted(taps: Taps, across: list[Float32Image], step_y: NDArray[np.intp]) -> Float32Image:
    """The sum of all taps: six along each of six rows."""
    values = np.zeros(step_y.shape, np.float32)
    line, term = np.empty_like(values), np.empty_like(values)
    for down in range(TAPS):
        line[:] = 0
        for tap, weight in enumerate(across):
            np.multiply(taps(down, tap), weight, out=term)
            line += term
        line *= _TABLE[down].take(step_y)
        values += line
    return values


def _taps(whole: Float32Image, column: NDArray[np.intp], row: NDArray[np.intp]) -> Taps:
    """Those of places whose first taps are these: parts of the image where the places lie on its grid."""
    height, width = column.shape
    top, left = int(row[0, 0]), int(column[0, 0])
    if (row == top + np.arange(height)[:, None]).all() and (column == left + np.arange(width)).all():
        return lambda down, tap: whole[top + down : top + down + height, left + tap : left + tap + width]
    flat, side = whole.ravel(), whole.shape[1]
    first = row * side + column
    return lambda down, tap: flat[down * side + tap :].take(first, mode="clip")


def _window(
    image: Float32Image, column: NDArray[np.intp], row: NDArray[np.intp]
) -> tuple[Float32Image, NDArray[np.intp], NDArray[np.intp]]:
    """The part of the image that these places touch, edges continued, and where each first tap stands in
    it.
    """
    ny, nx = image.shape
    low, high = int(row.min()) - 2, int(row.max()) + 3
    start, stop = int(column.min()) - 2, int(column.max()) + 3
    inside = image[max(low, 0) : min(high, ny - 1) + 1, max(start, 0) : min(stop, nx - 1) + 1]
    top, left = max(-low, 0), max(-start, 0)
    bottom, right = top + inside.shape[0], left + inside.shape[1]
    whole = np.empty((high - low + 1, stop - start + 1), np.float32)
    whole[top:bottom, left:right] = inside
    whole[top:bottom, :left], whole[top:bottom, right:] = inside[:, :1], inside[:, -1:]
    whole[:top], whole[bottom:] = whole[top], whole[bottom - 1]
    return whole, column - 2 - start, row - 2 - low
