"""How long tasks take and how fast messages come, learned from counts that only ever grow.

Owns the estimates of one queue: mean task time and its spread, arrivals over a short and a long window. Pure:
no clock, no client. Counts that shrink begin the learning anew; what makes no sense is never believed.
"""

import math
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

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


@dataclass(frozen=True, slots=True)
class Counted:
    """What workers counted of one queue since counting began."""

    #: Tasks that ended, well or not.
    ended: int
    #: What they took together, and the sum of the squares of what each took.
    seconds: float
    seconds_squared: float
    #: Those of `ended` that raised.
    failed: int = 0


@dataclass(frozen=True, slots=True)
class Estimates:
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


class Throughput:
    """The pace of one queue, reading by reading."""

    def __init__(self) -> None:
        self._last: Counted | None = None
        self._mean: float | None = None
        self._mean_square = 0.0
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
        if self._came:
            self._came[-1].until = max(at, self._came[-1].until)

    def falls(self, at: float, window: float) -> Iterator[tuple[float, float]]:
        """(when, messages per second from then on): how the rate of `window` falls if nothing comes any more.

        Nothing before the window has been looked at for its whole length: then it falls with every reading.
        """
        levels = self._came
        if not levels or levels[0].since > at - window:
            return
        last = levels[-1].came
        for level in levels:
            if level.since > at - window:
                yield level.since + window, max(0.0, (last - level.came) / window)

    def forget(self) -> None:
        """Begin anew: the counts were reset, or nobody counts."""
        self._last, self._mean = None, None
        self._came.clear()

    def _learn(self, now: Counted) -> None:
        before = self._last or Counted(0, 0.0, 0.0)
        tasks, seconds = now.ended - before.ended, now.seconds - before.seconds
        squares = now.seconds_squared - before.seconds_squared
        if tasks <= 0 or not 0 <= seconds <= tasks * LONGEST_TASK_SECONDS or squares < 0:
            return
        mean, square = seconds / tasks, squares / tasks
        weight = 1.0 if self._mean is None else 1 - (1 - LEAST_WEIGHT) ** tasks
        self._mean = mean if self._mean is None else self._mean + weight * (mean - self._mean)
        self._mean_square += weight * (square - self._mean_square)

    def _note(self, at: float, came: int) -> None:
        levels = self._came
        if levels and levels[-1].came == came:
            levels[-1].until = at
        else:
            levels.append(_Level(at, at, came))
        while len(levels) > 1 and levels[1].since <= at - SLOW_SECONDS:
            levels.popleft()

    def _estimates(self, at: float) -> Estimates:
        mean, square = self._mean, self._mean_square
        return Estimates(
            # A task that took no time is not known to take none.
            service_seconds=mean or None,
            service_spread_seconds=None if mean is None else math.sqrt(max(0.0, square - mean**2)),
            arrivals_per_s_fast=self._rate(at, FAST_SECONDS),
            arrivals_per_s_slow=self._rate(at, SLOW_SECONDS),
        )

    def _rate(self, at: float, window: float) -> float | None:
        """Messages per second since `window` ago, or since it has been looked at."""
        levels = self._came
        if not levels or at - levels[0].since < LEAST_SPAN_SECONDS:
            return None
        first = levels[0]
        for level in reversed(levels):
            if level.since <= at - window:
                first = level
                break
        since = max(first.since, min(first.until, at - window))
        return max(0.0, (levels[-1].came - first.came) / (at - since))
