"""Workers while Redis is away, slow, emptied or old; and what survives."""

import pytest

from support.redis_server import RedisServer
from support.waiting import wait_until
from support.worker_processes import WITH_TEST_ACTORS


def enqueue(client, actor, *args, queue="default", delay_ms=None):
    """Put a message as Dramatiq does, on any server."""
    import dramatiq
    from dramatiq.brokers.redis import RedisBroker

    broker = RedisBroker(client=client, middleware=[])
    message = dramatiq.Message(queue_name=queue, actor_name=actor, args=args, kwargs={}, options={})
    broker.enqueue(message, delay=delay_ms)
    return message


def notes(client):
    return [note.decode() for note in client.lrange("seen", 0, -1)]


@pytest.fixture
def lasting_server(tmp_path):
    """A server of this test's own that keeps its data across a restart."""
    from support.redis_server import valkey_binary

    server = RedisServer(valkey_binary(), "--appendonly", "yes", "--appendfsync", "always")
    server.start()
    yield server
    server.close()


def test_worker_waits_for_redis_and_goes_on(worker_processes, lasting_server):
    """Redis that goes away and comes back costs nothing: the running task, its retry and what is delayed all run."""
    environment = {"WORKER_RETRY_DELAY": "200", "WORKER_MAX_RETRY_DELAY": "400", "WORKER_MAX_RETRIES": "8"}
    worker = worker_processes.start(
        lasting_server.url(),
        ["--queues", "default", "--threads", "2"],
        environment=environment,
        command=WITH_TEST_ACTORS,
    )
    worker.wait_present("default")
    enqueue(lasting_server.client, "hold", "before", 5.0)
    enqueue(lasting_server.client, "note", "delayed", delay_ms=8000)
    wait_until(lambda: "start before" in notes(lasting_server.client), 20, "the task to run")
    wait_until(
        lambda: lasting_server.client.llen("dramatiq:default.DQ") == 0, 10, "the delayed message to be held"
    )

    lasting_server.stop()
    wait_until(lambda: "waits for Redis" in worker.log, 20, "the worker to notice")
    lasting_server.start()

    enqueue(lasting_server.client, "note", "after")
    wait_until(lambda: {"after", "delayed"} <= set(notes(lasting_server.client)), 60, "both to run")
    wait_until(
        lambda: "end before" in notes(lasting_server.client),
        30,
        "the interrupted task to be retried to its end",
    )
    wait_until(lambda: lasting_server.client.hlen("dramatiq:default.msgs") == 0, 15, "nothing to be left")
    wait_until(lambda: worker.presences("default"), 10, "presence to go on")
    assert worker.process.poll() is None


def test_worker_that_finds_no_redis_waits_for_it(worker_processes, redis_server):
    """A worker started before its Redis works once that is there."""
    redis_server.stop()
    worker = worker_processes.start(redis_server.url(), ["--queues", "default"], command=WITH_TEST_ACTORS)
    wait_until(lambda: "waits for Redis" in worker.log, 30, "the worker to say what it waits for")
    redis_server.start()
    worker.wait_present("default", timeout_s=20)
    enqueue(redis_server.client, "note", "first")
    wait_until(lambda: notes(redis_server.client) == ["first"], 15, "the first message to run")


def test_what_a_lost_answer_left_behind_is_given_back(worker_processes, redis_url, redis_client):
    """Messages that Redis counts as held by a process that does not know of them are given back and run."""
    worker = worker_processes.start(redis_url, ["--queues", "default"], command=WITH_TEST_ACTORS)
    worker.wait_present("default")
    (record,) = worker.presences("default").values()
    import redis

    with redis.Redis.from_url(redis_url) as client, client.pipeline() as pipe:
        message = enqueue(client, "nobody", "warm up", queue="elsewhere")
        body = message.copy(
            queue_name="default", actor_name="note", options={"redis_message_id": "lost"}
        ).encode()
        pipe.hset("dramatiq:default.msgs", "lost", body)
        pipe.sadd(f"dramatiq:__acks__.{record['broker_id']}.default", "lost")
        pipe.execute()
        wait_until(lambda: notes(client) == ["warm up"], 40, "the stray message to run")
    assert "broken connection had left here" in worker.log


def test_runtime_works_on_every_server(worker_processes, each_redis_url):
    """Presence, counters, retries and the dead letters work on the oldest server that we say we work with, too."""
    import redis

    environment = {"WORKER_RETRY_DELAY": "50", "WORKER_MAX_RETRY_DELAY": "100", "WORKER_MAX_RETRIES": "1"}
    worker = worker_processes.start(
        each_redis_url, ["--queues", "default"], environment=environment, command=WITH_TEST_ACTORS
    )
    worker.wait_present("default")
    with redis.Redis.from_url(each_redis_url) as client:
        enqueue(client, "fail", "twice")
        wait_until(lambda: client.zcard("dramatiq:default.XQ"), 20, "the message to be given up")
        assert float(client.hget("astrid:dramatiq:counters:default", "failed")) == 2
        assert worker.stop() == 0
        assert not client.exists("astrid:dramatiq:presence:default")


def test_one_process_that_dies_takes_no_other_down(worker_processes, redis_url, redis_client):
    """With --processes 2, the sibling of a killed process goes on with its task, and the killed one is replaced."""
    import os
    import signal

    worker = worker_processes.start(
        redis_url, ["--queues", "default", "--processes", "2", "--threads", "1"], command=WITH_TEST_ACTORS
    )
    worker.wait_present("default", count=2)
    from astrid_workers.broker import send

    send("hold", "default", "long")
    wait_until(lambda: any(one["busy"] for one in worker.presences("default").values()), 20, "one to be busy")
    records = worker.presences("default")
    (idle,) = [one for one in records.values() if not one["busy"]]

    os.kill(idle["pid"], signal.SIGKILL)
    wait_until(lambda: len(set(worker.presences("default")) - set(records)) == 1, 30, "a replacement")
    redis_client.set("release", 1)

    wait_until(
        lambda: redis_client.lrange("seen", 0, -1) == ["start long", "end long"], 15, "the task to end, once"
    )


def test_code_that_seizes_the_interpreter_is_ended(worker_processes, redis_url, redis_client):
    """C code that keeps the interpreter's lock past its limit is ended by the watchdog, which says where it was."""
    from astrid_workers.broker import send

    worker = worker_processes.start(
        redis_url,
        ["--queues", "default", "--threads", "1"],
        environment={"WORKER_TIMEOUT": "1", "WORKER_MAX_RETRIES": "0"},
        command=WITH_TEST_ACTORS,
    )
    worker.wait_present("default")
    send("seize", "default", "all", 300)
    wait_until(lambda: "ended with status" in worker.log, 60, "the process to be ended")
    assert "in seize" in worker.log


def test_workers_end_with_what_started_them(worker_processes, redis_url):
    """No worker process outlives its command, not even one that was killed."""
    import psutil

    worker = worker_processes.start(redis_url, ["--queues", "default"], command=WITH_TEST_ACTORS)
    worker.wait_present("default")
    below = psutil.Process(worker.pid).children(recursive=True)
    assert len(below) >= 2
    worker.process.kill()
    wait_until(
        lambda: not any(one.is_running() and one.status() != "zombie" for one in below), 10, "all to end"
    )


def test_leaving_in_the_midst_of_work_loses_and_repeats_nothing(worker_processes, redis_url, redis_client):
    """While workers come and go by SIGTERM, each of many short messages runs exactly once."""
    from astrid_workers.broker import send

    arguments = ["--queues", "default", "--threads", "4"]
    environment = {"WORKER_PREFETCH": "16"}
    names = {f"m{number}" for number in range(600)}

    def start():
        return worker_processes.start(redis_url, arguments, environment=environment, command=WITH_TEST_ACTORS)

    first, second = start(), start()
    first.wait_present("default")
    for name in sorted(names):
        send("note", "default", name)
        if len(names) // 3 == int(name[1:]):
            first.terminate()
    second.wait_present("default")
    second.terminate()
    assert first.process.wait(20) == 0
    assert second.process.wait(20) == 0

    assert redis_client.hlen("dramatiq:default.msgs") == redis_client.llen("dramatiq:default")
    start()
    wait_until(lambda: redis_client.llen("seen") >= len(names), 60, "all to run")
    wait_until(lambda: redis_client.hlen("dramatiq:default.msgs") == 0, 10, "all to be acknowledged")
    assert sorted(redis_client.lrange("seen", 0, -1)) == sorted(names)


def test_a_worker_that_cannot_use_its_settings_takes_no_message(worker_processes, redis_url, redis_client):
    """It ends with status 2 and the sentence; what waits is left for a worker that can."""
    enqueue(redis_client, "note", "kept", queue="curation")
    worker = worker_processes.start(
        redis_url, ["--queues", "curation"], environment={"ASTRID_DATABASE_URL": "mysql://host/name"}
    )
    assert worker.process.wait(60) == 2
    assert "ASTRID_DATABASE_URL names mysql; valid are sqlite and postgresql" in worker.log
    assert redis_client.llen("dramatiq:curation") == 1
