"""Stamps moved by fractions of a pixel.

Owns that alone; where anything stands is known by those who ask.
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray


def moved_stamp(stamp: NDArray[np.floating], dx: float, dy: float) -> NDArray[np.float64]:
    """An odd square, moved by (`dx`, `dy`) pixels: its Fourier series, summed in closed form."""
    return np.asarray(_moving(stamp.shape[0], dy) @ stamp @ _moving(stamp.shape[0], dx).T)


def moved_middles(
    stamp: NDArray[np.floating], dx: Sequence[float], dy: Sequence[float], half_px: int
) -> NDArray[np.float64]:
    """The middles, `half_px` to every side, of an odd square moved by each `dy` and `dx`.

    float64 `(n_dy * n_dx, side, side)`, all `dx` of the first `dy` first.
    """
    size, side = stamp.shape[0], 2 * half_px + 1
    middle = slice(size // 2 - half_px, size // 2 + half_px + 1)
    down = np.concatenate([_moving(size, step)[middle] for step in dy])
    across = np.concatenate([_moving(size, step)[middle] for step in dx])
    moved = (down @ stamp @ across.T).reshape(len(dy), side, len(dx), side)
    return np.asarray(moved.swapaxes(1, 2).reshape(-1, side, side))


def _moving(size: int, step: float) -> NDArray[np.float64]:
    """What moves an odd number of values by a `step` on: Dirichlet's kernel about each."""
    apart = (np.arange(size) - step + size / 2) % size - size / 2
    kernel = np.sinc(apart) / np.sinc(apart / size)
    return np.asarray(kernel[_circulant(size)])


@lru_cache(maxsize=4)
def _circulant(size: int) -> NDArray[np.intp]:
    """By how many places each row lies beyond each column, around the end."""
    place = np.arange(size)
    return np.asarray((place[:, None] - place) % size)
