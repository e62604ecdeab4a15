"""A Fleet and a Reporter in memory, which behave: members start at once or wait, sizes change only by `scale_to`.

Owns no policy. Faults are injected by name: the next call of a method raises what was put there.
"""

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from astrid_operator.astrid_queue import AstridQueue, QueueKey
from astrid_operator.fleet import EventType, FleetState, Subject


class MemoryFleet:
    """Fleets by key; `writes` lists every change in order."""

    def __init__(self) -> None:
        self.sizes: dict[QueueKey, int] = {}
        self.shapes: dict[QueueKey, AstridQueue] = {}
        self.writes: list[tuple[Any, ...]] = []
        self.faults: defaultdict[str, list[Exception]] = defaultdict(list)
        #: Fleets that need care, the members that may leave at one step, and every call: (key, target, whoever).
        self.need_care: set[QueueKey] = set()
        #: Members that are there, where those that were asked for are not all there yet.
        self.present: dict[QueueKey, int] = {}
        #: Fleets that were there before the operator began.
        self.inherited: set[QueueKey] = set()
        self.leave_at_a_time: int | None = None
        self.tended: list[tuple[QueueKey, int, bool]] = []
        self.spares: list[int] = []

    async def observe(self, key: QueueKey) -> FleetState:
        if key not in self.sizes:
            return FleetState()
        size, needs_care = self.sizes[key], key in self.need_care
        present = self.present.get(key, size)
        return FleetState(
            exists=True,
            desired=size,
            current=present,
            ready=0 if key in self.present else size,
            updated=size,
            is_inherited=key in self.inherited,
            needs_care=needs_care,
        )

    async def ensure(self, queue: AstridQueue, replicas: int = 0) -> None:
        self._fail("ensure")
        self.inherited.discard(queue.key)
        if self.shapes.get(queue.key) != queue:
            self.shapes[queue.key] = queue
            self.writes.append(("ensure", queue.key, replicas))
        self.sizes.setdefault(queue.key, replicas)

    async def scale_to(self, key: QueueKey, replicas: int) -> None:
        self._fail("scale_to")
        self.sizes[key] = replicas
        self.writes.append(("scale", key, replicas))

    async def tend(self, queue: AstridQueue, replicas: int, *, whoever: bool, spare: int = 0) -> int | None:
        self._fail("tend")
        self.tended.append((queue.key, replicas, whoever))
        self.spares.append(spare)
        self.need_care.discard(queue.key)
        least = 0 if self.leave_at_a_time is None else self.sizes[queue.key] - self.leave_at_a_time
        size = max(replicas, least)
        if self.sizes[queue.key] <= size:
            return None
        await self.scale_to(queue.key, size)
        return size

    async def remove(self, key: QueueKey) -> None:
        self.sizes.pop(key, None)
        self.shapes.pop(key, None)
        self.writes.append(("remove", key))

    def scales(self) -> list[int]:
        """Sizes in the order in which they were written."""
        return [write[2] for write in self.writes if write[0] == "scale"]

    def _fail(self, method: str) -> None:
        if self.faults[method]:
            raise self.faults[method].pop(0)


class MemoryReporter:
    """Keeps the status of every AstridQueue, and all events."""

    def __init__(self) -> None:
        self.statuses: dict[QueueKey, Mapping[str, Any]] = {}
        self.events: list[tuple[QueueKey, str, str, str]] = []
        self.faults: list[Exception] = []
        self.written = 0

    async def status(self, queue: Subject, status: Mapping[str, Any]) -> None:
        if self.faults:
            raise self.faults.pop(0)
        self.statuses[queue.key] = status
        self.written += 1

    async def event(self, queue: Subject, kind: EventType, reason: str, message: str) -> None:
        self.events.append((queue.key, kind, reason, message))

    def condition(self, key: QueueKey, kind: str) -> Mapping[str, Any]:
        """One condition of one AstridQueue."""
        found: Mapping[str, Any] = next(
            each for each in self.statuses[key]["conditions"] if each["type"] == kind
        )
        return found
