"""The result keys that earlier clients rely on, in their nesting.

Owns the table as the contract with clients has it: a set is the keys of a mapping, a dict the keys with what stands
below them, a list with one item what stands in each item of a list. Never says anything about values.
"""

from typing import Any

AT = "processed_at"

CALIBRATION = {
    "observation_id": None,
    "calibration_applied": None,
    "bias_correction": {"applied", "bias_frame", "correction_factor"},
    "dark_correction": {"applied", "dark_frame", "exposure_time", "correction_factor"},
    "flat_correction": {"applied", "flat_frame", "normalization_factor"},
    AT: None,
}
ALIGNMENT = {
    "observation_id": None,
    "reference_id": None,
    "alignment_applied": None,
    "wcs_correction": {"applied", "ra_offset", "dec_offset", "rotation", "scale_factor"},
    "registration_quality": {"rms_error", "n_matched_stars", "correlation_coefficient"},
    AT: None,
}
QUALITY = {
    "observation_id": None,
    "overall_quality_score": None,
    "background_analysis": {"mean_background", "background_rms", "background_uniformity"},
    "noise_analysis": {"read_noise", "photon_noise", "total_noise", "snr_estimate"},
    "cosmic_ray_analysis": {"n_cosmic_rays", "cosmic_ray_fraction", "cleaned"},
    "flatness_analysis": {"flatness_rms", "flatness_quality"},
    "saturation_analysis": {"saturated_pixels", "saturation_fraction"},
    AT: None,
}
PREPROCESS = {
    "observation_id": None,
    "preprocess_run_id": None,
    "status": None,
    "calibration": CALIBRATION,
    "alignment": ALIGNMENT,
    "quality": QUALITY,
    "processing_triggered": None,
}
ALGORITHM = {
    "observation_id": None,
    "algorithm": None,
    "difference_id": None,
    "difference_image_path": None,
    "algorithm_parameters": {"kernel_size", "noise_threshold", "correlation_threshold"},
    "processing_metrics": {"processing_time", "memory_usage", "cpu_usage"},
    AT: None,
}
ZOGY_PARAMETERS = {
    "psf_observation",
    "psf_reference",
    "noise_observation",
    "noise_reference",
    "correlation_matrix",
}
CLASSIC_PARAMETERS = {"scaling_factor", "offset", "normalization"}
DIFFERENCE_VALIDATION = {
    "difference_id": None,
    "validation_passed": None,
    "quality_metrics": {"noise_level", "dynamic_range", "saturation_fraction", "artifact_count"},
    "statistical_metrics": {"mean", "std", "min", "max", "skewness", "kurtosis"},
    "spatial_metrics": {"spatial_correlation", "edge_preservation", "detail_retention"},
    AT: None,
}
EXTRACTION = {
    "difference_id": None,
    "source_count": None,
    "candidates": [
        {
            "candidate_id",
            "ra",
            "dec",
            "x",
            "y",
            "flux",
            "snr",
            "candidate_type",
            "score",
            "detection_threshold",
        }
    ],
    "extraction_parameters": {"detection_threshold", "min_area", "max_area", "deblend_threshold"},
    "quality_metrics": {"completeness", "reliability", "false_positive_rate"},
    AT: None,
}
DIFFERENCE = {
    "observation_id": None,
    "reference_id": None,
    "difference_run_id": None,
    "difference_id": None,
    "status": None,
    "algorithm": ALGORITHM,
    "validation": DIFFERENCE_VALIDATION,
    "extraction": EXTRACTION,
    "processing_triggered": None,
}
INFERENCE = {
    "difference_id": None,
    "model_id": None,
    "detection_id": None,
    "inference_parameters": {"model_version", "input_size", "batch_size", "confidence_threshold"},
    "detection_results": {
        "n_detections": None,
        "detections": [
            {"detection_id", "ra", "dec", "x", "y", "confidence", "bbox", "class", "severity"},
        ],
    },
    "model_metrics": {"inference_time", "gpu_memory_used", "cpu_usage", "model_accuracy"},
    AT: None,
}
DETECTION_VALIDATION = {
    "detection_id": None,
    "validation_passed": None,
    "quality_checks": {
        "confidence_distribution": {"mean", "std", "min", "max"},
        "spatial_distribution": {"n_detections", "density", "clustering"},
        "size_distribution": {"mean_area", "std_area", "min_area", "max_area"},
    },
    "consistency_checks": {"coordinate_validity", "bbox_validity", "confidence_range", "class_validity"},
    "filtering_results": {"original_count", "filtered_count", "removed_count", "removal_reasons"},
    AT: None,
}
DETECTION_METRICS = {
    "detection_id": None,
    "performance_metrics": {"precision", "recall", "f1_score", "auc"},
    "processing_metrics": {
        "total_processing_time",
        "inference_time",
        "post_processing_time",
        "validation_time",
    },
    "resource_metrics": {"peak_memory_usage", "average_cpu_usage", "gpu_utilization", "io_operations"},
    "detection_statistics": {
        "total_detections",
        "high_confidence",
        "medium_confidence",
        "low_confidence",
        "transient_detections",
        "variable_detections",
        "artifact_detections",
    },
    AT: None,
}
DETECTION_STORAGE = {
    "detection_id": None,
    "database_storage": {"detection_records_created", "model_run_record_created", "metrics_stored"},
    "cloud_storage": {"detection_images_stored", "confidence_maps_stored", "metadata_stored"},
    "storage_paths": {"detection_images", "confidence_maps", "metadata"},
    "storage_metadata": {"total_size", "compression_ratio", "storage_time"},
    AT: None,
}
DETECT = {
    "difference_id": None,
    "model_id": None,
    "detection_id": None,
    "status": None,
    "inference": INFERENCE,
    "validation": DETECTION_VALIDATION,
    "metrics": DETECTION_METRICS,
    "storage": DETECTION_STORAGE,
    "processing_triggered": None,
}
EVENTS = {
    "detection_id": None,
    "validation_events_created": None,
    "events": [{"event_id", "detection_id", "priority", "status", "assigned_to", "created_at"}],
    AT: None,
}
ALERTS = {
    "detection_id": None,
    "alerts_generated": None,
    "alerts": [
        {"alert_id", "detection_id", "alert_type", "severity", "message", "channels", "created_at"},
    ],
    AT: None,
}
INTERFACE = {
    "detection_id": None,
    "interface_data_prepared": None,
    "data": {
        "detection_images": None,
        "context_images": None,
        "metadata": {
            "observation_info": {"ra", "dec", "observation_time", "filter", "exposure_time"},
            "detection_info": {"model_version", "confidence_threshold", "processing_time"},
        },
        "validation_options": {"labels", "severity_levels", "notes_required"},
    },
    AT: None,
}
NOTIFICATIONS = {
    "detection_id": None,
    "notifications_sent": None,
    "channels": {
        "email": {"sent", "recipients", "subject"},
        "slack": {"sent", "channel", "message"},
        "dashboard": {"sent", "notification_type", "data"},
    },
    AT: None,
}
CURATE = {
    "detection_id": None,
    "status": None,
    "validation": EVENTS,
    "alerts": ALERTS,
    "interface": INTERFACE,
    "notifications": NOTIFICATIONS,
}
BATCH = {"total_processed", "successful", "failed", "results", "errors"}


def missing_keys(result: Any, shape: Any, path: str = "") -> list[str]:
    """Paths of the keys of `shape` that `result` lacks; a list that should have items and has none is a miss too."""
    if shape is None:
        return []
    if isinstance(shape, set):
        shape = dict.fromkeys(shape)
    if isinstance(shape, list):
        if not isinstance(result, list) or not result:
            return [f"{path}[]"]
        return [miss for item in result for miss in missing_keys(item, shape[0], f"{path}[]")]
    if not isinstance(result, dict):
        return [path]
    return [
        miss
        for key, below in shape.items()
        for miss in (
            [f"{path}.{key}"] if key not in result else missing_keys(result[key], below, f"{path}.{key}")
        )
    ]


def times_without_zone(result: Any, path: str = "") -> list[str]:
    """Paths of the values under `*_at` and `observation_time` that are not ISO 8601 with a zone."""
    if isinstance(result, dict):
        return [
            miss
            for key, value in result.items()
            for miss in (
                [f"{path}.{key}"]
                if (key.endswith("_at") or key == "observation_time") and not _has_zone(value)
                else times_without_zone(value, f"{path}.{key}")
            )
        ]
    if isinstance(result, list):
        return [miss for item in result for miss in times_without_zone(item, f"{path}[]")]
    return []


def _has_zone(value: Any) -> bool:
    from datetime import datetime

    return value is None or datetime.fromisoformat(value).tzinfo is not None
