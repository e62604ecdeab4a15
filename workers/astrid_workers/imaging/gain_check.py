"""Whether blank sky is as noisy as its photons and read-out must make it, were the header's gain right.

Owns that one comparison; never changes a pixel, reads a header or says which gain is taken.

Noise below that of the sky's own photons is impossible. A gain that asks for it belongs to other pixels: to
counts before they were divided by the exposure, or to one of the frames of a mean.
"""

import math
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from astrid_workers.frame import Float32Image
from astrid_workers.imaging.noise import ENOUGH_VALUES, clipped_scatter, robust_median_and_scatter

Kind = TypeVar("Kind", bound=np.generic)

#: Side of the squares whose means tell the noise: resampling that correlates neighbours takes a third off the
#: variance of a pixel or more, and a tenth off that of such squares (an eighth where it smoothed by 0.8 px).
SQUARE_PX = 16
#: Squares below which nothing is said, and how many are enough. Share of a square that must be blank sky.
FEWEST_SQUARES, ENOUGH_SQUARES, LEAST_BLANK = 30, 5000, 0.25
#: Measured over expected variance below which a gain is contradicted. Smoothing by 0.8 px reaches 0.87, and a
#: mean of amplifiers 0.8; a mean of two frames has 0.5.
LEAST_RATIO = 0.7
#: Variance of neighbours' differences over that three pixels away, from which noise is taken as white: after
#: a move by half a pixel it is 0.8, and 0.9 between the stars of a crowd.
WHITE = 0.97
#: Share of the pixels that hold the smallest value, above which noise was cut there.
MOST_SMALLEST = 0.01
#: Up to this, another gain explains the noise; from `NOISY_RATIO` on, the card's own is doubted aloud.
FITTING_RATIO, NOISY_RATIO = 1.4, 3.0
#: As `FITTING_RATIO` where the sky's level is not known: its photons may have made this many times the noise
#: of the read-out.
FITTING_RATIO_WITHOUT_LEVEL = 100.0
#: Relative error of a variance by the median absolute deviation of so many values: 2 × 1.167 / √(2 n).
_VARIANCE_ERROR = 1.65
#: Errors by which a ratio must be below the least, or a slope away from what another gain makes of it.
CLEAR_SIGMA = 3.0


@dataclass(frozen=True, slots=True)
class SkyNoise:
    """Level and variance of blank sky in the file's unit (squared)."""

    level: float
    #: By neighbours' differences: blind to faint sources and to the sky's structure, low where resampled.
    pixel_variance: float
    #: That of the noise at most: as above where noise is white, else by means of squares, per pixel, which
    #: are right where resampled and high where faint sources or structure count.
    variance: float
    #: Relative standard error of `variance`.
    error: float

    @property
    def has_level(self) -> bool:
        """Whether the level is that of a sky: one that was subtracted lies within the noise of 0."""
        return self.level > math.sqrt(self.variance)

    def ratio(self, gain: float, read_noise_e: float | None, *, of_pixels: bool = False) -> float:
        """Measured variance over that of the level's photons and the read-out, in electrons by `gain`."""
        variance = self.pixel_variance if of_pixels else self.variance
        expected = max(self.level, 0.0) * gain + (read_noise_e or 0.0) ** 2
        return variance * gain**2 / expected if expected > 0 else float("inf")

    def contradicts(self, gain: float, read_noise_e: float | None) -> bool:
        """Whether the sky is clearly less noisy than a gain allows."""
        return self.ratio(gain, read_noise_e) * (1 + CLEAR_SIGMA * self.error) < LEAST_RATIO

    def fits(self, gain: float, read_noise_e: float | None) -> bool:
        """Whether a gain explains the noise, which lies between the two variances."""
        most = FITTING_RATIO if self.has_level else FITTING_RATIO_WITHOUT_LEVEL
        lowest = self.ratio(gain, read_noise_e, of_pixels=True)
        return lowest <= most and self.ratio(gain, read_noise_e) >= LEAST_RATIO

    def is_noisy_for(self, gain: float, read_noise_e: float | None) -> bool:
        """Whether even neighbours scatter far more than a gain makes of a known level and read noise."""
        known = self.has_level and read_noise_e is not None
        return known and self.ratio(gain, read_noise_e, of_pixels=True) > NOISY_RATIO


def sky_noise(science: Float32Image, level: Float32Image, blank: NDArray[np.bool_]) -> SkyNoise | None:
    """Noise of the `blank` pixels of `science` (float32 `[y, x]`) about `level`; None where too few are.

    None as well where noise was cut, as unsigned integers cut it at 0. Squares with a single value hold no
    sky. Of large images some rows of squares are taken.
    """
    rows, columns = (n // SQUARE_PX for n in science.shape)
    step = max(1, rows * columns // ENOUGH_SQUARES)
    values, sky = (_squares(plane, rows, columns)[::step] for plane in (science, level))
    usable = _squares(blank, rows, columns)[::step]
    count = usable.sum(axis=(1, 3))
    alive = values.max(axis=(1, 3)) > values.min(axis=(1, 3))
    taken = alive & (count >= LEAST_BLANK * SQUARE_PX**2)
    n_squares = int(np.count_nonzero(taken))
    if n_squares < FEWEST_SQUARES:
        return None
    usable = usable & taken[:, None, :, None]
    seen = values[usable]
    if np.count_nonzero(seen == seen.min()) > MOST_SMALLEST * seen.size:
        return None
    residual = np.where(usable, values - sky, 0)
    sums = residual.sum(axis=(1, 3), dtype=np.float64)[taken]
    _, scatter = robust_median_and_scatter(sums / np.sqrt(count[taken]))
    near, far = (_variance_of_differences(residual, usable, lag) for lag in (1, 3))
    pixels = _variance_of_differences(residual, usable, 2)
    if not (scatter > 0 and pixels > 0):
        return None
    is_white = near >= WHITE * far
    n_values = min(int(count[taken].sum()), ENOUGH_VALUES) if is_white else n_squares
    return SkyNoise(
        float(np.median(sky.mean(axis=(1, 3))[taken])),
        pixels,
        pixels if is_white else scatter**2,
        _VARIANCE_ERROR / math.sqrt(n_values),
    )


def _variance_of_differences(residual: Float32Image, usable: NDArray[np.bool_], lag_px: int) -> float:
    """Variance of one pixel from pairs so many columns, and so many rows, apart within their squares."""
    across = (residual[..., lag_px:] - residual[..., :-lag_px])[usable[..., lag_px:] & usable[..., :-lag_px]]
    down = (residual[:, lag_px:] - residual[:, :-lag_px])[usable[:, lag_px:] & usable[:, :-lag_px]]
    return sum(clipped_scatter(pairs) ** 2 for pairs in (across, down)) / 4


def _squares(plane: NDArray[Kind], rows: int, columns: int) -> NDArray[Kind]:
    """`[row, y, column, x]` of the whole squares of a plane."""
    whole = plane[: rows * SQUARE_PX, : columns * SQUARE_PX]
    return whole.reshape(rows, SQUARE_PX, columns, SQUARE_PX)


def holds_pedestal(
    levels: NDArray[np.floating], noises: NDArray[np.floating], gain: float, other: float
) -> bool:
    """Whether cells of sky grow noisier with their level as `gain` has it, and not as the larger `other`.

    A level on a pedestal is too high for its noise everywhere, but it still varies by its photons.
    """
    variances = noises**2
    away = levels - levels.mean()
    spread = float(np.sum(away**2))
    if levels.size < 4 or not spread > 0:
        return False
    slope = float(np.sum(away * variances)) / spread
    rest = variances - variances.mean() - slope * away
    error = math.sqrt(float(np.sum(rest**2)) / (levels.size - 2) / spread)
    return slope - CLEAR_SIGMA * error > 1 / math.sqrt(gain * other)
