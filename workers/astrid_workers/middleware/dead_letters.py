"""Every dead letter says why it died, and is kept outside Redis before it is refused.

Owns the moment: just before Dramatiq moves the message, the reason is written into the message's own body
in Redis (options `dead_sentence`, `dead_at`) and given to `record`, which keeps it where Redis' retention
does not reach. Where `record` fails, it is asked again for a while; then the dead letter stands in Redis
alone, and the log says so.
"""

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import dramatiq
import redis
from dramatiq.common import q_name
from dramatiq.middleware import Middleware

from .fleet_keys import side_client

#: Seconds between two attempts to record, and attempts altogether: ten minutes.
RECORD_AGAIN_S = 5.0
ATTEMPTS = 120

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A message that nobody will retry by itself."""

    message_id: str
    queue: str
    actor: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    #: The whole message, to requeue it as it was.
    message: dict[str, Any]
    sentence: str
    #: Times that it was run by a process that lived on; 0 where no actor of that name was there.
    attempts: int
    died_at: datetime


class DeadLetters(Middleware):
    """Gives each dead letter its sentence, and to `record` where there is one."""

    def __init__(self, record: Callable[[DeadLetter], None] | None = None) -> None:
        self._record = record
        self._leaving = threading.Event()
        self._client: Any = None
        self._attempts: dict[str, int] = {}

    def before_worker_boot(self, broker: Any, _worker: Any) -> None:
        self._client = side_client(broker)

    def before_worker_shutdown(self, _broker: Any, _worker: Any) -> None:
        self._leaving.set()

    def before_process_message(self, _broker: Any, message: dramatiq.MessageProxy) -> None:
        self._attempts[message.message_id] = int(message.options.get("retries", 0)) + 1

    def after_ack(self, _broker: Any, message: dramatiq.MessageProxy) -> None:
        self._attempts.pop(message.message_id, None)

    def before_nack(self, broker: Any, message: dramatiq.MessageProxy) -> None:
        letter = _letter(message, self._attempts.pop(message.message_id, 0), datetime.now(UTC))
        _log.error("%s (%s) goes to the dead letters: %s", letter.actor, letter.message_id, letter.sentence)
        self._write_reason(broker, message, letter)
        if self._record is not None:
            self._record_patiently(self._record, letter)

    def _record_patiently(self, record: Callable[[DeadLetter], None], letter: DeadLetter) -> None:
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return record(letter)
            except Exception as error:  # noqa: BLE001 - whatever fails there, the message must be settled
                _log.warning(
                    "Dead letter %s is not recorded yet: %s", letter.message_id, error, exc_info=attempt == 1
                )
            if self._leaving.wait(RECORD_AGAIN_S):
                break
        _log.critical("Dead letter %s stands in Redis alone: it could not be recorded", letter.message_id)
        return None

    def _write_reason(self, broker: Any, message: dramatiq.MessageProxy, letter: DeadLetter) -> None:
        bodies = f"{broker.namespace}:{message.queue_name}.msgs"
        message_id = message.options.get("redis_message_id")
        message.options.update(dead_sentence=letter.sentence, dead_at=letter.died_at.isoformat())
        try:
            if (
                message_id is not None
                and self._client is not None
                and self._client.hexists(bodies, message_id)
            ):
                self._client.hset(bodies, message_id, message.encode())
        except (redis.RedisError, TypeError, ValueError) as error:
            _log.warning("The reason of %s could not be written to Redis: %s", message.message_id, error)


def _letter(message: dramatiq.MessageProxy, attempts: int, died_at: datetime) -> DeadLetter:
    body = message.asdict()
    error = message._exception
    return DeadLetter(
        message_id=message.message_id,
        queue=q_name(message.queue_name),
        actor=message.actor_name,
        args=tuple(message.args),
        kwargs=dict(message.kwargs),
        message=dict(body),
        sentence=_sentence(error),
        attempts=attempts,
        died_at=died_at,
    )


def _sentence(error: BaseException | None) -> str:
    if error is None:
        return "refused without a reason"
    return str(error) or type(error).__name__
