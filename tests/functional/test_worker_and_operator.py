"""A real worker with Astrid's middleware, and the real reader and recovery of the operator, on one server."""

import asyncio
import json
import random
import time
from collections.abc import Callable
from typing import Any

import dramatiq
import pytest
import redis
from dramatiq.brokers.redis import RedisBroker

from astrid_operator.astrid_queue import QueueKey
from astrid_operator.brokers import BrokerAddress
from astrid_operator.claims import BrokerQueue
from astrid_operator.demand import DemandReader
from astrid_operator.dramatiq_keys import DramatiqQueue
from astrid_operator.orphans import Reclaimed
from astrid_operator.presence import STALE_SECONDS
from astrid_operator.recovery import Recovery
from astrid_operator.scaling import Demand, DemandReading
from astrid_operator.waits import waits_of
from support.waiting import wait_for_answer, wait_until
from support.worker_processes import WITH_TEST_ACTORS, WorkerProcess, WorkerProcesses

KEY = QueueKey("sky", "default")


@pytest.fixture
def send(redis_url: str) -> Callable[..., None]:
    """Sends to the test actors without loading them."""
    broker = RedisBroker(url=redis_url)
    broker.declare_queue("default")

    def _send(actor: str, *args: Any, delay_s: float = 0.0, **options: Any) -> None:
        message = dramatiq.Message(
            queue_name="default", actor_name=actor, args=args, kwargs={}, options=options
        )
        broker.enqueue(message, delay=int(delay_s * 1000) or None)

    return _send


@pytest.fixture
def worker(worker_processes: WorkerProcesses, redis_url: str) -> WorkerProcess:
    """One process with two threads on the queue `default`."""
    worker = worker_processes.start(
        redis_url, ["--queues", "default", "--threads", "2"], command=WITH_TEST_ACTORS
    )
    worker.wait_present("default")
    return worker


def claim(url: str) -> BrokerQueue:
    return BrokerQueue(BrokerAddress(url), DramatiqQueue("dramatiq", "default"))


async def read_until(url: str, good: Callable[[DemandReading], bool]) -> DemandReading:
    """The first reading that is `good`."""
    reader = DemandReader(time.monotonic, random.Random(1), timeout_seconds=2.0)
    try:

        async def good_reading() -> DemandReading | None:
            reading = (await reader.read({KEY: claim(url)}))[KEY]
            return reading if reading.demand is not None and good(reading) else None

        return await wait_for_answer(good_reading, 30, "a good reading", every_s=0.1)
    finally:
        await reader.close()


def test_the_operator_reads_what_a_worker_writes(
    redis_url: str, worker: WorkerProcess, send: Callable[..., None]
) -> None:
    """Tasks that ended and how long they took, who is busy and in which process: the names are the same."""
    for number in range(4):
        send("note", str(number))
    send("hold", "on")

    def all_seen(reading: DemandReading) -> bool:
        said = (reading.said or {}).get(worker.name)
        return (reading.demand or Demand()).finished == 4 and said is not None and said.busy == 1

    reading = asyncio.run(read_until(redis_url, all_seen))

    assert reading.demand is not None
    assert reading.demand.running == 1
    assert reading.demand.service_seconds is not None
    assert 0 < reading.demand.service_seconds < 5
    waits = waits_of(reading.demand.waits)
    assert waits is not None
    assert waits.up_to()[-1] == 5
    assert reading.said is not None
    (process,) = reading.said[worker.name].processes
    assert process.broker_id in str(worker.presences("default"))


def silent_s(client: redis.Redis) -> float:
    """Seconds, by the server's clock, since the only process on the queue beat."""
    (text,) = client.hvals("astrid:dramatiq:presence:default")
    seconds, microseconds = client.time()
    return float(seconds + microseconds / 1e6 - json.loads(text)["beat"])


class Hurried:
    """A recovery for which a step of its clock takes as long as we say."""

    def __init__(self, url: str) -> None:
        self._now = 0.0
        self._recovery = Recovery(lambda: self._now, timeout_seconds=2.0)
        self._claim = claim(url)

    async def pass_time(self, seconds: float) -> list[Reclaimed]:
        """Look every four seconds for so long; what went back."""
        found: list[Reclaimed] = []
        for _ in range(int(seconds / 4)):
            self._now += 4
            self._recovery.begin({KEY: self._claim})
            looking = [each for each in asyncio.all_tasks() if each.get_name().startswith("look for orphans")]
            await asyncio.gather(*looking)
            found += [each for _, each in self._recovery.take()]
        return found

    async def close(self) -> None:
        await self._recovery.close()


def test_a_living_worker_keeps_and_a_killed_one_loses_what_it_held(
    redis_url: str, redis_client: redis.Redis, worker: WorkerProcess, send: Callable[..., None]
) -> None:
    """However long a task is, presence beats for it; SIGKILL, and running and delayed messages are back."""
    send("hold", "long")
    send("note", "later", delay_s=3600)
    wait_until(lambda: redis_client.lrange("seen", 0, -1) == ["start long"], 20, "the task to begin")
    wait_until(lambda: redis_client.llen("dramatiq:default.DQ") == 0, 20, "the delayed message to be held")

    async def scenario() -> None:
        hurried = Hurried(redis_url)
        try:
            assert await hurried.pass_time(400) == []
            worker.kill()
            assert await hurried.pass_time(400) == [], "its presence is not stale yet"
            wait_until(lambda: silent_s(redis_client) > STALE_SECONDS, 20, "its presence to be stale")
            (found,) = await hurried.pass_time(80)
            assert (found.messages, found.delayed, found.processes) == (1, 1, 1)
        finally:
            await hurried.close()

    asyncio.run(scenario())
    assert redis_client.llen("dramatiq:default") == 1
    assert redis_client.llen("dramatiq:default.DQ") == 1
    assert redis_client.hvals("astrid:dramatiq:starts:default") == ["1"]
    assert redis_client.exists("astrid:dramatiq:presence:default") == 0
