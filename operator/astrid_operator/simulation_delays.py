"""The delayed messages of one simulated queue, in the order in which they become due.

Owns which of them are due, due soon or due later, in the words in which the operator reads them from Redis
(`delayed.Etas`). Moves nothing to the queue and decides nothing. Times are seconds of the simulation, and
those at which it is asked never go back.
"""

import heapq

from astrid_operator.delayed import SOON_SECONDS, Etas


class SimulatedDelays:
    """Messages by their ETAs, each by its number."""

    def __init__(self) -> None:
        #: (ETA, message): two heaps, of which messages move to the next one as their time comes nearer.
        self._later: list[tuple[float, int]] = []
        self._soon: list[tuple[float, int]] = []
        self._due: list[int] = []
        #: How many there are, those that are due included.
        self.count = 0

    def add(self, eta: float, message: int) -> None:
        """`message` is due at `eta`."""
        heapq.heappush(self._later, (eta, message))
        self.count += 1

    def etas(self, now: float) -> Etas:
        """What is to be known of them now."""
        self._come_nearer(now)
        following = (self._soon or self._later)[:1]
        return Etas(
            due=len(self._due),
            soon=len(self._soon),
            next_due_seconds=following[0][0] - now if following else None,
            unread=0,
        )

    def take_due(self, now: float) -> list[int]:
        """Those whose time has come, the earliest first; they are not delayed any more."""
        self._come_nearer(now)
        due, self._due = self._due, []
        self.count -= len(due)
        return due

    def _come_nearer(self, now: float) -> None:
        while self._later and self._later[0][0] <= now + SOON_SECONDS:
            heapq.heappush(self._soon, heapq.heappop(self._later))
        while self._soon and self._soon[0][0] <= now:
            self._due.append(heapq.heappop(self._soon)[1])
