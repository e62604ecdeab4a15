"""B12 without a control plane: what the neighbours of a queue cost the operator's own loop, in CPU time too.

The deciding loop in this process, with its readers of Redis, a real Valkey and the same neighbours as in
`noisy_neighbours.py`; fleets are in memory. Taken are the time from the burst until the loop asks for 100
members; of it the part from the beginning of the tick that found the burst; that part without the time in
which the loop's thread or the Valkey were ready to run and had no core (Linux counts it); and the CPU time of
the thread alone. The last two hardly depend on what else runs on the machine.

    python benchmarks/scaling/loop_beside_neighbours.py --trials 20 --seed 1    # two minutes
"""

import argparse
import asyncio
import json
import logging
import random
import secrets
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog
from noisy_neighbours import HUGE, LATE, MESSAGES, MOST, ORDINARY, blocks_of, compared, fill
from rig import message_body, queue_manifest, save, say

from astrid_operator.astrid_queue import QueueKey
from astrid_operator.brokers import Brokers
from astrid_operator.claims import BrokerQueue
from astrid_operator.demand import DemandReader
from astrid_operator.loop import Loop
from astrid_operator.metrics import Metrics
from astrid_operator.promotion import Promotion
from astrid_operator.recovery import Recovery
from astrid_operator.scaling import DemandReading
from support.memory_fleet import MemoryFleet, MemoryReporter
from support.redis_server import RedisServer, valkey_binary
from support.tcp_proxy import TcpProxy

NAMESPACE = "bench"
#: As the operator has it, in seconds.
TIMEOUT = 2.0
#: Seconds for which neighbours are there or gone before a burst.
SETTLE = 4.0
#: The late neighbour that answers within the operator's patience.
SERVED_LATE = "late350"
#: What is taken from the tick on: all of it, without waits for a core, and CPU time.
AFTER_TICK = ("after_tick_s", "after_tick_undelayed_s", "after_tick_cpu_s")


@dataclass(frozen=True, slots=True)
class Stamp:
    """An instant (monotonic), and until then the CPU time of this thread and waits for a core; in seconds."""

    at: float
    cpu: float
    waited: float

    @classmethod
    def now(cls, server: RedisServer) -> "Stamp":
        waited = _waited("thread-self") + _waited(str(server.pid))
        return cls(time.monotonic(), time.thread_time(), waited)


def _waited(process: str) -> float:
    """Seconds for which a thread was ready to run and had no core."""
    return int(Path(f"/proc/{process}/schedstat").read_text().split()[1]) / 1e9


class StampedFleet(MemoryFleet):
    """Notes when each fleet was asked for its last size."""

    def __init__(self, server: RedisServer, news: asyncio.Event) -> None:
        super().__init__()
        self._server = server
        self._news = news
        self.asked: dict[QueueKey, tuple[int, Stamp]] = {}

    async def scale_to(self, key: QueueKey, replicas: int) -> None:
        self.asked[key] = replicas, Stamp.now(self._server)
        await super().scale_to(key, replicas)
        self._news.set()


class StampedDemand:
    """Notes when each tick began to read."""

    def __init__(self, reader: DemandReader, server: RedisServer, news: asyncio.Event) -> None:
        self._reader = reader
        self._server = server
        self._news = news
        self.ticks: list[Stamp] = []

    async def read(self, wanted: Mapping[QueueKey, BrokerQueue]) -> Mapping[QueueKey, DemandReading]:
        self.ticks.append(Stamp.now(self._server))
        self._news.set()
        return await self._reader.read(wanted)


class Stage:
    """A loop that runs, and what stands around it."""

    def __init__(self, server: RedisServer, brokers_dir: Path) -> None:
        self.server = server
        #: A tick began, or a size was asked for.
        self._news = asyncio.Event()
        self.fleet = StampedFleet(server, self._news)
        self.manifests: dict[QueueKey, dict[str, Any]] = {}
        reader = DemandReader(time.monotonic, random.Random(), timeout_seconds=TIMEOUT)
        self.demand = StampedDemand(reader, server, self._news)
        recovery = Recovery(time.monotonic, timeout_seconds=TIMEOUT)
        promotion = Promotion(reader, time.monotonic, timeout_seconds=TIMEOUT)
        self._parts = (recovery, promotion, reader)
        self.loop = Loop(
            lambda: self.manifests,
            self.fleet,
            MemoryReporter(),
            self.demand,
            Brokers(brokers_dir, server.url()),
            clock=time.monotonic,
            rng=random.Random(),
            observer=Metrics(),
            recovery=recovery,
            promotion=promotion,
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.loop.run())
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
            for each in self._parts:
                await each.close()

    def let_in(self, names: Sequence[str]) -> None:
        """AstridQueues of these names come; late ones have a broker of their own."""
        for name in names:
            broker = {"broker": {"secretRef": {"name": name, "key": "url"}}} if name in LATE else {}
            made = queue_manifest(name, scaling={"maxReplicas": MOST, "idleSeconds": 1}, **broker)
            facts = {"namespace": NAMESPACE, "uid": name, "generation": 1}
            made["metadata"] |= {**facts, "creationTimestamp": "2026-01-01T00:00:00Z"}
            self.manifests[QueueKey(NAMESPACE, name)] = made
            self.loop.wake(QueueKey(NAMESPACE, name))

    def let_go(self, names: Sequence[str]) -> None:
        for name in names:
            self.manifests.pop(QueueKey(NAMESPACE, name), None)

    async def served(self, names: Sequence[str]) -> None:
        """Wait until demand of these queues has been read: their fleets have members."""
        keys = [QueueKey(NAMESPACE, name) for name in names]
        async with asyncio.timeout(30):
            await self._until(lambda: all(self.fleet.sizes.get(key) for key in keys))

    def push(self, name: str) -> None:
        ids = [secrets.token_hex(8) for _ in range(1000)]
        with self.server.client.pipeline(transaction=False) as pipeline:
            pipeline.hset(f"dramatiq:{name}.msgs", mapping=dict.fromkeys(ids, message_body(name)))
            pipeline.rpush(f"dramatiq:{name}", *ids)
            pipeline.execute()

    async def burst(self, name: str, moment: float) -> dict[str, Any]:
        """1,000 messages, `moment` seconds after a tick began; the queue is empty and at zero afterwards."""
        key, ticks = QueueKey(NAMESPACE, name), self.demand.ticks
        before = len(ticks)
        await self._until(lambda: len(ticks) > before)
        await asyncio.sleep(max(0.0, ticks[-1].at + moment - time.monotonic()))
        self.fleet.asked.pop(key, None)
        await asyncio.to_thread(self.push, name)
        pushed = time.monotonic()
        await self._until(lambda: key in self.fleet.asked and self.fleet.asked[key][0] == MOST)
        asked = self.fleet.asked[key][1]
        found = next((tick for tick in reversed(ticks) if pushed <= tick.at <= asked.at), None)
        self.server.client.delete(f"dramatiq:{name}", f"dramatiq:{name}.msgs")
        self.fleet.sizes[key] = 0
        took = {"queue": name, "moment_s": round(moment, 3), "took_s": round(asked.at - pushed, 4)}
        return {**took, **(dict.fromkeys(AFTER_TICK) if found is None else after_tick(found, asked))}

    async def _until(self, is_so: Callable[[], bool]) -> None:
        while not is_so():
            self._news.clear()
            await self._news.wait()


def after_tick(tick: Stamp, asked: Stamp) -> dict[str, float]:
    """The three parts of a time that follow its tick, in seconds."""
    took = asked.at - tick.at
    parts = (took, took - (asked.waited - tick.waited), asked.cpu - tick.cpu)
    return {name: round(part, 4) for name, part in zip(AFTER_TICK, parts, strict=True)}


async def measure(stage: Stage, trials: int, rng: random.Random) -> list[dict[str, Any]]:
    """Blocks without and with neighbours."""
    names = [f"q{number:04d}" for number in range(ORDINARY)]
    noisy = (HUGE, *LATE)
    stage.let_in(names)
    found = []
    async with stage.running():
        for wanted, bursts in blocks_of(names, trials, rng):
            (stage.let_in if wanted else stage.let_go)(noisy)
            await asyncio.sleep(SETTLE)
            if wanted:
                await stage.served([HUGE, SERVED_LATE])
            found.append({"neighbours": wanted, "bursts": [await stage.burst(*each) for each in bursts]})
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trials", type=int, default=20, help="pairs of bursts")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    with ExitStack() as parts:
        folder = Path(parts.enter_context(tempfile.TemporaryDirectory()))
        server, far = RedisServer(valkey_binary()), RedisServer(valkey_binary())
        for each in (server, far):
            parts.callback(each.close)
            each.start()
        for name, delay_s in LATE.items():
            way = parts.enter_context(TcpProxy(far.port, delay_s=delay_s))
            file = folder / NAMESPACE / name / "url"
            file.parent.mkdir(parents=True)
            file.write_text(way.url())
            far.client.hset(f"dramatiq:{name}.msgs", mapping={"m0": "{}", "m1": "{}"})
        fill(server, HUGE, MESSAGES)
        blocks = asyncio.run(measure(Stage(server, folder), options.trials, random.Random(options.seed)))
    result = compared([{"blocks": blocks}], ("took_s", *AFTER_TICK))
    say(json.dumps(result))
    facts = {"seed": options.seed, "messages": MESSAGES, "late_s": LATE, "ordinary_queues": ORDINARY}
    say(f"written: {save('loop-beside-neighbours', {**facts, **result, 'blocks': blocks})}")


if __name__ == "__main__":
    main()
