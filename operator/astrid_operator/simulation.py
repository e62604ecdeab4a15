"""The events of a simulated fleet: messages come, members start, work and leave, and the policy decides.

Owns the order of events in time and the counting of what happened. Decides nothing: sizes come from a
`Decider`, of which `PolicyDecider` asks the operator's own `scaling.decide`. It is asked once a tick, but
only where an input changed or its own `look_again_at` has come, with the same sizes as asking every time.

Members run as many messages at a time as they have threads, first in, first out, and hold no more than they
run (prefetch = concurrency). Nothing fails and nothing is delayed.
"""

import heapq
import math
import random
from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Protocol

from astrid_operator.astrid_queue import AstridQueue, AstridQueueSpec, QueueKey
from astrid_operator.fleet import FleetState
from astrid_operator.retirement import leaving_order
from astrid_operator.scaling import (
    GRACE_SECONDS,
    DemandReading,
    ScalingDecision,
    ScalingMemory,
    decide,
)
from astrid_operator.scaling_memory import BURST_FACTOR
from astrid_operator.simulated_fleet import Change, LeavingOrder, SimulatedFleet, SimulatedMember
from astrid_operator.simulation_demand import FAST_SECONDS, SLOW_SECONDS, SimulatedDemand
from astrid_operator.simulation_load import Arrival
from astrid_operator.simulation_timeline import Timeline

#: The operator of a simulation has been running for this long when it begins.
RUNNING_SINCE_SECONDS = 3600.0

#: Asked at every tick, a fleet is watched for so long after its last message.
SETTLED_SECONDS = 600.0


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


Asked = Mapping[QueueKey, tuple[AstridQueue, FleetState, ScalingDecision]]
#: Shares what is short among all queues of a simulation.
Budget = Callable[[Asked], Mapping[QueueKey, ScalingDecision]]


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
    start_seconds: tuple[float, float] = (10.0, 10.0)
    tick_seconds: float = 1.0
    seed: int = 0
    #: When the operator cannot read the broker: from, until.
    outages: tuple[tuple[float, float], ...] = ()
    #: Members tell what they do; without, the operator keeps to its careful rules.
    says_who_is_busy: bool = True
    #: Ask the decider at every tick, whether or not anything changed.
    every_tick: bool = False
    #: Counting ends here at the earliest; None: when all is quiet.
    length_seconds: float = 0.0
    #: Whatever is not finished by then stays so.
    longest_seconds: float = 30 * 86400.0


@dataclass(frozen=True, slots=True)
class Resize:
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
    #: From enqueueing to the start of the attempt that finished, for each finished message.
    waits: "array[float]" = field(default_factory=lambda: array("d"))
    finished: int = 0
    #: Attempts that ended because their member was killed.
    interrupted: int = 0
    #: Members' time from being asked for until gone, their time able to work, and threads' time at work.
    pod_seconds: float = 0.0
    ready_seconds: float = 0.0
    busy_seconds: float = 0.0
    most_members: int = 0
    resizes: list[Resize] = field(default_factory=list)
    #: When the last message ended; None: none did.
    drained_at: float | None = None
    ended_at: float = 0.0
    decisions: int = 0
    timeline: Timeline = field(default_factory=Timeline)


class _Kind(IntEnum):
    """What happens first where two things happen at once."""

    FINISHED = 0
    STARTED = 1
    KILLED = 2
    RETURNED = 3
    LOOK = 4


@dataclass(slots=True, eq=False)
class _Run:
    """One queue while it is simulated."""

    queue: AstridQueue
    load: Sequence[Arrival]
    decider: Decider
    fleet: SimulatedFleet
    demand: SimulatedDemand
    outcome: QueueOutcome
    rng: random.Random
    began: "array[float]"
    next_look: float = math.inf
    last_read_at: float | None = None
    decision: ScalingDecision | None = None


def simulate(
    loads: Mapping[QueueKey, Sequence[Arrival]],
    queues: Sequence[AstridQueue],
    conditions: Conditions,
    *,
    decider: Callable[[AstridQueueSpec], Decider] = PolicyDecider,
    conduct: Conduct = Conduct(),
    budget: Budget | None = None,
) -> list[QueueOutcome]:
    """Let `loads` (each sorted by time) happen to `queues` until all is done and quiet; one outcome each."""
    simulation = _Simulation(conditions, conduct, budget)
    for queue in queues:
        simulation.add(queue, loads.get(queue.key, ()), decider(queue.spec))
    return simulation.run()


class _Simulation:
    def __init__(self, conditions: Conditions, conduct: Conduct, budget: Budget | None) -> None:
        self._conditions = conditions
        self._conduct = conduct
        self._budget = budget
        self._runs: dict[QueueKey, _Run] = {}
        self._heap: list[tuple[float, int, int, _Run, Any, int]] = []
        self._count = 0
        #: When the last decision was made.
        self._now = 0.0

    def add(self, queue: AstridQueue, load: Sequence[Arrival], decider: Decider) -> None:
        rng = random.Random(f"{self._conditions.seed} {queue.key}")  # noqa: S311 (a simulation)
        least, most = self._conditions.start_seconds
        slots = queue.spec.slots
        fleet = SimulatedFleet(slots, lambda: rng.uniform(least, most), rng, self._conduct.order)
        demand = SimulatedDemand(load, fleet, says_who_is_busy=self._conditions.says_who_is_busy)
        outcome = QueueOutcome(queue, len(load))
        self._runs[queue.key] = _Run(
            queue, load, decider, fleet, demand, outcome, rng, array("d", bytes(8 * len(load)))
        )

    # ---------------------------------------------------------------------------- events

    def run(self) -> list[QueueOutcome]:
        arrivals = self._merged()
        for run in self._runs.values():
            self._look(run, 0.0)
        heap, longest, number, total = self._heap, self._conditions.longest_seconds, 0, len(arrivals)
        while heap or number < total:
            if number < total and (not heap or arrivals[number][0] <= heap[0][0]):
                at, _, run, message = arrivals[number]
                number += 1
                self._enqueued(run, message, at)
                continue
            at, kind, _, run, what, message = heapq.heappop(heap)
            if at > longest:
                break
            if kind != _LOOK:
                _HANDLERS[kind](self, run, what, message, at)
            elif run.next_look == at:
                self._decide(at, run)
        return [self._closed(run) for run in self._runs.values()]

    def _merged(self) -> list[tuple[float, int, _Run, int]]:
        """All arrivals in order of time; a number tells equals apart."""
        merged = [
            (arrival.at, order, run, message)
            for order, run in enumerate(self._runs.values())
            for message, arrival in enumerate(run.load)
        ]
        if len(self._runs) > 1:
            merged.sort(key=lambda each: each[:2])
        return merged

    def _push(
        self, at: float, kind: _Kind, run: _Run, what: SimulatedMember | None = None, message: int = -1
    ) -> None:
        self._count += 1
        heapq.heappush(self._heap, (at, kind.value, self._count, run, what, message))

    def _enqueued(self, run: _Run, message: int, now: float) -> None:
        run.demand.arrivals.came += 1
        self._wait(run, message, now)

    def _wait(self, run: _Run, message: int, now: float) -> None:
        run.demand.waiting.append(message)
        self._hand_out(run, now)
        self._changed(run, now)

    def _hand_out(self, run: _Run, now: float) -> None:
        """Free threads take what waits, first in, first out."""
        waiting, fleet = run.demand.waiting, run.fleet
        while waiting and fleet.has_free_thread():
            message = waiting.popleft()
            member = fleet.take(message)
            run.demand.running += 1
            run.began[message] = now
            self._push(now + run.load[message].seconds, _Kind.FINISHED, run, member, message)

    def _finished(self, run: _Run, member: SimulatedMember, message: int, now: float) -> None:
        if message not in member.running:
            return  # it was killed
        arrival, outcome = run.load[message], run.outcome
        run.demand.running -= 1
        run.demand.finished_one(arrival.seconds)
        outcome.finished += 1
        outcome.busy_seconds += arrival.seconds
        outcome.waits.append(run.began[message] - arrival.at)
        outcome.drained_at = now
        run.fleet.finish(member, message, now)
        self._hand_out(run, now)
        self._changed(run, now)

    def _started(self, run: _Run, member: SimulatedMember, _: int, now: float) -> None:
        if run.fleet.ready(member, now):
            self._hand_out(run, now)
            self._changed(run, now)

    def _killed(self, run: _Run, member: SimulatedMember, _: int, now: float) -> None:
        for message in run.fleet.kill(member, now):
            run.outcome.interrupted += 1
            run.outcome.busy_seconds += now - run.began[message]
            back = now + self._conduct.recovery_seconds(run.rng, len(run.fleet.members))
            self._push(back, _Kind.RETURNED, run, None, message)
        self._changed(run, now)

    def _returned(self, run: _Run, _: None, message: int, now: float) -> None:
        run.demand.running -= 1
        self._wait(run, message, now)

    # ---------------------------------------------------------------------------- deciding

    def _changed(self, run: _Run, now: float) -> None:
        if run.next_look - now >= self._conditions.tick_seconds:
            self._look(run, now)

    def _look(self, run: _Run, at: float) -> None:
        """Decide for `run` at the first tick from `at` on, unless that is to be done sooner."""
        tick = self._conditions.tick_seconds
        at = math.ceil(at / tick) * tick
        if at < run.next_look:
            run.next_look = at
            self._push(at, _Kind.LOOK, run)

    def _decide(self, now: float, run: _Run) -> None:
        """Ask for every queue whose turn it is at this tick, and carry it out as the budget grants."""
        self._now = now
        run.next_look = math.inf
        runs = [run, *self._also_at(now)]
        for each in runs:
            each.outcome.decisions += 1
            each.outcome.timeline.saw(
                now, len(each.demand.waiting), each.demand.running, len(each.fleet.members)
            )
            each.decision = each.decider.decide(self._reading(each, now), each.fleet.state(), now)
        for each, decision in self._granted(runs):
            if decision.replicas != each.fleet.desired:
                self._resize(each, decision, now)
        for each in runs:
            self._look_again(each, now)

    def _also_at(self, now: float) -> list[_Run]:
        """Everybody else whose turn it is now."""
        others: list[_Run] = []
        heap = self._heap
        while heap and heap[0][0] == now and heap[0][1] == _LOOK:
            other = heapq.heappop(heap)[3]
            if other.next_look == now:
                other.next_look = math.inf
                others.append(other)
        return others

    def _granted(self, runs: Sequence[_Run]) -> list[tuple[_Run, ScalingDecision]]:
        if self._budget is None:
            return [(each, each.decision) for each in runs if each.decision is not None]
        asked = {
            key: (each.queue, each.fleet.state(), each.decision)
            for key, each in self._runs.items()
            if each.decision is not None
        }
        return [(self._runs[key], decision) for key, decision in self._budget(asked).items()]

    def _reading(self, run: _Run, now: float) -> DemandReading:
        if self._conditions.outages and self._is_outage(now):
            return DemandReading(now, None, "Unreachable: an outage of the simulation", run.last_read_at)
        run.last_read_at = now
        return DemandReading(now, run.demand.read(now), "", now, "simulation")

    def _is_outage(self, now: float) -> bool:
        return any(begin <= now < end for begin, end in self._conditions.outages)

    def _outage_changes_at(self, now: float) -> float:
        times = (time for outage in self._conditions.outages for time in outage if time > now)
        return min(times, default=math.inf)

    def _resize(self, run: _Run, decision: ScalingDecision, now: float) -> None:
        was = run.fleet.desired
        run.outcome.resizes.append(Resize(now, was, decision.replicas, decision.reason.value))
        self._carry_out(run, run.fleet.scale_to(decision.replicas, now), now)
        self._look(run, now + self._conditions.tick_seconds)

    def _carry_out(self, run: _Run, change: Change, now: float) -> None:
        for member in change.started:
            self._push(member.ready_at, _Kind.STARTED, run, member)
        grace = self._conduct.grace_seconds
        grace = run.queue.spec.timeout_seconds + GRACE_SECONDS if grace is None else grace
        for member in change.draining:
            self._push(now + grace, _Kind.KILLED, run, member)

    def _look_again(self, run: _Run, now: float) -> None:
        """Plan the next decision for what changes by the passing of time alone."""
        tick = self._conditions.tick_seconds
        if self._conditions.every_tick:
            if not self._is_over(run, now):
                self._look(run, now + tick)
            return
        at = math.inf
        if run.decision is not None and run.decision.look_again_at is not None:
            at = run.decision.look_again_at
        if self._conditions.outages:
            at = min(at, self._outage_changes_at(now))
        if not self._is_at_rest(run):
            at = min(at, self._demand_changes_at(run, now))
        if at < math.inf:
            self._look(run, max(at, now + tick))

    def _demand_changes_at(self, run: _Run, now: float) -> float:
        """When members have been idle for long enough, the oldest message is too old, or arrivals matter."""
        scaling, fleet = run.queue.spec.scaling, run.fleet
        at = math.inf
        if self._conditions.says_who_is_busy:
            at = fleet.next_idle_at(scaling.idle_seconds, now)
        oldest_at = run.demand.oldest_at()
        if oldest_at is not None and fleet.has_ready() and fleet.desired < scaling.max_replicas:
            at = min(at, max(oldest_at + scaling.max_queue_age_seconds, now + self._conditions.tick_seconds))
        return min(at, self._arrivals_matter_at(run, now)) if fleet.desired else at

    def _arrivals_matter_at(self, run: _Run, now: float) -> float:
        """When the counted arrivals change what matters: the load, or how long a burst lasts.

        A load matters where more than one member has work; a burst lasts until the last tick that saw it.
        """
        arrivals, at = run.demand.arrivals, math.inf
        fast = arrivals.in_fast
        is_burst = fast / FAST_SECONDS > BURST_FACTOR * arrivals.in_slow / SLOW_SECONDS
        if run.demand.work > run.fleet.slots or (fast and not is_burst):
            at = arrivals.next_change_at()
        if is_burst:
            changes_at = arrivals.fast_changes_at()
            last_tick = changes_at - self._conditions.tick_seconds
            if last_tick > now:
                return min(at, last_tick)
            if fast > 1:
                return min(at, changes_at)
        return at

    def _is_at_rest(self, run: _Run) -> bool:
        return not (run.demand.work or run.fleet.desired or run.fleet.draining)

    def _is_over(self, run: _Run, now: float) -> bool:
        last = run.load[-1].at if run.load else 0.0
        return now > last + SETTLED_SECONDS and self._is_at_rest(run)

    # ---------------------------------------------------------------------------- the end

    def _closed(self, run: _Run) -> QueueOutcome:
        outcome, fleet = run.outcome, run.fleet
        end = max(self._now, self._conditions.length_seconds)
        fleet.close(end)
        outcome.timeline.saw(end, len(run.demand.waiting), run.demand.running, len(fleet.members))
        outcome.pod_seconds, outcome.ready_seconds = fleet.member_seconds, fleet.ready_seconds
        outcome.most_members, outcome.ended_at = fleet.most, end
        return outcome


_LOOK = _Kind.LOOK.value
_HANDLERS: Mapping[int, Callable[[_Simulation, _Run, Any, int, float], None]] = {
    _Kind.FINISHED.value: _Simulation._finished,
    _Kind.STARTED.value: _Simulation._started,
    _Kind.KILLED.value: _Simulation._killed,
    _Kind.RETURNED.value: _Simulation._returned,
}
