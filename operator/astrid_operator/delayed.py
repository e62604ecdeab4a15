"""When the delayed messages of one queue become due, found out a little at a time.

Owns what is known of their ETAs, and what has to be read next: Dramatiq keeps no index by time, so that the
hash of bodies is walked in slices, and what was added since is read from the end of the list. Only counted
while nothing is outstanding: else somebody is needed anyway. Pure: no clock, no client; times of messages are
the server's, in milliseconds since the epoch.
"""

from array import array
from bisect import bisect_right, insort
from collections.abc import Sequence
from dataclasses import dataclass

#: Delayed messages that are looked at in one step on the server.
SLICE = 1000

#: A message is due soon within so many seconds.
SOON_SECONDS = 60.0

#: How far a worker's clock may be ahead: a message that left its queue so early became due there, in ms.
SKEW_MS = 130_000

#: A message still there so long after its time is looked at again: it may be another one by now, in ms.
OVERDUE_MS = 3_000

#: Messages found by a walk under way of which the times are told before it is over: the earliest.
TOLD_EARLY = 1000

#: Least seconds between two walks through one queue, and messages for each further second between them.
LEAST_PAUSE_SECONDS = 2.0
WALKED_PER_SECOND = 2000


@dataclass(frozen=True, slots=True)
class WalkOn:
    """Look at the next slice of all delayed messages, from `cursor`."""

    cursor: int


@dataclass(frozen=True, slots=True)
class ReadEnd:
    """Look at what stands in the list of delayed messages from `start` on."""

    start: int


@dataclass(frozen=True, slots=True)
class Etas:
    """What is known of the delayed messages of one queue at one moment."""

    #: Messages whose time has come, and whose time comes within `SOON_SECONDS`.
    due: int
    soon: int
    #: Until the next of those that are not due yet; None: none is known.
    next_due_seconds: float | None
    #: Messages whose time is not known yet; it is being looked for.
    unread: int
    #: Not one of the messages can be understood.
    is_unreadable: bool = False


class EtaScan:
    """The delayed messages of one queue. A tick: `counted`, then `wanted` and `took` in turn, then `etas`."""

    def __init__(self) -> None:
        self._known: array[float] = array("d")
        #: How many messages `_known` stands for (None: not for all), and how long their list was.
        self._total: int | None = None
        self._listed = 0
        #: A walk that is under way.
        self._cursor: int | None = None
        self._found: array[float] = array("d")
        self._earliest: list[float] = []
        self._not_understood = 0
        self._at_start = (0, 0)
        self._walk_at = float("-inf")
        #: The newest counts; all delayed messages, and those that nobody holds.
        self.delayed = 0
        self._now_listed = 0

    def counted(self, delayed: int, listed: int, now_ms: float, at: float) -> None:
        """There are `delayed` messages, `listed` of them in no worker's hands; `at` is monotonic seconds."""
        self.delayed, self._now_listed = delayed, listed
        if not delayed:
            self._known, self._total, self._cursor = array("d"), None, None
            return
        if self._total is not None and self._cursor is None:
            self._reconcile(now_ms)
        if self._total is None and self._cursor is None and at >= self._walk_at:
            self._cursor, self._found, self._earliest, self._not_understood = 0, array("d"), [], 0
            self._at_start = (delayed, listed)
            self._walk_at = at + max(LEAST_PAUSE_SECONDS, delayed / WALKED_PER_SECOND)

    def not_counted(self) -> None:
        """Nobody looked for a while: what is known may not be true any more, but is the best there is."""
        self._total, self._cursor = None, None

    def wanted(self) -> WalkOn | ReadEnd | None:
        """What to look at next; None: enough is known, or it is too early to look again."""
        if self._cursor is not None:
            return WalkOn(self._cursor)
        if self._total is not None and self._added() > 0:
            return ReadEnd(self._listed)
        return None

    def took(self, asked: WalkOn | ReadEnd, cursor: int, etas: Sequence[float], not_understood: int) -> None:
        """What was found where `asked` said; `cursor` 0 ends a walk."""
        if isinstance(asked, ReadEnd):
            self._merge(etas, not_understood)
            return
        self._found.extend(etas)
        self._earliest = sorted([*self._earliest, *etas])[:TOLD_EARLY]
        self._not_understood += not_understood
        self._cursor = cursor or None
        if self._cursor is None:
            self._known, self._found = array("d", sorted(self._found)), array("d")
            self._total, self._listed = self._at_start

    def etas(self, now_ms: float) -> Etas:
        """What is known now."""
        known: Sequence[float] = self._known
        if self._cursor is not None:
            known = sorted([*self._known[:TOLD_EARLY], *self._earliest])
        due = bisect_right(known, now_ms)
        soon = bisect_right(known, now_ms + SOON_SECONDS * 1000) - due
        following = (known[due] - now_ms) / 1000 if due < len(known) else None
        is_complete = self._total is not None and self._cursor is None
        return Etas(
            due=min(due, self.delayed),
            soon=min(soon, self.delayed),
            next_due_seconds=following,
            unread=0 if is_complete else self.delayed,
            is_unreadable=is_complete and not known and self._not_understood > 0,
        )

    def _added(self) -> int:
        return self.delayed - (self._total or 0)

    def _reconcile(self, now_ms: float) -> None:
        """Fit what is known to the newest counts, or give it up where they do not say what changed."""
        added, listed = self._added(), self._now_listed - self._listed
        if added < 0 and self._has_left(-added, now_ms):
            self._total, self._listed = self.delayed, self._now_listed
        elif added < 0 or added > max(0, min(listed, SLICE)) or self._is_overdue(now_ms):
            self._total = None
        elif added == 0:
            self._listed = self._now_listed

    def _has_left(self, count: int, now_ms: float) -> bool:
        """Take out the `count` earliest, if these became due where they were waited for."""
        if count > len(self._known) or self._known[count - 1] > now_ms + SKEW_MS:
            return False
        del self._known[:count]
        return True

    def _is_overdue(self, now_ms: float) -> bool:
        return bool(self._known) and self._known[0] < now_ms - OVERDUE_MS

    def _merge(self, etas: Sequence[float], not_understood: int) -> None:
        """Add what stood at the end of the list; where that is not all that came, a worker was faster."""
        is_all = len(etas) + not_understood >= self._added()
        for eta in etas:
            insort(self._known, eta)
        self._total, self._listed = self.delayed if is_all else None, self._now_listed
