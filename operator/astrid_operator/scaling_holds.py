"""When a fleet that is larger than it need be may shrink, and to how many.

Owns the rows of rules that keep it as it is: each says why, and until when. Never asks for more members.
"""

from collections.abc import Callable
from dataclasses import dataclass

from astrid_operator.scaling_growth import Situation, Wanted, messages, seconds
from astrid_operator.scaling_memory import is_idle
from astrid_operator.scaling_values import Reason, ScalingDecision

#: Seconds after its start for which an operator only grows: it has not seen yet how long fleets are idle.
GROW_ONLY_SECONDS = 30.0

#: Seconds for which fewer members must have been enough before idle ones leave a queue that has work.
SURPLUS_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Hold:
    """Why a fleet is not shrunk now, and when that may be over (None: when an input changes)."""

    reason: Reason
    why: str
    until: float | None = None


def shrunk(it: Situation, wanted: Wanted) -> ScalingDecision:
    """The decision where `wanted` is less than there is: past every hold, else as it is."""
    for row in HOLDS:
        hold = row(it, wanted)
        if hold is not None:
            return _kept(it, wanted, hold)
    replicas = (
        wanted.replicas if is_idle(it.demand) else max(wanted.replicas, it.fleet.desired - _removable(it))
    )
    if is_idle(it.demand):
        why = f"idle for {seconds(it.memory.idle_seconds)}; {wanted.why}"
    else:
        why = f"{_removable(it)} idle for {it.policy.scaling.idle_seconds} s and more; {wanted.message}"
    reason = Reason.IDLE if replicas == 0 else Reason.SURPLUS
    return ScalingDecision(replicas, reason, f"{replicas} wanted: {why}")


def _kept(it: Situation, wanted: Wanted, hold: Hold) -> ScalingDecision:
    kept = it.fleet.desired
    return ScalingDecision(kept, hold.reason, f"{kept} kept: {hold.why}; {wanted.message}", hold.until)


def _just_started(it: Situation, _: Wanted) -> Hold | None:
    until = it.memory.started_at + GROW_ONLY_SECONDS
    if it.now >= until:
        return None
    return Hold(
        Reason.NOT_TRUSTED_YET, f"for its first {GROW_ONLY_SECONDS:.0f} s an operator only grows", until
    )


def _untrusted(it: Situation, _: Wanted) -> Hold | None:
    until = it.memory.untrusted_until
    return Hold(Reason.NOT_TRUSTED_YET, it.memory.untrusted_why, until) if it.now < until else None


def _in_burst(it: Situation, _: Wanted) -> Hold | None:
    until = it.memory.burst_until
    return Hold(Reason.BURST, "messages have begun to come faster", until) if it.now < until else None


def _members_unknown(it: Situation, _: Wanted) -> Hold | None:
    """The careful rule: nobody can say which member is busy, so all must be idle."""
    if it.demand.members is not None or is_idle(it.demand):
        return None
    return Hold(
        Reason.STILL_BUSY, f"{messages(it.demand.work)} to do, and which members are busy is not known"
    )


def _not_idle_for_long(it: Situation, _: Wanted) -> Hold | None:
    limit = it.policy.scaling.idle_seconds
    if not is_idle(it.demand) or it.memory.idle_seconds >= limit:
        return None
    left = limit - it.memory.idle_seconds
    return Hold(
        Reason.COOLING_DOWN, f"idle for {seconds(it.memory.idle_seconds)} of {limit} s", it.now + left
    )


def _all_busy(it: Situation, _: Wanted) -> Hold | None:
    if is_idle(it.demand) or _removable(it) > 0:
        return None
    return Hold(Reason.STILL_BUSY, f"no member has been idle for {it.policy.scaling.idle_seconds} s")


def _surplus_is_young(it: Situation, _: Wanted) -> Hold | None:
    """While there is work, fewer members must have been enough without a break."""
    since = it.memory.surplus_since if it.memory.surplus_since is not None else it.now
    until = since + max(SURPLUS_SECONDS, 2 * it.start_seconds)
    if is_idle(it.demand) or it.now >= until:
        return None
    return Hold(Reason.COOLING_DOWN, f"fewer have been enough for {seconds(it.now - since)} only", until)


HOLDS: tuple[Callable[[Situation, Wanted], Hold | None], ...] = (
    _just_started,
    _untrusted,
    _in_burst,
    _members_unknown,
    _not_idle_for_long,
    _all_busy,
    _surplus_is_young,
)


def _removable(it: Situation) -> int:
    """Members idle for long enough, less those that are leaving; 0 while some are still to come."""
    members, limit, desired = it.demand.members, it.policy.scaling.idle_seconds, it.fleet.desired
    if members is None:
        return 0
    there = max(it.fleet.current, members.busy + len(members.idle_seconds))
    idle = sum(each >= limit for each in members.idle_seconds)
    return max(0, idle - (there - desired)) if there >= desired else 0
