"""No task runs longer than its limit, whatever it is made of.

Owns three steps, each for what the one before cannot reach. At the limit the task is asked:
`TimeLimitExceeded` is raised in its thread, which Python code sees at its next instruction. After a grace, a
task inside C code that does not come back ends the process: nothing more is fetched, what was not started is
given back, other tasks finish, and the task itself counts as failed (retried or dead, as its queue says). And
where C code even keeps the interpreter's lock, so that no thread of this process runs, the interpreter's own
watchdog ends it; whatever else ran there is then recovered as after a crash. `stand_in` is told until when
that may be. Replaces Dramatiq's `TimeLimit`, whose option `time_limit` (milliseconds) it obeys. Never ends a
process for a task that is within its limit.
"""

import contextlib
import faulthandler
import logging
import math
import os
import sys
import threading
import time
import traceback
from dataclasses import dataclass
from typing import Any

import dramatiq
import redis
from dramatiq.middleware import Middleware, TimeLimitExceeded, raise_thread_exception

from .fleet_keys import process_name
from .held import Held, Running
from .stand_in import StandIn

#: Milliseconds that a task may take where neither message nor actor says.
DEFAULT_LIMIT_MS = 600_000
#: Between being asked and being ended: half the limit, within these seconds.
LEAST_GRACE_S, MOST_GRACE_S = 2.0, 10.0
#: Seconds after the end of the grace at which the interpreter's watchdog acts, if no look at the limits did.
WATCHDOG_S = 8.0
#: Seconds by which the watchdog's time may be off, so that it is not set anew at every look.
WATCHDOG_SLACK_S = 1.0
#: Seconds between two looks.
LOOK_EVERY_S = 0.25
#: Exit status of a process that had to be ended.
EXIT_STATUS = 70

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Limit:
    seconds: float
    ends_at: float
    asked: bool = False

    @property
    def over_at(self) -> float:
        """When the process is ended for it."""
        return self.ends_at + min(max(self.seconds / 2, LEAST_GRACE_S), MOST_GRACE_S)


class TimeLimit(Middleware):
    """Asks a task that is over its limit to end, then ends the process."""

    def __init__(self, held: Held, stand_in: StandIn, *, time_limit: float = DEFAULT_LIMIT_MS) -> None:
        self.time_limit = time_limit
        self._held, self._stand_in = held, stand_in
        self._limits: dict[int, _Limit] = {}
        self._watchdog_at: float | None = None
        self._leaving = False
        self._arming = threading.Lock()
        self._stopping = threading.Event()

    @property
    def actor_options(self) -> set[str]:
        return {"time_limit"}

    def after_worker_boot(self, broker: Any, _worker: Any) -> None:
        self._broker = broker
        threading.Thread(target=self._watch, name="time limit", daemon=True).start()

    def after_worker_shutdown(self, _broker: Any, _worker: Any) -> None:
        self._stopping.set()
        self._limits.clear()
        faulthandler.cancel_dump_traceback_later()

    def before_process_message(self, broker: Any, message: dramatiq.MessageProxy) -> None:
        options = broker.get_actor(message.actor_name).options
        limit_ms = message.options.get("time_limit") or options.get("time_limit") or self.time_limit
        seconds = float(limit_ms) / 1000
        self._limits[threading.get_ident()] = _Limit(seconds, time.monotonic() + seconds)
        self._set_watchdog(time.monotonic())

    def after_process_message(self, _broker: Any, _message: dramatiq.MessageProxy, **_: Any) -> None:  # type: ignore[override]
        self._limits.pop(threading.get_ident(), None)

    def after_skip_message(self, _broker: Any, _message: dramatiq.MessageProxy) -> None:
        self._limits.pop(threading.get_ident(), None)

    def _watch(self) -> None:
        while not self._stopping.wait(LOOK_EVERY_S):
            try:
                self._look(time.monotonic())
            except Exception:  # noqa: BLE001 - the watch must go on
                _log.exception("The watch over time limits of %s failed", process_name(self._broker))

    def _look(self, now: float) -> None:
        limits = dict(self._limits)
        self._set_watchdog(now)
        overdue = []
        for thread_id, limit in limits.items():
            if now >= limit.ends_at and not limit.asked:
                limit.asked = True
                raise_thread_exception(thread_id, TimeLimitExceeded)  # type: ignore[no-untyped-call]
            if now >= limit.over_at:
                overdue.append(thread_id)
        if overdue:
            self._leave_behind(set(overdue), limits)
        elif self._leaving:
            self._stay()

    def _set_watchdog(self, now: float) -> None:
        """Let a thread of C, which needs no interpreter's lock, end the process if these looks stop."""
        with self._arming:
            limits = list(self._limits.values())
            ends = [one.over_at for one in limits if not math.isinf(one.over_at)]
            wanted = max(min(ends), now) + WATCHDOG_S if ends else None
            if wanted is None and self._watchdog_at is not None:
                faulthandler.cancel_dump_traceback_later()
                self._watchdog_at = None
            elif wanted is not None and abs(wanted - (self._watchdog_at or 0.0)) > WATCHDOG_SLACK_S:
                faulthandler.dump_traceback_later(wanted - now, exit=True, file=sys.__stderr__ or 2)
                self._watchdog_at = wanted
            if self._watchdog_at is None:
                self._stand_in.may_be_silent_until(math.inf if limits else 0.0)
            else:
                self._stand_in.may_be_silent_until(self._watchdog_at)

    def _leave_behind(self, overdue: set[int], limits: dict[int, _Limit]) -> None:
        """Go on leaving; end the process once nothing runs but what does not listen."""
        if not self._leaving:
            self._leaving = True
            self._held.stop_fetching("time limit")
            for one in self._stuck(overdue):
                _log.critical("%s", _complaint(one, limits[one.thread_id]))
        with contextlib.suppress(redis.RedisError):
            self._held.give_back()
        if {one.thread_id for one in self._held.running()} <= overdue:
            for one in self._stuck(overdue):
                self._settle(one, limits[one.thread_id])
            self._broker.emit_after("worker_shutdown", self._held.worker)
            logging.shutdown()
            os._exit(EXIT_STATUS)

    def _stay(self) -> None:
        """It did come back, after all."""
        self._leaving = False
        self._held.resume_fetching("time limit")

    def _stuck(self, overdue: set[int]) -> list[Running]:
        return [one for one in self._held.running() if one.thread_id in overdue]

    def _settle(self, one: Running, limit: _Limit) -> None:
        """Do for a task that will never return what its own thread would have done on `TimeLimitExceeded`."""
        assert self._held.worker is not None
        error = TimeLimitExceeded(
            f"ran longer than {limit.seconds:g} s and did not listen: its process was ended"
        )
        try:
            raise error
        except TimeLimitExceeded:
            one.message.stuff_exception(error)
            self._broker.emit_after("process_message", one.message, exception=error)
        self._held.worker.consumers[one.message.queue_name].post_process_message(one.message)


def _complaint(one: Running, limit: _Limit) -> str:
    frame = sys._current_frames().get(one.thread_id)
    where = "".join(traceback.format_stack(frame)[-6:]) if frame is not None else ""
    return (
        f"{one.message.actor_name} ({one.message.message_id}) is over its limit of {limit.seconds:g} s and"
        f" does not listen: this process gives back what it has not started and ends. It is in\n{where}"
    )
