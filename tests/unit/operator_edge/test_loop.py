"""The deciding loop: what it writes, what it leaves alone, and whom it keeps apart."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from astrid_operator import loop, pace, reconcile, telling
from astrid_operator.astrid_queue import AstridQueue, QueueKey
from astrid_operator.brokers import Brokers
from astrid_operator.claims import BrokerQueue
from astrid_operator.errors import (
    ApiBusy,
    ApiUnreachable,
    FleetRefused,
    NotAsked,
    NotLeading,
    QuotaExceeded,
)
from astrid_operator.fleet import Subject
from astrid_operator.loop import Loop
from astrid_operator.metrics import Metrics
from astrid_operator.neighbours import unlimited
from astrid_operator.reconcile import Gathered, Status
from astrid_operator.scaling import Demand, DemandReading, MembersSeen, decide, limited
from support.memory_fleet import MemoryFleet, MemoryReporter

KEY = QueueKey("sky", "differencing")
OTHER = QueueKey("sky", "zeta")


class World:
    """A loop with everything around it in memory, and a clock that only `step` moves."""

    def __init__(self, brokers_dir: Path, **settings: Any) -> None:
        self.now = 5000.0
        self.fleet = MemoryFleet()
        self.reporter = MemoryReporter()
        self.metrics = Metrics()
        self.manifests: dict[QueueKey, dict[str, Any]] = {}
        self.demand: dict[QueueKey, Demand | str] = {}
        self.read_keys: set[QueueKey] = set()
        self.loop = Loop(
            lambda: self.manifests,
            self.fleet,
            self.reporter,
            self,
            Brokers(brokers_dir, "redis://example:6379/0"),
            clock=lambda: self.now,
            rng=random.Random(3),
            observer=self.metrics,
            wall=lambda: datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=self.now),
            **settings,
        )

    async def read(self, wanted: Mapping[QueueKey, BrokerQueue]) -> Mapping[QueueKey, DemandReading]:
        self.read_keys = set(wanted)
        return {key: self._reading(key) for key in wanted}

    def _reading(self, key: QueueKey) -> DemandReading:
        told = self.demand.get(key, Demand())
        if isinstance(told, str):
            return DemandReading(self.now, None, told, self.now - 60)
        return DemandReading(self.now, told, "", self.now, "run-1")

    def put(
        self, key: QueueKey = KEY, *, generation: int = 1, created: str = "2026-01-01T00:00:00Z", **spec: Any
    ) -> None:
        self.manifests[key] = {
            "apiVersion": "astrid.dev/v1alpha1",
            "kind": "AstridQueue",
            "metadata": {
                "name": key.name,
                "namespace": key.namespace,
                "uid": f"uid-{key}",
                "generation": generation,
                "creationTimestamp": created,
            },
            "spec": {"app": "sky.tasks", **spec},
        }

    async def step(self, seconds: float = 1.0, times: int = 1) -> None:
        for _ in range(times):
            await self.loop.tick()
            await self.loop.settled()
            self.now += seconds


Scenario = Callable[[World], Awaitable[None]]
Play = Callable[..., None]


@pytest.fixture
def play(tmp_path: Path) -> Play:
    """Runs a scenario in a world of its own."""

    def run(scenario: Scenario, **settings: Any) -> None:
        async def go() -> None:
            await scenario(World(tmp_path, **settings))

        asyncio.run(go())

    return run


def test_a_new_queue_gets_a_fleet_at_zero_and_all_conditions(play: Play) -> None:
    """First sight: the fleet is made, and each of the five conditions is written."""

    async def scenario(world: World) -> None:
        world.put()
        await world.step(times=2)

        assert world.fleet.sizes == {KEY: 0}
        assert {each["type"] for each in world.reporter.statuses[KEY]["conditions"]} == {
            "Ready",
            "Reconciling",
            "Stalled",
            "ScalingActive",
            "BrokerReachable",
        }
        assert world.reporter.condition(KEY, "Ready")["reason"] == "Idle"

    play(scenario)


@pytest.mark.parametrize(
    ("inherited", "order"),
    [(True, ["scale", "ensure"]), (False, ["ensure", "scale"])],
    ids=["one that it takes over grows first", "one that it made is compared first"],
)
def test_a_fleet_is_compared_and_grows(play: Play, inherited: bool, order: list[str]) -> None:
    """Who takes over has all fleets to compare: messages that wait do not wait for that."""

    async def scenario(world: World) -> None:
        world.put()
        world.fleet.sizes[KEY] = 1
        if inherited:
            world.fleet.inherited.add(KEY)
        world.demand[KEY] = Demand(ready=50, service_seconds=60.0)
        await world.step()
        assert [write[0] for write in world.fleet.writes] == order
        assert world.fleet.sizes[KEY] == 10

    play(scenario)


def test_a_fleet_that_is_taken_over_is_compared_before_it_shrinks(play: Play) -> None:
    """Only growth is in a hurry."""

    async def scenario(world: World) -> None:
        world.put(enabled=False)
        world.fleet.sizes[KEY] = 3
        world.fleet.inherited.add(KEY)
        await world.step()
        assert [write[0] for write in world.fleet.writes] == ["ensure", "scale"]

    play(scenario)


def test_a_size_that_was_set_is_told_although_comparing_failed(play: Play) -> None:
    """The log and the metrics miss no change of size."""

    async def scenario(world: World) -> None:
        world.put()
        world.fleet.sizes[KEY] = 1
        world.fleet.inherited.add(KEY)
        world.fleet.faults["ensure"].append(ApiBusy("busy"))
        world.demand[KEY] = Demand(ready=50, service_seconds=60.0)
        await world.step()
        assert world.fleet.scales() == [10]
        assert 'direction="up"' in world.metrics.text().decode()

    play(scenario)


def test_nothing_changes_nothing_is_written(play: Play) -> None:
    """Steady state: no write to the fleet, none to the status, however many ticks pass."""

    async def scenario(world: World) -> None:
        for index in range(20):
            world.put(QueueKey("sky", f"q{index}"))
        await world.step(times=3)
        writes, statuses = len(world.fleet.writes), world.reporter.written
        await world.step(times=300)

        assert len(world.fleet.writes) == writes
        assert world.reporter.written == statuses

    play(scenario)


def test_a_backlog_is_answered_by_one_write(play: Play) -> None:
    """Up in one step, at the next tick, told in the status with the same word as in the event."""

    async def scenario(world: World) -> None:
        world.put(scaling={"maxReplicas": 50, "expectedTaskSeconds": 6})
        await world.step(times=2)
        world.demand[KEY] = Demand(ready=200)
        await world.step(times=3)

        assert world.fleet.scales() == [20]
        status = world.reporter.statuses[KEY]
        assert (status["lastScale"]["from"], status["lastScale"]["to"]) == (0, 20)
        assert status["lastScale"]["reason"] in [reason for _, _, reason, _ in world.reporter.events]

    play(scenario)


def test_sizes_are_on_their_way_before_anything_is_told(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tick of many queues makes a status of each: whoever comes last by name does not wait for these."""
    order: list[str] = []

    async def scenario(world: World) -> None:
        keys = [QueueKey("sky", f"q{index:02d}") for index in range(2 * loop.AT_ONE_GO)]
        for key in keys:
            world.put(key)
        await world.step(times=2)

        def status_of(gathered: Gathered, *others: Any) -> Status:
            order.append("status")
            return reconcile.status_of(gathered, *others)

        async def scale_to(key: QueueKey, replicas: int) -> None:
            order.append("size")
            await MemoryFleet.scale_to(world.fleet, key, replicas)

        monkeypatch.setattr(telling, "status_of", status_of)
        monkeypatch.setattr(world.fleet, "scale_to", scale_to)
        world.demand[keys[-1]] = Demand(ready=50, service_seconds=60.0)
        await world.step()

        assert order.count("size") == 1
        assert order.count("status") >= len(keys) - 1
        assert order[0] == "size"

    play(scenario)


def test_numbers_alone_cost_no_more_than_the_allowance(play: Play) -> None:
    """Depths that move every second in many queues are told at 0.2 writes a second altogether."""

    async def scenario(world: World) -> None:
        keys = [QueueKey("sky", f"q{index}") for index in range(50)]
        for key in keys:
            world.put(key, scaling={"mode": "Manual"})
        await world.step(times=3)
        before = world.reporter.written
        for second in range(200):
            for key in keys:
                world.demand[key] = Demand(ready=second * 7 % 90)
            await world.step()

        assert world.reporter.written - before <= 0.2 * 200 + 4
        assert world.reporter.written - before >= 0.2 * 200 - 4

    play(scenario)


def test_a_workload_that_changes_all_the_time_is_not_told_each_time(play: Play) -> None:
    """Its controller writes on it with each pod: that is looked at, and numbers keep to the allowance."""

    async def scenario(world: World) -> None:
        keys = [QueueKey("sky", f"q{index}") for index in range(50)]
        for key in keys:
            world.put(key, scaling={"mode": "Manual"})
        await world.step(times=3)
        before = world.reporter.written
        for second in range(100):
            for key in keys:
                world.demand[key] = Demand(ready=second * 7 % 90)
                world.loop.drifted(key)
            await world.step()
        assert world.reporter.written - before <= 0.2 * 100 + 4

    play(scenario)


def test_members_that_come_one_by_one_are_told_together(play: Play) -> None:
    """Not each by itself, nor as late as the allowance of a large cluster would have it."""

    async def scenario(world: World) -> None:
        world.put(scaling={"mode": "Manual", "maxReplicas": 100}, replicas=100)
        world.fleet.sizes[KEY] = 100
        world.fleet.present[KEY] = 0
        await world.step(times=2)
        before = world.reporter.written
        for _ in range(40):
            world.fleet.present[KEY] += 1
            world.loop.drifted(KEY)
            await world.step()
        assert 3 <= world.reporter.written - before <= 5
        assert world.reporter.statuses[KEY]["replicas"] >= 30

    play(scenario, status_writes_per_second=0.0)


def test_a_smaller_fleet_is_tended_until_it_has_its_size(play: Play) -> None:
    """As many leave at a step as can; each step that sets a size is counted with that size."""

    async def scenario(world: World) -> None:
        world.put(scaling={"mode": "Manual"}, replicas=4)
        await world.step(times=2)
        world.fleet.leave_at_a_time = 0
        world.put(scaling={"mode": "Manual"}, replicas=1, generation=2)
        await world.step(times=3)
        assert world.fleet.sizes[KEY] == 4
        assert world.fleet.tended == [(KEY, 1, True)] * 3

        world.fleet.leave_at_a_time = 2
        await world.step(times=4)
        assert world.fleet.scales()[-2:] == [2, 1]
        assert len(world.fleet.tended) == 5
        assert 'direction="down"' in world.metrics.text().decode()

    play(scenario)


def test_only_idle_members_leave_where_nobody_but_demand_asks_for_fewer(play: Play) -> None:
    """Surplus is no reason to make anybody finish early; zero with nothing outstanding takes whoever is there."""

    async def scenario(world: World) -> None:
        world.put(scaling={"expectedTaskSeconds": 60, "idleSeconds": 5})
        await world.step(times=2)
        world.demand[KEY] = Demand(ready=4)
        await world.step(times=2)
        members = MembersSeen(busy=1, idle_seconds=(90.0, 90.0, 90.0))
        world.demand[KEY] = Demand(running=1, members=members)
        await world.step(times=80)
        assert world.fleet.tended[0] == (KEY, 1, False)

        world.demand[KEY] = Demand(members=MembersSeen(0, (90.0,)))
        await world.step(times=80)
        assert world.fleet.tended[-1] == (KEY, 0, True)

    play(scenario)


def test_a_fleet_that_needs_care_gets_it_at_its_present_size(play: Play) -> None:
    """Requests that a dead operator left, or marks that are out of date, are looked after without any decision."""

    async def scenario(world: World) -> None:
        world.put(scaling={"mode": "Manual"}, replicas=2)
        await world.step(times=2)
        world.fleet.need_care.add(KEY)
        await world.step(times=3)
        assert [each[:2] for each in world.fleet.tended] == [(KEY, 2)]
        assert world.fleet.sizes[KEY] == 2

    play(scenario)


def test_demand_that_cannot_be_read_freezes_the_fleet(play: Play) -> None:
    """Unknown is not zero, for as long as it lasts, and a person is told."""

    async def scenario(world: World) -> None:
        world.put(scaling={"expectedTaskSeconds": 60, "idleSeconds": 5})
        await world.step(times=2)
        world.demand[KEY] = Demand(ready=4)
        await world.step(times=2)
        size = world.fleet.sizes[KEY]
        world.demand[KEY] = "Redis redis://example: Unreachable"
        await world.step(times=300)

        assert size > 0
        assert world.fleet.sizes[KEY] == size
        assert world.reporter.condition(KEY, "BrokerReachable")["status"] == "False"
        assert ("Warning", "BrokerUnreachable") in [event[1:3] for event in world.reporter.events]

    play(scenario)


def test_the_older_queue_keeps_what_two_claim(play: Play) -> None:
    """Two AstridQueues for one Dramatiq queue: the younger is stalled, and nothing is made or read for it."""

    async def scenario(world: World) -> None:
        young, old = QueueKey("sky", "aaa"), QueueKey("other", "zzz")
        world.put(young, queueName="shared", created="2026-02-01T00:00:00Z")
        world.put(old, queueName="shared", created="2026-01-01T00:00:00Z")
        await world.step(times=3)

        assert set(world.fleet.sizes) == {old}
        assert world.read_keys == {old}
        stalled = world.reporter.condition(young, "Stalled")
        assert (stalled["status"], stalled["reason"]) == ("True", "QueueTaken")
        assert str(old) in stalled["message"]

        del world.manifests[old]
        await world.step(times=3)

        assert set(world.fleet.sizes) == {young}
        assert world.reporter.condition(young, "Stalled")["status"] == "False"

    play(scenario)


def test_a_broker_that_is_not_mounted_stalls_the_queue_and_keeps_its_fleet(play: Play) -> None:
    """Its workers may know the address all the same; only demand cannot be read."""

    async def scenario(world: World) -> None:
        world.put(broker={"secretRef": {"name": "elsewhere", "key": "url"}})
        await world.step(times=2)

        assert world.read_keys == set()
        assert world.fleet.sizes == {KEY: 0}
        assert world.reporter.condition(KEY, "Stalled")["reason"] == "BrokerNotConfigured"

    play(scenario)


def test_nonsense_in_a_stored_spec_keeps_the_last_good_fleet(play: Play) -> None:
    """Stalled with the field's path; the fleet goes on by the spec before, and recovers with the next good one."""

    async def scenario(world: World) -> None:
        world.put(scaling={"expectedTaskSeconds": 60})
        await world.step(times=2)
        world.put(generation=2, scaling={"maxReplicas": "many"})
        world.demand[KEY] = Demand(ready=3)
        await world.step(times=3)

        stalled = world.reporter.condition(KEY, "Stalled")
        assert (stalled["status"], stalled["reason"]) == ("True", "InvalidSpec")
        assert "spec.scaling.maxReplicas" in stalled["message"]
        assert world.fleet.sizes[KEY] == 3
        written = world.reporter.written
        await world.step(times=20)
        assert world.reporter.written == written

        world.put(generation=3, scaling={"expectedTaskSeconds": 60, "maxReplicas": 2})
        await world.step(times=3)

        assert world.reporter.condition(KEY, "Stalled")["status"] == "False"
        assert world.reporter.statuses[KEY]["observedGeneration"] == 3

    play(scenario)


def test_nonsense_from_the_start_is_told_and_harms_nobody(play: Play) -> None:
    """An operator that starts with an invalid object writes its status and serves the others."""

    async def scenario(world: World) -> None:
        bad = QueueKey("sky", "bad")
        world.put(bad, concurrency=-1)
        world.put()
        await world.step(times=2)

        assert set(world.fleet.sizes) == {KEY}
        assert "spec.concurrency" in world.reporter.condition(bad, "Stalled")["message"]

    play(scenario)


def test_a_failing_queue_backs_off_and_the_others_go_on(play: Play) -> None:
    """A fleet that the server refuses is tried again ever more rarely; an edit tries at once."""

    async def scenario(world: World) -> None:
        other = QueueKey("sky", "other")
        world.fleet.faults["ensure"] = [FleetRefused("quantity must match the regular expression")]
        world.put()
        await world.step()
        world.put(other)
        await world.step()

        stalled = world.reporter.condition(KEY, "Stalled")
        assert (stalled["reason"], world.fleet.sizes) == ("InvalidSpec", {other: 0})

        world.put(generation=2)
        await world.step(times=2)

        assert set(world.fleet.sizes) == {KEY, other}
        assert world.reporter.condition(KEY, "Stalled")["status"] == "False"

    play(scenario)


def test_a_busy_server_is_waited_for_as_long_as_it_asks(play: Play) -> None:
    """Retry-After: no try before it is over, one soon after, and the condition says that it is being retried."""

    async def scenario(world: World) -> None:
        world.put(scaling={"expectedTaskSeconds": 60})
        await world.step(times=2)
        world.fleet.faults["scale_to"] = [ApiBusy("too many requests", 20.0)]
        world.demand[KEY] = Demand(ready=5)
        await world.step(times=10)

        assert world.fleet.scales() == []
        assert world.reporter.condition(KEY, "Reconciling")["reason"] == "Retrying"

        await world.step(times=15)

        assert world.fleet.scales() == [5]

    play(scenario)


def test_a_fleet_whose_new_shape_is_refused_is_sized_all_the_same(play: Play) -> None:
    """What runs is the last good one; the refusal stays told, and is over when the shape is taken."""

    async def scenario(world: World) -> None:
        world.put(scaling={"maxReplicas": 10})
        await world.step(times=2)
        world.fleet.faults["ensure"] = [FleetRefused("admission webhook denied the request")] * 2
        world.put(generation=2, scaling={"maxReplicas": 10})
        await world.step(times=2)
        world.demand[KEY] = Demand(ready=500, service_seconds=6.0)
        await world.step(times=2)

        assert world.fleet.scales() == [10]
        assert world.reporter.condition(KEY, "Stalled")["reason"] == "InvalidSpec"

        idle = MembersSeen(2, (500.0,) * 8)
        world.demand[KEY] = Demand(running=2, service_seconds=6.0, members=idle)
        await world.step(times=40)

        assert world.fleet.sizes[KEY] < 10
        assert world.reporter.condition(KEY, "Stalled")["status"] == "False"

    play(scenario)


def test_growth_does_not_wait_for_what_shrinks(play: Play) -> None:
    """A broker that takes no requests to leave, however long, costs a burst nothing."""

    async def scenario(world: World) -> None:
        world.put(scaling={"maxReplicas": 10})
        await world.step(times=2)
        world.fleet.sizes[KEY] = 5
        world.fleet.faults["tend"] = [NotAsked("NotAuthorised")] * 1000
        for second in range(300):
            idle = MembersSeen(1, (500.0 + second,) * 4)
            world.demand[KEY] = Demand(running=1, service_seconds=6.0, members=idle)
            await world.step()
        assert world.reporter.condition(KEY, "Reconciling")["reason"] == "Retrying"

        world.demand[KEY] = Demand(ready=500, running=5, service_seconds=6.0, members=MembersSeen(5, ()))
        await world.step(times=2)

        assert world.fleet.sizes[KEY] == 10

    play(scenario)


@pytest.mark.parametrize("away_seconds", [5, 60, 120, 300])
def test_growth_comes_soon_after_an_api_server_is_back(play: Play, away_seconds: int) -> None:
    """However long it was away: work waits."""

    async def scenario(world: World) -> None:
        world.put(scaling={"maxReplicas": 10})
        await world.step(times=2)
        away: list[Exception] = [ApiUnreachable("the API server does not answer")] * 1000
        world.fleet.faults["scale_to"], world.fleet.faults["ensure"] = list(away), list(away)
        world.demand[KEY] = Demand(ready=500, service_seconds=6.0)
        await world.step(times=away_seconds)
        assert world.reporter.condition(KEY, "Reconciling")["reason"] == "Retrying"
        assert 1000 - len(world.fleet.faults["scale_to"]) <= 5 + away_seconds / 2

        world.fleet.faults.clear()
        await world.step(times=6)

        assert world.fleet.sizes[KEY] == 10

    play(scenario)


def test_a_refused_queue_that_another_served_meanwhile_is_made(play: Play) -> None:
    """Nothing of what failed before hinders it once the older one is gone."""

    async def scenario(world: World) -> None:
        world.fleet.faults["ensure"] = [FleetRefused("admission webhook denied the request")]
        world.put(created="2026-01-02T00:00:00Z", queueName="shared")
        await world.step(times=2)
        world.put(OTHER, created="2026-01-01T00:00:00Z", queueName="shared")
        await world.step(times=30)
        assert world.reporter.condition(KEY, "Stalled")["reason"] == "QueueTaken"

        del world.manifests[OTHER]
        await world.step(times=3)

        assert world.fleet.sizes[KEY] == 0
        assert world.reporter.condition(KEY, "Stalled")["status"] == "False"

    play(scenario)


def test_a_quota_is_named_and_its_end_is_noticed(play: Play) -> None:
    """QuotaExceeded needs a person, and goes away by itself when the quota does."""

    async def scenario(world: World) -> None:
        world.fleet.faults["ensure"] = [QuotaExceeded("exceeded quota: deployments")] * 2
        world.put()
        await world.step(times=2)
        assert world.reporter.condition(KEY, "Stalled")["reason"] == "QuotaExceeded"

        await world.step(times=60)
        assert world.reporter.condition(KEY, "Stalled")["status"] == "False"

    play(scenario)


def test_a_bug_in_one_queue_does_not_end_the_loop(play: Play) -> None:
    """Whatever a write raises, the loop goes on, counts it and tries that queue again."""

    async def scenario(world: World) -> None:
        world.fleet.faults["ensure"] = [ZeroDivisionError("a bug")]
        world.put()
        await world.step(times=5)

        assert world.fleet.sizes == {KEY: 0}
        assert b'astrid_reconcile_total{result="bug"} 1.0' in world.metrics.text()

    play(scenario)


def test_a_status_that_was_not_written_is_written_later(play: Play) -> None:
    """A failed status costs no more than time."""

    async def scenario(world: World) -> None:
        world.reporter.faults = [ApiBusy("later")] * 3
        world.put()
        await world.step(times=30)

        assert world.reporter.condition(KEY, "Ready")["status"] == "True"
        assert world.reporter.written <= 3

    play(scenario)


def test_who_may_not_write_for_a_while_goes_on_afterwards(play: Play) -> None:
    """A Lease that was not renewed in time is no reason to forget everything: the same is tried again."""

    async def scenario(world: World) -> None:
        world.fleet.faults["ensure"] = [NotLeading("the Lease is not renewed")] * 2
        world.put()
        await world.step(times=30)

        assert world.reporter.condition(KEY, "Ready")["status"] == "True"
        assert not world.fleet.faults["ensure"]

    play(scenario)


def test_what_was_written_in_the_midst_of_a_tick_is_not_written_again(
    play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tick of many queues lets writes go on; what it had gathered before one ended is old, and waits for the next."""
    monkeypatch.setattr(loop, "AT_ONE_GO", 1)
    told: list[QueueKey] = []

    async def scenario(world: World) -> None:
        may_end, write = asyncio.Event(), world.reporter.status

        async def slowly(queue: Subject, status: Mapping[str, Any]) -> None:
            told.append(queue.key)
            await may_end.wait()
            await write(queue, status)

        for key in (KEY, OTHER):
            world.put(key)
        await world.step(times=3)
        monkeypatch.setattr(world.reporter, "status", slowly)
        world.demand[KEY] = Demand(ready=50, service_seconds=60.0)
        await world.loop.tick()
        for _ in range(10):
            await asyncio.sleep(0)  # a go of the loop, not time: whoever could write writes
        assert told == [KEY]
        may_end.set()  # from here on the write may end: it does so while the tick looks at the other queue
        await world.loop.tick()
        await world.loop.settled()
        assert told == [KEY]

    play(scenario)


def test_a_tick_comes_when_it_was_asked_for(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two ticks lies `tick_seconds`, less what the first took; an AstridQueue that is due ends the pause."""
    pauses: list[float] = []

    async def scenario(world: World) -> None:
        async def wait(seconds: float) -> None:
            pauses.append(seconds)
            world.now += seconds
            if len(pauses) == 3:
                raise asyncio.CancelledError

        monkeypatch.setattr(world.loop._work, "wait", wait)
        with pytest.raises(asyncio.CancelledError):
            await world.loop.run()

    play(scenario, tick_seconds=0.25)

    assert pauses == pytest.approx([0.25] * 3)


def test_a_decision_that_fails_stops_no_other_queue(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bug that one queue's numbers bring out leaves its fleet as it is; the loop lives, the others are served."""
    other = QueueKey("sky", "detection")

    def broken(policy: Any, reading: Any, *rest: Any) -> Any:
        if reading.demand.ready == 13:
            raise ZeroDivisionError
        return decide(policy, reading, *rest)

    monkeypatch.setattr("astrid_operator.loop.decide", broken)

    async def scenario(world: World) -> None:
        world.put()
        world.put(other)
        world.demand = {KEY: Demand(ready=1, service_seconds=60.0), other: Demand()}
        await world.step(times=3)
        assert world.fleet.sizes == {KEY: 1, other: 0}

        world.demand = {KEY: Demand(ready=13), other: Demand(ready=1, service_seconds=60.0)}
        await world.step(times=3)
        assert world.fleet.sizes == {KEY: 1, other: 1}
        assert b'astrid_reconcile_total{result="bug"} 3.0' in world.metrics.text()

    play(scenario)


def test_a_budget_that_fails_holds_every_fleet_and_ends_nothing(play: Play) -> None:
    """Nobody grows or shrinks while what is short cannot be shared; the next tick that can does both."""
    is_broken = False

    def budget(asked: Any) -> Any:
        if is_broken:
            raise ZeroDivisionError
        return unlimited(asked)

    async def scenario(world: World) -> None:
        nonlocal is_broken
        world.put(scaling={"expectedTaskSeconds": 60})
        world.put(OTHER)
        world.demand[KEY] = Demand(ready=1)
        await world.step(times=3)
        assert world.fleet.sizes == {KEY: 1, OTHER: 0}

        is_broken = True
        world.demand = {KEY: Demand(ready=9), OTHER: Demand(ready=1, service_seconds=60.0)}
        with capture_logs() as said:
            await world.step(times=3)
        assert world.fleet.sizes == {KEY: 1, OTHER: 0}
        (line,) = (each for each in said if each["event"] == "Budget failed unexpectedly")
        assert line["queues"] == [str(KEY), str(OTHER)]
        assert line["exc_info"]
        assert b'astrid_reconcile_total{result="bug"} 6.0' in world.metrics.text()

        is_broken = False
        await world.step(times=3)
        assert world.fleet.sizes[KEY] > 1
        assert world.fleet.sizes[OTHER] == 1

    play(scenario, budget=budget)


def test_who_is_granted_nothing_keeps_its_fleet(play: Play) -> None:
    """One pool cannot be shared, and members of another change hands."""

    def others(asked: Any) -> Any:
        granted = {key: decision for key, (_, _, decision) in asked.items() if key != KEY}
        return {key: limited(decision, 0, "1 slot in all") for key, decision in granted.items()}

    async def scenario(world: World) -> None:
        world.put()
        world.put(OTHER)
        world.demand = {key: Demand(ready=9, service_seconds=60.0) for key in (KEY, OTHER)}
        world.fleet.sizes[KEY] = 1
        await world.step(times=3)
        assert world.fleet.sizes == {KEY: 1, OTHER: 0}

    play(scenario, budget=others)


def test_a_deleted_queue_is_forgotten(play: Play) -> None:
    """Its fleet is let go, its metrics vanish, and nothing is written for it any more."""

    async def scenario(world: World) -> None:
        world.put()
        await world.step(times=2)
        del world.manifests[KEY]
        await world.step()
        written = world.reporter.written
        await world.step(times=5)

        assert world.fleet.sizes == {}
        assert world.reporter.written == written
        assert b'queue="differencing"' not in world.metrics.text()

    play(scenario)


def test_a_queue_that_is_being_deleted_is_not_made_again(play: Play) -> None:
    """With foreground deletion the object outlives its children; making them anew would never end."""

    async def scenario(world: World) -> None:
        world.put()
        await world.step(times=2)
        world.put(generation=2)
        world.manifests[KEY]["metadata"]["deletionTimestamp"] = "2026-01-02T00:00:00Z"
        world.fleet.sizes.clear()
        await world.step(times=5)

        assert world.fleet.sizes == {}

    play(scenario)


def test_a_successor_of_the_same_name_starts_afresh(play: Play) -> None:
    """Another uid is another object: nothing of the memory of its predecessor decides for it."""

    async def scenario(world: World) -> None:
        world.put(scaling={"maxReplicas": 5})
        await world.step(times=2)
        world.put(concurrency=-1)
        world.manifests[KEY]["metadata"]["uid"] = "another"
        await world.step(times=2)

        assert world.reporter.condition(KEY, "Stalled")["reason"] == "InvalidSpec"
        assert world.fleet.writes.count(("ensure", KEY, 0)) == 1

    play(scenario)


def test_a_budget_has_the_last_word(play: Play) -> None:
    """What is granted, not what was decided, is written."""

    async def scenario(world: World) -> None:
        world.put(scaling={"expectedTaskSeconds": 60})
        world.demand[KEY] = Demand(ready=9)
        await world.step(times=3)

        assert world.fleet.sizes[KEY] == 2

    def two_slots(asked: Any) -> Any:
        return {key: limited(decision, 2, "2 slots") for key, (_, _, decision) in asked.items()}

    play(scenario, budget=two_slots)


def test_a_change_by_hand_is_looked_at_and_a_size_by_hand_is_taken_back(play: Play) -> None:
    """Drift repair: the workload is compared again, and the size is what was decided."""

    async def scenario(world: World) -> None:
        world.put()
        await world.step(times=2)
        world.fleet.shapes.clear()
        world.fleet.sizes[KEY] = 7
        world.loop.drifted(KEY)
        await world.step(times=2)
        assert world.fleet.writes.count(("ensure", KEY, 0)) == 1
        assert KEY in world.fleet.shapes

        await world.step(times=100)
        assert world.fleet.sizes[KEY] == 0

    play(scenario)


@pytest.mark.parametrize(("writes", "left"), [(pace.CROWD, 0), (pace.CROWD - 1, pace.CROWD - 1)])
def test_ticks_wait_for_a_crowd_of_writes(
    play: Play, monkeypatch: pytest.MonkeyPatch, writes: int, left: int
) -> None:
    """While the API server is behind, another tick only adds to what waits for it; a few writes hold up none."""
    monkeypatch.setattr(pace, "CROWDED_PAUSE_TICKS", 1e9)
    monkeypatch.setattr(pace, "LONGEST_PAUSE_SECONDS", 60.0)
    under_way: list[int] = []

    async def scenario(world: World) -> None:
        answered, make, read = asyncio.Event(), world.fleet.ensure, world.read

        async def ensure(queue: AstridQueue, replicas: int = 0) -> None:
            await answered.wait()
            await make(queue, replicas)

        async def slowly(wanted: Mapping[QueueKey, BrokerQueue]) -> Mapping[QueueKey, DemandReading]:
            world.now += 0.05
            return await read(wanted)

        async def wait(_: float) -> None:
            under_way.append(len(world.loop._records.tasks()))
            raise asyncio.CancelledError

        def ticked(_seconds: float, _waiting: int) -> None:
            asyncio.get_running_loop().call_later(2 * pace.LEAST_PAUSE_SECONDS, answered.set)

        monkeypatch.setattr(world.fleet, "ensure", ensure)
        monkeypatch.setattr(world, "read", slowly)
        monkeypatch.setattr(world.metrics, "ticked", ticked)
        monkeypatch.setattr(world.loop._work, "wait", wait)
        for number in range(writes):
            world.put(QueueKey("sky", f"queue-{number}"))
        with pytest.raises(asyncio.CancelledError):
            await world.loop.run()

    play(scenario)

    assert under_way == [left]


class Listener:
    """Keeps what it was to listen for, and never rings."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def listen(self, asleep: Iterable[BrokerQueue]) -> None:
        self.names = [each.queue.name for each in asleep]

    async def rung(self) -> None:
        await asyncio.Event().wait()


ASLEEP: dict[str, tuple[Demand | str, dict[str, Any], bool]] = {
    "none waits, nobody is wanted": (Demand(), {}, True),
    "only delayed ones": (Demand(delayed=3, due=0, soon=0), {}, True),
    "one waits": (Demand(ready=1, service_seconds=60.0), {}, False),
    "one waits, and nobody may come": (Demand(ready=1), {"enabled": False}, False),
    "none waits, and somebody stays": (Demand(), {"scaling": {"minReplicas": 1}}, False),
    "nothing is known": ("TimedOut", {}, False),
}


@pytest.mark.parametrize(("demand", "spec", "sleeps"), ASLEEP.values(), ids=ASLEEP.keys())
def test_who_sleeps_is_listened_for(
    play: Play, demand: Demand | str, spec: dict[str, Any], sleeps: bool
) -> None:
    """A first message is worth a tick where none was known to be and nobody is wanted; elsewhere it is not."""
    bell = Listener()

    async def scenario(world: World) -> None:
        world.put(**spec)
        world.demand[KEY] = demand
        await world.step(times=2)

    play(scenario, bell=bell)

    assert bell.names == ([KEY.name] if sleeps else [])
