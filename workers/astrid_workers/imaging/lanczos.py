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
Steps = NDArray[np.intp]

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


def _weights_of_two_pixels() -> Float32Image:
    """Weights `[tap, step]` at places up to two pixels beyond the third of seven; one of the seven is 0."""
    table = lanczos_weights(np.linspace(0.0, 1.0, _STEPS + 1)).astype(np.float32).T
    wide = np.zeros((TAPS + 1, 2 * _STEPS + 1), np.float32)
    wide[1:, _STEPS:] = table
    wide[:TAPS, : _STEPS + 1] = table
    return wide


_TABLE = _weights_of_two_pixels()
_SQUARES = (_TABLE[:, : _STEPS + 1].astype(np.float64) ** 2).sum(axis=0).astype(np.float32)


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

    Where a block of places lies on the image's own grid, by less than two pixels further on here than there,
    its taps are parts of the image; elsewhere they are gathered, which takes up to twice as long.
    """
    left, bottom = np.floor(x), np.floor(y)
    step_x = np.rint((x - left) * _STEPS).astype(np.intp)
    step_y = np.rint((y - bottom) * _STEPS).astype(np.intp)
    column, row = left.astype(np.intp), bottom.astype(np.intp)
    whole, column, row = _window(image, column, row)
    values = np.empty(x.shape, np.float32)
    for start in range(0, x.shape[1], _BLOCK_PX):
        part = (slice(None), slice(start, start + _BLOCK_PX))
        values[part] = _block(whole, column[part], row[part], step_x[part], step_y[part])
    return values, _SQUARES.take(step_x) * _SQUARES.take(step_y)


def _block(whole: Float32Image, column: Steps, row: Steps, step_x: Steps, step_y: Steps) -> Float32Image:
    """A block of places whose first taps these are, `step_x` and `step_y` beyond their third."""
    height, width = column.shape
    right, down = column - np.arange(width), row - np.arange(height)[:, None]
    left, top = int(right.min()), int(down.min())
    right -= left
    down -= top
    more = max(int(right.max()), int(down.max()))  # taps than one place has, so that all share the same
    if more > 1:
        return _weighted(_gathered(whole, column, row), TAPS, step_x, step_y)
    if more:
        step_x, step_y = step_x + right * _STEPS, step_y + down * _STEPS
    return _weighted(
        lambda down, tap: whole[top + down : top + down + height, left + tap : left + tap + width],
        TAPS + more,
        step_x,
        step_y,
    )


def _weighted(taps: Taps, number: int, step_x: Steps, step_y: Steps) -> Float32Image:
    """The sum of all taps: a number of them along each of as many rows."""
    across = [_TABLE[tap].take(step_x) for tap in range(number)]
    values = np.zeros(step_y.shape, np.float32)
    line, term = np.empty_like(values), np.empty_like(values)
    for down in range(number):
        np.multiply(taps(down, 0), across[0], out=line)
        for tap in range(1, number):
            np.multiply(taps(down, tap), across[tap], out=term)
            line += term
        line *= _TABLE[down].take(step_y)
        values += line
    return values


def _gathered(whole: Float32Image, column: Steps, row: Steps) -> Taps:
    """Taps of places that do not lie on the image's grid."""
    flat, side = whole.ravel(), whole.shape[1]
    first = row * side + column
    return lambda down, tap: flat[down * side + tap :].take(first, mode="clip")


def _window(
    image: Float32Image, column: NDArray[np.intp], row: NDArray[np.intp]
) -> tuple[Float32Image, NDArray[np.intp], NDArray[np.intp]]:
    """The part of the image that these places touch with a pixel more on every side, edges continued; where
    each first tap stands in it.
    """
    ny, nx = image.shape
    low, high = int(row.min()) - 3, int(row.max()) + 4
    start, stop = int(column.min()) - 3, int(column.max()) + 4
    inside = image[max(low, 0) : min(high, ny - 1) + 1, max(start, 0) : min(stop, nx - 1) + 1]
    top, left = max(-low, 0), max(-start, 0)
    bottom, right = top + inside.shape[0], left + inside.shape[1]
    whole = np.empty((high - low + 1, stop - start + 1), np.float32)
    whole[top:bottom, left:right] = inside
    whole[top:bottom, :left], whole[top:bottom, right:] = inside[:, :1], inside[:, -1:]
    whole[:top], whole[bottom:] = whole[top], whole[bottom - 1]
    return whole, column - 2 - start, row - 2 - low
