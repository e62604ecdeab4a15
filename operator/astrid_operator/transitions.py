"""What is worth an event: the difference between two statuses, told once.

Pure: two statuses (wire form) in, events out. Numbers are never news.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from astrid_operator.fleet import EventType

Status = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Event:
    """One event as `Reporter.event` takes it."""

    kind: EventType
    reason: str
    message: str


def events_between(previous: Status | None, new: Status) -> list[Event]:
    """Events for what changed from `previous` (None: the object was seen for the first time) to `new`."""
    return [*_scaling(previous or {}, new), *_conditions(previous or {}, new)]


def _scaling(previous: Status, new: Status) -> Iterator[Event]:
    before, after = previous.get("lastScale"), new.get("lastScale")
    if after and after != before:
        step = f"Scaled from {after['from']} to {after['to']}"
        yield Event("Normal", after["reason"], f"{step}: {after['message']}")


def _conditions(previous: Status, new: Status) -> Iterator[Event]:
    before = _by_type(previous)
    for kind, now in _by_type(new).items():
        then = before.get(kind, {"status": "Unknown", "reason": ""})
        if kind == "Stalled" and now["status"] == "True" and _differs(then, now):
            yield Event("Warning", now["reason"], now["message"])
        if kind == "BrokerReachable" and now["status"] == "False" and then["status"] != "False":
            yield Event("Warning", now["reason"], now["message"])
        if kind == "BrokerReachable" and now["status"] == "True" and then["status"] == "False":
            yield Event("Normal", "BrokerRecovered", now["message"])
        if kind == "Ready" and now["reason"] == "WorkersUnhealthy" and then["reason"] != now["reason"]:
            yield Event("Warning", now["reason"], now["message"])


def _differs(then: Status, now: Status) -> bool:
    return (then["status"], then["reason"]) != (now["status"], now["reason"])


def _by_type(status: Status) -> dict[str, Status]:
    return {each["type"]: each for each in status.get("conditions") or ()}
