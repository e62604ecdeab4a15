"""What Redis may do to a fleet: nothing that makes it smaller before it can be believed, or ends the operator."""

import asyncio
import json
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import redis

from astrid_operator.astrid_queue import QueueKey
from astrid_operator.brokers import Brokers
from astrid_operator.demand import DemandReader
from astrid_operator.loop import Loop
from astrid_operator.metrics import Metrics
from astrid_operator.recovery import Recovery
from astrid_operator.scaling_memory import TRUST_SECONDS
from support.memory_fleet import MemoryFleet, MemoryReporter
from support.redis_server import RedisServer, redis_62_binary
from support.waiting import wait_until

KEY = QueueKey("sky", "q")
#: Members that the fleet has when the fault comes, one for each message.
SIZE = 5
IDLE_SECONDS = 10


def answers(server: RedisServer, *command: str) -> Any:
    """What `server` says to `command`; None while it says nothing."""
    with suppress(redis.RedisError):
        return server.client.execute_command(*command)


class World:
    """A loop on a real server, with fleets in memory and a clock that only `seconds` moves."""

    def __init__(self, server: RedisServer, folder: Path) -> None:
        self.now = 5000.0
        self.server = server
        self.fleet = MemoryFleet()
        self.reporter = MemoryReporter()
        spec = {
            "app": "sky.tasks",
            "concurrency": 1,
            "scaling": {"idleSeconds": IDLE_SECONDS, "expectedTaskSeconds": 300},
        }
        metadata = {"name": "q", "namespace": "sky", "uid": "u", "generation": 1}
        manifest = {
            "apiVersion": "astrid.dev/v1alpha1",
            "kind": "AstridQueue",
            "metadata": {**metadata, "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": spec,
        }
        self._reader = DemandReader(lambda: self.now, random.Random(1), timeout_seconds=0.25)
        self._recovery = Recovery(lambda: self.now, timeout_seconds=0.25)
        self._loop = Loop(
            lambda: {KEY: manifest},
            self.fleet,
            self.reporter,
            self._reader,
            Brokers(folder, server.url()),
            clock=lambda: self.now,
            rng=random.Random(3),
            observer=Metrics(),
            recovery=self._recovery,
        )

    async def seconds(self, count: float) -> None:
        """Decide once for each of so many seconds."""
        for _ in range(int(count)):
            self.now += 1.0
            await self._loop.tick()
            await self._loop.settled()
            await asyncio.sleep(0.002)  # the second itself: what goes on beside a tick gets this much of it

    async def until(self, size: int, *, within: int) -> int:
        """Decide until the fleet has `size`; after how many seconds that was."""
        for passed in range(within):
            if self.fleet.sizes.get(KEY) == size:
                return passed
            await self.seconds(1)
        raise AssertionError((self.fleet.sizes, self.reporter.statuses))

    def work(self) -> None:
        """`SIZE` messages are being worked on."""
        with redis.Redis.from_url(self.server.url()) as client:
            client.hset("dramatiq:q.msgs", mapping={f"m{n}": "{}" for n in range(SIZE)})

    def finish(self) -> None:
        """All of them are done."""
        with redis.Redis.from_url(self.server.url()) as client:
            client.delete("dramatiq:q.msgs")

    async def close(self) -> None:
        await self._recovery.close()
        await self._reader.close()


Scenario = Callable[[World], Awaitable[None]]
Play = Callable[[Scenario], None]


@pytest.fixture
def play(redis_server: RedisServer, tmp_path: Path) -> Play:
    """Runs a scenario in a world whose fleet has its size, by an operator that is no longer new."""

    def run(scenario: Scenario) -> None:
        async def go() -> None:
            world = World(redis_server, tmp_path)
            try:
                world.work()
                await world.until(SIZE, within=20)
                await world.seconds(35)
                await scenario(world)
            finally:
                await world.close()

        asyncio.run(go())

    return run


async def kept_then_left(world: World, *, trusted_after: float = TRUST_SECONDS) -> None:
    """From now on the queue is empty: nobody leaves before it is believed, and then they do."""
    await world.seconds(trusted_after - 2)
    assert world.fleet.sizes[KEY] == SIZE
    await world.until(0, within=IDLE_SECONDS + 20)


def test_a_queue_that_was_worked_off_lets_its_fleet_go(play: Play) -> None:
    """Without any fault it takes idleSeconds: what the tests below rest on."""

    async def scenario(world: World) -> None:
        for left in range(SIZE - 1, 0, -1):
            world.server.client.hdel("dramatiq:q.msgs", f"m{left}")
            await world.seconds(1)
        world.finish()
        assert await world.until(0, within=60) <= IDLE_SECONDS + 4

    play(scenario)


def test_refused_for_long_and_back_without_data(play: Play) -> None:
    """200 s of refusal freeze the fleet, and the first empty answers are not believed."""

    async def scenario(world: World) -> None:
        world.server.stop()
        await world.seconds(200)
        assert world.fleet.sizes[KEY] == SIZE
        assert world.reporter.condition(KEY, "BrokerReachable")["status"] == "False"
        world.server.start()
        await world.seconds(10)
        await kept_then_left(world, trusted_after=TRUST_SECONDS - 10)

    play(scenario)


def test_restarted_empty_between_two_looks(play: Play) -> None:
    """Nobody noticed an outage: another run id is enough to doubt what is read."""

    async def scenario(world: World) -> None:
        world.server.restart()
        await kept_then_left(world)

    play(scenario)


def test_emptied_in_place(play: Play) -> None:
    """FLUSHALL changes no run id: messages that vanish faster than they could be done are not believed."""

    async def scenario(world: World) -> None:
        counters = {"finished": 10, "seconds": 3000, "seconds_squared": 900_000}
        world.server.client.hset("astrid:dramatiq:counters:q", mapping=counters)
        await world.seconds(5)
        world.server.empty()
        await kept_then_left(world)

    play(scenario)


def test_still_loading(play: Play) -> None:
    """LOADING is no answer about the queue, however long it lasts."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while await reader.readline():
                writer.write(b"-LOADING Redis is loading the dataset in memory\r\n")
                await writer.drain()
        writer.close()

    async def scenario(world: World) -> None:
        world.server.stop()
        loading = await asyncio.start_server(serve, "127.0.0.1", world.server.port)
        await world.seconds(100)
        assert "Loading" in world.reporter.condition(KEY, "BrokerReachable")["message"]
        loading.close()
        world.server.start()
        await world.seconds(10)
        await kept_then_left(world, trusted_after=TRUST_SECONDS - 10)

    play(scenario)


def test_failed_over_to_a_replica_that_had_nothing(play: Play, other_server: RedisServer) -> None:
    """A server that becomes a replica answers READONLY and another data set: no reason to shrink."""

    async def scenario(world: World) -> None:
        world.server.client.replicaof("127.0.0.1", other_server.port)
        wait_until(lambda: answers(world.server, "exists", "dramatiq:q.msgs") == 0, 20, "the other data set")
        await kept_then_left(world)

    play(scenario)


def test_flaps_of_five_seconds(play: Play) -> None:
    """A queue that is empty all the time, on a server that comes and goes: nobody leaves while that lasts."""

    async def scenario(world: World) -> None:
        world.finish()
        for _ in range(4):
            world.server.freeze()
            await world.seconds(5)
            world.server.thaw()
            wait_until(lambda: answers(world.server, "ping"), 20, "the server to answer")
            await world.seconds(5)
            assert world.fleet.sizes[KEY] == SIZE
        await world.until(0, within=120)

    play(scenario)


@pytest.mark.parametrize("key", ["dramatiq:q", "dramatiq:q.msgs", "dramatiq:q.DQ.msgs", "dramatiq:q.XQ"])
def test_keys_of_another_kind(play: Play, key: str) -> None:
    """Another version's keys under the same names: not known is not empty, and the operator goes on."""

    async def scenario(world: World) -> None:
        world.finish()
        world.server.client.delete(key)
        world.server.client.set(key, "of another version")
        await world.seconds(150)
        assert world.fleet.sizes[KEY] == SIZE
        assert world.reporter.condition(KEY, "BrokerReachable")["status"] == "False"

    play(scenario)


def test_members_that_lie_or_say_nonsense(play: Play) -> None:
    """Presence and counters that claim idleness while messages are held send nobody home."""

    async def scenario(world: World) -> None:
        client = world.server.client
        for second in range(100):
            said = {"pod": f"pod-{second % 7}", "busy": -1, "idle_since": -1e9, "beat": client.time()[0]}
            client.hset("astrid:dramatiq:presence:q", f"p{second % 7}", json.dumps(said))
            client.hset("astrid:dramatiq:presence:q", "wild", b"\xff" * 1000)
            client.hset(
                "astrid:dramatiq:counters:q", mapping={"finished": f"{'9' * second}", "seconds": "nan"}
            )
            await world.seconds(1)
        assert world.fleet.sizes[KEY] >= SIZE

    play(scenario)


@pytest.mark.parametrize("eta", ["1e308", "-1e308", '"never"', "null", "[]", "9" * 400, "true"])
def test_absurd_etas(play: Play, eta: str) -> None:
    """No ETA ends the operator or keeps it from deciding; the fleet goes, or stays for what is due at once."""

    async def scenario(world: World) -> None:
        text = f'{{"actor_name": "a", "args": [], "options": {{"eta": {eta}}}}}'
        world.server.client.hset("dramatiq:q.DQ.msgs", "d", text)
        world.server.client.rpush("dramatiq:q.DQ", "d")
        await world.seconds(20)
        assert world.fleet.sizes[KEY] >= SIZE
        world.finish()
        await world.seconds(TRUST_SECONDS + IDLE_SECONDS + 50)
        is_due = eta not in {"1e308", "9" * 400}
        assert world.fleet.sizes[KEY] in ({1, SIZE} if is_due else {0})
        assert world.reporter.condition(KEY, "BrokerReachable")["status"] == "True"

    play(scenario)


def test_messages_from_machines_whose_clocks_are_wrong(play: Play) -> None:
    """Two minutes ahead or behind: ages are off, the fleet is not smaller for it."""

    async def scenario(world: World) -> None:
        client = world.server.client
        for skew_s in (-120, 120):
            stamp = (client.time()[0] + skew_s) * 1000
            client.hset("dramatiq:q.msgs", "head", json.dumps({"message_timestamp": stamp, "options": {}}))
            client.delete("dramatiq:q")
            client.rpush("dramatiq:q", "head")
            await world.seconds(40)
            assert world.fleet.sizes[KEY] >= SIZE

    play(scenario)


def test_the_oldest_server_that_is_promised(tmp_path: Path) -> None:
    """Redis 6.2 runs every script that the operator has: counting, ETAs, orphans."""
    server = RedisServer(redis_62_binary())
    server.start()

    async def go() -> None:
        world = World(server, tmp_path)
        try:
            client = server.client
            client.hset("dramatiq:q.msgs", "m", "{}")
            client.sadd("dramatiq:__acks__.gone.q", "m")
            client.zadd("dramatiq:__heartbeats__", {"gone": 1})
            await world.seconds(90)
            assert client.lrange("dramatiq:q", 0, -1) == [b"m"]
            assert [each[2] for each in world.reporter.events if "Orphans" in each[2]] == ["OrphansReclaimed"]
            client.delete("dramatiq:q", "dramatiq:q.msgs")
            client.hset("dramatiq:q.DQ.msgs", "d", json.dumps({"actor_name": "a", "options": {"eta": 5}}))
            await world.seconds(5)
            assert world.fleet.sizes[KEY] >= 1
        finally:
            await world.close()

    try:
        asyncio.run(go())
    finally:
        server.close()
