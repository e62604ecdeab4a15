"""Several images of one sky on one grid, as one.

Owns the weighted mean of pixels and which of them are outliers; never aligns, scales or reads a frame.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from astrid_workers.defaults import CLIP_SIGMA
from astrid_workers.frame import Float32Image

BoolImage = NDArray[np.bool_]
Floats = NDArray[np.float64]

#: Within so many pixels of an outlier less suffices: by interpolation a sharp one rings as far as its kernel.
NEIGHBOUR_SIGMA, NEIGHBOUR_PX = 2.5, 3
#: Seeing that differs moves light between neighbouring pixels: this share of the median's range over 3 × 3
#: pixels is forgiven, as far as it is more than the range that noise has (3 sigma for nine pixels).
FORGIVEN_RANGE, RANGE_OF_NOISE = 0.8, 3.0
#: Variance of a median of n Gaussians over that of their mean.
_MEDIAN_EXCESS = np.pi / 2
#: Pixels of all images that are combined together, in as many rows as that makes: bounds the memory.
BAND_PIXELS, LEAST_ROWS, MOST_ROWS = 4_000_000, 16, 128
#: How far neighbours reach over the rows that are combined.
_REACH = NEIGHBOUR_PX + 1


class Rows(Protocol):
    """An image of which some rows at a time are asked for: an array, or one that waits on disk."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    def __getitem__(self, rows: slice, /) -> Float32Image: ...


@dataclass(frozen=True, slots=True, eq=False)
class Combined:
    """The mean of several images. Arrays `[y, x]` of one shape."""

    #: 0 where no image had a usable pixel.
    image: Float32Image
    #: Of the mean, propagated; +inf where nothing was usable.
    variance: Float32Image
    #: Images that went into each pixel.
    n_used: NDArray[np.uint16]
    #: Pixels that were left out of each image as outliers.
    n_rejected: tuple[int, ...]


def combine(
    images: Sequence[Rows],
    variances: Sequence[Rows],
    weights: Floats,
    *,
    clip_sigma: float = CLIP_SIGMA,
) -> Combined:
    """Weighted mean of `images`, outliers against their median left out.

    Images share one grid and one flux scale, their skies subtracted; a variance that is not finite and
    positive marks a pixel that is not used. `weights` has one positive number per image. Left out is what
    lies more than `clip_sigma` beyond the forgiven range from the median of the images (of two: from the
    lower), and what is within 3 pixels of it and deviates by 2.5.
    """
    shape = (images[0].shape[0], images[0].shape[1])
    step = int(np.clip(BAND_PIXELS // (len(images) * shape[1]), LEAST_ROWS, MOST_ROWS))
    out = Combined(
        np.zeros(shape, np.float32), np.full(shape, np.inf, np.float32), np.zeros(shape, np.uint16), ()
    )
    rejected = np.zeros(len(images), int)
    for start in range(0, shape[0], step):
        low, high = max(start - _REACH, 0), min(start + step + _REACH, shape[0])
        values = np.stack([image[low:high] for image in images])
        noise = np.stack([variance[low:high] for variance in variances])
        usable = np.isfinite(noise) & (noise > 0) & np.isfinite(values)
        kept = usable & ~outliers(values, np.where(usable, noise, 1), usable, clip_sigma)
        inner = slice(start - low, min(start + step, shape[0]) - low)
        rows = slice(start, min(start + step, shape[0]))
        rejected += np.count_nonzero((usable & ~kept)[:, inner], axis=(1, 2))
        _mean(values[:, inner], noise[:, inner], kept[:, inner], weights, out, rows)
    return Combined(out.image, out.variance, out.n_used, tuple(int(n) for n in rejected))


def outliers(values: Float32Image, variance: Float32Image, usable: BoolImage, clip_sigma: float) -> BoolImage:
    """Which of `values` `(n, ny, nx)` are no measurement of what the others measure."""
    counts = usable.sum(axis=0)
    middle = median_of_usable(values, usable, counts)
    span = ndimage.maximum_filter(middle, 3) - ndimage.minimum_filter(middle, 3)
    typical = np.sum(variance, axis=0, where=usable) / np.maximum(counts, 1)
    of_median = typical * np.float32(_MEDIAN_EXCESS) / np.maximum(counts, 1)
    sigma = np.sqrt(variance + of_median)
    forgiven = FORGIVEN_RANGE * np.maximum(span - RANGE_OF_NOISE * np.sqrt(of_median), 0)
    excess = np.abs(values - middle) - forgiven.astype(np.float32)
    judged = usable & (counts > 1)
    core: BoolImage = judged & (excess > clip_sigma * sigma)
    if not core.any():
        return core
    beside = ndimage.maximum_filter(core, (1, 2 * NEIGHBOUR_PX + 1, 2 * NEIGHBOUR_PX + 1), mode="constant")
    wide: BoolImage = core | (beside & judged & (excess > NEIGHBOUR_SIGMA * sigma))
    return wide


def median_of_usable(values: Float32Image, usable: BoolImage, counts: NDArray[np.integer]) -> Float32Image:
    """Median along the first axis over usable values, 0 where there are none; of two: the lower.

    What strikes one of two frames only (a ray, a satellite, a transient) adds light, so the lower is the sky.
    """
    ordered = np.sort(np.where(usable, values, np.float32(np.inf)), axis=0)
    lower = np.maximum(counts - 1, 0) // 2
    upper = np.where(counts == 2, lower, np.minimum(counts // 2, len(values) - 1))
    a, b = (np.take_along_axis(ordered, index[None], axis=0)[0] for index in (lower, upper))
    with np.errstate(invalid="ignore"):
        middle: Float32Image = np.where(counts > 0, (a + b) / np.float32(2), np.float32(0)).astype(np.float32)
    return middle


def _mean(
    values: Float32Image, variance: Float32Image, kept: BoolImage, weights: Floats, out: Combined, rows: slice
) -> None:
    """Fill rows of `out` in place."""
    weight = np.where(kept, weights.astype(np.float32)[:, None, None], np.float32(0))
    total = weight.sum(axis=0)
    some = total > 0
    safe = np.where(some, total, 1)
    out.image[rows] = np.sum(weight * np.where(kept, values, 0), axis=0) / safe
    spread = np.sum(weight**2 * np.where(kept, variance, 0), axis=0) / safe**2
    out.variance[rows] = np.where(some, spread, np.inf)
    out.n_used[rows] = kept.sum(axis=0)
