"""An application that knows nothing of Astrid, made a member of the fleet by the middleware's files alone."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import redis

import astrid_workers.middleware
from support.waiting import wait_until

APPLICATION = """
import os, threading, dramatiq
from dramatiq.brokers.redis import RedisBroker
broker = RedisBroker(url=os.environ["REDIS_URL"])
dramatiq.set_broker(broker)

@dramatiq.actor(queue_name="theirs", max_retries=0)
def work(name):
    broker.client.rpush("seen", f"start {name}")
    while not broker.client.exists("release"):
        threading.Event().wait(0.05)
    broker.client.rpush("seen", f"end {name}")

@dramatiq.actor(queue_name="theirs", max_retries=0)
def broken(name):
    raise RuntimeError(f"{name} is broken")
"""

#: Runs a command with every package of ours out of reach.
WITHOUT_ASTRID = (
    "import sys; sys.modules['astrid_workers'] = None; sys.modules['structlog'] = None;"
    " import runpy; sys.argv[0] = 'dramatiq'; runpy.run_module('dramatiq', run_name='__main__')"
)


@pytest.fixture
def application(tmp_path: Path) -> Path:
    """A folder with the application, and another with the files of the middleware as a ConfigMap would carry them."""
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "their_application.py").write_text(APPLICATION)
    carried = tmp_path / "carried" / "fleet_middleware"
    carried.mkdir(parents=True)
    for source in Path(astrid_workers.middleware.__file__).parent.glob("*.py"):
        if source.name not in {"__init__.py", "log_context.py"}:
            shutil.copy(source, carried)
    return tmp_path


def test_foreign_application_joins_the_fleet(application, redis_url):
    """Presence, counters, reasons of dead letters and draining work without a line of the application changed."""
    command = [sys.executable, "-c", WITHOUT_ASTRID, "their_application", "fleet_middleware.enlist"]
    command += ["--processes", "1", "--threads", "1", "--queues", "theirs"]
    environment = {
        **os.environ,
        "REDIS_URL": redis_url,
        "POD_NAME": "their-pod",
        "PYTHONPATH": f"{application / 'app'}:{application / 'carried'}",
        "dramatiq_queue_prefetch": "3",
    }
    log = (application / "log").open("wb")
    process = subprocess.Popen(command, env=environment, cwd=application, stdout=log, stderr=log)
    try:
        with redis.Redis.from_url(redis_url, decode_responses=True) as client:
            _follow(client, process, application / "log")
    finally:
        process.kill()
        process.wait()
        log.close()


def _follow(client, process, log):
    import dramatiq
    from dramatiq.brokers.redis import RedisBroker

    sender = RedisBroker(client=client, middleware=[])

    def enqueue(actor, name):
        sender.enqueue(dramatiq.Message("theirs", actor, (name,), {}, {}))

    def presence():
        return [json.loads(text) for text in client.hvals("astrid:dramatiq:presence:theirs")]

    wait_until(presence, 30, f"presence of their worker:\n{log.read_text()}")
    enqueue("broken", "it")
    wait_until(lambda: client.zcard("dramatiq:theirs.XQ"), 15, "the dead letter")
    (body,) = client.hvals("dramatiq:theirs.XQ.msgs")
    assert json.loads(body)["options"]["dead_sentence"] == "it is broken"

    for name in "abc":
        enqueue("work", name)
    wait_until(
        lambda: [one["busy"] for one in presence()] == [1] and client.llen("dramatiq:theirs") == 0, 10, "work"
    )
    process.terminate()
    wait_until(lambda: client.llen("dramatiq:theirs") == 2, 3, "what was not started to be given back")
    client.set("release", 1)
    assert process.wait(20) == 0
    assert client.lrange("seen", 0, -1) == ["start a", "end a"]
    assert presence() == []
    assert client.hget("astrid:dramatiq:counters:theirs", "finished") == "1"
    counted = client.hgetall("astrid:dramatiq:counters:theirs")
    assert sum(int(number) for name, number in counted.items() if name.startswith("waited_")) == int(
        counted["started"]
    )
