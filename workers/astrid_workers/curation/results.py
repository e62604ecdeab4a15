"""The sections of curation's results, with the keys that clients know.

Owns names and nesting; never decides what is raised (`events`, `alerts`) and never reads a row. Channels
of the earlier system that Astrid does not have say `sent: false` and why.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from astrid_workers.found_detections import DetectionSet

Section = dict[str, Any]

#: Most items listed in a result; the rows hold all, and the counts count all.
MOST_LISTED = 500

#: What a person may answer; also what `ValidationEvent.label` holds.
VALIDATION_OPTIONS: Section = {
    "labels": ["transient", "variable", "artifact", "false_positive"],
    "severity_levels": ["low", "medium", "high"],
    "notes_required": False,
}

#: Channels that clients of the earlier system look for, with the keys they find beside `sent`.
_EARLIER_CHANNELS: dict[str, tuple[str, ...]] = {
    "email": ("recipients", "subject"),
    "slack": ("channel", "message"),
    "dashboard": ("notification_type", "data"),
}


@dataclass(frozen=True, slots=True)
class EventFacts:
    """A validation event as its row has it."""

    event_id: str
    detection_id: str
    priority: str
    status: str
    assigned_to: str | None
    created_at: datetime


@dataclass(frozen=True, slots=True)
class AlertSummary:
    """An alert as its row has it."""

    alert_id: str
    detection_id: str
    alert_type: str
    severity: str | None
    message: str
    channels: tuple[str, ...]
    created_at: datetime


@dataclass(frozen=True, slots=True)
class ContextFacts:
    """Where the detections were seen, from the observation, its difference and its model."""

    ra_deg: float
    dec_deg: float
    observation_time: datetime
    filter_band: str | None
    exposure_time_s: float | None
    model_version: str | None
    #: Seconds that the detection run took; None where it is not known.
    detection_s: float | None
    science_key: str | None
    reference_key: str | None
    difference_key: str | None


@dataclass(frozen=True, slots=True)
class ChannelState:
    """How the alerts of a set of detections stand with one channel."""

    queued: int
    delivered: int
    #: Why nothing was queued, or why what was queued is not delivered; None when all is delivered.
    reason: str | None


def events_section(found: DetectionSet, events: Sequence[EventFacts], at: datetime) -> Section:
    """The validation events that stand for these detections."""
    return {
        "detection_id": str(found.asked_id),
        "validation_events_created": len(events),
        "events": [
            {
                "event_id": event.event_id,
                "detection_id": event.detection_id,
                "priority": event.priority,
                "status": event.status,
                "assigned_to": event.assigned_to,
                "created_at": event.created_at.isoformat(),
            }
            for event in events[:MOST_LISTED]
        ],
        "processed_at": at.isoformat(),
    }


def alerts_section(
    found: DetectionSet, alerts: Sequence[AlertSummary], withheld: tuple[int, str | None], at: datetime
) -> Section:
    """The alerts that stand for these detections, and how many were held back and why."""
    return {
        "detection_id": str(found.asked_id),
        "alerts_generated": len(alerts),
        "alerts": [
            {
                "alert_id": alert.alert_id,
                "detection_id": alert.detection_id,
                "alert_type": alert.alert_type,
                "severity": alert.severity,
                "message": alert.message,
                "channels": list(alert.channels),
                "created_at": alert.created_at.isoformat(),
            }
            for alert in alerts[:MOST_LISTED]
        ],
        "alerts_withheld": withheld[0],
        "withheld_because": withheld[1],
        "processed_at": at.isoformat(),
    }


def interface_section(found: DetectionSet, context: ContextFacts, at: datetime) -> Section:
    """What a person who reviews these detections is shown; pictures and frames by artifact key."""
    return {
        "detection_id": str(found.asked_id),
        "interface_data_prepared": True,
        "data": {
            "detection_images": [d.triplet_key for d in found.detections if d.triplet_key is not None],
            "context_images": [
                key
                for key in (context.science_key, context.reference_key, context.difference_key)
                if key is not None
            ],
            "metadata": {
                "observation_info": {
                    "ra": context.ra_deg,
                    "dec": context.dec_deg,
                    "observation_time": context.observation_time.isoformat(),
                    "filter": context.filter_band,
                    "exposure_time": context.exposure_time_s,
                },
                "detection_info": {
                    "model_version": context.model_version,
                    "confidence_threshold": None,
                    "processing_time": context.detection_s,
                },
            },
            "validation_options": VALIDATION_OPTIONS,
        },
        "processed_at": at.isoformat(),
    }


def notifications_section(found: DetectionSet, states: Mapping[str, ChannelState], at: datetime) -> Section:
    """What is delivered by now: queued is not sent, since each delivery is a message of its own."""
    return {
        "detection_id": str(found.asked_id),
        "notifications_sent": sum(state.delivered for state in states.values()),
        "notifications_queued": sum(state.queued for state in states.values()),
        "channels": {
            **{name: _absent(keys) for name, keys in _EARLIER_CHANNELS.items()},
            **{name: _state(state) for name, state in states.items()},
        },
        "processed_at": at.isoformat(),
    }


def _absent(keys: tuple[str, ...]) -> Section:
    return {"sent": False, **dict.fromkeys(keys), "reason": "Astrid has no such channel"}


def _state(state: ChannelState) -> Section:
    return {
        "sent": state.delivered > 0 and state.reason is None,
        "queued": state.queued,
        "delivered": state.delivered,
        "reason": state.reason,
    }
