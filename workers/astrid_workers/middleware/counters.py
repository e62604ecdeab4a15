"""How many tasks of each queue were started, finished, failed, retried and given up, how long they took, and
how long they had waited.

Owns `counters:<queue>` and, hour by hour for a week, `hours:<queue>`. Counts that Redis does not take are
kept and written with the next ones. Never reads but to remove what is older than a week.
"""

import logging
import threading
import time
from collections import defaultdict
from typing import Any

import dramatiq
import redis
from dramatiq.common import q_name
from dramatiq.middleware import Middleware

from .fleet_keys import HOURS_KEPT, counters_key, hours_key, side_client
from .waits import counts_of, note_due, waited_seconds

#: What is also counted hour by hour.
HOURLY = ("finished", "failed", "seconds")

_log = logging.getLogger(__name__)


class Counters(Middleware):
    """Adds up, per queue, what tasks did; `seconds` and `seconds_squared` over finished and failed ones."""

    def __init__(self) -> None:
        self._client: Any = None
        self._since: dict[int, float] = {}
        self._unwritten: defaultdict[tuple[str, str], float] = defaultdict(float)
        self._own: defaultdict[tuple[str, str], float] = defaultdict(float)
        self._hour = 0
        self._lock = threading.Lock()

    def of_this_process(self, queue: str) -> dict[str, float]:
        """What this process alone has finished and failed of `queue`, and the seconds that it took."""
        with self._lock:
            return {name: round(self._own[queue, name], 3) for name in HOURLY}

    def before_worker_boot(self, broker: Any, _worker: Any) -> None:
        self._client = side_client(broker)

    def before_enqueue(self, _broker: Any, message: dramatiq.Message[Any], _delay: int | None) -> None:
        note_due(message.options)

    def before_delay_message(self, _broker: Any, message: dramatiq.MessageProxy) -> None:
        note_due(message.options)

    def before_process_message(self, broker: Any, message: dramatiq.MessageProxy) -> None:
        self._since[threading.get_ident()] = time.monotonic()
        waited = waited_seconds(message.message_timestamp, message.options, time.time() * 1000)
        self._add(broker, message, started=1, **({} if waited is None else counts_of(waited)))

    def after_process_message(
        self,
        broker: Any,
        message: dramatiq.MessageProxy,
        *,
        result: Any = None,  # noqa: ARG002 - a hook's own name
        exception: BaseException | None = None,
    ) -> None:
        seconds = time.monotonic() - self._since.pop(threading.get_ident(), time.monotonic())
        ending = {"finished": 1} if exception is None else {"failed": 1, "retried": int(not message.failed)}
        self._add(broker, message, **ending, seconds=seconds, seconds_squared=seconds**2)

    def after_skip_message(self, _broker: Any, _message: dramatiq.MessageProxy) -> None:
        self._since.pop(threading.get_ident(), None)

    def after_nack(self, broker: Any, message: dramatiq.MessageProxy) -> None:
        self._add(broker, message, dead=1)

    def after_worker_shutdown(self, broker: Any, _worker: Any) -> None:
        self._write(broker)

    def _add(self, broker: Any, message: dramatiq.MessageProxy, **amounts: float) -> None:
        with self._lock:
            for name, amount in amounts.items():
                self._unwritten[q_name(message.queue_name), name] += amount
                self._own[q_name(message.queue_name), name] += amount
        self._write(broker)

    def _write(self, broker: Any) -> None:
        if self._client is None:
            return
        with self._lock:
            writing, self._unwritten = self._unwritten, defaultdict(float)
        hour = int(time.time() // 3600)
        try:
            with self._client.pipeline() as pipe:
                for (queue, name), amount in writing.items():
                    _count(pipe, broker.namespace, queue, name, amount, hour)
                pipe.execute()
        except redis.RedisError as error:
            _log.debug("Counters wait for Redis: %s", error)
            with self._lock:
                for counted, amount in writing.items():
                    self._unwritten[counted] += amount
        else:
            self._forget_old_hours(broker.namespace, {queue for queue, _ in writing}, hour)

    def _forget_old_hours(self, namespace: str, queues: set[str], hour: int) -> None:
        """Once an hour; where it fails, the next hour does it."""
        if hour == self._hour:
            return
        self._hour = hour
        try:
            for key in (hours_key(namespace, queue) for queue in queues):
                if old := [
                    field for field in self._client.hkeys(key) if not _is_within(field.decode(), hour)
                ]:
                    self._client.hdel(key, *old)
        except redis.RedisError as error:
            _log.debug("Old counters stay for another hour: %s", error)


def _count(pipe: Any, namespace: str, queue: str, name: str, amount: float, hour: int) -> None:
    if amount:
        pipe.hincrbyfloat(counters_key(namespace, queue), name, amount)
    if amount and name in HOURLY:
        pipe.hincrbyfloat(hours_key(namespace, queue), f"{hour}:{name}", amount)


def _is_within(field: str, hour: int) -> bool:
    written, _, _ = field.partition(":")
    return written.isdigit() and int(written) > hour - HOURS_KEPT
