"""When a fleet that is larger than it need be may shrink, and to how many.

Owns the rows of rules that keep it as it is: each says why, and until when. Never asks for more members.
"""

import math
from collections.abc import Callable

from astrid_operator.astrid_queue import AstridQueueSpec, Paused
from astrid_operator.scaling_growth import SURPLUS_SECONDS, Situation, Wanted, messages, seconds
from astrid_operator.scaling_memory import BURST_SECONDS
from astrid_operator.scaling_values import Reason, ScalingMemory
from astrid_operator.values import value

#: Seconds after its start for which an operator only grows: it has not seen yet how long fleets are idle.
GROW_ONLY_SECONDS = 30.0

#: Part of a fleet that may be surplus without being worth a change: arrivals are never even.
DEAD_BAND = 0.1


@value
class Size:
    """How many members there shall be, the rule that says so, what writes the whole sentence, and when it may
    be over although nothing happens (None: never).
    """

    replicas: int
    reason: Reason
    told: Callable[[], str]
    until: float | None = None


@value
class Hold:
    """Why a fleet is not shrunk now, and when that may be over (None: when something happens)."""

    reason: Reason
    why: Callable[[], str]
    until: float | None = None


def shrunk(it: Situation, wanted: Wanted) -> Size:
    """The size where `wanted` is less than there is: past every hold, else as it is."""
    for row in HOLDS:
        hold = row(it)
        if hold is not None:
            return _kept(it, wanted, hold)
    if _is_rested(it):
        return _smaller(
            wanted.replicas,
            lambda: f"idle for {seconds(it.memory.idle_seconds)}; {wanted.why()}",
            _peak_leaves_at(it),
        )
    replicas = max(wanted.replicas, 1, it.fleet.desired - _removable(it))
    return _smaller(replicas, lambda: f"{_why_removable(it)}; {wanted.message}", _more_may_leave_at(it))


def may_shrink(policy: AstridQueueSpec, memory: ScalingMemory, now: float) -> bool:
    """Whether others may have members of this fleet: not while an operator that took it over only grows, nor
    while what is read is not trusted yet, nor where a person forbade it.
    """
    is_new = memory.is_inherited and now < memory.started_at + GROW_ONLY_SECONDS
    return not (is_new or now < memory.untrusted_until or policy.paused is Paused.SCALE_IN)


def _more_may_leave_at(it: Situation) -> float | None:
    """When more may leave than may now although nothing happens; None: not by itself."""
    if it.is_idle:
        return _sooner(it.now + it.idle_seconds - it.memory.idle_seconds, _peak_leaves_at(it))
    old_at = _surplus_is_old_at(it)
    until = _sooner(_next_is_idle_at(it), _peak_leaves_at(it))
    return min(until, old_at) if it.now < old_at else until


def _smaller(replicas: int, why: Callable[[], str], until: float | None) -> Size:
    reason = Reason.IDLE if replicas == 0 else Reason.SURPLUS
    return Size(replicas, reason, lambda: f"{replicas} wanted: {why()}", until)


def _kept(it: Situation, wanted: Wanted, hold: Hold) -> Size:
    kept = it.fleet.desired
    return Size(kept, hold.reason, lambda: f"{kept} kept: {hold.why()}; {wanted.message}", hold.until)


def _just_started(it: Situation) -> Hold | None:
    until = it.memory.started_at + GROW_ONLY_SECONDS
    if it.now >= until:
        return None
    return Hold(
        Reason.NOT_TRUSTED_YET,
        lambda: f"for its first {GROW_ONLY_SECONDS:.0f} s an operator only grows",
        until,
    )


def _untrusted(it: Situation) -> Hold | None:
    until, why = it.memory.untrusted_until, it.memory.untrusted_why
    return Hold(Reason.NOT_TRUSTED_YET, lambda: why, until) if it.now < until else None


def _in_burst(it: Situation) -> Hold | None:
    """A burst keeps members no longer than idleness would."""
    until = it.memory.burst_until - max(0.0, BURST_SECONDS - it.idle_seconds)
    return Hold(Reason.BURST, lambda: "messages have begun to come faster", until) if it.now < until else None


def _members_unknown(it: Situation) -> Hold | None:
    """The careful rule: nobody can say which member is busy, so all must be idle."""
    if it.demand.members is not None or it.is_idle:
        return None
    return Hold(
        Reason.STILL_BUSY, lambda: f"{messages(it.work)} to do, and which members are busy is not known"
    )


def _not_idle_for_long(it: Situation) -> Hold | None:
    limit, idle_seconds = it.idle_seconds, it.memory.idle_seconds
    if not it.is_idle or _is_rested(it) or (it.fleet.desired > 1 and _surplus(it)):
        return None
    until = _sooner(it.now + limit - idle_seconds, _peak_leaves_at(it))
    return Hold(Reason.COOLING_DOWN, lambda: f"idle for {seconds(idle_seconds)} of {limit:g} s", until)


def _all_busy(it: Situation) -> Hold | None:
    if it.is_idle or _removable(it) > 0:
        return None
    limit = it.idle_seconds
    until = _sooner(_next_is_idle_at(it), _peak_leaves_at(it))
    return Hold(Reason.STILL_BUSY, lambda: f"no member has been idle for {limit:g} s", until)


def _surplus_is_young(it: Situation) -> Hold | None:
    """While there is work, fewer members must have been enough without a break."""
    until = _surplus_is_old_at(it)
    if it.is_idle or it.now >= until or _surplus(it):
        return None
    since = _surplus_since(it)
    until = _sooner(until, _peak_leaves_at(it))
    return Hold(
        Reason.COOLING_DOWN, lambda: f"fewer have been enough for {seconds(it.now - since)} only", until
    )


HOLDS: tuple[Callable[[Situation], Hold | None], ...] = (
    _just_started,
    _untrusted,
    _in_burst,
    _members_unknown,
    _not_idle_for_long,
    _all_busy,
    _surplus_is_young,
)


def _surplus_since(it: Situation) -> float:
    since = it.memory.surplus_since
    return it.now if since is None else since


def _surplus_is_old_at(it: Situation) -> float:
    return _surplus_since(it) + max(SURPLUS_SECONDS, 2 * it.start_seconds)


def _is_rested(it: Situation) -> bool:
    """Nothing has been there to do for as long as members may be kept for."""
    return it.is_idle and it.memory.idle_seconds >= it.idle_seconds


def _removable(it: Situation) -> int:
    """Members that may leave although there is, or was lately, work; 0 while some are still to come."""
    return max(_long_idle(it), _surplus(it))


def _long_idle(it: Situation) -> int:
    """Members idle for long enough, less those that are leaving."""
    members, limit = it.demand.members, it.idle_seconds
    return 0 if members is None else _free(it, sum(each >= limit for each in members.idle_seconds))


def _surplus(it: Situation) -> int:
    """Idle members beyond what was wanted at any time of the last `surplus_seconds`.

    Messages go to any member, so in a fleet that is a little too large each is idle for a while and none for
    long: what has been idle then is not a certain member but capacity. A tenth of the fleet is let pass.
    """
    members, since, peaks = it.demand.members, it.memory.watched_since, it.memory.peaks
    if members is None or since is None or not peaks or it.now < since + it.surplus_seconds:
        return 0
    surplus = it.fleet.desired - peaks[0][1]
    if surplus <= DEAD_BAND * it.fleet.desired:
        return 0
    return min(surplus, _free(it, len(members.idle_seconds)))


def _peak_leaves_at(it: Situation) -> float | None:
    """When what was wanted lately is not lately any more; None: it is what is wanted now."""
    since, peaks, length = it.memory.watched_since, it.memory.peaks, it.surplus_seconds
    if it.demand.members is None or since is None or not peaks:
        return None
    if it.now < since + length:
        return since + length
    return peaks[0][0] if len(peaks) > 1 else None


def _next_is_idle_at(it: Situation) -> float:
    """When the next member will have been idle for long enough; infinity: nobody is still to be."""
    members, limit = it.demand.members, it.idle_seconds
    longest = max((each for each in members.idle_seconds if each < limit), default=None) if members else None
    return math.inf if longest is None else it.now + limit - longest


def _why_removable(it: Situation) -> str:
    if (surplus := _surplus(it)) > _long_idle(it):
        return f"{surplus} more than were needed at any time of {seconds(it.surplus_seconds)}"
    return f"{_long_idle(it)} idle for {it.idle_seconds:g} s and more"


def _sooner(one: float, other: float | None) -> float:
    return one if other is None else min(one, other)


def _free(it: Situation, idle: int) -> int:
    """`idle` members less those that are leaving already; 0 while some are still to come."""
    members, desired = it.demand.members, it.fleet.desired
    if members is None:
        return 0
    there = max(it.fleet.current, members.busy + len(members.idle_seconds))
    return max(0, idle - (there - desired)) if there >= desired else 0
