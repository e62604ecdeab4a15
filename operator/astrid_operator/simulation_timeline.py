"""How a simulated fleet looked over time, in bins of a fixed length.

Owns the sums per bin: what waited at most, members and busy threads on average, and how many more messages
are delayed at its end than at its start. Draws nothing (`simulation_picture.py` does).
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import accumulate

#: Length of a bin in seconds, short against the minutes in which fleets breathe.
BIN_SECONDS = 10.0


@dataclass(slots=True)
class Bin:
    """Sums over one bin."""

    most_waiting: int = 0
    member_seconds: float = 0.0
    running_seconds: float = 0.0
    more_delayed: int = 0

    def __reduce__(self) -> tuple[type["Bin"], tuple[int, float, float, int]]:
        """As its numbers: a night has thousands, and pickled field by field they take four times as long."""
        return Bin, (self.most_waiting, self.member_seconds, self.running_seconds, self.more_delayed)


@dataclass(frozen=True, slots=True)
class Span:
    """What is drawn of one stretch of time."""

    at: float
    waiting: int
    members: float
    running: float
    #: At most, at the ends of its bins.
    delayed: int = 0


@dataclass(slots=True)
class Timeline:
    """Bins that anything happened in; the others are empty."""

    bins: defaultdict[int, Bin] = field(default_factory=lambda: defaultdict(Bin))
    _at: float = 0.0
    _waiting: int = 0
    _running: int = 0
    _members: int = 0

    def saw(self, now: float, waiting: int, running: int, members: int) -> None:
        """How it stands at `now`; until then it was as it was told last."""
        if self._members or self._waiting or self._running:
            self._add(now)
        self._at, self._waiting, self._running, self._members = now, waiting, running, members
        if waiting:
            each = self.bins[int(now / BIN_SECONDS)]
            if waiting > each.most_waiting:
                each.most_waiting = waiting

    def delayed(self, now: float, more: int) -> None:
        """So many messages more are delayed from `now` on (or fewer), however long nothing else happens."""
        self.bins[int(now / BIN_SECONDS)].more_delayed += more

    def _add(self, now: float) -> None:
        begin, waiting, members, running = self._at, self._waiting, self._members, self._running
        number, last = int(begin / BIN_SECONDS), int(now / BIN_SECONDS)
        while begin < now:
            end = now if number == last else (number + 1) * BIN_SECONDS
            each = self.bins[number]
            if waiting > each.most_waiting:
                each.most_waiting = waiting
            each.member_seconds += members * (end - begin)
            each.running_seconds += running * (end - begin)
            begin, number = end, number + 1


def together(timelines: Iterable[Timeline]) -> Timeline:
    """The sum of several; what waited at most is the sum of what each saw, so an upper bound."""
    total = Timeline()
    for timeline in timelines:
        for number, each in timeline.bins.items():
            mine = total.bins[number]
            mine.most_waiting += each.most_waiting
            mine.member_seconds += each.member_seconds
            mine.running_seconds += each.running_seconds
            mine.more_delayed += each.more_delayed
    return total


def spans(timeline: Timeline, count: int) -> list[Span]:
    """At most `count` stretches of equal length that cover all of it."""
    if not timeline.bins:
        return []
    bins = max(timeline.bins) + 1
    per_span = -(-bins // count)
    return list(_spans(timeline, bins, per_span))


def _spans(timeline: Timeline, bins: int, per_span: int) -> Iterator[Span]:
    delayed = 0
    for first in range(0, bins, per_span):
        inside = [timeline.bins[each] for each in range(first, first + per_span) if each in timeline.bins]
        seconds = per_span * BIN_SECONDS
        levels = list(accumulate((each.more_delayed for each in inside), initial=delayed))
        delayed = levels[-1]
        yield Span(
            at=first * BIN_SECONDS,
            waiting=max((each.most_waiting for each in inside), default=0),
            members=sum(each.member_seconds for each in inside) / seconds,
            running=sum(each.running_seconds for each in inside) / seconds,
            delayed=max(levels),
        )
