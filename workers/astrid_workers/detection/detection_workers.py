"""The actors of detection.

Owns names, queue and arguments as clients know them; each body loads, runs, saves and sends, and nothing
more.
"""

from typing import Any

from astrid_workers.batches import queue_each
from astrid_workers.broker import actor
from astrid_workers.detection import stage
from astrid_workers.mosaic_messages import passed_to_parts
from astrid_workers.pipeline import Stage


@actor(Stage.DETECTION)
def detect_anomalies(difference_id: str, model_id: str) -> dict[str, Any]:
    """Judge the candidates of a difference and hand the detections to curation."""
    work = stage.load(difference_id, model_id)
    classified = stage.run(work)
    result = stage.save(work, classified)
    return stage.send(result)


@actor(Stage.DETECTION)
def run_ml_inference(difference_id: str, model_id: str) -> dict[str, Any]:
    """The same, without the hand-over: answers with what the model said."""
    work = stage.load(difference_id, model_id)
    classified = stage.run(work)
    return stage.section_of(stage.save(work, classified), "inference")


@actor(Stage.DETECTION)
def validate_detections(detection_id: str) -> dict[str, Any]:
    """Distributions and consistency of a run's detections, or of one."""
    return stage.validation_of(stage.find(detection_id))


@actor(Stage.DETECTION)
def calculate_detection_metrics(detection_id: str) -> dict[str, Any]:
    """Times, resources and counts of a run's detections, or of one."""
    return stage.metrics_of(stage.find(detection_id))


@actor(Stage.DETECTION)
def store_detection_results(detection_id: str) -> dict[str, Any]:
    """What is stored of a run's detections, or of one; detections are stored when they are made."""
    return stage.storage_of(stage.find(detection_id))


@actor(Stage.DETECTION)
def batch_detect_anomalies(difference_ids: list[str], model_id: str) -> dict[str, Any]:
    """One `detect_anomalies` message for each difference."""
    return queue_each(difference_ids, "difference_id", lambda each: stage.queue_one(each, model_id))


@actor(Stage.DETECTION)
def legacy_infer_detections(observation_id: str) -> dict[str, Any]:
    """Judge the newest difference of an observation with the configured model."""
    if parts := passed_to_parts("legacy_infer_detections", Stage.DETECTION, observation_id):
        return parts
    return stage.forward_newest(observation_id)
