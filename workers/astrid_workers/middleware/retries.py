"""Retries that wait for Redis instead of being lost with it.

Owns one thing: Dramatiq acknowledges a message whose retry it could not enqueue, once Redis is back, and
the task is gone. Here the retry waits, in the thread that ran the task, until Redis takes it. What is
retried when, and how often, stays Dramatiq's.
"""

import logging
import threading
from typing import Any

import dramatiq
import redis
from dramatiq.errors import BrokerConnectionError
from dramatiq.middleware import Retries

#: Seconds between two attempts to enqueue a retry.
AGAIN_S = 2.0

_log = logging.getLogger(__name__)
_pause = threading.Event()


class PatientRetries(Retries):
    """Dramatiq's retries, tried again for as long as Redis does not answer."""

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
                super().after_process_message(broker, message, result=result, exception=exception)  # type: ignore[no-untyped-call]
            except (redis.ConnectionError, redis.TimeoutError, BrokerConnectionError) as error:
                _log.warning("The retry of %s waits for Redis: %s", message.message_id, error)
                message.options.clear()
                message.options.update(options)
                _pause.wait(AGAIN_S)
            else:
                return
