"""For how long each process of Dramatiq has been silent, by what was seen of its heartbeats.

Owns what is remembered of them. A heartbeat's own time is that of the machine it came from, whose clock may
be minutes off in either direction; so its value says nothing, only that it changes. A process is silent for
as long as its heartbeat has been *seen* not to change, while it could have been seen to: time in which Redis
was not read does not count. Pure: no clock, no client.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

#: Looks further apart than this, in seconds, do not belong together: nobody knows what happened between.
LONGEST_GAP_SECONDS = 15.0

#: Processes that are remembered; more is not a fleet but a leak, and what is looked at is bounded anyway.
MOST_PROCESSES = 100_000


@dataclass(slots=True)
class _Heard:
    """One process: its newest heartbeat, and since when that is the newest."""

    beat: float
    since: float
    #: It was seen alive, and is not only a name that was found.
    was_alive: bool
    #: It has said more of itself than heartbeats.
    spoke: bool


class Silence:
    """The processes of one Dramatiq namespace on one server."""

    def __init__(self) -> None:
        self._heard: dict[str, _Heard] = {}
        #: Queue → silent processes that were seen to hold nothing of it.
        self._empty: defaultdict[str, set[str]] = defaultdict(set)
        self._looked_at: float | None = None
        self._unbroken_since = float("-inf")
        #: Who is silent for so long, as of the last look; empty: not asked since.
        self._silent: dict[float, set[str]] = {}

    def broken(self) -> None:
        """A look failed, or another server answers."""
        self._looked_at = None

    def look(self, beats: Mapping[str, float], at: float) -> None:
        """Take in heartbeats (broker id → value) that were read `at` (monotonic seconds)."""
        if self._looked_at is None or at - self._looked_at > LONGEST_GAP_SECONDS:
            self._unbroken_since = at
        self._looked_at = at
        changed = {broker_id for broker_id, beat in beats.items() if self._take(broker_id, beat, at)}
        for empty in self._empty.values():
            empty.difference_update(changed)
        if len(self._heard) > MOST_PROCESSES:
            self._heard = {name: self._heard[name] for name in beats}
            self._empty.clear()
        self._silent.clear()

    def _take(self, broker_id: str, beat: float, at: float) -> bool:
        """Whether the heartbeat is another than before."""
        heard = self._heard.get(broker_id)
        if heard is None:
            self._heard[broker_id] = _Heard(beat, at, was_alive=False, spoke=False)
        elif heard.beat != beat:
            heard.beat, heard.since, heard.was_alive = beat, at, True
        else:
            return False
        return True

    def beat_of(self, broker_id: str) -> float:
        """The newest heartbeat of a process that was seen."""
        return self._heard[broker_id].beat

    def seconds(self, broker_id: str) -> float:
        """For how long it was silent at the last look; 0 where that failed."""
        if self._looked_at is None:
            return 0.0
        return self._looked_at - max(self._heard[broker_id].since, self._unbroken_since)

    def spoke(self, broker_id: str) -> None:
        """It carries a middleware that says more than heartbeats."""
        self._heard[broker_id].spoke = True

    def has_spoken(self, broker_id: str) -> bool:
        """Whether it ever did, as far as was seen."""
        return self._heard[broker_id].spoke

    def silent_for(self, seconds: float, queue: str) -> list[str]:
        """Those silent for so long that may hold messages of `queue`; whom was seen alive comes first."""
        found = self._silent_for(seconds) - self._empty[queue]
        return sorted(found, key=self._likelihood)

    def holds_nothing(self, broker_ids: Iterable[str], queue: str) -> None:
        """They hold nothing of `queue`, and cannot come to without a new heartbeat."""
        self._empty[queue].update(broker_ids)

    def forget_queues(self, queues: Collection[str]) -> None:
        """Only `queues` are looked at from now on."""
        for gone in self._empty.keys() - set(queues):
            del self._empty[gone]

    def _silent_for(self, seconds: float) -> set[str]:
        """The same for all queues of one look."""
        if self._looked_at is None:
            return set()
        if seconds not in self._silent:
            self._silent[seconds] = {name for name in self._heard if self.seconds(name) >= seconds}
        return self._silent[seconds]

    def _likelihood(self, broker_id: str) -> tuple[bool, float, str]:
        heard = self._heard[broker_id]
        return not heard.was_alive, -heard.since, broker_id
