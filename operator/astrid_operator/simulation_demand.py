"""One queue of a simulation as its broker and its members would be read.

Owns what waits, what was counted, and the estimates that a decision is made from: task time, arrivals over a
short and a long window. Decides nothing.
"""

import math
from collections import deque
from collections.abc import Sequence

from astrid_operator.scaling_values import Demand
from astrid_operator.simulated_fleet import SimulatedFleet
from astrid_operator.simulation_load import Arrival

#: The windows over which arrivals are counted, in seconds.
FAST_SECONDS = 10.0
SLOW_SECONDS = 60.0

#: Least weight of the newest task in the mean: about the last twenty count.
LEAST_WEIGHT = 0.05


class Arrivals:
    """How many messages came within each window; the past is never walked twice."""

    def __init__(self, load: Sequence[Arrival]) -> None:
        self._load = load
        self.came = 0
        self._before_fast = 0
        self._before_slow = 0

    def forget(self, now: float) -> None:
        """Leave out what came before the windows that end at `now`."""
        load, came = self._load, self.came
        while self._before_fast < came and load[self._before_fast].at <= now - FAST_SECONDS:
            self._before_fast += 1
        while self._before_slow < came and load[self._before_slow].at <= now - SLOW_SECONDS:
            self._before_slow += 1

    @property
    def in_fast(self) -> int:
        """Messages of the short window."""
        return self.came - self._before_fast

    @property
    def in_slow(self) -> int:
        """Messages of the long one."""
        return self.came - self._before_slow

    def next_change_at(self) -> float:
        """When a message leaves a window; never (infinity): both are empty."""
        if self._before_slow == self.came:
            return math.inf
        return min(self._load[self._before_slow].at + SLOW_SECONDS, self.fast_changes_at())

    def fast_changes_at(self) -> float:
        """When a message leaves the short window; never (infinity): it is empty."""
        if self._before_fast == self.came:
            return math.inf
        return self._load[self._before_fast].at + FAST_SECONDS


class SimulatedDemand:
    """What is known of one queue; `says_who_is_busy`: its members tell the operator what they do."""

    def __init__(
        self, load: Sequence[Arrival], fleet: SimulatedFleet, *, says_who_is_busy: bool = True
    ) -> None:
        self.waiting: deque[int] = deque()
        self.running = 0
        self.finished = 0
        self.arrivals = Arrivals(load)
        self._load = load
        self._fleet = fleet
        self._says_who_is_busy = says_who_is_busy
        self._task_seconds: float | None = None

    def finished_one(self, seconds: float) -> None:
        """A task ended that took so long."""
        self.finished += 1
        before = self._task_seconds
        weight = max(LEAST_WEIGHT, 1 / self.finished)
        self._task_seconds = seconds if before is None else before + weight * (seconds - before)

    @property
    def work(self) -> int:
        return len(self.waiting) + self.running

    def oldest_at(self) -> float | None:
        """When the message at the head was enqueued."""
        return self._load[self.waiting[0]].at if self.waiting else None

    def read(self, now: float) -> Demand:
        """Everything that a decision may look at."""
        self.arrivals.forget(now)
        oldest_at = self.oldest_at()
        return Demand(
            ready=len(self.waiting),
            running=self.running,
            oldest_seconds=None if oldest_at is None else now - oldest_at,
            due=0,
            service_seconds=self._task_seconds,
            arrivals_per_s_fast=self.arrivals.in_fast / FAST_SECONDS,
            arrivals_per_s_slow=self.arrivals.in_slow / SLOW_SECONDS,
            finished=self.finished,
            start_seconds=self._fleet.usual_start_seconds(),
            members=self._fleet.seen(now) if self._says_who_is_busy else None,
        )
