"""What is short in a simulation: places for members, or one kind of device, shared as the operator shares it.

Owns the way from decisions to claims and back. The sharing is `budget.py`'s.
"""

from collections.abc import Callable, Mapping

from astrid_operator.astrid_queue import AstridQueue, QueueKey
from astrid_operator.budget import Claim, grants
from astrid_operator.fleet import FleetState
from astrid_operator.scaling import Reason, ScalingDecision, limited
from astrid_operator.simulation import Asked, Budget

#: A fleet that has its size for one of these reasons is not touched for anybody's sake.
_HELD_FAST = (Reason.PAUSED, Reason.BROKER_UNREACHABLE)


def at_most(members: int | None, devices: int | None) -> Budget | None:
    """Grants at most so many members in all, and so many devices (`gpu.count` of each); None: no bound."""
    limits: list[Budget] = []
    if members is not None:
        limits.append(_limit(members, "slot", lambda _: 1))
    if devices is not None:
        limits.append(_limit(devices, "GPU", lambda queue: queue.spec.gpu.count))
    return _one_after_the_other(limits) if limits else None


def _one_after_the_other(limits: list[Budget]) -> Budget:
    def share(asked: Asked) -> Mapping[QueueKey, ScalingDecision]:
        granted = {key: decision for key, (_, _, decision) in asked.items()}
        for limit in limits:
            granted |= limit({key: (asked[key][0], asked[key][1], granted[key]) for key in asked})
        return granted

    return share


def _limit(capacity: int, slot: str, each: Callable[[AstridQueue], int]) -> Budget:
    def share(asked: Asked) -> Mapping[QueueKey, ScalingDecision]:
        concerned = {key: one for key, one in asked.items() if each(one[0])}
        granted = grants([_claim(*one, each(one[0])) for one in concerned.values()], capacity, slot)
        return {
            key: limited(decision, granted[key].members, granted[key].why)
            for key, (_, _, decision) in concerned.items()
        }

    return share


def _claim(queue: AstridQueue, fleet: FleetState, decision: ScalingDecision, slots_each: int) -> Claim:
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
        slots_each=slots_each,
        is_held_fast=decision.reason in _HELD_FAST,
    )
