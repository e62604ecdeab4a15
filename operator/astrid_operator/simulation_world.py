"""What goes into a simulation and what comes out of it.

Owns who decides, how members start and leave, what happens to the broker, and the record of what happened to
one queue. Runs nothing (`simulation.py` does).
"""

import math
import random
from array import array
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from astrid_operator.astrid_queue import AstridQueue, AstridQueueSpec, QueueKey
from astrid_operator.defaults import START_SECONDS
from astrid_operator.fleet import FleetState
from astrid_operator.retirement import leaving_order
from astrid_operator.scaling import DemandReading, ScalingDecision, ScalingMemory, decide
from astrid_operator.scaling_growth import TICK_SECONDS
from astrid_operator.sharing import Asked, SeenMembers
from astrid_operator.simulated_fleet import LeavingOrder
from astrid_operator.simulation_demand import RUNNING_SINCE_SECONDS
from astrid_operator.simulation_timeline import Timeline


class Decider(Protocol):
    """Says how many members one fleet shall have. May remember; is asked with times that do not go back."""

    def decide(self, reading: DemandReading, fleet: FleetState, now: float) -> ScalingDecision: ...


class PolicyDecider:
    """The operator's own policy for one queue."""

    def __init__(self, policy: AstridQueueSpec) -> None:
        self._policy = policy
        self._memory = ScalingMemory(started_at=-RUNNING_SINCE_SECONDS)

    def decide(self, reading: DemandReading, fleet: FleetState, now: float) -> ScalingDecision:
        """What `scaling.decide` says."""
        decision, self._memory = decide(self._policy, reading, fleet, self._memory, now)
        return decision


#: Shares what is short among all queues: what was decided, what members say, and the time.
Budget = Callable[[Asked, SeenMembers, float], Mapping[QueueKey, ScalingDecision]]


@dataclass(frozen=True, slots=True)
class Conduct:
    """How members leave, and what becomes of the messages of one that did not leave in time."""

    order: LeavingOrder = leaving_order
    #: From being asked to leave until a member is killed; None: its task's time limit and a minute.
    grace_seconds: float | None = None
    #: From a kill until its messages wait again, given how many members there are then.
    recovery_seconds: Callable[[random.Random, int], float] = lambda _rng, _members: 75.0


@dataclass(frozen=True, slots=True)
class Conditions:
    """The world of a simulation."""

    #: Bounds of the drawn time from asking for a member until it works.
    start_seconds: tuple[float, float] = (START_SECONDS, START_SECONDS)
    #: Bounds of the drawn time for which a member that was let go for others still holds its place.
    leave_seconds: tuple[float, float] = (0.0, 0.0)
    seed: int = 0
    #: When the operator cannot read the broker: from, until.
    outages: tuple[tuple[float, float], ...] = ()
    #: Members tell what they do; without, the operator keeps to its careful rules.
    says_who_is_busy: bool = True
    #: Part of all attempts that fail at their end, 0 to 1; they are retried as each AstridQueue says.
    fail_share: float = 0.0
    #: Ask the decider at every tick, whether or not anything changed.
    every_tick: bool = False
    #: Counting ends here at the earliest; None: when all is quiet.
    length_seconds: float = 0.0
    #: Whatever is not finished by then stays so.
    longest_seconds: float = 30 * 86400.0

    def is_outage(self, now: float) -> bool:
        """The broker cannot be read."""
        return any(begin <= now < end for begin, end in self.outages)

    def read_again_at(self, now: float) -> float:
        """The first tick after the outage that it is in."""
        return max(math.ceil(end) for begin, end in self.outages if begin <= now < end)

    def outage_changes_at(self, now: float) -> float:
        """The next last tick before an outage, first one of it, or first one after it."""
        times = (
            time
            for begin, end in self.outages
            for time in (math.ceil(begin) - TICK_SECONDS, begin, end)
            if time > now
        )
        return min(times, default=math.inf)


class Resize(NamedTuple):
    """One write of a size."""

    at: float
    was: int
    to: int
    reason: str


@dataclass(slots=True)
class QueueOutcome:
    """What happened to one queue. Times in seconds."""

    queue: AstridQueue
    messages: int
    #: From enqueueing, or from the ETA where it was delayed or retried, to the start of the attempt that
    #: finished, for each finished message.
    waits: "array[float]" = field(default_factory=lambda: array("d"))
    finished: int = 0
    #: Attempts that ended because their member was killed.
    interrupted: int = 0
    #: Messages that were sent with a delay, attempts that failed and were retried, and messages that ended in
    #: the dead letters because their retries were spent.
    delayed: int = 0
    retried: int = 0
    dead: int = 0
    #: Attempts that were ended, as failed, at the queue's `timeoutSeconds`.
    timed_out: int = 0
    #: Members' time from being asked for until gone, their time able to work, and threads' time at work.
    pod_seconds: float = 0.0
    ready_seconds: float = 0.0
    busy_seconds: float = 0.0
    most_members: int = 0
    resizes: list[Resize] = field(default_factory=list)
    #: When the last message ended, well or in the dead letters; None: none did.
    drained_at: float | None = None
    ended_at: float = 0.0
    decisions: int = 0
    timeline: Timeline = field(default_factory=Timeline)
