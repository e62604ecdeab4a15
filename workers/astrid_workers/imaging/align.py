"""Where the reference lies on the science frame, and the reference moved there.

Owns registration: the headers' WCS first, then what is left over as measured from stars; where the WCS is
absent or wrong, the stars' asterisms. Never subtracts, and never believes a map that the stars do not show.

Sign: `dx, dy` is where a star stands in the reference minus where the headers (or the same pixel grid,
without a WCS) say it stands, in reference pixels, at the middle of the science frame. The reference is
moved by the opposite.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from astrid_workers.celestial import sky_of
from astrid_workers.errors import NothingToDo
from astrid_workers.frame import Frame
from astrid_workers.imaging.background import FEWEST_PIXELS, Background
from astrid_workers.imaging.known_sky import background_of
from astrid_workers.imaging.registration_search import (
    Float64Array,
    Found,
    ThroughSky,
    coverage,
    refuse_little_overlap,
    search_map,
)
from astrid_workers.imaging.resample import resample_frame
from astrid_workers.imaging.star_match import Affine, Match
from astrid_workers.imaging.stars import Stars, find_stars
from astrid_workers.mask import UNUSABLE

BoolArray = NDArray[np.bool_]


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
    #: "wcs+stars", "wcs" (no stars to check it with), "stars" (no WCS on one of the frames: one grid, shifted
    #: and turned a little) or "asterisms" (found from the stars alone: no WCS, or one that is wrong).
    method: str
    #: "shift", "similarity" or "affine": the model of the measured part; "none" when nothing was measured.
    model: str
    #: By how much the reference's header is off against the science frame's, on the sky; None without a WCS.
    ra_offset_arcsec: float | None
    dec_offset_arcsec: float | None
    #: Whether the measured part turns the frame over: one of them is a mirror image by its header.
    is_mirrored: bool
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


def align(science: Frame, reference: Frame, registration: Registration | None = None) -> Aligned:
    """`reference` resampled onto the grid of `science`, with `registration` or one measured here.

    The result has the science frame's shape and WCS, the reference's unit and flux scale; where the
    reference does not reach: `MaskBit.NO_DATA`. Raises as `measure_registration` does.
    """
    found = measure_registration(science, reference) if registration is None else registration
    moved = resample_frame(reference, found.to_reference, science.shape, wcs=science.wcs)
    frame = moved.frame
    sentence = registration_sentence(found)
    if sentence is not None:
        frame = frame.with_assumption(sentence)
    return Aligned(frame, found, moved.area_noise_factor)


def registration_sentence(found: Registration) -> str | None:
    """What a reader must know of the way that was taken; None for WCS and stars that agree."""
    if found.method == "stars":
        return "no WCS on both frames: one pixel grid assumed, registered by its stars"
    if found.method == "wcs":
        return "too few stars to check the headers' WCS: registered by the WCS alone"
    if found.method == "asterisms":
        turned = f"turned by {found.rotation_deg:.2f} deg, scaled by {found.scale:.4f}" + (
            ", mirrored" if found.is_mirrored else ""
        )
        if found.ra_offset_arcsec is None or found.dec_offset_arcsec is None:
            return f"no WCS on both frames: {found.n_matched} stars matched by asterisms, {turned}"
        off = float(np.hypot(found.ra_offset_arcsec, found.dec_offset_arcsec))
        return (
            f"the headers' WCS disagree with the stars, by {off:.1f} arcsec at the middle:"
            f" {found.n_matched} stars matched by asterisms, {turned}; which header is wrong is not known"
        )
    return None


def measure_registration(
    science: Frame,
    reference: Frame,
    *,
    science_stars: Stars | None = None,
    reference_stars: Stars | None = None,
) -> Registration:
    """Map of the reference: through both WCS, then a shift (rotation, scale, shear where significant) from
    stars.

    Without a WCS on both frames one grid is tried, then asterisms, and the whole map comes from stars.
    Asterisms also overrule a WCS by which the frames overlap too little, or none of many stars coincide.
    Raises NothingToDo when the frames overlap too little or nothing in one of them is measured,
    SubtractionRefused when there is no WCS, or stars that contradict it, and the stars do not show a
    significant registration; all with numbers. With a WCS and too few stars, the WCS stands.
    """
    for frame in (science, reference):
        _refuse_masked(frame)
    first, second = science_stars or stars_of(science), reference_stars or stars_of(reference)
    found = search_map(science, reference, first, second)
    overlap = refuse_little_overlap(coverage(science, reference, found.mapping))
    return _registration(science, found, overlap)


def stars_of(frame: Frame, background: Background | None = None) -> Stars:
    """Sources of a frame."""
    unusable = (frame.mask & np.uint32(UNUSABLE)) != 0
    sky = background_of(frame, unusable) if background is None else background
    stars = find_stars(frame.science, sky, frame.mask)
    sky.planes.forget()
    return stars


def _refuse_masked(frame: Frame) -> None:
    usable = int(np.count_nonzero((frame.mask & np.uint32(UNUSABLE)) == 0))
    if usable < FEWEST_PIXELS:
        msg = f"{frame.name}: {usable} of {frame.mask.size} pixels are usable, need {FEWEST_PIXELS}"
        raise NothingToDo(msg, usable_pixels=usable, required_pixels=FEWEST_PIXELS)


def _registration(science: Frame, found: Found, overlap: float) -> Registration:
    centre = np.array([(science.shape[1] - 1) / 2]), np.array([(science.shape[0] - 1) / 2])
    mapping, match = found.mapping, found.match
    through = mapping if isinstance(mapping, ThroughSky) else None
    before = centre if through is None else through.predicted(*centre)
    after = mapping(*centre)
    residual = Affine.of_shift(0, 0) if match is None else match.map
    ra, dec = (None, None) if through is None else _sky_offset(through, centre)
    return Registration(
        dx=float(after[0][0] - before[0][0]),
        dy=float(after[1][0] - before[1][0]),
        rotation_deg=residual.rotation_deg,
        scale=residual.scale,
        rms_px=None if match is None else match.rms_px,
        n_matched=0 if match is None else int(match.first.size),
        correlation=None if match is None else _flux_correlation(found.first, found.second, match),
        overlap_fraction=overlap,
        method=found.method,
        model="none" if match is None else match.model,
        ra_offset_arcsec=ra,
        dec_offset_arcsec=dec,
        is_mirrored=residual.is_mirrored,
        to_reference=mapping,
    )


def _sky_offset(
    through: ThroughSky, centre: tuple[Float64Array, Float64Array]
) -> tuple[float | None, float | None]:
    """Where the reference's header puts the middle of the science frame, minus where it is;

    RA times cos Dec.
    """
    ra, dec = sky_of(through.science, *centre)
    seen_ra, seen_dec = sky_of(through.reference, *through(*centre))
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
