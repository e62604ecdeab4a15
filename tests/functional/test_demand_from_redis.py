"""Demand as a real server tells it: what is counted, what is not believed, and who never waits for whom."""

import asyncio
import json
import random
import time
from collections.abc import Callable, Coroutine
from typing import Any

import dramatiq
import pytest
import redis
from dramatiq.brokers.redis import RedisBroker
from structlog.testing import capture_logs

from astrid_operator import demand
from astrid_operator.astrid_queue import QueueKey
from astrid_operator.brokers import BrokerAddress
from astrid_operator.claims import BrokerQueue
from astrid_operator.demand import PATIENCE_SECONDS, DemandReader
from astrid_operator.dramatiq_keys import DramatiqQueue
from astrid_operator.scaling import DemandReading
from support.redis_server import RedisServer, valkey_binary
from support.tcp_proxy import TcpProxy
from support.waiting import wait_for_answer

KEY = QueueKey("sky", "q")
#: Between two readings that are timed: the load itself, for the loop does not read without a pause either.
TICK_SECONDS = 0.1
Play = Callable[[Callable[[DemandReader], Coroutine[Any, Any, Any]]], Any]


@pytest.fixture
def play() -> Play:
    """Runs a scenario with a reader of its own."""

    def run(scenario: Callable[[DemandReader], Coroutine[Any, Any, Any]]) -> Any:
        async def go() -> Any:
            reader = DemandReader(time.monotonic, random.Random(1), timeout_seconds=1.0)
            try:
                return await scenario(reader)
            finally:
                await reader.close()

        return asyncio.run(go())

    return run


def claim(url: str, name: str = "q", namespace: str = "dramatiq") -> BrokerQueue:
    return BrokerQueue(BrokerAddress(url), DramatiqQueue(namespace, name))


async def until(
    reader: DemandReader, wanted: dict[QueueKey, BrokerQueue], good: Callable[[DemandReading], bool]
) -> DemandReading:
    """Read as the loop does until the reading of KEY is `good`."""

    async def good_reading() -> DemandReading | None:
        reading = (await reader.read(wanted))[KEY]
        return reading if good(reading) else None

    return await wait_for_answer(good_reading, 20, "a good reading")


def test_counts_are_those_of_a_real_broker(each_redis_url: str, play: Play) -> None:
    """Waiting, fetched, delayed and dead messages of Dramatiq itself, on both servers that we promise."""
    broker = RedisBroker(url=each_redis_url, namespace="sky")
    broker.declare_queue("q")
    for _ in range(5):
        broker.enqueue(dramatiq.Message(queue_name="q", actor_name="a", args=(), kwargs={}, options={}))
    broker.enqueue(
        dramatiq.Message(queue_name="q", actor_name="a", args=(), kwargs={}, options={}), delay=60_000
    )
    consumer = broker.consume("q", prefetch=3)
    first, second = next(consumer), next(consumer)
    assert first is not None
    assert second is not None
    consumer.nack(first)

    async def scenario(reader: DemandReader) -> DemandReading:
        return (await reader.read({KEY: claim(each_redis_url, namespace="sky")}))[KEY]

    demand = play(scenario).demand
    consumer.close()
    broker.close()

    assert demand is not None
    assert demand.outstanding == 4
    assert (demand.delayed, demand.dead) == (1, 1)
    assert demand.running >= 1
    assert demand.oldest_seconds is None or 0 <= demand.oldest_seconds < 60


def test_the_age_is_that_of_the_head_by_the_servers_clock(
    redis_url: str, redis_client: Any, play: Play
) -> None:
    """A message that was requeued waits since then, a delayed one since it was due; one from the future is not
    older than now.
    """
    now_ms = int(time.time() * 1000)
    rows = {
        "plain": {"message_timestamp": now_ms - 90_000, "options": {}},
        "again": {"message_timestamp": now_ms - 90_000, "options": {"requeue_timestamp": now_ms - 10_000}},
        "due": {"message_timestamp": now_ms - 90_000, "options": {"due_timestamp": now_ms - 20_000}},
        "odd": {"message_timestamp": now_ms - 90_000, "options": {"due_timestamp": None}},
        "future": {"message_timestamp": now_ms + 90_000, "options": {}},
    }
    for name, message in rows.items():
        redis_client.rpush(f"dramatiq:{name}", "1")
        redis_client.hset(f"dramatiq:{name}.msgs", "1", json.dumps(message))

    async def scenario(reader: DemandReader) -> dict[str, float | None]:
        wanted = {QueueKey("sky", name): claim(redis_url, name) for name in rows}
        readings = await reader.read(wanted)
        return {key.name: each.demand.oldest_seconds for key, each in readings.items() if each.demand}

    ages = play(scenario)

    assert ages["plain"] == pytest.approx(90, abs=5)
    assert ages["again"] == pytest.approx(10, abs=5)
    assert ages["due"] == pytest.approx(20, abs=5)
    assert ages["odd"] == pytest.approx(90, abs=5)
    assert ages["future"] == 0


@pytest.mark.parametrize("step", ["connection", "demand_of"])
def test_an_unforeseen_error_is_a_failed_reading_told_once(
    redis_url: str, play: Play, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """Before an answer or after it: nothing counts as read or as up, and one traceback says why until it ends."""
    failures: list[str] = []

    def unforeseen(*_: Any, **__: Any) -> Any:
        failures.append(step)
        raise TypeError(step)

    async def scenario(reader: DemandReader) -> tuple[DemandReading, dict[str, bool]]:
        wanted = {KEY: claim(redis_url)}
        with monkeypatch.context() as patch:
            patch.setattr(demand, step, unforeseen)
            failed = await until(reader, wanted, lambda _: len(failures) >= 2)
            up = reader.reachable()
        await until(reader, wanted, lambda reading: reading.demand is not None)
        assert reader.reachable() == {redis_url: True}
        return failed, up

    with capture_logs() as said:
        failed, up = play(scenario)

    assert failed.demand is None
    assert failed.trouble == f"Redis {redis_url}: Unexpected: an error of the operator, see its log"
    assert up == {redis_url: False}
    assert [(each["event"], bool(each.get("exc_info"))) for each in said] == [
        ("Redis not read", True),
        ("Redis read again", False),
    ]


def test_one_address_in_two_spellings_is_up_where_both_are(redis_url: str, play: Play) -> None:
    """Credentials are not shown: one of two users is refused, whichever is looked at last."""
    host = redis_url.removeprefix("redis://")
    good, bad = f"redis://default:@{host}", f"redis://nobody:x@{host}"

    async def scenario(reader: DemandReader) -> dict[str, bool]:
        refused, other = QueueKey("sky", "refused"), QueueKey("sky", "other")
        wanted = {refused: claim(bad), KEY: claim(good), other: claim(f"redis://@{host}")}
        await until(reader, wanted, lambda reading: reading.demand is not None)
        return reader.reachable()

    assert play(scenario) == {f"redis://***@{host}": False, redis_url: True}


@pytest.mark.parametrize(
    "body", [b"\x80\x04pickled", b'{"message_timestamp": "soon"}', b"[]", b"x" * 100_000]
)
def test_a_body_of_another_kind_costs_only_its_age(
    redis_url: str, redis_client: Any, play: Play, body: bytes
) -> None:
    """Other encoders, other versions, huge bodies: the queue is counted all the same."""
    redis_client.rpush("dramatiq:q", "1")
    redis_client.hset("dramatiq:q.msgs", "1", body)

    async def scenario(reader: DemandReader) -> DemandReading:
        return (await reader.read({KEY: claim(redis_url)}))[KEY]

    demand = play(scenario).demand

    assert (demand.ready, demand.oldest_seconds) == (1, None)


def test_a_key_of_a_wrong_type_spoils_one_queue_only(redis_url: str, redis_client: Any, play: Play) -> None:
    """The error is told for that queue; its neighbours on the same server are read."""
    redis_client.set("dramatiq:q", "not a list")

    async def scenario(reader: DemandReader) -> dict[QueueKey, DemandReading]:
        return await reader.read({KEY: claim(redis_url), QueueKey("sky", "fine"): claim(redis_url, "fine")})

    readings = play(scenario)

    assert readings[KEY].demand is None
    assert "WRONGTYPE" in readings[KEY].trouble or "wrong kind" in readings[KEY].trouble
    assert readings[QueueKey("sky", "fine")].demand is not None


def test_a_server_that_answers_late_is_known_and_holds_up_nobody_else(
    redis_url: str, redis_server: RedisServer
) -> None:
    """Its numbers are those of a tick before; nobody waits for them twice."""
    other = QueueKey("sky", "other")

    async def scenario(late_url: str) -> None:
        wanted = {KEY: claim(late_url), other: claim(redis_url, "other")}
        reader = DemandReader(time.monotonic, random.Random(1), timeout_seconds=10.0)
        try:
            await until(reader, wanted, lambda reading: reading.demand is not None)
            held_up = 0
            for _ in range(20):
                started = time.monotonic()
                readings = await reader.read(wanted)
                held_up += time.monotonic() - started > PATIENCE_SECONDS / 2
                assert readings[KEY].demand is not None
                await asyncio.sleep(TICK_SECONDS)
            assert held_up <= 1
        finally:
            await reader.close()

    with TcpProxy(redis_server.port, delay_s=PATIENCE_SECONDS + 0.1) as way:
        asyncio.run(scenario(way.url()))


def test_a_frozen_server_holds_up_nobody_else(redis_url: str, redis_server: RedisServer, play: Play) -> None:
    """Its own queues become unknown within the time limit; a tick for the others stays short, every time."""
    other = QueueKey("sky", "other")
    wanted = {KEY: claim(redis_server.url()), other: claim(redis_url, "other")}

    async def scenario(reader: DemandReader) -> None:
        await until(reader, wanted, lambda reading: reading.demand is not None)
        redis_server.freeze()
        try:
            unknown = await until(reader, wanted, lambda reading: reading.demand is None)
            assert "TimedOut" in unknown.trouble
            assert unknown.last_read_at is not None
            slow = 0
            for _ in range(20):
                started = time.monotonic()
                readings = await reader.read(wanted)
                slow += time.monotonic() - started > PATIENCE_SECONDS / 2
                assert readings[other].demand is not None
                await asyncio.sleep(TICK_SECONDS)
            assert slow <= 1
        finally:
            redis_server.thaw()
        back = await until(reader, wanted, lambda reading: reading.demand is not None)
        assert back.unread_seconds == 0

    play(scenario)


def test_a_restart_is_seen_as_another_server(redis_server: RedisServer, play: Play) -> None:
    """The run id changes, so that scaling can distrust what it reads."""
    wanted = {KEY: claim(redis_server.url())}

    async def scenario(reader: DemandReader) -> None:
        before = await until(reader, wanted, lambda reading: reading.demand is not None)
        redis_server.stop()
        gone = await until(reader, wanted, lambda reading: reading.demand is None)
        assert "Unreachable" in gone.trouble
        assert gone.last_read_at == pytest.approx(before.at, abs=3)
        redis_server.start()
        after = await until(reader, wanted, lambda reading: reading.demand is not None)
        assert None not in (before.server, after.server)
        assert before.server != after.server

    play(scenario)


def test_a_script_that_was_flushed_is_loaded_again_unnoticed(
    redis_url: str, redis_client: Any, play: Play
) -> None:
    """SCRIPT FLUSH, or a fail-over to a server that never had it, costs no reading."""
    wanted = {KEY: claim(redis_url)}

    async def scenario(reader: DemandReader) -> None:
        await reader.read(wanted)
        redis_client.script_flush()
        assert (await reader.read(wanted))[KEY].demand is not None

    play(scenario)


def test_refused_credentials_are_named_and_never_shown(redis_server: RedisServer, play: Play) -> None:
    """The sentence says what is wrong and where; the password is in no part of it."""
    redis_server.client.config_set("requirepass", "right-one")
    try:
        url = f"redis://:wrong-one@127.0.0.1:{redis_server.port}/0"

        async def scenario(reader: DemandReader) -> tuple[str, dict[str, bool]]:
            reading = await until(reader, {KEY: claim(url)}, lambda reading: bool(reading.trouble))
            return reading.trouble, reader.reachable()

        trouble, reachable = play(scenario)
    finally:
        client = redis.Redis(port=redis_server.port, password="right-one")
        client.config_set("requirepass", "")

    assert "NotAuthenticated" in trouble
    assert "wrong-one" not in trouble + repr(reachable) + repr(claim(url))
    assert list(reachable.values()) == [False]


def test_a_user_who_may_only_read_and_run_scripts_is_enough(redis_server: RedisServer, play: Play) -> None:
    """The rights that the documentation asks for suffice; without INFO only the server's identity is unknown."""
    redis_server.client.execute_command(
        "ACL",
        "SETUSER",
        "astrid",
        "on",
        ">secret",
        "~dramatiq:*",
        "+@read",
        "+@scripting",
        "+@connection",
        "+time",
        "-@dangerous",
    )

    async def scenario(reader: DemandReader) -> DemandReading:
        url = f"redis://astrid:secret@127.0.0.1:{redis_server.port}/0"
        return (await reader.read({KEY: claim(url)}))[KEY]

    reading = play(scenario)

    assert reading.demand is not None
    assert reading.server is None


@pytest.mark.parametrize("count", [1000])
def test_many_queues_are_read_in_one_short_pipeline(redis_url: str, play: Play, count: int) -> None:
    """A thousand queues on one endpoint cost one round trip and a fraction of a second."""
    wanted = {QueueKey("sky", f"q{index}"): claim(redis_url, f"q{index}") for index in range(count)}

    async def scenario(reader: DemandReader) -> None:
        async def all_known() -> bool:
            return all(each.demand for each in (await reader.read(wanted)).values())

        await wait_for_answer(all_known, 60, f"all of {count} queues to be known")

    play(scenario)


def test_a_server_that_is_still_loading_is_unknown_not_empty(play: Play) -> None:
    """LOADING is an answer, but not one about the queue."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.readline():
            writer.write(b"-LOADING Redis is loading the dataset in memory\r\n")
            await writer.drain()

    async def scenario(reader: DemandReader) -> str:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        try:
            wanted = {KEY: claim(f"redis://127.0.0.1:{port}/0")}
            reading = await until(reader, wanted, lambda reading: bool(reading.trouble))
            assert reading.demand is None
            return reading.trouble
        finally:
            server.close()

    assert "Loading" in play(scenario)


def test_the_session_binary_is_a_valkey(redis_server: RedisServer) -> None:
    """These tests run against a real server, not a stand-in."""
    assert valkey_binary().exists()
    assert redis_server.client.info("server")["server_name"] == "valkey"
