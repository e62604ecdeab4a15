"""How many tasks of each queue were started, finished, failed, retried and given up, and how long they took.

Owns `counters:<queue>`. Counts that Redis does not take are kept and written with the next ones. Never reads.
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

from .fleet_keys import counters_key, side_client

_log = logging.getLogger(__name__)


class Counters(Middleware):
    """Adds up, per queue, what tasks did.

    `seconds` and `seconds_squared` sum over finished and failed ones.
    """

    def __init__(self) -> None:
        self._client: Any = None
        self._since: dict[int, float] = {}
        self._unwritten: defaultdict[tuple[str, str], float] = defaultdict(float)
        self._lock = threading.Lock()

    def before_worker_boot(self, broker: Any, _worker: Any) -> None:
        self._client = side_client(broker)

    def before_process_message(self, broker: Any, message: dramatiq.MessageProxy) -> None:
        self._since[threading.get_ident()] = time.monotonic()
        self._add(broker, message, started=1)

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
        self._write(broker)

    def _write(self, broker: Any) -> None:
        if self._client is None:
            return
        with self._lock:
            writing, self._unwritten = self._unwritten, defaultdict(float)
        try:
            with self._client.pipeline() as pipe:
                for (queue, name), amount in writing.items():
                    key = counters_key(broker.namespace, queue)
                    pipe.hincrbyfloat(key, name, amount) if amount else None
                pipe.execute()
        except redis.RedisError as error:
            _log.debug("Counters wait for Redis: %s", error)
            with self._lock:
                for counted, amount in writing.items():
                    self._unwritten[counted] += amount
