"""What `start_workers` will run: decided from flags and settings, before anything is started.

Owns which queues are served by which stages' actors, and the numbers that Dramatiq gets. Pure; raises
`SettingRejected` with a sentence that lists what is valid.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from astrid_workers.config import (
    DEFAULT_QUEUE,
    QueueSettings,
    TaskQueue,
    WorkerConfig,
    WorkerType,
    get_task_queues,
    queue_settings,
)
from astrid_workers.errors import SettingRejected
from astrid_workers.numeric_threads import numeric_threads

#: What each worker process loads.
APP = "astrid_workers.app"

#: Milliseconds for which Dramatiq hears no signal while its processes boot; 30 s unless told.
FORK_TIMEOUT_MS = "100"

#: Seconds beyond the longest time limit that a stopping worker is given to finish.
SHUTDOWN_SLACK_S = 30


@dataclass(frozen=True, slots=True)
class StartPlan:
    """Worker processes to run: which actors they load, which queues they consume, and with what numbers."""

    worker_types: tuple[str, ...]
    queues: tuple[QueueSettings, ...]
    processes: int
    #: Of each process, shared by its queues; each queue uses at most its own concurrency.
    threads: int
    numeric_threads: int
    max_memory_mb: int
    #: How long a stopping worker may take.
    shutdown_timeout_ms: int

    def arguments(self) -> list[str]:
        """Dramatiq's command line for one process."""
        return [
            APP,
            *("--processes", "1", "--threads", str(self.threads)),
            *("--worker-shutdown-timeout", str(self.shutdown_timeout_ms), "--skip-logging"),
            *("--worker-fork-timeout", FORK_TIMEOUT_MS),
            *("--queues", *(queue.queue_name for queue in self.queues)),
        ]

    def environment(self) -> dict[str, str]:
        """Variables that the processes need beside their own; Dramatiq reads its two when it is imported."""
        return {
            "WORKER_TYPE": ",".join(self.worker_types),
            "WORKER_PROCESSES": str(self.processes),
            "dramatiq_queue_prefetch": str(max(queue.prefetch for queue in self.queues)),
        }

    def lines(self) -> list[str]:
        """The plan for people, one line per queue."""
        memory = f"{self.max_memory_mb} MB" if self.max_memory_mb else "none"
        head = (
            f"processes {self.processes}, threads {self.threads} each, {self.numeric_threads} numeric,"
            f" memory limit {memory}, stages {', '.join(self.worker_types)}"
        )
        return [head, *(_line(queue) for queue in self.queues)]


def plan_start(
    config: WorkerConfig,
    *,
    worker_types: Sequence[str] = (),
    queues: Sequence[str] = (),
    cores: float,
    shutdown_timeout_ms: int | None = None,
) -> StartPlan:
    """Decide from flags (`worker_types`, `queues`; empty where not given) and settings.

    A stopping worker may take its longest time limit and some slack, unless `shutdown_timeout_ms` says else.

    Without any choice all enabled queues are served, and the queue of `health_check`. Queues alone load
    the actors that they need; types alone serve their own queues; with both, each queue must belong to
    one of the types. A queue outside the table is valid where WORKER_QUEUE names it and one worker type
    is given.
    """
    if shutdown_timeout_ms is not None and shutdown_timeout_ms < 1:
        raise SettingRejected(f"--worker-shutdown-timeout is {shutdown_timeout_ms}, must be at least 1")
    types = tuple(worker_types) or tuple((config.worker_type or "").split(",") if config.worker_type else ())
    _refuse_unknown("worker type", types, {*WorkerType, DEFAULT_QUEUE})
    wanted = tuple(queues) or ((config.queue_name,) if config.given("queue_name") else ())
    if wanted:
        served = tuple(dict.fromkeys(wanted))
        loaded = types or _types_of(served, config)
        _refuse_foreign(served, loaded, config)
    else:
        rows = [row for row in get_task_queues() if row.enabled and (not types or row.worker_type in types)]
        beside = (DEFAULT_QUEUE,) if not types or DEFAULT_QUEUE in types else ()
        served = (*(row.queue_name for row in rows), *beside)
        loaded = types or tuple(dict.fromkeys(row.worker_type.value for row in rows))
        if not served:
            raise SettingRejected(f"every queue of {', '.join(types)} is disabled in the queue table")
    settings = tuple(queue_settings(queue, config) for queue in served)
    threads = config.concurrency if config.given("concurrency") else _threads(settings)
    return StartPlan(
        worker_types=loaded,
        queues=settings,
        processes=config.processes,
        threads=threads,
        numeric_threads=numeric_threads(
            cores=cores, max_cpu_percent=config.max_cpu, processes=config.processes, threads=threads
        ),
        max_memory_mb=config.max_memory,
        shutdown_timeout_ms=shutdown_timeout_ms
        or (max(queue.timeout_s for queue in settings) + SHUTDOWN_SLACK_S) * 1000,
    )


def _threads(settings: Sequence[QueueSettings]) -> int:
    """Enough for every queue at once; `health_check` beside other queues needs one."""
    beside = len(settings) > 1
    return sum(1 if beside and one.queue_name == DEFAULT_QUEUE else one.concurrency for one in settings)


def _rows() -> Mapping[str, TaskQueue]:
    return {row.queue_name: row for row in get_task_queues()}


def _types_of(queues: Sequence[str], config: WorkerConfig) -> tuple[str, ...]:
    valid = {*_rows(), DEFAULT_QUEUE}
    if own := [queue for queue in queues if queue not in valid and queue == config.queue_name]:
        raise SettingRejected(
            f"WORKER_QUEUE is {own[0]!r}, which no worker type serves by itself: WORKER_TYPE must be one of"
            f" {', '.join(WorkerType)}"
        )
    _refuse_unknown("queue", queues, valid)
    stages = dict.fromkeys(_rows()[queue].worker_type.value for queue in queues if queue in _rows())
    return tuple(stages) or (DEFAULT_QUEUE,)


def _refuse_foreign(queues: Sequence[str], types: Sequence[str], config: WorkerConfig) -> None:
    own = {config.queue_name} if config.given("queue_name") else set()
    _refuse_unknown("queue", queues, {*_rows(), DEFAULT_QUEUE, *own})
    for queue in queues:
        row = _rows().get(queue)
        if row is not None and row.worker_type not in types:
            raise SettingRejected(
                f"queue {queue} belongs to worker type {row.worker_type}, which is none of {', '.join(types)}"
            )
        if row is not None and not row.enabled:
            raise SettingRejected(f"queue {queue} is disabled in the queue table")


def _refuse_unknown(what: str, names: Sequence[str], valid: set[str]) -> None:
    for name in names:
        if name not in valid:
            raise SettingRejected(f"unknown {what} {name!r}; there are {', '.join(sorted(valid))}")


def _line(queue: QueueSettings) -> str:
    return (
        f"  {queue.queue_name}: concurrency {queue.concurrency}, prefetch {queue.prefetch}, timeout"
        f" {queue.timeout_s} s, retries {queue.max_retries} after {queue.retry_delay_ms} to"
        f" {queue.max_retry_delay_ms} ms, priority {queue.priority}"
    )
