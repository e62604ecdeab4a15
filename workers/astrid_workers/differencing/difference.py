"""Science minus reference: the one function behind which every algorithm stands.

Owns the order of the steps, the choice of the algorithm and what is refused; never aligns, reads or writes a
frame.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from astrid_workers.differencing.alard_lupton import AlardLupton, Unmatched, fit_kernel
from astrid_workers.differencing.products import Algorithm, Difference, DifferenceOptions, Number
from astrid_workers.differencing.score import Score, make_score
from astrid_workers.differencing.tiles import Matching, Prepared, Subtracted, plan_tiles, subtract
from astrid_workers.differencing.zogy import Zogy
from astrid_workers.errors import SubtractionRefused
from astrid_workers.frame import Float32Image, Frame
from astrid_workers.imaging.background import Background, estimate_background
from astrid_workers.imaging.halo import grow_saturated
from astrid_workers.imaging.inpaint import fill_pair
from astrid_workers.imaging.noise_model import NoiseModel, measure_noise
from astrid_workers.imaging.photometric_match import PhotometricMatch, measure_match
from astrid_workers.imaging.psf import SIGMA_PER_FWHM, Psf, measure_psf
from astrid_workers.imaging.stars import Stars, find_stars
from astrid_workers.mask import UNUSABLE, MaskBit

BoolImage = NDArray[np.bool_]
Progress = Callable[[str, float], None]

__all__ = ["Difference", "DifferenceOptions", "difference"]

#: A PSF narrower than this is undersampled: its pixels depend on where a star falls between them.
UNDERSAMPLED_FWHM_PX = 2.0
#: Sources of this signal-to-noise ratio and above match the frames.
MATCH_SNR = 20.0
#: Least share of the frame that both frames must have measured.
MIN_VALID_FRACTION = 0.05
#: A variance plane that is off by more than this (in sigma) is said to be.
NOTEWORTHY_SIGMA_RATIO = 0.03
#: Pixels around sources that are not sky, and the sky pixels needed to say how it lies.
SKY_MARGIN_PX, MIN_SKY_PIXELS = 5, 2000
#: Width of the zone along the footprint's edge in which kernels miss light, in FWHM.
EDGE_FWHM = 1.5


@dataclass(frozen=True, slots=True, eq=False)
class _Measured:
    """One frame with what was measured on it."""

    image: Float32Image
    variance: Float32Image
    unusable: BoolImage
    background: Background
    stars: Stars
    psf: Psf


def difference(
    science: Frame,
    reference: Frame,
    *,
    options: DifferenceOptions | None = None,
    progress: Progress | None = None,
) -> Difference:
    """Subtract `reference`, which lies on the grid of `science`, and score what is left.

    Neither frame needs its background subtracted. Masked pixels are filled before any transform and NaN in
    the result. `progress` is told a step and the share of the work done. Raises `SubtractionRefused` with the
    numbers when the frames cannot be matched or what is left at stars says that the match failed.
    """
    options = options or DifferenceOptions()
    tell = progress or (lambda _step, _share: None)
    _check(science, reference)
    tell("measure the frames", 0.0)
    seen = _measure(science, options), _measure(reference, options)
    bad = seen[0].unusable | seen[1].unusable
    sky = ~(bad | seen[0].background.sources | seen[1].background.sources)
    tell("match the frames", 0.3)
    noise = tuple(measure_noise(m.image, m.variance, sky & _calm(m)) for m in seen)
    variances = tuple(_corrected(m, n) for m, n in zip(seen, noise, strict=True))
    places = _match_places(seen)
    match = measure_match(
        seen[0].image,
        seen[1].image,
        (variances[0], variances[1]),
        bad,
        (seen[0].psf, seen[1].psf),
        places,
        max_order=options.max_match_order,
    )
    algorithm, why = choose_algorithm(options.algorithm, seen[0].psf, seen[1].psf, match.n_sources)
    matching, flux_scale = _matching(
        algorithm, seen, (variances[0], variances[1]), bad, places, match, options
    )
    tell("fill masked pixels", 0.4)
    hidden = grow_saturated(seen[0].image, science.mask, seen[0].psf, seen[0].background.rms_median)
    hidden |= grow_saturated(seen[1].image, reference.mask, seen[1].psf, seen[1].background.rms_median)
    pair = _prepare(seen, (variances[0], variances[1]), (noise[0], noise[1]), hidden, sky & ~hidden, match)
    tell("subtract", 0.45)
    grid = plan_tiles(science.shape, pair.psf_science.size_px // 2, options.tile_px)
    parts = subtract(pair, matching, grid, lambda share: tell("subtract", 0.45 + 0.45 * share))
    tell("score", 0.9)
    score = make_score(
        parts,
        pair.sky & _inside(science.shape, max(seen[0].psf.fwhm_px, seen[1].psf.fwhm_px)),
        astrometric_noise_px=match.astrometric_noise_px,
        gain_scatter=match.gain_scatter,
        stars=_star_samples(match, bad | hidden, seen[0].psf.fwhm_px),
    )
    result = _assemble(
        science, reference, seen, noise, match, matching, algorithm, why, flux_scale, hidden, parts, score
    )
    _refuse_failure(result, seen, match, options.max_residual_power)
    tell("score", 1.0)
    return result


def choose_algorithm(requested: str, science: Psf, reference: Psf, n_sources: int) -> tuple[Algorithm, str]:
    """The algorithm and why, from what was measured."""
    if requested != "auto":
        return requested, f"{requested} was asked for"  # type: ignore[return-value]
    fallback = [
        name for name, psf in (("science", science), ("reference", reference)) if psf.model == "moffat"
    ]
    if fallback:
        return "classic", (
            f"classic, because {' and '.join(fallback)} had too few clean stars for a PSF "
            f"({science.n_stars} and {reference.n_stars}) and a kernel needs none; {n_sources} sources "
            "matched"
        )
    return "zogy", (
        f"zogy, because both PSFs were measured ({science.n_stars} and {reference.n_stars} stars; "
        f"FWHM {science.fwhm_px:.2f} and {reference.fwhm_px:.2f} px) and {n_sources} sources matched"
    )


def _check(science: Frame, reference: Frame) -> None:
    if science.shape != reference.shape:
        msg = f"the reference must lie on the science grid: shapes {science.shape} and {reference.shape}"
        raise ValueError(msg)
    both = ((science.mask | reference.mask) & np.uint32(UNUSABLE)) == 0
    share = float(both.mean())
    if share < MIN_VALID_FRACTION:
        msg = (
            f"{100 * share:.1f} % of the pixels are usable in both frames, "
            f"{100 * MIN_VALID_FRACTION:.0f} % needed"
        )
        raise SubtractionRefused(msg, usable_fraction=share, needed=MIN_VALID_FRACTION)


def _measure(frame: Frame, options: DifferenceOptions) -> _Measured:
    unusable = ((frame.mask & np.uint32(UNUSABLE)) != 0) | ~np.isfinite(frame.variance)
    background = estimate_background(frame.science, unusable, box_px=options.background_box_px)
    stars = find_stars(frame.science, background, frame.mask)
    level = background.level + np.float32(_left_over(frame.science, background, unusable))
    image = np.where(unusable, np.float32(0), frame.science - level)
    floor = np.float32(0.05 * background.rms_median**2)
    variance = np.maximum(np.where(unusable, background.rms**2, frame.variance), floor).astype(np.float32)
    psf = measure_psf(image, variance, unusable, stars, max_order=options.max_psf_order)
    return _Measured(image, variance, unusable, background, stars, psf)


def _left_over(image: Float32Image, background: Background, unusable: BoolImage) -> float:
    """Clipped mean of what the mesh leaves on sky well away from sources.

    A mode is below the mean of photon noise, and a sky without its highest pixels is too low: 0.02 sigma
    together, which under a PSF's wings is a per cent of a faint star.
    """
    sky = ~ndimage.binary_dilation(background.sources | unusable, iterations=SKY_MARGIN_PX)
    values = (image - background.level)[sky]
    values = values[np.abs(values) < 4 * background.rms_median]
    return float(values.mean(dtype=np.float64)) if values.size > MIN_SKY_PIXELS else 0.0


def _calm(measured: _Measured) -> BoolImage:
    """Pixels without a masked neighbour: blends and bleeds leave their trace around masks."""
    return np.asarray(~ndimage.binary_dilation(measured.unusable, iterations=2))


def _corrected(measured: _Measured, noise: NoiseModel) -> Float32Image:
    """The variance plane scaled to the scatter that the sky really has."""
    return measured.variance * np.float32(noise.variance_ratio)


def _match_places(seen: tuple[_Measured, _Measured]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Bright sources of the science frame, strongest first; of the reference when it sees more."""
    best = max(seen, key=lambda m: int(np.count_nonzero(m.stars.snr > MATCH_SNR)))
    bright = np.flatnonzero(best.stars.snr > MATCH_SNR)
    order = bright[np.argsort(-best.stars.flux[bright])]
    return np.asarray(best.stars.x[order], float), np.asarray(best.stars.y[order], float)


def _matching(
    algorithm: Algorithm,
    seen: tuple[_Measured, _Measured],
    variances: tuple[Float32Image, Float32Image],
    bad: BoolImage,
    places: tuple[NDArray[np.float64], NDArray[np.float64]],
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
        variances,
        bad,
        (seen[0].psf.fwhm_px, seen[1].psf.fwhm_px),
        places,
        max_order=options.max_match_order,
    )
    return kernel, kernel.flux_scale


def _prepare(
    seen: tuple[_Measured, _Measured],
    variances: tuple[Float32Image, Float32Image],
    noise: tuple[NoiseModel, NoiseModel],
    hidden: BoolImage,
    sky: BoolImage,
    match: PhotometricMatch,
) -> Prepared:
    difference_of_squares = seen[0].psf.fwhm_px ** 2 - seen[1].psf.fwhm_px ** 2
    blur = float(np.sign(difference_of_squares) * np.sqrt(abs(difference_of_squares)) * SIGMA_PER_FWHM)
    holes = (seen[0].unusable | hidden, seen[1].unusable | hidden)
    science, reference = fill_pair(seen[0].image, seen[1].image, holes, match.flux_scale, blur)
    return Prepared(
        science, reference, variances[0], variances[1], sky, noise[0], noise[1], seen[0].psf, seen[1].psf
    )


def _inside(shape: tuple[int, int], fwhm: float) -> BoolImage:
    edge = int(np.ceil(2 * fwhm))
    inside = np.zeros(shape, bool)
    inside[edge:-edge, edge:-edge] = True
    return inside


def _star_samples(
    match: PhotometricMatch, bad: BoolImage, fwhm: float
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Pixels at matched sources: their centres and eight places half a FWHM away, where profiles differ
    most.
    """
    steps = np.array([(0.0, 0.0), *((np.cos(a), np.sin(a)) for a in np.arange(8) * np.pi / 4)]) * fwhm / 2
    x = np.rint(match.x[:, None] + steps[None, :, 0]).astype(int).ravel()
    y = np.rint(match.y[:, None] + steps[None, :, 1]).astype(int).ravel()
    inside = (x >= 0) & (y >= 0) & (x < bad.shape[1]) & (y < bad.shape[0])
    x, y = x[inside], y[inside]
    good = ~bad[y, x]
    return y[good], x[good]


def _assemble(
    science: Frame,
    reference: Frame,
    seen: tuple[_Measured, _Measured],
    noise: tuple[NoiseModel, ...],
    match: PhotometricMatch,
    matching: Matching,
    algorithm: Algorithm,
    why: str,
    flux_scale: float,
    hidden: BoolImage,
    parts: Subtracted,
    score: Score,
) -> Difference:
    """Masks applied, numbers gathered."""
    lost = seen[0].unusable | seen[1].unusable | hidden
    mask = _joint_mask(science, reference, hidden, lost, max(seen[0].psf.fwhm_px, seen[1].psf.fwhm_px))
    nan = np.float32(np.nan)
    middle = parts.kernels.at(science.shape[1] / 2, science.shape[0] / 2)[0]
    return Difference(
        difference=np.where(lost, nan, parts.difference - score.background),
        score=np.where(lost, nan, score.score),
        variance=np.where(lost, nan, parts.variance),
        flux_error=np.where(lost, nan, score.flux_error),
        mask=mask,
        unmasked_score=score.score,
        subtracted_light=score.subtracted_light,
        kernels=parts.kernels,
        psf_science=seen[0].psf,
        psf_reference=seen[1].psf,
        psf=middle,
        flux_scale=flux_scale,
        noise_scale=score.noise_scale,
        fwhm_science_px=seen[0].psf.fwhm_px,
        fwhm_reference_px=seen[1].psf.fwhm_px,
        algorithm=algorithm,
        why=why,
        unit=science.unit,
        assumed=_assumptions(science, reference, seen, noise, score),
        numbers=_numbers(seen, noise, match, matching, score, lost),
    )


def _joint_mask(
    science: Frame, reference: Frame, hidden: BoolImage, lost: BoolImage, fwhm: float
) -> NDArray[np.uint32]:
    mask = science.mask | reference.mask
    mask = mask | np.where(hidden, np.uint32(MaskBit.SATURATED), np.uint32(0))
    mask = mask | np.where(lost, np.uint32(MaskBit.INTERPOLATED), np.uint32(0))
    outside = (mask & np.uint32(MaskBit.NO_DATA)) != 0
    edge = int(np.ceil(EDGE_FWHM * fwhm))
    near = ndimage.binary_dilation(ndimage.binary_opening(outside, iterations=2), iterations=edge)
    near[:edge] = near[-edge:] = True
    near[:, :edge] = near[:, -edge:] = True
    return (mask | np.where(near, np.uint32(MaskBit.EDGE), np.uint32(0))).astype(np.uint32)


def _assumptions(
    science: Frame,
    reference: Frame,
    seen: tuple[_Measured, _Measured],
    noise: tuple[NoiseModel, ...],
    score: Score,
) -> tuple[str, ...]:
    said = [*science.assumed, *(s for s in reference.assumed if s not in science.assumed)]
    for name, measured, model in zip(("science", "reference"), seen, noise, strict=True):
        if measured.psf.model == "moffat":
            said.append(f"{name} frame: {measured.psf.why}")
        ratio = float(np.sqrt(model.variance_ratio))
        if abs(ratio - 1) > NOTEWORTHY_SIGMA_RATIO:
            said.append(
                f"{name} frame: the sky scatters {ratio:.3f} times what its variance says; the measured "
                "noise is used"
            )
        if not model.is_white:
            near = float(
                model.correlation[model.correlation.shape[0] // 2, model.correlation.shape[1] // 2 + 1]
            )
            said.append(
                f"{name} frame: its noise is correlated (neighbours {near:+.2f}); the measured "
                "correlation is used"
            )
    if abs(score.noise_scale - 1) > NOTEWORTHY_SIGMA_RATIO:
        said.append(
            f"the score scattered {score.noise_scale:.3f} on empty sky as its noise was propagated; it "
            "was divided by that"
        )
    return tuple(said)


def _numbers(
    seen: tuple[_Measured, _Measured],
    noise: tuple[NoiseModel, ...],
    match: PhotometricMatch,
    matching: Matching,
    score: Score,
    lost: BoolImage,
) -> dict[str, Number]:
    numbers: dict[str, Number] = {
        "background_science": seen[0].background.median,
        "background_reference": seen[1].background.median,
        "sky_rms_science": seen[0].background.rms_median,
        "sky_rms_reference": seen[1].background.rms_median,
        "psf_stars_science": seen[0].psf.n_stars,
        "psf_stars_reference": seen[1].psf.n_stars,
        "psf_order_science": seen[0].psf.order,
        "psf_order_reference": seen[1].psf.order,
        "match_sources": match.n_sources,
        "match_rejected": match.n_rejected,
        "match_order": match.order,
        "match_flux_scale": match.flux_scale,
        "flux_scale_error": match.flux_scale_error,
        "gain_scatter": match.gain_scatter,
        "astrometric_noise_x_px": match.astrometric_noise_px[0],
        "astrometric_noise_y_px": match.astrometric_noise_px[1],
        "largest_residual_shift_px": match.largest_shift_px,
        "variance_ratio_science": noise[0].variance_ratio,
        "variance_ratio_reference": noise[1].variance_ratio,
        "model_error": score.model_error,
        "score_scatter_at_stars": score.star_scatter,
        "sky_samples": score.n_sky_samples,
        "valid_fraction": 1 - float(lost.mean()),
    }
    if isinstance(matching, AlardLupton):
        numbers |= {
            "kernel_size_px": matching.terms.shape[-1],
            "kernel_order": matching.order,
            "kernel_sources": matching.n_sources,
            "kernel_rejected": matching.n_rejected,
            "kernel_chi2": matching.chi2,
            "kernel_convolves": matching.convolved,
        }
    return numbers


def _refuse_failure(
    result: Difference, seen: tuple[_Measured, _Measured], match: PhotometricMatch, limit: float
) -> None:
    """Raise when what is left at the matched sources holds too much of their power."""
    power = residual_power(result, seen[0].image, match.x, match.y)
    result.numbers["residual_power"] = power
    if power is not None and power > limit:
        msg = (
            f"{100 * power:.0f} % of the power of {match.n_sources} stars is left in the difference, "
            f"at most {100 * limit:.0f} % is accepted"
        )
        raise SubtractionRefused(msg, residual_power=power, limit=limit, sources=match.n_sources)


def residual_power(
    result: Difference, image: Float32Image, x: NDArray[np.float64], y: NDArray[np.float64]
) -> float | None:
    """Median over sources of (difference² - noise) / (science² - noise) within one FWHM; None without
    sources.
    """
    reach = max(2, int(np.ceil(result.fwhm_science_px)))
    offsets = np.arange(-reach, reach + 1)
    rows = np.clip(np.rint(y).astype(int)[:, None, None] + offsets[None, :, None], 0, image.shape[0] - 1)
    columns = np.clip(np.rint(x).astype(int)[:, None, None] + offsets[None, None, :], 0, image.shape[1] - 1)
    left = np.nansum(result.difference[rows, columns] ** 2 - result.variance[rows, columns], axis=(1, 2))
    had = np.sum(image[rows, columns].astype(np.float64) ** 2, axis=(1, 2))
    return float(max(np.median(left / had), 0.0)) if len(had) else None
