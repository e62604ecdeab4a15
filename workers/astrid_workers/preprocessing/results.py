"""The sections of preprocessing's results, with the keys that clients know.

Owns names and nesting; never measures and never reads a row. What was not measured is null.
"""

from datetime import datetime
from typing import Any
from uuid import UUID

from astrid_workers.imaging.align import Registration
from astrid_workers.metering import Cost
from astrid_workers.preprocessing.assess_quality import Quality
from astrid_workers.preprocessing.calibrate import Calibrated, CalibrationStep

Section = dict[str, Any]


def nothing_to_do(observation_id: UUID, run_id: UUID, status: str, reason: str) -> Section:
    """The whole result of a run that found nothing to do; the same keys, without sections."""
    return {
        "ending": "nothing_to_do",
        "reason": reason,
        "observation_id": str(observation_id),
        "preprocess_run_id": str(run_id),
        "status": status,
        "calibration": None,
        "alignment": None,
        "quality": None,
    }


def calibration_section(observation_id: UUID, made: Calibrated, at: datetime) -> Section:
    """Which corrections were made, with which frames and factors; units as `CalibrationStep` has them."""
    bias, dark, flat = made.bias, made.dark, made.flat
    return {
        "observation_id": str(observation_id),
        "calibration_applied": made.calibration_applied,
        "bias_correction": {
            "applied": bias.applied,
            "bias_frame": bias.frame_name,
            "correction_factor": bias.factor,
        },
        "dark_correction": {
            "applied": dark.applied,
            "dark_frame": dark.frame_name,
            "exposure_time": dark.exposure_s,
            "correction_factor": dark.factor,
        },
        "flat_correction": _flat(flat),
        "processed_at": at.isoformat(),
    }


def _flat(flat: CalibrationStep) -> Section:
    return {"applied": flat.applied, "flat_frame": flat.frame_name, "normalization_factor": flat.factor}


def alignment_section(
    observation_id: UUID,
    reference_id: UUID | None,
    found: Registration | None,
    pixel_scale_arcsec: float | None,
    reason: str | None,
    at: datetime,
) -> Section:
    """How the frame lies on a reference: what differencing moves the reference by; nothing is moved here.

    Offsets are arcseconds on the sky by which the reference's header is off (null without a WCS), the
    rotation is in degrees; `rms_error` is in arcseconds where the pixel scale is known, with pixels
    beside it.
    """
    return {
        "observation_id": str(observation_id),
        "reference_id": None if reference_id is None else str(reference_id),
        "alignment_applied": found is not None,
        "reason": reason,
        "wcs_correction": {
            "applied": found is not None and found.model != "none",
            "ra_offset": None if found is None else found.ra_offset_arcsec,
            "dec_offset": None if found is None else found.dec_offset_arcsec,
            "rotation": None if found is None else found.rotation_deg,
            "scale_factor": None if found is None else found.scale,
            "dx_px": None if found is None else found.dx,
            "dy_px": None if found is None else found.dy,
            "mirrored": None if found is None else found.is_mirrored,
            "method": None if found is None else found.method,
        },
        "registration_quality": _registration_quality(found, pixel_scale_arcsec),
        "processed_at": at.isoformat(),
    }


def _registration_quality(found: Registration | None, pixel_scale_arcsec: float | None) -> Section:
    rms_px = None if found is None else found.rms_px
    return {
        "rms_error": None if rms_px is None or pixel_scale_arcsec is None else rms_px * pixel_scale_arcsec,
        "rms_px": rms_px,
        "n_matched_stars": None if found is None else found.n_matched,
        "correlation_coefficient": None if found is None else found.correlation,
        "overlap_fraction": None if found is None else found.overlap_fraction,
    }


def quality_section(observation_id: UUID, measured: Quality, unit: str, at: datetime) -> Section:
    """How good the frame is; levels and noise in `unit` per pixel, widths in pixels and arcseconds."""
    return {
        "observation_id": str(observation_id),
        "overall_quality_score": measured.overall_quality_score,
        "background_analysis": {
            "mean_background": measured.mean_background,
            "background_rms": measured.background_rms,
            "background_uniformity": measured.background_uniformity,
        },
        "noise_analysis": {
            "read_noise": measured.read_noise,
            "photon_noise": measured.photon_noise,
            "total_noise": measured.total_noise,
            "snr_estimate": measured.snr_estimate,
        },
        "cosmic_ray_analysis": {
            "n_cosmic_rays": measured.n_cosmic_rays,
            "cosmic_ray_fraction": measured.cosmic_ray_fraction,
            "cleaned": measured.cosmic_rays_cleaned,
        },
        "flatness_analysis": {
            "flatness_rms": measured.flatness_rms,
            "flatness_quality": measured.flatness_quality,
        },
        "saturation_analysis": {
            "saturated_pixels": measured.saturated_pixels,
            "saturation_fraction": measured.saturation_fraction,
        },
        "star_analysis": {
            "n_stars": measured.n_stars,
            "fwhm_px": measured.fwhm_px,
            "fwhm_arcsec": measured.fwhm_arcsec,
            "ellipticity": measured.ellipticity,
        },
        "limiting_magnitude": measured.limiting_magnitude,
        "usable_fraction": measured.usable_fraction,
        "unit": unit,
        "processed_at": at.isoformat(),
    }


def run_numbers(measured: Quality, cost: Cost) -> dict[str, Any]:
    """What the run's row keeps beside its result."""
    return {
        "seconds": cost.seconds,
        "peak_rss_mb": cost.peak_rss_mb,
        "fwhm_px": measured.fwhm_px,
        "background_rms": measured.background_rms,
        "n_stars": measured.n_stars,
        "n_cosmic_rays": measured.n_cosmic_rays,
        "limiting_magnitude": measured.limiting_magnitude,
    }
