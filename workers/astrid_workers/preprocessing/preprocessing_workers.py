"""The actors of preprocessing.

Owns names, queue and arguments as clients know them; each body loads, runs, saves and sends, and nothing
more.
"""

from typing import Any

from astrid_workers.batches import queue_each
from astrid_workers.broker import actor
from astrid_workers.mosaic_messages import passed_to_parts
from astrid_workers.pipeline import Stage
from astrid_workers.preprocessing import single_steps, stage


@actor(Stage.PREPROCESSING)
def preprocess_observation(observation_id: str) -> dict[str, Any]:
    """Calibrate an observation's frame, assess it, and hand it to differencing; of a mosaic each part."""
    if parts := passed_to_parts("preprocess_observation", Stage.PREPROCESSING, observation_id):
        return parts
    work = stage.load(observation_id)
    made = stage.run(work)
    result = stage.save(work, made)
    return stage.send(work, result)


@actor(Stage.PREPROCESSING)
def apply_calibration(observation_id: str, calibration_frames: dict[str, str]) -> dict[str, Any]:
    """Calibrate with the frames that are named, by address or observation; keeps the frame beside the
    usual.
    """
    return single_steps.answered(
        observation_id,
        lambda: single_steps.calibrated(single_steps.load_raw(observation_id, calibration_frames)),
    )


@actor(Stage.PREPROCESSING)
def align_observation(observation_id: str, reference_id: str | None = None) -> dict[str, Any]:
    """How an observation lies on a reference: the one that is named, or the one that suits best."""
    return single_steps.answered(
        observation_id, lambda: single_steps.aligned(single_steps.load_pair(observation_id, reference_id))
    )


@actor(Stage.PREPROCESSING)
def assess_quality(observation_id: str) -> dict[str, Any]:
    """How good an observation's calibrated frame is."""
    return single_steps.answered(
        observation_id, lambda: single_steps.assessed(single_steps.load_frame(observation_id))
    )


@actor(Stage.PREPROCESSING)
def batch_preprocess_observations(observation_ids: list[str]) -> dict[str, Any]:
    """One `preprocess_observation` message for each observation."""
    return queue_each(observation_ids, "observation_id", stage.queue_one)


@actor(Stage.PREPROCESSING)
def legacy_preprocess_observation(observation_id: str) -> dict[str, Any]:
    """Send the observation on to `preprocess_observation`."""
    return stage.forward(observation_id)
