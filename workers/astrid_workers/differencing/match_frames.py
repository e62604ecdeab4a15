"""How two measured frames are brought together: their noise, the sources they share, the kernels that match
them.

Owns the choice of the algorithm and of the sources that match; never subtracts.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from astrid_workers.differencing.alard_lupton import Unmatched, fit_kernel
from astrid_workers.differencing.fourier_kernels import Matching
from astrid_workers.differencing.measure import SKY_MARGIN_PX, Measured, calm, mean_of_sky
from astrid_workers.differencing.products import Algorithm, DifferenceOptions, Requested
from astrid_workers.differencing.steady_stars import steady_stars
from astrid_workers.differencing.zogy import Zogy
from astrid_workers.frame import Float32Image
from astrid_workers.imaging.grow import grow
from astrid_workers.imaging.noise_model import NoiseModel, measure_noise, shared_light
from astrid_workers.imaging.photometric_match import PhotometricMatch, measure_match
from astrid_workers.imaging.psf import MIN_STARS_FOR_STACK, Psf
from astrid_workers.imaging.star_stack import STARS_FOR_FREE_PIXELS
from astrid_workers.imaging.stars import Stars

BoolImage = NDArray[np.bool_]
Floats = NDArray[np.float64]
Pair = tuple[Measured, Measured]
#: x and y, pixels.
Places = tuple[Floats, Floats]

#: Sources of this signal-to-noise ratio and above match the frames.
MATCH_SNR = 20.0
#: Clean stars of each frame below which `auto` prefers a kernel: on simulated fields of 26 stars per
#: megapixel PSFs left up to 18 false candidates per megapixel, kernels none.
MIN_STARS_FOR_ZOGY = 40


@dataclass(frozen=True, slots=True, eq=False)
class Matched:
    """Two frames on one grid and what makes them equal but for what changed."""

    #: Unusable in either frame.
    bad: BoolImage
    #: Empty in both frames.
    sky: BoolImage
    noise: tuple[NoiseModel, NoiseModel]
    #: Variance planes scaled to the scatter that the sky really has.
    variance: tuple[Float32Image, Float32Image]
    match: PhotometricMatch
    matching: Matching
    #: science = flux_scale × reference, as the algorithm measures it.
    flux_scale: float
    algorithm: Algorithm
    why: str

    def without_variance(self) -> "Matched":
        """The same, but for the variance planes, which are empty: their memory can go."""
        none = np.zeros((0, 0), np.float32)
        return replace(self, variance=(none, none))


def with_steady_stars(seen: Pair, options: DifferenceOptions) -> Pair:
    """The frames with PSFs from stars that the other frame bears out.

    Many stars outvote the few blends among them, but not when most of them are galaxies.
    """
    science, reference = (
        _of_steady(one, steady_stars(one.stars, other.stars), options) for one, other in (seen, seen[::-1])
    )
    return science, reference


def _of_steady(measured: Measured, stars: Stars, options: DifferenceOptions) -> Measured:
    gone = int(np.count_nonzero(measured.stars.clean & ~stars.clean))
    new = int(np.count_nonzero(stars.clean & ~measured.stars.clean))
    is_few = measured.psf.n_stars < STARS_FOR_FREE_PIXELS
    suffices = np.count_nonzero(stars.clean) >= MIN_STARS_FOR_STACK
    if not new and not (gone and is_few and suffices):
        return measured
    again = measured.with_stars(stars, options)
    left_out = f"; {gone} that changed or are broad in the other frame left out" if gone else ""
    taken = f"; {new} taken because they are stars there" if new else ""
    return again.with_psf(replace(again.psf, why=again.psf.why + left_out + taken))


def level_on_common_sky(seen: Pair) -> None:
    """Take off both images, in place, what is left on sky where neither frame has a source.

    By itself a frame takes for sky what only the other one resolves: in a field of 8,000 stars per megapixel
    a tenth of a sigma, which made gains wrong by 0.5 %.
    """
    science, reference = seen
    covered = (
        science.unusable | reference.unusable | science.background.sources | reference.background.sources
    )
    sky = ~grow(covered, SKY_MARGIN_PX)
    for one in seen:
        left = mean_of_sky(one.image[sky], one.background.rms_median)
        np.subtract(one.image, np.float32(left), out=one.image, where=~one.unusable)


def match_frames(seen: Pair, options: DifferenceOptions) -> Matched:
    """Noise, photometric match and matching kernels of (science, reference) on one grid.

    Raises `SubtractionRefused` with the numbers when too few sources are bright in both.
    """
    bad = seen[0].unusable | seen[1].unusable
    sky = ~(bad | seen[0].background.sources | seen[1].background.sources)
    noise = _noise(seen, sky)
    variance = (_corrected(seen[0], noise[0]), _corrected(seen[1], noise[1]))
    places, stars = match_places(seen), star_places(seen)
    match = measure_match(
        seen[0].image,
        seen[1].image,
        variance,
        bad,
        (seen[0].psf, seen[1].psf),
        places,
        stars=stars,
        max_order=options.max_match_order,
    )
    algorithm, why = choose_algorithm(options.algorithm, seen[0].psf, seen[1].psf, match.n_sources)
    matching, flux_scale = _matching(
        algorithm, seen, variance, bad, _constant(places, match, stars), match, options
    )
    return Matched(bad, sky, noise, variance, match, matching, flux_scale, algorithm, why)


def choose_algorithm(
    requested: Requested, science: Psf, reference: Psf, n_sources: int
) -> tuple[Algorithm, str]:
    """The algorithm and why, from what was measured."""
    if requested != "auto":
        return requested, f"{requested} was asked for"
    counts = f"{science.n_stars} and {reference.n_stars}"
    if min(science.n_stars, reference.n_stars) < MIN_STARS_FOR_ZOGY:
        return "classic", (
            f"classic, because {counts} clean stars in the science and the reference frame are too few "
            f"for PSFs ({MIN_STARS_FOR_ZOGY} needed) and a kernel needs none; {n_sources} sources matched"
        )
    return "zogy", (
        f"zogy, because both PSFs were measured ({counts} stars; FWHM {science.fwhm_px:.2f} and "
        f"{reference.fwhm_px:.2f} px); {n_sources} sources matched"
    )


def match_places(seen: Pair) -> Places:
    """x and y of the bright sources of the frame that sees more of them, strongest first."""
    best = max(seen, key=lambda m: int(np.count_nonzero(m.stars.snr > MATCH_SNR)))
    bright = np.flatnonzero(best.stars.snr > MATCH_SNR)
    order = bright[np.argsort(-best.stars.flux[bright])]
    return np.asarray(best.stars.x[order], float), np.asarray(best.stars.y[order], float)


def star_places(seen: Pair) -> Places:
    """x and y of stars that are clean in both frames: what rose or faded is in one of them only."""
    science, reference = (m.stars.only(np.asarray(m.stars.clean, bool)) for m in seen)
    if len(science.x) == 0 or len(reference.x) == 0:
        return np.empty(0), np.empty(0)
    tree = cKDTree(np.stack([reference.x, reference.y], axis=1))
    near, _ = tree.query(np.stack([science.x, science.y], axis=1))
    return np.asarray(science.x[near < 1.0], float), np.asarray(science.y[near < 1.0], float)


def _constant(places: Places, match: PhotometricMatch, stars: Places) -> Places:
    """Those of `places` that agreed with the match, and stars whether or not: a kernel must fit them too."""
    sure = cKDTree(np.concatenate([np.stack([match.x, match.y], axis=1), np.stack(stars, axis=1)]))
    near, _ = sure.query(np.stack(places, axis=1))
    return places[0][near < 1.0], places[1][near < 1.0]


def _noise(seen: Pair, sky: BoolImage) -> tuple[NoiseModel, NoiseModel]:
    """Noise of both frames; light of sources that both hold and neither finds is none."""
    blank = [sky & calm(each) for each in seen]
    light = shared_light(
        [each.image for each in seen],
        [each.variance for each in seen],
        blank[0] & blank[1],
        [each.psf.fwhm_px for each in seen],
    )
    one, other = (
        measure_noise(each.image, each.variance, where, shape)
        for each, where, shape in zip(seen, blank, light, strict=True)
    )
    return one, other


def _corrected(measured: Measured, noise: NoiseModel) -> Float32Image:
    return measured.variance * np.float32(noise.variance_ratio)


def _matching(
    algorithm: Algorithm,
    seen: Pair,
    variance: tuple[Float32Image, Float32Image],
    bad: BoolImage,
    places: Places,
    match: PhotometricMatch,
    options: DifferenceOptions,
) -> tuple[Matching, float]:
    """The transfer functions of the algorithm, and science over reference flux as it measures it."""
    if algorithm == "zogy":
        return Zogy(seen[0].psf, seen[1].psf, match), match.flux_scale
    if algorithm == "none":
        return Unmatched(match.flux_scale), match.flux_scale
    kernel = fit_kernel(
        seen[0].image,
        seen[1].image,
        variance,
        bad,
        (seen[0].psf.fwhm_px, seen[1].psf.fwhm_px),
        places,
        match,
        max_order=options.max_match_order,
    )
    return kernel, kernel.flux_scale
