"""What all workers and queues of a namespace look like at one moment, read from Redis.

Owns one pipeline and the parsing of what workers publish: a record that makes no sense is left out, a
number that was not written is None. Never writes, never judges (`monitoring` does).
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import redis

from astrid_workers.middleware.fleet_keys import STALE_AFTER_S, counters_key, hours_key, presence_key


@dataclass(frozen=True, slots=True)
class ProcessReading:
    """One worker process as it described itself on one queue; times are the server's, in seconds."""

    process: str
    queue: str
    pod: str
    beat: float
    started: float | None
    threads: int | None
    busy: int
    idle_since: float | None
    draining: bool
    #: Actors that it declares on this queue.
    actors: int
    finished: float | None
    failed: float | None
    seconds: float | None
    rss_bytes: int | None
    cpu_percent: float | None
    version: str | None

    def is_stale(self, now: float) -> bool:
        """Whether it has been silent for too long to count as alive."""
        return now - self.beat > STALE_AFTER_S


@dataclass(frozen=True, slots=True)
class QueueReading:
    """One queue: messages by state, its workers, its counters."""

    queue: str
    ready: int
    #: Fetched and unacknowledged, messages that a process holds and has not started included.
    running: int
    delayed: int
    dead: int
    processes: tuple[ProcessReading, ...]
    #: Sums since the counters began: started, finished, failed, retried, dead, seconds, seconds_squared.
    counters: Mapping[str, float]
    #: hours since the epoch → finished, failed, seconds.
    hours: Mapping[int, Mapping[str, float]]

    @property
    def outstanding(self) -> int:
        """Ready and running."""
        return self.ready + self.running


@dataclass(frozen=True, slots=True)
class FleetReading:
    """All queues at `at`, the server's time in seconds."""

    at: float
    queues: tuple[QueueReading, ...]

    def alive(self, queue: QueueReading) -> list[ProcessReading]:
        """The processes of `queue` that were heard of lately."""
        return [one for one in queue.processes if not one.is_stale(self.at)]

    def processes(self) -> dict[str, list[ProcessReading]]:
        """process → what it said on each of its queues, stale ones included."""
        found: dict[str, list[ProcessReading]] = {}
        for queue in self.queues:
            for one in queue.processes:
                found.setdefault(one.process, []).append(one)
        return found


def read_fleet(client: redis.Redis, namespace: str, queues: Sequence[str]) -> FleetReading:
    """Read `queues` in one pipeline. Raises redis errors as they come."""
    with client.pipeline(transaction=True) as pipe:
        pipe.time()
        for queue in queues:
            key = f"{namespace}:{queue}"
            pipe.llen(key)
            pipe.hlen(f"{key}.msgs")
            pipe.hlen(f"{key}.DQ.msgs")
            pipe.zcard(f"{key}.XQ")
            pipe.hgetall(presence_key(namespace, queue))
            pipe.hgetall(counters_key(namespace, queue))
            pipe.hgetall(hours_key(namespace, queue))
        (seconds, microseconds), *answers = pipe.execute()
    rows = [answers[at : at + 7] for at in range(0, len(answers), 7)]
    return FleetReading(
        at=float(seconds) + float(microseconds) / 1e6,
        queues=tuple(_queue(name, *row) for name, row in zip(queues, rows, strict=True)),
    )


def _queue(
    name: str, ready: int, outstanding: int, delayed: int, dead: int, presence: Any, counters: Any, hours: Any
) -> QueueReading:
    records = (parse_presence(_text(process), name, record) for process, record in presence.items())
    return QueueReading(
        queue=name,
        ready=ready,
        running=max(outstanding - ready, 0),
        delayed=delayed,
        dead=dead,
        processes=tuple(one for one in records if one is not None),
        counters={
            _text(field): number for field, text in counters.items() if (number := _number(text)) is not None
        },
        hours=_hours(hours),
    )


def parse_presence(process: str, queue: str, text: bytes | str) -> ProcessReading | None:
    """One record; None where it is nothing that a worker could have written."""
    try:
        record = json.loads(text)
        beat = float(record["beat"])
    except (ValueError, TypeError, KeyError):
        return None
    return ProcessReading(
        process=process,
        queue=queue,
        pod=str(record.get("pod") or process),
        beat=beat,
        started=_number(record.get("started")),
        threads=_whole(record.get("threads")),
        busy=_whole(record.get("busy")) or 0,
        idle_since=_number(record.get("idle_since")),
        draining=record.get("draining") is True,
        actors=_whole(record.get("actors")) or 0,
        finished=_number(record.get("finished")),
        failed=_number(record.get("failed")),
        seconds=_number(record.get("seconds")),
        rss_bytes=_whole(record.get("rss_bytes")),
        cpu_percent=_number(record.get("cpu_percent")),
        version=record.get("version") if isinstance(record.get("version"), str) else None,
    )


def _hours(fields: Mapping[Any, Any]) -> dict[int, dict[str, float]]:
    found: dict[int, dict[str, float]] = {}
    for field, text in fields.items():
        hour, _, name = _text(field).partition(":")
        number = _number(text)
        if hour.isdigit() and number is not None:
            found.setdefault(int(hour), {})[name] = number
    return found


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value


def _number(value: Any) -> float | None:
    try:
        return None if value is None or isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        return None


def _whole(value: Any) -> int | None:
    number = _number(value)
    return None if number is None else int(number)
