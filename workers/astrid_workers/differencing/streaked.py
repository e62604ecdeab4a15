"""Satellites and aeroplanes across a pair: found on each frame, taken off, and their tracks marked.

Owns which pixels are on a streak, what is said of streaks, and the noise that is measured on each. Never
finds a line (`imaging/streaks.py` does), and never sets a candidate aside: what is on a streak is flagged.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from astrid_workers.differencing.match_frames import Pair
from astrid_workers.differencing.measure import about_stars
from astrid_workers.differencing.products import Number
from astrid_workers.differencing.score import Score
from astrid_workers.frame import Float32Image
from astrid_workers.imaging.grouped_median import grouped_median
from astrid_workers.imaging.streak_light import PIECE_PX, streak_light
from astrid_workers.imaging.streaks import Streak, find_streaks

BoolImage = NDArray[np.bool_]

#: What is marked beyond the streak itself, in FWHM: kernels carry it there.
MARGIN_FWHM = 0.5
#: Median of |z| of a Gaussian, and how far n independent places may exceed it by chance, times 1 / sqrt(n).
GAUSSIAN_MEDIAN, CHANCE = 0.6745, 1.2


@dataclass(frozen=True, slots=True, eq=False)
class Streaked:
    """Both frames without the light of streaks."""

    science: Float32Image
    reference: Float32Image
    #: Per frame, surest first.
    streaks: tuple[list[Streak], list[Streak]]

    def without_images(self) -> "Streaked":
        """The same, but for the images, which are empty: their memory can go."""
        none = np.zeros((0, 0), np.float32)
        return replace(self, science=none, reference=none)

    def tracks(self, shape: tuple[int, int], fwhm_px: float) -> BoolImage:
        """Pixels on a streak of either frame, or where kernels carry it."""
        on = np.zeros(shape, bool)
        for streak in (*self.streaks[0], *self.streaks[1]):
            on[streak.pixels(shape, MARGIN_FWHM * fwhm_px)] = True
        return on

    def sentences(self) -> list[str]:
        """What was found, for the report."""
        return [
            f"{name} frame: a streak from ({s.x0:.0f}, {s.y0:.0f}) to ({s.x1:.0f}, {s.y1:.0f}), "
            f"{2 * s.half_width_px:.0f} px wide ({s.significance:.0f} sigma): its light was taken off, and "
            "candidates on it are flagged"
            for name, streaks in zip(("science", "reference"), self.streaks, strict=True)
            for s in streaks
        ]

    def numbers(self) -> dict[str, Number]:
        """Counts for the report."""
        return {"streaks_science": len(self.streaks[0]), "streaks_reference": len(self.streaks[1])}


def take_off_streaks(
    images: tuple[Float32Image, Float32Image], seen: Pair, holes: tuple[BoolImage, BoolImage]
) -> Streaked:
    """Find the streaks of both background-subtracted `images` and take their light off copies of them.

    `holes`, pixels of each that are unusable or hidden, are not asked.
    """
    left, found = [], []
    for image, measured, out in zip(images, seen, holes, strict=True):
        streaks = find_streaks(image, measured.background.rms, out | about_stars(measured))
        measured.background.planes.forget()
        without = image.copy() if streaks else image
        for streak in streaks:
            rows, columns, light = streak_light(without, ~out, streak)
            without[rows, columns] -= light
        left.append(without)
        found.append(streaks)
    return Streaked(left[0], left[1], (found[0], found[1]))


def measure_on_streaks(score: Score, streaked: Streaked, bad: BoolImage, fwhm_px: float) -> float:
    """Scale the noise on each streak to what the score shows along it, in place; the largest factor.

    `bad` pixels are no evidence.
    """
    largest = 1.0
    for streak in (*streaked.streaks[0], *streaked.streaks[1]):
        rows, columns = streak.pixels(bad.shape, MARGIN_FWHM * fwhm_px)
        along, _ = streak.along_and_across(columns.astype(float), rows.astype(float))
        pieces = max(1, round(streak.length_px / PIECE_PX))
        place = along / streak.length_px * pieces
        piece = np.clip(place.astype(int), 0, pieces - 1)
        good = ~bad[rows, columns]
        found = grouped_median(np.abs(score.score[rows, columns][good]).astype(float), piece[good], pieces)
        independent = np.maximum(np.bincount(piece[good], minlength=pieces) / (1.13 * fwhm_px**2), 1.0)
        scatter = np.nan_to_num(found / GAUSSIAN_MEDIAN, nan=1.0) / (1 + CHANCE / np.sqrt(independent))
        scatter = np.maximum(scatter, 1.0)
        factor = np.interp(place, np.arange(pieces) + 0.5, scatter).astype(np.float32)
        score.score[rows, columns] /= factor
        score.subtracted_light[rows, columns] /= factor
        score.flux_error[rows, columns] *= factor
        largest = max(largest, float(scatter.max()))
    return largest
