"""The rules of scaling, one row of a sentence each."""

import math
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from astrid_operator.fleet import FleetState
from astrid_operator.scaling import (
    Demand,
    DemandReading,
    MembersSeen,
    Reason,
    ScalingDecision,
    ScalingMemory,
    decide,
    limited,
)
from support.queue_documents import policy

#: A process that has been deciding for long, and a moment of its clock.
OLD = ScalingMemory(started_at=0.0)
NOW = 1000.0

#: A queue whose tasks take 6 s on one of 4 threads.
SPEC: dict[str, Any] = {"concurrency": 4, "scaling": {"expectedTaskSeconds": 6, "maxReplicas": 20}}


def fleet(members: int, **more: Any) -> FleetState:
    """A fleet of that many members, all ready."""
    return FleetState(**{"exists": True, "desired": members, "current": members, "ready": members, **more})


def read(demand: Demand | None, at: float = NOW, **more: Any) -> DemandReading:
    """A reading made now."""
    trouble = "" if demand else "connection refused"
    return DemandReading(at, demand, **{"trouble": trouble, "last_read_at": at if demand else None, **more})


def spec(**scaling: Any) -> dict[str, Any]:
    """SPEC with other fields of scaling."""
    return {**SPEC, "scaling": {**SPEC["scaling"], **scaling}}


def idle_for(seconds: float, **more: Any) -> ScalingMemory:
    """A memory of a queue that is known to have been empty for so long."""
    return replace(OLD, at=NOW, demand=Demand(), idle_seconds=seconds, **more)


def members(busy: int, *idle: float) -> MembersSeen:
    return MembersSeen(busy, idle)


@dataclass(frozen=True)
class Row:
    """demand and fleet → size, reason, and a part of the sentence."""

    demand: Demand | None
    fleet: FleetState
    replicas: int
    reason: Reason
    says: str
    spec: dict[str, Any] = field(default_factory=lambda: SPEC)
    memory: ScalingMemory = OLD


ROWS: dict[str, Row] = {
    # --------------------------------------------------------------------------------- who decides
    "disabled goes to zero whatever waits": Row(
        Demand(ready=100), fleet(5), 0, Reason.DISABLED, "enabled is false", {**SPEC, "enabled": False}
    ),
    "disabled wins over paused and Manual": Row(
        Demand(),
        fleet(5),
        0,
        Reason.DISABLED,
        "running tasks have 360 s to end",
        {"enabled": False, "paused": "All", "replicas": 3, "scaling": {"mode": "Manual"}},
    ),
    "paused All keeps the fleet, even above the ceiling": Row(
        Demand(ready=1000), fleet(30), 30, Reason.PAUSED, "30 kept: paused is All", {**SPEC, "paused": "All"}
    ),
    "paused wins over Manual": Row(
        Demand(),
        fleet(1),
        1,
        Reason.PAUSED,
        "paused is All",
        {"paused": "All", "replicas": 3, "scaling": {"mode": "Manual"}},
    ),
    "paused ScaleIn still grows": Row(
        Demand(ready=480), fleet(1), 12, Reason.BACKLOG, "12 wanted", {**SPEC, "paused": "ScaleIn"}
    ),
    "paused ScaleIn does not shrink": Row(
        Demand(),
        fleet(5),
        5,
        Reason.PAUSED,
        "5 kept: paused is ScaleIn",
        {**SPEC, "paused": "ScaleIn"},
        idle_for(99),
    ),
    "paused ScaleOut does not grow": Row(
        Demand(ready=480), fleet(1), 1, Reason.PAUSED, "12 wanted: 480", {**SPEC, "paused": "ScaleOut"}
    ),
    "paused ScaleOut still shrinks": Row(
        Demand(), fleet(5), 0, Reason.IDLE, "0 wanted", {**SPEC, "paused": "ScaleOut"}, idle_for(99)
    ),
    "Manual is exactly what replicas says, up": Row(
        Demand(),
        fleet(0),
        3,
        Reason.MANUAL,
        "3 wanted: replicas, in Manual mode",
        {"replicas": 3, "scaling": {"mode": "Manual"}},
    ),
    "Manual is exactly what replicas says, down, also while busy": Row(
        Demand(ready=50, running=5),
        fleet(5),
        2,
        Reason.MANUAL,
        "2 wanted",
        {"replicas": 2, "scaling": {"mode": "Manual"}},
    ),
    "Manual needs no demand": Row(
        None, fleet(0), 3, Reason.MANUAL, "3 wanted", {"replicas": 3, "scaling": {"mode": "Manual"}}
    ),
    # ----------------------------------------------------------------------------------- how many
    "nothing to do is nobody": Row(Demand(), fleet(0), 0, Reason.IDLE, "nothing waits and nothing runs"),
    "the first message wakes one": Row(
        Demand(ready=1), fleet(0), 1, Reason.BACKLOG, "1 wanted: 1 message × 6.0 s"
    ),
    "a backlog is sized to drain in time, in one step": Row(
        Demand(ready=480),
        fleet(0),
        12,
        Reason.BACKLOG,
        "12 wanted: 480 messages × 6.0 s ÷ 4 threads within 60 s",
    ),
    "running messages are work too": Row(
        Demand(ready=240, running=240), fleet(12), 12, Reason.BACKLOG, "12 wanted: 480 messages"
    ),
    "messages that only run still need somebody: orphans wake a fleet": Row(
        Demand(running=2), fleet(0), 1, Reason.BACKLOG, "1 wanted: 2 messages"
    ),
    "what is starting is bought already": Row(
        Demand(ready=480),
        fleet(12, ready=9, starting=3),
        12,
        Reason.BACKLOG,
        "12 wanted: 480 messages × 6.0 s ÷ 4 threads within 60 s; 3 already starting",
    ),
    "a measured task time wins over the guess": Row(
        Demand(ready=480, service_seconds=0.5), fleet(0), 1, Reason.BACKLOG, "480 messages × 0.5 s"
    ),
    "an unknown task time asks for one thread each": Row(
        Demand(ready=10),
        fleet(0),
        3,
        Reason.BACKLOG,
        "one each while the task time is not known",
        {"concurrency": 4},
    ),
    "never more threads than messages": Row(
        Demand(ready=2), fleet(0), 1, Reason.BACKLOG, "1 wanted", spec(targetDrainSeconds=1)
    ),
    "the ceiling holds, and says what it cuts off": Row(
        Demand(ready=4800),
        fleet(0),
        20,
        Reason.CEILING,
        "20 wanted: scaling.maxReplicas; else 120 wanted: 4800",
    ),
    "minReplicas is a floor": Row(
        Demand(),
        fleet(0),
        2,
        Reason.FLOOR,
        "2 wanted: scaling.minReplicas; else 0 wanted",
        spec(minReplicas=2),
    ),
    "replicas is a floor in Auto and says so": Row(
        Demand(),
        fleet(0),
        2,
        Reason.FLOOR,
        "2 wanted: replicas, which in Auto mode is a floor and never a ceiling",
        {**SPEC, "replicas": 2},
    ),
    "replicas is no ceiling in Auto": Row(
        Demand(ready=480), fleet(2), 12, Reason.BACKLOG, "12 wanted", {**SPEC, "replicas": 2}
    ),
    "a rate that has to be kept up with counts, with its square root to spare": Row(
        Demand(ready=40, arrivals_per_s_fast=2, arrivals_per_s_slow=2),
        fleet(1),
        5,
        Reason.ARRIVAL_RATE,
        "5 wanted: 2.0 messages/s × 6.0 s ÷ 4 threads is the load of 3.0",
    ),
    "a message that waits too long shows that estimates are wrong": Row(
        Demand(ready=40, oldest_seconds=300),
        fleet(2),
        5,
        Reason.QUEUE_AGE,
        "5 wanted: the oldest message waits for 300 s, 120 s are allowed, and 2 are ready",
    ),
    "another is not worth it when those there are done before it starts": Row(
        Demand(ready=100, service_seconds=2, start_seconds=45),
        fleet(2),
        2,
        Reason.NOT_WORTH_IT,
        "those there are done in 25 s, and a new one starts in 45 s; else 4 wanted",
        spec(targetDrainSeconds=15),
    ),
    "another is worth it when there is enough to do": Row(
        Demand(ready=1000, service_seconds=2, start_seconds=45), fleet(2), 9, Reason.BACKLOG, "9 wanted"
    ),
    # ------------------------------------------------------------------------------------ delayed
    "delayed messages of unknown time keep one, since nobody else moves them": Row(
        Demand(delayed=3),
        fleet(0),
        1,
        Reason.DELAYED,
        "1 wanted: 3 messages delayed, until when is not known",
    ),
    "what is due is work": Row(
        Demand(delayed=100, due=100), fleet(0), 3, Reason.BACKLOG, "3 wanted: 100 messages"
    ),
    "what is due later wakes nobody yet": Row(
        Demand(delayed=3, due=0, next_due_seconds=50, start_seconds=5),
        fleet(0),
        0,
        Reason.IDLE,
        "3 messages delayed, the next is due in 50 s",
    ),
    "what is due as soon as somebody could be there wakes one": Row(
        Demand(delayed=3, due=0, next_due_seconds=5.5, start_seconds=5),
        fleet(0),
        1,
        Reason.DELAYED,
        "the next is due in 5.5 s",
    ),
    "where no start was measured, a few seconds are assumed for one": Row(
        Demand(delayed=3, due=0, next_due_seconds=4.5),
        fleet(0),
        1,
        Reason.DELAYED,
        "the next is due in 4.5 s",
    ),
    "and no more than a few": Row(
        Demand(delayed=3, due=0, next_due_seconds=5.5), fleet(0), 0, Reason.IDLE, "the next is due in 5.5 s"
    ),
    "a start that was measured as short is believed": Row(
        Demand(delayed=3, due=0, next_due_seconds=1.7, start_seconds=0.5),
        fleet(0),
        0,
        Reason.IDLE,
        "in 1.7 s",
    ),
    "a living member is kept for what is due soon": Row(
        Demand(delayed=3, due=0, next_due_seconds=50, start_seconds=5),
        fleet(1),
        1,
        Reason.DELAYED,
        "the next is due in 50 s",
        memory=idle_for(500),
    ),
    "and where idle ones may not stay, who would be asked for again at once": Row(
        Demand(delayed=3, due=0, next_due_seconds=4.5),
        fleet(1),
        1,
        Reason.DELAYED,
        "the next is due in 4.5 s",
        spec(idleSeconds=0),
        idle_for(500),
    ),
    # ------------------------------------------------------------------------------------- smaller
    "a fleet that has something to do is left alone": Row(
        Demand(running=1), fleet(12), 12, Reason.STILL_BUSY, "12 kept: 1 message to do", memory=idle_for(0)
    ),
    "a member with a device is kept idle for as long as a start takes": Row(
        Demand(start_seconds=240.0),
        fleet(2),
        2,
        Reason.COOLING_DOWN,
        "2 kept: idle for 99 s of 240 s",
        {**SPEC, "gpu": {"count": 1}},
        memory=idle_for(99),
    ),
    "a member with a device leaves after that": Row(
        Demand(start_seconds=240.0),
        fleet(2),
        0,
        Reason.IDLE,
        "0 wanted: idle for 240 s",
        {**SPEC, "gpu": {"count": 1}},
        memory=idle_for(240),
    ),
    "a member without one leaves after idleSeconds, however long a start takes": Row(
        Demand(start_seconds=240.0), fleet(2), 0, Reason.IDLE, "0 wanted: idle for 99 s", memory=idle_for(99)
    ),
    "an idle fleet cools down first": Row(
        Demand(), fleet(12), 12, Reason.COOLING_DOWN, "12 kept: idle for 20 s of 60 s", memory=idle_for(20)
    ),
    "a fleet that was idle long enough goes": Row(
        Demand(), fleet(12), 0, Reason.IDLE, "0 wanted: idle for 60 s", memory=idle_for(60)
    ),
    "an idle fleet goes to its floor": Row(
        Demand(), fleet(12), 2, Reason.SURPLUS, "2 wanted: idle for 60 s", spec(minReplicas=2), idle_for(60)
    ),
    "an operator that has just started only grows": Row(
        Demand(),
        fleet(12),
        12,
        Reason.NOT_TRUSTED_YET,
        "for its first 30 s an operator only grows",
        memory=idle_for(99, started_at=NOW - 29),
    ),
    "a new ceiling below the fleet shrinks it at once": Row(
        Demand(ready=4800), fleet(30), 20, Reason.CEILING, "20 wanted: scaling.maxReplicas"
    ),
    "a burst forbids to shrink": Row(
        Demand(),
        fleet(5),
        5,
        Reason.BURST,
        "messages have begun to come faster",
        memory=idle_for(99, burst_until=NOW + 30),
    ),
    # ----------------------------------------------------------------- members that can leave singly
    "only idle members leave while there is work": Row(
        Demand(running=3, members=members(3, 99, 99, 10)),
        fleet(6),
        4,
        Reason.SURPLUS,
        "4 wanted: 2 idle for 60 s and more",
        memory=replace(OLD, surplus_since=NOW - 30),
    ),
    "nobody leaves when all are busy": Row(
        Demand(running=3, members=members(6)),
        fleet(6),
        6,
        Reason.STILL_BUSY,
        "no member has been idle for 60 s",
        memory=replace(OLD, surplus_since=NOW - 99),
    ),
    "a surplus must last before anybody leaves": Row(
        Demand(running=3, members=members(3, 99, 99, 99)),
        fleet(6),
        6,
        Reason.COOLING_DOWN,
        "fewer have been enough for 10 s only",
        memory=replace(OLD, surplus_since=NOW - 10),
    ),
    "members that are leaving already are not counted twice": Row(
        Demand(running=3, members=members(3, 99, 99)),
        fleet(4, current=6),
        4,
        Reason.STILL_BUSY,
        "4 kept",
        memory=replace(OLD, surplus_since=NOW - 99),
    ),
    "a queue is not idle while a member says that it is busy": Row(
        Demand(members=members(1)), fleet(1), 1, Reason.STILL_BUSY, "1 kept", memory=idle_for(99)
    ),
    # ---------------------------------------------------------------------------------------- room
    "members that fit nowhere are waited for": Row(
        Demand(ready=480),
        fleet(12, ready=4, unscheduled=8, unschedulable_since=NOW - 299),
        12,
        Reason.BACKLOG,
        "12 wanted",
    ),
    "members that fitted nowhere for long are withdrawn": Row(
        Demand(ready=480),
        fleet(12, ready=4, unscheduled=8, unschedulable_since=NOW - 300),
        4,
        Reason.NO_ROOM,
        "4 wanted: more fitted nowhere for 300 s; else 12 wanted",
    ),
    "one goes on waiting for a place": Row(
        Demand(ready=480),
        fleet(12, ready=0, unscheduled=12, unschedulable_since=NOW - 300),
        1,
        Reason.NO_ROOM,
        "1 wanted: more fitted nowhere",
    ),
    "withdrawn members are not asked for again at once": Row(
        Demand(ready=480),
        fleet(4),
        4,
        Reason.NO_ROOM,
        "4 wanted",
        memory=replace(OLD, no_room_until=NOW + 200),
    ),
    # ------------------------------------------------------------------------------------- unknown
    "demand that cannot be read freezes the fleet": Row(
        None, fleet(7), 7, Reason.BROKER_UNREACHABLE, "7 kept: demand was never read: connection refused"
    ),
    "a fleet that vanished while demand is unknown is made again": Row(
        None, FleetState(), 7, Reason.BROKER_UNREACHABLE, "7 kept", memory=replace(OLD, decided=7)
    ),
}


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS.keys())
def test_the_rule_holds(row: Row) -> None:
    """Each row is a rule: what is seen, what is decided, and the word and numbers that say why."""
    decision, _ = decide(policy(**row.spec), read(row.demand), row.fleet, row.memory, NOW)

    assert (decision.replicas, decision.reason) == (row.replicas, row.reason)
    assert row.says in decision.message


class Story:
    """A queue over time: each step is a reading, the decision is carried out before the next."""

    def __init__(self, **fields: Any) -> None:
        self.policy = policy(**(fields or SPEC))
        self.memory = ScalingMemory(started_at=-1000.0)
        self.size = 0

    def at(self, now: float, demand: Demand | None, **more: Any) -> ScalingDecision:
        decision, self.memory = decide(
            self.policy, read(demand, now, **more), fleet(self.size), self.memory, now
        )
        self.size = decision.replicas
        return decision


def test_a_burst_of_work_comes_and_goes_in_two_writes() -> None:
    """Up in one step, kept while anything runs, down in one step after idleSeconds."""
    story = Story(**SPEC)
    sizes = [story.at(0, Demand(ready=480)).replicas]
    sizes += [story.at(t, Demand(running=max(0, 480 - 8 * t))).replicas for t in range(1, 119)]
    sizes += [story.at(t, Demand()).replicas for t in range(119, 240)]

    assert [size for size, before in zip(sizes, [0, *sizes], strict=False) if size != before] == [12, 0]


def test_time_that_is_unknown_does_not_count_as_idle() -> None:
    """200 s without an answer from Redis are not 200 s of an empty queue."""
    story = Story(**spec(idleSeconds=30))
    story.at(0, Demand(ready=480))
    story.at(1, Demand(running=4))
    story.at(2, Demand())
    for t in range(3, 203):
        assert story.at(t, None, last_read_at=2.0).reason is Reason.BROKER_UNREACHABLE
    back = story.at(203, Demand())

    assert (back.replicas, back.reason) == (12, Reason.NOT_TRUSTED_YET)
    assert "Redis answers again after an outage" in back.message
    assert story.at(262, Demand()).replicas == 12
    assert story.at(263, Demand()).replicas == 0


def test_an_empty_answer_after_an_outage_may_still_grow() -> None:
    """Not trusted to shrink is not frozen: work that comes is served."""
    story = Story(**SPEC)
    story.at(0, Demand(ready=40))
    story.at(1, None, last_read_at=0.0)

    assert story.at(2, Demand(ready=480)).replicas == 12


def test_the_first_reading_of_all_is_no_outage() -> None:
    """That nothing was read in the first second of an operator does not cost a minute of trust."""
    story = Story(**SPEC)
    story.memory = ScalingMemory(started_at=0.0)
    story.at(0, None)

    assert story.at(1, Demand()).reason is Reason.IDLE
    assert story.memory.untrusted_until < 0


@pytest.mark.parametrize(
    ("name", "before", "after", "servers"),
    [
        ("a queue of 1000 vanishes within a second", Demand(ready=1000), Demand(), ("a", "a")),
        ("another server answers", Demand(ready=1), Demand(), ("a", "b")),
        (
            "messages vanish that nobody finished",
            Demand(ready=10, finished=5),
            Demand(finished=5),
            ("a", "a"),
        ),
        ("counters begin anew", Demand(ready=10, finished=5000), Demand(finished=0), ("a", "a")),
    ],
)
def test_a_queue_that_is_suddenly_empty_is_not_believed(
    name: str, before: Demand, after: Demand, servers: tuple[str, str]
) -> None:
    """A flushed or replaced Redis must not send a fleet home within a minute."""
    story = Story(concurrency=1, scaling={"idleSeconds": 0})
    size = story.at(0, before, server=servers[0]).replicas
    empty = story.at(1, after, server=servers[1])

    assert (empty.replicas, empty.reason) == (size, Reason.NOT_TRUSTED_YET)
    assert empty.look_again_at == 61
    assert story.at(61, after, server=servers[1]).replicas == 0


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (Demand(ready=20), Demand()),
        (Demand(ready=1000, finished=0), Demand(finished=1000)),
        (Demand(ready=400, service_seconds=0.01), Demand()),
    ],
)
def test_a_queue_that_was_worked_off_is_believed(before: Demand, after: Demand) -> None:
    """Quick tasks end within a second; that is no reason to keep a fleet for a minute."""
    story = Story(concurrency=4, scaling={"idleSeconds": 0, "expectedTaskSeconds": 0.01})
    story.at(0, before)

    assert story.at(1, after).replicas == 0


def test_waiting_ends_by_itself() -> None:
    """A decision that time alone changes says when to look again."""
    story = Story(**SPEC)
    story.at(0, Demand(ready=4))
    story.at(10, Demand())
    cooling = story.at(30, Demand())

    assert cooling.look_again_at == 70
    assert story.at(70, Demand()).replicas == 0


MORE_LEAVE_LATER = [
    ("the next one will have been idle for long enough in 50 s", Demand(running=3, members=members(3, 99, 99, 10)),
     fleet(6), replace(OLD, surplus_since=NOW - 30), 4, NOW + 50),
    ("nobody is needed once the queue has been idle for long enough", Demand(members=members(0, *[20.0] * 10)),
     fleet(10), idle_for(20, watched_since=NOW - 500, peaks=((NOW + 70, 4),)), 4, NOW + 40),
    ("what was wanted lately is not lately any more", Demand(members=members(0, *[20.0] * 10)),
     fleet(10), idle_for(20, watched_since=NOW - 500, peaks=((NOW + 5, 4), (NOW + 70, 1))), 4, NOW + 5),
    ("fewer will have been enough for long enough", Demand(running=6, members=members(6, *[20.0] * 4)),
     fleet(10), replace(OLD, watched_since=NOW - 500, surplus_since=NOW - 10, peaks=((NOW + 70, 8),)), 8, NOW + 20),
]  # fmt: skip


@pytest.mark.parametrize(
    ("demand", "there", "memory", "left", "at"),
    [row[1:] for row in MORE_LEAVE_LATER],
    ids=[row[0] for row in MORE_LEAVE_LATER],
)
def test_a_step_down_says_when_more_may_leave(
    demand: Demand, there: FleetState, memory: ScalingMemory, left: int, at: float
) -> None:
    """Once it is carried out, nothing may happen until then."""
    decision, _ = decide(policy(**SPEC), read(demand), there, memory, NOW)

    assert (decision.replicas, decision.reason, decision.look_again_at) == (left, Reason.SURPLUS, at)


def test_a_queue_at_zero_wakes_for_a_retry_in_time() -> None:
    """It looks again as long before the message is due as a member needs to start."""
    later = Demand(delayed=1, due=0, next_due_seconds=100, start_seconds=8)
    story = Story(**SPEC)

    assert story.at(0, later).look_again_at == 91
    assert story.at(90, replace(later, next_due_seconds=10)).replicas == 0
    assert story.at(91, replace(later, next_due_seconds=9)).replicas == 1


def test_a_fleet_that_has_no_room_asks_again_after_a_while() -> None:
    """Withdrawn is not given up."""
    story = Story(**SPEC)
    story.memory = replace(story.memory, no_room_until=50.0)
    story.size = 4

    assert story.at(49, Demand(ready=480)).replicas == 4
    assert story.at(50, Demand(ready=480)).replicas == 12


LULLS = [
    ("what waits is no lull", Demand(ready=1, running=2, arrivals_per_s_slow=0.1), 0.0),
    ("nothing known, no lull", Demand(running=2), 0.0),
    ("messages come every ten seconds", Demand(running=2, arrivals_per_s_slow=0.1), 10.0),
    ("of two rates the faster one counts",
     Demand(running=2, arrivals_per_s_fast=0.5, arrivals_per_s_slow=0.1), 2.0),
    ("nothing came lately", Demand(running=2, arrivals_per_s_fast=0.0, arrivals_per_s_slow=0.0), math.inf),
    ("a delayed one ends it", Demand(running=2, arrivals_per_s_slow=0.0, delayed=1, due=0, next_due_seconds=7.0), 7.0),
    ("one that is due waits", Demand(running=2, arrivals_per_s_slow=0.0, delayed=1, due=1), 0.0),
]  # fmt: skip


@pytest.mark.parametrize(("demand", "expected"), [row[1:] for row in LULLS], ids=[row[0] for row in LULLS])
def test_a_lull_is_told(demand: Demand, expected: float) -> None:
    """Each row is a sentence about how long a queue can do with what runs."""
    decision, _ = decide(policy(**SPEC), read(demand), fleet(2), OLD, NOW)
    assert decision.lull_seconds == expected


def test_a_budget_is_told_apart_from_a_decision() -> None:
    """What is withheld keeps what was wanted, and says why."""
    decision = ScalingDecision(12, Reason.BACKLOG, "12 wanted: 480 messages", None, 12)

    assert limited(decision, 12, "4 slots") is decision
    held = limited(decision, 3, "4 slots, 1 of them detection's")
    assert (held.replicas, held.wanted, held.reason) == (3, 12, Reason.SCALE_LIMITED)
    assert held.message == "3 of 12 granted: 4 slots, 1 of them detection's; 12 wanted: 480 messages"
