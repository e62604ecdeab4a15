"""Health and metrics of all workers, read from what they publish.

Owns `worker_monitor` and the meaning of its numbers. Every value is measured by a worker or counted in
Redis; what was not measured is None, and without workers there is no worker in the answer. History of
single workers is kept in this process only, from one look to the next.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

import redis

from astrid_workers.broker import get_broker
from astrid_workers.config import DEFAULT_QUEUE, get_task_queues, get_worker_config
from astrid_workers.fleet_reading import FleetReading, ProcessReading, QueueReading, read_fleet

#: (least share of healthy workers, most share of failed tasks) of each state, best first; else unhealthy.
THRESHOLDS = (("healthy", 0.9, 0.05), ("degraded", 0.7, 0.10))

#: Looks at one worker that are remembered.
HISTORY_LENGTH = 100

#: Seconds in an hour, hours that a window may have.
HOUR_S = 3600
MOST_HOURS = 168

#: Bytes of one MB.
MB = 1_000_000


class WorkerStatus(StrEnum):
    """What one worker process does: nothing, work, nothing because it is leaving, or it is not heard of."""

    IDLE = "idle"
    BUSY = "busy"
    ERROR = "error"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class WorkerMetrics:
    """One worker process, at its last beat."""

    worker_id: str
    #: The queues it consumes, joined by commas; for a fleet of one stage that is the worker type.
    worker_type: str
    status: WorkerStatus
    #: Tasks that this process has ended, failed ones included.
    tasks_processed: int | None
    tasks_failed: int | None
    #: Mean seconds of a task; None before the first.
    average_processing_time: float | None
    #: Resident memory, MB of 10⁶ bytes.
    memory_usage: float | None
    #: Percent of one core, between its last two beats.
    cpu_usage: float | None
    last_heartbeat: str


class WorkerMonitor:
    """Looks at the fleet through Redis, wherever it is called."""

    def __init__(self) -> None:
        self._history: dict[str, deque[WorkerMetrics]] = {}

    def read(self) -> FleetReading:
        """The fleet now. Raises redis errors as they come."""
        return read_fleet(get_broker().client, get_worker_config().namespace, known_queues())

    def get_all_worker_metrics(self) -> dict[str, WorkerMetrics]:
        """Worker id → metrics of every worker process that is there. Raises redis errors as they come."""
        reading = self.read()
        found = {name: _metrics(said, reading.at) for name, said in reading.processes().items()}
        for name, metrics in found.items():
            self._history.setdefault(name, deque(maxlen=HISTORY_LENGTH)).append(metrics)
        return found

    def get_worker_metrics(self, worker_id: str) -> WorkerMetrics | None:
        """Metrics of one worker process; None where there is no such worker."""
        return self.get_all_worker_metrics().get(worker_id)

    def get_worker_history(self, worker_id: str, limit: int = 100) -> list[WorkerMetrics]:
        """What this process saw of a worker, oldest first, at most the last `limit` looks."""
        return list(self._history.get(worker_id, ()))[-limit:] if limit > 0 else []

    def clear_old_metrics(self, days_to_keep: int = 7) -> int:
        """Forget looks that are older than `days_to_keep`; how many."""
        oldest = (datetime.now(UTC) - timedelta(days=days_to_keep)).isoformat()
        before = sum(len(looks) for looks in self._history.values())
        for name, looks in list(self._history.items()):
            kept = [look for look in looks if look.last_heartbeat >= oldest]
            if kept:
                self._history[name] = deque(kept, maxlen=HISTORY_LENGTH)
            else:
                del self._history[name]
        return before - sum(len(looks) for looks in self._history.values())

    def get_worker_health(self) -> dict[str, Any]:
        """Whether the fleet as a whole works.

        `status` is healthy, degraded, unhealthy, or error where Redis is away.
        """
        timestamp = _timestamp()
        try:
            reading = self.read()
        except redis.RedisError as error:
            return {
                "status": "error",
                "message": f"the broker does not answer: {error}",
                "timestamp": timestamp,
            }
        processes = reading.processes()
        if not processes:
            return {"status": "unhealthy", "message": "no workers", "timestamp": timestamp}
        alive = [said for said in processes.values() if not said[0].is_stale(reading.at)]
        processed, failed = _totals(queue.counters for queue in reading.queues)
        ratio, failure_rate = len(alive) / len(processes), _share(failed, processed)
        return {
            "status": judge(ratio, failure_rate or 0.0),
            "total_workers": len(processes),
            "healthy_workers": len(alive),
            "health_ratio": ratio,
            "total_tasks_processed": int(processed),
            "total_tasks_failed": int(failed),
            "failure_rate": failure_rate or 0.0,
            "uptime_seconds": _uptime(alive, reading.at),
            "timestamp": timestamp,
        }

    def get_queue_status(self) -> dict[str, Any]:
        """Lengths, tasks per second and shares of failures per queue, of this hour and the one before."""
        try:
            reading = self.read()
        except redis.RedisError:
            return {
                "queues": known_queues(),
                "total_actors": None,
                "broker_connected": False,
                "queue_lengths": {},
                "processing_rates": {},
                "error_rates": {},
                "timestamp": _timestamp(),
            }
        recent = {queue.queue: _totals(_within(queue, reading.at, 2)) for queue in reading.queues}
        seconds = HOUR_S + reading.at % HOUR_S
        return {
            "queues": [queue.queue for queue in reading.queues],
            "total_actors": sum(_actors(queue) for queue in reading.queues),
            "broker_connected": True,
            "queue_lengths": {queue.queue: queue.ready for queue in reading.queues},
            "running": {queue.queue: queue.running for queue in reading.queues},
            "delayed": {queue.queue: queue.delayed for queue in reading.queues},
            "dead": {queue.queue: queue.dead for queue in reading.queues},
            "processing_rates": {name: processed / seconds for name, (processed, _) in recent.items()},
            "error_rates": {name: _share(failed, processed) for name, (processed, failed) in recent.items()},
            "timestamp": _timestamp(),
        }

    def get_performance_metrics(self, time_window_hours: int = 24) -> dict[str, Any]:
        """What all queues did within the last `time_window_hours` (1 to 168, whole hours of the clock)."""
        if not 1 <= time_window_hours <= MOST_HOURS:
            raise ValueError(f"time_window_hours is {time_window_hours}, must be 1 to {MOST_HOURS}")
        reading = self.read()
        hours = [
            hour for queue in reading.queues for hour in _within(queue, reading.at, time_window_hours + 1)
        ]
        processed, failed = _totals(hours)
        alive = [said[0] for said in reading.processes().values() if not said[0].is_stale(reading.at)]
        return {
            "time_window_hours": time_window_hours,
            "total_tasks_processed": int(processed),
            "total_tasks_failed": int(failed),
            "failure_rate": _share(failed, processed) or 0.0,
            "average_processing_time": _share(sum(hour.get("seconds", 0.0) for hour in hours), processed),
            "average_memory_usage_mb": _mean(
                one.rss_bytes / MB for one in alive if one.rss_bytes is not None
            ),
            "average_cpu_usage_percent": _mean(
                one.cpu_percent for one in alive if one.cpu_percent is not None
            ),
            "active_workers": len(alive),
            "timestamp": _timestamp(),
        }


def judge(health_ratio: float, failure_rate: float) -> str:
    """The state of a fleet by its share of healthy workers and of failed tasks."""
    return next(
        (name for name, least, most in THRESHOLDS if health_ratio >= least and failure_rate <= most),
        "unhealthy",
    )


def known_queues() -> list[str]:
    """The queues of the table, the one of `health_check`, and the one that WORKER_QUEUE names."""
    config = get_worker_config()
    named = [config.queue_name] if config.given("queue_name") else []
    return list(dict.fromkeys([*(row.queue_name for row in get_task_queues()), DEFAULT_QUEUE, *named]))


def _metrics(said: list[ProcessReading], now: float) -> WorkerMetrics:
    first = said[0]
    failed, finished = _sum(one.failed for one in said), _sum(one.finished for one in said)
    processed = None if failed is None or finished is None else finished + failed
    seconds = _sum(one.seconds for one in said)
    return WorkerMetrics(
        worker_id=first.process,
        worker_type=",".join(one.queue for one in said),
        status=_status(said, now),
        tasks_processed=None if processed is None else int(processed),
        tasks_failed=None if failed is None else int(failed),
        average_processing_time=_share(seconds, processed),
        memory_usage=None if first.rss_bytes is None else round(first.rss_bytes / MB, 3),
        cpu_usage=first.cpu_percent,
        last_heartbeat=datetime.fromtimestamp(first.beat, UTC).isoformat(),
    )


def _status(said: list[ProcessReading], now: float) -> WorkerStatus:
    if said[0].is_stale(now):
        return WorkerStatus.ERROR
    if any(one.busy for one in said):
        return WorkerStatus.BUSY
    return WorkerStatus.STOPPED if said[0].draining else WorkerStatus.IDLE


def _within(queue: QueueReading, now: float, hours: int) -> list[dict[str, float]]:
    """The buckets of the running hour and those before it, `hours` altogether."""
    this_hour = int(now // HOUR_S)
    return [dict(counted) for hour, counted in queue.hours.items() if hour > this_hour - hours]


def _totals(counted: Iterable[Any]) -> tuple[float, float]:
    """(ended, of these failed)."""
    rows = list(counted)
    failed = sum(row.get("failed", 0.0) for row in rows)
    return sum(row.get("finished", 0.0) for row in rows) + failed, failed


def _actors(queue: QueueReading) -> int:
    return max((one.actors for one in queue.processes), default=0)


def _uptime(alive: list[list[ProcessReading]], now: float) -> float | None:
    """Seconds since the oldest of the living began."""
    started = [said[0].started for said in alive if said[0].started is not None]
    return round(now - min(started), 3) if started else None


def _share(part: float | None, whole: float | None) -> float | None:
    return part / whole if whole and part is not None else None


def _mean(values: Iterable[float]) -> float | None:
    numbers = list(values)
    return round(sum(numbers) / len(numbers), 3) if numbers else None


def _sum(values: Iterable[float | None]) -> float | None:
    numbers = [value for value in values if value is not None]
    return sum(numbers) if numbers else None


def _timestamp() -> str:
    return datetime.now(UTC).isoformat()


worker_monitor = WorkerMonitor()
