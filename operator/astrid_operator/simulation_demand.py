"""One queue of a simulation as its broker and its members would be read.

Owns what waits, what is delayed, what workers counted, and what is learned of it: by the operator's own
`throughput.py`. Decides nothing; it says when the rates that were learned would change a decision although
nothing happens.
"""

import math
from collections import deque
from collections.abc import Sequence

from astrid_operator.astrid_queue import AstridQueueSpec
from astrid_operator.scaling_growth import TICK_SECONDS, drain_members, rate_members
from astrid_operator.scaling_memory import BURST_LEAST_PER_S, BURST_SECONDS, is_burst_of, noted_until
from astrid_operator.scaling_values import Demand
from astrid_operator.simulated_fleet import SimulatedFleet
from astrid_operator.simulation_delays import SimulatedDelays
from astrid_operator.simulation_load import Arrival
from astrid_operator.throughput import FAST_SECONDS, SLOW_SECONDS, Counted, Throughput

#: The operator of a simulation has been running for this long when it begins.
RUNNING_SINCE_SECONDS = 3600.0

#: A tick that lies so little before a time that was foretold is looked at too: sums of floats are not exact.
ROUNDING_SECONDS = 1e-6

#: A fall of a rate that does not come.
NEVER = (math.inf, 0.0)

#: Messages that are due, and due soon, and seconds until the next one is.
NOTHING_DELAYED = (0, 0, None)


class SimulatedDemand:
    """What is known of one queue; `says_who_is_busy`: its members tell the operator what they do."""

    def __init__(
        self, load: Sequence[Arrival], fleet: SimulatedFleet, *, says_who_is_busy: bool = True
    ) -> None:
        self.waiting: deque[int] = deque()
        self.running = 0
        self.delays = SimulatedDelays()
        #: Messages in the dead letters.
        self.dead = 0
        #: Message → its ETA, the last of them: from then on it waits.
        self.due_at: dict[int, float] = {}
        self._load = load
        self._fleet = fleet
        self._says_who_is_busy = says_who_is_busy
        self._finished = 0
        self._seconds = 0.0
        self._seconds_squared = 0.0
        self._throughput = Throughput()
        self._throughput.take(-RUNNING_SINCE_SECONDS, 0, Counted(0, 0.0, 0.0))
        self._is_known = True
        self._newest = Demand()
        #: Until when arrivals are those of the short window, as in the memory of who decides.
        self._burst_until = -math.inf

    def finished_one(self, seconds: float) -> None:
        """A task ended, well or not, that took so long."""
        self._finished += 1
        self._seconds += seconds
        self._seconds_squared += seconds * seconds

    def delay(self, message: int, eta: float) -> None:
        """`message` is due at `eta`."""
        self.due_at[message] = eta
        self.delays.add(eta, message)

    def waits_since(self, message: int) -> float:
        """When it was sent or, where it was delayed, due."""
        return self.due_at.get(message, self._load[message].at)

    @property
    def work(self) -> int:
        """Messages that wait or run."""
        return len(self.waiting) + self.running

    def missed(self) -> None:
        """Nobody could read it this time."""
        self._throughput.missed()
        self._is_known = False

    def read(self, now: float) -> Demand:
        """Everything that a decision may look at."""
        pace, waiting = self._throughput, self.waiting
        if self._is_known:
            pace.held_until(now - TICK_SECONDS)
        self._is_known = True
        ready, running = len(waiting), self.running
        counted = Counted(self._finished, self._seconds, self._seconds_squared)
        service, spread, fast, slow = pace.take(now, ready + running, counted)
        if fast is not None and slow is not None and is_burst_of(fast, slow):
            self._burst_until = now + BURST_SECONDS
        due, soon, next_due_seconds = self._etas(now) if self.delays.count else NOTHING_DELAYED
        self._newest = Demand(
            ready,
            running,
            self.delays.count,
            self.dead,
            now - self.waits_since(waiting[0]) if ready else None,
            due,
            soon,
            next_due_seconds=next_due_seconds,
            service_seconds=service,
            service_spread_seconds=spread,
            arrivals_per_s_fast=fast,
            arrivals_per_s_slow=slow,
            finished=self._finished,
            start_seconds=self._fleet.usual_start_seconds(),
            members=self._fleet.seen(now) if self._says_who_is_busy else None,
        )
        return self._newest

    def _etas(self, now: float) -> tuple[int | None, int | None, float | None]:
        """Due, soon, and seconds until the next one; unknown while anything is outstanding, as the operator
        does not look for ETAs then.
        """
        if self.work:
            return None, None, None
        etas = self.delays.etas(now)
        return etas.due, etas.soon, etas.next_due_seconds

    # ------------------------------------------------------------------- what changes by itself

    def rates_matter_at(self, spec: AstridQueueSpec, now: float, *, is_held: bool) -> float:
        """When falling rates may change a decision although nothing happens; infinity: they do not.

        Rates only fall by themselves. They change how many are wanted, and until when a burst lasts. A fleet
        that `is_held` is larger than is wanted: even fewer matter only by the stretch in which it is noted
        how many were wanted lately, so that its last tick is soon enough.
        """
        fast, slow = self._newest.arrivals_per_s_fast, self._newest.arrivals_per_s_slow
        if fast is None or slow is None:
            return now + TICK_SECONDS if self.work else math.inf
        if not (fast or slow):
            return math.inf
        falls_at = self._wanted_falls_at(fast, slow, spec, now)
        if is_held and falls_at != math.inf:
            falls_at = noted_until(math.ceil(falls_at - ROUNDING_SECONDS))
        return min(self._burst_changes_at(fast, slow, now), falls_at)

    def _burst_changes_at(self, fast: float, slow: float, now: float) -> float:
        """The last tick of a burst, or the first of one: how long it lasts is counted from its last tick."""
        if fast <= BURST_LEAST_PER_S:
            return math.inf
        slow_falls = self._throughput.falls(now, SLOW_SECONDS)
        slow_at, slow_then = next(slow_falls, NEVER)
        if not is_burst_of(fast, slow):
            if slow_at == math.inf:  # the long window is not seen whole: its rate falls with every reading
                return now + TICK_SECONDS
            return min(slow_at, next(self._throughput.falls(now, FAST_SECONDS), NEVER)[0])
        for at, fast_then in self._throughput.falls(now, FAST_SECONDS):
            while slow_at <= at:
                slow, (slow_at, slow_then) = slow_then, next(slow_falls, NEVER)
            if not is_burst_of(fast_then, slow):
                return max(at - TICK_SECONDS, now + TICK_SECONDS)
        return now + TICK_SECONDS

    def _wanted_falls_at(self, fast: float, slow: float, spec: AstridQueueSpec, now: float) -> float:
        """When the row of the arrival rate asks for fewer, if it asks for more than the others do."""
        slots, work = spec.slots, self.work
        each = self._newest.service_seconds or spec.scaling.expected_task_seconds
        if each is None or work <= slots:
            return math.inf
        others = max(spec.floor, drain_members(work, each, slots, spec.scaling.target_drain_seconds))
        most = min(math.ceil(work / slots), spec.scaling.max_replicas)
        rate, window = (fast, FAST_SECONDS) if now < self._burst_until else (slow, SLOW_SECONDS)
        asked = min(rate_members(rate, each, slots), most)
        if asked <= others:
            return math.inf
        falls = self._throughput.falls(now, window)
        at = next((at for at, then in falls if rate_members(then, each, slots) < asked), None)
        return now + TICK_SECONDS if at is None else at
