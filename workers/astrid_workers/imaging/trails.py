"""Short trails: light as narrow as the PSF across and evenly spread along a straight line of a few PSFs.

Owns telling a trail from a point, from two points and from anything broad, by fits to one patch of an image.
Never looks for light: it is told where some is.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from astrid_workers.frame import Float32Image
from astrid_workers.imaging.streaks import Streak

Floats = NDArray[np.float64]
Indices = NDArray[np.intp]
BoolImage = NDArray[np.bool_]

#: Half sides of the squares in which a footprint is followed until it touches no side, pixels.
LOOK_PX = (24, 48, 96, 192)
#: A footprint is what stands above this many sigma and this share of its summit, and is connected with it.
FOOT_SIGMA, FOOT_SHARE = 3.0, 0.35
#: Longer axis of a footprint over its shorter one from which it is looked into.
LONG_FOOTPRINT = 1.25
#: Width of what is fitted, to either side of the line, and beyond the footprint's ends, FWHM.
ACROSS_FWHM, BEYOND_FWHM = 1.5, 1.5
#: Steps along the line: by FWHM, and how many at most.
STEPS_PER_FWHM, MOST_STEPS = 3.0, 160
#: Times that a line is moved to where its light is; shift across by which its width is measured, FWHM.
ROUNDS, SHIFT_FWHM = 2, 0.15
#: What a model of the PSF may be wrong by, as a share of the light of each pixel.
MODEL_ERROR = 0.05
#: Chi-squared by which a trail must be better than a point, and than two points.
BETTER_THAN_POINT, BETTER_THAN_TWO = 30.0, 9.0
#: Shortest trail, FWHM: that it fits (twice its error below what fits best).
SHORTEST_FWHM = 1.25
#: How much broader than the PSF a trail may be, or narrower, as a share of the PSF's variance, with twice the
#: error of that.
BROADER, NARROWER = 0.8, 0.8
#: Sigmas of the bells along the line that would fit a galaxy on edge, FWHM, and the chi-squared by which the
#: best of them may be better than even light: it has one more number to fit by.
BELLS_FWHM, BELL_BETTER = (0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0), 4.0
#: Pixels below which nothing is fitted.
FEWEST_PIXELS = 20
#: Reduced chi-squared of a trail at most.
MOST_CHI2 = 1.6


@dataclass(frozen=True, slots=True)
class _Line:
    """A place on the frame, a direction, and how far to either side of the place it is looked along."""

    x: float
    y: float
    angle: float
    low: float
    high: float

    def moved(self, across: float, tilt: float) -> "_Line":
        """Shifted to its left and turned by small amounts, pixels and radians."""
        sine, cosine = float(np.sin(self.angle)), float(np.cos(self.angle))
        return _Line(self.x - across * sine, self.y + across * cosine, self.angle + tilt, self.low, self.high)

    def place(self, along: float) -> tuple[float, float]:
        """x and y of a point of it."""
        return self.x + along * float(np.cos(self.angle)), self.y + along * float(np.sin(self.angle))


@dataclass(frozen=True, slots=True, eq=False)
class _Patch:
    """Pixels about a line, one entry each: along and across it, light, and one over the variance."""

    along: Floats
    across: Floats
    light: Floats
    weight: Floats


@dataclass(frozen=True, slots=True, eq=False)
class _Points:
    """Point sources at steps along a line: their places, `models` `(steps, pixels)`, products with the light
    and with one another.
    """

    steps: Floats
    models: Floats
    with_light: Floats
    with_each_other: Floats


def fitted_trail(
    image: Float32Image,
    variance: Float32Image,
    score: Float32Image,
    psf: NDArray[np.float32],
    place: tuple[int, int],
    fwhm_px: float,
) -> Streak | None:
    """The trail whose brightest pixel is at `place` (row, column); None where the light there is none.

    `image` is a difference with its `variance` (NaN: not measured), `score` the significance of a point at
    each pixel, `psf` that of the image, sum 1. The trail has the sign that the score has at the place. Its
    significance is by how many sigma it fits better than a point.
    """
    line = _footprint(score, place)
    if line is None:
        return None
    sign = float(np.sign(score[place]))
    coefficients = ndimage.spline_filter(psf.astype(float), order=3)
    for _ in range(ROUNDS):
        fit = _fitted(image, variance, coefficients, line, fwhm_px, sign)
        if fit is None or fit.over_point < BETTER_THAN_POINT / 2:
            return None
        line = line.moved(fit.shift_px, fit.tilt)
    fit = _fitted(image, variance, coefficients, line, fwhm_px, sign)
    if fit is None or not fit.is_a_trail(fwhm_px):
        return None
    x0, y0 = line.place(fit.first_px)
    x1, y1 = line.place(fit.last_px)
    return Streak(x0, y0, x1, y1, fwhm_px, sign * float(score[place]), float(np.sqrt(fit.over_point)))


@dataclass(frozen=True, slots=True)
class _Fit:
    """Even light along a line, between two places, against what else it could be."""

    #: Where it begins and ends, pixels from the line's place, and the least length that would do.
    first_px: float
    last_px: float
    shortest_px: float
    #: Chi-squared by which it fits better than a point, than two, and than a bell; and its own, reduced.
    over_point: float
    over_two: float
    over_bell: float
    chi2: float
    #: How far off the line the light is, and its turn, pixels and radians.
    shift_px: float
    tilt: float
    #: Variance across beyond the PSF's, and its error, as shares of the PSF's.
    excess: float
    excess_error: float

    def is_a_trail(self, fwhm_px: float) -> bool:
        """Whether it is longer than the PSF, as narrow, and nothing else fits as well."""
        is_long = self.over_point > BETTER_THAN_POINT and self.shortest_px > SHORTEST_FWHM * fwhm_px
        is_narrow = (
            self.excess + 2 * self.excess_error < BROADER and self.excess - 2 * self.excess_error > -NARROWER
        )
        is_even = self.over_two > BETTER_THAN_TWO and self.over_bell > -BELL_BETTER
        return is_long and is_narrow and is_even and self.chi2 < MOST_CHI2


def _fitted(
    image: Float32Image,
    variance: Float32Image,
    coefficients: Floats,
    line: _Line,
    fwhm_px: float,
    sign: float,
) -> _Fit | None:
    """The best even light along a line; None where too few pixels were measured."""
    patch = _patch(image, variance, line, fwhm_px, sign)
    if patch.light.size < FEWEST_PIXELS:
        return None
    points = _points(patch, coefficients, line, fwhm_px)
    gains = _box_gains(points)
    first, last = (int(each) for each in np.unravel_index(int(np.argmax(gains)), gains.shape))
    best = float(gains[first, last])
    return _Fit(
        float(points.steps[first]),
        float(points.steps[last]),
        _shortest(points, gains, best),
        best - float(np.max(np.diag(gains))),
        best - _two_points(points),
        best - _bells(points, fwhm_px),
        _chi2(patch, points, first, last),
        *_adjustment(patch, points, coefficients, line, first, last, fwhm_px),
    )


def _footprint(score: Float32Image, place: tuple[int, int]) -> _Line | None:
    """The line along what stands out around a place; None where that is not longer than wide, or endless."""
    row, column = place
    sign = np.sign(score[row, column])
    threshold = max(FOOT_SIGMA, FOOT_SHARE * abs(float(score[row, column])))
    for reach in LOOK_PX:
        top, left = max(row - reach, 0), max(column - reach, 0)
        window = sign * score[top : row + reach + 1, left : column + reach + 1]
        labels, _ = ndimage.label(window > threshold)
        own = labels == labels[row - top, column - left]
        if labels[row - top, column - left] == 0:
            return None
        if not (own[0].any() or own[-1].any() or own[:, 0].any() or own[:, -1].any()):
            break
    else:
        return None
    rows, columns = np.nonzero(own)
    weight = window[rows, columns].astype(float)
    x, y = float(np.average(columns, weights=weight)), float(np.average(rows, weights=weight))
    xx, xy, yy = (
        float(np.average(one * two, weights=weight))
        for one, two in ((columns - x, columns - x), (columns - x, rows - y), (rows - y, rows - y))
    )
    mean, root = (xx + yy) / 2, float(np.hypot((xx - yy) / 2, xy))
    if mean + root < LONG_FOOTPRINT**2 * (mean - root):
        return None
    angle = 0.5 * float(np.arctan2(2 * xy, xx - yy))
    along = (columns - x) * np.cos(angle) + (rows - y) * np.sin(angle)
    return _Line(x + left, y + top, angle, float(along.min()), float(along.max()))


def _patch(image: Float32Image, variance: Float32Image, line: _Line, fwhm_px: float, sign: float) -> _Patch:
    """Measured pixels within `ACROSS_FWHM` of the line and `BEYOND_FWHM` of its ends."""
    reach = BEYOND_FWHM * fwhm_px
    ends = np.array([line.place(line.low - reach), line.place(line.high + reach)])
    low = np.maximum(np.floor(ends.min(axis=0) - reach).astype(int), 0)
    high = np.ceil(ends.max(axis=0) + reach).astype(int) + 1
    window = np.s_[low[1] : high[1], low[0] : high[0]]
    light, noise = sign * image[window].astype(float), variance[window].astype(float)
    rows, columns = np.indices(light.shape)
    dx, dy = columns + low[0] - line.x, rows + low[1] - line.y
    along = dx * np.cos(line.angle) + dy * np.sin(line.angle)
    across = dy * np.cos(line.angle) - dx * np.sin(line.angle)
    with np.errstate(invalid="ignore"):
        asked = np.isfinite(light) & (noise > 0) & (np.abs(across) < ACROSS_FWHM * fwhm_px)
    asked &= (along > line.low - reach) & (along < line.high + reach)
    light = light[asked]
    return _Patch(along[asked], across[asked], light, 1 / (noise[asked] + (MODEL_ERROR * light) ** 2))


def _points(patch: _Patch, coefficients: Floats, line: _Line, fwhm_px: float) -> _Points:
    n = int(np.ceil((line.high - line.low) / fwhm_px * STEPS_PER_FWHM)) + 1
    steps = np.linspace(line.low, line.high, min(max(n, 3), MOST_STEPS))
    models = _models(patch, coefficients, line, steps, 0.0)
    weighted = models * patch.weight
    return _Points(steps, models, weighted @ patch.light, weighted @ models.T)


def _models(patch: _Patch, coefficients: Floats, line: _Line, steps: Floats, shift: float) -> Floats:
    """Light at the patch's pixels `(steps, pixels)` of unit points at steps of a line that is shifted."""
    half = coefficients.shape[0] // 2
    along, across = patch.along[None, :] - steps[:, None], patch.across[None, :] - shift
    x = along * np.cos(line.angle) - across * np.sin(line.angle) + half
    y = along * np.sin(line.angle) + across * np.cos(line.angle) + half
    return np.asarray(
        ndimage.map_coordinates(coefficients, [y, x], order=3, mode="constant", prefilter=False)
    )


def _box_gains(points: _Points) -> Floats:
    """By first and last step: chi-squared that even light between them takes off; points on the diagonal."""
    light = np.concatenate([[0.0], np.cumsum(points.with_light)])
    power = np.zeros((len(light), len(light)))
    power[1:, 1:] = np.cumsum(np.cumsum(points.with_each_other, axis=0), axis=1)
    first, last = np.meshgrid(np.arange(len(light) - 1), np.arange(1, len(light)), indexing="ij")
    product = light[last] - light[first]
    square = power[last, last] - 2 * power[first, last] + power[first, first]
    fits = (last > first) & (product > 0) & (square > 0)
    return np.asarray(np.where(fits, product**2 / np.where(fits, square, 1.0), 0.0))


def _shortest(points: _Points, gains: Floats, best: float) -> float:
    """Length of the shortest trail that fits but for twice its error, pixels."""
    length = points.steps[None, :] - points.steps[:, None]
    return float(np.min(length[gains > best - 4.0]))


def _two_points(points: _Points) -> float:
    """Chi-squared that the best two points of positive flux take off."""
    c, g = points.with_light, points.with_each_other
    own = np.diag(g)
    determinant = own[:, None] * own[None, :] - g**2
    one = c[:, None] * own[None, :] - c[None, :] * g
    both = (one >= 0) & (one.T >= 0) & (determinant > 1e-6 * own[:, None] * own[None, :])
    gain = (one * c[:, None] + one.T * c[None, :]) / np.where(both, determinant, 1.0)
    return float(np.max(np.where(both, gain, 0.0)))


def _bells(points: _Points, fwhm_px: float) -> float:
    """Chi-squared that the best Gaussian along the line takes off."""
    sigma = np.array(BELLS_FWHM)[:, None, None] * fwhm_px
    share = np.exp(-0.5 * ((points.steps[None, None, :] - points.steps[None, :, None]) / sigma) ** 2)
    share = share.reshape(-1, len(points.steps))
    power = np.einsum("ik,kl,il->i", share, points.with_each_other, share, optimize=True)
    product = np.maximum(share @ points.with_light, 0.0)
    return float(np.max(product**2 / np.maximum(power, 1e-30)))


def _adjustment(
    patch: _Patch,
    points: _Points,
    coefficients: Floats,
    line: _Line,
    first: int,
    last: int,
    fwhm_px: float,
) -> tuple[float, float, float, float]:  # as the last fields of `_Fit`
    """How far the light is off the line and by what angle, and how much broader it is than the PSF, with that
    one's error: pixels, radians, and twice as shares of the variance of a Gaussian of the PSF's FWHM.
    """
    h = SHIFT_FWHM * fwhm_px
    steps = points.steps[first : last + 1]
    left, right = (_models(patch, coefficients, line, steps, shift) for shift in (h, -h))
    middle = points.models[first : last + 1]
    slope = (left - right) / (2 * h)
    off = steps - steps.mean()
    columns = [middle.sum(axis=0), slope.sum(axis=0), (left + right - 2 * middle).sum(axis=0) / (2 * h**2)]
    if len(steps) > 1:
        columns.append(off @ slope)
    design = np.stack(columns)
    normal = (design * patch.weight) @ design.T
    inverse = np.linalg.pinv(normal, hermitian=True)
    fit = inverse @ (design * patch.weight) @ patch.light
    if fit[0] <= 0:
        return 0.0, 0.0, float(np.inf), 0.0
    psf_variance = (fwhm_px / 2.3548) ** 2
    tilt = float(fit[3] / fit[0]) if len(steps) > 1 else 0.0
    shift = float(fit[1] / fit[0]) - tilt * float(steps.mean())
    limit = fwhm_px / 2
    return (
        float(np.clip(shift, -limit, limit)),
        float(np.clip(tilt, -0.3, 0.3)),
        float(fit[2] / fit[0]) / psf_variance,
        float(np.sqrt(inverse[2, 2]) / fit[0]) / psf_variance,
    )


def _chi2(patch: _Patch, points: _Points, first: int, last: int) -> float:
    """Reduced, of even light between two steps."""
    model = points.models[first : last + 1].sum(axis=0)
    flux = float(np.sum(patch.weight * model * patch.light) / np.sum(patch.weight * model**2))
    return float(np.mean(patch.weight * (patch.light - flux * model) ** 2))
