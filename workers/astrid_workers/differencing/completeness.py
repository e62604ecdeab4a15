"""What injected sources say about a frame: completeness, depth, and how good fluxes and places are.

Owns the fit of a completeness curve with its errors, and the numbers of the report; never injects. A number
that the sources do not support is None.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from astrid_workers.differencing.injection import Injected, InjectionOptions

Floats = NDArray[np.float64]
BoolArray = NDArray[np.bool_]

#: Fewer sources than this say nothing about a limit.
FEWEST_FOR_LIMIT = 12
#: Bins of a curve.
BINS = 8
#: S/N above which completeness is quoted, and above which found sources tell of flux and place without the
#: bias that selection by brightness makes near the threshold.
BRIGHT_SNR = 10.0
#: Nodes of the posterior's grid: limit, width, plateau.
NODES = (240, 16, 26)
#: Lowest plateau: below, the frame's curve is no curve.
LEAST_PLATEAU = 0.5


@dataclass(frozen=True, slots=True)
class Bin:
    """Sources in one range and the share that was found, with its 68 % (Wilson) interval."""

    low: float
    high: float
    n: int
    n_found: int

    @property
    def fraction(self) -> float | None:
        """Share found; None without sources."""
        return self.n_found / self.n if self.n else None

    @property
    def interval(self) -> tuple[float, float] | None:
        """68 % binomial interval of the share."""
        return wilson_interval(self.n_found, self.n) if self.n else None


@dataclass(frozen=True, slots=True)
class Limit:
    """Where completeness passes 50 and 90 %, each with its 1-sigma error; None where it is not known."""

    at_50: float | None = None
    at_50_err: float | None = None
    at_90: float | None = None
    at_90_err: float | None = None


def wilson_interval(found: int, n: int, sigma: float = 1.0) -> tuple[float, float]:
    """Binomial interval of a share (Wilson 1927); it keeps inside 0 … 1 and is honest for 0 and all."""
    share, z = found / n, sigma**2 / n
    centre = (share + z / 2) / (1 + z)
    half = float(np.sqrt(z * share * (1 - share) + z**2 / 4)) / (1 + z)
    return (max(centre - half, 0.0) if found else 0.0), (centre + half if found < n else 1.0)


def binned(value: Floats, found: BoolArray, edges: Floats) -> list[Bin]:
    """Counts per bin; the last bin holds its upper edge."""
    n, _ = np.histogram(value, edges)
    n_found, _ = np.histogram(value[found], edges)
    rows = zip(edges[:-1], edges[1:], n, n_found, strict=True)
    return [Bin(float(low), float(high), int(a), int(b)) for low, high, a, b in rows]


def fit_limit(value: Floats, found: BoolArray, widths: tuple[float, float]) -> Limit:
    """Where a curve `plateau · Φ((value − limit) / width)` passes 50 and 90 %; `value` grows with brightness.

    The posterior on a grid (flat in limit, log width within `widths`, and plateau from 0.5 to 1), so that the
    errors are those of a binomial without any linearisation; quoted are its median and half its central 68 %.
    None with too few sources, when none or all were found, and where the curve does not get that high.
    """
    n_found = int(np.count_nonzero(found))
    if value.size < FEWEST_FOR_LIMIT or n_found in (0, value.size):
        return Limit()
    low, high = float(value.min()), float(value.max())
    limits = np.linspace(low, high, NODES[0])
    scales = np.geomspace(*widths, NODES[1])
    plateaus = np.linspace(LEAST_PLATEAU, 1.0 - 1e-4, NODES[2])
    weight = _posterior(value, found, limits, scales, plateaus)
    at_50, at_90 = (_crossing(share, limits, scales, plateaus, weight, high) for share in (0.5, 0.9))
    return Limit(*at_50, *at_90)


def _posterior(value: Floats, found: BoolArray, limits: Floats, scales: Floats, plateaus: Floats) -> Floats:
    """Normalised probability on the grid (limit, width, plateau)."""
    log_likelihood = np.zeros((limits.size, scales.size, plateaus.size))
    for j, scale in enumerate(scales):
        curve = ndtr((value[None, :] - limits[:, None]) / scale)
        for k, plateau in enumerate(plateaus):
            share = np.clip(plateau * curve, 1e-9, 1 - 1e-9)
            log_likelihood[:, j, k] = np.log(np.where(found, share, 1 - share)).sum(axis=1)
    weight = np.exp(log_likelihood - log_likelihood.max())
    return np.asarray(weight / weight.sum())


def _crossing(
    share: float, limits: Floats, scales: Floats, plateaus: Floats, weight: Floats, highest: float
) -> tuple[float | None, float | None]:
    """Median and half the central 68 % of where the curve passes `share`; None beyond what was injected."""
    ratio = share / plateaus
    steps = np.where(ratio < 1, ndtri(np.minimum(ratio, 1 - 1e-9)), np.inf)
    places = limits[:, None, None] + scales[None, :, None] * steps[None, None, :]
    order = np.argsort(places, axis=None)
    cumulative = np.cumsum(weight.ravel()[order])
    low, middle, high = (
        float(places.ravel()[order[min(int(np.searchsorted(cumulative, q)), order.size - 1)]])
        for q in (0.1587, 0.5, 0.8413)
    )
    if not middle <= highest:
        return None, None
    return middle, (high - low) / 2 if np.isfinite(high) else None


def injection_numbers(
    injected: Injected,
    options: InjectionOptions,
    threshold_sigma: float,
    unit: str,
    zero_point_mag: float | None,
) -> dict[str, Any]:
    """The report's `injections`: storable as JSON, null where not measured.

    Magnitudes are those of `zero_point_mag`, fluxes in `unit`; `mag_50` and `flux_50` are where half of the
    sources are found over the whole frame, whatever the noise of their places.
    """
    blank, on_source = injected.only(~injected.on_source), injected.only(injected.on_source)
    return {
        "asked": options.count,
        "injected": len(injected),
        "found": int(np.count_nonzero(injected.found)),
        "found_with_a_flag": int(np.count_nonzero(injected.flagged)),
        "seed": options.seed,
        "snr_range": [options.least_snr, options.most_snr],
        "threshold": threshold_sigma,
        "unit": unit,
        "all": _depth(injected, zero_point_mag),
        "blank": _depth(blank, zero_point_mag),
        "on_source": _depth(on_source, zero_point_mag),
        "curve_snr": _curve(injected, injected.snr, _snr_edges(options)),
        "curve_mag": _magnitude_curve(injected, zero_point_mag),
        **_quality(injected),
    }


def _depth(injected: Injected, zero_point_mag: float | None) -> dict[str, Any]:
    """Where completeness passes 50 and 90 %, in S/N, flux and magnitude, and the share found above S/N 10."""
    snr = fit_limit(injected.snr, injected.found, (0.3, 5.0))
    mag = fit_limit(2.5 * np.log10(np.maximum(injected.flux, 1e-300)), injected.found, (0.03, 1.5))
    bright = injected.snr > BRIGHT_SNR
    n, n_found = int(np.count_nonzero(bright)), int(np.count_nonzero(injected.found & bright))
    return {
        "n": len(injected),
        "snr_50": snr.at_50,
        "snr_50_err": snr.at_50_err,
        "snr_90": snr.at_90,
        "snr_90_err": snr.at_90_err,
        "flux_50": _flux(mag.at_50),
        "flux_90": _flux(mag.at_90),
        "mag_50": _magnitude(mag.at_50, zero_point_mag),
        "mag_50_err": mag.at_50_err if zero_point_mag is not None else None,
        "mag_90": _magnitude(mag.at_90, zero_point_mag),
        "mag_90_err": mag.at_90_err if zero_point_mag is not None else None,
        "n_above_snr_10": n,
        "completeness_above_snr_10": n_found / n if n else None,
        "completeness_above_snr_10_interval": list(wilson_interval(n_found, n)) if n else None,
    }


def _flux(brightness: float | None) -> float | None:
    return None if brightness is None else float(10 ** (brightness / 2.5))


def _magnitude(brightness: float | None, zero_point_mag: float | None) -> float | None:
    return None if brightness is None or zero_point_mag is None else zero_point_mag - brightness


def _snr_edges(options: InjectionOptions) -> Floats:
    return np.geomspace(options.least_snr, options.most_snr, BINS + 1)


def _curve(injected: Injected, value: Floats, edges: Floats) -> list[dict[str, Any]]:
    return [
        {"low": one.low, "high": one.high, "n": one.n, "found": one.n_found, "fraction": one.fraction,
         "interval": None if one.interval is None else list(one.interval)}
        for one in binned(value, injected.found, edges)
    ]  # fmt: skip


def _magnitude_curve(injected: Injected, zero_point_mag: float | None) -> list[dict[str, Any]] | None:
    if zero_point_mag is None or not len(injected):
        return None
    mag = zero_point_mag - 2.5 * np.log10(injected.flux)
    return _curve(injected, mag, np.linspace(float(mag.min()), float(mag.max()), BINS + 1))


def _quality(injected: Injected) -> dict[str, Any]:
    """Flux and place, as JSON; pulls are deviations over their quoted errors and should scatter by 1."""
    bias = _flux_bias(injected)
    bright = injected.only(injected.found & (injected.snr > BRIGHT_SNR))
    enough = len(bright) >= FEWEST_FOR_LIMIT
    ratio = bright.found_flux / bright.flux
    flux_pulls = (bright.found_flux - bright.flux) / bright.found_flux_err
    offset_x, offset_y = bright.found_x - bright.x, bright.found_y - bright.y
    pulls = np.concatenate([offset_x / bright.found_x_err, offset_y / bright.found_y_err])
    return {
        "flux_bias": bias[0],
        "flux_bias_err": bias[1],
        "flux_ratio_median": float(np.median(ratio)) if enough else None,
        "flux_scatter": _scatter(ratio) if enough else None,
        "flux_pull_scatter": _scatter(flux_pulls) if enough else None,
        "position_scatter_px": _scatter(np.concatenate([offset_x, offset_y])) if enough else None,
        "position_pull_scatter": _scatter(pulls) if enough else None,
    }


def _flux_bias(injected: Injected) -> tuple[float | None, float | None]:
    """Mean of (gained flux / injected flux) − 1, weighted by flux, whether found or not; clipped at 5 MAD."""
    known = np.isfinite(injected.gained_flux) & (injected.flux > 0)
    ratio, weight = injected.gained_flux[known] / injected.flux[known], injected.flux[known]
    if ratio.size < FEWEST_FOR_LIMIT:
        return None, None
    keep = np.abs(ratio - np.median(ratio)) < 5 * max(_scatter(ratio), 1e-6)
    ratio, weight = ratio[keep], weight[keep] / weight[keep].sum()
    mean = float(np.sum(weight * ratio))
    return mean - 1, float(np.sqrt(np.sum(weight**2 * (ratio - mean) ** 2)))


def _scatter(values: Floats) -> float:
    return float(1.4826 * np.median(np.abs(values - np.median(values))))
