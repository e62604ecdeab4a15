"""What is said of a subtraction: its masks, its numbers and its assumptions.

Owns names and sentences; never computes a score and never refuses anything.
"""

import numpy as np
from numpy.typing import NDArray

from astrid_workers.differencing.alard_lupton import AlardLupton
from astrid_workers.differencing.match_frames import Matched, Pair
from astrid_workers.differencing.products import Number
from astrid_workers.differencing.score import Score
from astrid_workers.frame import Frame
from astrid_workers.imaging.grow import grow
from astrid_workers.imaging.noise_model import NoiseModel
from astrid_workers.mask import MaskBit

BoolImage = NDArray[np.bool_]

#: A sigma that is off by more than this share is said to be.
NOTEWORTHY = 0.03
#: Width of the zone along the footprint's edge in which kernels miss light, in FWHM.
EDGE_FWHM = 1.5


def joint_mask(
    science: Frame, reference: Frame, hidden: BoolImage, lost: BoolImage, fwhm: float
) -> NDArray[np.uint32]:
    """Both frames' bits; SATURATED over what saturation hides, INTERPOLATED where filled, EDGE along the
    footprint.
    """
    mask = science.mask | reference.mask
    mask[hidden] |= np.uint32(MaskBit.SATURATED)
    mask[lost] |= np.uint32(MaskBit.INTERPOLATED)
    outside = (mask & np.uint32(MaskBit.NO_DATA)) != 0
    edge = int(np.ceil(EDGE_FWHM * fwhm))
    wide = ~grow(~outside, 2)  # lone pixels and columns have no edge
    near = grow(wide, edge + 2)
    near[:edge] = near[-edge:] = True
    near[:, :edge] = near[:, -edge:] = True
    mask[near] |= np.uint32(MaskBit.EDGE)
    return mask


def assumptions(
    science: Frame, reference: Frame, seen: Pair, matched: Matched, score: Score
) -> tuple[str, ...]:
    """What was assumed or estimated, one sentence each: the frames' own first."""
    said = [*science.assumed, *(s for s in reference.assumed if s not in science.assumed)]
    said += _about_filters(science, reference)
    for name, measured, noise in zip(("science", "reference"), seen, matched.noise, strict=True):
        if measured.psf.model in ("moffat", "kernel"):
            said.append(f"{name} frame: {measured.psf.why}")
        said += [f"{name} frame: {sentence}" for sentence in _about_noise(noise)]
    if abs(score.noise_scale - 1) > NOTEWORTHY:
        said.append(
            f"the score scattered {score.noise_scale:.3f} on empty sky as its noise was propagated; "
            "it was divided by that"
        )
    return tuple(said)


def _about_filters(science: Frame, reference: Frame) -> list[str]:
    """A sentence where the headers name two filters; names match literally."""
    ours, its = science.facts.filter_name, reference.facts.filter_name
    if ours is None or its is None or ours == its:
        return []
    return [
        f"the frames' filters differ, {ours} and the reference's {its}: stars of unusual colour leave light"
    ]


def _about_noise(noise: NoiseModel) -> list[str]:
    said = []
    ratio = float(np.sqrt(noise.variance_ratio))
    if abs(ratio - 1) > NOTEWORTHY:
        said.append(f"the sky scatters {ratio:.3f} times what its variance says; the measured noise is used")
    if not noise.is_white:
        lag = noise.correlation.shape[0] // 2
        across, down = float(noise.correlation[lag, lag + 1]), float(noise.correlation[lag + 1, lag])
        said.append(
            f"the noise of neighbouring pixels is correlated ({across:+.2f} along x, {down:+.2f} along y); "
            "the measured correlation is used"
        )
    return said


def numbers(seen: Pair, matched: Matched, score: Score, lost: BoolImage) -> dict[str, Number]:
    """Everything that was measured on the way, by name."""
    match = matched.match
    found: dict[str, Number] = {
        "background_science": seen[0].background.median,
        "background_reference": seen[1].background.median,
        "noise_science": seen[0].background.rms_median,
        "noise_reference": seen[1].background.rms_median,
        "background_offset": float(np.median(score.background[::7, ::7])),
        "psf_stars_science": seen[0].psf.n_stars,
        "psf_stars_reference": seen[1].psf.n_stars,
        "psf_model_science": seen[0].psf.model,
        "psf_model_reference": seen[1].psf.model,
        "psf_order_science": seen[0].psf.order,
        "psf_order_reference": seen[1].psf.order,
        "psf_light_beyond_science": seen[0].psf.light_beyond,
        "psf_light_beyond_reference": seen[1].psf.light_beyond,
        "match_sources": match.n_sources,
        "match_rejected": match.n_rejected,
        "match_order": match.order,
        "match_flux_scale": match.flux_scale,
        "flux_scale_error": match.flux_scale_error,
        "gain_scatter": match.gain_scatter,
        "astrometric_noise_x_px": match.astrometric_noise_px[0],
        "astrometric_noise_y_px": match.astrometric_noise_px[1],
        "largest_residual_shift_px": match.largest_shift_px,
        "variance_ratio_science": matched.noise[0].variance_ratio,
        "variance_ratio_reference": matched.noise[1].variance_ratio,
        "model_error": score.model_error,
        "wing_error": score.wing_error,
        "score_scatter_at_stars": score.star_scatter,
        "sky_samples": score.n_sky_samples,
        "valid_fraction": 1 - float(lost.mean()),
    }
    if isinstance(matched.matching, AlardLupton):
        found |= _kernel_numbers(matched.matching)
    return found


def _kernel_numbers(kernel: AlardLupton) -> dict[str, Number]:
    return {
        "kernel_size_px": kernel.terms.shape[-1],
        "kernel_order": kernel.order,
        "kernel_sources": kernel.n_sources,
        "kernel_rejected": kernel.n_rejected,
        "kernel_chi2": kernel.chi2,
        "kernel_overfit": kernel.overfit,
        "kernel_convolves": kernel.convolved,
    }
