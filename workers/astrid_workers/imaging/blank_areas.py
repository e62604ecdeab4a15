"""Parts of an image that hold one value and no sky: borders of zeros, corners of turned frames, gaps.

Owns finding them in the pixels alone, and making NaN of them. Never takes clipped light for blank, nor the
sky of a frame whose noise is far below its unit.
"""

import numpy as np
from numpy.typing import NDArray

from astrid_workers.frame import Float32Image
from astrid_workers.imaging.grow import grow
from astrid_workers.imaging.noise import robust_median_and_scatter

BoolImage = NDArray[np.bool_]

#: Side of the smallest square of one value that is blank, and how far from one the same value is blank too.
SQUARE_PX, REACH_PX = 8, 32
#: Share of the pixels outside such squares that may have the same value: of rounded sky, 0.7 of the pixels
#: make 64 alike once in 10¹⁰ places.
COMMON = 0.7
#: Blank share of an image above which its sky has no noise: then nothing tells both apart.
MOST_BLANK = 0.9
#: Sigma of the rest above which an area is light that clips.
BRIGHT_SIGMA = 5.0
#: Values looked at: a file has one or two for what it did not see.
_MOST_VALUES = 8


def find_blank_areas(image: Float32Image) -> BoolImage:
    """Pixels of `image` (float32 `[y, x]`, NaN where not measured) that were never exposed, True is blank.

    These are squares of `SQUARE_PX` pixels of exactly one value, and what has that value within `REACH_PX` of
    them: slanted edges, and corners that taper. Light that clips has one value too, but is bright.
    """
    nothing = np.zeros(image.shape, bool)
    if not _may_be_blank(image):
        return nothing
    squares = _squares(image)
    if not squares.any() or np.mean(squares) > MOST_BLANK:
        return nothing
    rest = image[~squares & np.isfinite(image)]
    level, scatter = robust_median_and_scatter(rest)
    blank = nothing
    values, counts = np.unique(image[squares], return_counts=True)
    for value in values[np.argsort(-counts, kind="stable")][:_MOST_VALUES]:
        if value > level + BRIGHT_SIGMA * scatter or np.mean(rest == value) > COMMON:
            continue
        alike = image == value
        blank |= alike & grow(squares & alike, REACH_PX)
    return blank


def without_blank_areas(image: Float32Image) -> tuple[Float32Image, str | None]:
    """The image with NaN in its blank areas, and the sentence that says so; the same image without any."""
    blank = find_blank_areas(image)
    count = int(np.count_nonzero(blank))
    if not count:
        return image, None
    said = f"{count} pixels lie in areas of one value ({image[blank][0]:g}): taken as not exposed"
    return np.where(blank, np.float32(np.nan), image), said


def _may_be_blank(image: Float32Image) -> bool:
    """Whether four pixels at the corners of half a square are alike anywhere: quick, and true of any area."""
    half = SQUARE_PX // 2
    some = image[::half, ::half]
    across = some[:, 1:] == some[:, :-1]
    return bool((across[1:] & across[:-1] & (some[1:, 1:] == some[:-1, 1:])).any())


def _squares(image: Float32Image) -> BoolImage:
    """Pixels of all squares of `SQUARE_PX` pixels of one value."""
    squares = np.zeros(image.shape, bool)
    if min(image.shape) < SQUARE_PX:
        return squares
    across = _runs(image[:, 1:] == image[:, :-1], SQUARE_PX - 1, axis=1)
    corners = _runs(across, SQUARE_PX, axis=0)
    corners &= _runs((image[1:] == image[:-1])[:, : corners.shape[1]], SQUARE_PX - 1, axis=0)
    if not corners.any():
        return squares
    columns = np.zeros((image.shape[0], corners.shape[1]), bool)
    for shift in range(SQUARE_PX):
        columns[shift : shift + corners.shape[0]] |= corners
    for shift in range(SQUARE_PX):
        squares[:, shift : shift + corners.shape[1]] |= columns
    return squares


def _runs(true: BoolImage, length: int, *, axis: int) -> BoolImage:
    """Where `length` pixels from here on along `axis` are all True; shorter by `length` - 1 along it."""
    runs, done = true, 1
    while done < length:
        step = min(done, length - done)
        later, earlier = (slice(step, None), slice(None, -step))
        runs = runs[later] & runs[earlier] if axis == 0 else runs[:, later] & runs[:, earlier]
        done += step
    return runs
