"""What a new reading adds to the memory of a queue.

Owns when an empty queue is believed, what counts as idle time and what is a burst. Decides no size
(`scaling.py` does), and has no clock: `now` is an argument.
"""

import math
from dataclasses import replace

from astrid_operator.scaling_values import Demand, DemandReading, ScalingMemory

#: Seconds for which a Redis that came back, or came back changed, is not believed enough to shrink on. Long
#: enough for producers and a fail-over to settle.
TRUST_SECONDS = 60.0

#: Seconds that the first reading may take before its absence counts as an outage.
FIRST_READ_SECONDS = 10.0

#: Seconds for which messages that come faster forbid to shrink.
BURST_SECONDS = 60.0

#: A burst: the short window sees more than this many times the arrivals of the long one.
BURST_FACTOR = 2.0
#: Fewer messages per second than this are no burst: a single one is many times nothing.
BURST_LEAST_PER_S = 1.0

#: What was wanted lately is noted for stretches of so many seconds, so that a fleet shrinks in few steps.
PEAK_SECONDS = 5.0

#: (until when it counts, size), sizes falling; the last is what is wanted now.
Peaks = tuple[tuple[float, int], ...]

#: Task time assumed where none is known, only to tell a quick drain from a flushed queue.
QUICK_TASK_SECONDS = 0.05


def remember(reading: DemandReading, slots: int, memory: ScalingMemory, now: float) -> ScalingMemory:
    """`memory` after `reading`; `slots` is how many tasks the fleet can run at a time."""
    demand = reading.demand
    if demand is None:
        return replace(unwatched(memory), at=reading.at, was_known=False)
    why = _why_not_to_trust(reading, demand, slots, memory)
    # every field by hand: `replace` takes ten times as long, and this is done for each decision
    return ScalingMemory(
        memory.started_at,
        memory.decided,
        reading.at,
        True,
        demand,
        reading.server or memory.server,
        _idle_seconds(reading, demand, memory),
        now + TRUST_SECONDS if why else memory.untrusted_until,
        why or memory.untrusted_why,
        memory.surplus_since,
        memory.watched_since,
        memory.peaks,
        now + BURST_SECONDS if is_burst(demand) else memory.burst_until,
        memory.no_room_until,
        memory.is_inherited,
    )


def watched(
    memory: ScalingMemory, surplus_since: float | None, watched_since: float, peaks: Peaks
) -> ScalingMemory:
    """`memory` with what was seen of how many are wanted; itself where that is as it was."""
    if (
        surplus_since == memory.surplus_since
        and watched_since == memory.watched_since
        and peaks == memory.peaks
    ):
        return memory
    return _again(memory, memory.decided, surplus_since, watched_since, peaks)


def decided(memory: ScalingMemory, replicas: int) -> ScalingMemory:
    """`memory` after `replicas` were decided; itself where that is as it was."""
    if memory.decided == replicas:
        return memory
    return _again(memory, replicas, memory.surplus_since, memory.watched_since, memory.peaks)


def _again(
    memory: ScalingMemory,
    decided: int | None,
    surplus_since: float | None,
    watched_since: float | None,
    peaks: Peaks,
) -> ScalingMemory:
    """`memory` with what changes after it has taken in a reading."""
    return ScalingMemory(
        memory.started_at,
        decided,
        memory.at,
        memory.was_known,
        memory.demand,
        memory.server,
        memory.idle_seconds,
        memory.untrusted_until,
        memory.untrusted_why,
        surplus_since,
        watched_since,
        peaks,
        memory.burst_until,
        memory.no_room_until,
        memory.is_inherited,
    )


def unwatched(memory: ScalingMemory) -> ScalingMemory:
    """`memory` where nobody sees how many are wanted: the watch begins anew."""
    if memory.surplus_since is None and memory.watched_since is None and not memory.peaks:
        return memory
    return replace(memory, surplus_since=None, watched_since=None, peaks=())


def with_peak(peaks: Peaks, wanted: int, now: float, seconds: float) -> Peaks:
    """`peaks` after `wanted` was found at `now`; each counts for `seconds` from when it was wanted last.

    What was found last held until now. Times are rounded up to `PEAK_SECONDS`.
    """
    until = noted_until(now) + seconds
    if not peaks:
        return ((until, wanted),)
    earlier, last = peaks[:-1], peaks[-1][1]
    if wanted < last:
        earlier = (*earlier, (until, last))
    return (*[each for each in earlier if each[1] > wanted and each[0] > now], (until, wanted))


def noted_until(now: float) -> float:
    """The end of the stretch that `now` lies in: what is wanted at any time of it is noted alike."""
    return math.ceil(now / PEAK_SECONDS) * PEAK_SECONDS


def is_idle(demand: Demand) -> bool:
    """Nothing waits, runs or is due, and no member says that it is busy."""
    return demand.work == 0 and (demand.members is None or demand.members.busy == 0)


def is_burst(demand: Demand) -> bool:
    """Messages come much faster than they used to."""
    fast, slow = demand.arrivals_per_s_fast, demand.arrivals_per_s_slow
    return fast is not None and slow is not None and is_burst_of(fast, slow)


def is_burst_of(fast: float, slow: float) -> bool:
    """The same of two rates: messages per second over the short and the long window."""
    return fast > BURST_LEAST_PER_S and fast > BURST_FACTOR * slow


def _idle_seconds(reading: DemandReading, demand: Demand, memory: ScalingMemory) -> float:
    if not is_idle(demand):
        return 0.0
    was_idle = memory.was_known and memory.demand is not None and is_idle(memory.demand)
    passed = reading.at - memory.at if was_idle and memory.at is not None else 0.0
    return memory.idle_seconds + max(0.0, passed)


def _why_not_to_trust(reading: DemandReading, demand: Demand, slots: int, memory: ScalingMemory) -> str:
    """Why an empty queue should not be believed from here on; empty: nothing speaks against it."""
    if not memory.was_known and _is_back(reading, memory):
        return "Redis answers again after an outage"
    if reading.server is not None and memory.server not in (None, reading.server):
        return "another Redis server answers, or the same one after a restart"
    if not demand.outstanding and _vanished(demand, slots, memory, reading.at):
        return "messages vanished faster than they could have been worked off"
    return ""


def _is_back(reading: DemandReading, memory: ScalingMemory) -> bool:
    """Whether what was not known was an outage: that nothing was read in the first moments is none."""
    if memory.at is None:
        return False
    return memory.demand is not None or reading.at - memory.started_at > FIRST_READ_SECONDS


def _vanished(demand: Demand, slots: int, memory: ScalingMemory, at: float) -> bool:
    """Whether `demand`, of which nothing is outstanding, is less than can be explained by work."""
    before = memory.demand
    if before is None or memory.at is None or not before.outstanding:
        return False
    if before.finished is not None:
        # Counts that are gone as well were not worked off either.
        return (demand.finished or 0) - before.finished < before.outstanding / 2
    task_seconds = demand.service_seconds or before.service_seconds or QUICK_TASK_SECONDS
    could_finish = slots * ((at - memory.at) / task_seconds + 1)
    return before.outstanding > 2 * could_finish
