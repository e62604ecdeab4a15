"""Loading and saving for notification: one alert to one channel, remembered in a delivery row.

Owns the delivery's row and its endings; never sends bytes anywhere (`channels` does). A repeat finds the row
delivered and does nothing; a crash between the channel's answer and the row delivers once more, under the
same key.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from astrid_workers import broker
from astrid_workers.errors import AstridError, PermanentFailure, SettingRejected, UnknownRecord
from astrid_workers.identity import derived_uuid, uuid_given
from astrid_workers.names import checked_name
from astrid_workers.notification.channels import Receipt, channel
from astrid_workers.notification.packets import AlertFacts, alert_packet
from astrid_workers.pipeline import Stage
from astrid_workers.settings import CHANNELS, NotificationSettings
from astrid_workers.storage.database import get_database
from astrid_workers.storage.models import Alert, Delivery, Detection, DetectionRun, Observation
from astrid_workers.storage.states import DeliveryStatus

Result = dict[str, Any]


@dataclass(frozen=True, slots=True)
class DeliveryWork:
    """One alert for one channel; nothing is left to do once it is delivered or where something is missing."""

    delivery_id: UUID
    channel: str
    packet: dict[str, Any]
    is_delivered: bool
    #: What keeps the channel from being used, else None.
    missing: str | None


def load(alert_id: str, channel_name: str) -> DeliveryWork:
    """Read the alert and count an attempt; raises SettingRejected for no such channel, and UnknownRecord."""
    settings = NotificationSettings()
    missing = settings.missing_for(channel_name)
    if channel_name not in CHANNELS:
        raise SettingRejected(missing or "")
    with get_database().reading() as session:
        facts = _alert_facts(session, alert_id)
    delivery_id = derived_uuid("delivery", str(facts.alert_id), channel_name)
    is_delivered = _take_up(delivery_id, facts.alert_id, channel_name, is_tried=missing is None)
    return DeliveryWork(delivery_id, channel_name, alert_packet(facts), is_delivered, missing)


def run(work: DeliveryWork) -> Receipt | None:
    """Deliver, unless that is done or cannot be; a failure stands in the row before it goes on up."""
    if work.is_delivered or work.missing is not None:
        return None
    with _failures_recorded(work.delivery_id):
        return channel(work.channel, NotificationSettings()).deliver(work.packet, str(work.delivery_id))


def save(work: DeliveryWork, receipt: Receipt | None) -> Result:
    """Write how the delivery stands and answer with it."""
    with get_database().session() as session:
        row = session.get_one(Delivery, work.delivery_id, with_for_update=True)
        if receipt is not None:
            row.status, row.sent_at, row.error = DeliveryStatus.DELIVERED, datetime.now(UTC), None
        elif work.missing is not None and row.status != DeliveryStatus.DELIVERED:
            row.status, row.error = DeliveryStatus.CANCELLED, work.missing
        return _result(row, receipt)


def forward(detection_data: Any) -> Result:
    """Send `send_notifications` for the detection that the earlier payload names."""
    detection_id = detection_data.get("detection_id") if isinstance(detection_data, dict) else None
    if not isinstance(detection_id, str) or uuid_given(detection_id) is None:
        message = f"Missing required field: detection_id (of a run or a detection), got {detection_id!r}"
        raise PermanentFailure(message)
    message_id = broker.send("send_notifications", Stage.CURATION, detection_id)
    return {"detection_id": detection_id, "message_id": message_id, "status": "queued"}


def _alert_facts(session: Session, alert_id: str) -> AlertFacts:
    asked = uuid_given(checked_name(alert_id, "alert_id"))
    alert = None if asked is None else session.get(Alert, asked)
    if alert is None or alert.detection_id is None:
        message = f"no alert has the id {alert_id!r}"
        raise UnknownRecord(message)
    detection = session.get_one(Detection, alert.detection_id)
    run = session.get_one(DetectionRun, alert.detection_run_id)
    observation = session.get_one(Observation, run.observation_id)
    candidate = detection.candidate
    return AlertFacts(
        alert_id=alert.id,
        detection_id=detection.id,
        observation_id=observation.id,
        external_observation_id=observation.external_id,
        part=observation.part,
        survey=observation.survey.name,
        alert_type=alert.alert_type,
        severity=alert.severity,
        message=alert.message,
        created_at=alert.created_at,
        observed_at=observation.observation_time,
        filter_band=observation.filter_band,
        ra_deg=candidate.ra_deg,
        dec_deg=candidate.dec_deg,
        x=candidate.x,
        y=candidate.y,
        flux=candidate.flux,
        flux_err=candidate.flux_err,
        unit=candidate.unit,
        **candidate.magnitudes,
        snr=candidate.snr,
        score=candidate.score,
        confidence=detection.confidence,
        model_id=run.model_id,
    )


def _take_up(delivery_id: UUID, alert_id: UUID, channel_name: str, *, is_tried: bool) -> bool:
    """Make sure that the row is there and count the attempt; whether it is delivered already."""
    database = get_database()
    fresh = Delivery(id=delivery_id, alert_id=alert_id, channel=channel_name, attempts=0)
    # Where the same delivery is taken up elsewhere at the same moment, its row is as good.
    with suppress(IntegrityError), database.session() as session:
        if session.get(Delivery, delivery_id) is None:
            session.add(fresh)
    with database.session() as session:
        row = session.get_one(Delivery, delivery_id, with_for_update=True)
        is_delivered = row.status == DeliveryStatus.DELIVERED
        if is_tried and not is_delivered:
            row.attempts, row.status = row.attempts + 1, DeliveryStatus.PENDING
        return is_delivered


@contextmanager
def _failures_recorded(delivery_id: UUID) -> Iterator[None]:
    try:
        yield
    except AstridError as failure:
        with get_database().session() as session:
            row = session.get_one(Delivery, delivery_id, with_for_update=True)
            if row.status != DeliveryStatus.DELIVERED:
                row.error = str(failure)
                is_final = isinstance(failure, PermanentFailure)
                row.status = DeliveryStatus.FAILED if is_final else DeliveryStatus.PENDING
        raise


def _result(row: Delivery, receipt: Receipt | None) -> Result:
    is_sent = row.status == DeliveryStatus.DELIVERED
    return {
        "ending": "done" if is_sent else "nothing_to_do",
        "reason": row.error,
        "alert_id": str(row.alert_id),
        "delivery_id": str(row.id),
        "channel": row.channel,
        "status": row.status.value,
        "sent": is_sent,
        "sent_at": None if row.sent_at is None else row.sent_at.isoformat(),
        "attempts": row.attempts,
        "answer": None if receipt is None else receipt.answer,
    }
