"""From a payload to a delivered alert, through a real server and real worker processes."""

import json

import dramatiq
import pytest

from astrid_workers.broker import get_broker, send
from astrid_workers.ingestion.observation_workers import batch_ingest_observations, ingest_observation
from astrid_workers.preprocessing.preprocessing_workers import preprocess_observation
from astrid_workers.storage.models import (
    Alert,
    CurationRun,
    DeadLetter,
    Delivery,
    DetectionRun,
    Difference,
    DifferenceRun,
    Observation,
    PreprocessRun,
    Survey,
)
from astrid_workers.storage.states import DeliveryStatus, ObservationState, RunStatus
from support.pipeline import Pipeline, recovered
from support.waiting import wait_until
from support.webhook_receiver import WebhookReceiver

#: The payload of the earlier system's README.
README_PAYLOAD = {
    "observation_id": "obs_123",
    "survey_id": "survey_456",
    "ra": 180.0,
    "dec": 30.0,
    "observation_time": "2024-01-01T12:00:00Z",
}


@pytest.fixture
def pipeline(tmp_path, redis_url, worker_processes, monkeypatch):
    return Pipeline(tmp_path, redis_url, worker_processes, monkeypatch)


def quiet(pipeline):
    return pipeline.outstanding() == 0


def test_a_field_is_carried_from_files_to_a_webhook(pipeline):
    """A reference and a science frame go in; the transients are detected, put before people, and told to others."""
    with WebhookReceiver() as receiver:
        pipeline.start(ASTRID_WEBHOOK_URL=receiver.url)
        field = pipeline.field(1)
        ingest_observation.send(field.reference)
        message = ingest_observation.send(field.science)

        wait_until(lambda: pipeline.state("obs_1") == "curated", 60, "obs_1 to be curated")
        wait_until(lambda: quiet(pipeline), 30, "all messages to be done")

    assert all(recovered(pipeline, field))
    assert pipeline.dead() == []
    assert pipeline.state("ref_1") == "preprocessed"
    deliveries = pipeline.rows(Delivery)
    assert {row.status for row in deliveries} == {DeliveryStatus.DELIVERED}
    assert {row.channel for row in deliveries} == {"log", "webhook"}
    assert len(receiver.requests) == pipeline.count(Alert) >= len(field.truth)
    assert {body["observation"]["external_observation_id"] for _, _, body in receiver.requests} == {"obs_1"}
    result = message.get_result(backend=get_broker().get_results_backend(), block=True, timeout=5000)
    assert result["external_observation_id"] == "obs_1"


def test_a_science_frame_that_came_before_its_reference_is_not_left_behind(pipeline):
    """It ends as nothing to do; the reference, when it comes, sets it going again."""
    pipeline.start()
    field = pipeline.field(2)
    ingest_observation.send(field.science)
    wait_until(
        lambda: pipeline.count(DifferenceRun) and quiet(pipeline), 60, "obs_2 to end without a reference"
    )
    assert pipeline.rows(DifferenceRun)[0].ending_reason == "no reference covers this field"

    ingest_observation.send(field.reference)

    wait_until(lambda: pipeline.state("obs_2") == "curated", 60, "obs_2 to be curated")
    assert all(recovered(pipeline, field))


def test_the_same_observation_sent_twice_is_one_row_everywhere(pipeline):
    """Twice through the whole path: one observation, one run of each stage."""
    pipeline.start()
    field = pipeline.field(3)
    for _ in range(2):
        batch_ingest_observations.send([field.reference, field.science, field.science])
    wait_until(lambda: pipeline.state("obs_3") == "curated" and quiet(pipeline), 90, "obs_3 to be curated")

    assert pipeline.count(Observation) == 2
    assert pipeline.count(PreprocessRun) == 2
    for table in (Difference, DetectionRun, CurationRun):
        assert pipeline.count(table) == 1
    completed = [run for run in pipeline.rows(DifferenceRun) if run.status == RunStatus.COMPLETED]
    assert len(completed) == 1
    assert pipeline.dead() == []


def test_the_earlier_readme_works(pipeline):
    """Both messages at once, without an image: the second waits for the first, and then there is nothing to do."""
    pipeline.start()

    preprocess_observation.send("obs_123")
    ingest_observation.send(README_PAYLOAD)

    wait_until(lambda: pipeline.count(PreprocessRun) and quiet(pipeline), 60, "both messages to be done")
    (run,) = pipeline.rows(PreprocessRun)
    (observation,) = pipeline.rows(Observation)
    assert (run.status, run.ending_reason) == (RunStatus.NOTHING_TO_DO, "no image")
    assert observation.status == ObservationState.INGESTED
    assert [survey.name for survey in pipeline.rows(Survey)] == ["survey_456"]
    assert pipeline.dead() == []


def test_a_message_in_the_earlier_wire_format_runs(pipeline, redis_client):
    """Queue, actor and positional arguments are all that an old client knows; Dramatiq's own keys carry them."""
    pipeline.start()
    message = dramatiq.Message(
        queue_name="observation_ingestion",
        actor_name="ingest_observation",
        args=(README_PAYLOAD,),
        kwargs={},
        options={},
    )
    body = json.dumps(
        {
            "queue_name": message.queue_name,
            "actor_name": message.actor_name,
            "args": [README_PAYLOAD],
            "kwargs": {},
            "options": {"redis_message_id": "old-client-1"},
            "message_id": message.message_id,
            "message_timestamp": message.message_timestamp,
        }
    )
    redis_client.hset("dramatiq:observation_ingestion.msgs", "old-client-1", body)
    redis_client.rpush("dramatiq:observation_ingestion", "old-client-1")

    wait_until(lambda: pipeline.state("obs_123") == "ingested", 30, "obs_123 to be ingested")
    wait_until(lambda: quiet(pipeline), 10, "the message to be acknowledged")


def test_what_cannot_be_helped_dies_at_once_with_its_sentence(pipeline):
    """Bad payloads, unknown ids, algorithms, models and channels: one dead letter each, as a row too, after one run."""
    pipeline.start()
    nowhere = "00000000-0000-5000-8000-000000000000"
    bad = [
        (
            "ingest_observation",
            "observation_ingestion",
            ({"ra": float(400)},),
            "RA must be between 0 and 360 degrees",
        ),
        ("ingest_observation", "observation_ingestion", (README_PAYLOAD | {"ra": True},), "RA must be"),
        ("preprocess_observation", "preprocessing", (None,), "observation_id must be text"),
        (
            "apply_differencing_algorithm",
            "differencing",
            ("obs_1", "hotpants"),
            "valid are: auto, zogy, classic",
        ),
        ("validate_difference_image", "differencing", (nowhere,), "no difference has the id"),
        ("detect_anomalies", "detection", (nowhere, "unet_v1"), "installed: matched-filter"),
        ("curate_detections", "curation", ("det_1",), "no detection run and no detection has the id 'det_1'"),
        ("deliver_notification", "notification", (nowhere, "slack"), "there are: log, webhook"),
        ("legacy_notify_detection", "notification", ({},), "detection_id"),
    ]
    sent = {send(actor, queue, *arguments): sentence for actor, queue, arguments, sentence in bad}

    wait_until(lambda: len(pipeline.dead()) == len(bad), 60, "every message to be a dead letter")

    rows = {row.message_id: row for row in pipeline.rows(DeadLetter)}
    for message_id, sentence in sent.items():
        assert sentence in rows[message_id].sentence
        assert rows[message_id].attempts == 1
    assert quiet(pipeline)


def test_a_frame_that_cannot_be_used_fails_and_the_rest_goes_on(pipeline):
    """A truncated file dies with its sentence; the field beside it is carried to the end."""
    pipeline.start()
    field = pipeline.field(4)
    broken = pipeline.incoming / "broken.fits"
    broken.write_bytes((pipeline.incoming / "obs_4.fits").read_bytes()[:20_000])
    ingest_observation.send(field.science | {"observation_id": "obs_broken", "fits_url": broken.as_uri()})
    ingest_observation.send(field.reference)
    ingest_observation.send(field.science)

    wait_until(lambda: pipeline.state("obs_4") == "curated" and quiet(pipeline), 60, "obs_4 to be curated")

    (dead,) = pipeline.rows(DeadLetter)
    assert "broken" in dead.sentence


def test_work_waits_for_a_store_that_is_away(pipeline):
    """More failures than there are retries are no dead letter while a service is away; the log says since when."""
    store = pipeline.incoming.parent / "artifacts"
    store.write_text("a file where the store's folder should be")
    worker = pipeline.start("--queues", "observation_ingestion", WORKER_MAX_RETRIES="1")
    ingest_observation.send(pipeline.field(1).science)
    told = "for the artifact store, and tries again"
    wait_until(lambda: worker.log.count(told) > 3, 30, "the log to tell more often than there are retries")
    assert "waits since 2" in worker.log
    store.unlink()
    wait_until(lambda: pipeline.client.llen("dramatiq:preprocessing") == 1, 30, "the observation to go on")
    assert pipeline.dead() == []
