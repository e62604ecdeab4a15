"""The PSF of a frame from its stars.

Owns which stars are fit for it, the order of its variation over the frame and the declared fallback when
stars are few. Never detects a star and never subtracts a background.
"""

import numpy as np
from numpy.typing import NDArray
from scipy import optimize

from astrid_workers.errors import SubtractionRefused
from astrid_workers.frame import Float32Image
from astrid_workers.imaging.psf import (
    FALLBACK_BETA,
    MIN_STARS_FOR_STACK,
    Psf,
    half_side,
    measure_fwhm,
    moffat_psf,
    polynomial,
)
from astrid_workers.imaging.residual_map import excess_scatter
from astrid_workers.imaging.star_stack import StarStack, StarTable

Floats = NDArray[np.float64]

#: Stars needed for a variation over the frame of order 1 and 2: five per unknown.
MIN_STARS_FOR_ORDER = {1: 25, 2: 60}
#: A star's width is as uncertain, relatively, as so many times its flux.
WIDTH_ERROR = 1.7
#: Sigmas by which a star's width may differ from those about it, the scatter of widths besides their noise
#: that is always allowed, and rounds in which both are found.
WIDTH_SIGMA, LEAST_WIDTH_SPREAD, WIDTH_ROUNDS = 3.0, 0.005, 4
#: More stars than this only cost time.
MAX_STARS = 300
#: Exponents of the fallback that several clean stars may ask for, by so much of half their chi² at least.
OTHER_BETAS, FEWEST_FOR_BETA, LEAST_GAIN = (2.4, 3.6, 4.6), 3, 4.0


def measure_psf(
    image: Float32Image,
    variance: Float32Image,
    bad: NDArray[np.bool_],
    stars: StarTable,
    *,
    max_order: int = 2,
    size_px: int | None = None,
) -> Psf:
    """The PSF of a background-subtracted image.

    `image`, `variance` and `bad` share one shape; `bad` marks pixels that must not be used. `stars` are
    detections with `clean` set for those that are isolated, round, unsaturated and whole. Raises
    `SubtractionRefused` when not one detection has a width.
    """
    fwhm, chosen = _choose(stars, image.shape)
    half = half_side(fwhm, size_px)
    if len(chosen) < MIN_STARS_FOR_STACK:
        width, beta = _profile(image, variance, bad, stars, chosen, fwhm)
        return moffat_psf(width, image.shape, len(chosen), 2 * half + 1, beta)
    stack = StarStack.cut(image, variance, bad, stars, chosen, half)
    stack.refine(fwhm)
    if len(stack) < MIN_STARS_FOR_STACK:
        return moffat_psf(fwhm, image.shape, len(stack), 2 * half + 1)
    order = allowed_order(len(stack), max_order)
    terms, beyond = stack.combine(order, image.shape, fwhm)
    return Psf(
        terms.astype(np.float32),
        (image.shape[0], image.shape[1]),
        measure_fwhm(terms[0]),
        len(stack),
        "stars",
        f"stacked from {len(stack)} clean stars, varying with order {order}",
        beyond,
    )


def allowed_order(n_stars: int, max_order: int) -> int:
    """The polynomial order that so many stars can carry."""
    return max(
        (o for o, need in MIN_STARS_FOR_ORDER.items() if n_stars >= need and o <= max_order), default=0
    )


def _choose(stars: StarTable, shape: tuple[int, ...]) -> tuple[float, NDArray[np.intp]]:
    """The typical width, and the indices of the stars to stack: of that width, bright, whole."""
    widths = np.asarray(stars.fwhm_px, float)
    clean = np.asarray(stars.clean, bool) & np.isfinite(widths) & (widths > 0.5)
    known = widths[clean] if clean.any() else widths[np.isfinite(widths) & (widths > 0.5)]
    if known.size == 0:
        msg = f"no star with a measurable width among {len(widths)} detections, 1 needed for a PSF"
        raise SubtractionRefused(msg, detections=len(widths), needed=1)
    fwhm = float(np.median(known))
    scatter = max(1.4826 * float(np.median(np.abs(known - fwhm))), 0.04 * fwhm)
    margin = fwhm * 2
    inside = (
        (stars.x > margin)
        & (stars.x < shape[1] - 1 - margin)
        & (stars.y > margin)
        & (stars.y < shape[0] - 1 - margin)
    )
    snr = np.asarray(stars.snr, float)
    fit = clean & inside & (np.abs(widths - fwhm) < 4 * scatter) & (snr > 20)
    index = np.flatnonzero(fit)
    x, y = np.asarray(stars.x, float)[index], np.asarray(stars.y, float)[index]
    index = index[as_wide_as_others_there(x, y, widths[index], snr[index], (shape[0], shape[1]))]
    return fwhm, index[np.argsort(-snr[index])][:MAX_STARS]


def as_wide_as_others_there(
    x: Floats, y: Floats, widths: Floats, snr: Floats, shape: tuple[int, int]
) -> NDArray[np.bool_]:
    """Which stars are as wide as the others say that stars are at that place, within `WIDTH_SIGMA`.

    Seeing that varies over a frame by a tenth hides a bright star with a host on its wing among the widths
    of all; from a smooth map of the widths of many it stands out. `snr` tells how well a width is known. All
    of them where stars are too few for a map.
    """
    kept = np.ones(len(x), bool)
    if len(x) < MIN_STARS_FOR_ORDER[2]:
        return kept
    basis, error = polynomial(x, y, shape, 2), WIDTH_ERROR / snr
    spread = 0.0
    for _ in range(WIDTH_ROUNDS):
        weight = np.where(kept, 1 / (error**2 + max(spread, LEAST_WIDTH_SPREAD) ** 2), 0.0)
        root = np.sqrt(weight)[:, None]
        solution = np.linalg.lstsq(basis * root, widths * root[:, 0], rcond=None)[0]
        off = widths / (basis @ solution) - 1
        spread = excess_scatter(off, error)
        kept = np.abs(off) < WIDTH_SIGMA * np.hypot(error, max(spread, LEAST_WIDTH_SPREAD))
    return kept


def _profile(
    image: Float32Image,
    variance: Float32Image,
    bad: NDArray[np.bool_],
    stars: StarTable,
    chosen: NDArray[np.intp],
    guess: float,
) -> tuple[float, float]:
    """FWHM and exponent of the fallback's Moffat as the few stars' profiles want them: the median of fits of
    the width; of several clean stars the exponent that explains them best, if chance does not.

    Gaussian moments say 15 % more for the same star. Without clean stars the brightest detections stand in.
    """
    brightest = np.argsort(-np.nan_to_num(np.asarray(stars.snr)))[:MIN_STARS_FOR_STACK]
    stack = StarStack.cut(
        image, variance, bad, stars, chosen if len(chosen) else brightest, int(np.ceil(2 * guess))
    )
    betas = (FALLBACK_BETA, *OTHER_BETAS) if len(chosen) >= FEWEST_FOR_BETA else (FALLBACK_BETA,)
    fits = np.array([[_moffat_fit(stack, i, guess, beta) for i in range(len(stack))] for beta in betas])
    known = np.all((fits[..., 0] > 0.4 * guess) & (fits[..., 0] < 2.5 * guess), axis=0)
    if not known.any():
        return guess, FALLBACK_BETA
    costs = fits[:, known, 1].sum(axis=1)
    best = int(np.argmin(costs))
    if costs[0] - costs[best] < LEAST_GAIN:
        best = 0
    return float(np.median(fits[best, known, 0])), betas[best]


def _moffat_fit(stack: "StarStack", i: int, guess: float, beta: float) -> tuple[float, float]:
    """Width of one star, and half the robust chi² that is left, by least squares of flux, centre, width and
    pedestal of a Moffat of one exponent; NaN where too few pixels are known.
    """
    axis = np.arange(-stack.half, stack.half + 1.0)
    good = stack.good[i]
    data, noise = stack.raw[i][good], stack.noise[i][good] + 0.02 * np.abs(stack.raw[i][good])
    unit = 2 * np.sqrt(2 ** (1 / beta) - 1)

    def misfit(p: NDArray[np.float64]) -> NDArray[np.float64]:
        radius2 = (axis[None, :] - p[1]) ** 2 + (axis[:, None] - p[2]) ** 2
        model = p[0] * (1 + radius2[good] * (unit / p[3]) ** 2) ** -beta
        return np.asarray((model + p[4] - data) / noise)

    offset = (stack.x[i] - stack.ix[i], stack.y[i] - stack.iy[i])
    start = [max(float(data.max(initial=0.0)), 1e-9), *offset, guess, 0.0]
    bounds = ([0, -2, -2, 0.3 * guess, -np.inf], [np.inf, 2, 2, 3 * guess, np.inf])
    if data.size < 20:
        return float("nan"), float("nan")
    fit = optimize.least_squares(misfit, start, bounds=bounds, loss="soft_l1", max_nfev=60)
    return float(fit.x[3]), float(fit.cost)
