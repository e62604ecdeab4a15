"""The Redis users of docs/redis.md: what each may do is enough for all that its part does, and nothing more."""

import asyncio
import json
import random
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dramatiq
import pytest
import redis
from dramatiq.brokers.redis import RedisBroker

from astrid_operator.astrid_queue import QueueKey
from astrid_operator.brokers import BrokerAddress
from astrid_operator.claims import BrokerQueue
from astrid_operator.demand import DemandReader
from astrid_operator.doorbell import Doorbell
from astrid_operator.dramatiq_keys import DramatiqQueue
from astrid_operator.promotion import Promotion
from astrid_operator.quiesce import Conversation
from astrid_operator.recovery import Recovery
from astrid_operator.scaling import DemandReading
from astrid_workers.fleet_reading import read_fleet
from astrid_workers.result_backend import PatientResults
from support.redis_server import RedisServer
from support.waiting import wait_for_answer, wait_until
from support.worker_processes import WITH_TEST_ACTORS, WorkerProcesses

PAGE = Path(__file__).resolve().parents[2] / "docs/redis.md"
RULES = {
    name: rules.split()
    for name, rules in re.findall(r"^user (astrid-\S+) (on >CHANGE-ME .*)$", PAGE.read_text(), re.MULTILINE)
}
#: Commands that may be called without a right to, and one that does nothing but name a database.
FREE = {"auth", "hello", "quit", "reset", "select"}
#: Commands whose words are rights of their own.
WITH_WORDS = {"client", "script"}
END = "the scenario is over"


def listed(user: str) -> set[str]:
    """The commands that the page allows to `user`."""
    return {rule[1:] for rule in RULES[user] if rule.startswith("+")}


def url_of(server: RedisServer, user: str, *more: str) -> str:
    """Make `user` as the page says, with `more` rules for what belongs to the test, and say where it connects."""
    rules = [rule.replace("CHANGE-ME", "secret") for rule in RULES[user]]
    server.client.execute_command("ACL", "SETUSER", user, *rules, *more)
    return f"redis://{user}:secret@127.0.0.1:{server.port}/0"


@contextmanager
def watched(server: RedisServer) -> Iterator[set[str]]:
    """Every command that is called meanwhile, by scripts too; the test's own are `ours`."""
    called: set[str] = set()
    ready = threading.Event()

    def watch() -> None:
        with redis.Redis(port=server.port, socket_timeout=None).monitor() as monitor:
            ready.set()
            for each in monitor.listen():
                words = each["command"].split()
                if END in each["command"]:
                    return
                name = words[0].lower()
                called.add(f"{name}|{words[1].lower()}" if name in WITH_WORDS else name)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    assert ready.wait(10)
    yield called
    server.client.execute_command("ECHO", END)
    thread.join(10)


def refused(server: RedisServer) -> list[str]:
    """What the server denied to anybody."""
    log = server.client.execute_command("ACL", "LOG")
    return [str(each) for each in log]


def message(actor: str = "note", queue: str = "default", *args: Any) -> dramatiq.Message[Any]:
    return dramatiq.Message(queue_name=queue, actor_name=actor, args=args, kwargs={}, options={})


def test_the_operator_may_do_what_it_does_and_nothing_more(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Count, walk ETAs, move due messages one by one and many at once, take back orphans, ask workers to leave."""
    url = url_of(redis_server, "astrid-operator")
    broker = RedisBroker(url=redis_server.url(), middleware=[], maintenance_chance=0)
    broker.enqueue(message(queue="q"))
    for _ in range(2):
        broker.enqueue(message(queue="q"), delay=3_600_000)
    gone = RedisBroker(url=redis_server.url(), middleware=[], maintenance_chance=0)
    gone.do_fetch("q", 1)
    gone.do_fetch("q.DQ", 1)
    for _ in range(60):
        broker.enqueue(message(queue="q"), delay=1)
    said = {"pod": "pod", "busy": 1, "broker_id": gone.broker_id, "beat": time.time() - 30}
    redis_server.client.hset("astrid:dramatiq:presence:q", "pod:1", json.dumps(said))
    live = {"pod": "other", "busy": 0, "broker_id": "living", "beat": time.time() + 5}
    for name in ("q", "later"):
        redis_server.client.hset(f"astrid:dramatiq:presence:{name}", "other:1", json.dumps(live))
    for delay in (1, 3_600_000):  # one alone is looked for in another way than many
        broker.enqueue(message(queue="later"), delay=delay)

    with watched(redis_server) as called:
        asyncio.run(_operate(url))

    assert refused(redis_server) == []
    assert called - FREE == listed("astrid-operator")
    assert redis_server.client.llen("dramatiq:q") == 61
    assert redis_server.client.llen("dramatiq:later") == 1
    assert redis_server.client.llen("dramatiq:q.DQ") == 2


async def _operate(url: str) -> None:
    """All that an operator asks of Redis, with a clock of ours where a minute has to pass."""
    key, other = QueueKey("sky", "q"), QueueKey("sky", "later")
    claims = {
        each: BrokerQueue(BrokerAddress(url), DramatiqQueue("dramatiq", each.name)) for each in (key, other)
    }
    reader = DemandReader(time.monotonic, random.Random(1), timeout_seconds=5.0)
    promotion = Promotion(reader, time.monotonic, timeout_seconds=5.0)
    ours = [1000.0]
    recovery = Recovery(lambda: ours[0], timeout_seconds=5.0)
    conversation, doorbell = Conversation(), Doorbell()
    moved = 0

    async def all_moved() -> DemandReading | None:
        nonlocal moved
        readings = await reader.read(claims)
        promotion.begin(claims)
        moved += sum(count for _, count in promotion.take())
        return readings[key] if moved >= 61 else None

    try:
        reading = await wait_for_answer(all_moved, 30, "the due messages to be moved", every_s=0.2)
        assert reading.server is not None
        for _ in range(20):
            ours[0] += 4
            recovery.begin(claims)
            tasks = [task for task in asyncio.all_tasks() if task.get_name().startswith("look for orphans")]
            await asyncio.gather(*tasks)
        conversation.know(claims)
        await conversation.ask(key, ["other:1"])
        await conversation.asked([key])
        await conversation.held_by(key, ["living"])
        await conversation.release(key, ["other:1"])
        doorbell.listen(claims.values())
        async with asyncio.timeout(10):
            await doorbell.rung()
    finally:
        for each in (promotion, reader, recovery, conversation, doorbell):
            await each.close()


def test_a_worker_and_a_producer_may_do_what_they_do_and_nothing_more(
    redis_server: RedisServer, worker_processes: WorkerProcesses
) -> None:
    """Run, delay, retry and refuse tasks, keep results, leave; and all that Dramatiq's own script may come to do."""
    url = url_of(redis_server, "astrid-worker", "~seen", "~release")
    quick = {"WORKER_RETRY_DELAY": "50", "WORKER_MAX_RETRY_DELAY": "100", "WORKER_MAX_RETRIES": "1"}
    quick["WORKER_PREFETCH"] = "3"
    arguments = ["--queues", "default", "--threads", "1"]
    theirs = redis.Redis.from_url(url, decode_responses=True)

    def seen() -> list[str]:
        return [line.decode() for line in redis_server.client.lrange("seen", 0, -1)]

    clean_up_after = redis_server.client.pipeline()
    clean_up_after.zadd("dramatiq:__heartbeats__", {"gone": 1, "gone too": 1})
    clean_up_after.sadd("dramatiq:__acks__.gone.default", "nothing")
    clean_up_after.zadd("dramatiq:default.XQ", {"ancient": 1})
    clean_up_after.execute()
    with watched(redis_server) as called:
        worker = worker_processes.start(url, arguments, environment=quick, command=WITH_TEST_ACTORS)
        producer = RedisBroker(url=url, middleware=[], maintenance_chance=1_000_000)
        worker.wait_present("default")
        told = producer.enqueue(message("note", "default", "told"))
        producer.enqueue(message("note", "default", "later"), delay=300)
        producer.enqueue(message("fail", "default", "twice"))
        producer.enqueue(message("refuse", "default", "never"))
        wait_until(lambda: theirs.zcard("dramatiq:default.XQ") == 2, 40, "two to be given up")
        wait_until(lambda: {"told", "later"} <= set(seen()), 20, "two to run")
        results = PatientResults(client=redis.Redis.from_url(url), encoder=dramatiq.JSONEncoder())
        assert results.get_result(told) == results.get_result(told, block=True, timeout=5000) == "told"
        assert read_fleet(redis.Redis.from_url(url), "dramatiq", ["default"]).queues[0].dead == 2
        for name in ("first", "second"):
            producer.enqueue(message("hold", "default", name))
        wait_until(lambda: "start first" in seen(), 20, "one to run")
        worker.terminate()
        wait_until(lambda: theirs.llen("dramatiq:default") == 1, 20, "what was not started to be given back")
        theirs.rpush("release", 1)
        assert worker.process.wait(20) == 0
        producer.close()

    assert refused(redis_server) == []
    assert called - FREE - {"lrange"} == listed("astrid-worker")  # that is the test's own look


def test_a_keeper_of_dead_letters_may_do_what_it_does_and_nothing_more(redis_server: RedisServer) -> None:
    """The verb `dead`: list, show, send again, delete."""
    url = url_of(redis_server, "astrid-keeper")
    broker = RedisBroker(url=redis_server.url(), middleware=[])
    broker.declare_queue("q")
    for _ in range(3):
        broker.enqueue(message(queue="q"))
        consumer = broker.consume("q")
        consumer.nack(next(consumer))

    def dead(*words: str) -> None:
        command = [sys.executable, "-m", "astrid_operator", "dead", words[0], "--queue", "q", *words[1:]]
        ended = subprocess.run(command, capture_output=True, text=True, env={"REDIS_URL": url}, check=False)
        assert ended.returncode == 0, ended.stderr

    first, second, _ = (name.decode() for name in redis_server.client.zrange("dramatiq:q.XQ", 0, -1))
    with watched(redis_server) as called:
        dead("list")
        dead("show", first)
        dead("requeue", first, "--yes")
        dead("purge", second, "--yes")
        dead("requeue", "--all", "--yes")

    assert refused(redis_server) == []
    assert called - FREE == listed("astrid-keeper")
    assert redis_server.client.llen("dramatiq:q") == 2
