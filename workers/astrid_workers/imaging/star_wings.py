"""The light of a star that saturates, from the pixels around it that do not.

Owns one fit: a smooth profile about a centre, free in shape along the radius, elliptical, robust against
neighbours. Knows no PSF beyond a first guess, so that far wings and aureoles need not be in one. Never says
anything of the pixels inside.
"""

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from astrid_workers.frame import Float32Image
from astrid_workers.imaging.grouped_median import grouped_median
from astrid_workers.imaging.grow import grow

Floats = NDArray[np.float64]
BoolImage = NDArray[np.bool_]

#: Distance of the spline's knots in ln(radius).
KNOT_STEP = 0.3
#: Places per step at which splines are tabled.
FINE = 64
#: What is expected of the logarithm of the profile over a Moffat's: its bends from knot to knot, and itself.
BEND_SIGMA, LEVEL_SIGMA = 0.1, 2.0
#: A wing is followed until it has fallen to this share of the sky's sigma per pixel…
FAINTEST_SIGMA = 0.05
#: …and no further than this many FWHM or pixels.
MAX_REACH_FWHM, MAX_REACH_PX = 40.0, 160
#: Exponent of the Moffat that the fit starts from; `Wings._moffat` multiplies it out.
START_BETA = 3
#: By what share of itself the model may err in each round before a pixel is left out.
TOLERANCES = (0.5, 0.2, 0.05, 0.01, 0.01)
#: A source on the wing stands out by this many sigma of the smoothed residual, and is left out.
SOURCE_SIGMA = 4.0
#: Beyond this many FWHM every third pixel tells enough of the profile.
THIN_BEYOND_FWHM = 5.0
#: A square that ends on more light than this, in sigma of the sky, is made larger, so many times at most.
CUT_OFF_SIGMA, WIDENINGS = 1.0, 2
#: A halo is so many rings side by side whose medians stand out of their own noise by so many sigma, and are
#: so many sigma of a pixel at least: less may be neighbours.
RINGS_OF_A_HALO, RING_SIGMA, LEAST_HALO = 8, 4.0, 0.6
#: Pixels below which nothing is fitted.
FEWEST_PIXELS = 60
#: Furthest that the centre may move from its first guess, FWHM.
MAX_MOVE_FWHM = 1.5


@dataclass(frozen=True, slots=True, eq=False)
class Wings:
    """A fitted star. `value` is its light per pixel at a place outside its saturated core."""

    x: float
    y: float
    #: Of the Moffat that the spline multiplies: value at the centre and scale in pixels.
    peak: float
    alpha_px: float
    #: Ellipticity along x and along the diagonal: ρ² = (1+e₁) dx² + (1−e₁) dy² + 2 e₂ dx dy.
    e1: float
    e2: float
    #: ln(radius) of the first knot, and what the logarithm of the profile exceeds the Moffat's by, per knot.
    first_knot: float
    spline: Floats
    #: Half-side of the square in which it is painted.
    reach_px: int
    #: A halo: medians of rings of one pixel beyond that profile, by their number from the centre (halos have
    #: edges that no smooth profile has). All zero without one.
    rings: Floats

    def value(self, dx: Floats, dy: Floats) -> Floats:
        """Light per pixel at offsets from the centre, rings included."""
        smooth = self._smooth(self._radius2(dx, dy))
        if not self.rings.any():
            return smooth
        return np.asarray(
            smooth + np.interp(np.hypot(dx, dy), np.arange(len(self.rings)), self.rings, right=0.0)
        )

    @property
    def halo_px(self) -> int:
        """Radius of the halo; 0: none."""
        shown = np.flatnonzero(self.rings)
        return int(shown[-1]) if shown.size else 0

    def _smooth(self, radius2: Floats) -> Floats:
        return np.asarray(self._moffat(radius2) * np.exp(self._bends(self._position(radius2))))

    def _position(self, radius2: Floats) -> Floats:
        """Where radii lie on the spline's fine grid; beyond the knots, on its ends."""
        position = (0.5 * np.log(radius2) - self.first_knot) * (FINE / KNOT_STEP)
        return np.asarray(np.clip(position, 0, (len(self.spline) - 2) * FINE))

    def _bends(self, position: Floats) -> Floats:
        """What the logarithm of the profile exceeds the Moffat's by."""
        fine = _splines(len(self.spline))[0] @ self.spline
        return np.asarray(np.interp(position, np.arange(len(fine)), fine))

    def _radius2(self, dx: Floats, dy: Floats) -> Floats:
        round_part = (1 + self.e1) * dx * dx + (1 - self.e1) * dy * dy + 2 * self.e2 * dx * dy
        return np.asarray(np.maximum(round_part, 0.25))

    def _moffat(self, radius2: Floats) -> Floats:
        base = 1 + radius2 / self.alpha_px**2
        return np.asarray(self.peak / (base * base * base))

    def window(self, shape: tuple[int, ...]) -> tuple[slice, slice]:
        """The square about the star, as far as it lies in the frame."""
        column, row = round(self.x), round(self.y)
        return (
            slice(max(row - self.reach_px, 0), min(row + self.reach_px + 1, shape[0])),
            slice(max(column - self.reach_px, 0), min(column + self.reach_px + 1, shape[1])),
        )

    def image(self, window: tuple[slice, slice]) -> Float32Image:
        """Its light on the pixels of a window: float32."""
        dy, dx = np.mgrid[window].astype(float)
        dy -= self.y
        dx -= self.x
        return self.value(dx.ravel(), dy.ravel()).reshape(dx.shape).astype(np.float32)


def fit_wings(
    image: Float32Image,
    variance: Float32Image,
    usable: BoolImage,
    place: tuple[float, float],
    radius_px: float,
    fwhm_px: float,
    sky_sigma: float,
) -> Wings | None:
    """Fit the star at `place` (x, y) whose pixels within about `radius_px` are not usable.

    `image` is background-subtracted, `usable` True where a pixel may be asked. Levenberg–Marquardt on the
    logarithm of the profile, all rounds on the pixels that the round before believed. None where too little
    of the star is to be seen, or where what is seen is no wing.
    """
    start = _start(image, usable, place, radius_px, fwhm_px, sky_sigma)
    star = None if start is None else _fitted(start, image, variance, usable, fwhm_px)
    for _ in range(WIDENINGS):
        if start is None or star is None or not _is_cut_off(star, sky_sigma, fwhm_px):
            break
        start = _reaching(start, round(1.6 * start.reach_px), fwhm_px)
        star = _fitted(start, image, variance, usable, fwhm_px)
    if star is not None and _has_no_end(star):
        return replace(star, rings=np.zeros(1))
    return star


def _is_cut_off(star: Wings, sky_sigma: float, fwhm_px: float) -> bool:
    """Whether there is light where the star's square ends, and the square may be larger."""
    at_edge = float(star.value(np.array([star.reach_px - 1.0]), np.zeros(1))[0])
    may_grow = star.reach_px < int(min(MAX_REACH_FWHM * fwhm_px, MAX_REACH_PX))
    return may_grow and (at_edge > CUT_OFF_SIGMA * sky_sigma or _has_no_end(star))


def _has_no_end(star: Wings) -> bool:
    """Whether its rings go on where its square ends: light of the field then, and none of the star's."""
    return bool(star.rings[-3:].any())


def _with_rings(
    star: Wings, image: Float32Image, variance: Float32Image, usable: BoolImage, fwhm_px: float
) -> Wings:
    """The star with its halo, where the medians of rings of one pixel show one.

    Taken twice: what stands out of the first medians is a neighbour, and no part of the second. A crowd of
    neighbours raises rings as far as one looks; a halo ends.
    """
    window = star.window(image.shape)
    dy, dx = np.mgrid[window].astype(float)
    dy -= star.y
    dx -= star.x
    ring = np.rint(np.hypot(dx, dy)).astype(np.intp)
    number = star.reach_px + 1
    good = usable[window] & (ring < number)
    noise2 = variance[window].astype(float)
    model = star.value(dx.ravel(), dy.ravel()).reshape(dx.shape)
    left = image[window].astype(float) - model
    medians, shown = _ring_medians(left, noise2, ring, good, number)
    if not shown.any():
        return star
    over = left - medians[np.minimum(ring, number - 1)]
    alone = good & _believed(over, model, noise2, good, _share(good, fwhm_px), TOLERANCES[-1], fwhm_px)
    medians, shown = _ring_medians(left, noise2, ring, alone, number)
    together = np.convolve(shown, np.ones(RINGS_OF_A_HALO), "valid") >= RINGS_OF_A_HALO
    if not together.any():
        return star
    end = int(np.flatnonzero(shown)[-1]) + 1
    return replace(star, rings=np.where(np.arange(number) <= end, medians, 0.0))


def _ring_medians(
    left: Floats, noise2: Floats, ring: NDArray[np.intp], good: BoolImage, number: int
) -> tuple[Floats, BoolImage]:
    """Median of each ring's `good` pixels, 0 without any, and whether it stands out."""
    of = ring[good]
    count = np.bincount(of, minlength=number)
    noise2_of = np.bincount(of, noise2[good], number) / np.maximum(count, 1)
    medians = np.nan_to_num(grouped_median(left[good], of, number))
    error = np.sqrt(noise2_of * np.pi / 2 / np.maximum(count, 1))
    shown = np.abs(medians) > np.maximum(RING_SIGMA * error, LEAST_HALO * np.sqrt(noise2_of))
    return medians, shown


def _start(
    image: Float32Image,
    usable: BoolImage,
    place: tuple[float, float],
    radius_px: float,
    fwhm_px: float,
    sky_sigma: float,
) -> Wings | None:
    """A round Moffat of the frame's width through the rim of what is not usable."""
    alpha = fwhm_px / (2 * np.sqrt(2 ** (1 / START_BETA) - 1))
    rim = radius_px + 0.7 * fwhm_px
    x, y = place
    guess = Wings(x, y, 1.0, alpha, 0.0, 0.0, 0.0, np.zeros(1), int(np.ceil(rim + 2)), np.zeros(1))
    rows, columns = guess.window(image.shape)
    radius = np.hypot(
        np.arange(columns.start, columns.stop) - x, np.arange(rows.start, rows.stop)[:, None] - y
    )
    ring = usable[rows, columns] & (np.abs(radius - rim) < 1.5)
    if np.count_nonzero(ring) < 8:
        return None
    level = float(np.median(image[rows, columns][ring]))
    if not level > sky_sigma:
        return None
    peak = level * (1 + (rim / alpha) ** 2) ** START_BETA
    far = alpha * np.sqrt(max((peak / (FAINTEST_SIGMA * sky_sigma)) ** (1 / START_BETA) - 1, 1.0))
    first = float(np.log(max(radius_px * 0.7, 1.0)))
    reach = int(np.ceil(max(far, rim + 3 * fwhm_px)))
    return _reaching(replace(guess, peak=peak, first_knot=first), reach, fwhm_px)


def _reaching(star: Wings, reach_px: int, fwhm_px: float) -> Wings:
    """The same start with a square of this half-side, within limits, and the knots that it needs."""
    reach = int(min(reach_px, MAX_REACH_FWHM * fwhm_px, MAX_REACH_PX))
    knots = max(int(np.ceil((np.log(reach * 1.5) - star.first_knot) / KNOT_STEP)) + 3, 4)
    return replace(star, spline=np.zeros(knots), reach_px=reach)


def _fitted(
    star: Wings,
    image: Float32Image,
    variance: Float32Image,
    usable: BoolImage,
    fwhm_px: float,
) -> Wings | None:
    window = star.window(image.shape)
    good = usable[window]
    data, noise2 = image[window].astype(float), variance[window].astype(float)
    dy, dx = np.mgrid[window].astype(float)
    origin = star.x, star.y
    chosen, share = good.copy(), _share(good, fwhm_px)
    thinned = (np.hypot(dx - star.x, dy - star.y) > THIN_BEYOND_FWHM * fwhm_px) & ((dx + dy) % 3 != 0)
    for number, tolerance in enumerate(TOLERANCES, start=1):
        if np.count_nonzero(chosen) < FEWEST_PIXELS:
            return None
        at = np.nonzero(chosen & ~thinned)
        star = _stepped(star, dx[at], dy[at], data[at], noise2[at], tolerance)
        if not np.hypot(star.x - origin[0], star.y - origin[1]) < MAX_MOVE_FWHM * fwhm_px:
            return None
        if number == len(TOLERANCES):
            break  # there is no round left that asks which pixels are believed
        model = star.value((dx - star.x).ravel(), (dy - star.y).ravel()).reshape(dx.shape)
        chosen = good & _believed(data - model, model, noise2, good, share, tolerance, fwhm_px)
    return _with_rings(star, image, variance, usable, fwhm_px)


def _stepped(star: Wings, x: Floats, y: Floats, data: Floats, noise2: Floats, tolerance: float) -> Wings:
    """One Gauss–Newton step of profile, centre and ellipticity, held by what is expected of a profile."""
    dx, dy = x - star.x, y - star.y
    radius2 = star._radius2(dx, dy)
    position = star._position(radius2)
    model = star._moffat(radius2) * np.exp(star._bends(position))
    nearest = np.rint(position).astype(np.intp)
    values, slopes = _splines(len(star.spline))
    basis = values[nearest]
    # d ln(model) / d ρ²
    slope = -START_BETA / (star.alpha_px**2 + radius2)
    slope += (slopes @ star.spline)[nearest] / (2 * radius2)
    geometry = np.stack(
        [
            -2 * ((1 + star.e1) * dx + star.e2 * dy),
            -2 * ((1 - star.e1) * dy + star.e2 * dx),
            dx * dx - dy * dy,
            2 * dx * dy,
        ],
        axis=1,
    )
    design = np.concatenate([basis, slope[:, None] * geometry], axis=1) * model[:, None]
    misfit = data - model
    allowed = np.sqrt(noise2 + (tolerance * model) ** 2)
    weight = 1 / (allowed**2 * np.maximum(np.abs(misfit) / (1.5 * allowed), 1.0))  # Huber
    prior, pull = _prior(star)
    normal = design.T @ (weight[:, None] * design) + prior
    step = np.linalg.solve(normal, design.T @ (weight * misfit) + pull)
    n = len(star.spline)
    move = np.clip(step[n : n + 2], -0.7, 0.7)
    bend = np.clip(step[n + 2 :], -0.1, 0.1)
    return replace(
        star,
        x=star.x + float(move[0]),
        y=star.y + float(move[1]),
        e1=float(np.clip(star.e1 + bend[0], -0.5, 0.5)),
        e2=float(np.clip(star.e2 + bend[1], -0.5, 0.5)),
        spline=star.spline + np.clip(step[:n], -1.0, 1.0),
    )


def _prior(star: Wings) -> tuple[Floats, Floats]:
    """Precision of what is expected beforehand, and its pull from where the star stands now."""
    n = len(star.spline)
    bends = np.diff(np.eye(n), 2, axis=0) / BEND_SIGMA
    precision = np.zeros((n + 4, n + 4))
    precision[:n, :n] = bends.T @ bends + np.eye(n) / LEVEL_SIGMA**2
    precision[n + 2 :, n + 2 :] = np.eye(2) / 0.1**2
    now = np.concatenate([star.spline, [0.0, 0.0, star.e1, star.e2]])
    return precision, -precision @ now


def _share(good: BoolImage, fwhm_px: float) -> Floats:
    """How much of a smoothing Gaussian's weight lies on `good` pixels."""
    return _smoothed(good.astype(float), fwhm_px)


def _smoothed(image: Floats, fwhm_px: float) -> Floats:
    smooth: Floats = ndimage.gaussian_filter(image, fwhm_px / 2.355, mode="constant", truncate=2.5)
    return smooth


def _believed(
    residual: Floats,
    model: Floats,
    noise2: Floats,
    good: BoolImage,
    share: Floats,
    tolerance: float,
    fwhm_px: float,
) -> BoolImage:
    """Pixels on which the wing is alone: no source stands out of the smoothed residual there."""
    smooth = _smoothed(np.where(good, residual, 0.0), fwhm_px)
    # noise of a Gaussian mean of white noise
    noise = np.sqrt(noise2 / (4 * np.pi * (fwhm_px / 2.355) ** 2) + (tolerance * model) ** 2)
    source = np.abs(smooth) > SOURCE_SIGMA * noise * np.maximum(share, 0.05)
    return ~grow(source, max(1, round(fwhm_px / 2)))


@lru_cache(maxsize=32)
def _splines(n: int) -> tuple[Floats, Floats]:
    """Cardinal cubic B-splines about `n` knots on a fine grid from the first knot to the last but one, and
    their derivatives by ln(radius): float64 `(places, n)`, `FINE` places a step.
    """
    t = (np.arange((n - 2) * FINE + 1) / FINE + 0.5)[:, None] - np.arange(n)[None, :]
    size = np.abs(t)
    outer = np.maximum(2 - size, 0.0)
    values = np.where(size < 1, 2 / 3 - size * size * (1 - 0.5 * size), outer * outer * outer / 6)
    slopes = np.sign(t) * np.where(size < 1, size * (1.5 * size - 2), -0.5 * outer * outer) / KNOT_STEP
    return values, slopes
