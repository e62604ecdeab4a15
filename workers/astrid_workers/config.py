"""What a worker obeys: its variables, the queue table, and what follows from both for one queue.

Owns names, defaults and units of the worker's settings and their precedence, per queue:

    flag  >  variable  >  queue table (`get_task_queues`)  >  built-in

`get_worker_config()` and `get_task_queues()` return the process's own objects, so that changing them has
effect: an attribute that is assigned counts as a flag. Retries, back-off and time limit are looked up for
every message, so they hold from the next message on; what sizes a process (concurrency, prefetch, memory,
CPU) and its addresses are read once, so they are changed before the broker is built. Other processes are told
by their own environment.
Never connects to anything and starts nothing.
"""

import functools
import os
from collections.abc import Callable, Mapping
from dataclasses import Field, dataclass, field, fields
from enum import StrEnum
from typing import Any

from astrid_workers.errors import SettingRejected
from astrid_workers.redis_address import check_address, redacted

#: The queue that only `health_check` listens on.
DEFAULT_QUEUE = "default"


class WorkerType(StrEnum):
    """The stages whose actors a worker can load; the names are those of the stages and their queues."""

    OBSERVATION_INGESTION = "observation_ingestion"
    PREPROCESSING = "preprocessing"
    DIFFERENCING = "differencing"
    DETECTION = "detection"
    CURATION = "curation"
    NOTIFICATION = "notification"


@dataclass(slots=True)
class TaskQueue:
    """One row of the queue table; a change holds from the next message or the next start on."""

    queue_name: str
    worker_type: WorkerType
    #: Lower is taken first among the messages that one process serving several queues holds.
    priority: int
    max_retries: int
    #: Seconds that one task may take.
    timeout: int
    #: Tasks that one process works on at once.
    concurrency: int
    enabled: bool = True


def _built_in_table() -> list[TaskQueue]:
    rows = (
        (WorkerType.OBSERVATION_INGESTION, 1, 3, 300, 2),
        (WorkerType.PREPROCESSING, 2, 3, 600, 2),
        (WorkerType.DIFFERENCING, 3, 3, 900, 1),
        (WorkerType.DETECTION, 4, 3, 1200, 1),
        (WorkerType.CURATION, 5, 2, 300, 1),
        (WorkerType.NOTIFICATION, 6, 2, 60, 3),
    )
    return [
        TaskQueue(kind.value, kind, priority, max_retries, timeout, concurrency)
        for kind, priority, max_retries, timeout, concurrency in rows
    ]


@dataclass(frozen=True, slots=True)
class QueueSettings:
    """What holds for one queue in this process, after precedence."""

    queue_name: str
    priority: int
    max_retries: int
    retry_delay_ms: int
    max_retry_delay_ms: int
    timeout_s: int
    concurrency: int
    #: Messages of this queue that one process may hold, running ones included.
    prefetch: int


def _whole_number(least: int) -> Callable[[Any], int]:
    expected = f"a whole number of at least {least}"

    def parse(value: Any) -> int:
        try:
            number = int(value)
        except (TypeError, ValueError):
            raise ValueError(expected) from None
        if number < least or isinstance(value, bool) or (isinstance(value, float) and number != value):
            raise ValueError(expected)
        return number

    return parse


def _redis_address(value: Any) -> str:
    try:
        check_address(str(value))
    except ValueError as trouble:
        raise ValueError(f"an address of a Redis: {trouble}") from None
    return str(value)


def _plain_name(value: Any) -> str:
    if not str(value) or any(sign.isspace() or sign in "*,:" for sign in str(value)):
        raise ValueError("a name without spaces, commas, colons or stars")
    return str(value)


def _worker_type(value: Any) -> str:
    names = [part.strip() for part in str(value).split(",")]
    if unknown := [name for name in names if name not in {*WorkerType, DEFAULT_QUEUE}]:
        raise ValueError(f"one or more of {', '.join(WorkerType)}, {DEFAULT_QUEUE} ({unknown[0]!r} is none)")
    return ",".join(names)


def _switch(value: Any) -> bool:
    words = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    if isinstance(value, bool):
        return value
    if str(value).lower() not in words:
        raise ValueError("true or false")
    return words[str(value).lower()]


def _shown_address(value: Any) -> str:
    return redacted(str(value))


def _setting(
    default: Any, variable: str | None, parse: Callable[[Any], Any], show: Callable[[Any], str] = repr
) -> Any:
    """A field that knows its variable; `default` is the built-in end of the precedence.

    `show` is how a refusal repeats a value; one that is not shown as it is stays out of `repr`.
    """
    facts = {"variable": variable, "parse": parse, "show": show}
    return field(default=default, metadata=facts, repr=show is repr)


@dataclass(init=False)
class WorkerConfig:
    """The worker's settings: built-in defaults, then the environment, then whatever was assigned.

    Assigning checks as reading does: `config.max_retries = "many"` raises `SettingRejected` naming it.
    """

    broker_url: str = _setting("redis://localhost:6379/0", "REDIS_URL", _redis_address, _shown_address)
    #: Where results are kept; the broker's own address where only that one is given.
    result_backend: str = _setting(
        "redis://localhost:6379/1", "REDIS_RESULT_URL", _redis_address, _shown_address
    )
    max_retries: int = _setting(3, "WORKER_MAX_RETRIES", _whole_number(0))
    #: Milliseconds before the first retry; each further one waits about twice as long.
    retry_delay: int = _setting(1000, "WORKER_RETRY_DELAY", _whole_number(1))
    #: Milliseconds that a retry waits at most.
    max_retry_delay: int = _setting(300_000, "WORKER_MAX_RETRY_DELAY", _whole_number(1))
    #: Seconds that one task may take.
    worker_timeout: int = _setting(300, "WORKER_TIMEOUT", _whole_number(1))
    #: MB (10⁶ bytes) of resident memory above which a process is replaced after its task; 0: never.
    max_memory: int = _setting(1024, "WORKER_MAX_MEMORY", _whole_number(0))
    #: Percent of the machine's cores that the numeric libraries of all processes together may use.
    max_cpu: int = _setting(80, "WORKER_MAX_CPU", _whole_number(1))
    #: Tasks that one process works on at once.
    concurrency: int = _setting(4, "WORKER_CONCURRENCY", _whole_number(1))
    #: Without `prefetch` that is concurrency × this; 1, since what one process holds no other can take.
    prefetch_multiplier: int = _setting(1, "WORKER_PREFETCH_MULTIPLIER", _whole_number(1))
    queue_name: str = _setting(DEFAULT_QUEUE, "WORKER_QUEUE", _plain_name)
    #: Lower is taken first among the messages that one process holds.
    priority: int = _setting(0, None, _whole_number(0))
    enabled: bool = _setting(True, None, _switch)
    #: Stages whose actors are loaded, separated by commas, `default` for none; not given: all.
    worker_type: str | None = _setting(None, "WORKER_TYPE", _worker_type)
    #: Worker processes that one `start_workers` runs.
    processes: int = _setting(1, "WORKER_PROCESSES", _whole_number(1))
    #: Messages per queue that a process may hold; none given: concurrency × `prefetch_multiplier`.
    prefetch: int | None = _setting(None, "WORKER_PREFETCH", _whole_number(1))
    #: Prefix of Dramatiq's keys.
    namespace: str = _setting("dramatiq", "WORKER_NAMESPACE", _plain_name)
    #: Seconds for which a result is kept.
    result_ttl: int = _setting(86_400, "WORKER_RESULT_TTL", _whole_number(1))

    #: Names of what was not left to the table or the built-in values.
    _given: set[str] = field(init=False, repr=False, compare=False)

    def __init__(self, environment: Mapping[str, str] | None = None, **values: Any) -> None:
        """Read `environment` (none: the process's own), then assign `values`. Raises `SettingRejected`."""
        object.__setattr__(self, "_given", set())
        variables = os.environ if environment is None else environment
        for name, one in _settings().items():
            object.__setattr__(self, name, one.default)
            if text := variables.get(one.metadata["variable"] or ""):
                self._assign(name, text, one.metadata["variable"])
        for name, value in values.items():
            setattr(self, name, value)
        if self.given("broker_url") and not self.given("result_backend"):
            object.__setattr__(self, "result_backend", self.broker_url)

    def __setattr__(self, name: str, value: Any) -> None:
        self._assign(name, value, name)

    def given(self, name: str) -> bool:
        """Whether `name` was set by its variable or by assignment, not left to the table or built in."""
        return name in self._given

    def _assign(self, name: str, value: Any, known_as: str) -> None:
        if name not in _settings():
            raise SettingRejected(
                f"{name} is no setting of a worker; there are {', '.join(sorted(_settings()))}"
            )
        parse, show = (_settings()[name].metadata[each] for each in ("parse", "show"))
        try:
            parsed = parse(value)
        except ValueError as expected:
            raise SettingRejected(f"{known_as} is {show(value)}, must be {expected}") from None
        object.__setattr__(self, name, parsed)
        self._given.add(name)


@functools.cache
def _settings() -> dict[str, Field[Any]]:
    return {one.name: one for one in fields(WorkerConfig) if one.metadata}


def variables() -> dict[str, str]:
    """Variable → name of the setting that it sets."""
    return {one.metadata["variable"]: name for name, one in _settings().items() if one.metadata["variable"]}


@functools.cache
def get_worker_config() -> WorkerConfig:
    """This process's settings; always the same object. Raises `SettingRejected` naming the variable."""
    return WorkerConfig()


@functools.cache
def get_task_queues() -> list[TaskQueue]:
    """This process's queue table; always the same list. A row that is added is a queue that may be served."""
    return _built_in_table()


def task_queue(queue_name: str, config: WorkerConfig | None = None) -> TaskQueue | None:
    """The table's row for `queue_name`; for a queue of another name, that of the worker type given."""
    rows = get_task_queues()
    if named := next((row for row in rows if row.queue_name == queue_name), None):
        return named
    kind = None if queue_name == DEFAULT_QUEUE else (config or get_worker_config()).worker_type
    return next((row for row in rows if row.worker_type == kind), None)


def queue_settings(queue_name: str, config: WorkerConfig | None = None) -> QueueSettings:
    """What holds for `queue_name` now: what was given, else the table's row, else what is built in."""
    config = config or get_worker_config()
    row = task_queue(queue_name, config)

    def pick(setting: str, column: str) -> int:
        from_table = row is not None and not config.given(setting)
        value: int = getattr(row, column) if from_table else getattr(config, setting)
        return value

    concurrency = pick("concurrency", "concurrency")
    return QueueSettings(
        queue_name=queue_name,
        priority=pick("priority", "priority"),
        max_retries=pick("max_retries", "max_retries"),
        retry_delay_ms=config.retry_delay,
        max_retry_delay_ms=max(config.max_retry_delay, config.retry_delay),
        timeout_s=pick("worker_timeout", "timeout"),
        concurrency=concurrency,
        prefetch=config.prefetch or concurrency * config.prefetch_multiplier,
    )
