"""Robust centres and scatters, and what an image's own pixels say of its noise.

Owns estimators on arrays; never knows a header, and never masks anything itself.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from astrid_workers.imaging.fast_median import fast_median

FloatArray = NDArray[np.floating]

#: Scatter of a normal distribution per median absolute deviation.
SIGMA_PER_MAD = 1.4826022185
#: Standard deviation of a unit Gaussian cut at ±3.
_STD_WITHIN_3_SIGMA = 0.98658
#: Above this many values a regular subsample decides: its own error is below 0.3 %.
ENOUGH_VALUES = 200_000


def regular_sample(plane: FloatArray, usable: NDArray[np.bool_]) -> FloatArray:
    """Values of `usable` pixels of a plane on a grid of about `ENOUGH_VALUES`; of all where none is on it."""
    step = max(1, int(np.sqrt(usable.size / ENOUGH_VALUES)))
    every = (slice(None, None, step), slice(None, None, step))
    values = plane[every][usable[every]]
    return values if values.size else plane[usable]


def robust_median_and_scatter(values: FloatArray) -> tuple[float, float]:
    """Median, and 1.4826 × median absolute deviation, of the finite `values`; (nan, nan) when there are none.

    Large arrays are subsampled regularly, so the result does not depend on a random draw.
    """
    flat = values.ravel()
    if flat.size > ENOUGH_VALUES:
        flat = flat[:: flat.size // ENOUGH_VALUES]
    flat = flat[np.isfinite(flat)]
    if flat.size == 0:
        return float("nan"), float("nan")
    median = float(fast_median(flat))
    return median, SIGMA_PER_MAD * float(fast_median(np.abs(flat - median)))


def clipped_scatter(values: FloatArray) -> float:
    """Standard deviation of a Gaussian core: clipped at 3 sigma and corrected for that; NaN when empty.

    Less robust than the median absolute deviation, but blind to rounding, which a median of integers is not.
    """
    median, scatter = robust_median_and_scatter(values)
    if not scatter > 0:
        return scatter
    flat = values.ravel()
    if flat.size > ENOUGH_VALUES:
        flat = flat[:: flat.size // ENOUGH_VALUES]
    for _ in range(3):
        core = flat[np.abs(flat - median) < 3 * scatter]
        if core.size < 8:
            break
        median, scatter = float(np.mean(core)), float(np.std(core)) / _STD_WITHIN_3_SIGMA
    return scatter


def pixel_noise(image: FloatArray, usable: NDArray[np.bool_]) -> float:
    """Noise of one pixel from differences of neighbours two columns and two rows apart, in the image's unit.

    Blind to sky, gradients and broad sources, so it needs no background; low when the noise is correlated
    over more than two pixels. NaN without enough usable pairs.
    """
    across = image[:, 2:] - image[:, :-2]
    down = image[2:] - image[:-2]
    scatters = (
        clipped_scatter(across[usable[:, 2:] & usable[:, :-2]]),
        clipped_scatter(down[usable[2:] & usable[:-2]]),
    )
    return float(np.hypot(*scatters)) / 2


def correlation_factor(image: FloatArray, usable: NDArray[np.bool_], box_px: int = 8) -> float:
    """By how much per-pixel noise underestimates the noise of larger areas: 1 for white noise.

    Ratio of the scatter of sums over `box_px` squares to `box_px` × the scatter of one pixel, both robust, on
    a background-subtracted `image`; squares with an unusable pixel are left out. NaN below 30 squares.
    """
    ny, nx = (n // box_px * box_px for n in image.shape)
    blocks = image[:ny, :nx].reshape(ny // box_px, box_px, nx // box_px, box_px)
    whole = usable[:ny, :nx].reshape(blocks.shape).all(axis=(1, 3))
    if np.count_nonzero(whole) < 30:
        return float("nan")
    sums = blocks.sum(axis=(1, 3), dtype=np.float64)[whole]
    _, scatter = robust_median_and_scatter(image[usable])
    return robust_median_and_scatter(sums)[1] / (box_px * scatter)


@dataclass(frozen=True, slots=True)
class PhotonTransfer:
    """A gain read off the sky: variance grows with level by 1/gain."""

    gain_e_per_adu: float
    gain_error: float
    n_cells: int


def photon_transfer(
    level: FloatArray, noise: FloatArray, read_noise_e: float | None, pedestal: float = 0.0
) -> PhotonTransfer | None:
    """Gain from pairs of sky `level` and pixel `noise` (image units), one per cell; None when not plausible.

    variance = (level - pedestal) / gain + (read_noise_e / gain)². Read noise that is not known counts as
    zero, which makes the gain a lower bound. Not plausible: no positive sky, a gain outside 0.05 … 50 e-/ADU,
    or cells that disagree by more than 30 % of the gain.
    """
    good = np.isfinite(level) & np.isfinite(noise) & (noise > 0) & (level > pedestal)
    if np.count_nonzero(good) < 4:
        return None
    signal, variance = (level - pedestal)[good].astype(float), noise[good].astype(float) ** 2
    gains = signal / variance
    if read_noise_e:
        # variance g² - signal g - rn² = 0
        gains = (signal + np.sqrt(signal**2 + 4 * variance * read_noise_e**2)) / (2 * variance)
    gain, scatter = robust_median_and_scatter(gains)
    if not 0.05 <= gain <= 50 or scatter > 0.3 * gain:
        return None
    return PhotonTransfer(gain, scatter / float(np.sqrt(gains.size)), int(gains.size))
