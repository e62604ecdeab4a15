"""How a fleet that is a little too large becomes smaller while it works."""

from dataclasses import replace
from typing import Any

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
from astrid_operator.scaling_memory import with_peak
from support.queue_documents import policy

SPEC: dict[str, Any] = {"scaling": {"expectedTaskSeconds": 6, "targetDrainSeconds": 1, "idleSeconds": 40}}


class Fleet:
    """Ten members of which `busy` work; the others have just become idle, as chance hands messages out."""

    def __init__(self, **spec: Any) -> None:
        self.policy = policy(**{**SPEC, **spec})
        self.memory = ScalingMemory(started_at=-1000.0)
        self.size = 10

    def at(self, now: float, busy: int, *, is_known: bool = True) -> ScalingDecision:
        members = MembersSeen(busy, (0.5,) * (self.size - busy))
        demand = Demand(running=busy, members=members) if is_known else None
        state = FleetState(exists=True, desired=self.size, current=self.size, ready=self.size)
        reading = DemandReading(now, demand, last_read_at=now if is_known else 0.0)
        decision, self.memory = decide(self.policy, reading, state, self.memory, now)
        self.size = decision.replicas
        return decision


def test_what_was_not_needed_for_a_while_leaves_although_nobody_was_idle_for_long() -> None:
    """Messages go to any member: the capacity has been idle for idleSeconds, though no certain member has."""
    fleet = Fleet()
    kept = [fleet.at(t, 4).replicas for t in range(40)]
    shrunk = fleet.at(40, 4)

    assert set(kept) == {10}
    assert (shrunk.replicas, shrunk.reason) == (4, Reason.SURPLUS)
    assert "6 more than were needed at any time of 40 s" in shrunk.message


def test_the_most_that_was_needed_lately_stays() -> None:
    """A lull between two peaks is no reason to shrink below the peaks; once they are past, it is."""
    fleet = Fleet()
    for t in range(41):
        fleet.at(t, 7 if t == 30 else 2)

    assert fleet.size == 7
    assert [fleet.at(t, 2).replicas for t in (69, 71, 75)] == [7, 7, 2]


def test_a_tenth_is_let_pass() -> None:
    """One member too many of ten is not worth a change, for arrivals are never even."""
    fleet = Fleet()
    for t in range(120):
        fleet.at(t, 9)

    assert fleet.size == 10


def test_time_that_is_unknown_begins_the_watch_anew() -> None:
    """Nobody saw what was needed during an outage."""
    fleet = Fleet()
    for t in range(39):
        fleet.at(t, 2)
    fleet.at(39, 2, is_known=False)
    after = [fleet.at(t, 2).replicas for t in range(40, 99)]

    assert set(after) == {10}
    assert fleet.at(100, 2).replicas == 2


def test_a_foreign_fleet_that_does_not_say_who_is_busy_keeps_its_size() -> None:
    """Surplus is only taken from members that are known to be idle."""
    fleet = Fleet()
    for t in range(200):
        memory = fleet.memory
        state = FleetState(exists=True, desired=10, current=10, ready=10)
        decision, fleet.memory = decide(
            fleet.policy, DemandReading(t, Demand(running=2), last_read_at=t), state, memory, t
        )

        assert decision.replicas == 10


def test_peaks_fall_and_end() -> None:
    """What is remembered of the past is no more than can still matter."""
    peaks = with_peak((), 5, 0.0, 40)
    peaks = with_peak(peaks, 8, 3.0, 40)
    peaks = with_peak(peaks, 2, 6.0, 40)

    assert [size for _, size in peaks] == [8, 2]
    assert [size for _, size in with_peak(peaks, 2, 51.0, 40)] == [2]
    assert replace(ScalingMemory(0.0), peaks=peaks).peaks[0][0] >= 6.0
