"""Stamps moved by fractions of a pixel.

Owns that alone; where anything stands is known by those who ask.
"""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray


def moved_stamp(stamp: NDArray[np.floating], dx: float, dy: float) -> NDArray[np.float64]:
    """An odd square, moved by (`dx`, `dy`) pixels: its Fourier series, summed in closed form."""
    return np.asarray(_moving(stamp.shape[0], dy) @ stamp @ _moving(stamp.shape[0], dx).T)


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
