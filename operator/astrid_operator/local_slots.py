"""How the slots of one machine are shared among its queues, tick by tick.

Owns what a slot is: room for one worker process; and that fleets without an AstridQueue hold theirs until
they are gone. Who gets what is `sharing.py`'s and `budget.py`'s.
"""

import time
from collections.abc import Callable
from typing import Protocol

from astrid_operator.astrid_queue import QueueKey
from astrid_operator.scaling import ScalingDecision
from astrid_operator.sharing import Asked, SeenMembers, Sharing


class SlotHolders(Protocol):
    """Who knows of every fleet; `process_fleet.ProcessFleet` does."""

    def keys(self) -> set[QueueKey]: ...

    def slots_of(self, key: QueueKey) -> int: ...


class LocalSlots:
    """Implements `loop.Budget` for `capacity` slots; `seen` tells what members say they do.

    Fleets of `fleet` that are not asked for (their AstridQueue is gone, or cannot be served now) hold their
    slots all the same.
    """

    def __init__(
        self,
        capacity: int,
        fleet: SlotHolders,
        seen: SeenMembers = lambda _key: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._capacity = capacity
        self._fleet = fleet
        self._sharing = Sharing("slot", lambda queue: queue.spec.processes, seen, clock)

    def __call__(self, asked: Asked) -> dict[QueueKey, ScalingDecision]:
        """The decisions as granted."""
        others = {key: self._fleet.slots_of(key) for key in self._fleet.keys() - asked.keys()}
        return self._sharing.share(asked, self._capacity, others)
