"""What a dead process had fetched comes back; what a living one holds is never touched."""

import asyncio
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dramatiq
import psutil
import pytest
import redis
from dramatiq.brokers.redis import RedisBroker

from astrid_operator.astrid_queue import QueueKey
from astrid_operator.brokers import BrokerAddress
from astrid_operator.claims import BrokerQueue
from astrid_operator.dramatiq_keys import DramatiqQueue
from astrid_operator.orphans import LEAST_WINDOW, Reclaimed
from astrid_operator.recovery import Recovery
from support.foreign_app import DIARY
from support.local_operator import LocalOperator
from support.redis_server import RedisServer
from support.scenarios import play_with
from support.waiting import wait_in_loop, wait_until

KEY = QueueKey("sky", "q")
#: Within this time orphans are back, whoever is there.
BACK_WITHIN_S = 80.0
STEP_S = 4.0


class Fetched:
    """A Dramatiq process that has fetched messages of queue `q`, and whose clock is `skew_s` off."""

    def __init__(self, url: str, monkeypatch: pytest.MonkeyPatch, *, skew_s: float = 0.0) -> None:
        monkeypatch.setattr(
            "dramatiq.brokers.redis.current_millis", lambda: int((time.time() + skew_s) * 1000)
        )
        self.broker = RedisBroker(url=url, maintenance_chance=0)
        self.broker.declare_queue("q")
        self.client = redis.Redis.from_url(url, decode_responses=True)

    def fetch(self, count: int, *, queue: str = "q") -> None:
        """Send and fetch `count` messages; those of `q.DQ` are delayed ones."""
        for _ in range(count):
            message = dramatiq.Message(queue_name="q", actor_name="a", args=(), kwargs={}, options={})
            self.broker.enqueue(message, delay=3_600_000 if queue == "q.DQ" else None)
        left = count
        while left > 0:
            left -= len(self.broker.do_fetch(queue, left))

    def beat(self) -> None:
        """What polling an empty queue does."""
        self.broker.do_fetch("q.none", 1)

    def says(self, *, seconds_ago: float = 0.0, field: str = "pod:1") -> None:
        """What Astrid's middleware writes, in the server's time."""
        seconds, _ = self.client.time()
        said = {"pod": "pod", "busy": 1, "broker_id": self.broker.broker_id, "beat": seconds - seconds_ago}
        self.client.hset("astrid:dramatiq:presence:q", field, json.dumps(said))

    def waiting(self) -> tuple[int, int]:
        """Messages that wait, and delayed ones that nobody holds."""
        return self.client.llen("dramatiq:q"), self.client.llen("dramatiq:q.DQ")


class Watch:
    """A recovery whose clock is ours, on a real server."""

    def __init__(self, url: str) -> None:
        self.now = 1000.0
        self.reclaimed: list[Reclaimed] = []
        self._claim = BrokerQueue(BrokerAddress(url), DramatiqQueue("dramatiq", "q"))
        self._recovery = Recovery(lambda: self.now, timeout_seconds=1.0)

    async def look(self, seconds: float = STEP_S, between: Callable[[], object] = lambda: None) -> None:
        """Look every few seconds of our clock, for so long; `between` happens before each look."""
        for _ in range(int(seconds / STEP_S)):
            self.now += STEP_S
            between()
            self._recovery.begin({KEY: self._claim})
            tasks = [task for task in asyncio.all_tasks() if task.get_name().startswith("look for orphans")]
            await asyncio.gather(*tasks)
            self.reclaimed += [found for _, found in self._recovery.take()]

    @property
    def orphans(self) -> int | None:
        return self._recovery.orphans(self._claim)

    def leave(self) -> None:
        """No AstridQueue names the address any more."""
        self._recovery.keep(())

    async def close(self) -> None:
        await self._recovery.close()


def play(url: str, scenario: Callable[[Watch], Any]) -> Any:
    return play_with(lambda: Watch(url), scenario)


@pytest.fixture
def fetched(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Fetched]:
    process = Fetched(redis_url, monkeypatch)
    yield process
    process.broker.close()
    process.client.close()


def test_both_halves_of_a_queue_come_back_and_only_after_a_minute(redis_url: str, fetched: Fetched) -> None:
    """Waiting and delayed messages return in one go, are counted before, and the dead record goes."""
    fetched.fetch(3)
    fetched.fetch(2, queue="q.DQ")
    fetched.says(seconds_ago=30)

    async def scenario(watch: Watch) -> None:
        await watch.look(56)
        assert (watch.reclaimed, fetched.waiting(), watch.orphans) == ([], (0, 0), 5)
        await watch.look(12)
        assert [(each.messages, each.delayed, each.processes) for each in watch.reclaimed] == [(3, 2, 1)]
        assert (fetched.waiting(), watch.orphans) == ((3, 2), 0)
        await watch.look(100)
        assert len(watch.reclaimed) == 1

    play(redis_url, scenario)
    assert fetched.client.exists("astrid:dramatiq:presence:q") == 0
    assert fetched.client.keys("dramatiq:__acks__*") == []


def test_the_connection_ends_when_no_queue_names_the_address_any_more(
    redis_url: str, fetched: Fetched
) -> None:
    """As after a new password, which makes another address."""

    def is_connected() -> bool:
        return any(each["name"] == "astrid-operator-recovery" for each in fetched.client.client_list())

    async def scenario(watch: Watch) -> None:
        await watch.look(STEP_S)
        assert is_connected()
        watch.leave()
        await wait_in_loop(lambda: not is_connected(), 5, "the connection to end")

    play(redis_url, scenario)


def test_what_was_acknowledged_meanwhile_does_not_come_back(redis_url: str, fetched: Fetched) -> None:
    """A message without a body is done; it is forgotten and not run again."""
    fetched.fetch(2)
    (done, _) = fetched.client.hkeys("dramatiq:q.msgs")
    fetched.client.hdel("dramatiq:q.msgs", done)

    play(redis_url, lambda watch: watch.look(72))

    assert fetched.waiting() == (1, 0)


@pytest.mark.parametrize("skew_s", [-120.0, 0.0, 120.0])
def test_clocks_that_are_wrong_change_nothing(
    redis_url: str, monkeypatch: pytest.MonkeyPatch, skew_s: float
) -> None:
    """A living process keeps what it holds and a dead one loses it after a minute, two minutes off or not."""
    process = Fetched(redis_url, monkeypatch, skew_s=skew_s)
    process.fetch(2)

    async def scenario(watch: Watch) -> None:
        await watch.look(200, between=process.beat)
        assert watch.reclaimed == []
        await watch.look(72)
        assert [each.messages for each in watch.reclaimed] == [2]

    play(redis_url, scenario)
    process.broker.close()


def test_a_worker_whose_presence_beats_keeps_all_it_holds(redis_url: str, fetched: Fetched) -> None:
    """A full window sends no heartbeat of Dramatiq's; presence says that it lives, and that is enough."""
    fetched.fetch(3)

    async def scenario(watch: Watch) -> None:
        await watch.look(400, between=fetched.says)
        assert (watch.reclaimed, watch.orphans) == ([], 0)

    play(redis_url, scenario)


def test_a_plain_process_that_may_be_full_is_given_its_longest_task(redis_url: str, fetched: Fetched) -> None:
    """Without presence, only one with no room for delayed messages can be alive and silent."""
    fetched.fetch(1)
    fetched.fetch(LEAST_WINDOW, queue="q.DQ")

    async def scenario(watch: Watch) -> None:
        await watch.look(600)
        assert watch.reclaimed == []
        await watch.look(80)
        assert [(each.messages, each.delayed) for each in watch.reclaimed] == [(1, LEAST_WINDOW)]

    play(redis_url, scenario)


def test_a_worker_that_spoke_is_known_when_its_record_is_gone(redis_url: str, fetched: Fetched) -> None:
    """Others remove the record of a dead process after a minute; it is not taken for a plain one then."""
    fetched.fetch(LEAST_WINDOW, queue="q.DQ")
    fetched.says(seconds_ago=20)

    async def scenario(watch: Watch) -> None:
        await watch.look(40)
        fetched.client.delete("astrid:dramatiq:presence:q")
        await watch.look(32)
        assert [each.delayed for each in watch.reclaimed] == [LEAST_WINDOW]

    play(redis_url, scenario)


def test_a_sign_of_life_at_the_last_moment_saves_what_it_holds(redis_url: str, fetched: Fetched) -> None:
    """The server itself looks again in the step that takes: a heartbeat between two looks is enough."""
    fetched.fetch(2)

    async def scenario(watch: Watch) -> None:
        await watch.look(60)
        fetched.beat()
        await watch.look(56)
        assert watch.reclaimed == []

    play(redis_url, scenario)


def test_time_in_which_redis_was_not_read_does_not_count(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After an outage everybody was silent: the minute begins anew."""
    process = Fetched(redis_server.url(), monkeypatch)
    process.fetch(2)

    async def scenario(watch: Watch) -> None:
        await watch.look(48)
        redis_server.freeze()
        await watch.look(4)
        redis_server.thaw()
        await watch.look(56)
        assert watch.reclaimed == []
        await watch.look(12)
        assert [each.messages for each in watch.reclaimed] == [2]

    play(redis_server.url(), scenario)
    process.broker.close()


def test_many_messages_of_many_processes_come_back(redis_url: str, fetched: Fetched) -> None:
    """Thousands of heartbeats of the past and thousands of messages: bounded steps, and all is back."""
    fetched.fetch(1)
    fetched.client.zadd("dramatiq:__heartbeats__", {f"{n:036}": n for n in range(12_000)})
    for owner in (7, 11_000):
        ids = [f"{owner}-{n}" for n in range(2500)]
        fetched.client.hset("dramatiq:q.msgs", mapping=dict.fromkeys(ids, "{}"))
        fetched.client.sadd(f"dramatiq:__acks__.{owner:036}.q", *ids)

    play(redis_url, lambda watch: watch.look(100))

    assert fetched.waiting() == (5001, 0)


@pytest.mark.parametrize("key", ["dramatiq:__heartbeats__", "astrid:dramatiq:presence:q"])
def test_where_the_signs_cannot_be_read_nothing_is_taken(redis_url: str, fetched: Fetched, key: str) -> None:
    """Keys of a wrong type: the operator goes on, and leaves alone what it cannot judge."""
    fetched.fetch(2)
    fetched.client.delete(key)
    fetched.client.set(key, "nonsense")

    async def scenario(watch: Watch) -> None:
        await watch.look(120)
        assert watch.reclaimed == []

    play(redis_url, scenario)


def test_nonsense_in_presence_does_not_save_the_dead(redis_url: str, fetched: Fetched) -> None:
    """Records that no worker writes, even ones that name the process, are no sign of life."""
    fetched.fetch(2)
    broker_id = fetched.broker.broker_id
    nonsense = {
        "a": f"{{{broker_id}",
        "b": json.dumps([broker_id]),
        "c": json.dumps({"broker_id": broker_id, "beat": "now"}),
        "d": json.dumps({"broker_id": broker_id, "beat": 9e12}),
        "e": json.dumps({"broker_id": broker_id, "beat": None}),
    }
    fetched.client.hset("astrid:dramatiq:presence:q", mapping=nonsense)

    play(redis_url, lambda watch: watch.look(72))

    assert fetched.waiting() == (2, 0)


def test_the_rights_that_are_documented_suffice(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scripts, reading and writing below the two prefixes; no searching of keys, nothing dangerous."""
    process = Fetched(redis_server.url(), monkeypatch)
    process.fetch(2)
    process.says(seconds_ago=30)
    redis_server.client.execute_command(
        *[
            "ACL",
            "SETUSER",
            "astrid",
            "on",
            ">secret",
            "~dramatiq:*",
            "~astrid:*",
            "+@read",
            "+@write",
            "+@scripting",
            "+@connection",
        ],
        *["+time", "-@dangerous", "-keys", "-scan"],
    )

    play(f"redis://astrid:secret@127.0.0.1:{redis_server.port}/0", lambda watch: watch.look(72))

    assert process.waiting() == (2, 0)
    process.broker.close()


def test_a_killed_fleet_runs_its_messages_again_from_zero(tmp_path: Path, redis_url: str) -> None:
    """SIGKILL to everybody, in real time: the task begins again within 80 seconds, once, without any luck."""
    local = LocalOperator(tmp_path / "local", redis_url)
    broker = RedisBroker(url=redis_url)
    broker.declare_queue("naps")
    client = redis.Redis.from_url(redis_url, decode_responses=True)
    try:
        local.write("naps", app="support.foreign_app", timeoutSeconds=60, scaling={"idleSeconds": 5})
        local.start()
        message = dramatiq.Message(
            queue_name="naps", actor_name="nap", args=(3.0, "victim"), kwargs={}, options={}
        )
        broker.enqueue(message)
        wait_until(lambda: client.llen(DIARY) == 1, 30, "the task to begin")
        killed_at = time.monotonic()
        for pid in local.member_pids():
            for each in [*psutil.Process(pid).children(recursive=True), psutil.Process(pid)]:
                os.kill(each.pid, signal.SIGKILL)
        wait_until(lambda: client.llen(DIARY) >= 2, BACK_WITHIN_S + 10, "the task to begin again")
        assert time.monotonic() - killed_at <= BACK_WITHIN_S
        wait_until(lambda: client.hlen("dramatiq:naps.msgs") == 0, 20, "the task to end")
        assert [line.split()[0] for line in client.lrange(DIARY, 0, -1)] == ["begin", "begin", "end"]
        assert "OrphansReclaimed" in local.log
    finally:
        local.close()
        broker.close()
        client.close()
