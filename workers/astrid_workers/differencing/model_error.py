"""How wrong PSFs, kernels and gains are at bright sources, read off the difference at those sources.

Owns one measured relation, the relative error as a function of a source's significance, that the score adds
to its noise where light was subtracted; never looks at empty sky.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from astrid_workers.frame import Float32Image
from astrid_workers.imaging.box_maximum import box_maximum

Floats = NDArray[np.float64]
BoolImage = NDArray[np.bool_]

#: Stars needed to say anything, and per group of brightness.
MIN_STARS, MIN_GROUP, MAX_GROUPS = 5, 25, 4
#: Stars of which the 90th percentile says something.
ENOUGH_FOR_HIGH = 15
#: Sources below this significance say nothing of models.
MIN_SIGNIFICANCE = 15.0
#: Places at a star where its residual is looked for: the centre and a ring at half a FWHM.
RING = 8
#: Median and 90th percentile of the largest of a star's nine values in pure noise, sigma (correlated as
#: scores are).
NOISE_MEDIAN, NOISE_HIGH = 1.43, 2.31
#: How far a group of n stars may exceed that by chance, times 1 / sqrt(n).
CHANCE = 0.7
#: Sharp light over light up to which a source is broad, and from which it is a point; broad sources needed to
#: tell how much less models err at them.
BROAD, POINT = 0.6, 0.9
MIN_BROAD = 25
#: Rows whose curvature is computed together: bounds what is held on the way.
_ROWS = 64


@dataclass(frozen=True, slots=True, eq=False)
class ModelError:
    """Relative error of the models against the significance of the light that was subtracted."""

    #: Natural logarithms of significances, ascending, and the errors there; constant beyond the ends.
    log_significance: Floats
    error: Floats
    #: Median over the groups.
    typical: float
    #: Scatter of the score at stars without it; None when too few stars were there.
    scatter_before: float | None
    #: The error at broad sources over that at points, 0 to 1: what an undersampled frame cannot tell of
    #: points (its pixels alias them) is no matter to a galaxy.
    of_broad: float = 1.0

    def at(self, significance: Float32Image, sharp: Float32Image, light: Float32Image) -> Float32Image:
        """The relative error where sharp light of this significance (sigma) was subtracted.

        `sharp` light beside all `light` around tells points from broad sources.
        """
        error = self._of_points(significance)
        if self.of_broad < 1:
            pointed = np.clip((sharp - BROAD * light) / (np.maximum(light, 1e-30) * (POINT - BROAD)), 0, 1)
            error *= np.asarray(self.of_broad + (1 - self.of_broad) * pointed, np.float32)
        return error

    def _of_points(self, significance: NDArray[np.floating]) -> Float32Image:
        if len(self.error) < 2:
            return np.full(significance.shape, self.error[0], np.float32)
        table = np.log(np.maximum(significance, 1.0))
        return np.asarray(np.interp(table, self.log_significance, self.error), np.float32)


def sharp_light(subtracted: Float32Image, profile: NDArray[np.floating], fwhm_px: float) -> Float32Image:
    """The light of a point source that would be as sharply curved: what a wrong PSF or kernel leaves.

    A wrong width or shape leaves the second derivatives of the light, so a galaxy that is broader than the
    PSF leaves less of its light than a star does. Their Frobenius norm, over that of `profile` (a point
    source in the statistic, 1 at its centre), is the light itself for a star. Spread to where a wrong profile
    shows: the maximum within FWHM / 2. Same shape and unit as `subtracted`.
    """
    half = profile.shape[0] // 2
    core = np.asarray(profile[half - 1 : half + 2, half - 1 : half + 2], np.float32)
    unit = float(_curvature(core)[0, 0])
    sharp = np.zeros_like(subtracted)
    for top in range(1, subtracted.shape[0] - 1, _ROWS):
        bottom = min(top + _ROWS, subtracted.shape[0] - 1)
        sharp[top:bottom, 1:-1] = _curvature(subtracted[top - 1 : bottom + 1])
    sharp /= np.float32(max(unit, 1e-6))
    return _spread(sharp, fwhm_px)


def light_around(subtracted: Float32Image, fwhm_px: float) -> Float32Image:
    """The brightest of `subtracted` within FWHM / 2: what `sharp_light` is compared with."""
    return _spread(subtracted, fwhm_px)


def _spread(image: Float32Image, fwhm_px: float) -> Float32Image:
    return box_maximum(image, _reach_px(fwhm_px))


def _reach_px(fwhm_px: float) -> int:
    return max(1, round(fwhm_px / 2))


def _at(image: Float32Image, places: tuple[Floats, Floats]) -> Floats:
    """Values at the nearest pixels."""
    rows, columns = (np.rint(axis).astype(int) for axis in places[::-1])
    return np.asarray(image[rows, columns], float)


def _brightest_near(image: Float32Image, places: tuple[Floats, Floats], fwhm_px: float) -> Floats:
    """`light_around` at a few places."""
    steps = np.arange(-_reach_px(fwhm_px), _reach_px(fwhm_px) + 1)
    rows, columns = (
        np.clip(np.rint(axis).astype(int)[:, None] + steps, 0, size - 1)
        for axis, size in zip(places[::-1], image.shape, strict=True)
    )
    return np.asarray(image[rows[:, :, None], columns[:, None, :]].max(axis=(1, 2)), float)


def _curvature(image: Float32Image) -> Float32Image:
    """Frobenius norm of the second derivatives, from differences; without the outermost pixels."""
    middle = 2 * image[1:-1, 1:-1]
    xx = image[1:-1, 2:] + image[1:-1, :-2] - middle
    yy = image[2:, 1:-1] + image[:-2, 1:-1] - middle
    xy = (image[2:, 2:] + image[:-2, :-2] - image[2:, :-2] - image[:-2, 2:]) / 4
    return np.asarray(np.sqrt(xx * xx + yy * yy + 2 * xy * xy), np.float32)


def measure_model_error(
    statistic: Float32Image,
    variance: Float32Image,
    light: Float32Image,
    stars: tuple[Floats, Floats],
    bad: BoolImage,
    fwhm_px: float,
    overfit: float = 1.0,
    *,
    subtracted: Float32Image,
    others: tuple[Floats, Floats],
    are_constant: bool = True,
) -> ModelError:
    """The error at which stars' residuals are what noise alone would make, by groups of brightness.

    `overfit` is by how much residuals exceed these at sources that the kernels were not fitted to. Those of
    `others` whose `light` (sharp) is much less than all that was `subtracted` tell how much less models err
    at them, by their median, which a few that changed do not move. So do the `stars` themselves where not all
    `are_constant`.
    """
    largest, significance = _residuals(statistic, variance, light, stars, bad, fwhm_px)
    enough = significance > MIN_SIGNIFICANCE
    largest, significance = overfit * largest[enough], significance[enough]
    if len(largest) < MIN_STARS:
        return ModelError(np.zeros(1), np.zeros(1), 0.0, None)
    order = np.argsort(significance)
    groups = np.array_split(order, int(np.clip(len(order) // MIN_GROUP, 1, MAX_GROUPS)))
    centres = np.array([float(np.median(np.log(significance[g]))) for g in groups])
    errors = np.array([_explaining(largest[g], significance[g], are_constant) for g in groups])
    before = float(np.median(largest) / NOISE_MEDIAN)
    points = ModelError(centres, errors, float(np.median(errors)), before)
    sharp, around = _at(light, others), _brightest_near(subtracted, others, fwhm_px)
    broad = (sharp < BROAD * around) & (around > MIN_SIGNIFICANCE * np.sqrt(_at(variance, others)))
    told = (others[0][broad], others[1][broad])
    largest, significance = _residuals(statistic, variance, light, told, bad, fwhm_px)
    return replace(points, of_broad=_share_at_broad(points, overfit * largest, significance))


def _share_at_broad(points: ModelError, largest: Floats, significance: Floats) -> float:
    """The least share of the points' error with which the median of broad sources' residuals is noise's."""
    if len(largest) < MIN_BROAD or not points.error.any():
        return 1.0
    expected = points._of_points(significance) * significance
    limit = NOISE_MEDIAN * (1 + CHANCE / np.sqrt(len(largest)))
    shares = np.linspace(0, 1, 41)
    medians = np.median(largest / np.hypot(1.0, shares[:, None] * expected), axis=1)
    return float(shares[np.argmax(medians <= limit)]) if medians[-1] <= limit else 1.0


def _residuals(
    statistic: Float32Image,
    variance: Float32Image,
    light: Float32Image,
    stars: tuple[Floats, Floats],
    bad: BoolImage,
    fwhm_px: float,
) -> tuple[Floats, Floats]:
    """Per star: its largest |statistic| / sigma at centre and ring, and the significance of its light."""
    x, y = stars
    angles = np.arange(RING) * 2 * np.pi / RING
    dx = np.concatenate([[0.0], np.cos(angles) * fwhm_px / 2])
    dy = np.concatenate([[0.0], np.sin(angles) * fwhm_px / 2])
    columns = np.clip(np.rint(x[:, None] + dx).astype(int), 0, statistic.shape[1] - 1)
    rows = np.clip(np.rint(y[:, None] + dy).astype(int), 0, statistic.shape[0] - 1)
    whole = ~bad[rows, columns].any(axis=1)
    rows, columns = rows[whole], columns[whole]
    sigma = np.sqrt(variance[rows, columns].astype(float))
    largest = np.abs(statistic[rows, columns] / sigma).max(axis=1)
    return largest, light[rows[:, 0], columns[:, 0]] / sigma[:, 0]


def _explaining(largest: Floats, significance: Floats, are_constant: bool) -> float:
    """The smallest relative error with which median and 90th percentile of residuals are no more than
    noise's; the median alone where not all `are_constant`, and of few, of which one may have changed all the
    same.
    """

    slack = 1 + CHANCE / np.sqrt(len(largest))
    tells_high = are_constant and len(largest) >= ENOUGH_FOR_HIGH

    def excess(error: float) -> bool:
        pulls = largest / np.hypot(1.0, error * significance) / slack
        is_high = tells_high and np.percentile(pulls, 90) > NOISE_HIGH
        return bool(is_high or np.median(pulls) > NOISE_MEDIAN)

    if not excess(0.0):
        return 0.0
    low, high = 0.0, 0.5
    for _ in range(25):
        middle = (low + high) / 2
        low, high = (middle, high) if excess(middle) else (low, middle)
    return high
