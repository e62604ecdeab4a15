"""What holds of every scaling decision, whatever is seen."""

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from astrid_operator.astrid_queue import AstridQueueSpec, Paused
from astrid_operator.fleet import FleetState
from astrid_operator.scaling import (
    Demand,
    DemandReading,
    MembersSeen,
    Reason,
    ScalingDecision,
    ScalingMemory,
    decide,
)
from support.queue_documents import policy

NOW = 1000.0

counts = st.one_of(st.integers(0, 5), st.integers(0, 100_000))
maybe_seconds = st.one_of(st.none(), st.floats(0, 1000))
seen = st.builds(MembersSeen, st.integers(0, 20), st.lists(st.floats(0, 500), max_size=8).map(tuple))


@st.composite
def demands(draw: st.DrawFn) -> Demand:
    delayed = draw(st.integers(0, 50))
    due = draw(st.one_of(st.none(), st.integers(0, delayed)))
    return Demand(
        ready=draw(counts),
        running=draw(counts),
        delayed=delayed,
        dead=draw(counts),
        oldest_seconds=draw(maybe_seconds),
        due=due,
        next_due_seconds=None if due is None else draw(maybe_seconds),
        service_seconds=draw(st.one_of(st.none(), st.floats(0.001, 1000))),
        arrivals_per_s_fast=draw(st.one_of(st.none(), st.floats(0, 100))),
        arrivals_per_s_slow=draw(st.one_of(st.none(), st.floats(0, 100))),
        finished=draw(st.one_of(st.none(), counts)),
        start_seconds=draw(st.one_of(st.none(), st.floats(0.1, 400))),
        members=draw(st.one_of(st.none(), seen)),
    )


@st.composite
def fleets(draw: st.DrawFn) -> FleetState:
    if not draw(st.integers(0, 9)):
        return FleetState()
    desired, unscheduled = draw(st.integers(0, 40)), draw(st.integers(0, 10))
    ready, starting = draw(st.integers(0, 40)), draw(st.integers(0, 10))
    since = draw(st.sampled_from([NOW - 1000, NOW - 300, NOW - 10])) if unscheduled else None
    return FleetState(
        exists=True,
        desired=desired,
        current=ready + starting + unscheduled,
        ready=ready,
        starting=starting,
        unscheduled=unscheduled,
        unschedulable_since=since,
    )


BASE = policy()


@st.composite
def policies(draw: st.DrawFn) -> AstridQueueSpec:
    ceiling = draw(st.integers(1, 40))
    scaling = replace(
        BASE.scaling,
        min_replicas=draw(st.integers(0, min(3, ceiling))),
        max_replicas=ceiling,
        target_drain_seconds=draw(st.integers(1, 600)),
        idle_seconds=draw(st.integers(0, 300)),
        expected_task_seconds=draw(st.one_of(st.none(), st.floats(0.01, 300))),
    )
    return replace(
        BASE,
        concurrency=draw(st.integers(1, 8)),
        processes=draw(st.integers(1, 2)),
        replicas=draw(st.integers(0, ceiling)),
        paused=draw(st.sampled_from([Paused.NONE, Paused.NONE, Paused.SCALE_IN, Paused.SCALE_OUT])),
        scaling=scaling,
    )


moments = st.one_of(st.just(float("-inf")), st.floats(NOW - 100, NOW + 100))
memories = st.builds(
    ScalingMemory,
    started_at=st.sampled_from([0.0, NOW - 100, NOW - 5]),
    decided=st.one_of(st.none(), st.integers(0, 40)),
    at=st.one_of(st.none(), st.floats(NOW - 30, NOW)),
    was_known=st.booleans(),
    demand=st.one_of(st.none(), demands()),
    server=st.sampled_from([None, "a", "b"]),
    idle_seconds=st.floats(0, 400),
    untrusted_until=moments,
    surplus_since=st.one_of(st.none(), st.floats(NOW - 200, NOW)),
    burst_until=moments,
    no_room_until=moments,
)
servers = st.sampled_from([None, "a", "b"])


def known(demand: Demand, server: str | None) -> DemandReading:
    return DemandReading(NOW, demand, "", NOW, server)


def asked(
    spec: AstridQueueSpec, reading: DemandReading, fleet: FleetState, memory: ScalingMemory
) -> ScalingDecision:
    return decide(spec, reading, fleet, memory, NOW)[0]


@settings(max_examples=120, deadline=None)
@given(policies(), demands(), fleets(), memories, servers)
def test_a_fleet_that_may_be_busy_does_not_shrink(
    spec: AstridQueueSpec, demand: Demand, fleet: FleetState, memory: ScalingMemory, server: str | None
) -> None:
    """With work to do and no word from the members, only the ceiling and unplaced members may go."""
    demand = replace(demand, members=None)
    decision = asked(spec, known(demand, server), fleet, memory)
    placed = fleet.current - fleet.unscheduled if fleet.unscheduled else fleet.desired

    if demand.outstanding:
        assert decision.replicas >= min(fleet.desired, placed, spec.scaling.max_replicas)


@settings(max_examples=120, deadline=None)
@given(policies(), demands(), fleets(), memories, servers)
def test_only_members_that_are_idle_long_enough_leave_a_busy_fleet(
    spec: AstridQueueSpec, demand: Demand, fleet: FleetState, memory: ScalingMemory, server: str | None
) -> None:
    """Where members speak, no more leave than say that they have been idle for idleSeconds."""
    demand = replace(
        demand, members=demand.members or MembersSeen(1, (5.0, 500.0)), running=demand.running + 1
    )
    fleet = replace(fleet, unscheduled=0, unschedulable_since=None)
    assert demand.members is not None
    idle = sum(each >= spec.scaling.idle_seconds for each in demand.members.idle_seconds)
    decision = asked(spec, known(demand, server), fleet, memory)

    assert decision.replicas >= min(fleet.desired - idle, spec.scaling.max_replicas)


@settings(max_examples=120, deadline=None)
@given(policies(), demands(), fleets(), memories, servers)
def test_work_is_never_left_without_anybody_or_a_reason(
    spec: AstridQueueSpec, demand: Demand, fleet: FleetState, memory: ScalingMemory, server: str | None
) -> None:
    """Where there is something to do there is at least one member, unless growth is paused."""
    decision = asked(spec, known(demand, server), fleet, memory)

    if demand.work or (demand.delayed and demand.due is None):
        assert decision.replicas >= 1 or decision.reason is Reason.PAUSED


@settings(max_examples=120, deadline=None)
@given(policies(), demands(), fleets(), memories, servers)
def test_a_decision_lies_between_floor_and_ceiling(
    spec: AstridQueueSpec, demand: Demand, fleet: FleetState, memory: ScalingMemory, server: str | None
) -> None:
    """A fleet grows to the floor, and never above the ceiling, unless that is paused."""
    decision = asked(spec, known(demand, server), fleet, memory)

    if decision.reason is not Reason.PAUSED:
        assert spec.floor <= decision.replicas <= spec.scaling.max_replicas
    assert decision.message.strip()
    assert decision.look_again_at is None or decision.look_again_at > NOW


@settings(max_examples=120, deadline=None)
@given(policies(), fleets(), memories)
def test_unknown_is_unchanged(spec: AstridQueueSpec, fleet: FleetState, memory: ScalingMemory) -> None:
    """A Redis that cannot be read moves nothing, and adds no idle time."""
    decision, after = decide(spec, DemandReading(NOW, None, "refused", 5.0), fleet, memory, NOW)

    assert decision.replicas == (fleet.desired if fleet.exists else memory.decided or 0)
    assert after.idle_seconds == memory.idle_seconds


@settings(max_examples=120, deadline=None)
@given(policies(), demands(), fleets(), memories, servers)
def test_deciding_again_changes_nothing(
    spec: AstridQueueSpec, demand: Demand, fleet: FleetState, memory: ScalingMemory, server: str | None
) -> None:
    """With the decision carried out, the same reading asks for the same size: no flapping."""
    reading = known(demand, server)
    first, after = decide(spec, reading, fleet, memory, NOW)
    again, _ = decide(spec, reading, replace(fleet, exists=True, desired=first.replicas), after, NOW)

    assert again.replicas == first.replicas


@settings(max_examples=120, deadline=None)
@given(policies(), demands(), fleets(), memories, servers)
def test_what_is_fresh_or_suspect_is_never_a_reason_to_shrink(
    spec: AstridQueueSpec, demand: Demand, fleet: FleetState, memory: ScalingMemory, server: str | None
) -> None:
    """After a start, an outage or a change of server a fleet only grows, but for ceiling and lack of room."""
    fleet = replace(fleet, unscheduled=0, unschedulable_since=None)
    fresh = replace(memory, started_at=NOW - 29)
    back = replace(memory, was_known=False, at=NOW - 1, started_at=0.0)
    for suspect in (fresh, back):
        decision = asked(spec, known(demand, server), fleet, suspect)
        assert decision.replicas >= min(fleet.desired, spec.scaling.max_replicas)


@settings(max_examples=120, deadline=None)
@given(policies(), demands(), fleets(), memories)
def test_more_work_never_asks_for_fewer(
    spec: AstridQueueSpec, demand: Demand, fleet: FleetState, memory: ScalingMemory
) -> None:
    """What demand, floor and ceiling ask for grows with what waits, where age and worth do not enter."""
    demand = replace(demand, oldest_seconds=None, start_seconds=None, members=None)
    fleet = replace(fleet, ready=0, starting=0)
    less = asked(spec, known(demand, None), fleet, memory)
    more = asked(spec, known(replace(demand, ready=demand.ready + 100), None), fleet, memory)

    if spec.paused is Paused.NONE:
        assert more.wanted >= less.wanted
