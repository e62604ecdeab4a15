"""Models of KEDA with the HPA as deciders of the simulator: what their documents and source say they do.

Owns the rules of KEDA 2.2x and the autoscaling/v2 HPA as far as a queue's length drives them. These are
models: no line of KEDA runs here. What was checked against the real ones stands in docs/findings.md.

    KEDA   polls; something in the trigger: 0 → 1 at once; nothing for the cooldown: any size → 0 at once
    HPA    every 15 s between 1 and max: ceil(length / target), 10 % tolerance, its limits upwards;
           downwards to the highest recommendation of the stabilisation window
    pods   leave by the ReplicaSet controller's order, not ready, then the newest; nobody asks who is busy
"""

import math
import random
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from astrid_operator.astrid_queue import AstridQueueSpec
from astrid_operator.fleet import FleetState, MemberPhase
from astrid_operator.retirement import Candidate
from astrid_operator.scaling import Demand, DemandReading, Reason, ScalingDecision
from astrid_operator.simulation import Conduct

#: Seconds between two syncs of the HPA: a flag of the controller manager, for all objects.
HPA_SYNC_SECONDS = 15.0
#: Changes of less than this share are ignored.
TOLERANCE = 0.1


@dataclass(frozen=True, slots=True)
class Profile:
    """How a KEDA ScaledObject is configured, and how long its pods have to end."""

    name: str
    poll_seconds: float
    cooldown_seconds: float
    #: Messages per replica.
    target: float
    #: The trigger counts what is being worked on too (the `.msgs` hash), not only what waits (the list).
    counts_running: bool
    #: At most max(2 × size, 4) per sync upwards (the HPA's own rule); else no limit.
    is_limited_upwards: bool
    stabilisation_seconds: float
    grace_seconds: float | None


DEFAULT = Profile("KEDA default", 30, 300, 5, False, True, 300, 30)
TUNED = Profile("KEDA tuned", 1, 30, 5, False, False, 30, 30)
EXPERT = Profile("KEDA expert", 1, 30, 1, True, False, 30, 30)
#: Besides, its pods have the grace that ours have: their tasks' time limit and a minute.
EXPERT_PATIENT = Profile("KEDA expert, long grace", 1, 30, 1, True, False, 30, None)


class KedaDecider:
    """One ScaledObject and its HPA, begun at a random phase."""

    def __init__(self, profile: Profile, policy: AstridQueueSpec, rng: random.Random) -> None:
        self._profile = profile
        self._most = policy.scaling.max_replicas
        self._slots = policy.slots
        self._next_poll = rng.uniform(0, profile.poll_seconds)
        self._next_sync = rng.uniform(0, HPA_SYNC_SECONDS)
        self._active_at = -math.inf
        self._recommended: deque[tuple[float, int]] = deque()

    def decide(self, reading: DemandReading, fleet: FleetState, now: float) -> ScalingDecision:
        """The size after whatever polls and syncs have come due."""
        size, demand = fleet.desired, reading.demand
        if now >= self._next_poll:
            self._next_poll = _next(self._next_poll, self._profile.poll_seconds, now)
            if demand is not None:
                size = self._polled(self._length(demand), size, now)
        if now >= self._next_sync:
            self._next_sync = _next(self._next_sync, HPA_SYNC_SECONDS, now)
            if demand is not None and size > 0:
                size = self._synced(self._length(demand), size, now)
        return ScalingDecision(size, Reason.BACKLOG, "", self._next_time(demand, size), size)

    def _next_time(self, demand: Demand | None, size: int) -> float | None:
        """Nothing to poll for: nothing changes until a message comes, which is an event of its own."""
        if size == 0 and demand is not None and not self._length(demand):
            return None
        return min(self._next_poll, self._next_sync)

    def _length(self, demand: Demand) -> int:
        return demand.outstanding if self._profile.counts_running else demand.ready

    def _polled(self, length: int, size: int, now: float) -> int:
        if length > 0:
            self._active_at = now
            return max(1, size)
        return 0 if now - self._active_at >= self._profile.cooldown_seconds else size

    def _synced(self, length: int, size: int, now: float) -> int:
        usage = length / (self._profile.target * size)
        wanted = size if abs(usage - 1) <= TOLERANCE else math.ceil(length / self._profile.target)
        wanted = max(1, min(wanted, self._most))
        window = self._recommended
        window.append((now, wanted))
        while window[0][0] < now - self._profile.stabilisation_seconds:
            window.popleft()
        if wanted > size:
            return min(wanted, max(2 * size, 4)) if self._profile.is_limited_upwards else wanted
        return min(size, max(each for _, each in window))


def conduct(profile: Profile) -> Conduct:
    """How its pods leave."""
    return Conduct(order=newest_first, grace_seconds=profile.grace_seconds, recovery_seconds=recovered_after)


def newest_first(members: Iterable[Candidate]) -> list[Candidate]:
    """The ReplicaSet controller's order where all pods are alike."""
    by_age = sorted(members, key=lambda each: each.name, reverse=True)
    return sorted(by_age, key=lambda each: each.phase is MemberPhase.READY)


def recovered_after(rng: random.Random, members: int) -> float:
    """Dramatiq's recovery of a killed worker's messages: a minute, then chance, sooner with more workers."""
    return 60.0 + rng.expovariate(max(1, members) / 769.0)


def _next(planned: float, period: float, now: float) -> float:
    return planned + period * (math.floor((now - planned) / period) + 1)
