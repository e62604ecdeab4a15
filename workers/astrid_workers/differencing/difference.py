"""Science minus reference: the one function behind which every algorithm stands.

Owns the order of the steps and what is refused; never aligns, reads or writes a frame.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from astrid_workers.differencing.account import assumptions, joint_mask, numbers
from astrid_workers.differencing.alard_lupton import AlardLupton
from astrid_workers.differencing.carried_psf import with_carried_psf
from astrid_workers.differencing.fourier_kernels import Matching
from astrid_workers.differencing.match_frames import (
    Matched,
    Pair,
    level_on_common_sky,
    match_frames,
    match_places,
    with_steady_stars,
)
from astrid_workers.differencing.measure import Sky, measure_frame, structured_sky_of
from astrid_workers.differencing.products import Difference, DifferenceOptions
from astrid_workers.differencing.saturated import measure_around, take_off_saturated
from astrid_workers.differencing.score import Score, make_score
from astrid_workers.differencing.spiked import spikes_of
from astrid_workers.differencing.streaked import Streaked, measure_on_streaks, take_off_streaks
from astrid_workers.differencing.tiles import Prepared, Subtracted, plan_tiles, subtract
from astrid_workers.errors import SubtractionRefused
from astrid_workers.frame import Float32Image, Frame
from astrid_workers.imaging.inpaint import fill_pair
from astrid_workers.imaging.out_of_core import empty_plane, let_go, set_aside
from astrid_workers.imaging.photometric_match import PhotometricMatch, are_told_by_stars, constant_sources
from astrid_workers.imaging.psf import SIGMA_PER_FWHM
from astrid_workers.imaging.stars import Stars
from astrid_workers.mask import UNUSABLE, MaskBit

BoolImage = NDArray[np.bool_]
Floats = NDArray[np.float64]
Progress = Callable[[str, float], None]

__all__ = ["Difference", "DifferenceOptions", "difference"]

#: Least share of the frame that both frames must have measured.
MIN_VALID_FRACTION = 0.05
#: Noise left on empty sky over that of both frames, below which they are not two exposures.
LEAST_NOISE_SCALE = 0.3
#: Empty sky is sampled at least this far from the frame's edge, in FWHM: beyond, kernels reach over it.
SKY_EDGE_FWHM = 2.0


def difference(
    science: Frame,
    reference: Frame,
    *,
    options: DifferenceOptions | None = None,
    progress: Progress | None = None,
    science_sky: Sky | None = None,
    reference_stars: Stars | None = None,
) -> Difference:
    """Subtract `reference`, which lies on the grid of `science`, and score what is left.

    Neither frame needs its background subtracted. Masked pixels are filled before any transform and NaN in
    the result. `progress` is told a step and the share of the work done. `science_sky` and `reference_stars`
    (on the science grid) save measuring them again. Raises `SubtractionRefused` with the numbers when the
    frames cannot be matched or when what is left at stars says that the match failed.
    """
    options = options or DifferenceOptions()
    tell = progress or (lambda _step, _share: None)
    _check(science, reference)
    tell("measure the frames", 0.0)
    first = measure_frame(science, options, sky=science_sky)
    set_aside(science, reference)
    seen = _alike(
        (science, reference), (first, measure_frame(reference, options, stars=reference_stars)), options
    )
    del first
    set_aside(science, reference)
    seen = with_steady_stars(seen, options)
    level_on_common_sky(seen)
    tell("match the frames", 0.35)
    matched = match_frames(seen, options)
    # from here on the corrected variances stand for the frames', and soon the images without wings for theirs
    seen = (seen[0].with_variance(matched.variance[0]), seen[1].with_variance(matched.variance[1]))
    seen = _with_carried_psf(seen, matched.matching)
    tell("fill masked pixels", 0.5)
    light = power_at(seen[0].image, matched.match.x, matched.match.y, seen[0].psf.fwhm_px)
    saturated = take_off_saturated(science, reference, seen)
    hidden = saturated.hidden
    set_aside(science, reference)
    holes = (seen[0].unusable | hidden, seen[1].unusable | hidden)
    seen = (seen[0].without_planes(), seen[1].without_planes())
    streaked = take_off_streaks((saturated.science, saturated.reference), seen, holes)
    saturated = saturated.without_images()
    pair = _prepare(seen, matched, streaked, hidden, holes)
    matched, streaked = matched.without_variance(), streaked.without_images()
    del holes
    grid = plan_tiles(science.shape, pair.psf_science.size_px // 2, options.tile_px)
    parts = subtract(pair, matched.matching, grid, lambda share: tell("subtract", 0.55 + 0.35 * share))
    tell("score", 0.9)
    sky = pair.sky
    let_go(parts.difference, parts.variance)
    del pair  # its filled images are not needed any more
    score = make_score(
        parts,
        sky & _inside(science.shape, _broader(seen)),
        stars=_constant_sources(matched.match),
        others=_other_sources(matched.match),
        bright=match_places(seen),
        bad=matched.bad | hidden,
        fwhm_px=_broader(seen),
        overfit=getattr(matched.matching, "overfit", 1.0),
        are_constant=are_told_by_stars(matched.match.is_star),
    )
    let_go(parts.response, parts.score_variance)
    around = measure_around(score, saturated, matched.bad | hidden, _broader(seen))
    on_streaks = measure_on_streaks(score, streaked, matched.bad | hidden, _broader(seen))
    hidden = hidden | around.hidden
    spikes = spikes_of(score, (science, reference), saturated, matched.bad | hidden, _broader(seen))
    result = _assemble(science, reference, seen, matched, hidden, parts, score, streaked.sentences())
    set_aside(science, reference)
    if any(streaked.streaks):
        result.mask[streaked.tracks(science.shape, _broader(seen))] |= np.uint32(MaskBit.STREAK)
    result.numbers.update(streaked.numbers(), noise_factor_on_streaks=on_streaks)
    result.numbers["saturated_stars"] = len(saturated.stars)
    result.numbers["saturated_stars_taken_off"] = saturated.n_fitted
    result.numbers["noise_factor_at_saturated"] = around.noise_factor
    result.numbers["saturated_stars_with_halo"] = around.n_halos
    result.numbers["pattern_of_saturated_px"] = around.pattern_px
    result.numbers["spikes"] = len(spikes)
    result.mask[around.stray_light] |= np.uint32(MaskBit.STRAY_LIGHT)
    for ray in spikes:
        result.mask[ray.pixels(science.shape)] |= np.uint32(MaskBit.STRAY_LIGHT)
    _refuse_failure(result, light, matched, options.max_residual_power)
    tell("score", 1.0)
    return result


def _alike(frames: tuple[Frame, Frame], seen: Pair, options: DifferenceOptions) -> Pair:
    """Both skies measured as ones with structure where one is: else its light, which both share, would be
    taken off one frame alone.
    """
    structured = [each.background.is_structured for each in seen]
    if structured[0] == structured[1]:
        return seen
    plain = structured.index(False)
    frame = frames[plain]
    again = measure_frame(frame, options, sky=structured_sky_of(frame, options))
    return (again, seen[1]) if plain == 0 else (seen[0], again)


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


def _broader(seen: Pair) -> float:
    return max(seen[0].psf.fwhm_px, seen[1].psf.fwhm_px)


def _constant_sources(match: PhotometricMatch) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """x and y of the matched sources that tell how wrong the models are."""
    chosen = constant_sources(match.is_star)
    return match.x[chosen], match.y[chosen]


def _other_sources(match: PhotometricMatch) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """x and y of the matched sources that may hold what changed: galaxies, blends."""
    chosen = ~constant_sources(match.is_star)
    return match.x[chosen], match.y[chosen]


def _with_carried_psf(seen: Pair, matching: Matching) -> Pair:
    """The frames, with the PSF of the science frame through the kernel where the reference is convolved.

    Where the science frame is, its own goes through the kernel anyhow.
    """
    science, reference = seen
    if not isinstance(matching, AlardLupton) or matching.convolved == "science":
        return seen
    return science.with_psf(with_carried_psf(science.psf, reference.psf, matching)), reference


def _prepare(
    seen: Pair,
    matched: Matched,
    streaked: Streaked,
    hidden: BoolImage,
    holes: tuple[BoolImage, BoolImage],
) -> Prepared:
    """Both frames with their holes filled; the sharper one is blurred where it lends pixels to the other."""
    squares = seen[0].psf.fwhm_px ** 2 - seen[1].psf.fwhm_px ** 2
    blur = float(np.sign(squares) * np.sqrt(abs(squares)) * SIGMA_PER_FWHM)
    science, reference = fill_pair(
        streaked.science, streaked.reference, holes, matched.match.flux_scale, blur
    )
    return Prepared(
        science,
        reference,
        matched.variance[0],
        matched.variance[1],
        matched.sky & ~hidden,
        matched.noise[0],
        matched.noise[1],
        seen[0].psf,
        seen[1].psf,
        matched.match.astrometric_noise_px,
    )


def _inside(shape: tuple[int, int], fwhm: float) -> BoolImage:
    edge = int(np.ceil(SKY_EDGE_FWHM * fwhm))
    inside = np.zeros(shape, bool)
    inside[edge:-edge, edge:-edge] = True
    return inside


def _assemble(
    science: Frame,
    reference: Frame,
    seen: Pair,
    matched: Matched,
    hidden: BoolImage,
    parts: Subtracted,
    score: Score,
    said: list[str],
) -> Difference:
    """Masks applied, in place where nobody needs what they hide; numbers gathered."""
    lost = matched.bad | hidden
    nan = np.float32(np.nan)
    found = numbers(seen, matched, score, lost)
    np.subtract(parts.difference, score.background, out=parts.difference)
    masked = empty_plane(science.shape)
    np.copyto(masked, score.score)
    for plane in (parts.difference, parts.variance, score.flux_error, masked):
        plane[lost] = nan
    let_go(parts.difference, parts.variance, score.flux_error, masked, score.score, score.subtracted_light)
    return Difference(
        difference=parts.difference,
        score=masked,
        variance=parts.variance,
        flux_error=score.flux_error,
        mask=joint_mask(science, reference, hidden, lost, _broader(seen)),
        unmasked_score=score.score,
        subtracted_light=score.subtracted_light,
        kernels=parts.kernels,
        psf_science=seen[0].psf,
        psf_reference=seen[1].psf,
        psf=parts.kernels.at(science.shape[1] / 2, science.shape[0] / 2)[0],
        # of all the light of a source, where frames were matched on what lies on stamps
        flux_scale=matched.flux_scale * seen[1].psf.light_within / seen[0].psf.light_within,
        noise_scale=score.noise_scale,
        fwhm_science_px=seen[0].psf.fwhm_px,
        fwhm_reference_px=seen[1].psf.fwhm_px,
        algorithm=matched.algorithm,
        why=matched.why,
        unit=science.unit,
        assumed=(*assumptions(science, reference, seen, matched, score), *said),
        match=matched.match,
        numbers=found,
        noise_science=matched.noise[0],
        noise_reference=matched.noise[1],
    )


def _refuse_failure(result: Difference, light: Floats, matched: Matched, limit: float) -> None:
    """Raise when no pixel has a score, the frames are the same exposure, or too much of the matched sources'
    power, `light`, is left.
    """
    if not np.isfinite(result.score).any():
        msg = f"none of {result.score.size} pixels has a score that is a number: the subtraction failed"
        raise SubtractionRefused(msg, pixels=result.score.size)
    if result.noise_scale < LEAST_NOISE_SCALE:
        msg = (
            f"what is left on empty sky is {result.noise_scale:.2g} of both frames' noise, at least "
            f"{LEAST_NOISE_SCALE:g} is accepted: the frames share it, as if one were part of the other"
        )
        raise SubtractionRefused(msg, noise_scale=result.noise_scale, limit=LEAST_NOISE_SCALE)
    power = residual_power(result, light, matched.match.x, matched.match.y)
    result.numbers["residual_power"] = power
    if power is not None and power > limit:
        msg = (
            f"{100 * power:.0f} % of the power of {matched.match.n_sources} stars is left in the difference, "
            f"at most {100 * limit:.0f} % is accepted"
        )
        raise SubtractionRefused(msg, residual_power=power, limit=limit, sources=matched.match.n_sources)


def power_at(image: Float32Image, x: Floats, y: Floats, fwhm_px: float) -> Floats:
    """Sum of squares of a background-subtracted image within one FWHM of each place (a square)."""
    rows, columns = _around(x, y, fwhm_px, image.shape)
    return np.asarray(np.sum(image[rows, columns].astype(np.float64) ** 2, axis=(1, 2)))


def residual_power(result: Difference, light: Floats, x: Floats, y: Floats) -> float | None:
    """Median over sources of (difference² − noise) within one FWHM over the science's power there, `light`;
    None without sources.
    """
    rows, columns = _around(x, y, result.fwhm_science_px, result.shape)
    left = np.nansum(result.difference[rows, columns] ** 2 - result.variance[rows, columns], axis=(1, 2))
    return float(max(np.median(left / light), 0.0)) if len(light) else None


def _around(
    x: Floats, y: Floats, fwhm_px: float, shape: tuple[int, ...]
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Rows `(n, side, 1)` and columns `(n, 1, side)` of squares about places, clipped to the frame."""
    reach = max(2, int(np.ceil(fwhm_px)))
    offsets = np.arange(-reach, reach + 1)
    rows = np.clip(np.rint(y).astype(int)[:, None, None] + offsets[None, :, None], 0, shape[0] - 1)
    columns = np.clip(np.rint(x).astype(int)[:, None, None] + offsets[None, None, :], 0, shape[1] - 1)
    return rows, columns
