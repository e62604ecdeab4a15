"""The outskirts of a stack of stars: what is wing, what is sky and what faint neighbours add.

Owns the model of the wing and the rings in which neighbours are told from it; never moves a star.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import optimize

from astrid_workers.imaging.psf import Stamps

#: Pedestal and wing are fitted within this radius in FWHM: further out, clean stars have neighbours and the
#: sky has more faint light than around them, and the wing would be fitted to that.
FIT_RADIUS_FWHM = 4.0
#: What is left of it in the stack, in noise of a pixel of the stack's outer ring.
PEDESTAL_IN_STACK_NOISE = 0.1
#: From how far within the place where the stack goes over into its wing the wing's fall is read off; by how
#: much a smooth wing is off in a ring; what is known before of the logarithms of level and slope; and rounds.
OUTSKIRTS_FWHM, RING_ERROR, OUTSKIRTS_PRIOR, OUTSKIRTS_ROUNDS = 1.0, 0.1, (0.5, 1.5), 10
#: What is left under the mean of all stars, in noise of a pixel of the sky, where one source lies within
#: `FIT_RADIUS_FWHM` of any place: in a crowd the sky between sources is full of those that are too faint.
CROWD_SIGMA, LEAST_CROWDING = 0.015, 0.1
#: A list of sources is whole down to this S/N, or ends above it (at this percentile of its S/N): then numbers
#: that fall with this power of the flux say how many it lacks.
WHOLE_SNR, FAINTEST_PERCENTILE, COUNTS_POWER = 8.0, 2.0, 0.6
#: Power of the radius by which the light far out falls at least.
SLOWEST_FALL = 2.8
#: Width of the rings in which neighbours are told from wings, pixels, and the stars that are asked.
RING_PX, RING_STARS = 1.0, 100
#: Ring in FWHM in which what lies under all stars is told from their wings.
UNDERLAY_FWHM = (2.5, FIT_RADIUS_FWHM)
#: What a sky is off by where it is measured well, in noise of a pixel: galaxies and stars too faint to be
#: found stand under clean stars and not in the mode of the sky.
UNDERLAY_PRIOR_SIGMA = 0.02
#: Share of its wing by which a star's own may differ, misfits beyond which a star is left out, and rounds.
WING_SPREAD, OUTLYING_SIGMA, UNDERLAY_ROUNDS = 0.3, 3.5, 4
#: What is known of a Moffat's exponent before it is fitted: mean and sigma.
BETA_PRIOR = (3.2, 0.7)
#: How many residuals of the wing's pixels that outweighs, as its square root.
PRIOR_WEIGHT = 6.0


def neighbours_light(stack: Stamps, stamps: Stamps, weights: Stamps, radius: Stamps, fwhm: float) -> Stamps:
    """By how much faint neighbours raise the rings of a stack: its pixels less those of the median star.

    Zero inside one FWHM, where neighbours would have been seen.
    """
    ring = np.rint(radius / RING_PX).astype(int)
    raised = np.zeros_like(stack)
    best = np.argsort(-weights.sum(axis=(1, 2)))[:RING_STARS]
    for number in range(int(np.ceil(fwhm / RING_PX)), int(ring.max()) + 1):
        pixels = ring == number
        values, share = (stamps[best][:, pixels] - stack[pixels]).ravel(), weights[best][:, pixels].ravel()
        if np.count_nonzero(share) < 50:
            continue
        raised[pixels] = -_weighted_median(values, share)
    return raised


def _weighted_median(values: Stamps, weights: Stamps) -> float:
    order = np.argsort(values)
    total = np.cumsum(weights[order])
    return float(values[order[np.searchsorted(total, total[-1] / 2)]])


@dataclass(frozen=True, slots=True, eq=False)
class Winged:
    """A stack with its wings, and the light of the wings beyond its square, in the stack's unit."""

    stack: Stamps
    beyond: float


def with_wings(stack: Stamps, mean: Stamps, radius: Stamps, fwhm: float, pedestal_error: float) -> Winged:
    """The stack where it has signal, the wing of the stars' `mean` beyond, and no pedestal.

    The wing A (1 + r²/α²)^-β + c is fitted from 0.8 to 4 FWHM with errors of 10 % of the wing plus the noise
    of the outermost ring; c is what the background left and is taken off. Where the stack goes over into it,
    and further out, it falls as the rings of the mean do: turbulence and optics leave more light far out than
    the shoulder of a core tells. `pedestal_error` is what the sky under the mean may be wrong by there.
    """
    outer = FIT_RADIUS_FWHM * fwhm
    ring = (radius < outer) & (radius > outer - max(2.0, 0.7 * fwhm))
    noise = max(1.4826 * float(np.median(np.abs(mean[ring] - np.median(mean[ring])))), 1e-7)
    fitted = (radius > 0.8 * fwhm) & (radius < outer)
    parameters = _fit_wing(radius[fitted], mean[fitted], noise, fwhm)
    if parameters is None:
        return Winged(np.maximum(stack, 0.0) * (radius < radius.max() / np.sqrt(2)), 0.0)
    amplitude, alpha, beta, _ = parameters
    reach = _reach(amplitude, alpha, beta, 3 * noise, 1.5 * fwhm, 3.0 * fwhm)

    def moffat_at(r: Stamps) -> Stamps:
        moffat: Stamps = amplitude * (1 + (r / alpha) ** 2) ** -beta
        return moffat

    outskirts = (radius > reach - OUTSKIRTS_FWHM * fwhm) & (radius < radius.max() / np.sqrt(2))
    level, slope, pedestal = _outskirts(
        radius[outskirts], mean[outskirts], moffat_at(radius[outskirts]), noise, reach, pedestal_error
    )

    def wing_at(r: Stamps) -> Stamps:
        from_reach = np.clip(level + slope * np.log(np.maximum(r, 1.0) / reach), -3.0, 3.0)
        return np.asarray(moffat_at(r) * np.exp(from_reach))

    blend = np.clip((radius - reach) / (0.5 * fwhm), 0.0, 1.0)
    joined = (1 - blend) * (stack - pedestal) + blend * wing_at(radius)
    return Winged(joined, _light_beyond(wing_at, radius))


def _light_beyond(wing_at: Callable[[Stamps], Stamps], radius: Stamps) -> float:
    """The light of a wing outside of a square: beyond the circle in it, less what its corners have.

    From twice the circle's radius on it falls as it does there, never slower than `SLOWEST_FALL` says.
    """
    first = (len(radius) - 1) / 2 + 0.5
    r = np.linspace(first, 2 * first, 200)
    ring = 2 * np.pi * r * wing_at(r)
    near = float(np.sum((ring[1:] + ring[:-1]) / 2) * (r[1] - r[0]))
    far = wing_at(np.array([1.9 * first, 2 * first]))
    fall = max(float(np.log(far[0] / far[1]) / np.log(2 / 1.9)), SLOWEST_FALL)
    corners = float(np.sum(wing_at(radius[radius > first])))
    return max(near + float(ring[-1]) * 2 * first / (fall - 2) - corners, 0.0)


def _outskirts(
    radius: Stamps, values: Stamps, moffat: Stamps, noise: float, reach: float, pedestal_error: float
) -> tuple[float, float, float]:
    """Logarithms of the level at `reach` and of the slope by which the mean's wing differs from a Moffat, and
    the pedestal.

    Fitted to means of rings: what a model of one shape is wrong by is the same all around. Held by what is
    known before, so that a stack without signal out there keeps its Moffat.
    """
    ring = np.rint(radius / RING_PX).astype(int)
    count = np.bincount(ring)
    seen = count > 0
    count = count[seen]
    r, mean, wing = (np.bincount(ring, each)[seen] / count for each in (radius, values, moffat))
    away = np.log(r / reach)
    prior = np.array([*OUTSKIRTS_PRIOR, 1.0]) ** -2.0
    found = np.zeros(3)
    for _ in range(OUTSKIRTS_ROUNDS):
        model = wing * np.exp(np.clip(found[0] + found[1] * away, -3.0, 3.0))
        error = np.hypot(RING_ERROR * model, noise / np.sqrt(count))
        misfit = (mean - model - found[2] * pedestal_error) / error
        slopes = np.stack([model, model * away, np.full_like(model, pedestal_error)]) / error
        weighted = slopes / np.sqrt(1 + misfit**2)
        found += np.linalg.solve(weighted @ slopes.T + np.diag(prior), weighted @ misfit - prior * found)
    return float(found[0]), float(found[1]), float(found[2] * pedestal_error)


def n_sources_of(snr: NDArray[np.float64]) -> float:
    """Sources of a frame from the S/N of those that are listed: lists of large frames end at bright ones."""
    known = snr[np.isfinite(snr)]
    if not known.size:
        return float(snr.size)
    faintest = float(np.percentile(known, FAINTEST_PERCENTILE))
    return float(snr.size * max(1.0, faintest / WHOLE_SNR) ** COUNTS_POWER)


def pedestal_error(sky_noise: float, n_sources: float, n_px: int, fwhm: float) -> float:
    """What the sky under stars may be wrong by, in the unit of `sky_noise`, in a frame of so many sources."""
    crowding = n_sources * np.pi * (FIT_RADIUS_FWHM * fwhm) ** 2 / n_px
    return float(CROWD_SIGMA * max(crowding, LEAST_CROWDING) * sky_noise)


def light_under_stars(
    level: Stamps, error: Stamps, flux: Stamps, sky_noise: float
) -> tuple[float, NDArray[np.bool_]]:
    """What lies under all stars besides their wings, per pixel; and which stars have no more than that.

    `level` is the mean of the ring around each star with its `error` (inf where nothing of it is known),
    `flux` the star's, all `(n,)`: the wing goes with the flux, what lies under it does not. Held to 0 by
    `UNDERLAY_PRIOR_SIGMA` times `sky_noise`.
    """
    sigma, alone = error, np.ones(len(level), bool)
    prior = np.diag([0.0, 1 / (UNDERLAY_PRIOR_SIGMA * sky_noise) ** 2])
    light = 0.0
    for _ in range(UNDERLAY_ROUNDS):
        design = np.stack([flux, np.ones_like(flux)], axis=1) / sigma[:, None]
        used = design * alone[:, None]
        right = used.T @ (level / sigma)
        wing, light = np.linalg.lstsq(used.T @ used + prior, right, rcond=None)[0]
        sigma = np.hypot(error, WING_SPREAD * abs(wing) * flux)
        misfit = (level - wing * flux - light) / sigma
        # in a crowd all rings scatter by more than their pixels' noise, and none of them stands out for it
        spread = max(1.0, 1.4826 * float(np.median(np.abs(misfit))))
        sigma, alone = sigma * spread, misfit < OUTLYING_SIGMA * spread
    return float(light), alone


def _fit_wing(
    r: Stamps, values: Stamps, noise: float, fwhm: float
) -> tuple[float, float, float, float] | None:
    def residuals(p: NDArray[np.float64]) -> NDArray[np.float64]:
        model = np.exp(p[0]) * (1 + (r / np.exp(p[1])) ** 2) ** -p[2]
        misfit = (model + p[3] * noise - values) / (0.1 * model + noise)
        return np.append(
            misfit, [PRIOR_WEIGHT * (p[2] - BETA_PRIOR[0]) / BETA_PRIOR[1], p[3] / PEDESTAL_IN_STACK_NOISE]
        )

    def derivatives(p: NDArray[np.float64]) -> NDArray[np.float64]:
        square = (r / np.exp(p[1])) ** 2
        model = np.exp(p[0]) * (1 + square) ** -p[2]
        error = 0.1 * model + noise
        # of the misfit by the logarithm of the model, and of that by the parameters
        slope = model * (error - 0.1 * (model + p[3] * noise - values)) / error**2
        columns = [slope, slope * 2 * p[2] * square / (1 + square), -slope * np.log1p(square), noise / error]
        priors = np.zeros((2, 4))
        priors[0, 2], priors[1, 3] = PRIOR_WEIGHT / BETA_PRIOR[1], 1 / PEDESTAL_IN_STACK_NOISE
        return np.concatenate([np.stack(columns, axis=1), priors])

    start = [np.log(max(float(np.max(values)), noise) * 2), np.log(fwhm), 3.0, 0.0]
    lower, upper = [-np.inf, np.log(0.3 * fwhm), 2.2, -5.0], [np.inf, np.log(4 * fwhm), 8.0, 5.0]
    try:
        found = optimize.least_squares(
            residuals, start, derivatives, bounds=(lower, upper), loss="soft_l1", max_nfev=60
        )
    except (ValueError, np.linalg.LinAlgError):
        return None
    return float(np.exp(found.x[0])), float(np.exp(found.x[1])), float(found.x[2]), float(found.x[3] * noise)


def _reach(amplitude: float, alpha: float, beta: float, level: float, low: float, high: float) -> float:
    """Radius at which the wing falls to `level`, within limits."""
    ratio = max(amplitude / level, 1.0) ** (1 / beta) - 1
    return float(np.clip(alpha * np.sqrt(ratio), low, high))
