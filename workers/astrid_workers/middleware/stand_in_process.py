"""Speaks for a worker process that lives and cannot speak: the program that `stand_in` starts beside it.

Owns the going on of one process's heartbeat and presence in Redis while C code keeps that process's
interpreter to itself, and for no longer than what runs there may take. Says nothing new: each record is the
process's own last one, with `silent_since` beside it, and busy where Redis knows of a message that it holds.
Ends with its process, however that ends; never outlives it by more than one look, or one command that Redis
does not answer.

Reads on its standard input first what it is `Told` (JSON, its length before it), then a `WORD` at each of the
process's beats. Until it has to speak it is but an interpreter (5 MB of its own; 21 MB from then on, as redis
is loaded), so nothing outside the standard library is imported above, and nothing of this folder at all.
"""

import importlib
import json
import os
import select
import signal
import struct
import sys
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

#: When the process last spoke, and until when it may be silent: seconds of the machine's monotonic clock,
#: which all processes share.
WORD = struct.Struct("=dd")
#: The length of what is told first, in bytes.
LENGTH = struct.Struct("=I")

#: Beats after which a process that was not heard is silent.
SILENT_AFTER_BEATS = 1.5
#: Seconds for which a silent process is spoken for though nothing runs: a large result may be on its way.
SETTLING_S = 30.0
#: Seconds between two looks at whether the process is there, and the least between two that were asked for.
LOOK_EVERY_S = 0.5
PAUSE_S = 0.2
#: Bytes that are read at once: all that a pipe holds, in whole words.
READ_AT_ONCE = WORD.size * 4096


class Told(NamedTuple):
    """What does not change while the process lives."""

    parent: int
    #: Where modules are found.
    path: Sequence[str]
    heartbeats: str
    broker_id: str
    #: The field of its records.
    process: str
    #: Of each queue: the hash of presence, and the set of messages that the process holds.
    queues: Sequence[tuple[str, str]]
    beat_every_s: float
    #: A `Connection`.
    connection: Sequence[Any]


class Connection(NamedTuple):
    """How the process connects, in plain values."""

    #: `module:name`.
    connection_class: str
    arguments: dict[str, Any]
    #: Name of the service; empty: one server.
    service: str = ""
    #: Class and arguments for each Sentinel.
    sentinels: Sequence[tuple[str, dict[str, Any]]] = ()
    min_other_sentinels: int = 0


def must_speak(now: float, heard_at: float, silent_until: float, beat_every_s: float) -> bool:
    """Whether the process is silent, and may be."""
    is_silent = now - heard_at > SILENT_AFTER_BEATS * beat_every_s
    return is_silent and now < max(silent_until, heard_at + SETTLING_S)


def said_again(text: bytes, *, holds: bool, now: float) -> str | None:
    """A process's last record, at `now` of the server; None: there is none that it could have written."""
    try:
        record = json.loads(text)
        record.setdefault("silent_since", record["beat"])
        if holds and not record["busy"]:
            # begun since that record, or about to begin; when is not known here
            record.update(busy=1, idle_since=None, task_since=None)
        record["beat"] = now
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
    return json.dumps(record)


class Voice:
    """The process's own words, said again."""

    def __init__(self, told: Told) -> None:
        sys.path[:] = told.path
        import redis

        self._told = told
        self._away = redis.RedisError
        self._client = client(Connection(*told.connection))

    def speak(self) -> None:
        """Let heartbeat and records go on; where Redis is away, the next time comes soon."""
        try:
            self._speak()
        except (self._away, OSError):
            return

    def _speak(self) -> None:
        told = self._told
        seconds, microseconds = self._client.time()
        now = round(float(seconds) + float(microseconds) / 1e6, 3)
        with self._client.pipeline(transaction=False) as pipe:
            for presence, acks in told.queues:
                pipe.hget(presence, told.process)
                pipe.exists(acks)
            answers = pipe.execute()
        with self._client.pipeline(transaction=False) as pipe:
            # only one that is there: Dramatiq removes that of a process that it gave up
            pipe.zadd(told.heartbeats, {told.broker_id: int(now * 1000)}, xx=True, gt=True)
            for (presence, _), text, holds in zip(told.queues, answers[::2], answers[1::2], strict=True):
                if (record := said_again(text, holds=bool(holds), now=now)) is not None:
                    pipe.hset(presence, told.process, record)
            pipe.execute()


def client(connection: Connection) -> Any:
    """A client that connects as the process does, and connects to nothing yet."""
    import redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry
    from redis.sentinel import Sentinel, SentinelConnectionPool

    def pool(connection_class: str, arguments: dict[str, Any], retries: int) -> redis.ConnectionPool:
        return redis.ConnectionPool(_class(connection_class), **arguments, retry=Retry(NoBackoff(), retries))

    connection_class, arguments, service, sentinels, min_other_sentinels = connection
    if not service:
        return redis.Redis(connection_pool=pool(connection_class, arguments, 1))
    manager = Sentinel([], min_other_sentinels)  # type: ignore[no-untyped-call]
    manager.sentinels = [redis.Redis(connection_pool=pool(*one, retries=0)) for one in sentinels]
    beside = SentinelConnectionPool(  # type: ignore[no-untyped-call]
        service,
        manager,
        connection_class=_class(connection_class),
        **arguments,
        retry=Retry(NoBackoff(), 1),
    )
    return redis.Redis(connection_pool=beside)


def _class(name: str) -> Any:
    module, _, own_name = name.partition(":")
    return getattr(importlib.import_module(module), own_name)


def _told(source: int) -> Told | None:
    """What the process says first; None: it is gone already."""
    length = _read(source, LENGTH.size)
    text = _read(source, LENGTH.unpack(length)[0]) if length else b""
    return Told(**json.loads(text)) if text else None


def _read(source: int, size: int) -> bytes:
    """`size` bytes, no less and no more; empty where the other end is closed before."""
    text = b""
    while len(text) < size:
        part = os.read(source, size - len(text))
        if not part:
            return b""
        text += part
    return text


def main() -> None:
    """Stand in for the process that started this one until it is gone."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # who leaves in an orderly way needs this one to the end
    words = sys.stdin.fileno()
    told = _told(words)
    if told is None:
        return
    heard_at, silent_until, speak_at = time.monotonic(), 0.0, 0.0
    voice: Voice | None = None
    while True:
        if select.select([words], [], [], LOOK_EVERY_S)[0]:
            heard = os.read(words, READ_AT_ONCE)
            if not heard:
                return
            heard_at, silent_until = WORD.unpack(heard[-WORD.size :])
        now = time.monotonic()
        if os.getppid() != told.parent:
            return
        if now >= speak_at and must_speak(now, heard_at, silent_until, told.beat_every_s):
            voice = voice or Voice(told)
            voice.speak()
            speak_at = now + told.beat_every_s
        time.sleep(PAUSE_S)


if __name__ == "__main__":
    main()
