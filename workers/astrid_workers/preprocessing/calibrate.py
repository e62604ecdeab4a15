"""A raw frame made comparable: bias, dark, flat, and masks for what cannot be trusted.

Owns the order and the error propagation of calibration: everything in ADU first, the gain last. Never repairs
a pixel (it is masked), and never decides which calibration frames belong to a frame.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from astrid_workers.errors import FrameRejected
from astrid_workers.frame import Frame, HeaderFacts, Uint32Image
from astrid_workers.imaging.background import FEWEST_PIXELS
from astrid_workers.imaging.bad_lines import find_bad_lines
from astrid_workers.imaging.cosmic_rays import find_cosmic_rays
from astrid_workers.imaging.known_sky import background_within
from astrid_workers.imaging.level_steps import without_level_steps
from astrid_workers.imaging.measured_frame import frame_from_pixels, gain_was_estimated, variance_was_given
from astrid_workers.imaging.noise import robust_median_and_scatter
from astrid_workers.imaging.stars import measure_fwhm_px
from astrid_workers.mask import UNUSABLE, MaskBit

#: Relative response below which a flat's pixel is dead.
DEAD_RESPONSE = 0.1
#: Sigmas of the dark's own scatter beyond which its pixels are hot.
HOT_SIGMA = 12.0
#: Side of the middle of a large frame whose stars tell the width by which rays are found.
MIDDLE_PX = 1200
#: Bad lines that are named in a sentence: those of which so much is bad, and how many of them.
SHOWN_SHARE, MOST_SHOWN = 0.25, 5
#: A dark whose level is below this share of the bias has had its bias removed already.
BIAS_IN_DARK = 0.5


@dataclass(frozen=True, slots=True)
class CalibrationStep:
    """One correction: whether it was made, with which frame, and the number that describes it."""

    applied: bool = False
    frame_name: str | None = None
    #: bias: its median level (ADU); dark: the ratio of exposures; flat: the median it was divided by.
    factor: float | None = None
    #: Exposure of the dark, seconds.
    exposure_s: float | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Calibrated:
    """A frame ready to be aligned, and what was done to it."""

    frame: Frame
    bias: CalibrationStep
    dark: CalibrationStep
    flat: CalibrationStep
    #: Groups of pixels masked as cosmic rays; None where they could not be looked for.
    n_cosmic_rays: int | None
    #: FWHM of the stars, by which rays were told from them; None without clean stars.
    fwhm_px: float | None

    @property
    def calibration_applied(self) -> bool:
        """Whether any of the three corrections was made."""
        return self.bias.applied or self.dark.applied or self.flat.applied


def calibrate(
    frame: Frame,
    *,
    bias: Frame | None = None,
    dark: Frame | None = None,
    flat: Frame | None = None,
    bad_pixels: NDArray[np.bool_] | None = None,
) -> Calibrated:
    """`(raw − bias − dark · exposure ratio) / (flat / its median)`, in ADU, then times the gain; with masks.

    Calibration frames are masters of the frame's shape, in any unit that a gain leads back to ADU. Dark: with
    its bias in it, removed when `bias` is given, unless its level shows that it was; scaling by exposure
    needs `bias`. Flat: bias-subtracted. A gain that had been estimated is estimated again from the corrected
    sky. Variance is measured again on the corrected sky; a noise map is propagated instead. Masked:
    `bad_pixels` (True is bad), dead pixels of the flat, hot ones of the dark, columns and rows that do not
    see the sky, cosmic rays; the flagged values stay as they are. Steps of the sky between amplifiers are
    taken off. Raises FrameRejected with one sentence when shapes or exposures do not fit or a flat is not
    positive.
    """
    _refuse_nothing_seen(frame)
    for part in (bias, dark, flat):
        _refuse_other_shape(frame, part)
    if bad_pixels is not None and bad_pixels.shape != frame.shape:
        size = _size(bad_pixels.shape)
        msg = f"{frame.name}: the bad-pixel map is {size} pixels, the frame {_size(frame.shape)}"
        raise FrameRejected(msg)
    work, steps = _corrected(frame, bias, dark, flat)
    if bad_pixels is not None:
        work = replace(work, mask=_with_bit(work.mask, bad_pixels, MaskBit.BAD_PIXEL))
    masked, n_rays, fwhm = _rays_masked(_levelled(_bad_lines_masked(work)))
    return Calibrated(masked, *steps, n_rays, fwhm)


def _refuse_nothing_seen(frame: Frame) -> None:
    """A frame without a usable pixel, or with one value everywhere, is no picture of the sky."""
    counts = {
        said: int(np.count_nonzero(frame.mask & np.uint32(bit)))
        for said, bit in (
            ("without a value", MaskBit.NO_DATA),
            ("bad", MaskBit.BAD_PIXEL),
            ("saturated", MaskBit.SATURATED),
        )
    }
    values = frame.science[(frame.mask & np.uint32(UNUSABLE)) == 0]
    if values.size == 0:
        why = ", ".join(f"{n} {said}" for said, n in counts.items() if n)
        msg = f"{frame.name}: none of its {frame.mask.size} pixels can be used: {why}"
        raise FrameRejected(msg)
    if values.min() == values.max():
        msg = f"{frame.name}: all {values.size} usable pixels are {values[0]:g}, expected sky with noise"
        raise FrameRejected(msg)


def _corrected(
    frame: Frame, bias: Frame | None, dark: Frame | None, flat: Frame | None
) -> tuple[Frame, tuple[CalibrationStep, CalibrationStep, CalibrationStep]]:
    if bias is None and dark is None and flat is None:
        return frame, (CalibrationStep(), CalibrationStep(), CalibrationStep())
    raw = _in_adu(frame)
    bias_adu, dark_adu = (None if part is None else _in_adu(part) for part in (bias, dark))
    work, bias_step = _bias_subtracted(raw, bias_adu)
    work, dark_step = _dark_subtracted(work, dark_adu, bias_adu)
    work, flat_step = _flattened(work, flat, bias is not None)
    return _in_frame_unit(work, frame), (bias_step, dark_step, flat_step)


def _in_adu(frame: Frame) -> Frame:
    """The frame in ADU where a gain leads there; as it is otherwise."""
    gain = frame.facts.gain_e_per_adu
    if frame.unit != "electron" or gain is None or gain == 1.0:
        return frame
    level = frame.facts.saturation
    return replace(
        frame,
        science=frame.science / np.float32(gain),
        variance=frame.variance / np.float32(gain**2),
        unit="adu",
        facts=replace(frame.facts, saturation=None if level is None else level / gain),
    )


def _in_frame_unit(work: Frame, frame: Frame) -> Frame:
    """Back to electrons, with the variance, and a gain that was estimated, read off the corrected sky again.

    What was measured on the raw frame counted the pattern that the corrections removed. A noise map stays.
    """
    if not variance_was_given(frame):
        return _measured_again(work, frame)
    gain = frame.facts.gain_e_per_adu
    if work.unit == frame.unit or gain is None:
        return work
    level = work.facts.saturation
    return replace(
        work,
        science=work.science * np.float32(gain),
        variance=work.variance * np.float32(gain**2),
        unit="electron",
        facts=replace(work.facts, saturation=None if level is None else level * gain),
    )


def _measured_again(work: Frame, frame: Frame) -> Frame:
    gain = (frame.facts.gain_e_per_adu or 1.0) if work.unit != frame.unit else 1.0
    zero_point = work.facts.zero_point_mag
    in_adu = None if zero_point is None else zero_point - 2.5 * float(np.log10(gain))
    known = None if gain_was_estimated(frame) else work.facts.gain_e_per_adu
    lost = (work.mask & np.uint32(MaskBit.NO_DATA)) != 0
    again = frame_from_pixels(
        np.where(lost, np.float32(np.nan), work.science),
        facts=replace(work.facts, gain_e_per_adu=known, zero_point_mag=in_adu, saturation=None),
        unit=work.unit,
        wcs=work.wcs,
        assumed=tuple(s for s in work.assumed if not s.startswith("GAIN")),
        name=work.name,
    )
    level = work.facts.saturation
    factor = (again.facts.gain_e_per_adu or 1.0) if again.unit != work.unit else 1.0
    facts = replace(again.facts, saturation=None if level is None else level * factor)
    return replace(again, mask=again.mask | work.mask, facts=facts)


def _bias_subtracted(work: Frame, bias: Frame | None) -> tuple[Frame, CalibrationStep]:
    if bias is None:
        return work, CalibrationStep()
    level, _ = robust_median_and_scatter(bias.science[_usable(bias)])
    saturation = work.facts.saturation
    facts = replace(work.facts, saturation=None if saturation is None else saturation - level)
    return _difference(work, bias, 1.0, facts=facts), CalibrationStep(True, bias.name, level)


def _dark_subtracted(work: Frame, dark: Frame | None, bias: Frame | None) -> tuple[Frame, CalibrationStep]:
    if dark is None:
        return work, CalibrationStep()
    current, said = _without_bias(dark, bias)
    ratio, more = _exposure_ratio(work, dark, has_bias=bias is not None)
    hot = _hot_pixels(current)
    corrected = _difference(work, current, ratio, facts=work.facts)
    corrected = replace(
        corrected,
        mask=_with_bit(corrected.mask, hot, MaskBit.BAD_PIXEL),
        assumed=(*corrected.assumed, *said, *more),
    )
    return corrected, CalibrationStep(True, dark.name, ratio, dark.facts.exposure_s)


def _without_bias(dark: Frame, bias: Frame | None) -> tuple[Frame, tuple[str, ...]]:
    """The dark current alone, where the dark holds the bias and there is one to remove."""
    if bias is None:
        return dark, ()
    level, _ = robust_median_and_scatter(dark.science[_usable(dark)])
    pedestal, _ = robust_median_and_scatter(bias.science[_usable(bias)])
    if level < BIAS_IN_DARK * pedestal:
        return dark, (
            f"the dark's level of {level:.4g} is below the bias' {pedestal:.4g}: its bias is gone already",
        )
    return _difference(dark, bias, 1.0, facts=dark.facts), ()


def _exposure_ratio(work: Frame, dark: Frame, *, has_bias: bool) -> tuple[float, tuple[str, ...]]:
    exposure, of_dark = work.facts.exposure_s, dark.facts.exposure_s
    if exposure is None or of_dark is None:
        return 1.0, ("an exposure time is missing: the dark is taken as long as the frame",)
    ratio = exposure / of_dark
    if not has_bias and abs(ratio - 1) > 0.02:
        msg = (
            f"{dark.name}: a dark of {of_dark:g} s cannot be scaled to {exposure:g} s without a bias frame:"
            " its pedestal does not grow with time"
        )
        raise FrameRejected(msg, dark_exposure_s=of_dark, exposure_s=exposure)
    return ratio, ()


def _hot_pixels(dark: Frame) -> NDArray[np.bool_]:
    level, scatter = robust_median_and_scatter(dark.science[_usable(dark)])
    hot: NDArray[np.bool_] = dark.science > level + HOT_SIGMA * scatter
    return hot if scatter > 0 else np.zeros(dark.shape, bool)


def _flattened(work: Frame, flat: Frame | None, has_bias: bool) -> tuple[Frame, CalibrationStep]:
    if flat is None:
        return work, CalibrationStep()
    good = _usable(flat)
    median = float(np.median(flat.science[good])) if good.any() else 0.0
    if not median > 0:
        msg = f"{flat.name}: the flat's median is {median:g}, expected a positive level"
        raise FrameRejected(msg, median=median)
    response = flat.science / np.float32(median)
    dead = ~good | (response < DEAD_RESPONSE)
    response = np.where(dead, np.float32(1), response)
    noise = np.where(dead, np.float32(0), flat.variance / np.float32(median**2))
    science = work.science / response
    variance = (work.variance + np.square(science) * noise) / np.square(response)
    assumed = work.assumed
    if has_bias and median > 50:
        assumed = (*assumed, "the flat is taken as bias-subtracted")
    flattened = replace(
        work,
        science=science.astype(np.float32),
        variance=variance.astype(np.float32),
        mask=_with_bit(work.mask, dead, MaskBit.BAD_PIXEL),
        assumed=assumed,
    )
    return flattened, CalibrationStep(True, flat.name, median)


def _difference(work: Frame, part: Frame, factor: float, *, facts: HeaderFacts) -> Frame:
    """`work − factor · part`, variances added; what the part did not measure is a bad pixel."""
    lost = ~_usable(part)
    science = work.science - np.where(lost, np.float32(0), part.science * np.float32(factor))
    added = np.where(lost, np.float32(0), part.variance * np.float32(factor**2))
    no_data = (work.mask & np.uint32(MaskBit.NO_DATA)) != 0
    science[no_data] = 0
    return replace(
        work,
        science=science,
        variance=work.variance + added,
        mask=_with_bit(work.mask, lost, MaskBit.BAD_PIXEL),
        facts=facts,
    )


def _usable(frame: Frame) -> NDArray[np.bool_]:
    usable: NDArray[np.bool_] = (frame.mask & np.uint32(UNUSABLE)) == 0
    return usable


def _with_bit(mask: Uint32Image, where: NDArray[np.bool_], bit: MaskBit) -> Uint32Image:
    flagged = mask.copy()
    flagged[where] |= np.uint32(bit)
    return flagged


def _bad_lines_masked(frame: Frame) -> Frame:
    """BAD_PIXEL set on columns and rows that no map named, and said."""
    bad = find_bad_lines(frame.science, frame.variance, ~_usable(frame))
    count = int(np.count_nonzero(bad))
    if not count:
        return frame
    columns, rows = (_places(np.flatnonzero(np.mean(bad, axis=axis) > SHOWN_SHARE)) for axis in (0, 1))
    named = [f"{what} {places}" for what, places in (("column", columns), ("row", rows)) if places]
    where = ": " + "; ".join(named) if named else ""
    said = f"{count} pixels of lines that do not see the sky are taken as bad{where}"
    return replace(frame, mask=_with_bit(frame.mask, bad, MaskBit.BAD_PIXEL)).with_assumption(said)


def _levelled(frame: Frame) -> Frame:
    """Steps between amplifiers taken off the sky, and said."""
    image, steps = without_level_steps(frame.science, ~_usable(frame))
    if not steps:
        return frame
    lost = (frame.mask & np.uint32(MaskBit.NO_DATA)) != 0
    image[lost] = 0
    where = ", ".join(f"{step.height:+.3g} at {step.axis} {step.at}" for step in steps)
    said = f"the sky's level steps by {where} ({frame.unit}), as between amplifiers: taken off"
    return replace(frame, science=image).with_assumption(said)


def _places(lines: NDArray[np.intp]) -> str:
    """The first few of these numbers, and how many more there are."""
    more = lines.size - MOST_SHOWN
    return ", ".join(map(str, lines[:MOST_SHOWN])) + (f" and {more} more" if more > 0 else "")


def _rays_masked(frame: Frame) -> tuple[Frame, int | None, float | None]:
    """COSMIC_RAY set where rays stand; they are told from stars by the frame's own FWHM."""
    usable = _usable(frame)
    if np.count_nonzero(usable) < FEWEST_PIXELS or min(frame.shape) < 16:
        return frame, None, None
    fwhm = _stellar_fwhm_px(frame, usable)
    if not np.isfinite(fwhm):
        return (
            frame.with_assumption("no clean stars: cosmic rays could not be told from them, none masked"),
            None,
            None,
        )
    rays = find_cosmic_rays(frame.science, frame.variance, fwhm, unusable=~usable)
    marked = replace(frame, mask=_with_bit(frame.mask, rays, MaskBit.COSMIC_RAY))
    return marked, count_groups(rays), fwhm


def _stellar_fwhm_px(frame: Frame, usable: NDArray[np.bool_]) -> float:
    """FWHM of the stars: of the middle of a large frame where that has enough of them, else of the whole."""
    for window in (_middle(frame.shape), (slice(None), slice(None))):
        if np.count_nonzero(usable[window]) < FEWEST_PIXELS:
            continue
        sky = background_within(frame, ~usable, window)
        fwhm = measure_fwhm_px(frame.science[window], sky, frame.mask[window])
        if np.isfinite(fwhm):
            return fwhm
    return float("nan")


def _middle(shape: tuple[int, int]) -> tuple[slice, slice]:
    """A square of `MIDDLE_PX` about the centre, or all of a smaller frame."""
    rows, columns = (
        slice(
            max((side - MIDDLE_PX) // 2, 0), (side - MIDDLE_PX) // 2 + MIDDLE_PX if side > MIDDLE_PX else side
        )
        for side in shape
    )
    return rows, columns


def count_groups(mask: NDArray[np.bool_]) -> int:
    """Groups of touching pixels, corners included."""
    return int(ndimage.label(mask, np.ones((3, 3)))[1])


def _refuse_other_shape(frame: Frame, part: Frame | None) -> None:
    if part is not None and part.shape != frame.shape:
        msg = f"{part.name}: {_size(part.shape)} pixels, the frame {frame.name} has {_size(frame.shape)}"
        raise FrameRejected(msg)


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[1]} x {shape[0]}"
