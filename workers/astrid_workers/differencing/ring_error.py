"""How wrong the wings of PSFs and kernels are around bright sources, read off the difference in rings.

Owns one measured profile, the residual at a distance over the light at the centre, and the noise that it
means around every bright source; the cores are the business of `model_error.py`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from astrid_workers.frame import Float32Image

Floats = NDArray[np.float64]
BoolImage = NDArray[np.bool_]
Places = tuple[Floats, Floats]

#: Radii of the rings in FWHM; the last is beyond the stamps of PSFs, whose ends bright stars show.
RADII_FWHM = (0.75, 1.25, 1.75, 2.25, 2.75, 3.5, 4.25, 5.0)
#: Places per ring.
RING = 12
#: Significance from which a source says something of its wings, and how many must.
MIN_SIGNIFICANCE, MIN_STARS = 60.0, 8
#: Percentile of |residual| at which noise and wing error are told apart, and its value for a Gaussian.
PERCENTILE, GAUSSIAN = 85.0, 1.4395
#: How far a ring of n stars may exceed that by chance, times 1 / sqrt(n).
CHANCE = 0.8


@dataclass(frozen=True, slots=True, eq=False)
class RingError:
    """Residual at a radius over the light at the centre of the source."""

    radii_px: Floats
    error: Floats

    def around(self, shape: tuple[int, int], stars: Places, light: Floats) -> Float32Image:
        """Variance that sources of this `light` (statistic at their centres) add around themselves."""
        total = np.zeros(shape, np.float32)
        if not self.error.any():
            return total
        reach = int(np.ceil(self.radii_px[-1]))
        axis = np.arange(-reach, reach + 1.0)
        radius = np.hypot(axis[:, None], axis[None, :])
        stamp = (np.interp(radius, self.radii_px, self.error, left=0.0, right=0.0) ** 2).astype(np.float32)
        for x, y, strength in zip(*stars, light, strict=True):
            _add(total, stamp, round(float(x)), round(float(y)), np.float32(strength**2))
        return total


def measure_ring_error(
    statistic: Float32Image,
    variance: Float32Image,
    samples: Sequence[tuple[Places, Floats]],
    bad: BoolImage,
    fwhm_px: float,
) -> RingError:
    """The profile at which residuals in rings around sources are what noise alone would make.

    Of each of `samples`, x and y of sources and the statistic of what was subtracted at their centres, the
    largest: the many of a frame say little of what its brightest leave. `bad` pixels are no evidence.
    """
    radii = np.array(RADII_FWHM) * fwhm_px
    errors = [
        [_ring_error(statistic, variance, stars, light, bad, float(radius)) for radius in radii]
        for stars, light in samples
    ]
    return RingError(radii, np.max(errors, axis=0))


def _ring_error(
    statistic: Float32Image,
    variance: Float32Image,
    stars: Places,
    light: Floats,
    bad: BoolImage,
    radius_px: float,
) -> float:
    """The error at one radius; 0 where too few tell."""
    x, y = stars
    angles = np.arange(RING) * 2 * np.pi / RING
    columns = np.clip(np.rint(x[:, None] + radius_px * np.cos(angles)).astype(int), 0, bad.shape[1] - 1)
    rows = np.clip(np.rint(y[:, None] + radius_px * np.sin(angles)).astype(int), 0, bad.shape[0] - 1)
    sigma = np.sqrt(variance[rows, columns].astype(float))
    pulls = np.abs(statistic[rows, columns]) / sigma
    significance = light[:, None] / sigma
    told = ~bad[rows, columns] & (significance > MIN_SIGNIFICANCE)
    n = int(np.count_nonzero(told.any(axis=1)))
    return _explaining(pulls[told], significance[told], n) if n >= MIN_STARS else 0.0


def _explaining(pulls: Floats, significance: Floats, n_stars: int) -> float:
    """The smallest relative error that brings the percentile down to a Gaussian's."""
    limit = GAUSSIAN * (1 + CHANCE / np.sqrt(n_stars))

    def excess(error: float) -> bool:
        return bool(np.percentile(pulls / np.hypot(1.0, error * significance), PERCENTILE) > limit)

    if not excess(0.0):
        return 0.0
    low, high = 0.0, 0.2
    for _ in range(25):
        middle = (low + high) / 2
        low, high = (middle, high) if excess(middle) else (low, middle)
    return high


def _add(total: Float32Image, stamp: Float32Image, x: int, y: int, factor: np.float32) -> None:
    """Add a centred stamp, as far as it lies in the frame."""
    half = stamp.shape[0] // 2
    top, left = max(y - half, 0), max(x - half, 0)
    bottom, right = min(y + half + 1, total.shape[0]), min(x + half + 1, total.shape[1])
    if top < bottom and left < right:
        part = stamp[top - y + half : bottom - y + half, left - x + half : right - x + half]
        total[top:bottom, left:right] += factor * part
