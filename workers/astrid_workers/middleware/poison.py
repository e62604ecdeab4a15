"""A message that takes its process down is not run for ever.

Owns `starts:<queue>`: how often a message was started without having ended. Dramatiq counts no such start
as a retry, so that a task which is killed (out of memory, a crash in C code) would come back without end.
After `max_retries + 1` of them the message is refused with that reason, before it is run again. While
Redis is away nothing is refused.
"""

import logging
from typing import Any

import dramatiq
import redis
from dramatiq.common import q_name
from dramatiq.middleware import Middleware, SkipMessage

from .fleet_keys import side_client, starts_key

#: Retries where neither message nor actor says; Dramatiq's own default is 20.
DEFAULT_MAX_RETRIES = 3

_log = logging.getLogger(__name__)


class PoisonRefused(SkipMessage):
    """The message took its process down too often; the sentence says how often."""


class Poison(Middleware):
    """Refuses messages that were started too often without having ended."""

    def __init__(self, *, max_retries: int = DEFAULT_MAX_RETRIES) -> None:
        self.max_retries = max_retries
        self._client: Any = None

    def before_worker_boot(self, broker: Any, _worker: Any) -> None:
        self._client = side_client(broker)

    def before_process_message(self, broker: Any, message: dramatiq.MessageProxy) -> None:
        options = broker.get_actor(message.actor_name).options
        max_retries = message.options.get("max_retries", options.get("max_retries"))
        limit = (self.max_retries if max_retries is None else int(max_retries)) + 1
        without_end = self._count_start(broker, message) - 1
        if without_end >= limit:
            message.fail()
            raise PoisonRefused(
                f"took its process down {without_end} times (started and never ended), the limit is {limit}"
            )

    def after_process_message(self, broker: Any, message: dramatiq.MessageProxy, **_: Any) -> None:
        try:
            self._client.hdel(starts_key(broker.namespace, q_name(message.queue_name)), message.message_id)
        except redis.RedisError as error:
            _log.warning("The end of %s could not be counted: %s", message.message_id, error)

    def after_skip_message(self, broker: Any, message: dramatiq.MessageProxy) -> None:
        self.after_process_message(broker, message)

    def _count_start(self, broker: Any, message: dramatiq.MessageProxy) -> int:
        key = starts_key(broker.namespace, q_name(message.queue_name))
        try:
            return int(self._client.hincrby(key, message.message_id, 1))
        except redis.RedisError as error:
            _log.warning("The start of %s could not be counted: %s", message.message_id, error)
            return 1
