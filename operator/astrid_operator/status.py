"""The status of an AstridQueue: its conditions, the coarse numbers, and whether they are worth a write.

Owns the shape of a status and the answer to "is this worth a write?". Pure: no clock, no client. Never
invents a number; what is not known is left out or stays as it was known last.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from astrid_operator.astrid_queue import AstridQueue
from astrid_operator.conditions import (
    MESSAGE_CHARACTERS,
    Situation,
    Trouble,
    conditions_of,
    invalid_conditions,
)
from astrid_operator.desired import selector_string
from astrid_operator.fleet import FleetState
from astrid_operator.scaling import Demand, DemandReading, ScalingDecision

Json = Any
Status = dict[str, Json]

#: Fields that count members.
MEMBER_COUNTS = ("replicas", "readyReplicas")

#: Most holders of devices that the schema takes.
HOLDERS_TOLD = 32


class Urgency(StrEnum):
    """When a new status should be written."""

    NOW = "now"  #: a decision or a condition changed
    SOON = "soon"  #: members came or went, or demand is known at last: some seconds after the write before
    LATER = "later"  #: other numbers moved: as the allowance permits
    NEVER = "never"  #: nothing that matters changed


def desired_status(
    queue: AstridQueue,
    fleet: FleetState,
    reading: DemandReading | None,
    decision: ScalingDecision | None,
    previous_status: Mapping[str, Json] | None,
    now_iso: str,
    *,
    stalled: Trouble | None = None,
    retrying: str = "",
) -> Status:
    """The whole status (wire form).

    `fleet` is as it was seen before `decision` is carried out. `reading` None: demand was not asked for yet;
    `decision` None: nothing could be decided. `stalled`: a person must act. `retrying`: a write failed and
    will be tried again, and why. `now_iso` is UTC as RFC 3339 with whole seconds and `Z`.
    """
    seen = Situation(queue, fleet, reading, decision, previous_status or {}, now_iso, stalled, retrying)
    return _without_none(
        {
            "observedGeneration": queue.generation,
            "replicas": fleet.current,
            "readyReplicas": fleet.ready,
            "desiredReplicas": fleet.desired if decision is None else decision.replicas,
            "selector": selector_string(queue.key),
            "demand": _demand(reading, seen.previous, now_iso),
            "lastScale": _last_scale(seen),
            "gpu": _gpu(queue, decision),
            "conditions": conditions_of(seen),
        }
    )


def invalid_status(
    generation: int, trouble: Trouble, previous_status: Mapping[str, Json] | None, now_iso: str
) -> Status:
    """The status of an object that cannot be parsed: stalled, everything else as it was known last."""
    previous = previous_status or {}
    return {
        **previous,
        "observedGeneration": generation,
        "conditions": invalid_conditions(generation, trouble, previous, now_iso),
    }


def urgency(previous: Mapping[str, Json] | None, new: Mapping[str, Json]) -> Urgency:
    """Whether `new` is worth a write at once, soon, by the allowance, or not at all.

    A sentence that alone has changed, or the time at which the same numbers were read again, is not.
    """
    if previous is None or _decided(previous) != _decided(new):
        return Urgency.NOW
    is_first = "demand" in new and "demand" not in previous
    if is_first or any(previous.get(name, 0) != new.get(name, 0) for name in MEMBER_COUNTS):
        return Urgency.SOON
    return Urgency.LATER if _numbers(previous) != _numbers(new) else Urgency.NEVER


def amount_of_change(previous: Mapping[str, Json] | None, new: Mapping[str, Json]) -> float:
    """How far the numbers moved, 0 to 1: the largest relative change of any of them."""
    before, after = _numbers(previous or {}), _numbers(new)
    pairs = ((before.get(name) or 0, after.get(name) or 0) for name in before.keys() | after.keys())
    return max((abs(a - b) / max(a, b, 1) for a, b in pairs), default=0.0)


def _demand(
    reading: DemandReading | None, previous: Mapping[str, Json], now_iso: str
) -> Mapping[str, Json] | None:
    """Coarse demand; `observedAt` stays while the coarse numbers do."""
    before: Mapping[str, Json] | None = previous.get("demand")
    if reading is None or reading.demand is None:
        return before
    numbers = _coarse_demand(reading.demand)
    if before is not None and {**before, "observedAt": None} == {**numbers, "observedAt": None}:
        return before
    return {**numbers, "observedAt": now_iso}


def _coarse_demand(demand: Demand) -> dict[str, Json]:
    return _without_none(
        {
            "ready": coarse(demand.ready),
            "running": coarse(demand.running),
            "delayed": coarse(demand.delayed),
            "dead": coarse(demand.dead),
            "oldestSeconds": None if demand.oldest_seconds is None else coarse(demand.oldest_seconds),
        }
    )


def coarse(amount: float) -> int:
    """`amount` as a whole number, from 100 on rounded to two digits, so that noise is no news."""
    whole = round(amount)
    return whole if whole < 100 else round(whole, 2 - len(str(whole)))


def _last_scale(seen: Situation) -> Mapping[str, Json] | None:
    """The latest change of size: this decision's, where it changes the size and was not noted before."""
    before: Mapping[str, Json] | None = seen.previous.get("lastScale")
    decision, fleet = seen.decision, seen.fleet
    if decision is None or decision.replicas == fleet.desired:
        return before
    if before is not None and (before["from"], before["to"]) == (fleet.desired, decision.replicas):
        return before
    return {
        "from": fleet.desired,
        "to": decision.replicas,
        "reason": decision.reason.value,
        "message": decision.message[:MESSAGE_CHARACTERS],
        "at": seen.now_iso,
    }


def _gpu(queue: AstridQueue, decision: ScalingDecision | None) -> dict[str, Json] | None:
    count = queue.spec.gpu.count
    if not count or decision is None:
        return None
    gpu: dict[str, Json] = {"wanted": decision.wanted * count, "granted": decision.replicas * count}
    if decision.held_by:
        gpu["heldBy"] = list(decision.held_by[:HOLDERS_TOLD])
    return gpu


def _decided(status: Mapping[str, Json]) -> Json:
    """The parts of a status whose change is told at once."""
    conditions = [
        (each["type"], each["status"], each["reason"], each.get("observedGeneration"))
        for each in status.get("conditions", ())
    ]
    last = status.get("lastScale") or {}
    changes = (last.get("from"), last.get("to"), last.get("at"))
    return (
        conditions,
        changes,
        *(status.get(name) for name in ("observedGeneration", "desiredReplicas", "selector")),
    )


def _numbers(status: Mapping[str, Json]) -> dict[str, int]:
    """The parts of a status that move by themselves."""
    parts = {
        "": {name: status.get(name, 0) for name in MEMBER_COUNTS},
        "demand.": status.get("demand") or {},
        "gpu.": status.get("gpu") or {},
    }
    return {
        f"{part}{name}": value
        for part, values in parts.items()
        for name, value in values.items()
        if isinstance(value, int)
    }


def _without_none(values: Mapping[str, Json]) -> dict[str, Json]:
    return {name: value for name, value in values.items() if value is not None}
