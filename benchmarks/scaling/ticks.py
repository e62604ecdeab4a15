"""When the operator's ticks begin, seen from outside: by the commands that it sends to Redis.

Owns a thread that counts them, and nothing of the operator.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import redis

from support.waiting import wait_until

#: Seconds between two ticks of the operator, and between two looks for one.
TICK, LOOK = 1.0, 0.01
#: Earliest moment of a burst after a tick began, in seconds: the reads of that tick are over.
FIRST_MOMENT = 0.05


class Ticks:
    """When the operator began to read the Redis on `port`, to `LOOK` seconds."""

    def __init__(self, port: int) -> None:
        self._client = redis.Redis(host="127.0.0.1", port=port, socket_timeout=10)
        self.seen: list[float] = []
        self._ended = threading.Event()

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Note ticks while inside."""
        self.seen.clear()
        self._ended.clear()
        thread = threading.Thread(target=self._watch, name="ticks", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._ended.set()
            thread.join()

    def next(self) -> float:
        """Wait for a tick; when it began (monotonic)."""
        before = len(self.seen)
        wait_until(lambda: len(self.seen) > before, 30, "a tick", every_s=LOOK / 2)
        return self.seen[-1]

    def sleep_until(self, moment: float) -> float:
        """Return `moment` seconds after a tick began; when that was (monotonic)."""
        began = self.next()
        time.sleep(max(0.0, began + moment - time.monotonic()))
        return began

    def last_between(self, since: float, until: float) -> float | None:
        """The last tick of that time; None: there was none."""
        return next((at for at in reversed(self.seen) if since <= at <= until), None)

    def _watch(self) -> None:
        before = self._commands()
        while not self._ended.wait(LOOK):
            now, at = self._commands(), time.monotonic()
            # one tick is one pipeline, which can be counted in two looks
            if now != before and (not self.seen or at - self.seen[-1] > FIRST_MOMENT):
                self.seen.append(at)
            before = now

    def _commands(self) -> list[int]:
        clients = self._client.client_list()
        return [int(each["tot-cmds"]) for each in clients if each["name"] == "astrid-operator"]
