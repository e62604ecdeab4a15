"""Lanczos interpolation of order three.

Owns the kernel and its two arrangements (a pure shift, any map); never knows a mask.
"""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from astrid_workers.frame import Float32Image

Float64Array = NDArray[np.float64]

#: Pixels per axis that contribute to an interpolated one.
TAPS = 6
#: Sub-pixel places for which weights are kept: a place is rounded by at most 1/4096 pixel.
_STEPS = 2048


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
    """`image` at places `x, y` (one shape, inside the image), and the variance of each in units of one
    pixel's.
    """
    left, bottom = np.floor(x), np.floor(y)
    step_x = np.rint((x - left) * _STEPS).astype(np.intp)
    step_y = np.rint((y - bottom) * _STEPS).astype(np.intp)
    column, row = left.astype(np.intp), bottom.astype(np.intp)
    base, flat, width = _window(image, column, row)
    across = [_TABLE[tap].take(step_x) for tap in range(TAPS)]
    values = np.zeros(x.shape, np.float32)
    line, term = np.empty(x.shape, np.float32), np.empty(x.shape, np.float32)
    for down in range(TAPS):
        line[:] = 0
        for tap in range(TAPS):
            np.take(flat[down * width + tap :], base, out=term, mode="clip")
            term *= across[tap]
            line += term
        line *= _TABLE[down].take(step_y)
        values += line
    return values, _SQUARES.take(step_x) * _SQUARES.take(step_y)


def _window(
    image: Float32Image, column: NDArray[np.intp], row: NDArray[np.intp]
) -> tuple[NDArray[np.intp], Float32Image, int]:
    """The part of the image that these places touch, edges continued, flat, and where each first tap stands
    in it.
    """
    ny, nx = image.shape
    low, high = int(row.min()) - 2, int(row.max()) + 3
    start, stop = int(column.min()) - 2, int(column.max()) + 3
    part = image[max(low, 0) : min(high, ny - 1) + 1, max(start, 0) : min(stop, nx - 1) + 1]
    padding = (
        (max(-low, 0), max(high - ny + 1, 0)),
        (max(-start, 0), max(stop - nx + 1, 0)),
    )
    whole = np.pad(part, padding, mode="edge") if np.any(padding) else np.ascontiguousarray(part)
    width = whole.shape[1]
    return (row - 2 - low) * width + (column - 2 - start), whole.ravel(), width
