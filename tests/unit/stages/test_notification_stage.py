"""Notification as a stage: one alert, one channel, once."""

import threading
import uuid

import pytest
from sqlalchemy import select

from astrid_workers.curation.curation_workers import curate_detections
from astrid_workers.detection.detection_workers import detect_anomalies
from astrid_workers.errors import (
    DeliveryRefused,
    PermanentFailure,
    ServiceUnavailable,
    SettingRejected,
    UnknownRecord,
)
from astrid_workers.notification.notification_workers import deliver_notification, legacy_notify_detection
from astrid_workers.storage.models import Delivery
from astrid_workers.storage.states import DeliveryStatus
from support.seeded_archive import Seed, seed_difference
from support.webhook_receiver import WebhookReceiver


@pytest.fixture
def receiver(monkeypatch):
    """A webhook's other end, configured as ours."""
    with WebhookReceiver() as one:
        monkeypatch.setenv("ASTRID_WEBHOOK_URL", one.url)
        yield one


@pytest.fixture
def alert_id(database, sent):
    """One alert of a curated observation."""
    run = detect_anomalies(str(seed_difference(database, [Seed(30, 40, 25.0)])), "matched-filter")[
        "detection_id"
    ]
    return curate_detections(run)["alerts"]["alerts"][0]["alert_id"]


def deliveries(database):
    with database.reading() as session:
        return session.scalars(select(Delivery)).all()


def test_an_alert_is_delivered_and_remembered(database, receiver, alert_id):
    """The packet has what a follower needs; the row says delivered, when, and after how many attempts."""
    result = deliver_notification(alert_id, "webhook")

    assert tuple(result[k] for k in ("ending", "sent", "answer", "attempts")) == ("done", True, "HTTP 204", 1)
    ((_, headers, packet),) = receiver.requests
    assert result["delivery_id"] == headers["Idempotency-Key"]
    assert (
        packet["observation"]["external_observation_id"],
        packet["observation"]["survey"],
        packet["detection"]["score"],
    ) == ("obs_123", "seeded", 25.0)
    assert packet["detection"]["confidence"] is None
    assert [packet["detection"][name] for name in ("mag", "mag_err", "limit_mag")] == [18.5, 0.04, 20.2]
    (row,) = deliveries(database)
    assert (row.status, row.error) == (DeliveryStatus.DELIVERED, None)


def test_a_repeat_delivers_nothing(database, receiver, alert_id):
    """The row is delivered: the receiver hears of it once."""
    first, second = (deliver_notification(alert_id, "webhook") for _ in range(2))

    assert len(receiver.requests) == 1
    assert (first["sent_at"], True) == (second["sent_at"], second["sent"])


def test_a_retry_after_a_failure_carries_the_same_key(database, receiver, alert_id):
    """A receiver can tell that it is the same alert."""
    receiver.status = 503
    with pytest.raises(ServiceUnavailable):
        deliver_notification(alert_id, "webhook")
    receiver.status = 200
    deliver_notification(alert_id, "webhook")

    keys = {headers["Idempotency-Key"] for _, headers, _ in receiver.requests}
    assert (len(receiver.requests), len(keys)) == (2, 1)
    (row,) = deliveries(database)
    assert (row.status, row.attempts) == (DeliveryStatus.DELIVERED, 2)


def test_a_refusal_stands_in_the_row(database, receiver, alert_id):
    """Failed for good, with the sentence; the message goes to the dead letters."""
    receiver.status = 410
    with pytest.raises(DeliveryRefused, match="HTTP 410"):
        deliver_notification(alert_id, "webhook")

    (row,) = deliveries(database)
    assert row.status == DeliveryStatus.FAILED
    assert row.error.endswith("answered HTTP 410")


def test_a_transient_failure_leaves_the_delivery_pending(database, receiver, alert_id):
    """It is not over yet, and the row says what is in the way."""
    receiver.status = 429
    with pytest.raises(ServiceUnavailable):
        deliver_notification(alert_id, "webhook")

    (row,) = deliveries(database)
    assert (row.status, row.attempts) == (DeliveryStatus.PENDING, 1)
    assert "HTTP 429" in row.error


def test_a_channel_that_is_not_configured_is_nothing_to_do(database, alert_id):
    """No failure, no attempt; sent false with the reason, in result and row; configured later, it is delivered."""
    result = deliver_notification(alert_id, "webhook")

    assert (result["ending"], result["sent"], result["attempts"]) == ("nothing_to_do", False, 0)
    assert "ASTRID_WEBHOOK_URL" in result["reason"]
    (row,) = deliveries(database)
    assert row.status == DeliveryStatus.CANCELLED


def test_channels_do_not_wait_for_each_other(database, receiver, alert_id):
    """A broken webhook does not keep the log from having the alert."""
    receiver.status = 500
    with pytest.raises(ServiceUnavailable):
        deliver_notification(alert_id, "webhook")

    assert deliver_notification(alert_id, "log")["sent"] is True


def test_two_at_once_end_with_one_row(database, receiver, alert_id):
    """At least once: the receiver may hear twice, under one key; there is one row and it is delivered."""
    threads = [threading.Thread(target=deliver_notification, args=(alert_id, "webhook")) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len({headers["Idempotency-Key"] for _, headers, _ in receiver.requests}) == 1
    assert [row.status for row in deliveries(database)] == [DeliveryStatus.DELIVERED]


def test_no_such_channel_is_refused_with_those_there_are(database, alert_id):
    """A retry cannot help."""
    with pytest.raises(SettingRejected, match="there are: log, webhook"):
        deliver_notification(alert_id, "slack")


@pytest.mark.parametrize("unknown", [str(uuid.uuid4()), "alert_1", None])
def test_no_such_alert_is_refused_for_good(database, unknown):
    """One sentence with the id."""
    with pytest.raises(UnknownRecord, match="alert"):
        deliver_notification(unknown, "log")


def test_the_legacy_actor_asks_curation_to_send(database, sent):
    """It has a payload with a detection id."""
    detection_id = str(uuid.uuid4())

    legacy_notify_detection({"detection_id": detection_id})

    assert [("send_notifications", "curation", (detection_id,))] == sent.messages


@pytest.mark.parametrize("payload", [{}, {"detection_id": "unknown"}, {"detection_id": 3}, []])
def test_a_legacy_payload_without_a_detection_is_refused_for_good(database, sent, payload):
    """The earlier system went on with `unknown`."""
    with pytest.raises(PermanentFailure, match="detection_id"):
        legacy_notify_detection(payload)
