"""What a simulation makes of delayed messages and of retries: who is there when, and what is told of it."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from astrid_operator.delayed import EtaScan, WalkOn
from astrid_operator.queue_counts import Count, demand_of
from astrid_operator.simulated_fleet import SimulatedFleet
from astrid_operator.simulation import Conditions, QueueOutcome, simulate
from astrid_operator.simulation_delays import SimulatedDelays
from astrid_operator.simulation_demand import SimulatedDemand
from astrid_operator.simulation_load import Arrival, burst
from astrid_operator.simulation_report import as_json, sparklines, table, verdict
from astrid_operator.simulation_timeline import Timeline, spans, together
from astrid_operator.throughput import Estimates
from support.queue_documents import queue


def outcome_of(load: Sequence[Arrival], spec: dict[str, Any], conditions: Conditions) -> QueueOutcome:
    one = queue(**{"maxRetries": 3, "retryDelaySeconds": 30, **spec})
    (outcome,) = simulate({one.key: load}, [one], conditions)
    return outcome


def sizes(outcome: QueueOutcome) -> list[tuple[float, int]]:
    """(when, how many) of every change of size."""
    return [(each.at, each.to) for each in outcome.resizes]


@dataclass
class Row:
    """What happens to a load, and what must be so afterwards."""

    load: list[Arrival]
    holds: Callable[[QueueOutcome], bool]
    spec: dict[str, Any] = field(default_factory=dict)
    conditions: Conditions = field(default_factory=lambda: Conditions((3.0, 3.0)))


LATER = Arrival(0.0, 5.0, 600.0)
NOW_AND_IN_AN_HOUR = [Arrival(0.0, 5.0), Arrival(0.0, 5.0, 3600.0)]

ROWS = {
    "due in 10 min at zero: no pod until shortly before, starts within 2 s of its ETA": Row(
        [LATER], lambda it: 594 <= it.resizes[0].at <= 596 and it.waits[0] <= 2 and it.delayed == 1
    ),
    "no pod is paid for meanwhile": Row([LATER], lambda it: it.pod_seconds < 5 + 5 + 60 + 5),
    "nobody says who is busy: it is woken all the same, and gone again": Row(
        [LATER],
        lambda it: 594 <= it.resizes[0].at <= 596 and it.waits[0] <= 2 and it.resizes[-1].to == 0,
        conditions=Conditions((3.0, 3.0), says_who_is_busy=False),
    ),
    "a start that was measured once is asked for as long ahead": Row(
        NOW_AND_IN_AN_HOUR,
        lambda it: it.resizes[-2].at == 3600 - 21 and it.waits[1] <= 2,
        conditions=Conditions((20.0, 20.0)),
    ),
    "a start that was never measured and takes long makes late by as much": Row(
        [LATER], lambda it: 14 <= it.waits[0] <= 16, conditions=Conditions((20.0, 20.0))
    ),
    "what is due in an hour keeps nobody": Row(
        NOW_AND_IN_AN_HOUR, lambda it: [to for _, to in sizes(it)] == [1, 0, 1, 0]
    ),
    "what is due within two minutes keeps the member that is there": Row(
        [Arrival(0.0, 5.0), Arrival(0.0, 5.0, 120.0)],
        lambda it: [to for _, to in sizes(it)] == [1, 0] and it.waits[1] == 0,
    ),
    "many that are due at once are a backlog from then on, and not before": Row(
        [Arrival(float(number), 10.0, 600.0 - number) for number in range(60)],
        lambda it: it.most_members == 10 and [to for at, to in sizes(it) if at < 600] == [1],
        {"concurrency": 1, "scaling": {"expectedTaskSeconds": 10}},
    ),
    "an earlier one that comes later is first": Row(
        [Arrival(0.0, 5.0, 600.0), Arrival(100.0, 5.0, 60.0)],
        lambda it: 154 <= it.resizes[0].at <= 156 and max(it.waits) <= 2,
    ),
    "due while the broker cannot be read and nobody lives: once it is back": Row(
        [LATER],
        lambda it: it.resizes[0].at == 700 and 103 <= it.waits[0] <= 105,
        conditions=Conditions((3.0, 3.0), outages=((590.0, 699.5),)),
    ),
    "due while the operator cannot read: a living member takes it": Row(
        [LATER],
        lambda it: it.waits[0] == 0,
        {"scaling": {"minReplicas": 1}},
        Conditions((3.0, 3.0), outages=((590.0, 700.0),), longest_seconds=2000.0),
    ),
    "a member that becomes ready in an outage takes what is due": Row(
        [LATER],
        lambda it: 2 <= it.waits[0] <= 4,
        conditions=Conditions((8.0, 8.0), outages=((597.0, 700.0),)),
    ),
    "a fleet that may not run leaves it in the queue": Row(
        [LATER],
        lambda it: (it.finished, it.dead, it.pod_seconds) == (0, 0, 0),
        {"enabled": False},
        Conditions((3.0, 3.0), longest_seconds=2000.0),
    ),
    "a burst of which a tenth fails ends with all done or dead, and none lost": Row(
        burst(random.Random(1), 300, 5.0),
        lambda it: it.finished + it.dead == 300 and 15 <= it.retried <= 55 and not it.interrupted,
        conditions=Conditions((3.0, 9.0), fail_share=0.1),
    ),
    "what always fails is in the dead letters after its retries": Row(
        burst(random.Random(1), 20, 5.0),
        lambda it: (it.finished, it.retried, it.dead, list(it.waits)) == (0, 40, 20, []),
        {"maxRetries": 2},
        Conditions((3.0, 3.0), fail_share=1.0),
    ),
    "without retries a failure is dead at once": Row(
        burst(random.Random(1), 20, 5.0),
        lambda it: (it.retried, it.dead) == (0, 20),
        {"maxRetries": 0},
        Conditions((3.0, 3.0), fail_share=1.0),
    ),
    "what takes longer than its limit is ended there each time, and dead after its retries": Row(
        [Arrival(0.0, 300.0)] * 20,
        lambda it: (
            (it.finished, it.retried, it.dead, it.timed_out) == (0, 40, 20, 60) and it.busy_seconds == 60 * 60
        ),
        {"maxRetries": 2, "timeoutSeconds": 60},
    ),
    "what takes as long as its limit is done; what takes longer, alone, is not": Row(
        [Arrival(0.0, 60.0), Arrival(0.0, 60.5), Arrival(0.0, 5.0)],
        lambda it: (it.finished, it.dead, it.timed_out) == (2, 1, 1) and it.busy_seconds == 60 + 60 + 5,
        {"maxRetries": 0, "timeoutSeconds": 60},
    ),
    "what is too long is retried as other failures are, and others that fail are not counted with it": Row(
        [Arrival(0.0, 300.0, 10.0), *burst(random.Random(1), 40, 5.0)],
        lambda it: it.retried > 10 and it.dead < 20 and it.timed_out == 4,
        {"maxRetries": 3, "timeoutSeconds": 60},
        Conditions((3.0, 3.0), fail_share=0.3),
    ),
    "between two attempts an hour apart the fleet is at zero": Row(
        [Arrival(0.0, 5.0)],
        lambda it: (
            [to for _, to in sizes(it)] == [1, 0, 1, 0, 1, 0] and 3 * 3600 <= it.drained_at <= 6 * 3600
        ),
        {"maxRetries": 2, "retryDelaySeconds": 3600, "maxRetryDelaySeconds": 86400},
        Conditions((3.0, 3.0), fail_share=1.0),
    ),
    "the wait of a retry counts from its ETA": Row(
        burst(random.Random(1), 40, 1.0),
        lambda it: it.retried > 5 and max(it.waits) < 60,
        {"retryDelaySeconds": 900, "maxRetryDelaySeconds": 3600},
        Conditions((3.0, 3.0), fail_share=0.3),
    ),
}


@pytest.mark.parametrize("sentence", ROWS)
def test_delayed_messages_and_retries(sentence: str) -> None:
    """Each sentence holds, and so it does where the policy is asked every second."""
    row = ROWS[sentence]
    outcome = outcome_of(row.load, row.spec, row.conditions)
    every_second = outcome_of(row.load, row.spec, replace(row.conditions, every_tick=True))

    assert row.holds(outcome), (sizes(outcome), list(outcome.waits), outcome.retried, outcome.dead)
    assert sizes(every_second) == sizes(outcome)
    assert list(every_second.waits) == list(outcome.waits)


def test_what_the_policy_is_told_is_what_the_operator_reads() -> None:
    """Delayed messages give the very fields that are made of Redis's counts, whatever else there is to do."""
    load = [Arrival(0.0, 5.0)] * 40
    fleet = SimulatedFleet(1, lambda: 1.0, random.Random(0))
    for waiting, running in ((0, 0), (2, 0), (0, 3)):
        for etas in ([], [10.0], [99.0, 100.0, 101.0, 160.0, 161.0, 5000.0], [3.0, 50.0]):
            demand = SimulatedDemand(load, fleet)
            demand.waiting.extend(range(waiting))
            demand.running = running
            for number, eta in enumerate(etas, start=10):
                demand.delays.add(eta, number)
            told = demand.read(100.0)
            read = as_read(waiting, running, etas, now=100.0)
            names = (
                "ready",
                "running",
                "delayed",
                "dead",
                "due",
                "soon",
                "later",
                "next_due_seconds",
                "work",
            )
            assert [getattr(told, name) for name in names] == [getattr(read, name) for name in names]


def as_read(waiting: int, running: int, etas: Sequence[float], now: float) -> Any:
    """What the operator makes of such counts in Redis."""
    scan, now_ms, total = EtaScan(), now * 1000, len(etas)
    scan.counted(total, total, now_ms, now)
    if etas:
        scan.took(WalkOn(0), 0, [each * 1000 for each in etas], 0)
    count = Count(waiting, waiting + running, total, 0, 0, total, b"", None, None)
    return demand_of(count, now_ms, Estimates(), scan)


def test_messages_become_due_in_the_order_of_their_times() -> None:
    """Whatever order they came in, and each once."""
    delays = SimulatedDelays()
    for message, eta in enumerate((70.0, 5.0, 300.0, 5.0, 61.0)):
        delays.add(eta, message)

    assert delays.take_due(4.0) == []
    assert (delays.etas(6.0).due, delays.etas(6.0).soon, delays.etas(6.0).next_due_seconds) == (2, 1, 55.0)
    assert delays.take_due(70.0) == [1, 3, 4, 0]
    assert (delays.count, delays.take_due(300.0), delays.count) == (1, [2], 0)


def test_the_same_messages_fail_whatever_the_spec() -> None:
    """Two specs are compared on the same luck: what changes is what is paid and waited for, not what fails."""
    load = burst(random.Random(1), 200, 5.0)
    conditions = Conditions((3.0, 9.0), seed=4, fail_share=0.4)
    few, many = (outcome_of(load, {"scaling": {"maxReplicas": most}}, conditions) for most in (2, 20))

    assert (few.retried, few.dead) == (many.retried, many.dead)
    assert few.dead > 0
    assert outcome_of(load, {}, Conditions((3.0, 9.0), seed=5, fail_share=0.4)).retried != many.retried


def test_delays_are_told_only_where_there_were_some() -> None:
    """The table has three columns more, JSON one key more, the sentence and the picture a line more."""
    plain = [outcome_of([Arrival(0.0, 5.0)], {}, Conditions((3.0, 3.0)))]
    delayed = [
        outcome_of([LATER, Arrival(1.0, 5.0)], {"maxRetries": 1}, Conditions((3.0, 3.0), fail_share=1.0))
    ]

    assert "retried" not in table(plain, 5)
    assert "retr" not in verdict(plain)
    assert "delays" not in as_json(plain)["total"]
    assert "delayed" not in sparklines(plain[0].timeline)
    head, line = table(delayed, 5).splitlines()
    assert head.split()[-3:] == ["delayed", "retried", "dead"]
    assert line.split()[-3:] == ["1", "2", "2"]
    assert "0 of 2 messages finished" in verdict(delayed)
    assert "1 were delayed; 2 retries, 2 dead letters" in verdict(delayed)
    assert "NEVER" not in verdict(delayed)
    assert as_json(delayed)["queues"][0]["delays"] == {"delayed": 1, "retried": 2, "dead": 2}
    assert "delayed " in sparklines(delayed[0].timeline)


def test_attempts_that_were_ended_at_their_limit_are_told() -> None:
    """In words, and in JSON, where there were some."""
    spec = {"maxRetries": 3, "timeoutSeconds": 60}
    plain = [outcome_of([Arrival(0.0, 60.0)] * 100, spec, Conditions((3.0, 3.0)))]
    ended = [outcome_of([Arrival(0.0, 300.0)] * 100, spec, Conditions((3.0, 3.0)))]

    assert "100 of 100 messages finished" in verdict(plain)
    assert "timeoutSeconds" not in verdict(plain)
    assert "timed_out" not in as_json(plain)["total"]
    assert "0 of 100 messages finished" in verdict(ended)
    assert "300 retries, 100 dead letters; 400 attempts were ended at timeoutSeconds" in verdict(ended)
    assert as_json(ended)["queues"][0]["timed_out"] == 400


def test_the_picture_keeps_what_is_delayed_while_nothing_happens() -> None:
    """Between two events hours apart the number stands, and several queues add up."""
    one, other = Timeline(), Timeline()
    one.delayed(5.0, 3)
    one.delayed(7200.0, -3)
    other.delayed(3600.0, 2)

    assert [span.delayed for span in spans(one, 4)] == [3, 3, 3, 3]
    assert max(span.delayed for span in spans(together([one, other]), 4)) == 5
