"""A reference made of several frames of one field.

Owns which frames serve, their registration, flux scale and weight. One frame at a time is held in memory:
placed frames wait on disk (`row_store.py`) and are stacked by rows.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from astrid_workers.defaults import CLIP_SIGMA, ONTO
from astrid_workers.differencing.grade_reference import Grade, grade_reference
from astrid_workers.differencing.match_frames import match_frames
from astrid_workers.differencing.measure import Measured, Sky, measure_frame, sky_of, unusable_pixels
from astrid_workers.differencing.products import DifferenceOptions
from astrid_workers.differencing.row_store import RowStore, StoredImage
from astrid_workers.errors import AstridError, NothingToDo
from astrid_workers.frame import Frame, HeaderFacts, Uint32Image
from astrid_workers.imaging.align import Registration, measure_registration
from astrid_workers.imaging.combine import Combined, combine
from astrid_workers.imaging.grow import grow
from astrid_workers.imaging.resample import resample_frame
from astrid_workers.imaging.stars import frame_fwhm_px
from astrid_workers.mask import MaskBit

Progress = Callable[[str, float], None]
Onto = Literal["first", "best"]

#: A frame whose weight is below this share of the best one's adds noise of its own, and no depth.
LEAST_WEIGHT = 0.05
#: Seeing beyond this ratio to the sharpest frame's would broaden the reference for nothing.
MOST_FWHM_RATIO = 1.8
#: Pixels at the footprint's edge that are flagged.
EDGE_PX = 3


@dataclass(frozen=True, slots=True)
class StackOptions:
    """How frames are stacked."""

    #: Whose grid the reference takes: the first frame's, or that of the one with the largest weight.
    onto: Onto = ONTO
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
    """One frame on the grid and flux scale of the reference, sky subtracted; its pixels wait on disk."""

    science: StoredImage[np.float32]
    #: +inf where a pixel cannot be used.
    variance: StoredImage[np.float32]
    mask: StoredImage[np.uint32]
    facts: HeaderFacts
    name: str
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
    frames: Iterable[Frame],
    options: StackOptions | None = None,
    progress: Progress | None = None,
    *,
    expected: int | None = None,
) -> Reference:
    """Register and stack calibrated `frames` (cosmic rays masked) of one field and filter.

    Each is moved onto one grid, brought to one flux scale by the stars that it shares, and weighted by
    1 / (noise² FWHM²). Outliers against the median are left out. A frame that cannot serve is left out with
    the reason in `members`. `frames` may be made one by one as they are asked for; `expected` is how many
    there will be, for the progress. Raises NothingToDo when fewer than two are left, FrameRejected when the
    frame whose grid is wanted cannot be measured, OSError when the disk for scratch files is full.
    """
    options = options or StackOptions()
    tell = progress or (lambda _step, _share: None)
    total = expected or (len(frames) if isinstance(frames, Sequence) else 1)
    with RowStore() as store:
        members: dict[int, Member] = {}
        placed: dict[int, _Placed] = {}
        base: _Base | None = None
        for index, frame in _base_first(frames, options.onto, store):
            tell(f"place {frame.name}", 0.7 * min(len(members | placed) / total, 1.0))
            sky = sky_of(frame, DifferenceOptions())
            try:
                if base is None:
                    base = _Base(frame, sky, measure_frame(frame, DifferenceOptions(), sky=sky))
                    placed[index] = _itself(base, store)
                else:
                    placed[index] = _place(base, frame, sky, store)
            except AstridError as reason:
                if base is None:
                    raise
                members[index] = Member(frame.name, str(reason), fwhm_px=_fwhm(sky))
        members |= _leave_out(placed)
        if base is None or len(placed) < 2:
            n, reasons = (
                len(placed) + len(members),
                "; ".join(f"{m.name}: {m.excluded}" for m in members.values()),
            )
            msg = f"{len(placed)} of {n} frames can be stacked, need 2 ({reasons})"
            raise NothingToDo(msg, frames=n, usable=len(placed))
        tell("stack", 0.75)
        return _stacked(base, placed, members, options)


@dataclass(frozen=True, slots=True, eq=False)
class _Base:
    """The frame whose grid is taken."""

    frame: Frame
    sky: Sky
    measured: Measured


def _base_first(frames: Iterable[Frame], onto: Onto, store: RowStore) -> Iterator[tuple[int, Frame]]:
    """The frame whose grid is taken, then the others in their order, each with its number.

    The best one is known only when all were seen: they wait on disk until then.
    """
    if onto == "first":
        yield from enumerate(frames)
        return
    waiting, merits = [], []
    for frame in frames:
        merits.append(_merit(frame, sky_of(frame, DifferenceOptions())))
        waiting.append(_Waiting.of(frame, store))
    best = int(np.nanargmin(merits)) if np.isfinite(merits).any() else 0
    for index in sorted(range(len(waiting)), key=lambda i: i != best):
        yield index, waiting[index].frame()


@dataclass(frozen=True, slots=True, eq=False)
class _Waiting:
    """A frame on disk."""

    planes: tuple[StoredImage[np.float32], StoredImage[np.float32], StoredImage[np.uint32]]
    #: The frame with no rows of pixels.
    rest: Frame

    @classmethod
    def of(cls, frame: Frame, store: RowStore) -> "_Waiting":
        planes = (store.put(frame.science), store.put(frame.variance), store.put(frame.mask))
        none = replace(frame, science=frame.science[:0], variance=frame.variance[:0], mask=frame.mask[:0])
        return cls(planes, none)

    def frame(self) -> Frame:
        """The frame as it was."""
        science, variance, mask = self.planes
        return replace(self.rest, science=science[:], variance=variance[:], mask=mask[:])


def _merit(frame: Frame, sky: Sky) -> float:
    """Noise × seeing per second of exposure (per frame where exposures are unknown)."""
    return sky.background.rms_median * frame_fwhm_px(sky.stars) / (frame.facts.exposure_s or 1.0)


def _fwhm(sky: Sky) -> float | None:
    width = frame_fwhm_px(sky.stars)
    return width if np.isfinite(width) else None


def _itself(base: _Base, store: RowStore) -> _Placed:
    flat, background = _sky_subtracted(base.frame, base.sky), base.sky.background
    return _stored(
        flat, store, background.median, 1.0, background.rms_median, base.measured.psf.fwhm_px, None
    )


def _place(base: _Base, frame: Frame, sky: Sky, store: RowStore) -> _Placed:
    """Move, measure and scale one frame; raises what keeps it from serving."""
    _refuse_other_kind(base.frame, frame)
    found = measure_registration(base.frame, frame, science_stars=base.sky.stars, reference_stars=sky.stars)
    moved = resample_frame(
        _sky_subtracted(frame, sky), found.to_reference, base.frame.shape, wcs=base.frame.wcs
    )
    seen = measure_frame(moved.frame, DifferenceOptions())
    scale = match_frames((base.measured, seen), DifferenceOptions()).match.flux_scale
    factor = np.float32(scale)
    scaled = replace(
        moved.frame, science=moved.frame.science * factor, variance=moved.frame.variance * factor**2
    )
    noise = scale * seen.background.rms_median * moved.area_noise_factor
    return _stored(scaled, store, sky.background.median, scale, noise, seen.psf.fwhm_px, found)


def _stored(
    frame: Frame,
    store: RowStore,
    sky: float,
    flux_scale: float,
    noise: float,
    fwhm_px: float,
    registration: Registration | None,
) -> _Placed:
    variance = np.where(unusable_pixels(frame), np.float32(np.inf), frame.variance)
    planes = store.put(frame.science), store.put(variance), store.put(frame.mask)
    return _Placed(*planes, frame.facts, frame.name, sky, flux_scale, noise, fwhm_px, registration)


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


def _leave_out(placed: dict[int, _Placed]) -> dict[int, Member]:
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
        gone[index] = _member(one, why, None, None)
    return gone


def _member(one: _Placed, excluded: str | None, weight: float | None, n_rejected: int | None) -> Member:
    found = one.registration
    return Member(
        one.name,
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
    base: _Base, placed: dict[int, _Placed], members: dict[int, Member], options: StackOptions
) -> Reference:
    order = sorted(placed)
    chosen = [placed[i] for i in order]
    weights = np.array([one.weight for one in chosen])
    weights /= weights.sum()
    stack = combine(
        [one.science for one in chosen],
        [one.variance for one in chosen],
        weights,
        clip_sigma=options.clip_sigma,
    )
    for i, one, weight, rejected in zip(order, chosen, weights, stack.n_rejected, strict=True):
        members[i] = _member(one, None, float(weight), rejected)
    gain = _effective_gain(chosen, weights) if base.frame.unit == "electron" else 1.0
    frame = _frame(base.frame, chosen, weights, stack, gain)
    grade = grade_reference(frame, stack, len(chosen), base.measured, gain)
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
        anywhere |= one.mask[:]
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
    exposures = [one.facts.exposure_s for one in chosen]
    noises = [one.facts.read_noise_e for one in chosen]
    levels = [
        one.facts.saturation * one.flux_scale * gain for one in chosen if one.facts.saturation is not None
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
