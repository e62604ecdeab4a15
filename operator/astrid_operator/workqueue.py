"""A queue of keys that want attention: each at most once, each with its own back-off.

Owns which keys are due, which are being worked on and when the others will be. Never holds a payload (whoever
takes a key looks at the world as it is then), never runs anything, and reads no clock of its own.
"""

import asyncio
import random
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from astrid_operator.back_off import LONGEST_RETRY_SECONDS, BackOff

K = TypeVar("K", bound=Hashable)


class WorkQueue(Generic[K]):
    """Keys by the time at which they are due. Not thread-safe: one event loop uses it.

    A key that was taken must be given back by `done`, `retry` or `drop`; until then it is not handed out
    again, and one that is added meanwhile becomes due as soon as it is given back.
    """

    def __init__(self, clock: Callable[[], float], rng: random.Random) -> None:
        self._clock = clock
        self._back_off: BackOff[K] = BackOff(clock, rng)
        self._due: dict[K, float] = {}
        self._taken: set[K] = set()
        self._again: set[K] = set()
        self._added = asyncio.Event()

    def __len__(self) -> int:
        return len(self._due) + len(self._again)

    def add(self, key: K) -> None:
        """Make `key` due now, unless it failed and waits for its next try."""
        if key in self._taken:
            self._again.add(key)
        elif key not in self._back_off:
            self._put(key, self._clock())

    def changed(self, key: K) -> None:
        """Make `key` due now even if it failed: its own object was edited, so what failed may work."""
        self._back_off.forget(key)
        self.add(key)

    def backs_off(self, key: K) -> bool:
        """Whether `key` failed and its next try has not come yet."""
        return self._back_off.is_on(key)

    def take_due(self) -> list[K]:
        """Take every key whose time has come, the longest due first."""
        now = self._clock()
        due = sorted((key for key, at in self._due.items() if at <= now), key=self._due.__getitem__)
        for key in due:
            del self._due[key]
        self._taken.update(due)
        return due

    def done(self, key: K) -> None:
        """Give back `key`, which went well: its failures are forgotten."""
        self._back_off.forget(key)
        self._taken.discard(key)
        if key in self._again:
            self._again.discard(key)
            self._put(key, self._clock())

    def retry(
        self,
        key: K,
        at_least_seconds: float | None = None,
        longest_seconds: float = LONGEST_RETRY_SECONDS,
    ) -> float:
        """Give back `key`, which failed, to be due after its back-off; returns that pause in seconds."""
        pause = self._back_off.failed(key, at_least_seconds, longest_seconds)
        self._taken.discard(key)
        self._again.discard(key)
        self._put(key, self._clock() + pause)
        return pause

    def drop(self, key: K) -> None:
        """Forget `key` altogether: its object is gone."""
        self._due.pop(key, None)
        self._back_off.forget(key)
        self._taken.discard(key)
        self._again.discard(key)

    async def wait(self, seconds: float) -> None:
        """Return as soon as a key is due, and after `seconds` in any case."""
        deadline = self._clock() + seconds
        while True:
            self._added.clear()
            pause = min(deadline, min(self._due.values(), default=deadline)) - self._clock()
            if pause <= 0:
                return
            try:
                await asyncio.wait_for(self._added.wait(), pause)
            except TimeoutError:
                continue

    def _put(self, key: K, at: float) -> None:
        self._due[key] = min(at, self._due.get(key, at))
        self._added.set()
