"""The sections of differencing's results, with the keys that clients know.

Owns names and nesting; never measures and never reads a row. What clients of the earlier system look for
and this one does not measure is null.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from astrid_workers.differencing.products import Difference, Validation
from astrid_workers.metering import Cost

Section = dict[str, Any]

#: Most candidates listed in a result, strongest first; rows and `source_count` have all.
MOST_LISTED = 500


def nothing_to_do(observation_id: UUID, run_id: UUID, reference_id: UUID | None, reason: str) -> Section:
    """The whole result of a run that found nothing to do; the same keys, without sections."""
    return {
        "ending": "nothing_to_do",
        "reason": reason,
        "observation_id": str(observation_id),
        "reference_id": None if reference_id is None else str(reference_id),
        "difference_run_id": str(run_id),
        "difference_id": None,
        "status": "nothing_to_do",
        "algorithm": None,
        "validation": None,
        "extraction": None,
    }


def algorithm_section(
    observation_id: UUID,
    difference_id: UUID,
    difference_key: str,
    made: Difference,
    threshold_sigma: float,
    cost: Cost,
    at: datetime,
) -> Section:
    """Which algorithm ran, why, with what parameters and at what cost (seconds, MB, per cent of one core)."""
    return {
        "observation_id": str(observation_id),
        "algorithm": made.algorithm,
        "why": made.why,
        "difference_id": str(difference_id),
        "difference_image_path": difference_key,
        "algorithm_parameters": {
            "kernel_size": made.numbers.get("kernel_size_px"),
            "noise_threshold": threshold_sigma,
            "correlation_threshold": None,
        },
        "processing_metrics": {
            "processing_time": cost.seconds,
            "memory_usage": cost.peak_rss_mb,
            "cpu_usage": cost.cpu_percent,
        },
        "flux_scale": made.flux_scale,
        "noise_scale": made.noise_scale,
        "fwhm_science_px": made.fwhm_science_px,
        "fwhm_reference_px": made.fwhm_reference_px,
        "unit": made.unit,
        "processed_at": at.isoformat(),
        **_own_parameters(made),
    }


def _own_parameters(made: Difference) -> Section:
    """The block that belongs to the algorithm; widths of PSFs are FWHM in pixels."""
    if made.algorithm == "zogy":
        return {
            "zogy_parameters": {
                "psf_observation": made.fwhm_science_px,
                "psf_reference": made.fwhm_reference_px,
                "noise_observation": made.numbers.get("noise_science"),
                "noise_reference": made.numbers.get("noise_reference"),
                "correlation_matrix": None,
            }
        }
    return {
        "classic_parameters": {
            "scaling_factor": made.flux_scale,
            "offset": made.numbers.get("background_offset"),
            "normalization": None,
        }
    }


def validation_section(difference_id: UUID, checked: Validation, at: datetime) -> Section:
    """Whether the difference can be believed; statistics are those of the score on empty sky, in sigma."""
    return {
        "difference_id": str(difference_id),
        "validation_passed": checked.passed,
        "reasons": list(checked.reasons),
        "quality_metrics": {
            "noise_level": checked.noise_level,
            "dynamic_range": checked.dynamic_range,
            "saturation_fraction": checked.saturation_fraction,
            "artifact_count": checked.artifact_count,
            "valid_fraction": checked.valid_fraction,
            "residual_power": checked.residual_power,
        },
        "statistical_metrics": {
            "mean": checked.mean,
            "median": checked.median,
            "std": checked.std,
            "min": checked.minimum,
            "max": checked.maximum,
            "skewness": checked.skewness,
            "kurtosis": checked.kurtosis,
            "tail_ratio": checked.tail_ratio,
        },
        "spatial_metrics": {
            "spatial_correlation": checked.spatial_correlation,
            "edge_preservation": None,
            "detail_retention": None,
        },
        "processed_at": at.isoformat(),
    }


def extraction_section(
    difference_id: UUID,
    items: Sequence[Mapping[str, Any]],
    threshold_sigma: float | None,
    rejected: Mapping[str, int] | None,
    at: datetime,
) -> Section:
    """The candidates, strongest first.

    Completeness and its kin need injected truth and are null without it.
    """
    return {
        "difference_id": str(difference_id),
        "source_count": len(items),
        "candidates": [dict(item) for item in items[:MOST_LISTED]],
        "extraction_parameters": {
            "detection_threshold": threshold_sigma,
            "min_area": None,
            "max_area": None,
            "deblend_threshold": None,
        },
        "quality_metrics": {"completeness": None, "reliability": None, "false_positive_rate": None},
        "set_aside": None if rejected is None else dict(rejected),
        "processed_at": at.isoformat(),
    }
