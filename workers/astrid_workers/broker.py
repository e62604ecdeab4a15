"""The one Dramatiq broker of a process, the decorator of its actors, and messages sent by name.

Owns which middleware runs, what a retry waits, how long results and dead letters are kept, and that only
JSON travels. Importing this module connects to nothing: the broker is built on first use and its clients
connect with their first command. Never imports an actor.
"""

import functools
import importlib.metadata
import threading
from collections.abc import Callable
from typing import Any, Literal, ParamSpec, TypeVar

import dramatiq
from dramatiq.middleware import AgeLimit, Callbacks, Middleware, Pipelines, ShutdownNotifications
from dramatiq.results import Results

from astrid_workers.config import get_worker_config, queue_settings
from astrid_workers.errors import PermanentFailure, ServiceUnavailable
from astrid_workers.middleware.dead_letters import DeadLetter
from astrid_workers.middleware.log_context import LogContext
from astrid_workers.middleware.order import surround
from astrid_workers.middleware.retries import REDIS_AWAY, PatientRetries
from astrid_workers.pipeline import Stage, following
from astrid_workers.queue_limits import QueueLimits
from astrid_workers.redis_address import redis_client
from astrid_workers.redis_broker import QueueBroker
from astrid_workers.result_backend import PatientResults

P = ParamSpec("P")
R = TypeVar("R")

#: Milliseconds that Redis keeps a dead letter: ten years, as any client's maintenance deletes older ones.
DEAD_MESSAGE_TTL_MS = 10 * 365 * 86_400_000

#: What every task needs: while one is away, tasks wait for it without spending their retries.
OWN_SERVICES = ("database", "artifact store", "broker")

_building = threading.Lock()


def get_broker() -> QueueBroker:
    """The process's broker, built on first use from `get_worker_config()` and set as Dramatiq's own."""
    with _building:
        return _broker()


@functools.cache
def _broker() -> QueueBroker:
    config = get_worker_config()
    broker = QueueBroker(
        prefetch_of=lambda queue: queue_settings(queue).prefetch,
        client=redis_client(config.broker_url),
        namespace=config.namespace,
        dead_message_ttl=DEAD_MESSAGE_TTL_MS,
        middleware=_middleware(),
    )
    dramatiq.set_encoder(dramatiq.JSONEncoder())
    dramatiq.set_broker(broker)
    return broker


def _middleware() -> list[Middleware]:
    config = get_worker_config()
    backend = PatientResults(client=redis_client(config.result_backend), encoder=dramatiq.JSONEncoder())
    inner = [
        Results(backend=backend, result_ttl=config.result_ttl * 1000),  # type: ignore[no-untyped-call]
        AgeLimit(),
        ShutdownNotifications(),
        Callbacks(),
        Pipelines(),
        PatientRetries(service_away),
    ]
    return [
        LogContext(),
        QueueLimits(_limits),
        *surround(
            inner,
            max_retries=config.max_retries,
            time_limit_ms=config.worker_timeout * 1000,
            max_memory_mb=config.max_memory,
            version=importlib.metadata.version("astrid"),
            record=_record_dead_letter,
        ),
    ]


def service_away(error: BaseException) -> str | None:
    """The service that every task needs and whose absence `error` tells; None: `error` is about one task.

    An archive that frames come from and a receiver of alerts are not among them: they are one task's affair.
    """
    service = error.numbers.get("service") if isinstance(error, ServiceUnavailable) else None
    return str(service) if service in OWN_SERVICES else None


def _limits(queue_name: str) -> dict[str, int]:
    settings = queue_settings(queue_name)
    return {
        "max_retries": settings.max_retries,
        "min_backoff": settings.retry_delay_ms,
        "max_backoff": settings.max_retry_delay_ms,
        "time_limit": settings.timeout_s * 1000,
    }


def _record_dead_letter(letter: DeadLetter) -> None:
    """Write the row; imported here, so that sending a message needs no database."""
    from astrid_workers.dead_letter_rows import record_dead_letter

    record_dead_letter(letter)


def actor(stage: Stage | Literal["default"]) -> Callable[[Callable[P, R]], dramatiq.Actor[P, R]]:
    """Declare a function as an actor of `stage`, on the stage's queue.

    Its result is stored. `PermanentFailure` goes to the dead letters at once, all else is retried as its
    queue says.
    """
    queue = str(stage)

    def declare(function: Callable[P, R]) -> dramatiq.Actor[P, R]:
        return dramatiq.Actor(
            function,
            broker=get_broker(),
            actor_name=function.__name__,
            queue_name=queue,
            priority=queue_settings(queue).priority,
            options={"store_results": True, "throws": PermanentFailure},
        )

    return declare


def send(actor_name: str, queue: str, *args: Any) -> str:
    """Send a message to an actor by name, without importing it, and return the message's id.

    Raises `ServiceUnavailable` where the broker does not answer; the message may then have been sent or not.
    """
    message: dramatiq.Message[Any] = dramatiq.Message(
        queue_name=queue, actor_name=actor_name, args=args, kwargs={}, options={}
    )
    try:
        return get_broker().enqueue(message).message_id
    except REDIS_AWAY as error:
        raise ServiceUnavailable(f"the broker does not answer: {error}", service="broker") from error


def send_next(stage: Stage, *args: Any) -> str:
    """Send to the actor that follows `stage`; the message's id. `ValueError` after the last stage."""
    link = following(stage)
    if link is None:
        raise ValueError(f"nothing follows {stage}")
    return send(link.actor, link.stage, *args)
