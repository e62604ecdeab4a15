"""The noise of a frame as its own sky shows it: how strong, against the variance plane, and how correlated.

Owns the autocovariance of blank sky and the power spectrum from it; never changes a variance plane by itself.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from astrid_workers.frame import Float32Image

#: Noise is taken as uncorrelated beyond this many pixels.
MAX_LAG_PX = 4
#: Sky values further out than this are not noise.
CLIP_SIGMA = 4.0
#: What clipping a Gaussian at `CLIP_SIGMA` leaves of its variance.
_CLIPPED_VARIANCE = 0.99893
#: More pixels than this add nothing to a correlation; larger frames are measured in bands of rows.
ENOUGH_PIXELS, BAND_PX = 1_000_000, 128
#: Sky pixels below which nothing is measured and white noise is assumed.
MIN_PIXELS = 2000


@dataclass(frozen=True, slots=True, eq=False)
class NoiseModel:
    """Correlation of the noise between pixels, and how the variance plane compares with the sky's scatter."""

    #: float64 `(2 L + 1, 2 L + 1)`, centred, 1 at zero lag.
    correlation: NDArray[np.float64]
    #: Measured variance of blank sky over the variance plane's; 1 when the plane is right.
    variance_ratio: float
    n_pixels: int

    @property
    def is_white(self) -> bool:
        """Whether no neighbouring pixels are correlated."""
        return float(np.abs(self.correlation).sum()) < 1.02

    def power(self, size: tuple[int, int]) -> NDArray[np.float32]:
        """Noise power per frequency of a `(ny, nx)` grid, rfft2 layout, mean 1; never below 2 % of white
        noise.
        """
        lag = self.correlation.shape[0] // 2
        grid = np.zeros(size)
        grid[: 2 * lag + 1, : 2 * lag + 1] = self.correlation
        spectrum = fft.rfft2(np.roll(grid, (-lag, -lag), axis=(0, 1))).real
        power: NDArray[np.float32] = np.maximum(spectrum, 0.02).astype(np.float32)
        return power


def white_noise() -> NoiseModel:
    """Uncorrelated noise with a variance plane that is right."""
    correlation = np.zeros((2 * MAX_LAG_PX + 1, 2 * MAX_LAG_PX + 1))
    correlation[MAX_LAG_PX, MAX_LAG_PX] = 1.0
    return NoiseModel(correlation, 1.0, 0)


def measure_noise(image: Float32Image, variance: Float32Image, sky: NDArray[np.bool_]) -> NoiseModel:
    """Correlation and strength of the noise of a background-subtracted `image` on `sky` pixels (True: blank).

    Values are divided by the square root of `variance`, clipped, and multiplied with their neighbours. What
    is left at the largest lags is faint sources and background, common to all lags, and is taken off. Lags
    that do not stand out from their own error are 0.
    """
    if np.count_nonzero(sky) < MIN_PIXELS:
        return white_noise()
    image, variance, sky = (_bands(plane) for plane in (image, variance, sky))
    pulls = np.zeros(image.shape, np.float32)
    np.divide(image, np.sqrt(variance, where=sky, out=np.ones_like(variance)), out=pulls, where=sky)
    scatter = 1.4826 * float(np.median(np.abs(pulls[sky] - np.median(pulls[sky]))))
    usable = sky & (np.abs(pulls) < CLIP_SIGMA * scatter)
    if np.count_nonzero(usable) < MIN_PIXELS:  # most of the sky has one value: no noise is to be seen
        return white_noise()
    pulls = np.where(usable, pulls - np.median(pulls[usable]), np.float32(0))
    covariance, counts = _covariance(pulls, usable)
    centre = MAX_LAG_PX
    rim = np.ones_like(covariance, bool)
    rim[1:-1, 1:-1] = False
    floor = max(float(covariance[rim].mean()), 0.0)
    strength = covariance[centre, centre] - floor
    correlation = (covariance - floor) / strength
    insignificant = np.abs(correlation) < 4 / np.sqrt(np.maximum(counts, 1))
    correlation[insignificant | rim] = 0.0
    correlation[centre, centre] = 1.0
    return NoiseModel(correlation, float(strength / _CLIPPED_VARIANCE), int(np.count_nonzero(usable)))


def _bands(plane: NDArray[Any]) -> NDArray[Any]:
    """Evenly spaced bands of rows, about `ENOUGH_PIXELS` in all; a seam between bands costs a few pairs
    only.
    """
    every = plane.size // ENOUGH_PIXELS
    if every < 2:
        return plane
    rows = np.arange(plane.shape[0])
    return np.asarray(plane[(rows // BAND_PX) % every == 0])


def _covariance(
    pulls: Float32Image, usable: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean product of pixels at each lag where both are usable, and how many pairs there were."""
    lag = MAX_LAG_PX
    covariance = np.zeros((2 * lag + 1, 2 * lag + 1))
    counts = np.zeros_like(covariance)
    ny, nx = pulls.shape
    weights = usable.astype(np.float32)
    for dy in range(lag + 1):
        for dx in range(-lag, lag + 1):
            if dy == 0 and dx < 0:
                continue
            one = (slice(0, ny - dy), slice(max(0, -dx), nx - max(0, dx)))
            other = (slice(dy, ny), slice(max(0, dx), nx - max(0, -dx)))
            n = float(np.vdot(weights[one], weights[other]))
            value = float(np.vdot(pulls[one], pulls[other])) / max(n, 1.0)
            for sign in (1, -1):
                covariance[lag + sign * dy, lag + sign * dx] = value
                counts[lag + sign * dy, lag + sign * dx] = n
    return covariance, counts
