"""The rows that curation reads and writes.

Owns the queries; never decides what is raised. Adding is put-if-missing by the row's derived id, so that a
repeat adds nothing and keeps what people have answered meanwhile.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import ColumnElement, select
from sqlalchemy.orm import Session

from astrid_workers.curation.alerts import AlertPlan, SkyContext
from astrid_workers.curation.events import PlannedEvent
from astrid_workers.curation.results import AlertSummary, ContextFacts, EventFacts
from astrid_workers.found_detections import DetectionSet
from astrid_workers.storage.models import (
    Alert,
    Detection,
    Difference,
    DifferenceRun,
    Observation,
    ValidationEvent,
)


@dataclass(frozen=True, slots=True)
class ImageKeys:
    """Artifacts on the science grid, each `(key, sha256)`; None where there is none."""

    science: tuple[str, str] | None
    reference: tuple[str, str] | None
    difference: tuple[str, str]


@dataclass(frozen=True, slots=True)
class CurationContext:
    """What is known around a set of detections."""

    sky: SkyContext
    facts: ContextFacts
    images: ImageKeys


def context_of(session: Session, found: DetectionSet) -> CurationContext:
    """Observation, difference and run behind `found`."""
    observation = session.get_one(Observation, found.observation_id)
    difference = session.get_one(Difference, found.difference_id)
    images = _images(session, difference)
    return CurationContext(
        sky=SkyContext(
            external_observation_id=observation.external_id,
            filter_band=observation.filter_band,
            difference_passed=(difference.validation or {}).get("validation_passed"),
        ),
        facts=_facts(observation, found, images),
        images=images,
    )


def _images(session: Session, difference: Difference) -> ImageKeys:
    """The run's result names the frames that were differenced, as they were then."""
    run = session.get_one(DifferenceRun, difference.run_id)
    inputs = (run.result or {}).get("artifacts", {})
    return ImageKeys(
        science=_key_of(inputs.get("science")),
        reference=_key_of(inputs.get("reference")),
        difference=(difference.difference_key, difference.difference_sha256),
    )


def _key_of(named: dict[str, str] | None) -> tuple[str, str] | None:
    return None if named is None else (named["key"], named["sha256"])


def _facts(observation: Observation, found: DetectionSet, images: ImageKeys) -> ContextFacts:
    return ContextFacts(
        ra_deg=observation.ra_deg,
        dec_deg=observation.dec_deg,
        observation_time=observation.observation_time,
        filter_band=observation.filter_band,
        exposure_time_s=observation.exposure_time_s,
        model_version=found.model_version,
        detection_s=found.numbers.get("total_s"),
        science_key=None if images.science is None else images.science[0],
        reference_key=None if images.reference is None else images.reference[0],
        difference_key=images.difference[0],
    )


def add_events(session: Session, found: DetectionSet, planned: Sequence[PlannedEvent]) -> None:
    """Add the events that are missing."""
    present = set(session.scalars(select(ValidationEvent.id).where(_of_run(ValidationEvent, found))))
    session.add_all(
        ValidationEvent(
            id=event.event_id,
            detection_id=event.detection_id,
            detection_run_id=found.run_id,
            priority=event.priority,
        )
        for event in planned
        if event.event_id not in present
    )


def add_alerts(session: Session, found: DetectionSet, plan: AlertPlan, channels: Sequence[str]) -> None:
    """Add the alerts that are missing, for `channels`."""
    present = set(session.scalars(select(Alert.id).where(_of_run(Alert, found))))
    session.add_all(
        Alert(
            id=alert.alert_id,
            detection_id=alert.detection_id,
            detection_run_id=found.run_id,
            alert_type=alert.alert_type,
            severity=alert.severity,
            title=alert.title,
            message=alert.message,
            channels=list(channels),
        )
        for alert in plan.raised
        if alert.alert_id not in present
    )


def set_pictures(session: Session, pictures: dict[UUID, tuple[str, str]]) -> None:
    """Point detections at their pictures: detection id → `(key, sha256)`."""
    for detection_id, (key, sha256) in pictures.items():
        detection = session.get_one(Detection, detection_id)
        detection.triplet_key, detection.triplet_sha256 = key, sha256


def events_of(session: Session, found: DetectionSet) -> list[EventFacts]:
    """The events of `found`'s detections, strongest first."""
    by_detection = {
        row.detection_id: row
        for row in session.scalars(select(ValidationEvent).where(_of_run(ValidationEvent, found)))
    }
    rows = (by_detection.get(detection.detection_id) for detection in found.detections)
    return [_event(row) for row in rows if row is not None]


def alerts_of(session: Session, found: DetectionSet) -> list[AlertSummary]:
    """The alerts of `found`'s detections, strongest first."""
    by_detection = {
        row.detection_id: row for row in session.scalars(select(Alert).where(_of_run(Alert, found)))
    }
    rows = (by_detection.get(detection.detection_id) for detection in found.detections)
    return [_alert(row) for row in rows if row is not None]


def _of_run(table: type[ValidationEvent] | type[Alert], found: DetectionSet) -> ColumnElement[bool]:
    return table.detection_run_id == found.run_id


def _event(row: ValidationEvent) -> EventFacts:
    return EventFacts(
        event_id=str(row.id),
        detection_id=str(row.detection_id),
        priority=row.priority,
        status=row.status,
        assigned_to=row.assigned_to,
        created_at=row.created_at,
    )


def _alert(row: Alert) -> AlertSummary:
    return AlertSummary(
        alert_id=str(row.id),
        detection_id=str(row.detection_id),
        alert_type=row.alert_type,
        severity=row.severity,
        message=row.message,
        channels=tuple(row.channels),
        created_at=row.created_at,
    )
