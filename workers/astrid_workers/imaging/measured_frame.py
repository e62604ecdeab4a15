"""From pixels and header facts to a frame: units, gain, variance and mask.

Owns how variance is known when no noise map came along; never reads a file.

Variance is measured, not believed: the sky's own scatter on a mesh, plus the photons of sources where a gain
is known that this scatter does not contradict. So it stays right for frames whose sky was subtracted, whose
gain is wrong, or whose noise is not Poisson's.
"""

import math
from dataclasses import dataclass, replace
from weakref import ref

import numpy as np
from astropy.wcs import WCS
from numpy.typing import NDArray

from astrid_workers.frame import Float32Image, Frame, HeaderFacts, Uint32Image
from astrid_workers.imaging.background import FEWEST_PIXELS, Background, estimate_background
from astrid_workers.imaging.box_mean import box_mean
from astrid_workers.imaging.gain_check import SkyNoise, holds_pedestal, sky_noise
from astrid_workers.imaging.grow import grow_diamond
from astrid_workers.imaging.known_sky import MeasuredSky
from astrid_workers.imaging.noise import photon_transfer, pixel_noise, robust_median_and_scatter
from astrid_workers.mask import MaskBit

BoolImage = NDArray[np.bool_]
Floats = NDArray[np.float64]

#: Gains of integer images beyond this are camera settings, not electrons per ADU.
LARGEST_INTEGER_GAIN = 100.0
#: What `assumed` says of an estimated gain; `gain_was_estimated` looks for it.
_ESTIMATED = "estimated from the sky's level and noise"
#: What `assumed` says where a noise map came along; `variance_was_given` looks for it.
_GIVEN = "variance is that of the noise map"
#: Noise of integers, in their steps, below which they are spread; differences up to so many are noise.
COARSE_NOISE, LARGEST_STEP = 0.8, 4.0
#: Saturated pixels are grown by this much: their neighbours hold what spilled over.
SATURATION_GROWTH_PX = 2
#: Sigmas from which a pixel's own value says how many photons it holds.
BRIGHT_SIGMA = 10.0
#: Cells per axis on which a gain is read off the sky.
GAIN_CELLS = 6
#: Pictures of no sky: their noise says nothing of a gain.
CALIBRATION_TYPES = frozenset({"bias", "dark", "flat"})
#: Scatter beyond which fourth powers of it leave float32's range, or squares of bright stars: such images
#: change their unit by a power of ten.
SMALLEST_SCATTER, LARGEST_SCATTER = 1e-8, 1e6


def frame_from_pixels(
    pixels: Float32Image,
    *,
    facts: HeaderFacts,
    unit: str,
    wcs: WCS | None = None,
    assumed: tuple[str, ...] = (),
    name: str = "frame",
    sigma: Float32Image | None = None,
    bad: BoolImage | None = None,
    ceiling: float | None = None,
    is_integer: bool = False,
) -> Frame:
    """A `Frame` of `pixels` (float32 `[y, x]` in `unit`, NaN where not measured).

    `sigma` is one standard deviation per pixel in `unit`; where it is not positive and finite, nothing was
    measured. `bad` pixels become `BAD_PIXEL`. `ceiling` is the largest value that the file's integers can
    hold: taken as saturated where no level is known. `facts` are in `unit` and come back in the frame's.
    """
    lost = ~np.isfinite(pixels)
    if sigma is not None:
        with np.errstate(invalid="ignore"):
            lost |= ~(sigma > 0) | ~np.isfinite(sigma)
    science = np.where(lost, np.float32(0), pixels)
    mask = np.where(lost, np.uint32(MaskBit.NO_DATA), np.uint32(0))
    if bad is not None:
        mask[bad] |= np.uint32(MaskBit.BAD_PIXEL)
    said = list(assumed)
    if is_integer:
        science = _dithered(science, lost, said)
    _mark_saturated(mask, science, lost, facts.saturation, ceiling, said)
    unusable = mask != 0
    sky = None if sigma is not None else _sky(science, unusable)
    seen = _Seen(science, mask, sky, facts, is_integer, sigma is not None)
    factor, new_unit = _factor(seen, unit, said)
    if factor != 1.0:
        science = science * np.float32(factor)
        sky = None if sky is None else sky.times(factor)
    variance = _variance(seen, science, sky, sigma, factor, new_unit, said)
    variance[lost] = np.inf
    facts = _converted(facts, unit, factor, new_unit)
    known = None if sky is None else MeasuredSky(sky, ref(science), int(np.count_nonzero(unusable)))
    return Frame(science, variance, mask, wcs, new_unit, facts, tuple(said), name, known)


def gain_was_estimated(frame: Frame) -> bool:
    """Whether the gain in the frame's facts was read off its sky, and not off its header."""
    return any(_ESTIMATED in sentence for sentence in frame.assumed)


def variance_was_given(frame: Frame) -> bool:
    """Whether the variance came with the frame as a noise map, and was not measured on its sky."""
    return _GIVEN in frame.assumed


def grown(mask: BoolImage, radius_px: int) -> BoolImage:
    """`mask` and everything within `radius_px` (a diamond)."""
    if radius_px < 1 or not mask.any():
        return mask
    return grow_diamond(mask, radius_px)


@dataclass(frozen=True, slots=True, eq=False)
class _Seen:
    """Pixels in the file's unit with all that was found out about them."""

    science: Float32Image
    mask: Uint32Image
    sky: Background | None
    facts: HeaderFacts
    is_integer: bool
    has_noise_map: bool


def _sky(science: Float32Image, unusable: BoolImage) -> Background | None:
    """The background, or None where too little is usable to know it."""
    if unusable.size - np.count_nonzero(unusable) < FEWEST_PIXELS or min(science.shape) < 16:
        return None
    return estimate_background(science, unusable)


def _dithered(science: Float32Image, lost: BoolImage, said: list[str]) -> Float32Image:
    """Integers with noise far below their step, spread over it; others as they are.

    Medians and modes of such a sky are those of its few values: its noise came out as none, or twice.
    """
    found = (science[::4, 2:] - science[::4, :-2])[~(lost[::4, 2:] | lost[::4, :-2])]
    step = float(np.min(np.abs(found), where=found != 0, initial=np.inf))
    if not np.isfinite(step):
        return science
    steps = found / np.float32(step) - np.float32(np.median(found) / step)
    steps = steps[np.abs(steps) <= LARGEST_STEP]
    noise = float(np.std(steps, dtype=np.float64)) / math.sqrt(2) if steps.size else 0.0
    if not 0 < noise < COARSE_NOISE:
        return science
    said.append(
        f"the sky's noise is {noise:.2g} of the step between the file's integers: each is spread evenly over"
        " half a step to both sides"
    )
    dither = np.random.default_rng(0).uniform(-step / 2, step / 2, science.shape).astype(np.float32)
    return np.where(lost, science, science + dither)


def _mark_saturated(
    mask: Uint32Image,
    science: Float32Image,
    lost: BoolImage,
    level: float | None,
    ceiling: float | None,
    said: list[str],
) -> None:
    """SATURATED at or above the header's level, grown; at the file type's ceiling without one."""
    limit = ceiling if level is None else level
    if limit is None:
        return
    hit = (science >= limit) & ~lost
    if not hit.any():
        return
    if level is None:
        said.append(
            f"SATURATE is missing: {np.count_nonzero(hit)} pixels at {limit:g}, the largest value that the"
            " file's integers hold, are taken as saturated"
        )
    mask[grown(hit, SATURATION_GROWTH_PX)] |= np.uint32(MaskBit.SATURATED)


def _converted(facts: HeaderFacts, unit: str, factor: float, new_unit: str) -> HeaderFacts:
    """Facts in the frame's unit; a gain means nothing in units that are not electrons."""
    gain = facts.gain_e_per_adu
    if new_unit != "electron":
        gain = None
    elif unit == "adu":
        gain = factor
    elif unit == "adu / s" and facts.exposure_s is not None:
        gain = factor / facts.exposure_s
    level, zero_point = facts.saturation, facts.zero_point_mag
    return replace(
        facts,
        gain_e_per_adu=gain,
        saturation=None if level is None else level * factor,
        zero_point_mag=None if zero_point is None else zero_point + 2.5 * math.log10(factor),
    )


def _factor(seen: _Seen, unit: str, said: list[str]) -> tuple[float, str]:
    """What the pixels are multiplied with, and their unit afterwards."""
    if unit == "electron":
        return 1.0, "electron"
    if unit == "electron / s" and seen.facts.exposure_s is not None:
        said.append(f"electrons per second times EXPTIME = {seen.facts.exposure_s:g} s")
        return seen.facts.exposure_s, "electron"
    if unit == "adu":
        return _gain(seen, said)
    if unit == "adu / s" and seen.facts.exposure_s is not None:
        return _gain_of_rates(seen, seen.facts.exposure_s, said)
    return _in_range(seen, unit, said)


def _gain(seen: _Seen, said: list[str]) -> tuple[float, str]:
    gain = seen.facts.gain_e_per_adu
    if gain is not None and not (seen.is_integer and gain > LARGEST_INTEGER_GAIN):
        return _checked_gain(seen, gain, said)
    why = (
        "GAIN is missing" if gain is None else f"GAIN = {gain:g} is a camera's setting, not electrons per ADU"
    )
    estimate = None if seen.sky is None or seen.has_noise_map else _gain_from_sky(seen, seen.sky)
    if seen.has_noise_map:
        said.append(f"{why}: kept in ADU")
        return _in_range(seen, "adu", said)
    return _estimated(seen, estimate, why, said)


def _estimated(seen: _Seen, estimate: float | None, why: str, said: list[str]) -> tuple[float, str]:
    if estimate is None:
        said.append(f"{why} and cannot be read off the sky's noise: kept in ADU, with measured variance")
        return _in_range(seen, "adu", said)
    said.append(f"{why}: {estimate:.3g} e-/ADU {_ESTIMATED}, as if without a pedestal")
    return estimate, "electron"


def _gain_of_rates(seen: _Seen, exposure_s: float, said: list[str]) -> tuple[float, str]:
    """Electrons per (count per second): GAIN times EXPTIME, or GAIN alone where that alone fits the sky."""
    gain, read_noise = seen.facts.gain_e_per_adu, seen.facts.read_noise_e
    if gain is None:
        return _in_range(seen, "adu / s", said)
    factor, noise = gain * exposure_s, _sky_noise(seen)
    if noise is not None and noise.is_noisy_for(factor, read_noise) and noise.fits(gain, read_noise):
        said.append(f"GAIN = {gain:g} holds EXPTIME = {exposure_s:g} s already, by the sky's noise")
        return gain, "electron"
    said.append(f"counts per second times GAIN = {gain:g} e-/ADU and EXPTIME = {exposure_s:g} s")
    if noise is not None and noise.contradicts(factor, read_noise):
        said.append(f"{_contradiction(noise, factor, read_noise, 'GAIN times EXPTIME')}, and is believed")
    return factor, "electron"


def _checked_gain(seen: _Seen, gain: float, said: list[str]) -> tuple[float, str]:
    """The header's gain, unless the sky is less noisy than it allows and something else explains that."""
    read_noise, exposure_s, noise = seen.facts.read_noise_e, seen.facts.exposure_s, _sky_noise(seen)
    if noise is None or not noise.contradicts(gain, read_noise):
        if noise is not None and noise.is_noisy_for(gain, read_noise):
            ratio = noise.ratio(gain, read_noise, of_pixels=True)
            said.append(
                f"GAIN = {gain:g} is believed, though the sky's variance is {ratio:.3g} times that of its own"
                " photons and RDNOISE"
            )
        return gain, "electron"
    why = _contradiction(noise, gain, read_noise, "GAIN")
    # digits as a detector wrote them: neither divided by anything nor a mean, but perhaps on a bias
    is_raw = bool(np.array_equal(seen.science, np.rint(seen.science)))
    if not is_raw and exposure_s is not None and noise.fits(gain * exposure_s, read_noise):
        said.append(f"{why}: taken times EXPTIME = {exposure_s:g} s, as of counts per second, which fits")
        return gain * exposure_s, "electron"
    if not is_raw and seen.sky is not None and noise.has_level and noise.contradicts(gain, None):
        levels, noises = _sky_cells(seen, seen.sky)
        if not holds_pedestal(levels, noises, gain, gain / noise.ratio(gain, read_noise)):
            estimate = _gain_of_cells(levels, noises, read_noise)
            return _estimated(seen, estimate, f"{why}: not believed", said)
    said.append(f"{why}, and is believed: a pedestal, or RDNOISE, may be what is wrong")
    return gain, "electron"


def _contradiction(noise: SkyNoise, gain: float, read_noise_e: float | None, name: str) -> str:
    return (
        f"{name} = {gain:g} is contradicted by the sky at {noise.level:.4g}, whose variance is at"
        f" most {noise.ratio(gain, read_noise_e):.2g} of that of its own photons and RDNOISE"
    )


def _sky_noise(seen: _Seen) -> SkyNoise | None:
    """The noise of blank sky; None where there is no sky, or a noise map says what it is."""
    if seen.has_noise_map or seen.sky is None or seen.facts.image_type in CALIBRATION_TYPES:
        return None
    return sky_noise(seen.science, seen.sky.level, (seen.mask == 0) & ~seen.sky.sources)


def _gain_from_sky(seen: _Seen, sky: Background) -> float | None:
    """Photon transfer on a mesh of cells of blank sky."""
    return _gain_of_cells(*_sky_cells(seen, sky), seen.facts.read_noise_e)


def _gain_of_cells(levels: Floats, noises: Floats, read_noise_e: float | None) -> float | None:
    transfer = photon_transfer(levels, noises, read_noise_e)
    return None if transfer is None else transfer.gain_e_per_adu


def _sky_cells(seen: _Seen, sky: Background) -> tuple[Floats, Floats]:
    """Level and pixel noise of blank sky, cell by cell."""
    blank = (seen.mask == 0) & ~sky.sources
    levels, noises = [], []
    for rows in np.array_split(np.arange(blank.shape[0]), GAIN_CELLS):
        for columns in np.array_split(np.arange(blank.shape[1]), GAIN_CELLS):
            if rows.size < 5 or columns.size < 5:
                continue
            cell = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
            if np.count_nonzero(blank[cell]) < FEWEST_PIXELS:
                continue
            levels.append(float(np.median(sky.level[cell])))
            noises.append(pixel_noise(seen.science[cell], blank[cell]))
    return np.array(levels), np.array(noises)


def _in_range(seen: _Seen, unit: str, said: list[str]) -> tuple[float, str]:
    """A power of ten that brings the scatter of tiny or huge units into float32's range."""
    _, scatter = robust_median_and_scatter(seen.science[seen.mask == 0])
    if not scatter > 0 or SMALLEST_SCATTER <= scatter <= LARGEST_SCATTER:
        return 1.0, unit
    exponent = -math.floor(math.log10(scatter))
    said.append(f"values multiplied by 1e{exponent}, so that their squares can be represented")
    return 10.0**exponent, f"1e{-exponent} {unit}"


def _variance(
    seen: _Seen,
    science: Float32Image,
    sky: Background | None,
    sigma: Float32Image | None,
    factor: float,
    unit: str,
    said: list[str],
) -> Float32Image:
    """Per-pixel variance in the frame's unit squared; so are `science` and `sky`, while `sigma` and what was
    `seen` are in the file's, of which one is `factor`.
    """
    scale = np.float32(factor)
    if sigma is not None:
        said.append(_GIVEN)
        with np.errstate(invalid="ignore"):
            given: Float32Image = np.square(sigma * scale)
        return given
    if sky is None:
        return np.maximum(_variance_without_sky(science, unit, seen.facts), _least_variance(seen, scale))
    variance: Float32Image = np.square(sky.rms)
    np.maximum(variance, _least_variance(seen, scale), out=variance)
    if unit == "electron":
        variance += _source_photons(science - sky.level, sky.rms)
    else:
        said.append(
            "variance is the sky's measured scatter: without a gain the photons of sources do not count"
        )
    return variance


def _variance_without_sky(science: Float32Image, unit: str, facts: HeaderFacts) -> Float32Image:
    """Too small or too masked for a mesh: photons and read-out noise, else one robust scatter."""
    if unit == "electron":
        return np.maximum(science, np.float32(1)) + np.float32((facts.read_noise_e or 0.0) ** 2)
    _, scatter = robust_median_and_scatter(science)
    return np.full(science.shape, scatter**2 if scatter > 0 else 1.0, np.float32)


def _least_variance(seen: _Seen, scale: np.float32) -> np.float32:
    """What representing the pixels costs: rounding to integers (1/12), or to float32. Never 0."""
    if seen.is_integer:
        return np.float32(scale**2 / 12)
    typical = float(np.median(np.abs(seen.science[::4, ::4]))) * float(scale)
    return np.float32(max(float(np.finfo(np.float32).eps * typical) ** 2, 1e-30))


def _source_photons(residual: Float32Image, rms: Float32Image) -> Float32Image:
    """Electrons above the sky where they are significant, by the pixel itself where it is bright.

    Elsewhere by the mean of 3 × 3 pixels, above twice its scatter: its own noise would bias a variance.
    """
    photons: Float32Image = box_mean(residual, 3)
    np.copyto(photons, 0, where=photons <= rms * np.float32(2 / 3))
    np.copyto(photons, residual, where=residual > rms * np.float32(BRIGHT_SIGMA))
    return photons
