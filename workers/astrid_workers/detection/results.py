"""The sections of detection's results, with the keys that clients know.

Owns names and nesting; never measures (`metrics` does) and never reads a row.
"""

from datetime import datetime
from typing import Any

from astrid_workers.detection import metrics
from astrid_workers.found_detections import DetectionSet, FoundDetection

Section = dict[str, Any]

#: Most detections listed in a result, strongest first; rows and `n_detections` have all.
MOST_LISTED = 500


def inference_section(found: DetectionSet, at: datetime) -> Section:
    """What the model said. `matched-filter` sees no pixels: input size and threshold are null."""
    return {
        "difference_id": str(found.difference_id),
        "model_id": found.model_id,
        "detection_id": str(found.asked_id),
        "inference_parameters": {
            "model_version": found.model_version,
            "input_size": None,
            "batch_size": None,
            "confidence_threshold": None,
        },
        "detection_results": {
            "n_detections": len(found.detections),
            "detections": [_item(detection) for detection in found.detections[:MOST_LISTED]],
        },
        "model_metrics": {
            "inference_time": found.numbers.get("inference_s"),
            "gpu_memory_used": None,
            "cpu_usage": found.numbers.get("inference_cpu_percent"),
            "model_accuracy": None,
        },
        "processed_at": at.isoformat(),
    }


def _item(detection: FoundDetection) -> Section:
    return {
        "detection_id": str(detection.detection_id),
        "ra": detection.ra_deg,
        "dec": detection.dec_deg,
        "x": detection.x,
        "y": detection.y,
        "confidence": detection.confidence,
        "bbox": metrics.bounding_box(detection),
        "class": detection.label,
        "severity": detection.severity,
        "score": detection.score,
        "snr": detection.snr,
        "candidate_id": str(detection.candidate_id),
    }


def validation_section(found: DetectionSet, at: datetime) -> Section:
    """Distributions, consistency, and what was removed; passed when no check that could be made failed."""
    checks = _consistency(found)
    return {
        "detection_id": str(found.asked_id),
        "validation_passed": all(check is not False for check in checks.values()),
        "quality_checks": _quality(found),
        "consistency_checks": checks,
        "filtering_results": _filtering(found),
        "processed_at": at.isoformat(),
    }


def _consistency(found: DetectionSet) -> dict[str, bool | None]:
    return {
        "coordinate_validity": metrics.coordinates_are_valid(
            found.detections, found.width_px, found.height_px
        ),
        "bbox_validity": metrics.boxes_are_valid(found.detections),
        "confidence_range": metrics.confidences_are_valid(found.detections),
        "class_validity": metrics.labels_are_valid(found.detections),
    }


def _quality(found: DetectionSet) -> Section:
    detections = found.detections
    shape = (found.width_px, found.height_px)
    area = None if shape[0] is None or shape[1] is None else float(shape[0] * shape[1])
    sizes = [size for size in map(metrics.area_px, detections) if size is not None]
    return {
        "confidence_distribution": metrics.distribution(
            [d.confidence for d in detections if d.confidence is not None]
        ),
        "spatial_distribution": {
            "n_detections": len(detections),
            "density": metrics.density_per_mpix(len(detections), *shape),
            "clustering": metrics.clustering([d.x for d in detections], [d.y for d in detections], area),
        },
        "size_distribution": metrics.distribution(sizes, "_area"),
    }


def _filtering(found: DetectionSet) -> Section:
    """Of the whole run, also when one detection was asked for: a detection alone was never filtered."""
    judged, kept = found.numbers.get("candidates_judged"), found.numbers.get("candidates_kept")
    return {
        "original_count": judged,
        "filtered_count": kept,
        "removed_count": None if judged is None or kept is None else judged - kept,
        "removal_reasons": [
            f"{count} × {reason}" for reason, count in found.numbers.get("removed_because", {}).items()
        ],
    }


def metrics_section(found: DetectionSet, at: datetime) -> Section:
    """Times, resources and counts; precision, recall, F1 and AUC need truth and are null without it."""
    numbers = found.numbers
    return {
        "detection_id": str(found.asked_id),
        "performance_metrics": {"precision": None, "recall": None, "f1_score": None, "auc": None},
        "processing_metrics": {
            "total_processing_time": numbers.get("total_s"),
            "inference_time": numbers.get("inference_s"),
            "post_processing_time": numbers.get("load_s"),
            "validation_time": numbers.get("validation_s"),
        },
        "resource_metrics": {
            "peak_memory_usage": numbers.get("peak_rss_mb"),
            "average_cpu_usage": numbers.get("inference_cpu_percent"),
            "gpu_utilization": None,
            "io_operations": None,
        },
        "detection_statistics": {
            "total_detections": len(found.detections),
            **metrics.confidence_counts(found.detections),
            **metrics.label_counts(found.detections),
        },
        "processed_at": at.isoformat(),
    }


def storage_section(found: DetectionSet, storage_s: float | None, at: datetime) -> Section:
    """What the database and the artifact store hold of these detections; pictures come with curation."""
    pictures = [d.triplet_key for d in found.detections if d.triplet_key is not None]
    return {
        "detection_id": str(found.asked_id),
        "database_storage": {
            "detection_records_created": len(found.detections),
            "model_run_record_created": True,
            "metrics_stored": bool(found.numbers),
        },
        "cloud_storage": {
            "detection_images_stored": len(pictures),
            "confidence_maps_stored": 0,
            "metadata_stored": 0,
        },
        "storage_paths": {
            "detection_images": pictures[0].rsplit("/", 1)[0] + "/" if pictures else None,
            "confidence_maps": None,
            "metadata": None,
        },
        "storage_metadata": {
            "total_size": None,
            "compression_ratio": None,
            "storage_time": storage_s,
        },
        "processed_at": at.isoformat(),
    }
