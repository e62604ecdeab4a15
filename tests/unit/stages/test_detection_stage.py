"""Detection as a stage: rows, repeats, endings."""

import uuid

import pytest
from sqlalchemy import func, select

from astrid_workers.detection import stage
from astrid_workers.detection.detection_workers import (
    batch_detect_anomalies,
    calculate_detection_metrics,
    detect_anomalies,
    legacy_infer_detections,
    run_ml_inference,
    store_detection_results,
    validate_detections,
)
from astrid_workers.errors import ObservationNotThereYet, UnknownModel, UnknownRecord
from astrid_workers.storage.models import Detection, DetectionRun, Observation
from astrid_workers.storage.states import ObservationState, RunStatus
from support.seeded_archive import Seed, seed_difference, seed_observation

SKY = [
    Seed(30, 40, 25.0),
    Seed(60, 50, -12.0),
    Seed(5, 5, 8.0, ["edge"]),
    Seed(90, 30, 6.0, ["dipole", "edge"]),
]


def count(database, table):
    with database.reading() as session:
        return session.scalar(select(func.count()).select_from(table))


def test_what_passes_is_kept_and_handed_on(database, sent):
    """Flagged candidates are removed with their reason; the run goes to curation by its id."""
    difference = seed_difference(database, SKY)

    result = detect_anomalies(str(difference), "matched-filter")

    assert (result["ending"], result["processing_triggered"]) == ("done", True)
    assert [d["score"] for d in result["inference"]["detection_results"]["detections"]] == [25.0, -12.0]
    filtering = result["validation"]["filtering_results"]
    assert tuple(filtering[k] for k in ("original_count", "filtered_count", "removed_count")) == (4, 2, 2)
    assert filtering["removal_reasons"][0].startswith("2 × too close to the edge")
    assert [(result["detection_id"],)] == sent.to("curate_detections")


def test_the_observation_is_detected_and_the_run_completed(database, sent):
    """Row and state agree with the result."""
    result = detect_anomalies(str(seed_difference(database, SKY)), "matched-filter")

    with database.reading() as session:
        run = session.get_one(DetectionRun, uuid.UUID(result["detection_id"]))
        observation = session.get_one(Observation, run.observation_id)
    assert (run.status, observation.status) == (RunStatus.COMPLETED, ObservationState.DETECTED)
    assert run.numbers["candidates_judged"] == 4
    assert run.seconds >= 0


def test_a_repeat_only_sends_again(database, sent):
    """One run, the same rows, the same result; the next message goes out again, as it may have been lost."""
    difference = str(seed_difference(database, SKY))

    first, second = (detect_anomalies(difference, "matched-filter") for _ in range(2))

    assert (count(database, DetectionRun), count(database, Detection)) == (1, 2)
    assert first["inference"] == second["inference"]
    assert len(sent.to("curate_detections")) == 2


def test_two_at_once_end_with_one_row(database, sent):
    """Both have computed before either saves: the second finds the first's rows and answers with them."""
    difference = str(seed_difference(database, SKY))
    works = [stage.load(difference, "matched-filter") for _ in range(2)]
    made = [stage.run(work) for work in works]

    first, second = (stage.save(*pair) for pair in zip(works, made, strict=True))

    assert first == second
    assert (count(database, DetectionRun), count(database, Detection)) == (1, 2)


def test_nothing_found_is_done_too(database, sent):
    """An observation without detections goes on to be curated; counts are zero, not null."""
    result = detect_anomalies(str(seed_difference(database, [])), "matched-filter")

    assert result["metrics"]["detection_statistics"]["total_detections"] == 0
    assert result["metrics"]["detection_statistics"]["high_confidence"] == 0
    assert len(sent.to("curate_detections")) == 1


def test_a_model_that_is_not_installed_leaves_no_row(database, sent):
    """It is refused for good before anything is taken up."""
    with pytest.raises(UnknownModel, match="installed: matched-filter"):
        detect_anomalies(str(seed_difference(database, SKY)), "unet_v1")

    assert count(database, DetectionRun) == 0
    assert sent.messages == []


@pytest.mark.parametrize(
    "difference_id", ["diff_obs_123_20240101_120000", str(uuid.uuid4()), "", None, 17, "x" * 201]
)
def test_an_id_that_names_no_difference_is_refused_for_good(database, sent, difference_id):
    """Old forms, unknown ids and nonsense get one sentence."""
    with pytest.raises(UnknownRecord, match="difference"):
        detect_anomalies(difference_id, "matched-filter")


def test_precision_and_its_kin_are_null_without_truth(database, sent):
    """Nothing is invented: no truth, no precision; no GPU, no GPU memory."""
    result = detect_anomalies(str(seed_difference(database, SKY)), "matched-filter")

    assert {None} == set(result["metrics"]["performance_metrics"].values())
    assert result["inference"]["model_metrics"]["gpu_memory_used"] is None
    assert result["inference"]["model_metrics"]["inference_time"] >= 0


def test_a_detection_id_names_a_run_or_one_detection(database, sent):
    """The smaller actors take both."""
    result = detect_anomalies(str(seed_difference(database, SKY)), "matched-filter")
    one = result["inference"]["detection_results"]["detections"][1]["detection_id"]

    assert (
        validate_detections(result["detection_id"])["quality_checks"]["spatial_distribution"]["n_detections"]
        == 2
    )
    assert validate_detections(one)["quality_checks"]["spatial_distribution"]["n_detections"] == 1
    assert calculate_detection_metrics(one)["detection_statistics"]["total_detections"] == 1
    assert (
        store_detection_results(result["detection_id"])["database_storage"]["detection_records_created"] == 2
    )


def test_inference_alone_hands_nothing_on(database, sent):
    """The inner step answers with its section and sends no message."""
    section = run_ml_inference(str(seed_difference(database, SKY)), "matched-filter")

    assert section["detection_results"]["n_detections"] == 2
    assert sent.messages == []


def test_a_batch_refuses_what_does_not_exist_and_queues_the_rest(database, sent):
    """One message for each accepted item."""
    difference = str(seed_difference(database, SKY))

    result = batch_detect_anomalies([difference, "diff_nonsense"], "matched-filter")

    assert tuple(result[k] for k in ("total_processed", "successful", "failed")) == (2, 1, 1)
    assert result["errors"][0]["difference_id"] == "diff_nonsense"
    assert [(difference, "matched-filter")] == sent.to("detect_anomalies")


def test_the_legacy_actor_takes_the_newest_difference(database, sent):
    """It has an observation id only, external or ours."""
    difference = str(seed_difference(database, SKY))

    legacy_infer_detections("obs_123")

    assert [(difference, "matched-filter")] == sent.to("detect_anomalies")


def test_the_legacy_actor_waits_for_a_difference(database, sent):
    """An observation that is not differenced yet may be later."""
    seed_observation(database, "obs_9")

    with pytest.raises(ObservationNotThereYet, match="not been differenced yet"):
        legacy_infer_detections("obs_9")
