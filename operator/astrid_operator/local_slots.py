"""How the slots of one machine are shared among its queues, tick by tick.

Owns the way from decisions to claims and from grants back to decisions: what is withheld is said in the
decision itself (`ScaleLimited`). The sharing is `budget.py`'s. A slot is room for one worker process.
"""

from collections.abc import Mapping
from typing import Protocol

from astrid_operator.astrid_queue import AstridQueue, QueueKey
from astrid_operator.budget import Claim, grants
from astrid_operator.fleet import FleetState
from astrid_operator.scaling import Reason, ScalingDecision, limited

Asked = Mapping[QueueKey, tuple[AstridQueue, FleetState, ScalingDecision]]

#: A fleet that has its size for one of these reasons is not touched for anybody's sake.
_HELD_FAST = (Reason.PAUSED, Reason.BROKER_UNREACHABLE)


class SlotHolders(Protocol):
    """Who knows of every fleet; `process_fleet.ProcessFleet` does."""

    def keys(self) -> set[QueueKey]: ...

    def slots_of(self, key: QueueKey) -> int: ...


class LocalSlots:
    """Implements `loop.Budget` for `capacity` slots.

    Fleets of `fleet` that are not asked for (their AstridQueue is gone, or cannot be served now) hold their
    slots all the same.
    """

    def __init__(self, capacity: int, fleet: SlotHolders) -> None:
        self._capacity = capacity
        self._fleet = fleet

    def __call__(self, asked: Asked) -> dict[QueueKey, ScalingDecision]:
        """The decisions as granted."""
        claims = [_claim(*each) for each in asked.values()]
        claims += [
            Claim(key, 1, decided=0, wanted=0, current=0, draining=self._fleet.slots_of(key))
            for key in self._fleet.keys() - asked.keys()
        ]
        granted = grants(claims, self._capacity)
        return {
            key: limited(decision, granted[key].members, granted[key].why)
            for key, (_, _, decision) in asked.items()
        }


def _claim(queue: AstridQueue, fleet: FleetState, decision: ScalingDecision) -> Claim:
    spec = queue.spec
    return Claim(
        key=queue.key,
        priority=spec.priority,
        decided=decision.replicas,
        wanted=decision.wanted,
        current=fleet.current,
        draining=fleet.draining,
        floor=spec.floor if spec.enabled else 0,
        weight=spec.scaling.weight,
        slots_each=spec.processes,
        is_held_fast=decision.reason in _HELD_FAST,
    )
