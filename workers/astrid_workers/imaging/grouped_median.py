"""Medians of many small groups at once.

Owns one sort; never knows what the groups are.
"""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Indices = NDArray[np.intp]

#: Values of a group below which it has no median.
FEWEST_VALUES = 8


def grouped_median(values: Floats, group: Indices, n_groups: int) -> Floats:
    """Median of the values of each group 0 … `n_groups` - 1; NaN for one of fewer than `FEWEST_VALUES`."""
    order = np.lexsort((values, group))
    ordered = values[order]
    count = np.bincount(group, minlength=n_groups)
    first = np.cumsum(count) - count
    enough = np.flatnonzero(count >= FEWEST_VALUES)
    medians = np.full(n_groups, np.nan)
    low, high = first[enough] + (count[enough] - 1) // 2, first[enough] + count[enough] // 2
    medians[enough] = (ordered[low] + ordered[high]) / 2
    return medians
