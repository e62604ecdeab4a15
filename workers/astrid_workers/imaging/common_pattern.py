"""What a telescope leaves at the same place beside each of its bright stars: no sources, but its own optics.

Owns one stack of squares about stars and where it stands out. A source stands beside one star; what stands at
one offset from most of them is lobes of aberrations, ends of supports, or reflections. Never changes a score.
"""

import numpy as np
from numpy.typing import NDArray

from astrid_workers.frame import Float32Image

BoolImage = NDArray[np.bool_]
Floats = NDArray[np.float64]

#: Stars that must have been seen at an offset, for the median of fewer is any one of them.
FEWEST_STARS = 4
#: The median stands out by so many of its own sigma, and is so many sigma of the score at least.
PATTERN_SIGMA, LEAST_SCORE = 5.0, 1.5
#: Sigma of a median of n values of unit scatter, times sqrt(n).
MEDIAN_SIGMA = 1.2533


def common_pattern(score: Float32Image, usable: BoolImage, x: Floats, y: Floats, reach_px: int) -> BoolImage:
    """Offsets from stars at `x`, `y` at which their scores stand out alike: `(2 reach + 1, 2 reach + 1)`.

    `score` is in sigma and of scatter one, `usable` True where it may be asked. Offsets that fewer than
    `FEWEST_STARS` stars tell of are False. Memory goes with the number of stars times the square.
    """
    axis = np.arange(-reach_px, reach_px + 1)
    rows = np.rint(y).astype(int)[:, None, None] + axis[:, None]
    columns = np.rint(x).astype(int)[:, None, None] + axis[None, :]
    inside = (rows >= 0) & (rows < score.shape[0]) & (columns >= 0) & (columns < score.shape[1])
    rows, columns = np.clip(rows, 0, score.shape[0] - 1), np.clip(columns, 0, score.shape[1] - 1)
    told = inside & usable[rows, columns]
    values = np.where(told, score[rows, columns], np.nan)
    count = np.count_nonzero(told, axis=0)
    enough = count >= FEWEST_STARS
    found = np.zeros(enough.shape, bool)
    median = np.abs(np.nanmedian(values[:, enough], axis=0))
    found[enough] = median > np.maximum(PATTERN_SIGMA * MEDIAN_SIGMA / np.sqrt(count[enough]), LEAST_SCORE)
    return found
