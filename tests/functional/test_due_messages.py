"""A delayed message that is due and that nobody holds goes to its queue on time, once, and none is lost."""

import asyncio
import json
import random
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dramatiq
import pytest
import redis
from dramatiq.brokers.redis import RedisBroker
from structlog.testing import capture_logs

from astrid_operator.astrid_queue import QueueKey
from astrid_operator.brokers import BrokerAddress
from astrid_operator.claims import BrokerQueue
from astrid_operator.demand import DemandReader
from astrid_operator.dramatiq_keys import DramatiqQueue
from astrid_operator.due import released
from astrid_operator.promotion import Promotion
from support.foreign_app import DIARY
from support.local_operator import LocalOperator
from support.redis_server import RedisServer
from support.scenarios import play_with
from support.waiting import wait_for_answer, wait_in_loop, wait_until

KEY = QueueKey("sky", "q")
LIST, BODIES, QUEUE, QUEUED = "dramatiq:q.DQ", "dramatiq:q.DQ.msgs", "dramatiq:q", "dramatiq:q.msgs"
NEXT_WEEK_MS = 6 * 86_400_000


class Watch:
    """An operator's reader and promotion, on a real server, ticking once a second."""

    def __init__(self, url: str) -> None:
        self._claim = BrokerQueue(BrokerAddress(url), DramatiqQueue("dramatiq", "q"))
        self._reader = DemandReader(time.monotonic, random.Random(1), timeout_seconds=5.0)
        self._promotion = Promotion(self._reader, time.monotonic, timeout_seconds=5.0)
        self.moved = 0

    async def tick(self) -> None:
        await self._reader.read({KEY: self._claim})
        self._promotion.begin({KEY: self._claim})
        self.moved += sum(count for _, count in self._promotion.take())

    async def until(self, condition: Callable[[], object], timeout_s: float, *, every_s: float = 1.0) -> None:
        """Tick every so many seconds until `condition` holds."""
        next_at = float("-inf")

        async def ticked() -> object:
            nonlocal next_at
            if time.monotonic() >= next_at:
                await self.tick()
                next_at = time.monotonic() + every_s
            return condition()

        await wait_for_answer(ticked, timeout_s, "what ticks should bring about", every_s=0.02)
        self.moved += sum(count for _, count in self._promotion.take())

    def leave(self) -> None:
        """No AstridQueue names the address any more."""
        self._promotion.keep(())

    async def close(self) -> None:
        await self._promotion.close()
        await self._reader.close()


def play(url: str, scenario: Callable[[Watch], Any]) -> Any:
    return play_with(lambda: Watch(url), scenario)


@pytest.fixture
def broker(redis_url: str) -> Any:
    made = RedisBroker(url=redis_url, middleware=[])
    made.declare_queue("q")
    yield made
    made.close()


def send(broker: RedisBroker, delay_s: float, mark: str = "due") -> float:
    """When the message is due, in seconds since the epoch."""
    message = dramatiq.Message(queue_name="q", actor_name="a", args=(mark,), kwargs={}, options={})
    return float(broker.enqueue(message, delay=int(delay_s * 1000)).options["eta"]) / 1000


def fill(
    client: redis.Redis,
    count: int,
    *,
    due_in_ms: Callable[[], float] = lambda: NEXT_WEEK_MS,
    queue: str = "q",
) -> None:
    """Delayed messages as Dramatiq keeps them."""
    now_ms = int(time.time() * 1000)
    for start in range(0, count, 5000):
        names = [secrets.token_hex(18) for _ in range(min(5000, count - start))]
        bodies = {name: body_of(name, now_ms + due_in_ms(), queue_name=f"{queue}.DQ") for name in names}
        with client.pipeline(transaction=False) as pipe:
            pipe.hset(f"dramatiq:{queue}.DQ.msgs", mapping=bodies)
            pipe.rpush(f"dramatiq:{queue}.DQ", *names)
            pipe.execute()


def body_of(name: str, eta: float, **changes: Any) -> str:
    options = {"redis_message_id": name, "eta": int(eta)}
    body = {"queue_name": "q.DQ", "actor_name": "a", "args": ["far"], "kwargs": {}, "options": options}
    return json.dumps({**body, "message_id": name, "message_timestamp": 1, **changes}, separators=(",", ":"))


def all_ids(client: redis.Redis, queue: str = "q") -> list[str]:
    """Message ids of all that is delayed or waits, each as often as it stands somewhere."""
    found: list[str] = []
    for names in (f"dramatiq:{queue}.DQ", f"dramatiq:{queue}"):
        bodies = f"{names}.msgs"
        listed, by_name = client.lrange(names, 0, -1), client.hgetall(bodies)
        assert len(by_name) == len(listed)
        found += [json.loads(by_name[name])["message_id"] for name in listed]
    return sorted(found)


def test_a_message_behind_a_hundred_thousand_goes_to_its_queue_at_its_time(
    redis_client: redis.Redis, redis_url: str, broker: RedisBroker
) -> None:
    """Never before its ETA, and within half a second of it; the others stay, in any number."""
    fill(redis_client, 100_000)

    async def scenario(watch: Watch) -> tuple[float, float]:
        await watch.until(lambda: True, 30)
        due_at = send(broker, 9.0)
        await watch.until(lambda: redis_client.llen(QUEUE), 30)
        return due_at, time.time()

    due_at, moved_at = play(redis_url, scenario)
    assert 0 <= moved_at - due_at <= 0.5
    assert (redis_client.llen(LIST), redis_client.hlen(BODIES)) == (100_000, 100_000)
    (body,) = redis_client.hvals(QUEUED)
    assert json.loads(body)["args"] == ["due"]


def test_the_connection_ends_when_no_queue_names_the_address_any_more(
    redis_client: redis.Redis, redis_url: str, broker: RedisBroker
) -> None:
    """As after a new password, which makes another address."""

    def is_connected() -> bool:
        return any(each["name"] == "astrid-operator-promotion" for each in redis_client.client_list())

    async def scenario(watch: Watch) -> None:
        send(broker, 1.0)
        await watch.until(lambda: redis_client.llen(QUEUE), 30)
        assert is_connected()
        watch.leave()
        await wait_in_loop(lambda: not is_connected(), 5, "the connection to end")

    play(redis_url, scenario)


def test_it_is_what_a_worker_would_have_made_of_it(broker: RedisBroker) -> None:
    """Byte for byte what Dramatiq enqueues when a delayed message is due, but for the new id in Redis."""
    message = dramatiq.Message(
        queue_name="q",
        actor_name="a",
        args=(1, 2.5, "ü\ud83d\ude00", None, [1e300, 12345678901234567890]),
        kwargs={"b": {"c": "\\u0000/"}},
        options={"retries": 2, "traceback": "x\ny", "requeue_timestamp": 5},
    )
    delayed = broker.enqueue(message, delay=1)
    theirs = delayed.copy(queue_name="q")
    del theirs.options["eta"]
    enqueued = broker.enqueue(theirs)
    ours = released(delayed.encode(), "q", enqueued.options["redis_message_id"])
    assert ours is not None
    assert ours.body == enqueued.encode()
    assert ours.eta_ms == delayed.options["eta"]


def test_thousands_that_are_due_at_once_all_move_once(redis_client: redis.Redis, redis_url: str) -> None:
    """Scattered over a long list, they are moved in bounded steps, and each exactly once."""
    drawn = random.Random(3)
    fill(redis_client, 8000, due_in_ms=lambda: 1.0 if drawn.random() < 0.5 else NEXT_WEEK_MS)
    before = all_ids(redis_client)
    due = sum(eta_of(body) < time.time() * 1000 + 1e6 for body in redis_client.hvals(BODIES))

    async def scenario(watch: Watch) -> int:
        await watch.until(lambda: redis_client.llen(QUEUE) >= due, 120)
        await watch.until(lambda: True, 5)
        return watch.moved

    assert play(redis_url, scenario) == due > 3500
    assert redis_client.llen(QUEUE) == due
    assert all_ids(redis_client) == before


def eta_of(body: str) -> float:
    return float(json.loads(body)["options"]["eta"])


def test_two_operators_and_a_worker_at_once_move_each_message_once(
    redis_client: redis.Redis, redis_url: str, broker: RedisBroker
) -> None:
    """What somebody fetched meanwhile is theirs; nothing is lost, nothing is there twice."""
    fill(redis_client, 800, due_in_ms=lambda: 500.0)
    before = set(all_ids(redis_client))
    held: list[bytes] = []

    def left() -> int:
        return sum(eta_of(body) < time.time() * 1000 + 1e6 for body in redis_client.hvals(BODIES)) - len(held)

    def fetch() -> bool:
        held.extend(broker.do_fetch("q.DQ", 1))
        send(broker, 3600, "later")
        return left() <= 0

    async def scenario(watch: Watch) -> None:
        other = Watch(redis_url)
        try:
            await asyncio.gather(watch.until(fetch, 60), other.until(lambda: left() <= 0, 60))
        finally:
            await other.close()

    play(redis_url, scenario)
    fetched = [json.loads(body)["message_id"] for body in held]
    waiting = [json.loads(body)["message_id"] for body in redis_client.hvals(QUEUED)]
    listed = redis_client.lrange(LIST, 0, -1)
    delayed = [json.loads(redis_client.hget(BODIES, name))["message_id"] for name in listed]
    everywhere = [each for each in fetched + waiting + delayed if each in before]
    assert len(waiting) > 100
    assert sorted(everywhere) == sorted(before)
    assert redis_client.llen(QUEUE) == len(waiting)


def test_what_a_process_holds_is_left_to_it(
    redis_client: redis.Redis, redis_url: str, broker: RedisBroker
) -> None:
    """A due message in the hands of a worker is never moved, though others stand in the list."""
    send(broker, 0.5, "held")
    broker.do_fetch("q.DQ", 1)
    fill(redis_client, 10)

    async def scenario(watch: Watch) -> None:
        send(broker, 1.5, "free")
        await watch.until(lambda: redis_client.llen(QUEUE), 20)

    play(redis_url, scenario)
    (body,) = redis_client.hvals(QUEUED)
    assert json.loads(body)["args"] == ["free"]
    assert redis_client.hlen(BODIES) == 11


BAD = {
    "pickle": b"\x80\x04\x95not json",
    "no object": b"[1]",
    "other fields": body_of("x", 1, more=1).encode(),
    "other queue": body_of("x", 1, queue_name="other.DQ").encode(),
    "no options": body_of("x", 1, options=[]).encode(),
    "no eta": body_of("x", 1, options={}).encode(),
    "arguments of a wrong kind": body_of("x", 1, args="abc").encode(),
    "nested too deep": b'{"options":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
}


@pytest.mark.parametrize("body", [pytest.param(body, id=name) for name, body in BAD.items()])
def test_what_is_no_message_of_dramatiqs_stays_where_it_is(
    body: bytes, redis_client: redis.Redis, redis_url: str, broker: RedisBroker
) -> None:
    """It is left to the workers, byte for byte, and what stands behind it moves all the same."""
    redis_client.hset(BODIES, "bad", body)
    redis_client.rpush(LIST, "bad")

    async def scenario(watch: Watch) -> None:
        send(broker, 0.5)
        await watch.until(lambda: redis_client.llen(QUEUE), 20)

    play(redis_url, scenario)
    assert redis_client.lrange(LIST, 0, -1) == ["bad"]
    with redis.Redis.from_url(redis_url) as raw:
        assert raw.hgetall(BODIES) == {b"bad": body}


def test_a_full_server_moves_a_message_as_a_whole(redis_server: RedisServer) -> None:
    """Where memory is used up nothing is left half-way: moving takes no room, and the message is in one place."""
    client = redis.Redis.from_url(redis_server.url(), decode_responses=True)
    broker = RedisBroker(url=redis_server.url(), middleware=[])
    send(broker, 0.2)
    client.config_set("maxmemory", "1")

    async def scenario(watch: Watch) -> None:
        await watch.until(lambda: client.llen(QUEUE), 20)

    play(redis_server.url(), scenario)
    assert (client.llen(LIST), client.hlen(BODIES), client.hlen(QUEUED)) == (0, 0, 1)
    client.close()


DENIED = ["hset", "rpush", "lset", "lpop", "hdel", "lpos"]


@pytest.mark.parametrize("command", DENIED)
def test_a_user_who_may_not_move_moves_nothing_by_halves(redis_server: RedisServer, command: str) -> None:
    """Whatever is forbidden, the message stays as it is: found out before anything is written."""
    client = redis.Redis.from_url(redis_server.url(), decode_responses=True)
    broker = RedisBroker(url=redis_server.url(), middleware=[])
    fill(client, 3)
    send(broker, 0.2)
    before = all_ids(client)
    client.execute_command(
        *("ACL", "SETUSER", "half", "on", ">secret", "~dramatiq:*", "~astrid:*", "+@all", f"-{command}")
    )

    with capture_logs() as said:

        def refusals() -> list[str]:
            return [one["trouble"] for one in said if one["event"] == "Due messages not moved"]

        async def scenario(watch: Watch) -> None:
            await watch.until(refusals, 20)

        play(f"redis://half:secret@127.0.0.1:{redis_server.port}/0", scenario)
    assert f"no permissions to run the '{command}' command" in refusals()[0]
    assert client.llen(QUEUE) == 0
    assert all_ids(client) == before
    client.close()


def test_it_works_on_the_oldest_server_too(each_redis_url: str) -> None:
    """Every command and answer that is used is there in Redis 6.2."""
    client = redis.Redis.from_url(each_redis_url, decode_responses=True)
    broker = RedisBroker(url=each_redis_url, middleware=[])
    fill(client, 50)
    for _ in range(30):
        send(broker, 0.5)

    async def scenario(watch: Watch) -> None:
        await watch.until(lambda: client.llen(QUEUE) == 30, 20)

    play(each_redis_url, scenario)
    assert client.llen(LIST) == 50
    client.close()


def test_a_worker_whose_hands_are_full_runs_it_on_time(
    tmp_path: Path, redis_client: redis.Redis, redis_url: str
) -> None:
    """Plain workers, woken from zero, hold what is due next week; a retry behind that begins within 2 s of its time.

    Once, and acknowledged: nothing of it is left, and none of the others is touched.
    """
    local = LocalOperator(tmp_path / "local", redis_url)
    broker = RedisBroker(url=redis_url, middleware=[])
    fill(redis_client, 100_000, queue="naps")
    try:
        local.write("naps", app="support.foreign_app", timeoutSeconds=60, scaling={"idleSeconds": 1})
        local.start()
        local.wait_status("naps", timeout_s=120, members=0, reason="Idle", delayed=100_000)
        message = dramatiq.Message("naps", "nap", (0.0, "retry"), {}, {})
        due_at = float(broker.enqueue(message, delay=15_000).options["eta"]) / 1000
        wait_until(lambda: redis_client.llen(DIARY), 60, "the task to begin")
        late_s = time.time() - due_at
        wait_until(lambda: redis_client.hlen("dramatiq:naps.msgs") == 0, 20, "the acknowledgement")
    finally:
        local.close()
        broker.close()
    assert 0 <= late_s <= 2.0
    assert [line.split()[:2] for line in redis_client.lrange(DIARY, 0, -1)] == [
        ["begin", "retry"],
        ["end", "retry"],
    ]
    assert redis_client.hlen("dramatiq:naps.DQ.msgs") == 100_000


def test_an_operator_killed_in_the_midst_of_it_loses_and_doubles_nothing(
    tmp_path: Path, redis_client: redis.Redis, redis_url: str
) -> None:
    """SIGKILL while messages move: each is in one place; the next operator moves the rest, each once."""
    local = LocalOperator(tmp_path / "local", redis_url)
    fill(redis_client, 3000, queue="naps", due_in_ms=lambda: 100.0)
    before = all_ids(redis_client, "naps")
    local.write("naps", app="support.foreign_app", scaling={"mode": "Manual"})
    try:
        for _ in range(3):
            moved = redis_client.llen("dramatiq:naps")
            local.start()
            wait_until(lambda: redis_client.llen("dramatiq:naps") > moved, 60, "some to move", every_s=0.001)  # noqa: B023
            local.kill()
            assert all_ids(redis_client, "naps") == before
            if redis_client.llen("dramatiq:naps") == 3000:
                break
        local.start()
        wait_until(lambda: redis_client.llen("dramatiq:naps") == 3000, 60, "all to move")
    finally:
        local.close()
    assert all_ids(redis_client, "naps") == before
