"""Which delayed messages of one queue nobody has taken yet, and what becomes of one whose time has come.

Owns the ids of those that stand in the list of delayed messages, in the order in which they become due, and
the form in which Dramatiq itself enqueues a message that is due. A Dramatiq worker takes delayed messages in
the order of the list and holds what is not due; once its hands are full it takes no more, and what stands
behind waits for as long. The list is read once in slices, its end and its beginning before that and whenever
they change, and all of it again at long intervals. Pure: no clock, no client; times of messages are the
server's, in ms since the epoch.
"""

import json
import math
from bisect import bisect_left, insort
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

#: Messages of which the ids are kept: those that are due first. For the others the list is read again.
KEPT = 10_000

#: Ids that are read from the list in one step on the server, and from its beginning when that changed.
SLICE = 500
HEAD = 200

#: The list is read again after so many seconds, and one more for each so many ids in it.
LEAST_AGAIN_SECONDS = 60.0
READ_PER_SECOND = 200

#: A message that somebody holds is looked for again after this time, in ms; one that cannot be read, after
#: this.
HELD_AGAIN_MS = 5_000.0
LEFT_ALONE_MS = 600_000.0

#: Processes of which it is known that they live and may hold messages; more are not asked about.
MOST_HOLDERS = 500


@dataclass(frozen=True, slots=True)
class Place:
    """An id in the list, its index, and how long the list was then."""

    name: bytes = b""
    index: int = -1
    length: int = 0


class Part(Enum):
    """What is read: what was added at the end, what stands at the beginning, or all of it bit by bit."""

    END = "end"
    HEAD = "head"
    ALL = "all"


@dataclass(frozen=True, slots=True)
class ReadListed:
    """Read at most `most` ids after a place; messages due later than `latest_ms` need not be told."""

    part: Part
    after: Place
    most: int
    latest_ms: float


class DueMessages:
    """Those of one queue that nobody holds. A tick: `counted`, then `wanted` and `took` in turn."""

    def __init__(self) -> None:
        #: (when to try in ms, id), in order; and id → the same time.
        self._order: list[tuple[float, bytes]] = []
        self._try_at: dict[bytes, float] = {}
        #: Those of them that were tried in vain: their times are no ETAs.
        self._deferred: set[bytes] = set()
        #: The earliest that was dropped for want of room; what is due from then on has to be read again.
        self._dropped_ms = math.inf
        #: What was read last at the end; None: the list was not seen yet.
        self._end: Place | None = None
        #: How far the whole list was read; None: to its end.
        self._all: Place | None = None
        self._first = self._last = b""
        self._reads_head = False
        self._read_again_at = math.inf
        #: How long the list is.
        self.listed = 0
        #: Living processes that may hold messages of this queue.
        self.holders: tuple[str, ...] = ()

    def counted(self, listed: int, first: bytes, last: bytes, at: float) -> None:
        """The list has `listed` ids, from `first` to `last`; `at` is monotonic seconds."""
        if not listed:
            self.unknown()
            return
        if self._end is None:  # both ends at once: what is due first stands there more often than between
            self._end, self._reads_head = Place(), True
            self._read_again_at = float("-inf")
        elif first != self._first:
            self._reads_head = True
        if at >= self._read_again_at or self._runs_short():
            self._all, self._dropped_ms = Place(), math.inf
            self._read_again_at = at + LEAST_AGAIN_SECONDS + listed / READ_PER_SECOND
        self.listed, self._first, self._last = listed, first, last

    def unknown(self) -> None:
        """Nothing is known of the list any more, or it is empty."""
        self._order, self._try_at, self._deferred = [], {}, set()
        self._end = self._all = None
        self._dropped_ms = math.inf
        self._reads_head, self.listed = False, 0

    def wanted(self) -> ReadListed | None:
        """What to read next; None: all is read."""
        if self._end is None:
            return None
        if self._end.name != self._last:
            return ReadListed(Part.END, self._end, SLICE, self._dropped_ms)
        if self._reads_head:
            return ReadListed(Part.HEAD, Place(), HEAD, self._dropped_ms)
        if self._all is not None:
            return ReadListed(Part.ALL, self._all, SLICE, self._dropped_ms)
        return None

    def took(
        self, asked: ReadListed, upto: Place, found: Iterable[tuple[float, bytes]], left_out: int = 0
    ) -> None:
        """What was read, and up to where: (ETA, id) of each message; `left_out` came before them.

        Where more was added than is read in one step, the end of it is known at once and the rest bit by bit.
        """
        is_end = upto.index >= upto.length - 1
        if asked.part is Part.HEAD:
            self._reads_head = False
        elif asked.part is Part.ALL:
            self._all = None if is_end else upto
        else:
            self._end = upto
            if left_out and self._all is None:
                self._all = asked.after
            if is_end:  # which may be another one than was counted: the next count tells
                self._last = upto.name
        for eta, name in found:
            self._note(name, eta)

    def next_ms(self) -> float | None:
        """When the next message is due, or is to be looked for again; None: none is known."""
        return self._order[0][0] if self._order else None

    def next_eta_ms(self) -> float | None:
        """When the next message is due that was not tried yet; None: none is known."""
        return next((at_ms for at_ms, name in self._order if name not in self._deferred), None)

    def due(self, now_ms: float, most: int) -> list[bytes]:
        """At most `most` ids whose time has come, the earliest first."""
        end = bisect_left(self._order, (now_ms, b"\xff" * 64))
        return [name for _, name in self._order[: min(end, most)]]

    def forget(self, names: Iterable[bytes]) -> None:
        """They are not delayed any more."""
        for name in names:
            self._remove(name)

    def defer(self, names: Iterable[bytes], until_ms: float) -> None:
        """They cannot be moved now: try again then."""
        for name in names:
            self._remove(name)
            self._insert(name, until_ms)
            self._deferred.add(name)

    def moved(self, name: bytes, in_its_place: bytes) -> None:
        """`name` left the list, and the id `in_its_place` stands where it stood."""
        self._remove(name)
        if self._end is not None and self._end.name == name:
            self._end = replace(self._end, name=in_its_place)
        if self._all is not None and self._all.name == name:
            self._all = replace(self._all, name=in_its_place)

    # ---------------------------------------------------------------------------------------- order

    def _note(self, name: bytes, eta: float) -> None:
        before = self._try_at.get(name)
        if before == eta:
            return
        if before is not None:
            self._remove(name)
        self._insert(name, eta)
        if len(self._order) > KEPT:
            dropped, last = self._order.pop()
            del self._try_at[last]
            self._deferred.discard(last)
            self._dropped_ms = min(self._dropped_ms, dropped)

    def _insert(self, name: bytes, at_ms: float) -> None:
        insort(self._order, (at_ms, name))
        self._try_at[name] = at_ms

    def _remove(self, name: bytes) -> None:
        at_ms = self._try_at.pop(name, None)
        self._deferred.discard(name)
        if at_ms is not None:
            del self._order[bisect_left(self._order, (at_ms, name))]

    def _runs_short(self) -> bool:
        """Half of what was kept is used up, and more was dropped."""
        return self._dropped_ms < math.inf and self._all is None and len(self._order) < KEPT // 2


# ------------------------------------------------------------------------------------------- message


@dataclass(frozen=True, slots=True)
class Released:
    """A delayed message as it stands in its queue once it is due."""

    #: When it is due, in ms.
    eta_ms: float
    body: bytes


#: What Dramatiq's messages consist of, in its order.
_FIELDS = ("queue_name", "actor_name", "args", "kwargs", "options", "message_id", "message_timestamp")


def released(body: bytes, queue: str, new_id: str) -> Released | None:
    """The message that a worker enqueues on `queue` when the delayed one `body` is due, byte for byte.

    As `ConsumerThread.handle_delayed_messages` and `RedisBroker.enqueue` of Dramatiq 2 make it: the queue's
    own name, no ETA, a new id in Redis, all else unchanged. None: it is not JSON as Dramatiq writes it.
    """
    try:
        message: Any = json.loads(body)
    except (ValueError, RecursionError):
        return None
    if not isinstance(message, dict) or message.keys() != set(_FIELDS):
        return None
    options = message["options"]
    if not isinstance(options, dict) or "eta" not in options or message["queue_name"] != f"{queue}.DQ":
        return None
    kinds: Sequence[tuple[str, type]] = (("actor_name", str), ("args", list), ("kwargs", dict))
    if any(not isinstance(message[name], kind) for name, kind in kinds):
        return None
    try:
        # what is no number is due at once, as it is to Dramatiq
        eta = float(options["eta"]) if isinstance(options["eta"], int | float) else 0.0
    except OverflowError:
        return None
    kept = {name: value for name, value in options.items() if name != "eta"}
    new = {**message, "queue_name": queue, "options": {**kept, "redis_message_id": new_id}}
    text = json.dumps({name: new[name] for name in _FIELDS}, separators=(",", ":"))
    return Released(0.0 if math.isnan(eta) else eta, text.encode())
