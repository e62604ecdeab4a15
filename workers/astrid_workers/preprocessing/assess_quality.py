"""How good one frame is, in numbers.

Owns what is measured of a frame before it is used; never changes it. What cannot be measured is None.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from astrid_workers.frame import Frame
from astrid_workers.imaging.background import FEWEST_PIXELS, Background
from astrid_workers.imaging.cosmic_rays import find_cosmic_rays
from astrid_workers.imaging.known_sky import background_of
from astrid_workers.imaging.measured_frame import grown
from astrid_workers.imaging.noise import pixel_noise
from astrid_workers.imaging.stars import Stars, find_stars, frame_fwhm_px
from astrid_workers.mask import UNUSABLE, MaskBit
from astrid_workers.preprocessing.calibrate import count_groups

#: Sigmas of a point source at the limiting magnitude.
LIMIT_SIGMA = 5.0
#: Sky level, in sigmas of a pixel, below which the sky was subtracted and its evenness means nothing.
SKY_SIGMA = 3.0
#: Relative unevenness of the sky at which `flatness_quality` reaches 0.
WORST_FLATNESS = 0.1


@dataclass(frozen=True, slots=True)
class Quality:
    """Measured facts of one frame, in its unit and pixels; None where something could not be measured."""

    #: usable_fraction × (1 − ellipticity) × background_uniformity (left out where the sky was subtracted), 0
    #: … 1; None without clean stars.
    overall_quality_score: float | None
    #: Share of pixels without a bit that makes them unusable.
    usable_fraction: float
    #: Mean level of the sky, and the scatter of a pixel of blank sky.
    mean_background: float | None
    background_rms: float | None
    #: 1 − (95th − 5th percentile of the sky level) / its median, at least 0.
    background_uniformity: float | None
    #: From the header, in electrons.
    read_noise: float | None
    #: √(total² − read²): what the sky's photons account for; electrons.
    photon_noise: float | None
    #: Noise of a pixel from differences between neighbours.
    total_noise: float | None
    #: Median S/N of the clean stars.
    snr_estimate: float | None
    #: Groups of pixels sharper than a star, masked or not.
    n_cosmic_rays: int | None
    cosmic_ray_fraction: float | None
    #: Whether every group is masked, but for pixels at its rim.
    cosmic_rays_cleaned: bool | None
    #: Scatter of the sky level over the frame, relative to its median, and 1 − that / 0.1, at least 0.
    flatness_rms: float | None
    flatness_quality: float | None
    #: Against the header's level only; None when the header has none.
    saturated_pixels: int | None
    saturation_fraction: float | None
    n_stars: int
    fwhm_px: float | None
    fwhm_arcsec: float | None
    #: Median 1 − b/a of the clean stars.
    ellipticity: float | None
    #: Magnitude of a 5-sigma point source; None without a zero point or stars.
    limiting_magnitude: float | None


def assess_quality(frame: Frame) -> Quality:
    """Measure `frame`; its arrays are not changed. A frame without usable pixels gives None almost
    everywhere.
    """
    usable: NDArray[np.bool_] = (frame.mask & np.uint32(UNUSABLE)) == 0
    fraction = float(np.count_nonzero(usable) / usable.size)
    if np.count_nonzero(usable) < FEWEST_PIXELS or min(frame.shape) < 16:
        return _unmeasured(frame, fraction)
    sky = background_of(frame, ~usable)
    stars = find_stars(frame.science, sky, frame.mask)
    clean = stars.only(stars.clean)
    fwhm = _measured(frame_fwhm_px(stars))
    ellipticity = _measured(float(np.median(clean.ellipticity))) if len(clean) else None
    uniformity, flatness = _evenness(sky)
    rays, ray_pixels, cleaned = _cosmic_rays(frame, usable, fwhm)
    total = _measured(pixel_noise(frame.science, usable & ~sky.sources))
    saturated = _saturated(frame)
    scale = frame.facts.pixel_scale_arcsec
    return Quality(
        overall_quality_score=_score(fraction, ellipticity, uniformity),
        usable_fraction=fraction,
        mean_background=float(np.mean(sky.level)),
        background_rms=sky.rms_median,
        background_uniformity=uniformity,
        read_noise=frame.facts.read_noise_e,
        photon_noise=_photon_noise(frame, sky.rms_median),
        total_noise=total,
        snr_estimate=float(np.median(clean.snr)) if len(clean) else None,
        n_cosmic_rays=rays,
        cosmic_ray_fraction=None if ray_pixels is None else ray_pixels / usable.size,
        cosmic_rays_cleaned=cleaned,
        flatness_rms=flatness,
        flatness_quality=None if flatness is None else max(0.0, 1 - flatness / WORST_FLATNESS),
        saturated_pixels=saturated,
        saturation_fraction=None if saturated is None else saturated / usable.size,
        n_stars=len(clean),
        fwhm_px=fwhm,
        fwhm_arcsec=None if fwhm is None or scale is None else fwhm * scale,
        ellipticity=ellipticity,
        limiting_magnitude=_limiting_magnitude(frame, sky, clean, fwhm),
    )


def _unmeasured(frame: Frame, fraction: float) -> Quality:
    saturated = _saturated(frame)
    return Quality(
        overall_quality_score=None,
        usable_fraction=fraction,
        mean_background=None,
        background_rms=None,
        background_uniformity=None,
        read_noise=frame.facts.read_noise_e,
        photon_noise=None,
        total_noise=None,
        snr_estimate=None,
        n_cosmic_rays=None,
        cosmic_ray_fraction=None,
        cosmic_rays_cleaned=None,
        flatness_rms=None,
        flatness_quality=None,
        saturated_pixels=saturated,
        saturation_fraction=None if saturated is None else saturated / frame.mask.size,
        n_stars=0,
        fwhm_px=None,
        fwhm_arcsec=None,
        ellipticity=None,
        limiting_magnitude=None,
    )


def _measured(value: float) -> float | None:
    return value if np.isfinite(value) else None


def _score(usable_fraction: float, ellipticity: float | None, uniformity: float | None) -> float | None:
    if ellipticity is None:
        return None
    return usable_fraction * (1 - ellipticity) * (1.0 if uniformity is None else uniformity)


def _evenness(sky: Background) -> tuple[float | None, float | None]:
    """Uniformity and relative scatter of the sky level; None for a frame whose sky was subtracted."""
    if sky.median < SKY_SIGMA * sky.rms_median:
        return None, None
    low, high = np.percentile(sky.level[::8, ::8], [5, 95])
    return max(0.0, 1 - float(high - low) / sky.median), float(np.std(sky.level)) / sky.median


def _photon_noise(frame: Frame, rms: float) -> float | None:
    read = frame.facts.read_noise_e
    if frame.unit != "electron" or read is None:
        return None
    return float(np.sqrt(max(rms**2 - read**2, 0.0)))


def _cosmic_rays(
    frame: Frame, usable: NDArray[np.bool_], fwhm_px: float | None
) -> tuple[int | None, int | None, bool | None]:
    """Groups, pixels, and whether all are masked."""
    if fwhm_px is None:
        return None, None, None
    known: NDArray[np.bool_] = (frame.mask & np.uint32(MaskBit.COSMIC_RAY)) != 0
    missed = find_cosmic_rays(frame.science, frame.variance, fwhm_px, unusable=~usable)
    every = known | missed
    groups = count_groups(grown(every, 1))
    return groups, int(np.count_nonzero(every)), groups == count_groups(grown(known, 1))


def _saturated(frame: Frame) -> int | None:
    """Pixels at or above the header's level."""
    level = frame.facts.saturation
    if level is None:
        return None
    measured = (frame.mask & np.uint32(MaskBit.NO_DATA)) == 0
    return int(np.count_nonzero(measured & (frame.science >= np.float32(level) * np.float32(1 - 1e-6))))


def _limiting_magnitude(frame: Frame, sky: Background, clean: Stars, fwhm_px: float | None) -> float | None:
    """Zero point − 2.5 log10 of five times the noise of a Gaussian matched filter."""
    zero_point = frame.facts.zero_point_mag
    if zero_point is None or fwhm_px is None or len(clean) == 0:
        return None
    sigma = fwhm_px / 2.354820045
    flux = LIMIT_SIGMA * sky.rms_median * np.sqrt(4 * np.pi) * sigma
    return float(zero_point - 2.5 * np.log10(flux))
