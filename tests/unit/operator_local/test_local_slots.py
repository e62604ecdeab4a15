"""What a machine withholds is said in the decision, and its fleets as a whole never outgrow it."""

from astrid_operator.astrid_queue import AstridQueue, QueueKey, parse_astrid_queue
from astrid_operator.fleet import FleetState, Member, MemberPhase
from astrid_operator.local_slots import LocalSlots
from astrid_operator.scaling import MembersSeen, Reason, ScalingDecision


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


class Night:
    """Queues on one machine whose clock only `tick` moves; members start in three seconds."""

    def __init__(self, capacity: int, *queues: AstridQueue) -> None:
        self.now = 1000.0
        self.queues = {one.key: one for one in queues}
        self.members: dict[QueueKey, list[Member]] = {key: [] for key in self.queues}
        self.busy: dict[QueueKey, int] = dict.fromkeys(self.queues, 0)
        self.idle_since: dict[QueueKey, float] = dict.fromkeys(self.queues, 0.0)
        self.moves: list[tuple[float, str, int]] = []
        self.slots = LocalSlots(capacity, Nobody(), self._seen, lambda: self.now)
        self.reasons: dict[str, Reason] = {}

    def _seen(self, key: QueueKey) -> MembersSeen:
        ready = [each for each in self.members[key] if each.phase is MemberPhase.READY]
        busy = min(self.busy[key], len(ready))
        idle = (self.now - max(self.idle_since[key], each.since) for each in ready[busy:])
        return MembersSeen(busy, tuple(idle))

    def tick(self, wanted: dict[str, int], seconds: float = 1.0) -> dict[str, int]:
        """Share, carry out what was granted, and let a second pass; members by name."""
        asked_for = {}
        for key, one in self.queues.items():
            wish = wanted.get(key.name, 0)
            there = tuple(self.members[key])
            state = FleetState(exists=True, desired=len(there), current=len(there), members=there)
            decided = max(wish, len(there))  # what is not wanted is kept idle for a while
            asked_for[key] = (one, state, ScalingDecision(decided, Reason.BACKLOG, "why", wanted=wish))
        for key, decision in self.slots(asked_for).items():
            self._carry_out(key, decision.replicas)
            self.reasons[key.name] = decision.reason
        self.now += seconds
        self._let_start()
        return {key.name: len(there) for key, there in self.members.items()}

    def _carry_out(self, key: QueueKey, count: int) -> None:
        there = self.members[key]
        if count != len(there):
            self.moves.append((self.now, key.name, count - len(there)))
        while len(there) < count:
            there.append(Member(f"{key.name}-{self.now}-{len(there)}", MemberPhase.STARTING, self.now))
        del there[count:]

    def _let_start(self) -> None:
        for there in self.members.values():
            for at, each in enumerate(there):
                if each.phase is MemberPhase.STARTING and self.now - each.since >= 3:
                    there[at] = Member(each.name, MemberPhase.READY, self.now)


def test_an_idle_fleet_lends_its_slots_to_who_has_waited_for_a_start() -> None:
    """Not at once: what waits for less than a move costs is not worth the move."""
    night = Night(2, queue("early", priority=1), queue("late", priority=9))
    for _ in range(10):
        night.tick({"early": 2})
    night.idle_since[QueueKey("default", "early")] = night.now
    seen = [night.tick({"late": 1}) for _ in range(10)]

    assert seen[0] == {"early": 2, "late": 0}
    assert seen[-1] == {"early": 1, "late": 1}


def test_a_member_that_has_just_come_is_not_taken_again() -> None:
    """A grant sticks for about as long as a start takes, whoever else has begun to wait."""
    night = Night(1, queue("early", priority=1), queue("late", priority=9))
    night.tick({"late": 1})
    seen = [night.tick({"early": 1})["late"] for _ in range(5)]
    assert seen == [1] * 5


def test_a_member_that_works_leaves_only_for_who_has_waited_for_several_starts() -> None:
    """First the idle, and a higher class waits a little for those that work."""
    late, early = queue("late", priority=9), queue("early", priority=1)
    night = Night(2, late, early)
    night.busy[late.key] = 2
    for _ in range(20):
        night.tick({"late": 2})
    began = night.now
    while night.tick({"late": 2, "early": 2})["late"] == 2:
        assert night.now - began < 30
    assert night.now - began >= 9


def test_a_higher_class_is_not_robbed_while_it_works() -> None:
    """A lower class waits, until its waiting counts for more."""
    early, late = queue("early", priority=1), queue("late", priority=2, scaling={"maxQueueAgeSeconds": 100})
    night = Night(2, early, late)
    night.busy[early.key] = 2
    waited = 0
    while not night.tick({"early": 2, "late": 1})["late"]:
        waited += 1
        assert waited < 400
    assert 195 <= waited <= 230


def test_six_queues_on_four_slots_do_not_thrash() -> None:
    """A pipeline whose stages feed one another: slots stay for at least a start, nobody starves, little idles."""
    queues = [queue(f"q{number}", priority=number + 1) for number in range(6)]
    night = Night(4, *queues)
    waiting = [300, 0, 0, 0, 0, 0]
    done, idle_seconds, seconds = 0, 0, 0
    while done < 300:
        wanted = {one.key.name: min(3, waiting[at]) for at, one in enumerate(queues)}
        members = night.tick(wanted)
        assert sum(members.values()) <= 4
        for at in reversed(range(6)):
            key = queues[at].key
            ready = sum(each.phase is MemberPhase.READY for each in night.members[key])
            served = min(ready, waiting[at])
            idle_seconds += ready - served if any(waiting) else 0
            night.busy[key] = served
            night.idle_since[key] = night.now if served else night.idle_since[key]
            waiting[at] -= served
            if at < 5:
                waiting[at + 1] += served
            else:
                done += served
        seconds += 1
        assert seconds < 1800
    changes = len(night.moves)
    assert changes <= 40, "slots moved to and fro"
    assert idle_seconds <= 0.1 * 4 * seconds
