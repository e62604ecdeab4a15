"""How long tasks take and how fast messages come, learned from counts that only ever grow.

Owns the estimates of one queue: mean task time and its spread, arrivals over a short and a long window. Pure:
no clock, no client. Counts that shrink begin the learning anew; what makes no sense is never believed.
"""

import math
from bisect import bisect_right
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from operator import attrgetter
from typing import NamedTuple

from astrid_operator.values import value

#: The windows over which arrivals are counted, in seconds.
FAST_SECONDS = 10.0
SLOW_SECONDS = 60.0

#: Least time that a window must have been looked at before its rate means anything, in seconds.
LEAST_SPAN_SECONDS = 5.0

#: Least weight of the newest task in the mean: about the last twenty count.
LEAST_WEIGHT = 0.05

#: What is learned from, by the names that workers give it.
COUNTERS = ("started", "finished", "failed", "seconds", "seconds_squared")

#: Longest task that is believed, in seconds: a day longer than Dramatiq lets a message be delayed.
LONGEST_TASK_SECONDS = 8 * 86400.0


@value
class Counted:
    """What workers counted of one queue since counting began."""

    #: Tasks that ended, well or not.
    ended: int
    #: What they took together, and the sum of the squares of what each took.
    seconds: float
    seconds_squared: float
    #: Those of `ended` that raised.
    failed: int = 0


NOTHING_COUNTED = Counted(0, 0.0, 0.0)


class Estimates(NamedTuple):
    """What is known of one queue's pace; None: not measured."""

    service_seconds: float | None = None
    service_spread_seconds: float | None = None
    arrivals_per_s_fast: float | None = None
    arrivals_per_s_slow: float | None = None


def counted(values: Sequence[bytes]) -> Counted | None:
    """`values` of `COUNTERS` as workers wrote them; `-` stands for none.

    None where nothing was counted, or where one of them is no number that could have been counted.
    """
    if all(value == b"-" for value in values):
        return None
    try:
        numbers = [0.0 if value == b"-" else float(value) for value in values]
    except ValueError:
        return None
    if not all(math.isfinite(number) and number >= 0 for number in numbers):
        return None
    _, finished, failed, seconds, squared = numbers
    return Counted(int(finished + failed), seconds, squared, int(failed))


@dataclass(slots=True)
class _Level:
    """Messages that had come, and from when until when no reading said otherwise."""

    since: float
    until: float
    came: int


_since = attrgetter("since")


class Throughput:
    """The pace of one queue, reading by reading."""

    def __init__(self) -> None:
        self._last: Counted | None = None
        self._mean: float | None = None
        self._mean_square = 0.0
        self._spread = 0.0
        #: Oldest first, over a little more than the long window; neighbours differ.
        self._came: deque[_Level] = deque()

    def take(self, at: float, outstanding: int, now: Counted | None) -> Estimates:
        """Add a reading made `at` (monotonic seconds) and tell what is known with it."""
        if now is None or (self._last is not None and now.ended < self._last.ended):
            self.forget()
        if now is not None:
            self._learn(now)
            self._note(at, outstanding + now.ended)
            self._last = now
        return self._estimates(at)

    def missed(self) -> None:
        """A reading failed: what came meanwhile cannot be told from what came at once."""
        self._came.clear()

    def held_until(self, at: float) -> None:
        """The latest reading still held `at`: for a simulation, which reads only where something changed."""
        if self._came and at > self._came[-1].until:
            self._came[-1].until = at

    def falls(self, at: float, window: float) -> Iterator[tuple[float, float]]:
        """(when, messages per second from then on): how the rate of `window` falls if nothing comes any more.

        Nothing before the window has been looked at for its whole length: then it falls with every reading.
        """
        levels = self._came
        if not levels or levels[0].since > at - window:
            return
        last = levels[-1].came
        for level in islice(levels, bisect_right(levels, at - window, key=_since), None):
            yield level.since + window, max(0.0, (last - level.came) / window)

    def forget(self) -> None:
        """Begin anew: the counts were reset, or nobody counts."""
        self._last, self._mean = None, None
        self._came.clear()

    def _learn(self, now: Counted) -> None:
        before = self._last or NOTHING_COUNTED
        tasks = now.ended - before.ended
        if tasks <= 0:
            return
        seconds, squares = now.seconds - before.seconds, now.seconds_squared - before.seconds_squared
        if not 0 <= seconds <= tasks * LONGEST_TASK_SECONDS or squares < 0:
            return
        mean, square = seconds / tasks, squares / tasks
        weight = 1.0 if self._mean is None else 1 - (1 - LEAST_WEIGHT) ** tasks
        self._mean = mean if self._mean is None else self._mean + weight * (mean - self._mean)
        self._mean_square += weight * (square - self._mean_square)
        self._spread = math.sqrt(max(0.0, self._mean_square - self._mean**2))

    def _note(self, at: float, came: int) -> None:
        levels = self._came
        if levels and levels[-1].came == came:
            levels[-1].until = at
        else:
            levels.append(_Level(at, at, came))
        while len(levels) > 1 and levels[1].since <= at - SLOW_SECONDS:
            levels.popleft()

    def _estimates(self, at: float) -> Estimates:
        fast = slow = None
        levels = self._came
        if levels and at - levels[0].since >= LEAST_SPAN_SECONDS:
            fast = self._rate(at, self._level_of(at - FAST_SECONDS), FAST_SECONDS)
            # `_note` has just dropped what ended before the long window
            slow = self._rate(at, levels[0], SLOW_SECONDS)
        # A task that took no time is not known to take none.
        return Estimates(self._mean or None, None if self._mean is None else self._spread, fast, slow)

    def _level_of(self, at: float) -> _Level:
        """The last level that had begun by `at`, else the first one."""
        levels = self._came
        for level in reversed(levels):
            if level.since <= at:
                return level
        return levels[0]

    def _rate(self, at: float, first: _Level, window: float) -> float:
        """Messages per second since `window` ago, or since it has been looked at; it begins in `first`."""
        came, since = self._came[-1].came - first.came, at - window
        if first.until < since:
            since = first.until
        elif first.since > since:
            since = first.since
        return came / (at - since) if came > 0 else 0.0
