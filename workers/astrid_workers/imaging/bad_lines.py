"""Columns and rows of a detector that do not see the sky, where no bad-pixel map names them.

Owns finding pieces of lines that hold one value, or that stand off what lies beside them more sharply than
light can. Never judges a single pixel (`cosmic_rays.py` does), and never changes the image.
"""

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from astrid_workers.frame import Float32Image
from astrid_workers.imaging.fast_median import fast_median
from astrid_workers.imaging.noise import SIGMA_PER_MAD

BoolImage = NDArray[np.bool_]
Floats = NDArray[np.float32]

#: Length of the pieces that lines are judged by: a star covers the lesser part of one.
PIECE_PX = 64
#: Lines that stand beside each other and are bad together, at most.
MOST_TOGETHER = 2
#: Sigmas of its own median by which a piece stands off either side, 1.3 sigma of a pixel: a 2k frame has
#: 130,000 pieces, and less is a response that a flat did not level.
LEAST_SIGNIFICANCE = 6.0
#: Share of a line's offset that the lines beside it may have: the narrowest PSF, of 1.5 px, leaves 0.3.
FLANK_SHARE = 0.15
#: Share of a frame's lines above which they are its pattern, and not bad.
MOST_BAD = 0.02
#: Sigmas at which a pixel is clipped, and by which the means of such pixels differ in pieces to look at.
_CLIP, _SUSPECT = 3.0, 0.9
#: Every so many pixels along both axes tell the level and noise about a piece.
_SAMPLE = 4


def find_bad_lines(image: Float32Image, variance: Float32Image, unusable: BoolImage) -> BoolImage:
    """Pixels of bad columns and rows of `image` (float32 `[y, x]`, with its `variance`), True is bad.

    A piece of `PIECE_PX` pixels of a line is bad when all of its usable values are one and the same, or when
    its median stands off both neighbours by `LEAST_SIGNIFICANCE` of its own error, while these do not stand
    off what is beyond them: light is as wide as the PSF, a bad line one or two pixels. `unusable` pixels
    (True) say nothing. Lines of a frame that has too many of them are its pattern, and none of that axis is
    named.
    """
    found = np.zeros(image.shape, bool)
    if min(image.shape) < PIECE_PX:
        return found
    found |= _bad_columns(image, variance, unusable)
    found |= _bad_columns(image.T, variance.T, unusable.T).T
    return found


def _bad_columns(image: Float32Image, variance: Float32Image, unusable: BoolImage) -> BoolImage:
    pieces = image.shape[0] // PIECE_PX
    found = np.zeros(image.shape, bool)
    edges = np.linspace(0, image.shape[0], pieces + 1).astype(int)
    bad = np.zeros((pieces, image.shape[1]), bool)
    for number, (top, bottom) in enumerate(pairwise(edges)):
        rows = slice(top, bottom)
        bad[number] = _bad_pieces(image[rows], variance[rows], unusable[rows])
    if np.count_nonzero(bad.any(axis=0)) > max(2 * MOST_TOGETHER, MOST_BAD * image.shape[1]):
        return found
    # a piece between two bad ones is as bad, whatever star hides it
    bad[1:-1] |= bad[:-2] & bad[2:]
    for number, (top, bottom) in enumerate(pairwise(edges)):
        found[top:bottom, bad[number]] = True
    return found


def _bad_pieces(image: Float32Image, variance: Float32Image, unusable: BoolImage) -> NDArray[np.bool_]:
    """Which columns of a band are bad, `[x]`."""
    bad = np.zeros(image.shape[1], bool)
    bad[[column for column in _alike(image, unusable) if _stuck(image, unusable, column)]] = True
    offsets = _offsets(image, variance, unusable)
    for width in range(1, MOST_TOGETHER + 1):
        for first in _suspects(offsets, width):
            if _stands_off(image, unusable, first, width):
                bad[first : first + width] = True
    return bad


def _alike(image: Float32Image, unusable: BoolImage) -> NDArray[np.intp]:
    """Columns in which the few pixels that are looked at equal the next one; none where most columns do."""
    some, after = (slice(first, image.shape[0] - 1 + first, PIECE_PX // 8) for first in (0, 1))
    equal = ((image[some] == image[after]) | unusable[some]).all(axis=0) & ~unusable[some].all(axis=0)
    return np.flatnonzero(equal) if np.mean(equal) < MOST_BAD else np.zeros(0, np.intp)


def _stuck(image: Float32Image, unusable: BoolImage, column: int) -> bool:
    """Whether more than half of a column's pixels are usable, and all of these have one value."""
    values = image[~unusable[:, column], column]
    return values.size > image.shape[0] // 2 and bool((values == values[0]).all())


def _offsets(image: Float32Image, variance: Float32Image, unusable: BoolImage) -> Floats:
    """Mean of each column's clipped pixels above the sky about it, in sigma of a pixel, `[x]`."""
    level, sigma = (_by_blocks(plane, unusable) for plane in (image, variance))
    sigma = np.maximum(np.sqrt(sigma), np.float32(1e-30))
    clipped = np.clip(image, level - _CLIP * sigma, level + _CLIP * sigma)
    np.copyto(clipped, level, where=unusable)
    means: Floats = (clipped.mean(axis=0) - level) / sigma
    return means


def _by_blocks(plane: Float32Image, unusable: BoolImage) -> Floats:
    """Median of a sample of a band's usable pixels at each column, from blocks as wide as a piece is long; 0
    where none is usable.
    """
    every = (slice(None, None, _SAMPLE), slice(None, None, _SAMPLE))
    values = np.where(unusable[every], np.float32(np.nan), plane[every])
    side = PIECE_PX // _SAMPLE
    blocks = -(-values.shape[1] // side)
    values = np.pad(values, ((0, 0), (0, blocks * side - values.shape[1])), constant_values=np.nan)
    values = np.sort(values.reshape(-1, blocks, side).swapaxes(0, 1).reshape(blocks, -1), axis=1)
    counted = np.count_nonzero(np.isfinite(values), axis=1)
    medians = np.where(counted > 0, values[np.arange(blocks), counted // 2], np.float32(0))
    return np.repeat(medians, PIECE_PX)[: plane.shape[1]]


def _suspects(offsets: Floats, width: int) -> NDArray[np.intp]:
    """First columns of `width` that may stand off both sides, the same way: cheap, and wrong at stars."""
    left, right = offsets[: -width - 1], offsets[width + 1 :]
    above, below = np.maximum(left, right) + _SUSPECT, np.minimum(left, right) - _SUSPECT
    inner = [offsets[step : step + left.size] for step in range(1, width + 1)]
    stands = np.all([one > above for one in inner], axis=0) | np.all([one < below for one in inner], axis=0)
    return np.flatnonzero(stands) + 1


def _stands_off(image: Float32Image, unusable: BoolImage, first: int, width: int) -> bool:
    """Whether each of `width` columns stands off both sides, the same way, and light would not."""
    if first < 2 or first + width + 1 >= image.shape[1]:
        return False
    kept = ~unusable[:, first - 2 : first + width + 2].any(axis=1)
    if np.count_nonzero(kept) <= image.shape[0] // 2:
        return False
    seen = image[kept, first - 2 : first + width + 2]
    flank, flank_error = _median_and_error(seen[:, [1, -2]].mean(axis=1) - seen[:, [0, -1]].mean(axis=1))
    steps = []
    for column in range(2, 2 + width):
        for side in (1, -2):
            step, error = _median_and_error(seen[:, column] - seen[:, side])
            if abs(step) < LEAST_SIGNIFICANCE * error:
                return False
            steps.append(step)
    least = min(abs(step) for step in steps)
    return min(steps) * max(steps) > 0 and abs(flank) < FLANK_SHARE * least + flank_error


def _median_and_error(values: Floats) -> tuple[float, float]:
    """Median and the standard error of it, from the values' own scatter."""
    middle = float(fast_median(values))
    scatter = SIGMA_PER_MAD * float(fast_median(np.abs(values - middle)))
    return middle, float(np.sqrt(np.pi / 2)) * scatter / float(np.sqrt(values.size))
