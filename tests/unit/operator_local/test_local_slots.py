"""What a machine withholds is said in the decision, and its fleets as a whole never outgrow it."""

from astrid_operator.astrid_queue import AstridQueue, QueueKey, parse_astrid_queue
from astrid_operator.fleet import FleetState
from astrid_operator.local_slots import LocalSlots
from astrid_operator.scaling import Reason, ScalingDecision


class Nobody:
    """Fleets of queues that are gone: name → slots that their members still hold."""

    def __init__(self, **slots: int) -> None:
        self._slots = slots

    def keys(self) -> set[QueueKey]:
        return {QueueKey("default", name) for name in self._slots}

    def slots_of(self, key: QueueKey) -> int:
        return self._slots[key.name]


def queue(name: str, **spec: object) -> AstridQueue:
    """An AstridQueue as it would be read from a file."""
    head = {"apiVersion": "astrid.dev/v1alpha1", "kind": "AstridQueue", "metadata": {"name": name}}
    return parse_astrid_queue({**head, "spec": {"app": "naps.app", **spec}})


def asked(
    one: AstridQueue,
    replicas: int,
    reason: Reason = Reason.BACKLOG,
    *,
    current: int = 0,
    wanted: int | None = None,
) -> tuple[AstridQueue, FleetState, ScalingDecision]:
    """A queue, its fleet, and what was decided for it."""
    fleet = FleetState(exists=True, desired=current, current=current)
    return one, fleet, ScalingDecision(replicas, reason, "why", wanted=replicas if wanted is None else wanted)


def granted(
    slots: LocalSlots, *each: tuple[AstridQueue, FleetState, ScalingDecision]
) -> dict[str, ScalingDecision]:
    """Name → decision as granted."""
    return {key.name: decision for key, decision in slots({one[0].key: one for one in each}).items()}


def test_a_decision_that_fits_is_not_touched() -> None:
    """No word about slots where there are enough."""
    decision = granted(LocalSlots(4, Nobody()), asked(queue("a"), 3))["a"]
    assert (decision.replicas, decision.reason, decision.message) == (3, Reason.BACKLOG, "why")


def test_what_is_withheld_is_said_in_the_decision() -> None:
    """ScaleLimited, with the holders and what was decided before."""
    found = granted(
        LocalSlots(2, Nobody()), asked(queue("first", priority=1), 2, current=2), asked(queue("a"), 3)
    )
    assert (found["a"].replicas, found["a"].reason) == (0, Reason.SCALE_LIMITED)
    assert found["a"].message == "0 of 3 granted: 2 slots in all, held by first 2; why"


def test_members_that_still_leave_hold_their_slots() -> None:
    """Also those of an AstridQueue whose file is gone."""
    assert granted(LocalSlots(2, Nobody(gone=1)), asked(queue("a"), 2))["a"].replicas == 1


def test_processes_count_and_threads_do_not() -> None:
    """A slot is room for one worker process."""
    found = granted(LocalSlots(4, Nobody()), asked(queue("a", processes=2, concurrency=8), 3))
    assert found["a"].replicas == 2


def test_a_fleet_whose_redis_is_silent_is_not_shrunk_for_another() -> None:
    """Unknown is not zero."""
    silent = asked(queue("silent", priority=9), 2, Reason.BROKER_UNREACHABLE, current=2)
    found = granted(LocalSlots(2, Nobody()), silent, asked(queue("first", priority=1), 2))
    assert (found["silent"].replicas, found["first"].replicas) == (2, 0)


def test_an_idle_fleet_lends_its_slots() -> None:
    """What is only kept idle leaves at once when another queue has work."""
    idle = asked(queue("idle", priority=1), 2, Reason.COOLING_DOWN, current=2, wanted=0)
    found = granted(LocalSlots(2, Nobody()), idle, asked(queue("late", priority=9), 1))
    assert found["idle"].replicas == 1
