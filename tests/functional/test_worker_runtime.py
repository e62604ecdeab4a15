"""What a real worker process does with messages, settings and signals, on a real server."""

import json
import sqlite3
import time

import dramatiq
import pytest
from dramatiq.brokers.redis import RedisBroker

from support.waiting import wait_until
from support.worker_processes import WITH_TEST_ACTORS, WorkerProcess

#: Quick retries, for tests that wait for them.
QUICK = {"WORKER_RETRY_DELAY": "50", "WORKER_MAX_RETRY_DELAY": "100"}


def send(actor, *args, queue="default"):
    from astrid_workers import broker

    return broker.send(actor, queue, *args)


@pytest.fixture
def start(worker_processes, redis_url):
    """Start `start_workers` with the test actors and wait until it is present on its queues."""

    def _start(*arguments, queues=("default",), wait=True, processes=1, **environment) -> WorkerProcess:
        worker = worker_processes.start(
            redis_url, ["--queues", *queues, *arguments], environment=environment, command=WITH_TEST_ACTORS
        )
        if wait:
            worker.wait_present(*queues, count=processes)
        return worker

    return _start


@pytest.fixture
def seen(redis_client):
    """What the test actors have noted so far."""
    return lambda: redis_client.lrange("seen", 0, -1)


def counters(redis_client, queue="default"):
    return {
        name: float(number)
        for name, number in redis_client.hgetall(f"astrid:dramatiq:counters:{queue}").items()
    }


def held(redis_client, queue="default"):
    """Messages that some process has fetched and not acknowledged."""
    return redis_client.hlen(f"dramatiq:{queue}.msgs") - redis_client.llen(f"dramatiq:{queue}")


def test_failure_is_retried_with_backoff_then_dies(start, seen, redis_client):
    """WORKER_MAX_RETRIES and the delays decide how often and how fast; then the dead letter says why, in a row too."""
    worker = start(WORKER_MAX_RETRIES="2", WORKER_RETRY_DELAY="300", WORKER_MAX_RETRY_DELAY="500")
    send("fail", "archive")

    wait_until(lambda: redis_client.zcard("dramatiq:default.XQ"), 30, "the message to be given up")

    assert len(seen()) == 3
    first, second, third = (float(note.split()[0]) for note in seen())
    assert second - first >= 0.14
    assert third - second >= 0.24
    (body,) = redis_client.hgetall("dramatiq:default.XQ.msgs").values()
    assert json.loads(body)["options"]["dead_sentence"] == "archive is away"
    expected = {"started": 3, "failed": 3, "retried": 2, "dead": 1}
    wait_until(lambda: counters(redis_client).items() >= expected.items(), 10, "the letter to be counted")
    rows = sqlite3.connect(worker.log_path.parent / "astrid.sqlite3").execute(
        "select actor, queue, sentence, attempts, args from dead_letters"
    )
    assert rows.fetchall() == [("fail", "default", "archive is away", 3, '["archive"]')]


def test_a_wait_is_counted_from_the_sending_or_the_eta(start, seen, redis_client):
    """Sent long ago: all of it; sent long ago and due only now: what came after the ETA, whoever sent it."""
    ago = int(time.time() * 1000) - 1_000_000
    broker = RedisBroker(client=redis_client, middleware=[])
    sent = dramatiq.Message("default", "note", ("waits",), {}, {}, message_timestamp=ago)
    broker.enqueue(sent)
    broker.enqueue(sent.copy(args=("delayed",)), delay=4000)

    start()

    wait_until(lambda: len(seen()) == 2, 60, "both to run")
    wait_until(lambda: counters(redis_client).get("finished") == 2, 10, "both to be counted")
    counted = counters(redis_client)
    assert counted["waited_3600"] == 1
    assert 1000 <= counted["wait_seconds"] < 1100
    assert sum(number for name, number in counted.items() if name.startswith("waited_")) == 2


def test_an_eta_stays_on_a_message_whoever_moves_it(redis_client):
    """Dramatiq takes the ETA off when the time has come, in whatever process: what is sent from here keeps it beside."""
    from astrid_workers.broker import get_broker

    get_broker().enqueue(dramatiq.Message("default", "note", ("later",), {}, {}), delay=5000)

    (body,) = redis_client.hvals("dramatiq:default.DQ.msgs")
    options = json.loads(body)["options"]
    assert options["due_timestamp"] == options["eta"]


def test_what_a_retry_cannot_help_dies_at_once(start, seen, redis_client):
    """PermanentFailure goes to the dead letters after one run, with its sentence, and the result tells it."""
    import dramatiq
    from dramatiq.results.errors import ResultFailure

    from astrid_workers.broker import get_broker

    worker = start(**QUICK)
    message_id = send("refuse", "RA must be between 0 and 360 degrees")

    wait_until(lambda: redis_client.zcard("dramatiq:default.XQ"), 20, "the dead letter")

    assert seen() == ["refuse RA must be between 0 and 360 degrees"]
    message = dramatiq.Message("default", "refuse", (), {}, {}, message_id=message_id)
    with pytest.raises(ResultFailure, match="RA must be between"):
        message.get_result(backend=get_broker().get_results_backend(), block=True, timeout=5000)
    (line,) = [line for line in worker.log_lines() if "goes to the dead letters" in str(line["event"])]
    assert line["message_id"] == message_id
    assert "RA must be" in str(line["event"])


def test_results_are_kept_as_long_as_told(start, redis_client):
    """WORKER_RESULT_TTL is the life of a result, in the database that REDIS_RESULT_URL names."""
    url = redis_client.connection_pool.connection_kwargs
    start(WORKER_RESULT_TTL="77", REDIS_RESULT_URL=f"redis://{url['host']}:{url['port']}/1")
    send("note", "hello")

    import redis

    with redis.Redis(host=url["host"], port=url["port"], db=1) as results:
        wait_until(results.dbsize, 20, "the result in database 1")
        (key,) = results.keys("*")
        assert 60 < results.ttl(key) <= 77


def test_sigterm_gives_back_what_was_not_started(start, seen, redis_client):
    """A leaving worker returns its prefetched messages within two seconds, in order, while its long task goes on."""
    worker = start("--threads", "1", WORKER_PREFETCH="4")
    send("hold", "long")
    for name in "abcdef":
        send("note", name)
    wait_until(
        lambda: seen() == ["start long"] and held(redis_client) == 4, 20, "four held, one of them running"
    )

    worker.terminate()
    wait_until(lambda: redis_client.llen("dramatiq:default") == 6, 2, "all that was not started to be back")

    assert [json.loads(redis_client.hget("dramatiq:default.msgs", name))["args"][0]
            for name in redis_client.lrange("dramatiq:default", 0, -1)] == list("abcdef")  # fmt: skip
    wait_until(
        lambda: [one["draining"] for one in worker.presences("default").values()] == [True], 4, "draining"
    )
    redis_client.set("release", 1)
    assert worker.process.wait(20) == 0
    assert seen() == ["start long", "end long"]
    assert worker.presences("default") == {}


def test_second_sigterm_breaks_nothing_off(start, seen, redis_client):
    """Being told twice to leave is being told once: the running task finishes."""
    worker = start()
    send("hold", "long")
    wait_until(lambda: seen() == ["start long"], 20, "the task to run")
    record = next(iter(worker.presences("default").values()))

    import os
    import signal

    for _ in range(3):
        os.kill(record["pid"], signal.SIGTERM)
        wait_until(lambda: "Draining" in worker.log, 5, "draining")
    redis_client.set("release", 1)

    wait_until(lambda: seen() == ["start long", "end long"], 10, "the task to end by itself")
    wait_until(lambda: worker.presences("default"), 30, "a new process in its place")


def test_operator_asks_a_process_to_leave_and_takes_it_back(start, seen, redis_client):
    """A process named in the drain set fetches nothing and holds nothing; taken out of it, it works again."""
    worker = start("--threads", "1", WORKER_PREFETCH="3")
    (process,) = worker.presences("default")
    redis_client.sadd("astrid:dramatiq:drain:default", process)
    wait_until(lambda: worker.presences("default")[process]["draining"], 8, "draining")

    send("note", "while draining")
    wait_until(lambda: not worker.presences("default")[process]["busy"], 5, "idle")
    assert held(redis_client) == 0
    assert redis_client.llen("dramatiq:default") == 1

    redis_client.srem("astrid:dramatiq:drain:default", process)
    wait_until(lambda: seen() == ["while draining"], 10, "work to go on")


def test_presence_tells_busy_and_idle(start, seen, redis_client):
    """What a worker says of itself follows what it does: busy while it works, idle since when it does not."""
    worker = start("--threads", "2", POD_UID="uid-1")
    (before,) = worker.presences("default").values()
    assert (before["busy"], before["threads"], before["pod_uid"]) == (0, 2, "uid-1")
    assert before["started"] - 1 <= before["idle_since"] <= before["beat"]

    send("hold", "one")
    wait_until(lambda: [one["busy"] for one in worker.presences("default").values()] == [1], 8, "busy")
    (during,) = worker.presences("default").values()
    assert during["idle_since"] is None
    assert before["task_since"] is None
    assert before["beat"] < during["task_since"] <= during["beat"]
    assert redis_client.smembers(f"dramatiq:__acks__.{during['broker_id']}.default")

    redis_client.set("release", 1)
    wait_until(lambda: [one["busy"] for one in worker.presences("default").values()] == [0], 8, "idle")
    (after,) = worker.presences("default").values()
    assert before["beat"] < after["idle_since"] <= after["beat"]
    assert after["finished"] == 1
    assert after["rss_bytes"] > 10_000_000


def test_presence_counts_from_when_a_process_fetches(start, seen, redis_client):
    """A process that imports for long has not begun: what it says of its start is what the operator learns."""
    worker = start(TEST_IMPORT_SECONDS="3")
    (record,) = worker.presences("default").values()
    assert record["started"] >= int(redis_client.get("imported"))
    assert record["idle_since"] >= int(redis_client.get("imported"))


def test_full_prefetch_window_keeps_its_heartbeat(start, seen, redis_client):
    """A worker whose window is full sends no command of its own; its heartbeat goes on all the same."""
    worker = start("--threads", "1", WORKER_PREFETCH="1")
    send("hold", "one")
    wait_until(seen, 20, "the task to run")
    (record,) = worker.presences("default").values()
    first = redis_client.zscore("dramatiq:__heartbeats__", record["broker_id"])

    wait_until(
        lambda: redis_client.zscore("dramatiq:__heartbeats__", record["broker_id"]) > first + 3500,
        10,
        "heartbeats",
    )


def test_killed_process_is_replaced_and_its_message_runs_again(start, seen, redis_client):
    """After SIGKILL the message is not lost: maintenance returns it, and it runs to its end on another process."""
    worker = start("--threads", "1")
    send("hold", "once")
    wait_until(lambda: seen() == ["start once"], 20, "the task to run")
    (record,) = worker.presences("default").values()

    import os
    import signal

    os.kill(record["pid"], signal.SIGKILL)
    wait_until(
        lambda: [one for one in worker.presences("default").values() if one["pid"] != record["pid"]],
        30,
        "another",
    )
    redis_client.set("release", 1)
    recover(redis_client, record["broker_id"])

    wait_until(
        lambda: seen() == ["start once", "start once", "end once"], 20, "the message to run to its end"
    )
    assert "ended with status" in worker.log


def recover(redis_client, broker_id):
    """What Dramatiq's maintenance does a minute after the last heartbeat of a process that is gone."""
    from astrid_workers.broker import get_broker

    redis_client.zadd("dramatiq:__heartbeats__", {broker_id: 1})
    broker = get_broker()
    chance, broker.maintenance_chance = broker.maintenance_chance, 1_000_000
    try:
        broker.do_qsize("default")
    finally:
        broker.maintenance_chance = chance


def test_message_that_kills_its_process_ends_in_the_dead_letters(start, seen, redis_client):
    """A message that took its process down max_retries + 1 times is refused with that reason before it runs again."""
    worker = start("--threads", "1", WORKER_MAX_RETRIES="0")
    (record,) = worker.presences("default").values()
    send("die", "bad")
    wait_until(
        lambda: [one for one in worker.presences("default").values() if one["pid"] != record["pid"]],
        30,
        "another",
    )
    recover(redis_client, record["broker_id"])

    wait_until(lambda: redis_client.zcard("dramatiq:default.XQ"), 20, "the dead letter")
    (body,) = redis_client.hgetall("dramatiq:default.XQ.msgs").values()
    assert "took its process down 1 times" in json.loads(body)["options"]["dead_sentence"]
    assert seen() == ["die bad"]
    assert redis_client.hlen("astrid:dramatiq:starts:default") == 0


def test_time_limit_asks_python_code_to_end(start, seen, redis_client):
    """WORKER_TIMEOUT interrupts a task in Python; it fails, and its process lives on."""
    worker = start(WORKER_TIMEOUT="1", WORKER_MAX_RETRIES="0")
    (record,) = worker.presences("default").values()
    send("hold", "too long")

    wait_until(lambda: redis_client.zcard("dramatiq:default.XQ"), 20, "the dead letter")

    assert seen() == ["start too long"]
    send("note", "still here")
    wait_until(lambda: seen()[-1] == "still here", 10, "the process to live on")
    assert [one["pid"] for one in worker.presences("default").values()] == [record["pid"]]


def test_time_limit_ends_c_code(start, seen, redis_client):
    """C code that does not listen costs its process: others' work is given back or finished, the task itself fails."""
    worker = start("--threads", "2", WORKER_TIMEOUT="1", WORKER_MAX_RETRIES="0", WORKER_PREFETCH="4")
    (record,) = worker.presences("default").values()
    send("stuck", "for long", 300)
    wait_until(seen, 20, "the task to run")

    wait_until(lambda: redis_client.zcard("dramatiq:default.XQ"), 30, "the dead letter")
    (body,) = redis_client.hgetall("dramatiq:default.XQ.msgs").values()
    assert "ran longer than 1 s and did not listen" in json.loads(body)["options"]["dead_sentence"]
    wait_until(
        lambda: [one for one in worker.presences("default").values() if one["pid"] != record["pid"]],
        30,
        "another",
    )
    send("note", "after")
    wait_until(lambda: seen() == ["stuck for long", "after"], 20, "work to go on")
    assert "It is in" in worker.log


def send_within(seconds, actor, *args):
    """Send a message with a time limit of its own."""
    from dramatiq import Message

    from astrid_workers.broker import get_broker

    get_broker().enqueue(Message("default", actor, args, {}, {"time_limit": seconds * 1000}))


def test_process_to_be_ended_lets_others_finish_first(start, seen, redis_client):
    """A process that has to be ended takes nothing new, and waits for tasks that are within their own limits."""
    worker = start("--threads", "2", WORKER_TIMEOUT="1", WORKER_MAX_RETRIES="0")
    send("stuck", "for long", 300)
    send_within(120, "hold", "innocent")
    wait_until(lambda: "does not listen" in worker.log, 20, "the limit to be seen")

    send("note", "after")
    (record,) = worker.presences("default").values()
    wait_until(
        lambda: (
            [
                one["draining"] and one["beat"] > record["beat"] + 4
                for one in worker.presences("default").values()
            ]
            == [True]
        ),
        20,
        "two more beats without fetching",
    )
    assert sorted(seen()) == ["start innocent", "stuck for long"]
    redis_client.set("release", 1)
    wait_until(
        lambda: seen()[2:] == ["end innocent", "after"], 30, "the other task to end, then work to go on"
    )


def test_process_stays_where_the_task_comes_back_after_all(start, seen, redis_client):
    """C code that returns after its grace, while others still run, leaves the process at work."""
    worker = start("--threads", "2", WORKER_TIMEOUT="1", WORKER_MAX_RETRIES="0")
    (record,) = worker.presences("default").values()
    send_within(120, "hold", "innocent")
    wait_until(seen, 10, "the other task to run")
    send("stuck", "a while", 6)
    wait_until(lambda: redis_client.zcard("dramatiq:default.XQ"), 20, "the late task to fail")

    send("note", "after")
    wait_until(lambda: seen()[-1] == "after", 10, "work to go on")
    assert [one["pid"] for one in worker.presences("default").values()] == [record["pid"]]


def test_process_above_its_memory_is_replaced(start, seen, redis_client):
    """WORKER_MAX_MEMORY: a process that is larger after a task leaves in order, and another takes its place."""
    worker = start("--threads", "1", WORKER_MAX_MEMORY="300")
    send("grow", 300)
    send("note", "next")

    wait_until(lambda: seen()[1:] == ["next"], 30, "the next message on another process")
    (record,) = wait_until(
        lambda: worker.presences("default"), 10, "the other process to be present"
    ).values()
    assert seen()[0] != f"grown {record['pid']}"
    assert "it leaves, to be replaced" in worker.log


@pytest.mark.parametrize(
    ("environment", "expected"),
    [({"WORKER_MAX_CPU": "100", "WORKER_CONCURRENCY": "1"}, None), ({"WORKER_MAX_CPU": "1"}, "1")],
    ids=["all cores", "one percent"],
)
def test_numeric_libraries_get_their_share(start, redis_client, environment, expected):
    """WORKER_MAX_CPU limits the threads of numeric libraries before they are imported."""
    import dramatiq

    from astrid_workers.broker import get_broker
    from astrid_workers.numeric_threads import available_cores

    start(OMP_NUM_THREADS="", **environment)
    message_id = send("variable", "OMP_NUM_THREADS")
    message = dramatiq.Message("default", "variable", (), {}, {}, message_id=message_id)
    answer = message.get_result(backend=get_broker().get_results_backend(), block=True, timeout=10_000)
    assert answer == (expected or str(int(available_cores())))


def test_concurrency_is_per_queue_within_shared_threads(start, seen, redis_client):
    """One process on two queues works on as many of each as the table says: 3 of notification, 1 of curation."""
    start(queues=("notification", "curation"))
    for number in range(4):
        send("hold", f"n{number}", queue="notification")
        send("hold", f"c{number}", queue="curation")

    wait_until(lambda: len(seen()) == 4, 20, "four to run")
    wait_until(lambda: redis_client.llen("dramatiq:curation") == 3, 5, "the rest to wait")
    assert sorted(note.split()[1][0] for note in seen()) == ["c", "n", "n", "n"]
    assert redis_client.llen("dramatiq:notification") == 1


def test_namespace_separates_fleets(start, redis_client):
    """WORKER_NAMESPACE prefixes Dramatiq's keys and ours."""
    worker = start(WORKER_NAMESPACE="other")
    assert worker.presences("default")
    assert redis_client.exists("astrid:other:presence:default")
    assert not redis_client.exists("astrid:dramatiq:presence:default")


def test_health_check_tells_the_truth(start, redis_client):
    """health_check on `default` reaches all three services, or says which it does not."""
    import dramatiq

    from astrid_workers.broker import get_broker

    start()
    message = dramatiq.Message("default", "health_check", (), {}, {}, message_id=send("health_check"))
    answer = message.get_result(backend=get_broker().get_results_backend(), block=True, timeout=10_000)
    assert answer["status"] == "healthy"
    assert all(answer[name]["latency_ms"] >= 0 for name in ("broker", "database", "artifact_store"))


def test_retries_follow_the_queue_table(start, redis_client):
    """Without a variable each queue has its own retries: preprocessing three, notification two."""
    start(queues=("preprocessing", "notification"), WORKER_RETRY_DELAY="20", WORKER_MAX_RETRY_DELAY="40")
    send("fail", "p", queue="preprocessing")
    send("fail", "n", queue="notification")

    for queue, runs in (("preprocessing", 4), ("notification", 3)):
        wait_until(lambda queue=queue: redis_client.zcard(f"dramatiq:{queue}.XQ"), 30, f"{queue} to give up")
        expected = {"started": runs, "dead": 1}.items()
        wait_until(
            lambda queue=queue, expected=expected: counters(redis_client, queue).items() >= expected,
            10,
            f"{runs} runs of {queue} to be counted",
        )


def test_leaving_worker_gives_back_what_is_delayed(start, seen, redis_client):
    """A delayed message that a leaving process holds is free for others at once, not when its long task ends."""
    from dramatiq import Message

    from astrid_workers.broker import get_broker

    worker = start("--threads", "1")
    send("hold", "long")
    get_broker().enqueue(Message("default", "note", ("later",), {}, {}), delay=60_000)
    wait_until(lambda: seen() and not redis_client.llen("dramatiq:default.DQ"), 20, "both to be held")

    worker.terminate()
    wait_until(lambda: redis_client.llen("dramatiq:default.DQ") == 1, 3, "the delayed message to be back")
    redis_client.set("release", 1)
    assert worker.process.wait(20) == 0


def test_log_lines_name_their_message(start, seen):
    """Each line that is logged during a task is a JSON object with the message, queue, actor and attempt."""
    worker = start(WORKER_MAX_RETRIES="0")
    message_id = send("fail", "archive")
    wait_until(lambda: "goes to the dead letters" in worker.log, 20, "the failure to be logged")

    lines = [line for line in worker.log_lines() if line.get("message_id") == message_id]
    assert lines
    assert all((line["queue"], line["actor"], line["attempt"]) == ("default", "fail", 1) for line in lines)
    assert any("archive is away" in str(line.get("exception")) for line in lines)


def test_the_log_level_is_the_flags_then_the_variables(start, seen):
    """--log-level wins over WORKER_LOG_LEVEL; below it nothing is logged, by Dramatiq neither."""
    quiet = start("--log-level", "ERROR", WORKER_LOG_LEVEL="DEBUG")
    send("note", "here")
    wait_until(lambda: "here" in seen(), 20, "the task to run")
    assert quiet.log_lines() == []
    quiet.stop()
    loud = start(WORKER_LOG_LEVEL="DEBUG")
    wait_until(lambda: any(line["level"] == "debug" for line in loud.log_lines()), 20, "it to say more")


def test_worker_waits_for_its_schema_and_says_so(start, redis_client):
    """Without its database a worker takes no message, says what it waits for, and still leaves when told."""
    worker = start(
        queues=("curation",), wait=False, ASTRID_DATABASE_URL="postgresql://nobody@127.0.0.1:1/none"
    )
    wait_until(lambda: "Waiting for the database schema" in worker.log, 30, "the wait to be said")
    assert not redis_client.exists("astrid:dramatiq:presence:curation")
    assert worker.stop(10) == 0


def test_monitor_and_status_see_a_real_worker(start, seen, redis_client, monkeypatch, capsys):
    """`worker_monitor` and `astrid status` read what real workers publish, from another process."""
    import argparse

    from astrid_workers.cli import status
    from astrid_workers.monitoring import worker_monitor

    start("--threads", "2")
    send("note", "done")
    send("hold", "long")
    wait_until(lambda: len(seen()) == 2, 20, "both to run")
    wait_until(
        lambda: [one.status for one in worker_monitor.get_all_worker_metrics().values()] == ["busy"],
        8,
        "busy",
    )

    health = worker_monitor.get_worker_health()
    assert (health["status"], health["total_workers"], health["total_tasks_processed"]) == ("healthy", 1, 1)
    assert worker_monitor.get_performance_metrics(time_window_hours=1)["total_tasks_processed"] == 1
    assert worker_monitor.get_queue_status()["total_actors"] >= 9
    (metrics,) = worker_monitor.get_all_worker_metrics().values()
    assert metrics.tasks_processed == 1
    assert metrics.memory_usage > 10

    options = argparse.Namespace(watch=False, every=1.0, json=True, queues=["default"])
    assert status.main(options) == 0
    (row,) = json.loads(capsys.readouterr().out)["queues"]
    assert row["running"] == row["workers"] == row["busy"] == 1


def test_stale_presence_is_removed_by_whoever_sees_it(start, redis_client):
    """A record that is a minute old, or makes no sense, is removed by a worker that lives."""
    key = "astrid:dramatiq:presence:default"
    redis_client.hset(
        key, mapping={"gone:1": json.dumps({"pod": "gone", "beat": 1.0}), "odd:2": json.dumps({"pod": "odd"})}
    )
    redis_client.sadd("astrid:dramatiq:drain:default", "gone:1")
    start()
    wait_until(lambda: redis_client.hlen(key) == 1, 45, "old records to be removed")
    assert not redis_client.exists("astrid:dramatiq:drain:default")
