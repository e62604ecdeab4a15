"""How many members a fleet shall have: policy, demand, fleet and memory in, one decision out.

Owns the order in which the rules are asked. Pure: no clock, no client, no settings; the same arguments give
the same answer, on a cluster, on one machine and in a simulation. Never shrinks a fleet that may be busy, and
never takes what is unknown for nothing.

    enabled > paused > Manual > Auto
    Auto: what demand justifies (scaling_growth) > floor > ceiling > room
          more than there is: in one step; less: only past every hold (scaling_holds)
"""

import math
from collections.abc import Callable
from dataclasses import replace

from astrid_operator.astrid_queue import AstridQueueSpec, Paused, ScalingMode
from astrid_operator.fleet import FleetState
from astrid_operator.scaling_growth import (
    Situation,
    Wanted,
    lull_seconds,
    older_at,
    seconds,
    wanted_by_demand,
)
from astrid_operator.scaling_holds import Size, may_shrink, shrunk
from astrid_operator.scaling_memory import decided, remember, unwatched, watched, with_peak
from astrid_operator.scaling_values import (
    Demand,
    DemandReading,
    MembersSeen,
    Reason,
    ScalingDecision,
    ScalingMemory,
)

__all__ = [
    "Demand",
    "DemandReading",
    "MembersSeen",
    "Reason",
    "ScalingDecision",
    "ScalingMemory",
    "decide",
    "limited",
]

#: Seconds that a pod has beyond `timeoutSeconds` to end what it runs.
GRACE_SECONDS = 60


def decide(
    policy: AstridQueueSpec, reading: DemandReading, fleet: FleetState, memory: ScalingMemory, now: float
) -> tuple[ScalingDecision, ScalingMemory]:
    """The size that the fleet shall have now, and what to remember until the next decision.

    Times are monotonic seconds of one clock. Deciding again on the same arguments with the decision carried
    out gives the same size.
    """
    memory = remember(reading, fleet.current * policy.slots, memory, now)
    decision, memory = _decision(policy, reading, fleet, memory, now)
    if not may_shrink(policy, memory, now):
        decision = replace(decision, may_shrink=False)
    return decision, decided(memory, decision.replicas)


def limited(
    decision: ScalingDecision, granted: int, why: str, held_by: tuple[str, ...] = ()
) -> ScalingDecision:
    """`decision` where a budget grants only `granted` members; unchanged where that is enough."""
    if granted >= decision.replicas:
        return decision
    return replace(
        decision,
        replicas=granted,
        reason=Reason.SCALE_LIMITED,
        told=lambda: f"{granted} of {decision.replicas} granted: {why}; {decision.message}",
        held_by=held_by,
    )


def _decision(
    policy: AstridQueueSpec, reading: DemandReading, fleet: FleetState, memory: ScalingMemory, now: float
) -> tuple[ScalingDecision, ScalingMemory]:
    there = fleet if fleet.exists else replace(fleet, desired=memory.decided or 0)
    if not policy.enabled:
        decision = _disabled(policy)
    elif policy.paused is Paused.ALL:
        decision = _kept(there, Reason.PAUSED, lambda: "paused is All")
    elif policy.scaling.mode is ScalingMode.MANUAL:
        decision = _within_pause(_manual(policy), policy, there)
    elif reading.demand is None:
        decision = _frozen(reading, there)
    else:
        it = Situation(policy, reading.demand, fleet, memory, now)
        return _within_pause(_auto(it), policy, there), it.memory
    return decision, unwatched(memory)


def _disabled(policy: AstridQueueSpec) -> ScalingDecision:
    grace = policy.timeout_seconds + GRACE_SECONDS
    return ScalingDecision(
        0, Reason.DISABLED, f"0 wanted: enabled is false; running tasks have {grace} s to end"
    )


def _manual(policy: AstridQueueSpec) -> ScalingDecision:
    count = min(policy.replicas, policy.scaling.max_replicas)
    return ScalingDecision(count, Reason.MANUAL, f"{count} wanted: replicas, in Manual mode", wanted=count)


def _frozen(reading: DemandReading, fleet: FleetState) -> ScalingDecision:
    age = reading.unread_seconds
    known = "was never read" if age is None else f"was not read for {seconds(age)}"
    trouble = f": {reading.trouble}" if reading.trouble else ""
    return _kept(fleet, Reason.BROKER_UNREACHABLE, lambda: f"demand {known}{trouble}")


def _kept(fleet: FleetState, reason: Reason, why: Callable[[], str]) -> ScalingDecision:
    kept = fleet.desired
    return ScalingDecision(kept, reason, lambda: f"{kept} kept: {why()}", wanted=kept)


def _within_pause(decision: ScalingDecision, policy: AstridQueueSpec, fleet: FleetState) -> ScalingDecision:
    """`decision`, held back where `paused` forbids its direction."""
    shrinks, grows = decision.replicas < fleet.desired, decision.replicas > fleet.desired
    if not ((policy.paused is Paused.SCALE_IN and shrinks) or (policy.paused is Paused.SCALE_OUT and grows)):
        return decision
    held = _kept(fleet, Reason.PAUSED, lambda: f"paused is {policy.paused}; {decision.message}")
    return replace(held, look_again_at=decision.look_again_at, wanted=decision.wanted)


# ------------------------------------------------------------------------------------------------ Auto


def _auto(it: Situation) -> ScalingDecision:
    """The decision; what is to be remembered is in the memory of `it` afterwards."""
    wanted = _with_ceiling(it, _with_floor(it, wanted_by_demand(it)))
    _remember_room(it)
    placed = _with_room(it, wanted)
    _remember_surplus(it, placed)
    size = _stepped(it, placed)
    return ScalingDecision(
        replicas=size.replicas,
        reason=size.reason,
        told=size.told,
        look_again_at=_next_look(it, size.until, older_at(it, wanted)),
        wanted=wanted.replicas,
        task_seconds=it.task_seconds,
        lull_seconds=lull_seconds(it),
    )


def _stepped(it: Situation, wanted: Wanted) -> Size:
    """Up in one step; down past the holds, but to what may be at most at once."""
    if wanted.replicas < it.fleet.desired:
        return _at_most(it, shrunk(it, wanted))
    return Size(wanted.replicas, wanted.reason, lambda: _asked_for(it, wanted))


def _asked_for(it: Situation, wanted: Wanted) -> str:
    starting = it.fleet.starting + it.fleet.unscheduled
    return f"{wanted.message}; {starting} already starting" if starting else wanted.message


def _at_most(it: Situation, size: Size) -> Size:
    room, ceiling = _room(it), it.policy.scaling.max_replicas
    most = min(room, ceiling)
    if size.replicas <= most:
        return size
    reason, what = (Reason.NO_ROOM, "room") if room < ceiling else (Reason.CEILING, "scaling.maxReplicas")
    return Size(most, reason, lambda: f"{most} at most: {what}; {size.told()}", size.until)


def _with_floor(it: Situation, wanted: Wanted) -> Wanted:
    floor = it.policy.floor
    if wanted.replicas >= floor:
        return wanted
    return Wanted(floor, Reason.FLOOR, lambda: f"{_whose_floor(it.policy)}; else {wanted.message}")


def _whose_floor(policy: AstridQueueSpec) -> str:
    if policy.replicas > policy.scaling.min_replicas:
        return "replicas, which in Auto mode is a floor and never a ceiling"
    return "scaling.minReplicas"


def _with_ceiling(it: Situation, wanted: Wanted) -> Wanted:
    most = it.policy.scaling.max_replicas
    if wanted.replicas <= most:
        return wanted
    return Wanted(most, Reason.CEILING, lambda: f"scaling.maxReplicas; else {wanted.message}")


def _with_room(it: Situation, wanted: Wanted) -> Wanted:
    room = _room(it)
    if wanted.replicas <= room:
        return wanted
    limit = it.policy.scaling.unschedulable_seconds
    return Wanted(room, Reason.NO_ROOM, lambda: f"more fitted nowhere for {limit} s; else {wanted.message}")


def _room(it: Situation) -> int:
    """Members that may be asked for, as far as places are known: no bound unless some fitted nowhere.

    Those of the floor keep waiting for a place, and so does one, so that work begins when there is one.
    """
    if it.now >= it.memory.no_room_until:
        return it.policy.scaling.max_replicas
    placed = it.fleet.current - it.fleet.unscheduled if _waits_too_long(it) else it.fleet.desired
    return max(min(placed, it.fleet.desired), it.policy.floor, 1)


def _waits_too_long(it: Situation) -> bool:
    since = it.fleet.unschedulable_since
    return since is not None and it.now - since >= it.policy.scaling.unschedulable_seconds


def _remember_room(it: Situation) -> None:
    if _waits_too_long(it):
        until = it.now + it.policy.scaling.unschedulable_seconds
        it.memory = replace(it.memory, no_room_until=until)


def _remember_surplus(it: Situation, wanted: Wanted) -> None:
    memory, surplus_since = it.memory, it.memory.surplus_since
    if wanted.replicas >= it.fleet.desired:
        surplus_since = None
    elif surplus_since is None:
        surplus_since = it.now
    watched_since = it.now if memory.watched_since is None else memory.watched_since
    peaks = with_peak(memory.peaks, wanted.replicas, it.now, it.surplus_seconds)
    it.memory = watched(memory, surplus_since, watched_since, peaks)


def _next_look(it: Situation, *times: float | None) -> float | None:
    """The earliest time at which the answer may change although nothing happens until then."""
    now, due, waiting = it.now, it.demand.next_due_seconds, it.fleet.unschedulable_since
    earliest = math.inf
    for time in (
        *times,
        None if due is None else now + due - it.wake_seconds,
        None if waiting is None else waiting + it.policy.scaling.unschedulable_seconds,
        it.memory.no_room_until,
        # from then on arrivals are those of the long window
        it.memory.burst_until,
    ):
        if time is not None and now < time < earliest:
            earliest = time
    return None if earliest == math.inf else earliest
