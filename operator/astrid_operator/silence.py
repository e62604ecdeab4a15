"""For how long each process of Dramatiq has been silent, by what was seen of its heartbeats.

Owns what is remembered of them. A heartbeat's own time is that of the machine it came from, whose clock may
be minutes off in either direction; so its value says nothing, only that it changes. A process is silent for
as long as its heartbeat has been *seen* not to change, while it could have been seen to: time in which Redis
was not read does not count. Pure: no clock, no client.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

#: Looks further apart than this, in seconds, do not belong together: nobody knows what happened between.
LONGEST_GAP_SECONDS = 15.0

#: Processes that are remembered; more is not a fleet but a leak, and what is looked at is bounded anyway.
MOST_PROCESSES = 100_000


@dataclass(slots=True)
class _Heard:
    """One process: its newest heartbeat, since when that is the newest, and where it holds nothing."""

    beat: float
    since: float
    #: It was seen alive, and is not only a name that was found.
    was_alive: bool
    #: It has said more of itself than heartbeats.
    spoke: bool
    holds_nothing_in: set[str] = field(default_factory=set)


class Silence:
    """The processes of one Dramatiq namespace on one server."""

    def __init__(self) -> None:
        self._heard: dict[str, _Heard] = {}
        self._looked_at: float | None = None
        self._unbroken_since = float("-inf")

    def broken(self) -> None:
        """A look failed, or another server answers."""
        self._looked_at = None

    def look(self, beats: Mapping[str, float], at: float) -> None:
        """Take in heartbeats (broker id → value) that were read `at` (monotonic seconds)."""
        if self._looked_at is None or at - self._looked_at > LONGEST_GAP_SECONDS:
            self._unbroken_since = at
        self._looked_at = at
        for broker_id, beat in beats.items():
            heard = self._heard.get(broker_id)
            if heard is None or heard.beat != beat:
                spoke = heard is not None and heard.spoke
                self._heard[broker_id] = _Heard(beat, at, was_alive=heard is not None, spoke=spoke)
        if len(self._heard) > MOST_PROCESSES:
            self._heard = {name: self._heard[name] for name in beats}

    def beat_of(self, broker_id: str) -> float:
        """The newest heartbeat of a process that was seen."""
        return self._heard[broker_id].beat

    def seconds(self, broker_id: str, at: float) -> float:
        """For how long it is known to be silent."""
        return at - max(self._heard[broker_id].since, self._unbroken_since)

    def spoke(self, broker_id: str) -> None:
        """It carries a middleware that says more than heartbeats."""
        self._heard[broker_id].spoke = True

    def has_spoken(self, broker_id: str) -> bool:
        """Whether it ever did, as far as was seen."""
        return self._heard[broker_id].spoke

    def silent_for(self, seconds: float, queue: str, at: float) -> Iterator[str]:
        """Those silent for so long that may hold messages of `queue`; whom was seen alive comes first."""
        quiet = [
            (not heard.was_alive, -heard.since, broker_id)
            for broker_id, heard in self._heard.items()
            if queue not in heard.holds_nothing_in and self.seconds(broker_id, at) >= seconds
        ]
        return (broker_id for _, _, broker_id in sorted(quiet))

    def holds_nothing(self, broker_ids: Iterable[str], queue: str) -> None:
        """They hold nothing of `queue`, and cannot come to without a new heartbeat."""
        for broker_id in broker_ids:
            self._heard[broker_id].holds_nothing_in.add(queue)
