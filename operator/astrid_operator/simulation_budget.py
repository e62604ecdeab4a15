"""What is short in a simulation: places for members, or one kind of device, shared as the operator shares it.

Owns which bounds there are. The sharing is `sharing.py`'s, and remembers what it remembers in the operator.
"""

from collections.abc import Callable, Mapping

from astrid_operator.astrid_queue import AstridQueue, QueueKey
from astrid_operator.scaling import MembersSeen, ScalingDecision
from astrid_operator.sharing import Asked, SeenMembers, Sharing
from astrid_operator.simulation_world import Budget


def at_most(members: int | None, devices: int | None) -> Budget | None:
    """Grants at most so many members in all, and so many devices (`gpu.count` of each); None: no bound.

    One simulation's: it remembers who waits.
    """
    bounds: list[_Bound] = []
    if members is not None:
        bounds.append(_Bound(members, "slot", lambda _: 1))
    if devices is not None:
        bounds.append(_Bound(devices, "GPU", lambda queue: queue.spec.gpu.count))
    return _one_after_the_other(bounds) if bounds else None


def _one_after_the_other(bounds: list["_Bound"]) -> Budget:
    def share(asked: Asked, seen: SeenMembers, now: float) -> Mapping[QueueKey, ScalingDecision]:
        granted = {key: decision for key, (_, _, decision) in asked.items()}
        for bound in bounds:
            granted |= bound({key: (asked[key][0], asked[key][1], granted[key]) for key in asked}, seen, now)
        return granted

    return share


class _Bound:
    """So many slots, of which a member takes as many as `each` says; none: its queue is not concerned."""

    def __init__(self, capacity: int, slot: str, each: Callable[[AstridQueue], int]) -> None:
        self._capacity = capacity
        self._each = each
        self._now = 0.0
        self._seen: SeenMembers = lambda _: None
        self._sharing = Sharing(slot, each, self._who, lambda: self._now)

    def __call__(self, asked: Asked, seen: SeenMembers, now: float) -> Mapping[QueueKey, ScalingDecision]:
        self._now, self._seen = now, seen
        concerned = {key: one for key, one in asked.items() if self._each(one[0])}
        return self._sharing.share(concerned, self._capacity, {})

    def _who(self, key: QueueKey) -> MembersSeen | None:
        return self._seen(key)
