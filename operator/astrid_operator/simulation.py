"""The events of a simulated fleet: messages come, members start, work and leave, and the policy decides.

Owns the order of events in time and the counting of what happened. Decides nothing: sizes come from a
`Decider`, of which `PolicyDecider` asks the operator's own `scaling.decide`. It is asked at whole seconds,
but only where something happened, its own `look_again_at` has come, or falling rates make a difference: with
the very sizes of asking every second.

Members run as many messages at a time as they have threads, first in, first out, and hold no more than they
run (prefetch = concurrency). A delayed message goes to the end of its queue at its ETA: a member moves it
there, or the operator, which cannot while it cannot read the broker. What fails does so at the end of its
task, or at `timeoutSeconds` if its task takes longer than that, and its retry is a delayed message.
"""

import heapq
import math
import random
from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from astrid_operator.astrid_queue import AstridQueue, AstridQueueSpec, QueueKey
from astrid_operator.retirement import spare
from astrid_operator.scaling import GRACE_SECONDS, DemandReading, MembersSeen, Reason, ScalingDecision
from astrid_operator.scaling_growth import TICK_SECONDS
from astrid_operator.simulated_fleet import Change, SimulatedFleet, SimulatedMember
from astrid_operator.simulation_demand import ROUNDING_SECONDS, SimulatedDemand
from astrid_operator.simulation_failures import SimulatedFailures, failures_among, within_limit
from astrid_operator.simulation_load import Arrival
from astrid_operator.simulation_world import (
    Budget,
    Conditions,
    Conduct,
    Decider,
    PolicyDecider,
    QueueOutcome,
    Resize,
)

__all__ = [
    "Budget",
    "Conditions",
    "Conduct",
    "Decider",
    "PolicyDecider",
    "QueueOutcome",
    "Resize",
    "simulate",
]

#: Asked at every tick, a fleet is watched for so long after its last message.
SETTLED_SECONDS = 600.0

#: Messages after which it is told again how many have been sent.
TOLD_EVERY = 500

#: Kinds of events: what happens first where two things happen at once.
_FINISHED, _STARTED, _KILLED, _RETURNED, _DUE, _LOOK = range(6)


@dataclass(slots=True, eq=False)
class _Run:
    """One queue while it is simulated."""

    queue: AstridQueue
    #: What is worked on, no attempt for longer than the queue's time limit.
    load: Sequence[Arrival]
    decider: Decider
    fleet: SimulatedFleet
    demand: SimulatedDemand
    outcome: QueueOutcome
    rng: random.Random
    began: "array[float]"
    failures: SimulatedFailures | None
    next_look: float = math.inf
    last_read_at: float | None = None
    decision: ScalingDecision | None = None


_USUAL_CONDUCT = Conduct()


def simulate(
    loads: Mapping[QueueKey, Sequence[Arrival]],
    queues: Sequence[AstridQueue],
    conditions: Conditions,
    *,
    decider: Callable[[AstridQueueSpec], Decider] = PolicyDecider,
    conduct: Conduct = _USUAL_CONDUCT,
    budget: Budget | None = None,
    arrived: Callable[[int], None] | None = None,
) -> list[QueueOutcome]:
    """Let `loads` (each sorted by time) happen to `queues` until all is done and quiet; one outcome each.

    `arrived` is told, now and then, how many more messages have been sent.
    """
    simulation = _Simulation(conditions, conduct, budget, arrived)
    for queue in queues:
        simulation.add(queue, loads.get(queue.key, ()), decider(queue.spec))
    return simulation.run()


class _Simulation:
    def __init__(
        self,
        conditions: Conditions,
        conduct: Conduct,
        budget: Budget | None,
        arrived: Callable[[int], None] | None,
    ) -> None:
        self._conditions = conditions
        self._conduct = conduct
        self._budget = budget
        self._arrived = arrived
        self._runs: dict[QueueKey, _Run] = {}
        self._heap: list[tuple[float, int, int, _Run, Any, int]] = []
        self._count = 0
        #: When the last decision was made, and for whom: it is not planned yet when they are asked again.
        self._now = 0.0
        self._decided: list[_Run] = []

    def add(self, queue: AstridQueue, load: Sequence[Arrival], decider: Decider) -> None:
        rng = random.Random(f"{self._conditions.seed} {queue.key}")  # noqa: S311 (a simulation)
        least, most = self._conditions.start_seconds
        slots = queue.spec.slots
        load, too_long = within_limit(load, queue.spec.timeout_seconds)
        fleet = SimulatedFleet(slots, lambda: rng.uniform(least, most), rng, self._conduct.order)
        demand = SimulatedDemand(load, fleet, says_who_is_busy=self._conditions.says_who_is_busy)
        outcome = QueueOutcome(queue, len(load))
        began = array("d", bytes(8 * len(load)))
        share, seed = self._conditions.fail_share, self._conditions.seed
        failures = failures_among(queue, len(load), share, seed, too_long)
        self._runs[queue.key] = _Run(queue, load, decider, fleet, demand, outcome, rng, began, failures)

    # ---------------------------------------------------------------------------- events

    def run(self) -> list[QueueOutcome]:
        arrivals = self._merged()
        for run in self._runs.values():
            self._look(run, 0.0)
        heap, longest, number, total = self._heap, self._conditions.longest_seconds, 0, len(arrivals)
        while heap or number < total or self._decided:
            at = heap[0][0] if heap else math.inf
            is_arrival = number < total and arrivals[number][0] <= at
            if self._decided and (arrivals[number][0] if is_arrival else at) >= self._now + TICK_SECONDS:
                self._plan()
                continue
            if is_arrival:
                at, _, run, message = arrivals[number]
                number += 1
                if self._arrived is not None and not number % TOLD_EVERY:
                    self._arrived(TOLD_EVERY)
                self._enqueued(run, message, at)
                continue
            at, kind, _, run, what, message = heapq.heappop(heap)
            if at > longest:
                break
            if kind != _LOOK:
                _HANDLERS[kind](self, run, what, message, at)
            elif run.next_look == at:
                self._decide(at, run)
        if self._arrived is not None:
            self._arrived(number % TOLD_EVERY)
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
        self, at: float, kind: int, run: _Run, what: SimulatedMember | None = None, message: int = -1
    ) -> None:
        self._count += 1
        heapq.heappush(self._heap, (at, kind, self._count, run, what, message))

    def _enqueued(self, run: _Run, message: int, now: float) -> None:
        delay = run.load[message].delay
        if delay:
            run.outcome.delayed += 1
            self._delay(run, message, now + delay, now)
        else:
            self._wait(run, message, now)

    def _delay(self, run: _Run, message: int, eta: float, now: float) -> None:
        run.demand.delay(message, eta)
        run.outcome.timeline.delayed(now, 1)
        self._push(eta, _DUE, run)
        self._changed(run, now)

    def _due(self, run: _Run, _: None, __: int, now: float) -> None:
        """What is due goes to the queue; where nobody can move it, once the broker is read again."""
        if self._conditions.is_outage(now) and not run.fleet.has_ready_member():
            self._push(self._conditions.read_again_at(now), _DUE, run)
            return
        due = run.demand.delays.take_due(now)
        if due:
            run.outcome.timeline.delayed(now, -len(due))
            run.demand.waiting.extend(due)
            self._hand_out(run, now)
            self._changed(run, now)

    def _wait(self, run: _Run, message: int, now: float) -> None:
        run.demand.waiting.append(message)
        self._hand_out(run, now)
        self._changed(run, now)

    def _hand_out(self, run: _Run, now: float) -> None:
        """Free threads take what waits, first in, first out."""
        waiting, fleet = run.demand.waiting, run.fleet
        while waiting and fleet.has_free_thread():
            message = waiting.popleft()
            member = fleet.take(message, now)
            run.demand.running += 1
            run.began[message] = now
            self._push(now + run.load[message].seconds, _FINISHED, run, member, message)

    def _finished(self, run: _Run, member: SimulatedMember, message: int, now: float) -> None:
        if message not in member.running:
            return  # it was killed
        arrival, outcome = run.load[message], run.outcome
        run.demand.running -= 1
        run.demand.finished_one(arrival.seconds)
        outcome.busy_seconds += arrival.seconds
        run.fleet.finish(member, message, now)
        if run.failures is not None and run.failures.fails(message):
            outcome.timed_out += message in run.failures.too_long
            self._failed(run, run.failures.retry_seconds(message), message, now)
        else:
            outcome.finished += 1
            outcome.waits.append(run.began[message] - run.demand.waits_since(message))
            outcome.drained_at = now
        self._hand_out(run, now)
        self._changed(run, now)

    def _failed(self, run: _Run, retry_seconds: float | None, message: int, now: float) -> None:
        if retry_seconds is None:
            run.demand.dead += 1
            run.outcome.dead += 1
            run.outcome.drained_at = now
        else:
            run.outcome.retried += 1
            self._delay(run, message, now + retry_seconds, now)

    def _started(self, run: _Run, member: SimulatedMember, _: int, now: float) -> None:
        if run.fleet.ready(member, now):
            if run.demand.delays.count:
                self._due(run, None, -1, now)
            self._hand_out(run, now)
            self._changed(run, now)

    def _killed(self, run: _Run, member: SimulatedMember, _: int, now: float) -> None:
        for message in run.fleet.kill(member, now):
            run.outcome.interrupted += 1
            run.outcome.busy_seconds += now - run.began[message]
            back = now + self._conduct.recovery_seconds(run.rng, len(run.fleet.members))
            self._push(back, _RETURNED, run, None, message)
        self._changed(run, now)

    def _returned(self, run: _Run, _: None, message: int, now: float) -> None:
        run.demand.running -= 1
        self._wait(run, message, now)

    # ---------------------------------------------------------------------------- deciding

    def _changed(self, run: _Run, now: float) -> None:
        if run.next_look - now >= TICK_SECONDS:
            self._look(run, now)

    def _look(self, run: _Run, at: float) -> None:
        """Decide for `run` at the first tick from `at` on, unless that is to be done sooner."""
        at = float(math.ceil(at))
        if at < run.next_look:
            run.next_look = at
            self._push(at, _LOOK, run)

    def _decide(self, now: float, run: _Run) -> None:
        """Ask for every queue whose turn it is at this tick, and carry it out as the budget grants."""
        self._now = now
        run.next_look = math.inf
        runs = [run, *self._also_at(now)] if len(self._runs) > 1 else [run]
        for each in runs:
            fleet, demand = each.fleet, each.demand
            each.outcome.decisions += 1
            each.outcome.timeline.saw(now, len(demand.waiting), demand.running, len(fleet.members))
            each.decision = each.decider.decide(self._reading(each, now), fleet.state(), now)
        if self._budget is None:
            for each in runs:
                self._carry(each, each.decision, now)
        else:
            for key, decision in self._granted(self._budget, now).items():
                self._carry(self._runs[key], decision, now)
                if decision.reason is Reason.SCALE_LIMITED:
                    # who is short gains by waiting, and what others hold changes by idling
                    self._look(self._runs[key], now + TICK_SECONDS)
        self._decided += runs

    def _plan(self) -> None:
        """Plan the next look at everybody who was decided for, as nothing more happens before the next tick.

        Whoever is asked at the next tick anyway, as most are, needs no plan: it would be worked out in vain,
        and nobody is ever asked sooner. To the others nothing has happened since the decision.
        """
        for run in self._decided:
            if run.next_look > self._now + TICK_SECONDS:
                self._look_again(run, self._now)
        self._decided.clear()

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

    def _granted(self, budget: Budget, now: float) -> Mapping[QueueKey, ScalingDecision]:
        def seen(key: QueueKey) -> MembersSeen | None:
            return self._runs[key].fleet.seen(now) if self._conditions.says_who_is_busy else None

        asked = {
            key: (each.queue, each.fleet.state_with_members(), each.decision)
            for key, each in self._runs.items()
            if each.decision is not None
        }
        return budget(asked, seen, now)

    def _reading(self, run: _Run, now: float) -> DemandReading:
        if self._conditions.outages and self._conditions.is_outage(now):
            run.demand.missed()
            return DemandReading(now, None, "Unreachable: an outage of the simulation", run.last_read_at)
        run.last_read_at = now
        return DemandReading(now, run.demand.read(now), "", now, "simulation")

    def _carry(self, run: _Run, decision: ScalingDecision | None, now: float) -> None:
        if decision is None:
            return
        is_pressed = decision.reason is Reason.SCALE_LIMITED and decision.replicas < run.fleet.desired
        if is_pressed or run.fleet.asks():
            self._step(run, decision, now)
        if decision.replicas != run.fleet.desired and not is_pressed:
            self._resize(run, decision, now)

    def _step(self, run: _Run, decision: ScalingDecision, now: float) -> None:
        """Ask members to leave for others, and let those go that are done."""
        was, task_seconds = run.fleet.desired, decision.task_seconds
        change = run.fleet.step_towards(decision.replicas, now, spare(task_seconds, run.queue.spec.slots))
        if run.fleet.desired != was:
            run.outcome.resizes.append(Resize(now, was, run.fleet.desired, decision.reason.value))
        for member in change.draining:
            self._push(now + run.rng.uniform(*self._conditions.leave_seconds), _KILLED, run, member)
        self._hand_out(run, now)
        self._look(run, now + TICK_SECONDS)

    def _resize(self, run: _Run, decision: ScalingDecision, now: float) -> None:
        was = run.fleet.desired
        run.outcome.resizes.append(Resize(now, was, decision.replicas, decision.reason.value))
        self._carry_out(run, run.fleet.scale_to(decision.replicas, now), now)
        if decision.replicas < was and decision.replicas <= decision.wanted:
            # from then on nothing is surplus: how long it has been begins anew
            self._look(run, now + TICK_SECONDS)

    def _carry_out(self, run: _Run, change: Change, now: float) -> None:
        for member in change.started:
            self._push(member.ready_at, _STARTED, run, member)
        grace = self._conduct.grace_seconds
        grace = run.queue.spec.timeout_seconds + GRACE_SECONDS if grace is None else grace
        for member in change.draining:
            self._push(now + grace, _KILLED, run, member)

    def _look_again(self, run: _Run, now: float) -> None:
        """Plan the next decision for what changes by the passing of time alone."""
        if self._conditions.every_tick:
            if not self._is_over(run, now):
                self._look(run, now + TICK_SECONDS)
            return
        is_held = run.decision is not None and run.decision.wanted < run.fleet.desired
        at = run.demand.rates_matter_at(run.queue.spec, now, is_held=is_held)
        if run.decision is not None and run.decision.look_again_at is not None:
            at = min(at, run.decision.look_again_at)
        if self._conditions.outages:
            at = min(at, self._conditions.outage_changes_at(now))
        if at < run.next_look:
            self._look(run, max(at - ROUNDING_SECONDS, now + TICK_SECONDS))

    def _is_at_rest(self, run: _Run) -> bool:
        demand, fleet = run.demand, run.fleet
        return not (demand.work or demand.delays.count or fleet.desired or fleet.draining)

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


_HANDLERS: Mapping[int, Callable[[_Simulation, _Run, Any, int, float], None]] = {
    _FINISHED: _Simulation._finished,
    _STARTED: _Simulation._started,
    _KILLED: _Simulation._killed,
    _RETURNED: _Simulation._returned,
    _DUE: _Simulation._due,
}
