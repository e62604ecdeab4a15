"""What a worker process loads: `dramatiq astrid_workers.app`.

Owns the order: numeric libraries are limited before any is imported, then the broker, the actors of the
stages in WORKER_TYPE (all where it is not set), and `health_check`. Before the first message is taken,
the process sets up its log and waits for the database's schema. Importing this module connects to
nothing.
"""

import importlib
import os
import signal
from typing import Any, NoReturn

from astrid_workers.config import WorkerType, get_worker_config
from astrid_workers.numeric_threads import available_cores, limit_numeric_threads, numeric_threads

_config = get_worker_config()
limit_numeric_threads(
    numeric_threads(
        cores=available_cores(),
        max_cpu_percent=_config.max_cpu,
        processes=_config.processes,
        threads=_config.concurrency,
    )
)

from dramatiq.middleware import Middleware  # noqa: E402 - after the limit

from astrid_workers.broker import get_broker  # noqa: E402
from astrid_workers.config import DEFAULT_QUEUE  # noqa: E402
from astrid_workers.middleware.log_context import configure_logging  # noqa: E402
from astrid_workers.pipeline import LINK_OF, Stage  # noqa: E402
from astrid_workers.start_workers import die_with_parent  # noqa: E402


class ReadyToWork(Middleware):
    """What a worker process does once before it takes messages."""

    def before_worker_boot(self, _broker: Any, worker: Any) -> None:
        die_with_parent()
        configure_logging(os.environ.get("WORKER_LOG_LEVEL", "INFO"))
        if worker.consumer_whitelist != {DEFAULT_QUEUE}:
            _wait_for_schema()


def _wait_for_schema() -> None:
    """Return once the database can be worked with; a SIGTERM meanwhile ends the process at once."""
    from astrid_workers.storage.database import get_database

    def leave(*_: object) -> NoReturn:
        raise SystemExit(0)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        get_database()
    finally:
        signal.signal(signal.SIGTERM, before)


def load(worker_types: list[str]) -> None:
    """Import the actors of `worker_types`, and `health_check`; declare the queue that WORKER_QUEUE names."""
    for kind in (kind for kind in worker_types if kind != DEFAULT_QUEUE):
        importlib.import_module(LINK_OF[Stage(kind)].module)
    importlib.import_module("astrid_workers.health")
    if get_worker_config().given("queue_name"):
        get_broker().declare_queue(get_worker_config().queue_name)


def describe() -> str:
    """The actors that are loaded, one line per queue."""
    actors = get_broker().actors.values()
    queues = sorted({actor.queue_name for actor in actors})
    return "\n".join(
        f"{queue}: {', '.join(sorted(actor.actor_name for actor in actors if actor.queue_name == queue))}"
        for queue in queues
    )


broker = get_broker()
broker.add_middleware(ReadyToWork(), before=type(broker.middleware[0]))
load(_config.worker_type.split(",") if _config.worker_type is not None else list(WorkerType))
