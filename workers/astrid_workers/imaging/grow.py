"""Growing a mask by whole pixels, fast.

Owns dilations with a square and with a diamond; never looks at an image.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

BoolImage = NDArray[np.bool_]


#: Rows that are grown together at least: keeps the working set inside the processor's cache.
_ROWS = 64


def grow(mask: BoolImage, pixels: int) -> BoolImage:
    """True within `pixels` of a True pixel along both axes (a square of side 2 `pixels` + 1); a copy.

    Shifted copies are joined with steps that double, far faster than a dilation that visits every pixel;
    bands of rows without a True pixel near them are left alone.
    """
    return _by_bands(mask, pixels, _square)


def grow_diamond(mask: BoolImage, pixels: int) -> BoolImage:
    """True within `pixels` steps of a True pixel, each step along one axis; a copy."""
    return _by_bands(mask, pixels, _diamond)


def _by_bands(mask: BoolImage, pixels: int, grown_by: Callable[[BoolImage, int], BoolImage]) -> BoolImage:
    ny = mask.shape[0]
    grown = np.zeros(mask.shape, bool)
    rows = max(_ROWS, 4 * pixels)
    for start in range(0, ny, rows):
        low, stop = max(start - pixels, 0), min(start + rows, ny)
        around = mask[low : min(stop + pixels, ny)]
        if around.any():
            grown[start:stop] = grown_by(around, pixels)[start - low : stop - low]
    return grown


def _square(mask: BoolImage, pixels: int) -> BoolImage:
    """Runs of 2 `pixels` + 1 along each axis, joined from runs whose lengths double."""
    grown = mask
    for axis in (0, 1):
        size, margin = grown.shape[axis], min(pixels, grown.shape[axis] - 1)
        runs = _framed(grown, margin, axis)
        length = 1
        while length < 2 * margin + 1:
            step = min(length, 2 * margin + 1 - length)
            runs = runs[_first(axis, runs.shape[axis] - step)] | runs[_from(axis, step)]
            length += step
        grown = runs[_first(axis, size)]
    return grown


def _framed(mask: BoolImage, margin: int, axis: int) -> BoolImage:
    """The mask with `margin` False pixels at both ends of an axis."""
    shape = list(mask.shape)
    shape[axis] += 2 * margin
    framed = np.zeros(shape, bool)
    framed[_from(axis, margin)][_first(axis, mask.shape[axis])] = mask
    return framed


def _first(axis: int, count: int) -> tuple[slice, ...]:
    return (slice(count),) if axis == 0 else (slice(None), slice(count))


def _from(axis: int, start: int) -> tuple[slice, ...]:
    return (slice(start, None),) if axis == 0 else (slice(None), slice(start, None))


def _diamond(mask: BoolImage, pixels: int) -> BoolImage:
    grown = mask.copy()
    for _ in range(pixels):
        before = grown.copy()
        for axis in (0, 1):
            later, earlier = _slices(axis, 1)
            grown[later] |= before[earlier]
            grown[earlier] |= before[later]
    return grown


def _slices(axis: int, step: int) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    whole = slice(None)
    later, earlier = slice(step, None), slice(None, -step)
    return ((later, whole), (earlier, whole)) if axis == 0 else ((whole, later), (whole, earlier))
