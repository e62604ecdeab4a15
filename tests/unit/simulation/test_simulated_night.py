"""What holds of the policy whatever happens: checked on fleets that live through drawn loads and outages."""

import math
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from astrid_operator.astrid_queue import AstridQueueSpec, QueueKey
from astrid_operator.fleet import FleetState
from astrid_operator.retirement import Candidate, leaving_order
from astrid_operator.scaling import DemandReading, Reason, ScalingDecision
from astrid_operator.scaling_growth import UNMEASURED_START_SECONDS
from astrid_operator.simulation import Conditions, Conduct, PolicyDecider, QueueOutcome, simulate
from astrid_operator.simulation_budget import at_most
from astrid_operator.simulation_load import Arrival
from support.queue_documents import queue

#: The same loads in every run, so that a rare one is found where it is looked for and not in another change.
WITHOUT_A_DEADLINE = settings(deadline=None, max_examples=60, derandomize=True)

TASK_SECONDS = st.floats(0.05, 90.0)
DELAY = st.one_of(st.just(0.0), st.just(0.0), st.floats(0.0, 300.0))
ARRIVAL = st.builds(Arrival, at=st.floats(0.0, 240.0), seconds=TASK_SECONDS, delay=DELAY)
#: Clusters of messages at one moment, as exposures make them, beside single ones.
LOAD = st.lists(
    st.one_of(
        ARRIVAL.map(lambda one: [one]),
        st.builds(lambda one, count: [one] * count, ARRIVAL, st.integers(2, 25)),
    ),
    min_size=1,
    max_size=8,
).map(lambda groups: sorted(one for group in groups for one in group))
SCALING = st.fixed_dictionaries(
    {
        "maxReplicas": st.integers(1, 12),
        "targetDrainSeconds": st.integers(1, 120),
        "maxQueueAgeSeconds": st.integers(1, 120),
        "idleSeconds": st.integers(0, 90),
    },
    optional={"expectedTaskSeconds": st.floats(0.1, 100.0)},
)
SPEC = st.fixed_dictionaries(
    {"concurrency": st.integers(1, 4), "scaling": SCALING, "timeoutSeconds": st.just(600)},
    optional={"maxRetries": st.integers(0, 4), "retryDelaySeconds": st.integers(0, 90)},
)
#: The same with a time limit that some tasks reach; none may be expected to take longer.
SHORT_SPEC = st.builds(
    lambda spec, seconds: {
        **spec,
        "timeoutSeconds": max(seconds, math.ceil(spec["scaling"].get("expectedTaskSeconds", 0))),
    },
    SPEC,
    st.integers(1, 60),
)
OUTAGES = st.lists(
    st.tuples(st.floats(0.0, 240.0), st.floats(1.0, 90.0)).map(lambda pair: (pair[0], sum(pair))), max_size=2
).map(tuple)
CONDITIONS = st.builds(
    Conditions,
    start_seconds=st.tuples(st.floats(0.0, 20.0), st.floats(0.0, 40.0)).map(
        lambda pair: (pair[0], sum(pair))
    ),
    seed=st.integers(0, 99),
    outages=OUTAGES,
    says_who_is_busy=st.booleans(),
    fail_share=st.sampled_from([0.0, 0.0, 0.1, 0.6, 1.0]),
)


@dataclass
class Watched:
    """The operator's own policy, and every decision that it made here."""

    spec: AstridQueueSpec
    asked: list[tuple[DemandReading, FleetState, ScalingDecision]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._policy = PolicyDecider(self.spec)

    def decide(self, reading: DemandReading, fleet: FleetState, now: float) -> ScalingDecision:
        decision = self._policy.decide(reading, fleet, now)
        self.asked.append((reading, fleet, decision))
        return decision


def night(
    load: Sequence[Arrival], spec: Mapping[str, Any], conditions: Conditions, **more: Any
) -> tuple[QueueOutcome, Watched]:
    """One queue's outcome, and who decided."""
    one, watched = queue(**spec), []

    def decider(spec: AstridQueueSpec) -> Watched:
        watched.append(Watched(spec))
        return watched[0]

    (outcome,) = simulate({one.key: load}, [one], conditions, decider=decider, **more)
    return outcome, watched[0]


@WITHOUT_A_DEADLINE
@given(LOAD, st.one_of(SPEC, SHORT_SPEC), CONDITIONS)
def test_every_message_ends_once_and_none_is_interrupted(
    load: list[Arrival], spec: dict[str, Any], conditions: Conditions
) -> None:
    """Whatever comes, delayed, failing or too long, in whatever order, through outages: all is done or dead, and nobody is cut off."""
    outcome, _ = night(load, spec, conditions)

    assert (outcome.finished + outcome.dead, outcome.interrupted) == (len(load), 0)
    assert outcome.delayed == sum(each.delay > 0 for each in load)
    assert min(outcome.waits, default=0) >= 0
    limit, attempts = outcome.queue.spec.timeout_seconds, outcome.queue.spec.max_retries + 1
    cut = sum(each.seconds > limit for each in load)
    if conditions.fail_share in (0, 1):
        assert outcome.timed_out == cut * attempts
    if not conditions.fail_share:
        assert (outcome.dead, outcome.retried) == (cut, cut * (attempts - 1))
        done = sum(each.seconds for each in load if each.seconds <= limit)
        assert outcome.busy_seconds == pytest.approx(done + cut * attempts * limit)
    if conditions.fail_share == 1:
        assert (outcome.finished, outcome.retried) == (0, len(load) * outcome.queue.spec.max_retries)


@WITHOUT_A_DEADLINE
@given(LOAD, SPEC, CONDITIONS)
def test_no_busy_member_is_ever_asked_to_leave(
    load: list[Arrival], spec: dict[str, Any], conditions: Conditions
) -> None:
    """A fleet never becomes smaller than what works: those who leave are idle at that very moment."""

    def order(members: Iterable[Candidate]) -> list[Candidate]:
        members = list(members)
        busy = sum(each.is_busy is True for each in members)
        asked = leaving_order(members)
        assert all(each.is_busy for each in asked[len(asked) - busy :])
        return asked

    outcome, watched = night(load, spec, conditions, conduct=Conduct(order=order))

    for reading, fleet, decision in watched.asked:
        if decision.replicas < fleet.desired and reading.demand is not None:
            busy = reading.demand.members.busy if reading.demand.members else reading.demand.running
            assert decision.replicas >= busy
    assert outcome.interrupted == 0


@WITHOUT_A_DEADLINE
@given(LOAD, SPEC, CONDITIONS)
def test_nothing_changes_while_demand_is_unknown(
    load: list[Arrival], spec: dict[str, Any], conditions: Conditions
) -> None:
    """A broker that cannot be read freezes the fleet, and after it has come back nothing shrinks for a minute."""
    outcome, watched = night(load, spec, conditions)

    for reading, fleet, decision in watched.asked:
        if reading.demand is None:
            assert decision.replicas == fleet.desired
    for begin, end in conditions.outages:
        seen = any(begin <= reading.at < end for reading, _, _ in watched.asked)
        for resize in outcome.resizes:
            if seen and begin <= resize.at < end + 60:
                assert resize.to > resize.was


@WITHOUT_A_DEADLINE
@given(LOAD, SPEC, CONDITIONS)
def test_work_has_a_member(load: list[Arrival], spec: dict[str, Any], conditions: Conditions) -> None:
    """Where something waits or runs and is known, at least one member is asked for, and never more than allowed."""
    _, watched = night(load, spec, conditions)

    for reading, _, decision in watched.asked:
        assert decision.replicas <= watched.spec.scaling.max_replicas
        assert decision.message
        if reading.demand is not None and reading.demand.work:
            assert decision.replicas >= 1


@WITHOUT_A_DEADLINE
@given(LOAD, SPEC, CONDITIONS)
def test_zero_is_for_when_nothing_is_outstanding_due_or_soon(
    load: list[Arrival], spec: dict[str, Any], conditions: Conditions
) -> None:
    """The last one leaves only if it would be idle for long until the next is due, and the first is asked for in time."""
    _, watched = night(load, spec, conditions)

    for reading, fleet, decision in watched.asked:
        if decision.replicas == 0 and (demand := reading.demand) is not None:
            start = demand.start_seconds
            staying = 2 * ((start or 0) + watched.spec.scaling.idle_seconds)
            waking = (UNMEASURED_START_SECONDS if start is None else start) + 1
            assert demand.work == 0
            assert demand.next_due_seconds is None or demand.next_due_seconds > (
                staying if fleet.desired else waking
            )


@WITHOUT_A_DEADLINE
@given(LOAD, st.one_of(SPEC, SHORT_SPEC), CONDITIONS)
def test_deciding_at_changes_is_deciding_every_second(
    load: list[Arrival], spec: dict[str, Any], conditions: Conditions
) -> None:
    """The short cut of the simulation (decide where an input changed) gives the very sizes of the real loop."""
    every_tick = Conditions(
        conditions.start_seconds,
        seed=conditions.seed,
        outages=conditions.outages,
        says_who_is_busy=conditions.says_who_is_busy,
        fail_share=conditions.fail_share,
        every_tick=True,
    )
    quick, _ = night(load, spec, conditions)
    slow, _ = night(load, spec, every_tick)

    assert quick.resizes == slow.resizes
    assert list(quick.waits) == list(slow.waits)
    assert (quick.retried, quick.dead) == (slow.retried, slow.dead)


def test_nobody_is_asked_between_two_steps_down() -> None:
    """Each says when more may leave: a fleet without work is decided for at its steps, and once at zero."""
    load = [Arrival(float(number), 8.0) for number in range(40)]
    spec = {"concurrency": 1, "scaling": {"maxReplicas": 20}}
    outcome, watched = night(load, spec, Conditions((3.0, 3.0)))

    asked = [reading.at for reading, _, _ in watched.asked]
    down = [resize.at for resize in outcome.resizes if resize.to < resize.was]
    assert len(down) == 4
    assert asked[asked.index(down[0]) :] == [*down, down[-1] + 1]


@pytest.mark.parametrize("most", [2, 100])
def test_nobody_is_asked_about_rates_that_do_not_matter(most: int) -> None:
    """For a minute after the last message the rate of arrivals falls, but by it more members are wanted all the
    while than there may be, or than ten messages are of use to.
    """
    load = [Arrival(2.0 * number, 3600.0) for number in range(10)]
    scaling = {"maxReplicas": most, "expectedTaskSeconds": 3600, "targetDrainSeconds": 7200}
    spec = {"concurrency": 1, "timeoutSeconds": 7200, "scaling": scaling}
    _, watched = night(load, spec, Conditions((1.0, 1.0)))

    settled, finished = load[-1].at + 5, 3600.0
    asked = [(reading.at, decision.reason) for reading, _, decision in watched.asked]
    rates = [at for at, reason in asked if settled < at < finished and reason is not Reason.QUEUE_AGE]
    assert len(rates) <= 3, asked


@settings(deadline=None, max_examples=30, derandomize=True)
@given(st.lists(st.tuples(LOAD, SPEC), min_size=2, max_size=4), CONDITIONS)
def test_queues_that_share_nothing_do_not_notice_one_another(
    nights: list[tuple[list[Arrival], dict[str, Any]]], conditions: Conditions
) -> None:
    """Decided and planned in one go, whatever happens to the others meanwhile, each is as if it were alone."""
    queues = [queue(f"queue-{number}", app="sky.tasks", **spec) for number, (_, spec) in enumerate(nights)]
    loads = {each.key: load for each, (load, _) in zip(queues, nights, strict=True)}
    alone = [simulate({each.key: loads[each.key]}, [each], conditions)[0] for each in queues]

    for one, other in zip(alone, simulate(loads, queues, conditions), strict=True):
        assert one.resizes == other.resizes
        assert (one.waits, one.decisions) == (other.waits, other.decisions)


@settings(deadline=None, max_examples=15, derandomize=True)
@given(
    st.lists(st.tuples(LOAD, SPEC, st.integers(1, 3), st.integers(0, 3)), min_size=1, max_size=4),
    st.integers(1, 6),
    st.integers(3, 6),
    st.integers(0, 9),
)
def test_a_budget_is_never_exceeded(
    queues: list[tuple[list[Arrival], dict[str, Any], int, int]], slots: int, gpus: int, seed: int
) -> None:
    """Members of all queues together, those that are leaving too, never hold more than there is."""
    made = [
        queue(f"queue-{number}", **spec, app="sky.tasks", priority=priority, gpu={"count": count})
        for number, (_, spec, priority, count) in enumerate(queues)
    ]
    loads = {each.key: load for each, (load, _, _, _) in zip(made, queues, strict=True)}
    held: dict[QueueKey, tuple[int, int]] = {}
    limit = at_most(slots, gpus)
    assert limit is not None

    def checked(asked: Any, seen: Any, now: float) -> Any:
        for key, (each, fleet, _) in asked.items():
            members = fleet.current + fleet.draining
            held[key] = (members, members * each.spec.gpu.count)
        assert sum(members for members, _ in held.values()) <= slots
        assert sum(devices for _, devices in held.values()) <= gpus
        return limit(asked, seen, now)

    outcomes = simulate(loads, made, Conditions((5, 20), seed=seed), budget=checked)

    assert all((each.finished, each.interrupted) == (each.messages, 0) for each in outcomes)


def test_the_same_seed_gives_the_same_night() -> None:
    """A simulation can be repeated to the last digit."""
    load = sorted(Arrival(random.Random(number).uniform(0, 600), 5.0) for number in range(80))
    spec = {"concurrency": 2, "scaling": {"maxReplicas": 5}}
    first, _ = night(load, spec, Conditions((5, 30), seed=3))
    again, _ = night(load, spec, Conditions((5, 30), seed=3))
    other, _ = night(load, spec, Conditions((5, 30), seed=4))

    assert list(first.waits) == list(again.waits)
    assert list(first.waits) != list(other.waits)
