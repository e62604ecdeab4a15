"""How a worker process leaves without keeping work back and without breaking any off.

Owns the answer to SIGTERM and to the operator's `drain:<queue>`: stop fetching, give back at once what
was not started, finish the rest; the heartbeats go on. A second SIGTERM changes nothing (Dramatiq alone
would break the tasks off). Also owns three watches that need the same clock: a consumer that died and a
parent that is gone end the process in the same orderly way, and what a broken connection left
unacknowledged is given back. Never decides who should leave.
"""

import logging
import os
import signal
import threading
import time
from typing import Any

import redis
from dramatiq.middleware import Middleware

from .fleet_keys import drain_key, process_name, side_client
from .held import Held

#: Seconds between two looks at `drain:<queue>`, and between two sweeps of what came in after fetching was
#: stopped.
LOOK_EVERY_S = 1.0
SWEEP_EVERY_S = 0.2
#: Seconds between two searches for what Redis says we hold and we do not.
STRAYS_EVERY_S = 10.0

_log = logging.getLogger(__name__)


class Drain(Middleware):
    """Lets this process leave on SIGTERM or when asked."""

    def __init__(self, held: Held) -> None:
        self._held = held
        self._terminated = self._leaving = False
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._strays_at = time.monotonic() + STRAYS_EVERY_S

    def after_worker_boot(self, broker: Any, _worker: Any) -> None:
        self._broker, self._client = broker, side_client(broker)
        self._parent = os.getppid()
        self._take_over_sigterm()
        self._thread = threading.Thread(target=self._watch, name="drain", daemon=True)
        self._thread.start()

    def before_worker_shutdown(self, _broker: Any, _worker: Any) -> None:
        self._terminated = True
        self._wake.set()

    def after_worker_shutdown(self, _broker: Any, _worker: Any) -> None:
        self._stopping.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join(LOOK_EVERY_S)

    def _take_over_sigterm(self) -> None:
        """Call Dramatiq's own handler once, and start to give back without waiting for it."""
        if threading.current_thread() is not threading.main_thread():
            return
        dramatiq_handler = signal.getsignal(signal.SIGTERM)

        def on_sigterm(number: int, frame: Any) -> None:
            if self._terminated:
                return
            self._terminated = True
            self._wake.set()
            if callable(dramatiq_handler):
                dramatiq_handler(number, frame)

        signal.signal(signal.SIGTERM, on_sigterm)

    def _watch(self) -> None:
        while not self._stopping.is_set():
            try:
                self._look()
            except redis.RedisError as error:
                self._held.forget_strays()
                _log.debug("Drain waits for Redis: %s", error)
            except Exception:  # noqa: BLE001 - the watch must go on
                _log.exception("Drain of %s failed", process_name(self._broker))
            if self._held.fetching:
                self._wake.wait(LOOK_EVERY_S)
                self._wake.clear()
            else:
                self._stopping.wait(SWEEP_EVERY_S)

    def _look(self) -> None:
        if not self._terminated:
            self._end_what_cannot_go_on()
        leaving = self._terminated or self._asked_to_leave()
        if leaving and not self._leaving:
            _log.info("Draining: nothing more is fetched, %d running", len(self._held.running()))
            self._held.stop_fetching("drain")
        elif self._leaving and not leaving:
            _log.info("No longer asked to leave: fetching again")
            self._held.resume_fetching("drain")
        self._leaving = leaving
        if not self._held.fetching and (given := self._held.give_back()):
            _log.info("Gave back %d messages that were not started", given)
        if time.monotonic() >= self._strays_at:
            self._strays_at = time.monotonic() + STRAYS_EVERY_S
            if strays := self._held.give_back_strays():
                _log.warning("Gave back %d messages that a broken connection had left here", strays)

    def _asked_to_leave(self) -> bool:
        with self._client.pipeline(transaction=False) as pipe:
            for queue in self._held.queues():
                pipe.sismember(drain_key(self._broker.namespace, queue), process_name(self._broker))
            return any(pipe.execute())

    def _end_what_cannot_go_on(self) -> None:
        if dead := self._held.dead_threads():
            _log.critical("Threads of this process died (%s); it ends, to be replaced", ", ".join(dead))
            os.kill(os.getpid(), signal.SIGTERM)
        elif os.getppid() != self._parent:
            _log.critical("The process above this one is gone; this process ends")
            os.kill(os.getpid(), signal.SIGTERM)
