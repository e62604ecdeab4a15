"""A reference made of several frames of one field.

Owns which frames serve, their registration, flux scale and weight, and the grade of what comes out; never
reads or writes a file.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.signal import fftconvolve

from astrid_workers.differencing.match_frames import match_frames
from astrid_workers.differencing.measure import Measured, Sky, measure_frame, sky_of, unusable_pixels
from astrid_workers.differencing.products import DifferenceOptions
from astrid_workers.errors import AstridError, NothingToDo
from astrid_workers.frame import Frame, HeaderFacts, Uint32Image
from astrid_workers.imaging.align import Registration, measure_registration
from astrid_workers.imaging.combine import CLIP_SIGMA, Combined, combine
from astrid_workers.imaging.grow import grow
from astrid_workers.imaging.noise_model import measure_noise
from astrid_workers.imaging.resample import resample_frame
from astrid_workers.imaging.stars import frame_fwhm_px
from astrid_workers.mask import MaskBit

Progress = Callable[[str, float], None]
Onto = Literal["first", "best"]

#: A frame whose weight is below this share of the best one's adds noise of its own, and no depth.
LEAST_WEIGHT = 0.05
#: Seeing beyond this ratio to the sharpest frame's would broaden the reference for nothing.
MOST_FWHM_RATIO = 1.8
#: The limiting flux of the grade is this many sigma.
DEPTH_SIGMA = 5.0
#: Pixels at the footprint's edge that are flagged.
EDGE_PX = 3


@dataclass(frozen=True, slots=True)
class StackOptions:
    """How frames are stacked."""

    #: Whose grid the reference takes: the first frame's, or that of the one with the largest weight.
    onto: Onto = "first"
    clip_sigma: float = CLIP_SIGMA


@dataclass(frozen=True, slots=True)
class Member:
    """One frame and what became of it. None: not measured before it was left out."""

    name: str
    #: Why it was left out; None: it was used.
    excluded: str | None
    #: Share of the sum of weights, 0 … 1.
    weight: float | None = None
    #: reference's flux = flux_scale × this frame's flux, before the reference was scaled to electrons.
    flux_scale: float | None = None
    fwhm_px: float | None = None
    #: Noise of a pixel of blank sky on the reference's grid and scale.
    sky_noise: float | None = None
    registration_rms_px: float | None = None
    overlap_fraction: float | None = None
    #: Pixels left out as outliers.
    n_rejected: int | None = None


@dataclass(frozen=True, slots=True)
class Grade:
    """How good a reference is."""

    n_frames: int
    #: Share of the grid with at least one frame, and with all of them.
    coverage: float
    full_coverage: float
    fwhm_px: float
    #: 5-sigma flux of a point source in the reference's unit, and its magnitude where a zero point is known.
    depth_flux: float
    depth_mag: float | None
    #: By how much the reference is deeper than the frame whose grid it has.
    gain_mag: float


@dataclass(frozen=True, slots=True, eq=False)
class Reference:
    """A stack on one frame's grid. In electrons it counts those of all frames together: its photon noise is
    the square root of its flux.
    """

    frame: Frame
    #: Frames that went into each pixel.
    coverage: NDArray[np.uint16]
    members: tuple[Member, ...]
    grade: Grade
    #: reference = electrons_per_electron × the frame whose grid it has; 1 in other units.
    effective_gain: float


@dataclass(frozen=True, slots=True, eq=False)
class _Placed:
    """One frame on the grid and flux scale of the reference, sky subtracted."""

    frame: Frame
    sky: float
    flux_scale: float
    #: Noise of large areas per pixel, and seeing, on the grid.
    noise: float
    fwhm_px: float
    registration: Registration | None

    @property
    def weight(self) -> float:
        """Of a point source: 1 / (noise² FWHM²)."""
        return 1 / (self.noise**2 * self.fwhm_px**2)


def build_reference(
    frames: Sequence[Frame], options: StackOptions | None = None, progress: Progress | None = None
) -> Reference:
    """Register and stack calibrated `frames` (cosmic rays masked) of one field and filter.

    Each is moved onto one grid, brought to one flux scale by the stars that it shares, and weighted by
    1 / (noise² FWHM²). Outliers against the median are left out. A frame that cannot serve is left out with
    the reason in `members`. Raises NothingToDo when fewer than two are left, FrameRejected when the frame
    whose grid is wanted cannot be measured.
    """
    options = options or StackOptions()
    tell = progress or (lambda _step, _share: None)
    tell("look at the frames", 0.0)
    skies = [sky_of(frame, DifferenceOptions()) for frame in frames]
    base = _base_of(frames, skies, options.onto)
    members: dict[int, Member] = {}
    placed: dict[int, _Placed] = {}
    measured = measure_frame(frames[base], DifferenceOptions(), sky=skies[base])
    for index in sorted(range(len(frames)), key=lambda i: i != base):
        tell(f"place {frames[index].name}", 0.1 + 0.6 * len(members | placed) / len(frames))
        try:
            placed[index] = (
                _itself(frames[base], skies[base], measured)
                if index == base
                else _place(frames[base], skies[base], measured, frames[index], skies[index])
            )
        except AstridError as reason:
            members[index] = Member(frames[index].name, str(reason), fwhm_px=_fwhm(skies[index]))
    members |= _leave_out(placed, frames)
    if len(placed) < 2:
        reasons = "; ".join(f"{m.name}: {m.excluded}" for m in members.values())
        msg = f"{len(placed)} of {len(frames)} frames can be stacked, need 2 ({reasons})"
        raise NothingToDo(msg, frames=len(frames), usable=len(placed))
    tell("stack", 0.75)
    return _stacked(frames, base, measured, placed, members, options)


def _base_of(frames: Sequence[Frame], skies: Sequence[Sky], onto: Onto) -> int:
    """Index of the frame whose grid is taken; best: least noise × seeing for its exposure's worth of flux."""
    if onto == "first" or len(frames) == 1:
        return 0
    merit = [_merit(frame, sky) for frame, sky in zip(frames, skies, strict=True)]
    return int(np.nanargmin(merit)) if np.isfinite(merit).any() else 0


def _merit(frame: Frame, sky: Sky) -> float:
    """Noise × seeing per second of exposure (per frame where exposures are unknown)."""
    return sky.background.rms_median * frame_fwhm_px(sky.stars) / (frame.facts.exposure_s or 1.0)


def _fwhm(sky: Sky) -> float | None:
    width = frame_fwhm_px(sky.stars)
    return width if np.isfinite(width) else None


def _itself(frame: Frame, sky: Sky, measured: Measured) -> _Placed:
    flat = _sky_subtracted(frame, sky)
    return _Placed(flat, sky.background.median, 1.0, sky.background.rms_median, measured.psf.fwhm_px, None)


def _place(base: Frame, base_sky: Sky, measured: Measured, frame: Frame, sky: Sky) -> _Placed:
    """Move, measure and scale one frame; raises what keeps it from serving."""
    _refuse_other_kind(base, frame)
    found = measure_registration(base, frame, science_stars=base_sky.stars, reference_stars=sky.stars)
    moved = resample_frame(_sky_subtracted(frame, sky), found.to_reference, base.shape, wcs=base.wcs)
    seen = measure_frame(moved.frame, DifferenceOptions())
    scale = match_frames((measured, seen), DifferenceOptions()).match.flux_scale
    factor = np.float32(scale)
    scaled = replace(
        moved.frame, science=moved.frame.science * factor, variance=moved.frame.variance * factor**2
    )
    noise = scale * seen.background.rms_median * moved.area_noise_factor
    return _Placed(scaled, sky.background.median, scale, noise, seen.psf.fwhm_px, found)


def _sky_subtracted(frame: Frame, sky: Sky) -> Frame:
    lost = (frame.mask & np.uint32(MaskBit.NO_DATA)) != 0
    return replace(frame, science=np.where(lost, np.float32(0), frame.science - sky.background.level))


def _refuse_other_kind(base: Frame, frame: Frame) -> None:
    """Frames of another unit or filter are not of one sky."""
    if frame.unit != base.unit:
        msg = f"its unit is {frame.unit}, that of {base.name} is {base.unit}"
        raise NothingToDo(msg)
    wanted, given = base.facts.filter_name, frame.facts.filter_name
    if wanted is not None and given is not None and wanted != given:
        msg = f"its filter is {given}, that of {base.name} is {wanted}"
        raise NothingToDo(msg)


def _leave_out(placed: dict[int, _Placed], frames: Sequence[Frame]) -> dict[int, Member]:
    """Take frames out of `placed` that would make the reference worse, and say why."""
    if not placed:
        return {}
    sharpest = min(one.fwhm_px for one in placed.values())
    heaviest = max(one.weight for one in placed.values())
    gone: dict[int, Member] = {}
    for index, one in list(placed.items()):
        if one.fwhm_px > MOST_FWHM_RATIO * sharpest:
            why = (
                f"its FWHM of {one.fwhm_px:.2f} px is {one.fwhm_px / sharpest:.1f} times the sharpest frame's"
            )
        elif one.weight < LEAST_WEIGHT * heaviest:
            why = f"its weight is {100 * one.weight / heaviest:.1f} % of the best frame's: it adds no depth"
        else:
            continue
        del placed[index]
        gone[index] = _member(frames[index].name, one, why, None, None)
    return gone


def _member(
    name: str, one: _Placed, excluded: str | None, weight: float | None, n_rejected: int | None
) -> Member:
    found = one.registration
    return Member(
        name,
        excluded,
        weight,
        one.flux_scale,
        one.fwhm_px,
        one.noise,
        None if found is None else found.rms_px,
        1.0 if found is None else found.overlap_fraction,
        n_rejected,
    )


def _stacked(
    frames: Sequence[Frame],
    base: int,
    measured: Measured,
    placed: dict[int, _Placed],
    members: dict[int, Member],
    options: StackOptions,
) -> Reference:
    order = sorted(placed)
    chosen = [placed[i] for i in order]
    weights = np.array([one.weight for one in chosen])
    weights /= weights.sum()
    variances = [
        np.where(unusable_pixels(one.frame), np.float32(np.inf), one.frame.variance) for one in chosen
    ]
    stack = combine([one.frame.science for one in chosen], variances, weights, clip_sigma=options.clip_sigma)
    for i, one, weight, rejected in zip(order, chosen, weights, stack.n_rejected, strict=True):
        members[i] = _member(frames[i].name, one, None, float(weight), rejected)
    gain = _effective_gain(chosen, weights) if frames[base].unit == "electron" else 1.0
    frame = _frame(frames[base], chosen, weights, stack, gain)
    grade = _grade(frame, stack, len(chosen), measured, gain)
    told = tuple(members[i] for i in sorted(members))
    return Reference(frame, stack.n_used, told, grade, gain)


def _effective_gain(chosen: Sequence[_Placed], weights: NDArray[np.float64]) -> float:
    """Electrons counted per electron of the base: photon noise of flux f in the mean is f Σ w² scale."""
    scales = np.array([one.flux_scale for one in chosen])
    return float(1 / np.sum(weights**2 * scales))


def _frame(
    base: Frame, chosen: Sequence[_Placed], weights: NDArray[np.float64], stack: Combined, gain: float
) -> Frame:
    """The stack as a frame on the base's grid, its mean sky put back."""
    sky = float(sum(w * one.flux_scale * one.sky for w, one in zip(weights, chosen, strict=True)))
    empty = stack.n_used == 0
    science = np.where(empty, np.float32(0), (stack.image + np.float32(sky)) * np.float32(gain))
    variance = stack.variance * np.float32(gain**2)
    names = f"reference of {len(chosen)} frames"
    assumed = (*base.assumed, f"stacked from {len(chosen)} frames, variance propagated")
    mask, facts = _mask(chosen, empty), _facts(base, chosen, weights, gain)
    return Frame(science, variance, mask, base.wcs, base.unit, facts, assumed, names)


def _mask(chosen: Sequence[_Placed], empty: NDArray[np.bool_]) -> Uint32Image:
    """SATURATED where any frame was: the rest of them miss its light. Other bits where no frame is left."""
    anywhere = np.zeros(empty.shape, np.uint32)
    for one in chosen:
        anywhere |= one.frame.mask
    mask = anywhere & np.uint32(MaskBit.SATURATED)
    mask |= np.where(
        empty, (anywhere & np.uint32(MaskBit.BAD_PIXEL)) | np.uint32(MaskBit.NO_DATA), np.uint32(0)
    )
    mask[grow(empty, EDGE_PX) & ~empty & ((anywhere & np.uint32(MaskBit.EDGE)) != 0)] |= np.uint32(
        MaskBit.EDGE
    )
    return mask


def _facts(base: Frame, chosen: Sequence[_Placed], weights: NDArray[np.float64], gain: float) -> HeaderFacts:
    """The base's facts, with what stacking changes; what is not known of all frames is None."""
    facts = base.facts
    exposures = [one.frame.facts.exposure_s for one in chosen]
    noises = [one.frame.facts.read_noise_e for one in chosen]
    levels = [
        one.frame.facts.saturation * one.flux_scale * gain
        for one in chosen
        if one.frame.facts.saturation is not None
    ]
    zero_point, per_adu = facts.zero_point_mag, facts.gain_e_per_adu
    known = [
        n * one.flux_scale * w for n, one, w in zip(noises, chosen, weights, strict=True) if n is not None
    ]
    return replace(
        facts,
        exposure_s=sum(e for e in exposures if e is not None) if None not in exposures else None,
        read_noise_e=gain * float(np.linalg.norm(known)) if len(known) == len(chosen) else None,
        saturation=min(levels) if levels else None,
        zero_point_mag=None if zero_point is None else zero_point + 2.5 * float(np.log10(gain)),
        gain_e_per_adu=None if per_adu is None else per_adu * gain,
    )


def _grade(frame: Frame, stack: Combined, n_frames: int, measured: Measured, gain: float) -> Grade:
    made = measure_frame(frame, DifferenceOptions())
    depth, before = point_source_limit(made), gain * point_source_limit(measured)
    zero_point = frame.facts.zero_point_mag
    return Grade(
        n_frames=n_frames,
        coverage=float(np.mean(stack.n_used > 0)),
        full_coverage=float(np.mean(stack.n_used == n_frames)),
        fwhm_px=made.psf.fwhm_px,
        depth_flux=depth,
        depth_mag=None if zero_point is None else zero_point - 2.5 * float(np.log10(depth)),
        gain_mag=2.5 * float(np.log10(before / depth)),
    )


def point_source_limit(measured: Measured) -> float:
    """5-sigma flux of a point source on blank sky, in the frame's unit; correlated noise counts as it is."""
    sky = ~(measured.background.sources | measured.unusable)
    noise = measure_noise(measured.image, measured.variance, sky)
    psf = measured.psf.stamp.astype(float)
    variance = float(np.median(measured.variance[sky])) * noise.variance_ratio
    spread = float(np.sum(psf * fftconvolve(psf, noise.correlation, mode="same")))
    return DEPTH_SIGMA * float(np.sqrt(variance * spread)) / float(np.sum(psf**2))
