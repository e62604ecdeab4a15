"""What saturated stars leave in a difference: their wings off both frames first, then how far to trust them.

Owns which stars are taken off, which pixels they hide, and the noise that is measured around each. Never fits
a profile (`imaging/star_wings.py` does).

A saturated core is cut out of both frames before any transform, but the light that each frame's kernel
carries from there to the wings differs: a cut star leaves a ring of tens of sigma. So every star's own wings
are fitted in each frame, and the frames are subtracted without them.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from astrid_workers.differencing.match_frames import Pair
from astrid_workers.differencing.score import Score
from astrid_workers.frame import Float32Image, Frame
from astrid_workers.imaging.common_pattern import common_pattern
from astrid_workers.imaging.grow import grow
from astrid_workers.imaging.halo import grow_saturated
from astrid_workers.imaging.saturated_stars import SaturatedStar, put_back, saturated_stars, without_wings
from astrid_workers.mask import MaskBit

BoolImage = NDArray[np.bool_]
Floats = NDArray[np.float64]

#: What clips is grown by this, pixels: resampling and blooming leave their trace beside it.
GROWTH_PX = 1
#: Width of the rings in which the score's scatter is measured around a star, in FWHM.
RING_FWHM = 0.75
#: How far the median |score| of n independent places may exceed a Gaussian's by chance, times 1 / sqrt(n).
CHANCE = 1.2
#: Median of |z| of a Gaussian.
GAUSSIAN_MEDIAN = 0.6745
#: Pixels of a ring below which nothing is measured.
FEWEST_PIXELS = 20
#: A ring whose score scatters more than this many times its noise is hidden like the star.
MOST_SCATTER = 2.0
#: Stars that are asked for a pattern, the largest, and how far it reaches beyond where it is seen, in FWHM.
PATTERN_STARS, PATTERN_MARGIN_FWHM = 60, 0.5


@dataclass(frozen=True, slots=True, eq=False)
class Saturated:
    """Both frames without the wings of saturated stars, and what those stars hide."""

    science: Float32Image
    reference: Float32Image
    #: Saturated in either frame and grown; further where a star's wings could not be fitted.
    hidden: BoolImage
    stars: list[SaturatedStar]
    #: How far each star's fitted light reaches, pixels; 0 where it was not fitted in both frames.
    reach_px: list[int]
    #: How far a halo was seen around each star in either frame, pixels; 0: none.
    halo_px: list[int]

    @property
    def n_fitted(self) -> int:
        """Stars whose wings were taken off both frames."""
        return sum(reach > 0 for reach in self.reach_px)

    def without_images(self) -> "Saturated":
        """The same, but for the images, which are empty: their memory can go."""
        none = np.zeros((0, 0), np.float32)
        return replace(self, science=none, reference=none)


def take_off_saturated(science: Frame, reference: Frame, seen: Pair) -> Saturated:
    """Fit and take off the wings of the stars that clip in either frame.

    A star that cannot be fitted in both frames keeps its light, and hides as much around it as its brightness
    asks for.
    """
    clipped = grow(((science.mask | reference.mask) & np.uint32(MaskBit.SATURATED)) != 0, GROWTH_PX)
    if not clipped.any():
        return Saturated(seen[0].image, seen[1].image, clipped, [], [], [])
    labels, stars = saturated_stars(clipped)
    images, fits = [], []
    for measured in seen:
        usable = ~(measured.unusable | clipped)
        fwhm, sigma = measured.psf.fwhm_px, measured.background.rms_median
        left, found = without_wings(measured.image, measured.variance, usable, stars, fwhm, sigma)
        images.append(left)
        fits.append(found)
    reach, halos = [], []
    is_fitted = np.zeros(int(labels.max()) + 1, bool)
    for star, *both in zip(stars, *fits, strict=True):
        whole = [wings.reach_px for wings in both if wings is not None]
        is_fitted[star.number] = len(whole) == len(both)
        reach.append(max(whole) if is_fitted[star.number] else 0)
        halos.append(max(wings.halo_px for wings in both if wings is not None) if reach[-1] else 0)
        if not is_fitted[star.number]:
            for image, wings in zip(images, both, strict=True):
                put_back(image, wings)
    hidden = clipped | _hidden_by_others(science, reference, seen, ~is_fitted[labels])
    return Saturated(images[0], images[1], hidden, stars, reach, halos)


def _hidden_by_others(science: Frame, reference: Frame, seen: Pair, others: BoolImage) -> BoolImage:
    """The zones of the regions that were not fitted, by their brightness."""
    hidden = np.zeros(others.shape, bool)
    for frame, measured in zip((science, reference), seen, strict=True):
        clips = ((frame.mask & np.uint32(MaskBit.SATURATED)) != 0) & others
        hidden |= grow_saturated(measured.image, clips, measured.psf, measured.background.rms_median)
    return hidden


@dataclass(frozen=True, slots=True, eq=False)
class Surroundings:
    """What the score says of the zones around fitted stars."""

    #: The largest factor by which noise was raised.
    noise_factor: float
    #: Where the score scatters by more than `MOST_SCATTER` times its noise: there nothing is to be seen.
    hidden: BoolImage
    #: Halos and patterns: what stands there may be made of the star's own light.
    stray_light: BoolImage
    n_halos: int
    #: Pixels about each star at which most of them leave light.
    pattern_px: int


def measure_around(score: Score, saturated: Saturated, bad: BoolImage, fwhm_px: float) -> Surroundings:
    """Scale the noise around each fitted star to what its own rings show, in place, and say what is there.

    `bad` pixels are no evidence.
    """
    largest = 1.0
    hidden, stray = np.zeros(bad.shape, bool), np.zeros(bad.shape, bool)
    for star, reach, halo in zip(saturated.stars, saturated.reach_px, saturated.halo_px, strict=True):
        if reach == 0:
            continue
        window, radius = _around(star, reach, bad.shape)
        if halo:
            stray[window] |= (radius > star.radius_px) & (radius < halo + fwhm_px)
        radii, scatter = ring_scatter(
            score.score[window], radius, ~bad[window], star.radius_px, reach, fwhm_px
        )
        if len(radii) == 0 or scatter.max() <= 1.0:
            continue
        for middle in radii[scatter > MOST_SCATTER]:
            hidden[window] |= np.abs(radius - middle) < RING_FWHM * fwhm_px / 2
        factor = np.interp(radius, radii, np.minimum(scatter, MOST_SCATTER), right=1.0).astype(np.float32)
        score.score[window] /= factor
        score.subtracted_light[window] /= factor
        score.flux_error[window] *= factor
        largest = max(largest, float(factor.max()))
    pattern = _pattern(score.score, saturated, ~(bad | hidden), fwhm_px)
    _add_pattern(stray, saturated, pattern)
    return Surroundings(
        largest, hidden, stray, int(np.count_nonzero(saturated.halo_px)), int(np.count_nonzero(pattern))
    )


def _pattern(score: Float32Image, saturated: Saturated, usable: BoolImage, fwhm_px: float) -> BoolImage:
    """Where beside any of the fitted stars light stands as beside most of them, an odd square."""
    fitted = [star for star, reach in zip(saturated.stars, saturated.reach_px, strict=True) if reach]
    reach = int(np.median([each for each in saturated.reach_px if each])) if fitted else 0
    x, y = (np.array([getattr(star, of) for star in fitted[:PATTERN_STARS]], float) for of in ("x", "y"))
    return grow(common_pattern(score, usable, x, y, reach), max(1, round(PATTERN_MARGIN_FWHM * fwhm_px)))


def _add_pattern(stray: BoolImage, saturated: Saturated, pattern: BoolImage) -> None:
    """Lay the pattern about every fitted star, in place."""
    half = pattern.shape[0] // 2
    for star, reach in zip(saturated.stars, saturated.reach_px, strict=True):
        if reach:
            window, _ = _around(star, half, stray.shape)
            top, left = window[0].start - round(star.y) + half, window[1].start - round(star.x) + half
            seen = stray[window]
            seen |= pattern[top : top + seen.shape[0], left : left + seen.shape[1]]


def _around(star: SaturatedStar, reach: int, shape: tuple[int, ...]) -> tuple[tuple[slice, slice], Floats]:
    """A square about a star, and how far its pixels are from the star."""
    row, column = round(star.y), round(star.x)
    rows = slice(max(row - reach, 0), min(row + reach + 1, shape[0]))
    columns = slice(max(column - reach, 0), min(column + reach + 1, shape[1]))
    dy, dx = np.mgrid[rows, columns].astype(float)
    return (rows, columns), np.hypot(dx - star.x, dy - star.y)


def ring_scatter(
    score: Float32Image, radius: Floats, good: BoolImage, inner_px: float, outer_px: float, fwhm_px: float
) -> tuple[Floats, Floats]:
    """Middles of rings about a star, and by how much the score scatters more than its noise there; 1: not.

    The median of |score| over a Gaussian's, less what chance may do to so few places; half of a ring may hold
    sources. Rings of too few pixels are left out.
    """
    width = max(RING_FWHM * fwhm_px, 1.5)
    ring = np.floor((radius - inner_px) / width).astype(int)
    middles, scatter = [], []
    for number in range(int((outer_px - inner_px) / width)):
        values = score[(ring == number) & good]
        if values.size < FEWEST_PIXELS:
            continue
        independent = max(values.size / (1.13 * fwhm_px**2), 1.0)
        found = float(np.median(np.abs(values))) / GAUSSIAN_MEDIAN / (1 + CHANCE / np.sqrt(independent))
        middles.append(inner_px + (number + 0.5) * width)
        scatter.append(max(found, 1.0))
    return np.array(middles), np.array(scatter)
