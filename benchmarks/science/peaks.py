"""The protocol that every contender's score goes through: peaks, their causes, what was found of the truth.

Owns the same rules for all: a score is divided by its own scatter; a peak is a local extremum beyond 5 sigma
of the score as it was before masking ("true peaks": the flank of a masked star is none); known bad pixels of
either frame, grown by 6 px, and 40 px along the edge are left out. Never knows whose score it is.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage, special
from scipy.optimize import minimize

from astrid_workers.mask import MaskBit
from astrid_workers.sky import Sky

THRESHOLD = 5.0
BORDER_PX = 40
GROWN_PX = 6
MATCH_PX = 2.5
#: Peaks this close to an injection are its own rings or partner, for every contender.
NEAR_INJECTION_PX = 7.0
#: A false peak this close to a constant star of this many electrons is one of a star.
STAR_PX, STAR_E = 12.0, 5e3
CAUSES = ("cosmic_ray", "saturated", "star", "other")
UNUSABLE = np.uint32(MaskBit.BAD_PIXEL | MaskBit.SATURATED | MaskBit.NO_DATA)


@dataclass(frozen=True, slots=True, eq=False)
class Peaks:
    """Extrema of a scaled score with their sub-pixel places; `gain` is the summit over the pixel's value."""

    x: Any
    y: Any
    score: Any
    row: Any
    column: Any
    gain: Any


def score_from_difference(difference: Any, psf: Any, variance: Any, valid: Any) -> tuple[Any, Any, Any]:
    """`(score, flux, flux error)` by a filter with the difference's PSF, pixels weighed by their variance.

    As if pixels were independent: where a kernel correlated them, the scatter by which every score is divided
    puts it right on average.
    """
    good = valid & np.isfinite(difference) & np.isfinite(variance) & (variance > 0)
    weight = np.where(good, 1.0 / np.where(good, variance, 1.0), 0.0)
    signal = _correlated(np.where(good, difference, 0.0) * weight, psf)
    information = np.maximum(_correlated(weight, psf**2), 1e-30)
    return signal / np.sqrt(information), signal / information, 1 / np.sqrt(information)


def _correlated(image: Any, kernel: Any) -> Any:
    ny, nx = image.shape
    ky, kx = kernel.shape
    size = (fft.next_fast_len(ny + ky, real=True), fft.next_fast_len(nx + kx, real=True))
    product = fft.irfft2(fft.rfft2(image, size) * fft.rfft2(kernel[::-1, ::-1], size), size)
    return product[ky // 2 : ky // 2 + ny, kx // 2 : kx // 2 + nx]


def common_mask(sky: Sky) -> NDArray[np.bool_]:
    """Known bad pixels of both frames on the science grid, grown: where nobody's peaks count."""
    y, x = np.indices(sky.science.shape, dtype=np.float64)
    x_r, y_r = sky.grid.to_reference(x, y)
    ny, nx = sky.grid.out_shape
    columns, rows = np.rint(x_r).astype(int), np.rint(y_r).astype(int)
    inside = (columns >= 0) & (columns < nx) & (rows >= 0) & (rows < ny)
    bad = (sky.science.mask & UNUSABLE) != 0
    bad |= ((sky.reference.mask & UNUSABLE) != 0)[np.clip(rows, 0, ny - 1), np.clip(columns, 0, nx - 1)]
    disc = np.hypot(*np.mgrid[-GROWN_PX : GROWN_PX + 1, -GROWN_PX : GROWN_PX + 1]) <= GROWN_PX
    masked: NDArray[np.bool_] = ndimage.binary_dilation(bad | ~inside, disc)
    return masked


def find_peaks(score: Any) -> Peaks:
    """Local extrema of either sign beyond the threshold; NaN counts as no signal."""
    known = np.nan_to_num(score, nan=0.0, posinf=0.0, neginf=0.0)
    size = np.abs(known)
    ring = np.ones((3, 3), bool)
    top = (known == ndimage.maximum_filter(known, footprint=ring)) | (
        known == ndimage.minimum_filter(known, footprint=ring)
    )
    rows, columns = np.nonzero(top & (size > THRESHOLD))
    inner = (rows > 0) & (columns > 0) & (rows < known.shape[0] - 1) & (columns < known.shape[1] - 1)
    rows, columns = rows[inner], columns[inner]
    value = known[rows, columns]
    dx, gain_x = _summit(known[rows, columns - 1], value, known[rows, columns + 1])
    dy, gain_y = _summit(known[rows - 1, columns], value, known[rows + 1, columns])
    return Peaks(columns + dx, rows + dy, value, rows, columns, gain_x * gain_y)


def _summit(low: Any, middle: Any, high: Any) -> tuple[Any, Any]:
    """Offset and relative height of a Gaussian through three pixels."""
    a, b = (np.log(np.clip(side / middle, 0.02, None)) for side in (low, high))
    curvature = np.minimum(a + b, -1e-6)
    offset = np.clip(0.5 * (a - b) / curvature, -0.5, 0.5)
    return offset, np.exp(-0.25 * (a - b) * offset)


def score_answer(sky: Sky, answer: dict[str, Any]) -> dict[str, Any]:
    """All numbers of one contender on one simulated pair.

    `answer` holds `score` and, where it has them, `valid`, `flux`, `candidates`.
    """
    masked = common_mask(sky)
    score = np.asarray(answer["score"], np.float64)
    valid = np.asarray(answer.get("valid", np.ones(score.shape, bool))) & np.isfinite(score)
    inside = np.zeros(score.shape, bool)
    inside[BORDER_PX:-BORDER_PX, BORDER_PX:-BORDER_PX] = True
    counted = inside & ~masked & valid
    if np.count_nonzero(counted) < 1000:
        return {"failed": "hardly a pixel has a score"}
    median = float(np.median(score[counted]))
    scatter = float(1.4826 * np.median(np.abs(score[counted] - median)))
    scaled = score / scatter
    found = find_peaks(scaled)
    area = np.count_nonzero(inside & ~masked) / 1e6
    row = {
        "score_median": median / scatter,
        "score_scatter": scatter,
        "unmeasured_share": 1 - np.count_nonzero(counted) / np.count_nonzero(inside & ~masked),
        **_tails(sky, scaled, counted),
        **_of_truth(sky, found, counted, inside & ~masked, answer.get("flux")),
        **_false(sky, found, counted, area, ""),
        "inside_masks": float(_false(sky, found, inside & masked, area, "x_")["x_false"] * area),
    }
    if answer.get("candidates") is not None:
        row |= _delivered(sky, answer["candidates"], inside, masked)
    return row


def _tails(sky: Sky, scaled: Any, counted: Any) -> dict[str, float]:
    """|z| > 3 over a Gaussian's share: of every counted pixel away from injections, and of those away from
    stars and galaxies too.
    """
    away = counted & ~_near(scaled.shape, sky.truth["x"], sky.truth["y"], 12)
    bright = sky.star_flux_e > STAR_E
    x, y = np.append(sky.star_x[bright], sky.galaxies.x), np.append(sky.star_y[bright], sky.galaxies.y)
    empty = away & ~_near(scaled.shape, x, y, 12)
    rows, columns = np.indices(scaled.shape)
    for star_x, star_y, reach in zip(*saturated_stars(sky), strict=True):
        empty &= np.hypot(columns - star_x, rows - star_y) > reach
    gauss = float(2 * special.ndtr(-3.0))
    return {
        name: float(np.mean(np.abs(scaled[where]) > 3) / gauss) if where.any() else float("nan")
        for name, where in (("tails", away), ("tails_empty_sky", empty))
    }


def saturated_stars(sky: Sky) -> tuple[Any, Any, Any]:
    """`x, y, reach` of the stars that clip in either frame.

    Within `reach` px their wings in the science frame stand above one sigma of its sky.
    """
    sides = (
        (sky.science, sky.psf_science, sky.star_flux_e),
        (sky.reference, sky.psf_reference, sky.star_flux_e / sky.flux_scale),
    )
    clipped = np.zeros(sky.star_x.size, bool)
    for frame, psf, flux in sides:
        clipped |= flux * psf.peak > 0.8 * float(frame.facts.saturation or np.inf)
    psf, sigma = sky.psf_science, float(np.sqrt(np.median(sky.science.variance)))
    flux = sky.star_flux_e[clipped]
    reach = psf.alpha_px * np.sqrt(np.maximum((flux * psf.peak / sigma) ** (1 / psf.beta) - 1, 0))
    return sky.star_x[clipped], sky.star_y[clipped], reach + GROWN_PX


def _near(shape: tuple[int, int], x: Any, y: Any, reach: int) -> NDArray[np.bool_]:
    seeds = np.zeros(shape, bool)
    rows, columns = np.rint(y).astype(int), np.rint(x).astype(int)
    ok = (rows >= 0) & (columns >= 0) & (rows < shape[0]) & (columns < shape[1])
    seeds[rows[ok], columns[ok]] = True
    near: NDArray[np.bool_] = ndimage.maximum_filter(seeds, size=2 * reach + 1)
    return near


def _of_truth(sky: Sky, found: Peaks, counted: Any, usable_pixels: Any, flux: Any) -> dict[str, Any]:
    """Depth, completeness, flux and place of what was injected; what was not measured was missed."""
    truth = sky.truth
    at = np.rint(truth["y"]).astype(int), np.rint(truth["x"]).astype(int)
    usable = usable_pixels[at]
    hit = _matched(truth, found.x, found.y, found.score, counted[found.row, found.column])
    seen = hit >= 0
    strong = seen & usable & (truth["snr_local"] > 10)
    isolated = strong & ~truth["on_host"]
    numbers: dict[str, Any] = {
        "n_injected": int(np.count_nonzero(usable)),
        "s50_blank": s50(truth["snr_local"], seen, usable & ~truth["on_host"]),
        "s50_host": s50(truth["snr_local"], seen, usable & truth["on_host"]),
        "complete_above_10": share(seen[usable & (truth["snr_local"] > 10)]),
        "position_scatter_px": None, "flux_ratio": None, "flux_scatter": None,
        "curve": completeness_curve(truth["snr_local"][usable], seen[usable]),
    }  # fmt: skip
    if np.count_nonzero(isolated) > 4:
        dx = found.x[hit[isolated]] - truth["x"][isolated]
        dy = found.y[hit[isolated]] - truth["y"][isolated]
        numbers["position_scatter_px"] = scatter_of(np.concatenate([dx, dy]))
    if flux is not None and np.count_nonzero(strong) > 4:
        which = hit[strong]
        measured = np.asarray(flux)[found.row[which], found.column[which]] * found.gain[which]
        ratio = np.abs(measured) / truth["flux_e"][strong]
        numbers |= {"flux_ratio": float(np.median(ratio)), "flux_scatter": scatter_of(ratio)}
    return numbers


def _matched(truth: Any, x: Any, y: Any, score: Any, allowed: Any) -> Any:
    """Index of the strongest allowed peak of the right sign within reach of each injection; -1: none."""
    hit = np.full(len(truth), -1)
    for number, one in enumerate(truth):
        near = (
            (np.hypot(x - one["x"], y - one["y"]) < MATCH_PX) & ((score > 0) == (one["sign"] > 0)) & allowed
        )
        if near.any():
            index = np.flatnonzero(near)
            hit[number] = index[np.argmax(np.abs(score[index]))]
    return hit


def _false(sky: Sky, found: Peaks, where: Any, area: float, prefix: str) -> dict[str, Any]:
    """Peaks on pixels of `where` that no injection explains, per Mpix, by cause."""
    keep = where[found.row, found.column]
    return _by_cause(sky, found.x[keep], found.y[keep], area, prefix)


def _delivered(sky: Sky, candidates: list[Any], inside: Any, masked: Any) -> dict[str, Any]:
    """The same of the list that a pipeline hands on, and its fluxes and errors.

    Whatever lies within the border counts, the surroundings of masked pixels too.
    """
    x, y, score, flux, flux_err, x_err, y_err = (
        np.array([c[k] for c in candidates], float).reshape(-1) for k in range(7)
    )
    at = (
        np.clip(np.rint(y).astype(int), 0, inside.shape[0] - 1),
        np.clip(np.rint(x).astype(int), 0, inside.shape[1] - 1),
    )
    ok = inside[at]
    truth = sky.truth
    hit = _matched(truth, x, y, score, np.ones(len(x), bool))
    seen = (hit >= 0) & ~masked[np.rint(truth["y"]).astype(int), np.rint(truth["x"]).astype(int)]
    strong = seen & (truth["snr_local"] > 10)
    pull = (np.abs(flux[hit[strong]]) - truth["flux_e"][strong]) / flux_err[hit[strong]]
    place = np.concatenate(
        [
            (x[hit[strong]] - truth["x"][strong]) / x_err[hit[strong]],
            (y[hit[strong]] - truth["y"][strong]) / y_err[hit[strong]],
        ]
    )
    clean = np.array([not c[7] for c in candidates], bool)
    everywhere = np.count_nonzero(inside) / 1e6
    return {
        **_by_cause(sky, x[ok], y[ok], everywhere, "list_"),
        "list_false_unflagged": _by_cause(sky, x[ok & clean], y[ok & clean], everywhere, "")["false"],
        "list_flux_ratio": float(np.median(np.abs(flux[hit[strong]]) / truth["flux_e"][strong]))
        if strong.any()
        else None,
        "list_flux_pull": scatter_of(pull),
        "list_position_pull": scatter_of(place),
    }


def _by_cause(sky: Sky, x: Any, y: Any, area: float, prefix: str) -> dict[str, float]:
    causes = []
    sat_x, sat_y, reach = saturated_stars(sky)
    bright = sky.star_flux_e > STAR_E
    for one_x, one_y in zip(x, y, strict=True):
        if (
            np.min(np.hypot(sky.truth["x"] - one_x, sky.truth["y"] - one_y), initial=np.inf)
            < NEAR_INJECTION_PX
        ):
            continue
        if struck(sky, one_x, one_y):
            causes.append("cosmic_ray")
        elif np.any(np.hypot(sat_x - one_x, sat_y - one_y) < reach):
            causes.append("saturated")
        elif (
            np.min(np.hypot(sky.star_x[bright] - one_x, sky.star_y[bright] - one_y), initial=np.inf) < STAR_PX
        ):
            causes.append("star")
        else:
            causes.append("other")
    return {f"{prefix}false": len(causes) / area} | {
        f"{prefix}false_{cause}": causes.count(cause) / area for cause in CAUSES
    }


def struck(sky: Sky, x: float, y: float) -> bool:
    """Whether a cosmic ray hit either frame within 3 px."""
    x_r, y_r = sky.grid.to_reference(np.array([x]), np.array([y]))
    places = ((sky.cosmic_rays_science, x, y), (sky.cosmic_rays_reference, float(x_r[0]), float(y_r[0])))
    return any(
        rays[max(round(b) - 3, 0) : max(round(b) + 4, 0), max(round(a) - 3, 0) : max(round(a) + 4, 0)].any()
        for rays, a, b in places
    )


def s50(snr: Any, hit: Any, where: Any) -> float | None:
    """S/N at which half is found: maximum likelihood of a logistic curve in log S/N."""
    snr, hit = snr[where], hit[where]
    if len(snr) < 10 or hit.all() or not hit.any():
        return None
    x = np.log(snr)

    def loss(p: Any) -> float:
        z = np.exp(p[1]) * (x - p[0])
        return float(np.sum(np.logaddexp(0, z) - hit * z))

    return float(np.exp(minimize(loss, [np.log(5.0), 2.0], method="Nelder-Mead").x[0]))


#: Edges of the S/N bins of a completeness curve.
BINS = (2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 10.0, 14.0, 20.0, 40.0)


def completeness_curve(snr: Any, hit: Any) -> list[list[int]]:
    """`[found, injected]` per bin of `BINS`."""
    return [
        [
            int(np.count_nonzero(hit & (snr >= low) & (snr < high))),
            int(np.count_nonzero((snr >= low) & (snr < high))),
        ]
        for low, high in pairwise(BINS)
    ]


def share(values: Any) -> float | None:
    """Mean of booleans; None of none."""
    return float(np.mean(values)) if len(values) else None


def scatter_of(values: Any) -> float | None:
    """1.4826 × median absolute deviation; None of fewer than five."""
    values = np.asarray(values)
    return float(1.4826 * np.median(np.abs(values - np.median(values)))) if values.size > 4 else None
