"""Sums of an image along all straight lines at once.

Owns the approximate discrete Radon transform of Brady (1998, SIAM J. Comput. 27, 107): N² log N additions for
the lines of a square of N. Never judges a sum.
"""

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

#: What may be summed.
Number = TypeVar("Number", np.float32, np.int16)


@dataclass(frozen=True, slots=True)
class Octant:
    """One of four ways to turn a square so that its lines climb from 0° to 45°."""

    is_transposed: bool
    is_flipped: bool

    def turned(self, images: NDArray[Number]) -> NDArray[Number]:
        """Images `(n, side, side)` as this octant sees them."""
        seen = images.transpose(0, 2, 1) if self.is_transposed else images
        return seen[:, ::-1] if self.is_flipped else seen

    def line(self, height: float, rise: float, side: int) -> tuple[float, float, float, float]:
        """`x0, y0, x1, y1` of a line in the image that is not turned."""
        ends = [height, height + rise]
        if self.is_flipped:
            ends = [side - 1 - end for end in ends]
        along = (0.0, side - 1.0)
        if self.is_transposed:
            return ends[0], along[0], ends[1], along[1]
        return along[0], ends[0], along[1], ends[1]


OCTANTS = tuple(Octant(t, f) for t in (False, True) for f in (False, True))


def line_sums(images: NDArray[Number]) -> NDArray[Number]:
    """Sums of square `images` `(n, side, side)`, `side` a power of two, along lines that climb to the right.

    Returns `(n, side, 2 side)`: by the rise from the first column to the last (0 … side - 1), then by the row
    in the first column plus `side` (lines may start below row 0). Pixels outside count nothing. Sums have the
    images' type: integers take half the time, and must not be so large that `side` of them overflow.
    ValueError for another shape.
    """
    n, side, width = images.shape
    if side != width or side & (side - 1) or side < 2:
        msg = f"sums along lines need squares of a power of two, got {side} × {width}"
        raise ValueError(msg)
    # columns first: (n, blocks of columns, rises within a block, rows)
    sums = np.zeros((n, side, 1, 2 * side), images.dtype)
    sums[:, :, 0, side:] = images.transpose(0, 2, 1)
    width = 1
    while width < side:
        joined = np.empty((n, sums.shape[1] // 2, 2 * width, 2 * side), images.dtype)
        left, right = sums[:, 0::2], sums[:, 1::2]
        for rise in range(2 * width):
            half, step = rise // 2, (rise + 1) // 2
            rows = joined[:, :, rise]
            meet = 2 * side - step
            np.add(left[:, :, half, :meet], right[:, :, half, step:], out=rows[..., :meet])
            rows[..., meet:] = left[:, :, half, meet:]
        sums, width = joined, 2 * width
    return sums[:, 0]
