"""The one Dramatiq broker of a process, the decorator of its actors, and messages sent by name.

Owns which middleware runs and in which order, what a retry waits, how long results and dead letters are
kept, and that only JSON travels. Importing this module connects to nothing: the broker is built on first use
and its clients connect with their first command. Never imports an actor.
"""

import functools
import threading
from collections.abc import Callable
from typing import Any, Literal, ParamSpec, TypeVar

import dramatiq
import redis
from dramatiq.brokers.redis import RedisBroker
from dramatiq.middleware import AgeLimit, Callbacks, Middleware, Pipelines, Retries, ShutdownNotifications
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend

from astrid_workers.config import DEFAULT_QUEUE, get_worker_config, queue_settings
from astrid_workers.errors import PermanentFailure, ServiceUnavailable
from astrid_workers.pipeline import Stage, following

P = ParamSpec("P")
R = TypeVar("R")

#: Milliseconds that Redis keeps a dead letter: ten years, as any client's maintenance deletes older ones.
DEAD_MESSAGE_TTL_MS = 10 * 365 * 86_400_000

#: Seconds that a connection may take, and one answer.
CONNECT_TIMEOUT_S = 5.0
ANSWER_TIMEOUT_S = 15.0

_building = threading.Lock()


def get_broker() -> RedisBroker:
    """The process's broker, built on first use from `get_worker_config()` and set as Dramatiq's own."""
    with _building:
        return _broker()


@functools.cache
def _broker() -> RedisBroker:
    config = get_worker_config()
    broker: RedisBroker = RedisBroker(  # type: ignore[no-untyped-call]
        client=redis_client(config.broker_url),
        namespace=config.namespace,
        dead_message_ttl=DEAD_MESSAGE_TTL_MS,
        middleware=_middleware(),
    )
    dramatiq.set_encoder(dramatiq.JSONEncoder())
    dramatiq.set_broker(broker)
    return broker


def redis_client(url: str) -> redis.Redis:
    """A client that gives up on a silent server instead of waiting for ever."""
    return redis.Redis.from_url(
        url,
        socket_connect_timeout=CONNECT_TIMEOUT_S,
        socket_timeout=ANSWER_TIMEOUT_S,
        health_check_interval=30,
    )


def _middleware() -> list[Middleware]:
    config = get_worker_config()
    backend = RedisBackend(client=redis_client(config.result_backend), encoder=dramatiq.JSONEncoder())
    return [
        QueueSettingsMiddleware(),
        Results(backend=backend, result_ttl=config.result_ttl * 1000),  # type: ignore[no-untyped-call]
        AgeLimit(),
        ShutdownNotifications(),
        Callbacks(),
        Pipelines(),
        Retries(),
    ]


class QueueSettingsMiddleware(Middleware):
    """Gives an actor the retries and the back-off of its queue, anew for every message."""

    def after_declare_actor(self, _broker: dramatiq.Broker, actor: dramatiq.Actor[..., Any]) -> None:
        actor.options.update(_options(actor.queue_name))

    def before_process_message(self, broker: dramatiq.Broker, message: dramatiq.MessageProxy) -> None:
        broker.get_actor(message.actor_name).options.update(_options(message.queue_name))


def _options(queue_name: str) -> dict[str, int]:
    settings = queue_settings(queue_name)
    return {
        "max_retries": settings.max_retries,
        "min_backoff": settings.retry_delay_ms,
        "max_backoff": settings.max_retry_delay_ms,
    }


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
    except (redis.ConnectionError, redis.TimeoutError) as error:
        raise ServiceUnavailable(f"the broker does not answer: {error}") from error


def send_next(stage: Stage, *args: Any) -> str:
    """Send to the actor that follows `stage`; the message's id. `ValueError` after the last stage."""
    link = following(stage)
    if link is None:
        raise ValueError(f"nothing follows {stage}")
    return send(link.actor, link.stage, *args)


__all__ = ["DEFAULT_QUEUE", "actor", "get_broker", "redis_client", "send", "send_next"]
