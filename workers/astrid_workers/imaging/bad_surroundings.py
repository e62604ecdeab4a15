"""What stands about bad pixels, of which a frame has few.

Owns means of their good neighbours and the nearest good value; looks at bad pixels only, and never says which
are bad.
"""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from astrid_workers.frame import Float32Image

BoolImage = NDArray[np.bool_]
Float32Array = NDArray[np.float32]

#: Good pixels this near along both axes tell what a bad one would have held.
REACH_PX = 2
#: Pixels examined together: bounds the memory of frames that are bad by half.
_BATCH = 40_000


def means_about(image: Float32Image, bad: BoolImage) -> Float32Array:
    """Mean of the good pixels of `image` (`[y, x]`) within `REACH_PX` of each `bad` one, in the order of
    `image[bad]`; NaN where there is none. The edge's values continue outside.
    """
    places = np.flatnonzero(bad)
    means = np.empty(places.size, np.float32)
    for start in range(0, places.size, _BATCH):
        some = slice(start, start + _BATCH)
        means[some] = _means_at(image, bad, places[some])
    return means


def _means_at(image: Float32Image, bad: BoolImage, places: NDArray[np.intp]) -> Float32Array:
    (ny, nx), steps = image.shape, range(-REACH_PX, REACH_PX + 1)
    rows, columns = np.divmod(places, nx)
    lines = [np.clip(rows + step, 0, ny - 1) * nx for step in steps]
    across = [np.clip(columns + step, 0, nx - 1) for step in steps]
    values, is_bad = image.ravel(), bad.ravel()
    total, count = np.zeros(places.size, np.float32), np.zeros(places.size, np.float32)
    for line in lines:
        for column in across:
            near = line + column
            good = ~is_bad[near]
            total += np.where(good, values[near], np.float32(0))
            count += good
    with np.errstate(invalid="ignore"):
        means: Float32Array = total / count
    return means


def filled(image: Float32Image, bad: BoolImage) -> Float32Image:
    """`image` with `bad` pixels at the mean of good ones within `REACH_PX`, else at the nearest good one; 0
    where all are bad.
    """
    if not bad.any():
        return image
    if bad.all():
        return np.zeros_like(image)
    whole = image.copy()
    means = means_about(image, bad)
    whole[bad] = means
    alone = np.isnan(means)
    if alone.any():
        far = np.zeros(image.shape, bool)
        far[bad] = alone
        _fill_from_nearest(whole, image, bad, far)
    return whole


def _fill_from_nearest(whole: Float32Image, image: Float32Image, bad: BoolImage, far: BoolImage) -> None:
    """Set `far` pixels, which have no good one within `REACH_PX`, to the nearest good one's value.

    The nearest lies within `REACH_PX` + 1 of the rectangle about a group of such pixels: what is next to the
    group, on whichever side, has a good one within `REACH_PX`, and all beyond are further away than that.
    """
    groups, _ = ndimage.label(far, np.ones((3, 3)))
    for group in ndimage.find_objects(groups):
        window = tuple(slice(max(side.start - REACH_PX - 1, 0), side.stop + REACH_PX + 1) for side in group)
        rows, columns = ndimage.distance_transform_edt(
            bad[window], return_distances=False, return_indices=True
        )
        here = far[window]
        whole[window][here] = image[window][rows[here], columns[here]]
