"""Candidates from a scored difference: true extrema of both signs, each explained once.

Owns which peaks of the score are sources of their own, their position, flux and shape with errors, and the
flags that say why one should not be trusted. Never moves a threshold and never classifies.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from astropy.wcs import WCS
from numpy.typing import NDArray

from astrid_workers.celestial import sky_of
from astrid_workers.defaults import THRESHOLD_SIGMA
from astrid_workers.differencing.glints import flag_glints
from astrid_workers.differencing.neighbours import (
    BLENDED_SHARE,
    PointLight,
    blends,
    error_factors,
    light_of_others,
    merge_dipoles,
)
from astrid_workers.differencing.pixel_hits import GAIN_PER_SNR2, hit_gain, hit_profile
from astrid_workers.differencing.products import ON_SOURCE_SIGMA, Candidate, Candidates, Difference
from astrid_workers.differencing.shape import Shape, measure_shape
from astrid_workers.differencing.summits import fitted_together, light_at
from astrid_workers.imaging.moved_stamp import moved_stamp
from astrid_workers.mask import MaskBit

Floats = NDArray[np.float64]

__all__ = ["Candidate", "Candidates", "extract_sources"]

#: More peaks than this are a failed subtraction or a pathological frame; the strongest are kept.
MOST_PEAKS = 20_000
#: A secondary peak must beat what its stronger neighbours explain by this share of them: PSF models are not
#: perfect.
SIDELOBE_TOLERANCE = 0.06
#: Share of the PSF on masked pixels from which a peak is flagged as masked, and from which it is no candidate
#: whatever its other pixels say. (A saturated one is none either, and a `sharp` one that is not half of a
#: dipole: no point source looks like it.)
MASKED_SHARE, MOST_MASKED_SHARE = 0.1, 0.25
#: FWHM of a frame, pixels, up to which hits of its pixels are told from point sources by their likelihoods,
#: as moments tell little there, and what chi² must gain at least.
SHARPEST_PX, HIT_GAIN = 2.5, 5.0


@dataclass(frozen=True, slots=True, eq=False)
class _Peaks:
    """Extrema of the unmasked score beyond the threshold, strongest first."""

    y: NDArray[np.intp]
    x: NDArray[np.intp]
    score: Floats


def extract_sources(
    difference: Difference, *, threshold_sigma: float = THRESHOLD_SIGMA, wcs: WCS | None = None
) -> Candidates:
    """Candidates with |score| above `threshold_sigma`, strongest first.

    Peaks are looked for on the score as it was before masking, so that the flank of a masked star is no
    peak; those on masked pixels, significant through them alone or cut by the edge, those that are rings of a
    stronger source and those narrower than a point source (a cosmic ray) are set aside and counted. Those of
    one sign that stand together are fitted together. `wcs` gives RA and Dec (ICRS degrees).
    """
    peaks = _find_peaks(difference, threshold_sigma)
    rejected: dict[str, int] = {}
    on_mask = np.isnan(difference.score[peaks.y, peaks.x])
    _count(rejected, "masked", int(np.count_nonzero(on_mask)))
    own = _explained_once(difference, peaks, threshold_sigma)
    _count(rejected, "ring", int(np.count_nonzero(~own & ~on_mask)))
    measured: list[Candidate] = []
    places: list[tuple[int, int]] = []
    for i in np.flatnonzero(own & ~on_mask):
        found, evidence = _describe(difference, int(peaks.y[i]), int(peaks.x[i]))
        if "saturated" in found.flags:
            _count(rejected, "saturated", 1)
        elif "masked" in found.flags and ("edge" in found.flags or evidence < threshold_sigma):
            _count(rejected, "masked", 1)
        else:
            measured.append(found)
            places.append((int(peaks.y[i]), int(peaks.x[i])))
    apart = [c for c in _separated(difference, measured, places) if abs(c.score) > threshold_sigma]
    _count(rejected, "blend", len(measured) - len(apart))
    joined = merge_dipoles(apart, difference)
    _count(rejected, "dipole partner", len(apart) - len(joined))
    merged = [c for c in joined if "sharp" not in c.flags]
    _count(rejected, "sharp", len(joined) - len(merged))
    merged.sort(key=lambda c: -abs(c.score))
    ranked = flag_glints([replace(c, index=i) for i, c in enumerate(merged)], difference)
    placed = _place(ranked, wcs)
    return Candidates(tuple(placed), threshold_sigma, rejected)


def _count(rejected: dict[str, int], reason: str, n: int) -> None:
    if n:
        rejected[reason] = rejected.get(reason, 0) + n


def _find_peaks(difference: Difference, threshold: float) -> _Peaks:
    """Pixels beyond the threshold that no pixel of the 8 around them beats."""
    score = difference.unmasked_score
    y, x = np.nonzero(np.abs(score) > threshold)
    inner = (y > 0) & (x > 0) & (y < score.shape[0] - 1) & (x < score.shape[1] - 1)
    y, x = y[inner], x[inner]
    values = score[y, x]
    sign = np.sign(values)
    top = np.ones(len(y), bool)
    for dy in (-1, 0, 1):
        for dx in (-1, 0, 1):
            if dy or dx:
                beats = np.greater if (dy, dx) > (0, 0) else np.greater_equal
                top &= beats(values * sign, score[y + dy, x + dx] * sign)
    y, x, values = y[top], x[top], values[top].astype(float)
    order = np.argsort(-np.abs(values), kind="stable")[:MOST_PEAKS]
    return _Peaks(y[order], x[order], values[order])


def _explained_once(difference: Difference, peaks: _Peaks, threshold: float) -> NDArray[np.bool_]:
    """Which peaks are more than the profile (core, rings) of stronger accepted peaks around them."""
    own = np.zeros(len(peaks.y), bool)
    taken = _Buckets(difference.kernels.score_profile.shape[-1] // 2)
    sigma = difference.flux_error
    for i in range(len(peaks.y)):
        y, x, value = int(peaks.y[i]), int(peaks.x[i]), float(peaks.score[i])
        predicted, tolerance = 0.0, 0.0
        for other in taken.near(y, x):
            response = _profile_at(difference, peaks, other, y, x)
            ratio = _ratio(sigma, int(peaks.y[other]), int(peaks.x[other]), y, x)
            predicted += peaks.score[other] * response * ratio
            close = np.exp(
                -0.5 * ((peaks.y[other] - y) ** 2 + (peaks.x[other] - x) ** 2) / taken.reach**2 * 9
            )
            tolerance += SIDELOBE_TOLERANCE * abs(peaks.score[other]) * ratio * close
        left = value - predicted
        own[i] = abs(left) > np.hypot(threshold, tolerance) and left * value > 0
        if own[i]:
            taken.add(i, y, x)
    return own


def _ratio(sigma: NDArray[np.float32], y0: int, x0: int, y: int, x: int) -> float:
    """Noise at one pixel over that at another, 1 where either is masked."""
    ratio = float(sigma[y0, x0] / sigma[y, x])
    return ratio if np.isfinite(ratio) else 1.0


def _profile_at(difference: Difference, peaks: _Peaks, i: int, y: int, x: int) -> float:
    _, profile = difference.kernels.at(float(peaks.x[i]), float(peaks.y[i]))
    half = profile.shape[0] // 2
    dy, dx = y - int(peaks.y[i]) + half, x - int(peaks.x[i]) + half
    inside = 0 <= dy < profile.shape[0] and 0 <= dx < profile.shape[1]
    return float(profile[dy, dx]) if inside else 0.0


class _Buckets:
    """Accepted peaks in square cells, so that a peak meets its neighbours only."""

    def __init__(self, reach: int) -> None:
        self.reach = max(reach, 1)
        self._cells: dict[tuple[int, int], list[int]] = {}

    def add(self, index: int, y: int, x: int) -> None:
        self._cells.setdefault((y // self.reach, x // self.reach), []).append(index)

    def near(self, y: int, x: int) -> list[int]:
        row, column = y // self.reach, x // self.reach
        cells = ((row + i, column + j) for i in (-1, 0, 1) for j in (-1, 0, 1))
        return [index for cell in cells for index in self._cells.get(cell, [])]


def _separated(
    difference: Difference, found: list[Candidate], places: list[tuple[int, int]]
) -> list[Candidate]:
    """The same candidates, each measured without the light of those that stand close by.

    `places` are rows and columns of their peaks. Who has others' light taken off is flagged `blended`.
    """
    apart = list(found)
    for group in blends(found, difference):
        alone = [PointLight(found[i].x, found[i].y, found[i].flux) for i in group]
        fitted = fitted_together(difference, alone, [places[i] for i in group])
        if fitted is None:
            continue
        lights, pixels = fitted
        factors = error_factors(difference.kernels, lights)
        for k, i in enumerate(group):
            described, _ = _describe(difference, *pixels[k], [*lights[:k], *lights[k + 1 :]])
            apart[i] = _as_blended(described, found[i], float(factors[k]))
    return apart


def _as_blended(apart: Candidate, alone: Candidate, factor: float) -> Candidate:
    """A candidate with its larger error; flagged where it was measured to have others' light."""
    error = alone.flux_err * factor
    others = abs(alone.flux - apart.flux) > BLENDED_SHARE * abs(apart.flux)
    return replace(
        apart,
        flux_err=error,
        snr=abs(apart.flux) / error,
        score=apart.flux / error,
        x_err=apart.x_err * factor,
        y_err=apart.y_err * factor,
        flags=(*apart.flags, "blended") if others else apart.flags,
    )


def _describe(
    difference: Difference, y: int, x: int, others: Sequence[PointLight] = ()
) -> tuple[Candidate, float]:
    """One peak with sub-pixel place, flux, shape and flags; its sigma in measured pixels alone.

    The light of `others` is taken off before anything is measured.
    """
    summit = light_at(difference, y, x, others)
    dx, dy, flux = summit.x - x, summit.y - y, summit.flux
    psf, profile = difference.kernels.at(float(x), float(y))
    flux_err = float(difference.flux_error[y, x])
    score = flux / flux_err
    error_x, error_y = _position_errors(profile, abs(score))
    half = psf.shape[0] // 2
    stamp, variance, good = _stamps(difference, y, x, half)
    if others:
        across = np.arange(-half, half + 1)
        stamp -= good * light_of_others(difference.kernels, others, y + across, x + across)
    model = moved_stamp(psf, dx, dy)
    shape = measure_shape(stamp, variance, good, model, flux, difference.fwhm_science_px)
    masked = _masked_share(good, model)
    hit = _is_hit(difference, (y, x), (dx, dy), stamp * np.sign(flux), variance, good, psf, abs(score))
    flags = _flags(difference, y, x, masked, shape, abs(score), hit)
    evidence = _evidence(stamp, variance, good, model) * float(np.sign(flux))
    candidate = Candidate(
        0, x + dx, y + dy, error_x, error_y, None, None, flux, flux_err, abs(score), score,
        shape.fwhm_px, shape.elongation, shape.chi2, score > 0, flags,
    )  # fmt: skip
    return candidate, evidence if masked < MOST_MASKED_SHARE else 0.0


def _is_hit(
    difference: Difference,
    peak: tuple[int, int],
    offset: tuple[float, float],
    stamp: Floats,
    variance: Floats,
    good: NDArray[np.bool_],
    psf: NDArray[np.float32],
    snr: float,
) -> bool:
    """Whether the peak at row and column `peak`, its source `offset` (x, y) from there, is a cosmic ray of
    the frame whose light has its sign; never in a frame where that would be narrow by its shape.

    A pixel of the science frame is one of the difference; one of the reference was interpolated, and is about
    where its light is.
    """
    is_of_science = difference.unmasked_score[peak] > 0
    fwhm = difference.fwhm_science_px if is_of_science else difference.fwhm_reference_px
    if fwhm > SHARPEST_PX:
        return False
    frame = difference.psf_science if is_of_science else difference.psf_reference
    hit = hit_profile(psf, frame.at(float(peak[1]), float(peak[0])))
    place = (0.0, 0.0) if is_of_science else offset
    gain = hit_gain(stamp, variance, good, psf, hit, offset, place)
    return gain > max(HIT_GAIN, GAIN_PER_SNR2 * snr**2)


def _position_errors(profile: NDArray[np.float32], snr: float) -> tuple[float, float]:
    """Cramér–Rao errors along x and y from the curvature of the score's profile."""
    half = profile.shape[0] // 2
    across = 2 * profile[half, half] - profile[half, half - 1] - profile[half, half + 1]
    along = 2 * profile[half, half] - profile[half - 1, half] - profile[half + 1, half]
    return _cramer_rao(float(across), snr), _cramer_rao(float(along), snr)


def _cramer_rao(curvature: float, snr: float) -> float:
    return float(1 / (max(snr, 1e-6) * np.sqrt(max(curvature, 1e-6))))


def _stamps(difference: Difference, y: int, x: int, half: int) -> tuple[Floats, Floats, NDArray[np.bool_]]:
    """Difference, its variance and which pixels are measured, around a pixel; beyond the frame nothing is."""
    ny, nx = difference.shape
    rows, columns = np.arange(y - half, y + half + 1), np.arange(x - half, x + half + 1)
    inside = ((rows >= 0) & (rows < ny))[:, None] & ((columns >= 0) & (columns < nx))[None, :]
    rows, columns = np.clip(rows, 0, ny - 1), np.clip(columns, 0, nx - 1)
    stamp = difference.difference[rows[:, None], columns[None, :]].astype(float)
    variance = difference.variance[rows[:, None], columns[None, :]].astype(float)
    good = inside & np.isfinite(stamp) & np.isfinite(variance) & (variance > 0)
    return np.where(good, stamp, 0.0), np.where(good, variance, 1.0), good


def _masked_share(good: NDArray[np.bool_], model: Floats) -> float:
    """Share of a PSF's light on pixels that were not measured."""
    light = np.maximum(model, 0.0)
    return float(np.sum(light * ~good) / np.sum(light))


def _evidence(stamp: Floats, variance: Floats, good: NDArray[np.bool_], model: Floats) -> float:
    """Signed significance of a PSF fitted to the measured pixels of a stamp, sigma."""
    weighted = np.where(good, model / variance, 0.0)
    return float(np.sum(weighted * stamp) / np.sqrt(max(float(np.sum(weighted * model)), 1e-30)))


def _flags(
    difference: Difference, y: int, x: int, masked: float, shape: Shape, snr: float, is_hit: bool
) -> tuple[str, ...]:
    reach = max(1, round(difference.fwhm_science_px))
    around = difference.mask[max(y - reach, 0) : y + reach + 1, max(x - reach, 0) : x + reach + 1]
    said = {
        "edge": bool(difference.mask[y, x] & np.uint32(MaskBit.EDGE)),
        "masked": masked > MASKED_SHARE,
        "saturated": bool(np.any(around & np.uint32(MaskBit.SATURATED))),
        "streak": bool(np.any(around & np.uint32(MaskBit.STREAK))),
        "stray_light": bool(difference.mask[y, x] & np.uint32(MaskBit.STRAY_LIGHT)),
        "sharp": is_hit or shape.is_narrower_than_psf(snr),
        "extended": shape.is_wider_than_psf(snr),
        "on_source": bool(difference.subtracted_light[y, x] > ON_SOURCE_SIGMA),
    }
    return tuple(flag for flag, is_set in said.items() if is_set)


def _place(found: list[Candidate], wcs: WCS | None) -> list[Candidate]:
    """The same candidates with RA and Dec."""
    if wcs is None or not found:
        return found
    ra, dec = sky_of(wcs, [c.x for c in found], [c.y for c in found])
    return [
        replace(c, ra_deg=float(a), dec_deg=float(d)) if np.isfinite(a) and np.isfinite(d) else c
        for c, a, d in zip(found, ra, dec, strict=True)
    ]
