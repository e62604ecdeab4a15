"""Actors for tests of the runtime, loaded beside Astrid's own: they note what they do in Redis, and misbehave on demand.

Each notes under `seen`; `hold` works until the key `release` is there.
"""

import ctypes
import os
import signal
import threading
import time

import astrid_workers.app  # the broker, `health_check`, and what a worker process does at its start
from astrid_workers.broker import actor, get_broker
from astrid_workers.config import get_task_queues
from astrid_workers.errors import PermanentFailure, ServiceUnavailable

broker = astrid_workers.app.broker
for row in get_task_queues():
    broker.declare_queue(row.queue_name)

if import_seconds := float(os.environ.get("TEST_IMPORT_SECONDS", "0")):
    time.sleep(import_seconds)  # large libraries take as long
    broker.client.set("imported", broker.client.time()[0])

_kept: list[bytes] = []


def _note(text: str) -> None:
    get_broker().client.rpush("seen", text)


@actor("default")
def note(text: str) -> str:
    """Note `text` and return it."""
    _note(text)
    return text


@actor("default")
def hold(name: str, seconds: float = 60.0) -> str:
    """Work, in Python, until released or `seconds` have passed."""
    _note(f"start {name}")
    end = time.monotonic() + seconds
    pause = threading.Event()
    while time.monotonic() < end and not get_broker().client.exists("release"):
        pause.wait(0.05)
    _note(f"end {name}")
    return name


@actor("default")
def fail(name: str) -> None:
    """Fail in a way that a retry may help."""
    _note(f"{time.time()} fail {name}")
    raise ServiceUnavailable(f"{name} is away")


@actor("default")
def refuse(sentence: str) -> None:
    """Fail in a way that a retry cannot help."""
    _note(f"refuse {sentence}")
    raise PermanentFailure(sentence)


@actor("default")
def die(name: str) -> None:
    """Take the process down, as the system does when memory runs out."""
    _note(f"die {name}")
    os.kill(os.getpid(), signal.SIGKILL)


@actor("default")
def stuck(name: str, seconds: float) -> None:
    """Be inside C code that has let the interpreter go and comes back after `seconds`."""
    _note(f"stuck {name}")
    time.sleep(seconds)  # the task itself
    _note(f"unstuck {name}")


@actor("default")
def seize(name: str, seconds: int) -> None:
    """Be inside C code that keeps the interpreter's lock: no other thread of this process runs."""
    _note(f"seize {name}")
    ctypes.PyDLL(None).sleep(seconds)  # the task itself
    _note(f"let go {name}")


@actor("default")
def grow(megabytes: int) -> int:
    """Keep `megabytes` more of memory for good."""
    _kept.append(os.urandom(1) * (megabytes * 1_000_000))
    _note(f"grown {os.getpid()}")
    return os.getpid()


@actor("default")
def variable(name: str) -> str | None:
    """What a variable of the worker process is."""
    return os.environ.get(name)
