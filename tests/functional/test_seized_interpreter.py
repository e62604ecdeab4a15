"""C code that keeps the interpreter to itself is not taken for a dead process, and a dead one not for a living."""

import asyncio
import signal
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import redis
from dramatiq.brokers.redis import RedisBroker

from astrid_operator.astrid_queue import QueueKey
from astrid_operator.brokers import BrokerAddress
from astrid_operator.claims import BrokerQueue
from astrid_operator.dramatiq_keys import DramatiqQueue
from astrid_operator.orphans import Reclaimed
from astrid_operator.presence import STALE_SECONDS
from astrid_operator.recovery import Recovery
from astrid_workers.broker import send
from astrid_workers.middleware import stand_in
from astrid_workers.middleware.stand_in import StandIn
from support.waiting import wait_until
from support.worker_processes import WITH_TEST_ACTORS, WorkerProcess, WorkerProcesses

#: Silence after which everybody else takes what a process says as stale.
LONG_SILENCE_S = STALE_SECONDS + 1
#: The task takes this long, and others look at it when it has been silent for long.
SEIZED_S = 17
#: Silence after which other clients' maintenance takes messages back here; a minute by default.
GIVEN_UP_AFTER_MS = 9_000


def looks_for_orphans(url: str) -> list[Reclaimed]:
    """All that the operator takes back from `default` in 72 s, which pass on its clock alone."""
    claims = {QueueKey("sky", "q"): BrokerQueue(BrokerAddress(url), DramatiqQueue("dramatiq", "default"))}
    now = 1000.0

    async def look() -> list[Reclaimed]:
        nonlocal now
        recovery, found = Recovery(lambda: now, timeout_seconds=5.0), []
        for _ in range(18):
            now += 4.0
            recovery.begin(claims)
            tasks = [task for task in asyncio.all_tasks() if task.get_name().startswith("look for orphans")]
            await asyncio.gather(*tasks)
            found += [each for _, each in recovery.take()]
        await recovery.close()
        return found

    return asyncio.run(look())


def maintain(url: str) -> None:
    """What any other client of Dramatiq does with one command in a thousand."""
    other = RedisBroker(
        url=url, middleware=[], maintenance_chance=1_000_000, heartbeat_timeout=GIVEN_UP_AFTER_MS
    )
    other.do_qsize("default")
    other.close()


def is_there(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def standing_in_for(process: psutil.Process) -> psutil.Process | None:
    """Who stands in for a process."""
    children = [each for each in process.children() if is_there(each)]
    return next((each for each in children if "stand_in" in str(each.cmdline())), None)


def ignores_sigterm(pid: int) -> bool:
    (line,) = [
        line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("SigIgn")
    ]
    return bool(int(line.split()[1], 16) & 1 << (signal.SIGTERM - 1))


@pytest.fixture
def seized(
    worker_processes: WorkerProcesses, redis_url: str, redis_client: redis.Redis
) -> Callable[..., tuple[WorkerProcess, psutil.Process, float]]:
    """Starts a worker, lets its task keep the interpreter, and says when that began."""

    def start(seconds: int) -> tuple[WorkerProcess, psutil.Process, float]:
        arguments = ["--queues", "default", "--threads", "1"]
        environment = {"WORKER_TIMEOUT": "300", "WORKER_MAX_RETRIES": "0", "WORKER_PREFETCH": "1"}
        worker = worker_processes.start(
            redis_url, arguments, environment=environment, command=WITH_TEST_ACTORS
        )
        worker.wait_present("default")
        send("seize", "default", "all", seconds)
        wait_until(lambda: redis_client.llen("seen"), 20, "the task to begin")
        began_at = time.monotonic()
        (record,) = worker.presences("default").values()
        return worker, psutil.Process(record["pid"]), began_at

    return start


def test_a_task_that_keeps_the_interpreter_runs_once(
    seized: Callable[..., tuple[WorkerProcess, psutil.Process, float]],
    worker_processes: WorkerProcesses,
    redis_url: str,
    redis_client: redis.Redis,
) -> None:
    """Neither the operator nor a peer's maintenance takes it back; it is said to be busy, and since when silent."""
    worker, itself, began_at = seized(SEIZED_S)
    beside = standing_in_for(itself)
    assert beside is not None
    beside.terminate()  # as everything in a container may be: it has to stay for as long as the task does
    peer = worker_processes.start(
        redis_url, ["--queues", "default", "--threads", "1"], command=WITH_TEST_ACTORS
    )
    peer.wait_present("default", timeout_s=SEIZED_S)
    wait_until(lambda: time.monotonic() - began_at > LONG_SILENCE_S, SEIZED_S, "a long silence")

    maintain(redis_url)
    assert looks_for_orphans(redis_url) == []
    assert redis_client.llen("dramatiq:default") == 0
    (record,) = worker.presences("default").values()
    assert (record["busy"], record["idle_since"]) == (1, None)
    assert record["beat"] - record["silent_since"] > STALE_SECONDS / 2

    wait_until(lambda: redis_client.hlen("dramatiq:default.msgs") == 0, 20, "the task to be acknowledged")
    assert redis_client.lrange("seen", 0, -1) == ["seize all", "let go all"]
    assert is_there(beside)
    wait_until(
        lambda: all("silent_since" not in one for one in worker.presences("default").values()),
        10,
        "it to speak itself",
    )
    assert worker.stop() == 0
    assert not is_there(beside)
    assert worker.presences("default") == {}


def test_a_killed_process_is_not_spoken_for(
    seized: Callable[..., tuple[WorkerProcess, psutil.Process, float]],
    redis_url: str,
    redis_client: redis.Redis,
) -> None:
    """Killed in the midst of a silence, it is gone for everybody, and its message comes back as ever."""
    worker, itself, _ = seized(300)
    beside = standing_in_for(itself)
    assert beside is not None
    wait_until(
        lambda: any("silent_since" in one for one in worker.presences("default").values()),
        20,
        "it to be spoken for",
    )
    worker.process.kill()  # its processes go with it
    wait_until(lambda: not is_there(itself), 3, "it to end")
    wait_until(lambda: not is_there(beside), 3, "who stood in for it to end")

    last = worker.presences("default")
    wait_until(
        lambda: redis_client.time()[0] - next(iter(last.values()))["beat"] > LONG_SILENCE_S,
        2 * LONG_SILENCE_S,
        "its last words to be old",
    )
    assert worker.presences("default") == last
    assert [each.messages for each in looks_for_orphans(redis_url)] == [1]
    assert redis_client.llen("dramatiq:default") == 1


def test_who_stands_in_is_replaced_and_leaves_no_remains(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed for memory, it is reaped and followed by another; that goes with the worker."""
    monkeypatch.setattr(stand_in, "REPLACE_AFTER_S", 0.0)
    middleware, broker, us = StandIn(), RedisBroker(url=redis_url), psutil.Process()
    middleware.before_worker_boot(broker, None)
    try:
        first = standing_in_for(us)
        assert first is not None
        first.kill()

        def another() -> psutil.Process | None:
            middleware.heard()
            found = standing_in_for(us)
            return None if found == first else found

        second = wait_until(another, 10, "another")
        assert not psutil.pid_exists(first.pid)
    finally:
        middleware.after_worker_shutdown(broker, None)
    middleware.heard()
    assert standing_in_for(us) is None
    assert not psutil.pid_exists(second.pid)


def test_it_needs_no_more_than_an_interpreter_while_nobody_is_silent(redis_url: str) -> None:
    """One beside each worker process: redis is not loaded before it has to speak."""
    if not Path("/proc/self/smaps_rollup").exists():
        pytest.skip("the system does not tell what memory is a process's own")
    middleware, broker = StandIn(), RedisBroker(url=redis_url)
    middleware.before_worker_boot(broker, None)
    try:
        beside = standing_in_for(psutil.Process())
        assert beside is not None
        wait_until(lambda: ignores_sigterm(beside.pid), 10, "it to be past its beginning")
        middleware.heard()
        wait_until(lambda: beside.status() == psutil.STATUS_SLEEPING, 10, "it to wait")
        assert beside.memory_full_info().uss < 10_000_000
    finally:
        middleware.after_worker_shutdown(broker, None)
