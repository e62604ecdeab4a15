"""Retries that wait for what the fleet itself needs, instead of being spent or lost with it.

Owns two things. Dramatiq acknowledges a message whose retry it could not enqueue, once Redis is back, and
the task is gone: here the retry waits, in the thread that ran the task, until Redis takes it. And while a
service is away that every task needs, tasks that fail for that wait for it as delayed messages and spend no
retry: the message is not to blame. What else is retried when, and how often, stays Dramatiq's.
"""

import logging
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import dramatiq
import redis
from dramatiq.common import compute_backoff
from dramatiq.errors import BrokerConnectionError
from dramatiq.middleware import Retries

#: What Redis says while it takes nothing: away, loading, full, or a replica for now.
REDIS_AWAY = (
    redis.ConnectionError,
    redis.TimeoutError,
    redis.exceptions.OutOfMemoryError,
    redis.ReadOnlyError,
    BrokerConnectionError,
)

#: Seconds between two attempts to enqueue a retry.
AGAIN_S = 2.0
#: Longest pause between two tries of a task that waits for a service, in milliseconds.
LONGEST_WAIT_MS = 30_000
#: Milliseconds for which a message waits for a service before its retries are spent after all: a week.
PATIENCE_MS = 7 * 86_400_000

_log = logging.getLogger(__name__)
_pause = threading.Event()


class PatientRetries(Retries):
    """Dramatiq's retries, tried again for as long as Redis does not answer.

    `service_away` names the service for whose absence an exception stands, None for any other exception.
    """

    def __init__(self, service_away: Callable[[BaseException], str | None] = lambda _: None) -> None:
        super().__init__()
        self._service_away = service_away

    def after_process_message(
        self,
        broker: Any,
        message: dramatiq.MessageProxy,
        *,
        result: Any = None,
        exception: BaseException | None = None,
    ) -> None:
        options = dict(message.options)
        while True:
            try:
                self._retry(broker, message, result, exception)
            except REDIS_AWAY as error:
                _log.warning("The retry of %s waits for Redis: %s", message.message_id, error)
                message.options.clear()
                message.options.update(options)
                _pause.wait(AGAIN_S)
            else:
                return

    def _retry(
        self, broker: Any, message: dramatiq.MessageProxy, result: Any, exception: BaseException | None
    ) -> None:
        service = None if exception is None else self._service_away(exception)
        now_ms = int(time.time() * 1000)
        since_ms: int = message.options.get("waiting_since", now_ms)
        if service is None or now_ms - since_ms > PATIENCE_MS:
            super().after_process_message(broker, message, result=result, exception=exception)  # type: ignore[no-untyped-call]
            return
        waits: int = message.options.get("waits", 0)
        delay_ms = self._pause_ms(broker, message, waits)
        message.options.update(waiting_since=since_ms, waits=waits + 1, requeue_timestamp=now_ms)
        since = datetime.fromtimestamp(since_ms / 1000, UTC).isoformat(timespec="seconds")
        _log.warning(
            "%s waits since %s for the %s, and tries again in %.1f s: %s",
            *(message.message_id, since, service, delay_ms / 1000, exception),
        )
        broker.enqueue(message, delay=delay_ms)

    def _pause_ms(self, broker: Any, message: dramatiq.MessageProxy, waits: int) -> int:
        """Growing as between retries, but never long: many wait, and all should go on soon after."""
        options = broker.get_actor(message.actor_name).options
        longest = min(options.get("max_backoff") or self.max_backoff, LONGEST_WAIT_MS)
        factor = options.get("min_backoff") or self.min_backoff
        return int(compute_backoff(waits, factor=factor, max_backoff=longest)[1])
