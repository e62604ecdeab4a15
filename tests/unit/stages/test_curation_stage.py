"""Curation as a stage: events, alerts, pictures, and who is told."""

import uuid

import pytest
from sqlalchemy import func, select

from astrid_workers.curation import stage
from astrid_workers.curation.curation_workers import (
    create_validation_events,
    curate_detections,
    generate_alerts,
    prepare_curation_interface,
    send_notifications,
)
from astrid_workers.detection.detection_workers import detect_anomalies
from astrid_workers.errors import UnknownRecord
from astrid_workers.notification.notification_workers import deliver_notification
from astrid_workers.storage.artifacts import get_store
from astrid_workers.storage.models import Alert, CurationRun, Detection, Observation, ValidationEvent
from astrid_workers.storage.states import ObservationState
from support.seeded_archive import Seed, seed_difference

SKY = [Seed(30, 40, 25.0), Seed(60, 50, -12.0), Seed(90, 30, 6.0)]


@pytest.fixture
def detected(database, sent):
    """A detection run of three detections; its id."""
    run = detect_anomalies(str(seed_difference(database, SKY)), "matched-filter")["detection_id"]
    sent.messages.clear()
    return run


def count(database, table):
    with database.reading() as session:
        return session.scalar(select(func.count()).select_from(table))


def test_all_are_put_before_people_and_the_strong_raise_alerts(database, sent, detected):
    """Three events, alerts from 10 sigma of either sign, one message for each alert and usable channel."""
    result = curate_detections(detected)

    assert [event["priority"] for event in result["validation"]["events"]] == ["high", "medium", "low"]
    assert result["alerts"]["alerts_generated"] == 2
    alert_ids = [alert["alert_id"] for alert in result["alerts"]["alerts"]]
    assert [(alert_id, "log") for alert_id in alert_ids] == sent.to("deliver_notification")


def test_the_observation_is_curated(database, sent, detected):
    """The last state of the path."""
    result = curate_detections(detected)

    with database.reading() as session:
        observation = session.get_one(Observation, uuid.UUID(result["observation_id"]))
    assert (observation.status, result["status"]) == (ObservationState.CURATED, "curated")


def test_each_detection_has_a_picture_in_the_store(database, sent, detected):
    """The interface names the pictures, and they are there with the checksum in the row."""
    result = curate_detections(detected)

    images = result["interface"]["data"]["detection_images"]
    with database.reading() as session:
        rows = session.scalars(select(Detection).order_by(Detection.index)).all()
    assert images == [row.triplet_key for row in rows]
    for row in rows:
        assert get_store().get(row.triplet_key, row.triplet_sha256).startswith(b"\x89PNG")


def test_a_repeat_adds_nothing_and_sends_what_is_not_delivered(database, sent, detected):
    """Rows stay single; messages that may have been lost go out again."""
    first, second = curate_detections(detected), curate_detections(detected)

    counted = [count(database, table) for table in (CurationRun, ValidationEvent, Alert)]
    assert counted == [1, 3, 2]
    assert first["alerts"] == second["alerts"]
    assert len(sent.to("deliver_notification")) == 4


def test_what_is_delivered_is_not_sent_again(database, sent, detected):
    """The section says so: delivered, nothing queued."""
    curate_detections(detected)
    for alert_id, channel in sent.to("deliver_notification"):
        deliver_notification(alert_id, channel)
    sent.messages.clear()

    section = send_notifications(detected)

    assert sent.messages == []
    assert section["notifications_sent"] == 2
    assert section["channels"]["log"]["sent"] is True


def test_queued_is_not_sent(database, sent, detected):
    """Nobody is told that a notification was sent while it waits."""
    section = curate_detections(detected)["notifications"]

    assert (section["notifications_sent"], section["notifications_queued"]) == (0, 2)
    assert section["channels"]["log"]["sent"] is False
    assert "queued" in section["channels"]["log"]["reason"]


def test_channels_that_are_not_there_say_so(database, sent, detected):
    """E-mail, Slack and dashboard of the earlier system, and a webhook without address: sent false, and why."""
    channels = curate_detections(detected)["notifications"]["channels"]

    for name in ("email", "slack", "dashboard", "webhook"):
        assert channels[name]["sent"] is False
        assert channels[name]["reason"]
    assert "ASTRID_WEBHOOK_URL" in channels["webhook"]["reason"]


def test_two_at_once_end_with_one_set_of_rows(database, sent, detected):
    """Both have computed before either saves."""
    works = [stage.load(detected) for _ in range(2)]
    made = [stage.run(work) for work in works]

    first, second = (stage.save(*pair) for pair in zip(works, made, strict=True))

    assert first == second
    assert [count(database, table) for table in (CurationRun, ValidationEvent, Alert)] == [1, 3, 2]


def test_a_difference_that_failed_its_validation_raises_doubtful_alerts(database, sent):
    """What may be real is not hidden, but of low severity, and the message says why."""
    run = detect_anomalies(str(seed_difference(database, SKY, passed=False)), "matched-filter")[
        "detection_id"
    ]

    alerts = curate_detections(run)["alerts"]["alerts"]

    assert [alert["severity"] for alert in alerts] == ["low", "low"]
    assert all("did not pass its validation" in alert["message"] for alert in alerts)


def test_alerts_are_bounded_and_the_rest_is_counted(database, sent, detected, monkeypatch):
    """The result says how many were held back, and why."""
    monkeypatch.setenv("ASTRID_CURATION_MAX_ALERTS_PER_RUN", "1")

    section = curate_detections(detected)["alerts"]

    assert (section["alerts_generated"], section["alerts_withheld"]) == (1, 1)
    assert "more than 1" in section["withheld_because"]


def test_pictures_are_bounded_by_the_setting(database, sent, detected, monkeypatch):
    """A bad night makes pictures of the strongest only."""
    monkeypatch.setenv("ASTRID_CURATION_MAX_TRIPLETS_PER_RUN", "1")

    assert len(curate_detections(detected)["interface"]["data"]["detection_images"]) == 1


def test_one_detection_can_be_curated_by_itself(database, sent, detected):
    """A detection id that names one detection makes its event and alert only, and the run adds the others."""
    with database.reading() as session:
        one = session.scalars(select(Detection.id).order_by(Detection.index)).first()

    assert curate_detections(str(one))["validation"]["validation_events_created"] == 1
    assert curate_detections(detected)["validation"]["validation_events_created"] == 3
    assert count(database, ValidationEvent) == 3


def test_steps_can_be_asked_for_one_by_one(database, sent, detected):
    """Events and alerts are written, the interface is read; only `send_notifications` sends."""
    assert create_validation_events(detected)["validation_events_created"] == 3
    assert generate_alerts(detected)["alerts_generated"] == 2
    info = prepare_curation_interface(detected)["data"]["metadata"]["observation_info"]
    assert {key: info[key] for key in ("ra", "dec", "filter", "exposure_time")} == {
        "ra": 180.0,
        "dec": 30.0,
        "filter": "r",
        "exposure_time": 30.0,
    }
    assert info["observation_time"] == "2024-01-01T12:00:00+00:00"
    assert sent.messages == []
    send_notifications(detected)
    assert len(sent.to("deliver_notification")) == 2


def test_a_run_without_detections_is_curated_quietly(database, sent):
    """No event, no alert, no message, and the observation is curated."""
    run = detect_anomalies(str(seed_difference(database, [])), "matched-filter")["detection_id"]

    result = curate_detections(run)

    assert (result["validation"]["validation_events_created"], result["alerts"]["alerts_generated"]) == (0, 0)
    assert result["notifications"]["channels"]["log"]["reason"] == "no alert was raised"


@pytest.mark.parametrize("actor", [curate_detections, send_notifications, generate_alerts])
def test_an_id_that_names_nothing_is_refused_for_good(database, sent, actor):
    """One sentence with the id."""
    with pytest.raises(UnknownRecord, match="'det_x'"):
        actor("det_x")
