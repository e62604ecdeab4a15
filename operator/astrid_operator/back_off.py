"""How long what failed is left alone: longer with every further failure, and never in step with others.

Owns the pauses, key by key. Runs nothing and reads no clock of its own.
"""

import random
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)

#: Seconds before the first repeat of what failed; doubles with every further failure.
FIRST_RETRY_SECONDS = 0.5
#: Longest pause between two tries, in seconds, where whoever failed says no other.
LONGEST_RETRY_SECONDS = 120.0


class BackOff(Generic[K]):
    """Keys that failed, how often without a break, and until when each is left alone."""

    def __init__(self, clock: Callable[[], float], rng: random.Random) -> None:
        self._clock = clock
        self._rng = rng
        #: Key → (failures, until when).
        self._failed: dict[K, tuple[int, float]] = {}

    def __contains__(self, key: K) -> bool:
        """It failed at its last try."""
        return key in self._failed

    def is_on(self, key: K) -> bool:
        """`key` failed, and is left alone still."""
        return self._failed.get(key, (0, float("-inf")))[1] > self._clock()

    def failed(
        self, key: K, least_seconds: float | None = None, longest_seconds: float = LONGEST_RETRY_SECONDS
    ) -> float:
        """`key` failed (once more): the pause from now on, in seconds.

        No shorter than `least_seconds`, which the other side asked for; else at most `longest_seconds`.
        """
        failures = self._failed.get(key, (0, 0.0))[0]
        longest = min(longest_seconds, FIRST_RETRY_SECONDS * 2.0 ** min(failures, 30))
        pause = max(self._rng.uniform(longest / 2, longest), least_seconds or 0.0)
        self._failed[key] = (failures + 1, self._clock() + pause)
        return pause

    def forget(self, key: K) -> None:
        """It went well, or its failures count no more."""
        self._failed.pop(key, None)
