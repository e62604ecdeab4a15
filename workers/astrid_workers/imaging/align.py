"""Where the reference lies on the science frame, and the reference moved there.

Owns registration: the headers' WCS first, then what is left over as measured from stars. Never subtracts,
and never believes a shift that the stars do not show.

Sign: `dx, dy` is where a star stands in the reference minus where the headers (or the same pixel grid,
without a WCS) say it stands, in reference pixels, at the middle of the science frame. The reference is
moved by the opposite.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from astropy.wcs import WCS, NoConvergence
from numpy.typing import NDArray

from astrid_workers.errors import NothingToDo, SubtractionRefused
from astrid_workers.frame import Frame
from astrid_workers.imaging.background import FEWEST_PIXELS, Background, estimate_background
from astrid_workers.imaging.resample import resample_frame
from astrid_workers.imaging.star_match import Affine, Match, Vote, match_stars, vote_on_shift
from astrid_workers.imaging.stars import Stars, find_stars
from astrid_workers.mask import UNUSABLE, MaskBit

Float64Array = NDArray[np.float64]

#: Share of the science frame that the reference must cover.
REQUIRED_OVERLAP = 0.6
#: Matched stars below which, without a WCS, a registration is not believed.
FEWEST_MATCHES = 5
#: Share of the fewer list's stars that must match when there is no WCS.
REQUIRED_MATCH_SHARE = 0.25
#: How far a WCS may be wrong, in arcseconds and in pixels of the reference (the larger counts).
WCS_ERROR_ARCSEC, WCS_ERROR_PX = 15.0, 40.0
#: S/N from which a source counts for registration.
REGISTRATION_SNR = 8.0
#: Sources of each frame that are matched.
MOST_STARS = 400
#: Distance of the points at which coverage is looked at.
_COVERAGE_STEP_PX = 8


@dataclass(frozen=True, slots=True, eq=False)
class Registration:
    """How the reference lies on the science frame."""

    #: What the headers left over, in reference pixels at the middle of the science frame; see the
    #: module's sign.
    dx: float
    dy: float
    #: Rotation (from x towards y) and scale that the headers left over.
    rotation_deg: float
    scale: float
    #: Scatter of one axis of the matched stars about the fitted map, reference pixels; None without matches.
    rms_px: float | None
    n_matched: int
    #: Pearson's coefficient between the logarithms of the matched stars' fluxes; None below three.
    correlation: float | None
    #: Share of the science frame's measured pixels that the reference covers with measured ones, 0 … 1.
    overlap_fraction: float
    #: "wcs+stars", "wcs" (no stars to check it with) or "stars" (no WCS on one of the frames).
    method: str
    #: "shift", "similarity" or "affine": the model of the measured part; "none" when nothing was measured.
    model: str
    #: By how much the reference's header is off against the science frame's, on the sky; None without a WCS.
    ra_offset_arcsec: float | None
    dec_offset_arcsec: float | None
    #: From science pixels to reference pixels, 0-based.
    to_reference: Callable[[Float64Array, Float64Array], tuple[Float64Array, Float64Array]]


@dataclass(frozen=True, slots=True, eq=False)
class Aligned:
    """The reference on the science frame's grid."""

    reference: Frame
    registration: Registration
    #: By how much the reference's per-pixel sigma understates the noise of large areas: interpolation
    #: correlates.
    area_noise_factor: float


@dataclass(frozen=True, slots=True, eq=False)
class _ThroughSky:
    """Science pixel → sky → reference pixel → measured correction."""

    science: WCS
    reference: WCS
    correction: Affine

    def __call__(self, x: Float64Array, y: Float64Array) -> tuple[Float64Array, Float64Array]:
        return self.correction(*self.predicted(x, y))

    def predicted(self, x: Float64Array, y: Float64Array) -> tuple[Float64Array, Float64Array]:
        """Without the correction; NaN where the sky has no place in the reference's projection."""
        ra, dec = self.science.all_pix2world(x, y, 0)
        try:
            px, py = self.reference.all_world2pix(ra, dec, 0, quiet=True)
        except (ValueError, NoConvergence):
            return np.full_like(x, np.nan), np.full_like(y, np.nan)
        return px, py


def align(science: Frame, reference: Frame, registration: Registration | None = None) -> Aligned:
    """`reference` resampled onto the grid of `science`, with `registration` or one measured here.

    The result has the science frame's shape and WCS, the reference's unit and flux scale; where the
    reference does not reach: `MaskBit.NO_DATA`. Raises as `measure_registration` does.
    """
    found = measure_registration(science, reference) if registration is None else registration
    moved = resample_frame(reference, found.to_reference, science.shape, wcs=science.wcs)
    frame = moved.frame
    if found.method == "stars":
        frame = frame.with_assumption(
            "no WCS on both frames: one pixel grid assumed, registered by its stars"
        )
    elif found.method == "wcs":
        frame = frame.with_assumption("too few stars to check the headers' WCS: registered by the WCS alone")
    return Aligned(frame, found, moved.area_noise_factor)


def measure_registration(
    science: Frame,
    reference: Frame,
    *,
    science_stars: Stars | None = None,
    reference_stars: Stars | None = None,
) -> Registration:
    """Map of the reference: through both WCS, then a shift (rotation, scale, shear where significant) from
    stars.

    Without a WCS on both frames one grid is assumed and the whole map comes from stars. Raises
    NothingToDo when the frames overlap too little or nothing in one of them is measured,
    SubtractionRefused when there is no WCS and the stars do not show a significant registration; both
    with numbers. With a WCS and too few stars, the WCS stands.
    """
    for frame in (science, reference):
        _refuse_masked(frame)
    through = (
        _ThroughSky(science.wcs, reference.wcs, Affine.of_shift(0, 0))
        if science.wcs is not None and reference.wcs is not None
        else None
    )
    if through is not None:
        _refuse_little_overlap(_coverage(science, reference, through))
    first = _usable_stars(science_stars or stars_of(science))
    second = _usable_stars(reference_stars or stars_of(reference))
    match, vote = _matched(science, reference, first, second, through)
    if through is None:
        match = _significant(match, vote, len(first), len(second))
    elif match is not None and not match.is_significant:
        match = None
    mapping: _ThroughSky | Affine
    if through is None:
        assert match is not None
        mapping = match.map
    else:
        mapping = through if match is None else replace(through, correction=match.map)
    overlap = _refuse_little_overlap(_coverage(science, reference, mapping))
    return _registration(science, mapping, match, first, second, overlap)


def stars_of(frame: Frame, background: Background | None = None) -> Stars:
    """Sources of a frame."""
    unusable = (frame.mask & np.uint32(UNUSABLE)) != 0
    sky = estimate_background(frame.science, unusable) if background is None else background
    return find_stars(frame.science, sky, frame.mask)


def _refuse_masked(frame: Frame) -> None:
    usable = int(np.count_nonzero((frame.mask & np.uint32(UNUSABLE)) == 0))
    if usable < FEWEST_PIXELS:
        msg = f"{frame.name}: {usable} of {frame.mask.size} pixels are usable, need {FEWEST_PIXELS}"
        raise NothingToDo(msg, usable_pixels=usable, required_pixels=FEWEST_PIXELS)


def _usable_stars(stars: Stars) -> Stars:
    """Sources with a measured shape and enough light, brightest first, clean stars before others."""
    good = np.isfinite(stars.fwhm_px) & (stars.snr > REGISTRATION_SNR)
    clean = stars.only(good & stars.clean)
    if len(clean) >= 60:
        return clean.only(np.arange(len(clean)) < MOST_STARS)
    every = stars.only(good)
    return every.only(np.arange(len(every)) < MOST_STARS)


def _matched(
    science: Frame, reference: Frame, first: Stars, second: Stars, through: _ThroughSky | None
) -> tuple[Match | None, Vote]:
    """Pairs and map; first the vote on a shift, then the refinement."""
    x, y = (first.x, first.y) if through is None else through.predicted(first.x, first.y)
    placed = np.isfinite(x) & np.isfinite(y)
    if through is None:
        within = 0.5 * float(max(*science.shape, *reference.shape))
    else:
        scale = reference.facts.pixel_scale_arcsec
        within = max(WCS_ERROR_PX, WCS_ERROR_ARCSEC / scale if scale else 0.0)
    ny, nx = reference.shape
    near = placed & (x > -within) & (y > -within) & (x < nx + within) & (y < ny + within)
    index = np.flatnonzero(near)
    vote = vote_on_shift(x[index], y[index], second.x, second.y, within)
    if vote.votes < 3:
        return None, vote
    start = Affine.of_shift(vote.dx, vote.dy)
    sigma = _centring_error(first)[index]
    match = match_stars(x[index], y[index], second.x, second.y, start, 1.5 * vote.bin_px, sigma)
    return (None if match is None else replace(match, first=index[match.first])), vote


def _centring_error(stars: Stars) -> Float64Array:
    """About FWHM / (2.35 S/N), with a floor of 0.02 px for what the profile does not show."""
    return np.hypot(stars.fwhm_px / (2.35 * np.maximum(stars.snr, 1.0)), 0.02)


def _significant(match: Match | None, vote: Vote, n_science: int, n_reference: int) -> Match:
    """The match, or a refusal that says how many stars agreed."""
    fewer = min(n_science, n_reference)
    needed = max(FEWEST_MATCHES, int(np.ceil(REQUIRED_MATCH_SHARE * min(fewer, 100))))
    found = 0 if match is None else int(match.first.size)
    if match is not None and match.is_significant and found >= needed:
        return match
    pairs = "no pairs" if match is None else f"{found} pairs with a scatter of {match.rms_px:.2g} px"
    chance = vote.by_chance if match is None else match.by_chance
    msg = (
        f"no WCS, and the stars show no significant registration: {pairs} among {n_science} sources"
        f" of the science frame and {n_reference} of the reference, where chance makes {chance:.2g};"
        f" need {needed} that are not chance"
    )
    raise SubtractionRefused(
        msg,
        matched=found,
        required=needed,
        by_chance=round(chance, 2),
        science_stars=n_science,
        reference_stars=n_reference,
    )


def _coverage(
    science: Frame,
    reference: Frame,
    mapping: Callable[[Float64Array, Float64Array], tuple[Float64Array, Float64Array]],
) -> float:
    """Share of the science frame's measured pixels that lie on measured ones of the reference, on a coarse
    grid.
    """
    ny, nx = science.shape
    y, x = np.meshgrid(
        np.arange(_COVERAGE_STEP_PX // 2, ny, _COVERAGE_STEP_PX),
        np.arange(_COVERAGE_STEP_PX // 2, nx, _COVERAGE_STEP_PX),
        indexing="ij",
    )
    measured = (science.mask[y, x] & np.uint32(MaskBit.NO_DATA)) == 0
    if not measured.any():
        return 0.0
    px, py = mapping(x[measured].astype(float), y[measured].astype(float))
    my, mx = reference.shape
    with np.errstate(invalid="ignore"):
        inside = (px > -0.5) & (py > -0.5) & (px < mx - 0.5) & (py < my - 0.5)
    columns, rows = np.rint(px[inside]).astype(int), np.rint(py[inside]).astype(int)
    covered = (reference.mask[rows, columns] & np.uint32(MaskBit.NO_DATA)) == 0
    return float(np.count_nonzero(covered) / measured.sum())


def _refuse_little_overlap(overlap: float) -> float:
    if overlap < REQUIRED_OVERLAP:
        msg = f"overlap {100 * overlap:.0f} %, need {100 * REQUIRED_OVERLAP:.0f} %"
        raise NothingToDo(msg, overlap_fraction=round(overlap, 4), required_overlap_fraction=REQUIRED_OVERLAP)
    return overlap


def _registration(
    science: Frame,
    mapping: _ThroughSky | Affine,
    match: Match | None,
    first: Stars,
    second: Stars,
    overlap: float,
) -> Registration:
    centre = np.array([(science.shape[1] - 1) / 2]), np.array([(science.shape[0] - 1) / 2])
    through = mapping if isinstance(mapping, _ThroughSky) else None
    before = centre if through is None else through.predicted(*centre)
    after = mapping(*centre)
    residual = Affine.of_shift(0, 0) if match is None else match.map
    ra, dec = (None, None) if through is None else _sky_offset(through, centre)
    method = "stars" if through is None else "wcs" if match is None else "wcs+stars"
    return Registration(
        dx=float(after[0][0] - before[0][0]),
        dy=float(after[1][0] - before[1][0]),
        rotation_deg=residual.rotation_deg,
        scale=residual.scale,
        rms_px=None if match is None else match.rms_px,
        n_matched=0 if match is None else int(match.first.size),
        correlation=None if match is None else _flux_correlation(first, second, match),
        overlap_fraction=overlap,
        method=method,
        model="none" if match is None else match.model,
        ra_offset_arcsec=ra,
        dec_offset_arcsec=dec,
        to_reference=mapping,
    )


def _sky_offset(
    through: _ThroughSky, centre: tuple[Float64Array, Float64Array]
) -> tuple[float | None, float | None]:
    """Where the reference's header puts the middle of the science frame, minus where it is;

    RA times cos Dec.
    """
    ra, dec = through.science.all_pix2world(*centre, 0)
    seen_ra, seen_dec = through.reference.all_pix2world(*through(*centre), 0)
    east = (seen_ra[0] - ra[0] + 180) % 360 - 180
    offsets = float(east * np.cos(np.radians(dec[0])) * 3600), float((seen_dec[0] - dec[0]) * 3600)
    return offsets if np.isfinite(offsets).all() else (None, None)


def _flux_correlation(first: Stars, second: Stars, match: Match) -> float | None:
    a, b = first.flux[match.first], second.flux[match.second]
    good = (a > 0) & (b > 0)
    if np.count_nonzero(good) < 3:
        return None
    value = float(np.corrcoef(np.log(a[good]), np.log(b[good]))[0, 1])
    return value if np.isfinite(value) else None
