"""A second process that speaks for this one while it cannot.

Owns the start, the end and the replacement of `stand_in_process`, and what that is told: that this process
lives (at each beat of presence), and until when what runs here may keep the interpreter's lock, so that no
thread of ours beats. It is a program of its own rather than a fork: that is safe whatever threads and devices
an application has, and keeps no copy of its memory. Never speaks to Redis, and never waits for who stands
in; where there can be none, all else goes on.
"""

import contextlib
import json
import logging
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from dramatiq.middleware import Middleware
from redis.sentinel import SentinelConnectionPool

from .fleet_keys import (
    BEAT_EVERY_S,
    SIDE_TIMEOUT_S,
    acks_key,
    heartbeats_key,
    presence_key,
    process_name,
)
from .stand_in_process import LENGTH, WORD, Connection, Told

#: What a pool can be made without: another process has a retry of its own, and gives up on a silent server.
DISPENSABLE = {"retry", "retry_on_error", "socket_keepalive_options", "parser_class", "encoder_class"}
#: Seconds before one that ended is replaced.
REPLACE_AFTER_S = 60.0

_PROGRAM = Path(__file__).with_name("stand_in_process.py")

_log = logging.getLogger(__name__)


class HandOnError(Exception):
    """The broker connects by something that another process cannot be given; the sentence says what."""


class StandIn(Middleware):
    """Keeps a process beside this one that speaks for it while it is silent."""

    def __init__(self) -> None:
        self._told: Told | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._started_at = 0.0
        self._heard_at = time.monotonic()
        self._silent_until = 0.0
        self._lock = threading.Lock()

    def before_worker_boot(self, broker: Any, _worker: Any) -> None:
        try:
            self._told = what_to_tell(broker)
        except HandOnError as error:
            _log.warning("Nobody stands in for this process while C code keeps its interpreter: %s", error)
            return
        with self._lock:
            self._heard_at = time.monotonic()
            self._start()

    def after_worker_shutdown(self, _broker: Any, _worker: Any) -> None:
        with self._lock:
            self._told = None
            self._end()

    def heard(self) -> None:
        """This process speaks: its threads run."""
        with self._lock:
            self._heard_at = time.monotonic()
            self._tell()
            self._replace()

    def may_be_silent_until(self, moment: float) -> None:
        """What runs here may take until `moment` (monotonic seconds); 0: nothing runs."""
        with self._lock:
            if moment != self._silent_until:
                self._silent_until = moment
                self._tell()

    def _tell(self) -> None:
        if self._process is not None and self._process.stdin is not None:
            with contextlib.suppress(OSError):  # it has ended, or has much to read: the next word follows
                os.write(self._process.stdin.fileno(), WORD.pack(self._heard_at, self._silent_until))

    def _replace(self) -> None:
        """Start another where it ended, now and then."""
        if self._process is not None and self._process.poll() is not None:
            _log.warning("Who stands in for this process ended with status %d", self._process.returncode)
            self._end()
        is_time = time.monotonic() - self._started_at > REPLACE_AFTER_S
        if self._told is not None and self._process is None and is_time:
            self._start()

    def _start(self) -> None:
        assert self._told is not None
        self._started_at = time.monotonic()
        text = json.dumps(self._told._asdict()).encode()
        try:
            # isolated and without a search for packages: it is told where they are, should it need any
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", str(_PROGRAM)],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                bufsize=0,
            )
            assert self._process.stdin is not None
            self._process.stdin.write(LENGTH.pack(len(text)) + text)
            os.set_blocking(self._process.stdin.fileno(), False)
        except OSError as error:
            _log.warning("Nobody stands in for this process: %s", error)
            self._end()
        self._tell()

    def _end(self) -> None:
        """End it and leave no remains; what it says last, it has said."""
        if self._process is None:
            return
        self._process.kill()
        self._process.wait()
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process = None


def what_to_tell(broker: Any) -> Told:
    """What who stands in for this process has to know. Raises HandOnError."""
    return Told(
        parent=os.getpid(),
        path=[str(one) for one in sys.path],
        heartbeats=heartbeats_key(broker.namespace),
        broker_id=broker.broker_id,
        process=process_name(broker),
        queues=[
            (presence_key(broker.namespace, queue), acks_key(broker, queue))
            for queue in sorted(broker.get_declared_queues())
        ],
        beat_every_s=BEAT_EVERY_S,
        connection=connection_of(broker.client.connection_pool),
    )


def connection_of(pool: Any) -> Connection:
    """How `pool` connects, with the patience of a side client. Raises HandOnError."""
    arguments = {
        **_handed_on(pool.connection_kwargs),
        "socket_timeout": SIDE_TIMEOUT_S,
        "socket_connect_timeout": SIDE_TIMEOUT_S,
        "decode_responses": False,
    }
    found = Connection(_name(pool.connection_class), arguments)
    if not isinstance(pool, SentinelConnectionPool):
        return found
    pools = [one.connection_pool for one in pool.sentinel_manager.sentinels]
    return found._replace(
        service=pool.service_name,
        sentinels=[(_name(one.connection_class), _handed_on(one.connection_kwargs)) for one in pools],
        min_other_sentinels=pool.sentinel_manager.min_other_sentinels,
    )


def _name(connection_class: type) -> str:
    if "." in connection_class.__qualname__:
        raise HandOnError(f"{connection_class.__qualname__} is known within a function or a class alone")
    return f"{connection_class.__module__}:{connection_class.__qualname__}"


def _handed_on(arguments: dict[str, Any]) -> dict[str, Any]:
    """What another pool can be made with: the plain values, without what a pool makes for itself."""
    found = {}
    for name, value in arguments.items():
        if name in DISPENSABLE:
            continue
        if _is_plain(value):
            found[name] = value
        elif name == "credential_provider" or not _is_of_redis(value):
            raise HandOnError(f"its connections are made with {name}, of type {type(value).__name__}")
    return found


def _is_plain(value: object) -> bool:
    """Whether JSON gives it back as it is."""
    try:
        return bool(json.loads(json.dumps(value)) == value)
    except (TypeError, ValueError):
        return False


def _is_of_redis(value: object) -> bool:
    """A state that redis's pools keep among their arguments, or its mark for a default."""
    return type(value) is object or type(value).__module__.partition(".")[0] == "redis"
