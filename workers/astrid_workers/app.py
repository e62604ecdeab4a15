"""What a worker process loads: `dramatiq astrid_workers.app`.

Owns the order: numeric libraries are limited before any is imported, then the broker, the actors of the
stages in WORKER_TYPE (all where it is not set), and `health_check`. Before the first message is taken,
the process sets up its log, checks every setting and waits for the database's schema: one that cannot
work ends, rather than let messages pay for it. Importing this module connects to nothing.
"""

import importlib
import logging
import os
import signal
import sys
from typing import Any, NoReturn

from astrid_workers.config import WorkerType, get_worker_config
from astrid_workers.errors import ServiceUnavailable, SettingRejected
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
from astrid_workers.worker_set import EXIT_UNUSABLE, die_with_parent  # noqa: E402

_log = logging.getLogger(__name__)


class ReadyToWork(Middleware):
    """What a worker process does once before it takes messages."""

    def before_worker_boot(self, _broker: Any, worker: Any) -> None:
        die_with_parent()
        configure_logging(os.environ.get("WORKER_LOG_LEVEL", "INFO"))
        try:
            check_settings()
            if worker.consumer_whitelist != {DEFAULT_QUEUE}:
                _wait_for_schema()
        except SettingRejected as error:
            _log.critical("This worker cannot use its settings: %s", error)
            raise SystemExit(EXIT_UNUSABLE) from error
        except ServiceUnavailable as error:
            _log.warning("Tasks will wait: %s", error)
        except Exception as error:  # Dramatiq would log it and take messages all the same
            _log.critical("This worker cannot start", exc_info=True)
            raise SystemExit(1) from error


def check_settings() -> None:
    """Raise SettingRejected where a variable cannot be used; connects to nothing."""
    from astrid_workers.settings import (
        CurationSettings,
        DifferencingSettings,
        ModelSettings,
        NotificationSettings,
    )
    from astrid_workers.storage.artifacts import get_store
    from astrid_workers.storage.database import configured_database

    configured_database()
    get_store()
    for settings in (CurationSettings, DifferencingSettings, ModelSettings, NotificationSettings):
        settings()


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


def main() -> int:
    """Check the settings and print what is loaded; the exit status."""
    try:
        check_settings()
    except SettingRejected as error:
        print(f"start_workers: {error}", file=sys.stderr)
        return EXIT_UNUSABLE
    print(describe())
    return 0


broker = get_broker()
broker.add_middleware(ReadyToWork(), before=type(broker.middleware[0]))
load(_config.worker_type.split(",") if _config.worker_type is not None else list(WorkerType))
