"""One frame as a subtraction needs it: sky taken off, noise and stars known, PSF measured.

Owns what is measured on a single frame before it meets the other; never compares two frames.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from astrid_workers.differencing.products import DifferenceOptions
from astrid_workers.frame import Float32Image, Frame
from astrid_workers.imaging.background import Background, estimate_background
from astrid_workers.imaging.grow import grow
from astrid_workers.imaging.known_sky import background_of
from astrid_workers.imaging.measure_psf import measure_psf
from astrid_workers.imaging.psf import Psf
from astrid_workers.imaging.stars import Stars, find_stars
from astrid_workers.mask import UNUSABLE

BoolImage = NDArray[np.bool_]

#: Pixels around sources that are not sky, and the sky pixels needed to say how it lies.
SKY_MARGIN_PX, MIN_SKY_PIXELS = 5, 2000
#: A pixel's variance is at least this share of the sky's: a hole in a variance plane is no certainty.
VARIANCE_FLOOR = 0.05
#: A star is left out of a search for lines of light within this many FWHM.
STAR_FWHM = 1.5


@dataclass(frozen=True, slots=True, eq=False)
class Sky:
    """Background and sources of a frame on its own grid."""

    background: Background
    stars: Stars


@dataclass(frozen=True, slots=True, eq=False)
class Measured:
    """A frame without its sky. Arrays `[y, x]` share one shape; `unusable` pixels hold 0."""

    image: Float32Image
    #: Finite everywhere; the sky's where a pixel is unusable.
    variance: Float32Image
    unusable: BoolImage
    background: Background
    stars: Stars
    psf: Psf

    @property
    def shape(self) -> tuple[int, ...]:
        """`(ny, nx)`, also without planes."""
        return self.background.sources.shape

    def with_variance(self, variance: Float32Image) -> "Measured":
        """The same, with another variance plane."""
        return replace(self, variance=variance)

    def with_psf(self, psf: Psf) -> "Measured":
        """The same, with another PSF."""
        return replace(self, psf=psf)

    def with_stars(self, stars: Stars, options: DifferenceOptions) -> "Measured":
        """The same, with the PSF of other stars."""
        psf = measure_psf(self.image, self.variance, self.unusable, stars, max_order=options.max_psf_order)
        return replace(self, stars=stars, psf=psf)

    def without_planes(self) -> "Measured":
        """The same, but for the planes of pixels, which are empty: their memory can go."""
        self.background.planes.forget()
        none = np.zeros((0, 0), np.float32)
        return replace(self, image=none, variance=none, unusable=np.zeros((0, 0), bool))


def sky_of(frame: Frame, options: DifferenceOptions) -> Sky:
    """Background and sources of a frame."""
    background = background_of(frame, unusable_pixels(frame), box_px=options.background_box_px)
    return Sky(background, find_stars(frame.science, background, frame.mask))


def structured_sky_of(frame: Frame, options: DifferenceOptions) -> Sky:
    """The same of a frame whose sky has structure, as another frame of the place shows."""
    background = estimate_background(
        frame.science, unusable_pixels(frame), box_px=options.background_box_px, has_structure=True
    )
    return Sky(background, find_stars(frame.science, background, frame.mask))


def measure_frame(
    frame: Frame, options: DifferenceOptions, sky: Sky | None = None, stars: Stars | None = None
) -> Measured:
    """Everything about one frame; `sky` or `stars` may be handed in where they are known already."""
    unusable = unusable_pixels(frame)
    if sky is None:
        background = background_of(frame, unusable, box_px=options.background_box_px)
    else:
        background, stars = sky.background, sky.stars
    if stars is None:
        stars = find_stars(frame.science, background, frame.mask)
    level = background.level + np.float32(left_over_sky(frame.science, background, unusable))
    image = np.where(unusable, np.float32(0), frame.science - level)
    floor = np.float32(VARIANCE_FLOOR * background.rms_median**2)
    variance = np.maximum(frame.variance, floor)
    variance[unusable] = np.maximum(background.rms[unusable] ** 2, floor)
    background.planes.forget()
    psf = measure_psf(image, variance, unusable, stars, max_order=options.max_psf_order)
    return Measured(image, variance, unusable, background, stars, psf)


def unusable_pixels(frame: Frame) -> BoolImage:
    """Masked as useless, or without a finite variance."""
    return np.asarray(((frame.mask & np.uint32(UNUSABLE)) != 0) | ~np.isfinite(frame.variance))


def calm(measured: Measured) -> BoolImage:
    """Pixels without a masked neighbour: blends and bleeds leave their trace around masks."""
    return ~grow(measured.unusable, 2)


def about_stars(measured: Measured) -> BoolImage:
    """Squares about clean stars: what is no part of a streak."""
    stars, shape = measured.stars, measured.shape
    seeds = np.zeros(shape, bool)
    clean = np.asarray(stars.clean, bool)
    rows = np.clip(np.rint(stars.y[clean]).astype(int), 0, shape[0] - 1)
    columns = np.clip(np.rint(stars.x[clean]).astype(int), 0, shape[1] - 1)
    seeds[rows, columns] = True
    return grow(seeds, max(2, round(STAR_FWHM * measured.psf.fwhm_px)))


def left_over_sky(image: Float32Image, background: Background, unusable: BoolImage) -> float:
    """Clipped mean of what the mesh leaves on sky well away from sources.

    A mode is below the mean of photon noise, and a sky without its highest pixels is too low: 0.02 sigma
    together, which under a PSF's wings is a per cent of a faint star.
    """
    sky = ~grow(background.sources | unusable, SKY_MARGIN_PX)
    return mean_of_sky((image - background.level)[sky], background.rms_median)


def mean_of_sky(values: Float32Image, sigma: float) -> float:
    """Mean of what lies within 4 sigma of 0; 0 where too little is there to tell."""
    values = values[np.abs(values) < 4 * sigma]
    return float(values.mean(dtype=np.float64)) if values.size > MIN_SKY_PIXELS else 0.0
