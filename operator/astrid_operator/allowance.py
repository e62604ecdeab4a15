"""How often numbers alone may be written: one allowance for the whole operator.

Owns the count and the order in which those who wait are served. Has no clock (`now` is an argument), and
writes nothing itself.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

K = TypeVar("K")

#: Writes that may be saved up while nobody asks for them.
SAVED_WRITES = 3.0


@dataclass(frozen=True, slots=True)
class Waiting(Generic[K]):
    """One who would write: how long ago the last time was, and how far the numbers moved (0 to 1)."""

    key: K
    seconds_since: float
    change: float


class Allowance:
    """`per_second` writes on average, `SAVED_WRITES` at once at most."""

    def __init__(self, per_second: float, now: float) -> None:
        self._per_second = per_second
        self._saved = SAVED_WRITES if per_second > 0 else 0.0
        self._at = now

    def grant(self, waiting: Iterable[Waiting[K]], now: float) -> list[K]:
        """Whose turn it is; what is not granted asks again at the next tick."""
        self._saved = min(SAVED_WRITES, self._saved + max(0.0, now - self._at) * self._per_second)
        self._at = now
        count = int(self._saved)
        if not count:
            return []
        served = [one.key for one in sorted(waiting, key=_weight, reverse=True)[:count]]
        self._saved -= len(served)
        return served


def _weight(one: Waiting[K]) -> float:
    """Oldest and most changed first."""
    return one.seconds_since * one.change
