"""Steps of the sky's level along a whole column or row, as between amplifiers whose pedestals differ.

Owns finding them and taking them off; gains are not its business, nor are steps that end within the frame.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from astrid_workers.frame import Float32Image
from astrid_workers.imaging.noise import SIGMA_PER_MAD, robust_median_and_scatter

BoolImage = NDArray[np.bool_]
Floats = NDArray[np.float64]

#: Columns on either side whose levels are compared, and how far off the trend is read: another step there
#: spoils two of the six.
SIDE_PX, TREND_PX = 16, (24, 40, 56)
#: Pixels of a column that tell its level, at most.
ENOUGH = 512
#: Scatters of such differences over the frame from which one is looked at; pixels on either side that then
#: tell its height, and the errors of that in half of the frame, and sigmas of a pixel, from which it is a
#: step.
SUSPECT, PAIRS_PX, LEAST_SIGNIFICANCE, LEAST_SIGMA = 5.0, 8, 5.0, 0.2
#: Sections of a column that must tell the same height, all but one: to half of it, or to so many errors.
SECTIONS, AGREEMENT_SIGMA = 8, 2.5
#: Sigmas about the median of a side beyond which a pixel is no sky.
SKY_SIGMA = 2.5
#: Steps per axis: more are no amplifiers. Side of the smallest frame that is looked at.
MOST_STEPS, LEAST_SIDE_PX = 3, 256


@dataclass(frozen=True, slots=True)
class LevelStep:
    """From pixel `at` of `axis` on ("column" or "row"), the sky is `height` higher, in the image's unit."""

    axis: str
    at: int
    height: float


def without_level_steps(
    image: Float32Image, unusable: BoolImage
) -> tuple[Float32Image, tuple[LevelStep, ...]]:
    """`image` (float32 `[y, x]`) levelled to its first columns and rows, and the steps that were taken off.

    `unusable` pixels (True) say nothing and are levelled with the others. Without a step it is the same
    image.
    """
    steps = find_level_steps(image, unusable)
    if not steps:
        return image, ()
    levelled = image.copy()
    for step in steps:
        part = levelled[:, step.at :] if step.axis == "column" else levelled[step.at :]
        part -= np.float32(step.height)
    return levelled, steps


def find_level_steps(image: Float32Image, unusable: BoolImage) -> tuple[LevelStep, ...]:
    """Where the median of whole columns or rows jumps by more than trend and noise make it; at most
    `MOST_STEPS` of either, none where there are more.
    """
    if min(image.shape) < LEAST_SIDE_PX:
        return ()
    found = []
    for axis, pixels, lost in (("column", image, unusable), ("row", image.T, unusable.T)):
        steps = []
        for at in _suspects(_profile(pixels, lost)):
            near = slice(at - SIDE_PX, at + SIDE_PX)
            noise = _pixel_scatter(pixels[:, near], lost[:, near])
            height = _height(pixels, lost, at, noise)
            if abs(height) > LEAST_SIGMA * noise:
                steps.append(LevelStep(axis, at, height))
        found += steps if len(steps) <= MOST_STEPS else []
    return tuple(found)


def _pixel_scatter(image: Float32Image, unusable: BoolImage) -> float:
    """Noise of a pixel, from differences along a column, which no step of columns enters; 0 without any."""
    differences = (image[1:] - image[:-1])[~(unusable[1:] | unusable[:-1])]
    return robust_median_and_scatter(differences)[1] / float(np.sqrt(2)) if differences.size else 0.0


def _profile(image: Float32Image, unusable: BoolImage) -> Floats:
    """Median of each column, from rows spread over the frame; interpolated where fewer than a quarter of them
    are usable.
    """
    every = max(1, image.shape[0] // ENOUGH)
    values = np.where(unusable[::every], np.float32(np.nan), image[::every])
    values = np.sort(np.ascontiguousarray(values.T), axis=1)
    counted = np.count_nonzero(np.isfinite(values), axis=1)
    medians = values[np.arange(len(values)), counted // 2].astype(float)
    known = np.flatnonzero((counted > 0) & (counted >= values.shape[1] // 4))
    if not known.size:
        return np.full(medians.size, np.nan)
    filled: Floats = np.interp(np.arange(medians.size), known, medians[known])
    return filled


def _suspects(profile: Floats) -> list[int]:
    """Places in ascending order at which a profile may jump; each where neighbours differ most."""
    jump = _jumps(profile)
    known = np.isfinite(jump)
    if not known.any():
        return []
    noise = SIGMA_PER_MAD * float(np.median(np.abs(jump[known] - np.median(jump[known]))))
    left, found = np.where(known, np.abs(jump), 0.0), []
    while left.max() > SUSPECT * noise:
        near = int(np.argmax(left))
        window = np.arange(near - SIDE_PX // 2, near + SIDE_PX // 2 + 1)
        found.append(
            int(window[np.argmax(np.nan_to_num(np.sign(jump[near]) * np.diff(profile)[window - 1]))])
        )
        left[max(near - 2 * SIDE_PX, 0) : near + 2 * SIDE_PX] = 0
    return sorted(found)


def _height(image: Float32Image, unusable: BoolImage, at: int, scatter: float) -> float:
    """Height of the step at a place, the median over sections of the rows; 0 where these do not agree, as
    where crowds of stars made it, or where it is no more than its error.
    """
    sections = [slice(rows[0], rows[-1] + 1) for rows in np.array_split(np.arange(len(image)), SECTIONS)]
    heights = np.array([_sky_step(image[rows], unusable[rows], at, scatter) for rows in sections])
    height = float(np.median(heights))
    error = np.sqrt(np.pi) * scatter / np.sqrt(PAIRS_PX * len(image) / SECTIONS)
    agree = np.count_nonzero(np.abs(heights - height) < max(abs(height) / 2, AGREEMENT_SIGMA * error))
    is_step = abs(height) > LEAST_SIGNIFICANCE * error / np.sqrt(SECTIONS / 2) and agree >= SECTIONS - 1
    return height if is_step else 0.0


def _sky_step(image: Float32Image, unusable: BoolImage, at: int, scatter: float) -> float:
    """Mean difference of sky at equal distances on either side of a place, less that at places beside.

    A mean, as the medians of integers are integers themselves.
    """
    steps = []
    for place in (at, *(at + side * off for off in TREND_PX for side in (-1, 1))):
        sides = [image[:, place : place + PAIRS_PX], image[:, place - PAIRS_PX : place][:, ::-1]]
        lost = [unusable[:, place : place + PAIRS_PX], unusable[:, place - PAIRS_PX : place][:, ::-1]]
        kept = ~(lost[0] | lost[1])
        if not kept.any():
            return 0.0
        for side in sides:
            kept &= np.abs(side - np.median(side[~lost[0] & ~lost[1]])) < SKY_SIGMA * scatter
        steps.append(float(np.mean((sides[0] - sides[1])[kept], dtype=float)) if kept.any() else 0.0)
    return steps[0] - float(np.median(steps[1:]))


def _jumps(profile: Floats) -> Floats:
    """Level on the right of each place less that on the left, without what the trend on both sides makes; NaN
    near the ends.
    """
    medians = np.median(np.lib.stride_tricks.sliding_window_view(profile, SIDE_PX), axis=1)
    steps = np.full(profile.size, np.nan)
    steps[SIDE_PX : profile.size - SIDE_PX + 1] = medians[SIDE_PX:] - medians[:-SIDE_PX]
    reach = SIDE_PX + TREND_PX[-1]
    middle = np.arange(reach, profile.size - reach)
    beside = np.array([steps[middle + side * off] for off in TREND_PX for side in (-1, 1)])
    jumps = np.full(profile.size, np.nan)
    jumps[middle] = steps[middle] - np.median(beside, axis=0)
    return jumps
