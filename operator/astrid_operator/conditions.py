"""The conditions of an AstridQueue: what was seen and decided, as a person and a script read it.

Owns the table below, and when a condition gets a new time. Pure: no clock, no client. Never invents what is
not known.

    condition        True                              False
    Ready            Idle AtSize Paused Disabled       Progressing WorkersUnhealthy BrokerUnreachable,
                                                       and the reason why it is stalled
    Reconciling      Creating RollingOut Scaling       Applied
                     Retrying
    Stalled          InvalidSpec QueueTaken            AsExpected
                     BrokerNotConfigured QuotaExceeded
    ScalingActive    Auto                              Manual Paused Disabled BrokerUnreachable NotTrustedYet
    BrokerReachable  DemandRead                        BrokerUnreachable
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from astrid_operator.astrid_queue import AstridQueue, Paused, ScalingMode
from astrid_operator.fleet import FleetState
from astrid_operator.scaling import DemandReading, Reason, ScalingDecision

Json = Any

#: Demand that was read within so many seconds counts as known to whoever reads the condition.
REACHABLE_SECONDS = 10.0
#: Longest message that the schema takes.
MESSAGE_CHARACTERS = 1024


@dataclass(frozen=True, slots=True)
class Trouble:
    """What keeps an AstridQueue from going on: a CamelCase reason and a sentence."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class _Verdict:
    """One condition before it gets its times."""

    type: str
    status: str
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Situation:
    """All that the table looks at."""

    queue: AstridQueue
    fleet: FleetState
    reading: DemandReading | None
    decision: ScalingDecision | None
    previous: Mapping[str, Json]
    now_iso: str
    stalled: Trouble | None
    retrying: str


def conditions_of(seen: Situation) -> list[dict[str, Json]]:
    """All conditions (wire form)."""
    is_reachable = _broker_reachable(seen)
    verdicts = [
        _ready(seen, is_reachable.status),
        _reconciling(seen),
        _stalled(seen),
        _scaling_active(seen, is_reachable.status),
        is_reachable,
    ]
    return _conditions(verdicts, seen.queue.generation, seen.previous, seen.now_iso)


def invalid_conditions(
    generation: int, trouble: Trouble, previous: Mapping[str, Json], now_iso: str
) -> list[dict[str, Json]]:
    """The conditions of an object that cannot be parsed: stalled, everything else as it was known last."""
    verdicts = [
        _Verdict("Ready", "False", trouble.reason, trouble.message),
        _Verdict("Reconciling", "False", trouble.reason, "The last good fleet is left as it is"),
        _Verdict("Stalled", "True", trouble.reason, trouble.message),
        _as_before("ScalingActive", previous, trouble),
        _as_before("BrokerReachable", previous, trouble),
    ]
    return _conditions(verdicts, generation, previous, now_iso)


def _ready(seen: Situation, broker: str) -> _Verdict:
    status, reason, message = _readiness(seen, broker)
    return _Verdict("Ready", status, reason, message)


def _readiness(seen: Situation, broker: str) -> tuple[str, str, str]:
    fleet, decision = seen.fleet, seen.decision
    if seen.stalled is not None:
        return "False", seen.stalled.reason, seen.stalled.message
    if decision is None:
        return "Unknown", "Progressing", "Nothing was decided yet"
    if decision.reason is Reason.BROKER_UNREACHABLE and broker == "False":
        return "False", "BrokerUnreachable", f"Demand is not known; the fleet is kept at {decision.replicas}"
    if _has_size(fleet, decision) and fleet.settled:
        return "True", _size_reason(seen.queue, decision), f"{_members(fleet.ready)}, as decided"
    counts = f"{fleet.ready} of {_members(decision.replicas)} ready"
    if fleet.quota_exceeded:
        return "False", "QuotaExceeded", f"{counts}: {fleet.quota_exceeded}"
    if fleet.unhealthy and fleet.ready < decision.replicas:
        return "False", "WorkersUnhealthy", f"{counts}: {fleet.unhealthy}"
    starting = f", {fleet.starting} starting" if fleet.starting else ""
    waiting = f", {fleet.unscheduled} without a place" if fleet.unscheduled else ""
    return "False", "Progressing", f"{counts}{starting}{waiting}"


def _size_reason(queue: AstridQueue, decision: ScalingDecision) -> str:
    if not queue.spec.enabled:
        return "Disabled"
    if queue.spec.paused is Paused.ALL:
        return "Paused"
    return "AtSize" if decision.replicas else "Idle"


def _reconciling(seen: Situation) -> _Verdict:
    status, reason, message = _change(seen)
    return _Verdict("Reconciling", status, reason, message)


def _change(seen: Situation) -> tuple[str, str, str]:
    fleet, decision = seen.fleet, seen.decision
    if seen.stalled is not None:
        return "False", seen.stalled.reason, "It is not brought to its spec until a person has acted"
    if seen.retrying:
        return "True", "Retrying", seen.retrying
    if not fleet.exists:
        return "True", "Creating", "The fleet is being created"
    if not fleet.settled:
        return "True", "RollingOut", f"{fleet.updated} of {_members(fleet.current)} run the present settings"
    if decision is not None and not _has_size(fleet, decision):
        return "True", "Scaling", f"{fleet.ready} of {_members(decision.replicas)} ready"
    return "False", "Applied", "All is applied"


def _stalled(seen: Situation) -> _Verdict:
    if seen.stalled is not None:
        return _Verdict("Stalled", "True", seen.stalled.reason, seen.stalled.message)
    if seen.fleet.quota_exceeded:
        return _Verdict("Stalled", "True", "QuotaExceeded", seen.fleet.quota_exceeded)
    return _Verdict("Stalled", "False", "AsExpected", "Nothing needs a person")


def _scaling_active(seen: Situation, broker: str) -> _Verdict:
    decision = seen.decision
    if decision is None:
        trouble = seen.stalled or Trouble("Progressing", "Nothing was decided yet")
        return _Verdict("ScalingActive", "Unknown", trouble.reason, trouble.message)
    why_not = _why_inactive(seen.queue, decision, broker)
    if why_not is not None:
        return _Verdict("ScalingActive", "False", why_not.value, decision.message)
    return _Verdict("ScalingActive", "True", "Auto", decision.message)


def _why_inactive(queue: AstridQueue, decision: ScalingDecision, broker: str) -> Reason | None:
    """Why it is not demand that decides; a pause of one direction leaves the other to it."""
    if not queue.spec.enabled:
        return Reason.DISABLED
    if queue.spec.paused is Paused.ALL:
        return Reason.PAUSED
    if queue.spec.scaling.mode is ScalingMode.MANUAL:
        return Reason.MANUAL
    if decision.reason is Reason.BROKER_UNREACHABLE and broker == "False":
        return Reason.BROKER_UNREACHABLE
    return Reason.NOT_TRUSTED_YET if decision.reason is Reason.NOT_TRUSTED_YET else None


def _broker_reachable(seen: Situation) -> _Verdict:
    status, reason, message = _reach(seen.reading, _condition(seen.previous, "BrokerReachable"), seen.now_iso)
    return _Verdict("BrokerReachable", status, reason, message)


def _reach(
    reading: DemandReading | None, before: Mapping[str, Json] | None, now_iso: str
) -> tuple[str, str, str]:
    age = None if reading is None else reading.unread_seconds
    if age is not None and age <= REACHABLE_SECONDS:
        return "True", "DemandRead", "Demand was read"
    trouble = reading.trouble if reading is not None else ""
    if age is None and not _has_waited(before, now_iso):
        return "Unknown", "NotReadYet", trouble or "Demand was not read yet"
    since = _earlier(now_iso, age) if age is not None else None
    if before is not None and before["status"] == "False" and before["message"].endswith(trouble):
        return "False", "BrokerUnreachable", before["message"]
    known = f"not read since {since}" if since else "never read"
    return "False", "BrokerUnreachable", f"Demand was {known}{': ' if trouble else ''}{trouble}"


def _has_waited(before: Mapping[str, Json] | None, now_iso: str) -> bool:
    """The first reading has been waited for long enough to call the broker unreachable."""
    if before is None or before["status"] == "True":
        return False
    waited = _time(now_iso) - _time(before["lastTransitionTime"])
    return before["status"] == "False" or waited >= timedelta(seconds=REACHABLE_SECONDS)


def _as_before(kind: str, previous: Mapping[str, Json], trouble: Trouble) -> _Verdict:
    before = _condition(previous, kind)
    if before is None:
        return _Verdict(kind, "Unknown", trouble.reason, "Not looked at: the object could not be read")
    return _Verdict(kind, before["status"], before["reason"], before["message"])


def _conditions(
    verdicts: Sequence[_Verdict], generation: int, previous: Mapping[str, Json], now_iso: str
) -> list[dict[str, Json]]:
    return [_timed(verdict, generation, _condition(previous, verdict.type), now_iso) for verdict in verdicts]


def _timed(
    verdict: _Verdict, generation: int, before: Mapping[str, Json] | None, now_iso: str
) -> dict[str, Json]:
    has_flipped = before is None or before["status"] != verdict.status
    return {
        "type": verdict.type,
        "status": verdict.status,
        "reason": verdict.reason,
        "message": verdict.message[:MESSAGE_CHARACTERS],
        "observedGeneration": generation,
        "lastTransitionTime": now_iso if before is None or has_flipped else before["lastTransitionTime"],
    }


def _condition(status: Mapping[str, Json], kind: str) -> Mapping[str, Json] | None:
    found: Mapping[str, Json] | None = next(
        (each for each in status.get("conditions", ()) if each["type"] == kind), None
    )
    return found


def _has_size(fleet: FleetState, decision: ScalingDecision) -> bool:
    return fleet.exists and fleet.desired == fleet.current == fleet.ready == decision.replicas


def _members(count: int) -> str:
    return "1 member" if count == 1 else f"{count} members"


def _earlier(now_iso: str, seconds: float) -> str:
    return (_time(now_iso) - timedelta(seconds=round(seconds))).strftime("%Y-%m-%dT%H:%M:%SZ")


def _time(iso: str) -> datetime:
    return datetime.fromisoformat(iso)
