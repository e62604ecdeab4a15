"""What the operator finds out beyond counting: when delayed messages are due, how long tasks take, who lies."""

import asyncio
import json
import random
import time
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import redis

from astrid_operator.astrid_queue import QueueKey
from astrid_operator.brokers import BrokerAddress
from astrid_operator.claims import BrokerQueue
from astrid_operator.demand import DemandReader
from astrid_operator.dramatiq_keys import DramatiqQueue
from astrid_operator.scaling import Demand, DemandReading
from support.waiting import wait_for_answer

KEY = QueueKey("sky", "q")
DAY_MS = 86_400_000


class Reading:
    """A reader whose clock is ours, on a real server."""

    def __init__(self, url: str) -> None:
        self.now = 0.0
        self._claim = BrokerQueue(BrokerAddress(url), DramatiqQueue("dramatiq", "q"))
        self._reader = DemandReader(lambda: self.now, random.Random(1), timeout_seconds=5.0)

    async def once(self) -> DemandReading:
        """The reading of the next second, however long the server takes for it."""
        self.now += 1.0

        async def read() -> DemandReading | None:
            reading = (await self._reader.read({KEY: self._claim}))[KEY]
            return reading if reading.at == self.now and "not read yet" not in reading.trouble else None

        return await wait_for_answer(read, 30, "a reading of this second", every_s=0.01)

    async def demand(self) -> Demand:
        reading = await self.once()
        assert reading.demand is not None, reading.trouble
        return reading.demand

    async def settled(self, seconds: int = 120) -> Demand:
        """The first reading for which all ETAs are known."""
        for _ in range(seconds):
            demand = await self.demand()
            if not demand.delayed_unread:
                return demand
        raise AssertionError(demand)

    async def close(self) -> None:
        await self._reader.close()


def play(url: str, scenario: Callable[[Reading], Any]) -> Any:
    async def go() -> Any:
        reading = Reading(url)
        try:
            return await scenario(reading)
        finally:
            await reading.close()

    return asyncio.run(go())


def body(**options: Any) -> str:
    message = {"queue_name": "q.DQ", "actor_name": "a", "args": [], "kwargs": {}}
    return json.dumps({**message, "options": options, "message_id": "1", "message_timestamp": 1})


def delay(client: redis.Redis, bodies: Mapping[str, str | bytes]) -> None:
    """Put delayed messages where Dramatiq does."""
    client.rpush("dramatiq:q.DQ", *bodies)
    client.hset("dramatiq:q.DQ.msgs", mapping=dict(bodies))


def server_ms(client: redis.Redis) -> int:
    seconds, microseconds = client.time()
    return seconds * 1000 + microseconds // 1000


# ---------------------------------------------------------------------------------------------- delayed


def test_delayed_messages_are_told_apart_by_when_they_are_due(redis_url: str, redis_client: Any) -> None:
    """Due, soon, later, and until the next one: by the server's clock."""
    now = server_ms(redis_client)
    delay(redis_client, {"a": body(eta=now - 1000), "b": body(eta=now + 30_000), "c": body(eta=now + DAY_MS)})

    demand = play(redis_url, Reading.settled)

    assert (demand.delayed, demand.due, demand.soon, demand.later) == (3, 1, 1, 1)
    assert demand.next_due_seconds == pytest.approx(30, abs=2)
    assert demand.work == 1


def test_a_hundred_thousand_for_next_week_cost_little_and_wake_nobody(
    redis_url: str, redis_client: Any
) -> None:
    """The walk is spread over seconds, no slice is long, and afterwards only what is new is read."""
    far = server_ms(redis_client) + 6 * DAY_MS
    for start in range(0, 100_000, 10_000):
        delay(redis_client, {f"m{n}": body(eta=far + n) for n in range(start, start + 10_000)})
    redis_client.slowlog_reset()
    redis_client.config_set("slowlog-log-slower-than", 100_000)

    async def scenario(reading: Reading) -> tuple[Demand, float, Demand]:
        known = await reading.settled()
        assert known.next_due_seconds == pytest.approx(6 * 86_400, abs=60)
        assert reading.now <= 15
        spent = time.process_time()
        for _ in range(10):
            await reading.demand()
        spent = time.process_time() - spent
        delay(redis_client, {"new": body(eta=server_ms(redis_client) + 5000)})
        return known, spent, await reading.demand()

    known, spent, with_new = play(redis_url, scenario)

    assert (known.delayed, known.due, known.soon) == (100_000, 0, 0)
    assert spent < 1.0
    assert with_new.next_due_seconds == pytest.approx(5, abs=2)
    assert redis_client.slowlog_get() == []


@pytest.mark.parametrize(
    ("options", "is_due"),
    [
        ({"eta": 1e300}, False),
        ({"eta": 10**30}, False),
        ({"eta": -5}, True),
        ({"eta": "soon"}, True),
        ({"eta": None}, True),
        ({}, True),
    ],
    ids=["huge", "huge-integer", "negative", "text", "null", "none"],
)
def test_an_absurd_eta_is_far_away_or_due_as_dramatiq_has_it(
    redis_url: str, redis_client: Any, options: dict[str, Any], is_due: bool
) -> None:
    """No number breaks the reader; what is no number is due at once, as it is to Dramatiq's workers."""
    delay(redis_client, {"a": body(**options)})

    demand = play(redis_url, Reading.settled)

    assert (demand.delayed, demand.due) == (1, int(is_due))


def test_bodies_of_another_encoder_are_said_to_be_unknown(redis_url: str, redis_client: Any) -> None:
    """Where not one can be read, nobody claims that none is due; one stranger among others changes nothing."""
    delay(redis_client, {"a": b"\x80\x04pickled", "b": b"[" * 50_000})
    assert play(redis_url, Reading.settled).due is None
    delay(redis_client, {"c": body(eta=server_ms(redis_client) + DAY_MS)})
    assert play(redis_url, Reading.settled).due == 0


def test_a_body_too_large_to_decode_still_has_its_eta(redis_url: str, redis_client: Any) -> None:
    """Options come after the arguments: the end of a large body is enough, and an `eta` among them no matter."""
    eta = server_ms(redis_client) + 20_000
    message = {"actor_name": "a", "args": [{"eta": 5}, "x" * 200_000], "options": {"eta": eta}}
    delay(redis_client, {"a": json.dumps(message)})

    demand = play(redis_url, Reading.settled)

    assert (demand.due, demand.soon) == (0, 1)
    assert demand.next_due_seconds == pytest.approx(20, abs=2)


def test_what_was_worked_off_and_delayed_again_is_not_overdue_for_ever(
    redis_url: str, redis_client: Any
) -> None:
    """One message out and another in leaves all counts alike: the one that is overdue is looked at again."""
    now = server_ms(redis_client)
    delay(redis_client, {"old": body(eta=now - 10_000)})

    async def scenario(reading: Reading) -> Demand:
        assert (await reading.settled()).due == 1
        redis_client.hdel("dramatiq:q.DQ.msgs", "old")
        redis_client.delete("dramatiq:q.DQ")
        delay(redis_client, {"new": body(eta=now + DAY_MS)})
        for _ in range(6):
            demand = await reading.demand()
        return demand

    demand = play(redis_url, scenario)

    assert (demand.due, demand.delayed_unread) == (0, 0)
    assert demand.next_due_seconds == pytest.approx(86_400, abs=10)


# ------------------------------------------------------------------------------------------ throughput


def test_task_time_and_arrivals_are_learned_from_counters(redis_url: str, redis_client: Any) -> None:
    """Ten tasks of 1 s and of 3 s: a mean of 2 s, a spread of 1 s; what left the queue came to it before."""
    redis_client.hset(
        "astrid:dramatiq:counters:q",
        mapping={"started": 10, "finished": 9, "failed": 1, "seconds": 20, "seconds_squared": 50},
    )

    async def scenario(reading: Reading) -> tuple[Demand, Demand]:
        first = await reading.demand()
        for number in range(10):
            redis_client.hincrbyfloat("astrid:dramatiq:counters:q", "finished", 2)
            redis_client.hincrbyfloat("astrid:dramatiq:counters:q", "seconds", 4)
            redis_client.hincrbyfloat("astrid:dramatiq:counters:q", "seconds_squared", 10)
            redis_client.hset("dramatiq:q.msgs", f"m{number}", "{}")
            last = await reading.demand()
        return first, last

    first, last = play(redis_url, scenario)

    assert (first.service_seconds, first.service_spread_seconds, first.finished) == (2.0, 1.0, 10)
    assert first.arrivals_per_s_fast is None
    assert last.service_seconds == pytest.approx(2.0)
    assert last.service_spread_seconds == pytest.approx(1.0)
    assert last.arrivals_per_s_fast == pytest.approx(3.0)
    assert last.arrivals_per_s_slow == pytest.approx(3.0)


@pytest.mark.parametrize(
    "counters",
    [
        {"finished": "many"},
        {"finished": "nan", "seconds": "inf"},
        {"finished": "-3"},
        {"finished": "1e400"},
        {"finished": "9" * 100},
        {"finished": "1 2"},
        {"finished": ""},
        b"no hash",
    ],
    ids=str,
)
def test_counters_that_make_no_sense_cost_only_the_estimates(
    redis_url: str, redis_client: Any, counters: Any
) -> None:
    """Wrong types, liars, another version: the queue is counted all the same, and nothing is estimated."""
    if isinstance(counters, bytes):
        redis_client.set("astrid:dramatiq:counters:q", counters)
    else:
        redis_client.hset("astrid:dramatiq:counters:q", mapping=counters)
    redis_client.rpush("dramatiq:q", "1")
    redis_client.hset("dramatiq:q.msgs", "1", "{}")

    demand = play(redis_url, Reading.demand)

    assert (demand.ready, demand.outstanding) == (1, 1)
    assert demand.service_seconds is None
    assert demand.arrivals_per_s_fast is None


NONSENSE = {
    "deep": b"[" * 100_000,
    "infinite": b'{"pod": "x", "beat": Infinity, "busy": Infinity, "broker_id": "b"}',
    "nan": b'{"pod": "x", "beat": NaN, "busy": 0, "broker_id": "b"}',
    "future": b'{"pod": "x", "beat": 9e12, "busy": 0, "broker_id": "b"}',
    "list": b"[1, 2]",
    "text": b"\xff\xfe",
    "null": b"null",
}


def test_presence_that_makes_no_sense_is_nobody(redis_url: str, redis_client: Any) -> None:
    """Whatever stands there, the queue is counted, and only a record that can be true counts as a member."""
    redis_client.hset("astrid:dramatiq:presence:q", mapping=NONSENSE)
    good = {"pod": "m-1", "beat": server_ms(redis_client) / 1000, "busy": -7, "broker_id": "b"}
    redis_client.hset("astrid:dramatiq:presence:q", "good", json.dumps(good))

    reading = play(redis_url, Reading.once)

    assert reading.demand == Demand(due=0, soon=0)
    assert reading.said is not None
    assert {name: each.busy for name, each in reading.said.items()} == {"m-1": 0}


def test_presence_of_a_wrong_type_is_nobody_heard(redis_url: str, redis_client: Any) -> None:
    """Not being able to hear is not the same as hearing that nobody is there."""
    redis_client.set("astrid:dramatiq:presence:q", "no hash")

    reading = play(redis_url, Reading.once)

    assert reading.demand == Demand(due=0, soon=0)
    assert reading.said is None


def test_etas_are_not_looked_for_while_anything_is_outstanding(redis_url: str, redis_client: Any) -> None:
    """Somebody is needed anyway; what is known from before is not told as if it still held."""
    delay(redis_client, {"a": body(eta=server_ms(redis_client) - 1000)})

    async def scenario(reading: Reading) -> tuple[Demand, Demand]:
        idle = await reading.settled()
        redis_client.hset("dramatiq:q.msgs", "m", "{}")
        return idle, await reading.demand()

    idle, busy = play(redis_url, scenario)

    assert (idle.due, idle.work) == (1, 1)
    assert (busy.due, busy.later, busy.work) == (None, None, 1)
