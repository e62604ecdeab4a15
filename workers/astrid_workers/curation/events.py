"""Which detections are put before a person, and how soon.

Owns the rule of a validation event's priority; never reads or writes a row. Every detection gets one
event: what a model kept, a person may still refuse.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from astrid_workers.found_detections import FoundDetection
from astrid_workers.identity import derived_uuid
from astrid_workers.significance import Priority, priority_of


@dataclass(frozen=True, slots=True)
class PlannedEvent:
    """One detection waiting for a verdict."""

    event_id: UUID
    detection_id: UUID
    priority: Priority


def events_for(detections: Sequence[FoundDetection]) -> tuple[PlannedEvent, ...]:
    """One event for each detection, in order; priority by |score| (`significance.priority_of`)."""
    return tuple(
        PlannedEvent(
            derived_uuid("validation_event", str(d.detection_id)), d.detection_id, priority_of(d.score)
        )
        for d in detections
    )
