"""Loading and saving for curation: detections in; events, alerts and pictures out.

Owns the rows and pictures of a curation run and the messages to notification; never decides what is raised
(`events` and `alerts` do).
"""

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from astrid_workers import broker
from astrid_workers.curation import results, rows
from astrid_workers.curation.alerts import AlertPlan, AlertPolicy, alerts_for
from astrid_workers.curation.events import PlannedEvent, events_for
from astrid_workers.curation.pictures import Picture, make_pictures, read_images
from astrid_workers.found_detections import DetectionSet
from astrid_workers.identity import STAGE_VERSION, derived_uuid
from astrid_workers.metering import metered
from astrid_workers.pipeline import Stage
from astrid_workers.run_records import (
    Ending,
    Result,
    RunTicket,
    conclude,
    failures_recorded,
    settled_result,
    take_up,
)
from astrid_workers.settings import CurationSettings, NotificationSettings
from astrid_workers.storage.artifacts import get_store
from astrid_workers.storage.database import get_database
from astrid_workers.storage.detection_records import detections_named
from astrid_workers.storage.models import CurationRun, Delivery
from astrid_workers.storage.states import DeliveryStatus


@dataclass(frozen=True, slots=True)
class CurationWork:
    """The detections that one id names, with what is known around them."""

    ticket: RunTicket
    found: DetectionSet
    context: rows.CurationContext
    settled: Result | None = None


@dataclass(frozen=True, slots=True)
class Curated:
    """What is to be written."""

    events: tuple[PlannedEvent, ...]
    alerts: AlertPlan
    pictures: tuple[Picture, ...]
    seconds: float | None


def find(detection_id: str) -> CurationWork:
    """Read what `detection_id` names, without taking a run up; raises UnknownRecord."""
    with get_database().reading() as session:
        found = detections_named(session, detection_id)
        run_id = derived_uuid("curation_run", str(found.asked_id), STAGE_VERSION[Stage.CURATION])
        ticket = RunTicket(CurationRun, run_id, Stage.CURATION, found.observation_id)
        return CurationWork(ticket, found, rows.context_of(session, found), settled_result(session, ticket))


def load(detection_id: str) -> CurationWork:
    """Read what `detection_id` names and take its curation up; raises UnknownRecord."""
    work = find(detection_id)
    if work.settled is None:
        fresh = CurationRun(
            id=work.ticket.run_id,
            version=STAGE_VERSION[Stage.CURATION],
            detection_run_id=work.found.run_id,
            observation_id=work.ticket.observation_id,
        )
        take_up(get_database(), work.ticket, fresh)
    return work


def run(work: CurationWork) -> Curated | None:
    """Decide events and alerts and draw the pictures; None when that is done already."""
    if work.settled is not None:
        return None
    settings = CurationSettings()
    with failures_recorded(get_database(), work.ticket), metered() as cost:
        shown = strongest(work.found, settings.max_triplets_per_run)
        images = read_images(get_store(), work.context.images) if shown else None
        pictures = make_pictures(images, work.found, shown, settings.triplet_size_px) if images else ()
    return Curated(events_for(work.found.detections), plan_alerts(work), pictures, cost.seconds)


def save(work: CurationWork, curated: Curated | None) -> Result:
    """Store the pictures, then write rows and ending in one transaction; the result that stands then."""
    if curated is None:
        assert work.settled is not None
        return work.settled
    database = get_database()
    with failures_recorded(database, work.ticket):
        stored = [picture.stored(get_store()) for picture in curated.pictures]
        return conclude(database, work.ticket, lambda session: _written(session, work, curated, dict(stored)))


def send(work: CurationWork, result: Result) -> Result:
    """Queue what is not delivered yet, and add how the deliveries stand."""
    return {**result, "notifications": notify(work)}


def plan_alerts(work: CurationWork) -> AlertPlan:
    """The alerts that the configured policy raises for these detections."""
    settings = CurationSettings()
    policy = AlertPolicy(settings.alert_min_score, settings.max_alerts_per_run)
    return alerts_for(work.found.detections, work.context.sky, policy)


def strongest(found: DetectionSet, most: int) -> tuple[UUID, ...]:
    """Ids of the `most` detections with the largest |score|, strongest first."""
    ranked = sorted(found.detections, key=lambda detection: -abs(detection.score))
    return tuple(detection.detection_id for detection in ranked[:most])


def create_events(work: CurationWork) -> Result:
    """Write the validation events that are not there yet; the section with all of them."""
    planned = events_for(work.found.detections)
    # Rows that are added elsewhere at the same moment are the same rows.
    with suppress(IntegrityError), get_database().session() as session:
        rows.add_events(session, work.found, planned)
    with get_database().reading() as session:
        return results.events_section(work.found, rows.events_of(session, work.found), _now())


def create_alerts(work: CurationWork) -> Result:
    """Write the alerts that are not there yet; the section with all of them."""
    plan = plan_alerts(work)
    channels = NotificationSettings().channel_names
    with suppress(IntegrityError), get_database().session() as session:
        rows.add_alerts(session, work.found, plan, channels)
    with get_database().reading() as session:
        alerts = rows.alerts_of(session, work.found)
        return results.alerts_section(work.found, alerts, (plan.withheld, plan.withheld_because), _now())


def interface_of(work: CurationWork) -> Result:
    """The review section, read now from the rows."""
    return results.interface_section(work.found, work.context.facts, _now())


def notify(work: CurationWork) -> Result:
    """One message for each alert and usable channel that is not delivered yet; how all stand."""
    settings = NotificationSettings()
    with get_database().reading() as session:
        alert_ids = [UUID(alert.alert_id) for alert in rows.alerts_of(session, work.found)]
        delivered = _delivered(session, alert_ids)
    states = {
        name: _queue(name, alert_ids, delivered, settings.missing_for(name))
        for name in settings.channel_names
    }
    return results.notifications_section(work.found, states, _now())


def _queue(
    name: str, alert_ids: Iterable[UUID], delivered: set[tuple[UUID, str]], missing: str | None
) -> results.ChannelState:
    wanted = list(alert_ids)
    waiting = [alert_id for alert_id in wanted if (alert_id, name) not in delivered]
    done = len(wanted) - len(waiting)
    if missing is not None:
        return results.ChannelState(0, done, missing)
    for alert_id in waiting:
        broker.send_next(Stage.CURATION, str(alert_id), name)
    if not wanted:
        return results.ChannelState(0, 0, "no alert was raised")
    return results.ChannelState(
        len(waiting), done, "queued: each delivery is a message of its own" if waiting else None
    )


def _delivered(session: Session, alert_ids: list[UUID]) -> set[tuple[UUID, str]]:
    query = select(Delivery.alert_id, Delivery.channel).where(
        Delivery.alert_id.in_(alert_ids), Delivery.status == DeliveryStatus.DELIVERED
    )
    return {(alert_id, channel) for alert_id, channel in session.execute(query)}


def _written(
    session: Session, work: CurationWork, curated: Curated, pictures: dict[UUID, tuple[str, str]]
) -> Ending:
    rows.add_events(session, work.found, curated.events)
    rows.add_alerts(session, work.found, curated.alerts, NotificationSettings().channel_names)
    rows.set_pictures(session, pictures)
    session.flush()
    found, at = detections_named(session, str(work.found.asked_id)), _now()
    alerts = rows.alerts_of(session, found)
    withheld = (curated.alerts.withheld, curated.alerts.withheld_because)
    result = {
        "ending": "done",
        "observation_id": str(found.observation_id),
        "detection_id": str(found.asked_id),
        "status": "curated",
        "validation": results.events_section(found, rows.events_of(session, found), at),
        "alerts": results.alerts_section(found, alerts, withheld, at),
        "interface": results.interface_section(found, work.context.facts, at),
    }
    numbers = {
        "detections": len(found.detections),
        "alerts": len(alerts),
        "alerts_withheld": curated.alerts.withheld,
        "pictures": len(pictures),
        "seconds": curated.seconds,
    }
    return Ending(result, numbers=numbers)


def _now() -> datetime:
    return datetime.now(UTC)
