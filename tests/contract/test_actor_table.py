"""The names, queues and arguments that earlier clients rely on."""

import importlib
import inspect

import pytest

#: queue → actor → parameter names; those with "=" have a default.
ACTORS: dict[str, dict[str, list[str]]] = {
    "observation_ingestion": {
        "ingest_observation": ["observation_data"],
        "batch_ingest_observations": ["observation_data_list"],
        "validate_observation_data": ["observation_data"],
        "process_observation_metadata": ["observation_data"],
        "store_observation_files": ["observation_data"],
        "legacy_ingest_observation": ["observation_id"],
    },
    "preprocessing": {
        "preprocess_observation": ["observation_id"],
        "apply_calibration": ["observation_id", "calibration_frames"],
        "align_observation": ["observation_id", "reference_id="],
        "assess_quality": ["observation_id"],
        "batch_preprocess_observations": ["observation_ids"],
        "legacy_preprocess_observation": ["observation_id"],
    },
    "differencing": {
        "difference_observation": ["observation_id"],
        "create_difference_image": ["observation_id", "reference_id"],
        "apply_differencing_algorithm": ["observation_id", "algorithm"],
        "validate_difference_image": ["difference_id"],
        "extract_sources": ["difference_id"],
        "batch_difference_observations": ["observation_ids"],
        "legacy_difference_observation": ["observation_id"],
    },
    "detection": {
        "detect_anomalies": ["difference_id", "model_id"],
        "run_ml_inference": ["difference_id", "model_id"],
        "validate_detections": ["detection_id"],
        "calculate_detection_metrics": ["detection_id"],
        "store_detection_results": ["detection_id"],
        "batch_detect_anomalies": ["difference_ids", "model_id"],
        "legacy_infer_detections": ["observation_id"],
    },
    "curation": {
        "curate_detections": ["detection_id"],
        "create_validation_events": ["detection_id"],
        "generate_alerts": ["detection_id"],
        "prepare_curation_interface": ["detection_id"],
        "send_notifications": ["detection_id"],
    },
    "notification": {"legacy_notify_detection": ["detection_data"]},
    "default": {"health_check": []},
}

ROWS = [(queue, name, parameters) for queue, actors in ACTORS.items() for name, parameters in actors.items()]


@pytest.fixture(scope="module")
def declared() -> dict[str, object]:
    """Every actor that a worker of all types declares, by name."""
    from astrid_workers.broker import get_broker
    from astrid_workers.pipeline import CHAIN

    for link in CHAIN:
        importlib.import_module(link.module)
    importlib.import_module("astrid_workers.app")
    return dict(get_broker().actors)


@pytest.mark.parametrize(("queue", "name", "parameters"), ROWS, ids=[name for _, name, _ in ROWS])
def test_actor_keeps_its_queue_and_arguments(
    declared: dict[str, object], queue: str, name: str, parameters: list[str]
) -> None:
    """A message that an earlier client enqueued finds its actor, on its queue, with its positional arguments."""
    actor = declared[name]
    signature = inspect.signature(actor.fn)  # type: ignore[attr-defined]

    assert actor.queue_name == queue  # type: ignore[attr-defined]
    assert [
        name + ("" if parameter.default is inspect.Parameter.empty else "=")
        for name, parameter in signature.parameters.items()
    ][: len(parameters)] == parameters


def test_chain_names_actors_that_exist(declared: dict[str, object]) -> None:
    """Each link of the chain names a declared actor on the stage's own queue."""
    from astrid_workers.pipeline import CHAIN

    assert [(link.actor, declared[link.actor].queue_name) for link in CHAIN] == [  # type: ignore[attr-defined]
        (link.actor, str(link.stage)) for link in CHAIN
    ]


def test_later_parts_are_absent_not_stubbed(declared: dict[str, object]) -> None:
    """The training_data actors come later: no message for them is accepted meanwhile."""
    assert "collect_training_data_worker" not in declared
