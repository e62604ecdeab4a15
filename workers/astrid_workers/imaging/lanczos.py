"""Lanczos interpolation of order three.

Owns the kernel and its two arrangements (a pure shift, any map); never knows a mask.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

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
#: Places that do not lie on one grid are halved, while they are more columns than these, and no more pixels
#: apart: else it costs less to gather them.
_NARROWEST_PX, _MOST_APART = 64, 4


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

    Where places lie on the image's own grid, by less than two pixels further on here than there, their taps
    are parts of the image; elsewhere they are gathered, which takes up to twice as long. Fastest are some
    ten thousand places at once: what is touched stays inside the processor's cache.
    """
    left, bottom = np.floor(x), np.floor(y)
    step_x = np.rint((x - left) * _STEPS).astype(np.intp)
    step_y = np.rint((y - bottom) * _STEPS).astype(np.intp)
    places = _Places(left.astype(np.intp) - 2, bottom.astype(np.intp) - 2, step_x, step_y)
    values = np.empty(x.shape, np.float32)
    _fill(values, *_window(image, places))
    return values, _SQUARES.take(step_x) * _SQUARES.take(step_y)


@dataclass(frozen=True, slots=True, eq=False)
class _Places:
    """Places by their first taps, and the steps by which each lies beyond its third; all `[y, x]`."""

    column: Steps
    row: Steps
    step_x: Steps
    step_y: Steps

    def part(self, columns: slice) -> "_Places":
        """Those in some columns."""
        every = (slice(None), columns)
        return _Places(self.column[every], self.row[every], self.step_x[every], self.step_y[every])


def _fill(values: Float32Image, whole: Float32Image, places: _Places) -> None:
    """Write what `whole` is at `places`, by halves where all together do not lie on its grid."""
    height, width = values.shape
    right, down = places.column - np.arange(width), places.row - np.arange(height)[:, None]
    left, top = int(right.min()), int(down.min())
    right -= left
    down -= top
    across, along = int(right.max()), int(down.max())  # taps more than one place has, so that all share them
    if max(across, along) <= 1:
        _weigh(
            values,
            lambda down, tap: whole[top + down : top + down + height, left + tap : left + tap + width],
            (TAPS + along, TAPS + across),
            places.step_x + right * _STEPS if across else places.step_x,
            places.step_y + down * _STEPS if along else places.step_y,
        )
    elif width > _NARROWEST_PX and max(across, along) <= _MOST_APART:
        half = width // 2
        for columns in (slice(None, half), slice(half, None)):
            _fill(values[:, columns], whole, places.part(columns))
    else:
        taps = _gathered(whole, places.column, places.row)
        _weigh(values, taps, (TAPS, TAPS), places.step_x, places.step_y)


def _weigh(values: Float32Image, taps: Taps, number: tuple[int, int], step_x: Steps, step_y: Steps) -> None:
    """Write the sum of a number of taps along each of a number of rows."""
    across = [_TABLE[tap].take(step_x) for tap in range(number[1])]
    values[:] = 0
    line, term = np.empty(values.shape, np.float32), np.empty(values.shape, np.float32)
    for down in range(number[0]):
        np.multiply(taps(down, 0), across[0], out=line)
        for tap in range(1, number[1]):
            np.multiply(taps(down, tap), across[tap], out=term)
            line += term
        line *= _TABLE[down].take(step_y)
        values += line


def _gathered(whole: Float32Image, column: Steps, row: Steps) -> Taps:
    """Taps of places that do not lie on the image's grid."""
    flat, side = whole.ravel(), whole.shape[1]
    first = row * side + column
    return lambda down, tap: flat[down * side + tap :].take(first, mode="clip")


def _window(image: Float32Image, places: _Places) -> tuple[Float32Image, _Places]:
    """The part of the image that the taps of these places touch, a pixel more on every side, edges continued
    where it ends; the same places in it.
    """
    row, column = places.row, places.column
    (ny, nx), extra = image.shape, TAPS + 1
    low, high = int(row.min()) - 1, int(row.max()) + extra
    start, stop = int(column.min()) - 1, int(column.max()) + extra
    whole = image[max(low, 0) : min(high, ny), max(start, 0) : min(stop, nx)]
    beyond = ((max(-low, 0), max(high - ny, 0)), (max(-start, 0), max(stop - nx, 0)))
    if any(map(any, beyond)):
        whole = np.pad(whole, beyond, mode="edge")
    return whole, replace(places, column=column - start, row=row - low)
