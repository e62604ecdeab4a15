"""What the loop makes of orphans: who is looked after, what is told, and that nothing else depends on it."""

import asyncio
import random
import time
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from astrid_operator.astrid_queue import QueueKey
from astrid_operator.brokers import BrokerAddress, Brokers
from astrid_operator.claims import BrokerQueue
from astrid_operator.errors import ApiBusy
from astrid_operator.fleet import EventType, Subject
from astrid_operator.loop import Loop
from astrid_operator.metrics import Metrics
from astrid_operator.orphans import Reclaimed
from astrid_operator.scaling import Demand, DemandReading
from support.memory_fleet import MemoryFleet, MemoryReporter

KEY, OTHER = QueueKey("sky", "q"), QueueKey("sky", "other")


class FakeRecovery:
    """Finds what it is told to find."""

    def __init__(self) -> None:
        self.looked_after: set[QueueKey] = set()
        self.kept: list[str] = []
        self.found: list[tuple[QueueKey, Reclaimed]] = []

    def begin(self, claims: Mapping[QueueKey, BrokerQueue]) -> None:
        self.looked_after = set(claims)

    def keep(self, brokers: Collection[BrokerAddress]) -> None:
        self.kept = [str(each) for each in brokers]

    def orphans(self, claim: BrokerQueue) -> int | None:
        return 3 if claim.queue.name == "q" else None

    def take(self) -> Sequence[tuple[QueueKey, Reclaimed]]:
        found, self.found = self.found, []
        return found


class BusyReporter(MemoryReporter):
    """Cannot write events."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error

    async def event(self, queue: Subject, kind: EventType, reason: str, message: str) -> None:
        if reason == "OrphansReclaimed":
            raise self.error


class World:
    """A loop with a recovery, and demand as a test says."""

    def __init__(self, folder: Path, reporter: MemoryReporter | None = None) -> None:
        self.recovery, self.metrics = FakeRecovery(), Metrics()
        self.reporter = reporter or MemoryReporter()
        self.demand: dict[QueueKey, Demand | None] = {}
        self.loop = Loop(
            lambda: {key: manifest(key) for key in (KEY, OTHER)},
            MemoryFleet(),
            self.reporter,
            self,
            Brokers(folder, "redis://example:6379/0"),
            clock=time.monotonic,
            rng=random.Random(1),
            observer=self.metrics,
            recovery=self.recovery,
            wall=lambda: datetime(2026, 1, 1, tzinfo=UTC),
        )

    async def read(self, wanted: Mapping[QueueKey, BrokerQueue]) -> Mapping[QueueKey, DemandReading]:
        return {key: DemandReading(time.monotonic(), self.demand.get(key, Demand())) for key in wanted}

    async def tick(self) -> None:
        await self.loop.tick()
        await self.loop.settled()


def manifest(key: QueueKey) -> dict[str, Any]:
    metadata = {"name": key.name, "namespace": key.namespace, "uid": str(key), "generation": 1}
    return {
        "apiVersion": "astrid.dev/v1alpha1",
        "kind": "AstridQueue",
        "metadata": {**metadata, "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"app": "sky.tasks"},
    }


def test_queues_of_which_nothing_is_held_or_known_are_left_alone(tmp_path: Path) -> None:
    """An idle queue costs no look, and one that cannot be read is not touched."""
    world = World(tmp_path)
    asyncio.run(world.tick())
    assert world.recovery.looked_after == set()
    world.demand = {KEY: Demand(running=1), OTHER: None}
    asyncio.run(world.tick())
    assert world.recovery.looked_after == {KEY}
    world.demand = {KEY: Demand(), OTHER: Demand(delayed=1)}
    asyncio.run(world.tick())
    assert world.recovery.looked_after == {OTHER}


def test_the_addresses_of_all_queues_are_kept_also_where_nothing_is_held(tmp_path: Path) -> None:
    """What is not among them is named by nobody any more."""
    world = World(tmp_path)
    asyncio.run(world.tick())
    assert world.recovery.kept == ["redis://example:6379/0"]


def test_what_came_back_is_an_event_and_a_metric(tmp_path: Path) -> None:
    """A person sees it on the AstridQueue, a graph sees how often; orphans have a number of their own."""
    world = World(tmp_path)
    world.demand = {KEY: Demand(running=5)}
    world.recovery.found = [
        (KEY, Reclaimed(2, 1, 1, 63.0)),
        (QueueKey("sky", "gone"), Reclaimed(1, 0, 1, 61.0)),
    ]
    asyncio.run(world.tick())
    events = [each for each in world.reporter.events if each[2] == "OrphansReclaimed"]
    sentence = "Took back what a process held, silent for 63 s: 2 waiting again, 1 delayed again"
    assert events == [(KEY, "Warning", "OrphansReclaimed", sentence)]
    text = world.metrics.text().decode()
    assert 'astrid_orphans_reclaimed_total{namespace="sky",queue="q"} 3.0' in text
    assert 'astrid_queue_orphans{namespace="sky",queue="q"} 3.0' in text
    assert 'astrid_queue_orphans{namespace="sky",queue="other"} 0.0' in text


def test_an_event_that_cannot_be_written_costs_only_itself(tmp_path: Path) -> None:
    """The loop goes on."""
    world = World(tmp_path, BusyReporter(ApiBusy("later", after_seconds=1.0)))
    world.recovery.found = [(KEY, Reclaimed(1, 0, 1, 60.0))]
    asyncio.run(world.tick())
