"""How pods leave: asked, confirmed by what Redis says they hold, marked, and counted when they are gone."""

import asyncio
from collections.abc import Collection, Mapping
from typing import Any

import pytest

from astrid_operator.astrid_queue import AstridQueue, QueueKey, parse_astrid_queue
from astrid_operator.errors import NotAsked, ObjectGone
from astrid_operator.fleet import FleetState, Member, MemberPhase
from astrid_operator.kinds import Kind
from astrid_operator.node_hints import DELETION_COST, SAFE_TO_EVICT
from astrid_operator.pod_members import PodMembers
from astrid_operator.pod_retirement import PodRetirement
from astrid_operator.presence import MemberSaid, ProcessSaid
from astrid_operator.retirement import Step
from astrid_operator.scaling import MembersSeen
from astrid_operator.seen import Seen

KEY = QueueKey("sky", "detection")


class Redis:
    """Stands for the conversation: who is asked, and what each process holds."""

    def __init__(self) -> None:
        self.asked: set[str] = set()
        self.held: dict[str, int] = {}
        self.is_away = False
        self.refreshed = 0

    async def ask(self, _key: QueueKey, processes: Collection[str]) -> None:
        self._check()
        self.asked |= set(processes)
        self.refreshed += 1

    async def release(self, _key: QueueKey, processes: Collection[str]) -> None:
        self._check()
        self.asked -= set(processes)

    async def held_by(self, _key: QueueKey, broker_ids: Collection[str]) -> dict[str, int]:
        self._check()
        return {each: self.held.get(each, 0) for each in broker_ids}

    def _check(self) -> None:
        if self.is_away:
            raise NotAsked("Redis is away")


class World:
    """A fleet of pods in memory, told of as watches and presence tell."""

    def __init__(self, **spec: Any) -> None:
        self.now = 1000.0
        self.seen, self.redis = Seen(), Redis()
        self.members = PodMembers(self.seen, lambda: self.now)
        self.counted: list[bool] = []
        self.written: list[tuple[str, dict[str, str | None]]] = []
        self.gone: set[str] = set()
        self.retirement = PodRetirement(
            self,
            self.seen,
            self.members,
            self.redis,  # type: ignore[arg-type]
            lambda: self.now,
            lambda _key, as_chosen: self.counted.append(as_chosen),
        )
        manifest = {
            "apiVersion": "astrid.dev/v1alpha1",
            "kind": "AstridQueue",
            "metadata": {"name": KEY.name, "namespace": KEY.namespace, "uid": "q", "resourceVersion": "1"},
            "spec": {"app": "sky.tasks", **spec},
        }
        self.queue: AstridQueue = parse_astrid_queue(manifest)
        self.seen.put(Kind.ASTRID_QUEUE, manifest)
        self.phases: dict[str, MemberPhase] = {}
        self.since: dict[str, float] = {}
        self.version = 1

    async def annotate_pod(
        self, pod: Mapping[str, Any], annotations: Mapping[str, str | None]
    ) -> dict[str, Any]:
        name = pod["metadata"]["name"]
        if name in self.gone:
            raise ObjectGone(name)
        self.written.append((name, dict(annotations)))
        merged = {**pod["metadata"]["annotations"], **annotations}
        return self._pod(name, {key: value for key, value in merged.items() if value is not None})

    def pod(
        self, name: str, phase: MemberPhase = MemberPhase.READY, since: float = 0.0, **annotations: str
    ) -> None:
        """A pod is there."""
        self.phases[name], self.since[name] = phase, since
        self.seen.put(Kind.POD, self._pod(name, annotations))

    def _pod(self, name: str, annotations: Mapping[str, str]) -> dict[str, Any]:
        self.version += 1
        metadata = {
            "name": name,
            "namespace": KEY.namespace,
            "uid": name,
            "resourceVersion": str(self.version),
            "labels": {"astrid.dev/queue": KEY.name},
            "annotations": dict(annotations),
        }
        return {"metadata": metadata, "spec": {"nodeName": "n"}}

    def say(
        self, busy: Collection[str] = (), idle: Mapping[str, float] | None = None, processes: int = 1
    ) -> None:
        """The pods say what they do; who is asked has stopped."""
        said = {name: self._said(name, 1, None, processes) for name in busy}
        said |= {name: self._said(name, 0, seconds, processes) for name, seconds in (idle or {}).items()}
        self.members.heard(KEY, said)
        self.members.heard_asked(KEY, frozenset(self.redis.asked))

    def hear(self, **processes: int) -> None:
        """So many processes of each pod say that it is busy; the others are silent."""
        said = {name: self._said(name, 1, None, count) for name, count in processes.items()}
        self.members.heard(KEY, said)
        self.members.heard_asked(KEY, frozenset(self.redis.asked))

    def _said(self, name: str, busy: int, idle: float | None, count: int) -> MemberSaid:
        processes = tuple(
            ProcessSaid(f"{name}:{at}", f"id-{name}-{at}", f"{name}:{at}" in self.redis.asked)
            for at in range(count)
        )
        return MemberSaid(busy, idle, any(each.draining for each in processes), processes)

    def state(self, desired: int, *, settled: bool = True) -> FleetState:
        """The fleet as it is seen."""
        members = tuple(Member(name, phase, self.since[name]) for name, phase in sorted(self.phases.items()))
        current = sum(phase is not MemberPhase.DRAINING for phase in self.phases.values())
        return FleetState(exists=True, desired=desired, current=current, members=members, settled=settled)

    def look(
        self, desired: int, replicas: int, *, whoever: bool = False, settled: bool = True, spare: int = 0
    ) -> Step:
        """One look."""
        state = self.members.as_heard(KEY, self.state(desired, settled=settled))
        look = self.retirement.look(self.queue, state, replicas, whoever=whoever, spare=spare)
        return asyncio.run(look)


@pytest.fixture
def three() -> World:
    """Two idle pods and a busy one."""
    world = World()
    for name in ("a", "b", "c"):
        world.pod(name)
    world.say(busy=["c"], idle={"a": 90, "b": 70})
    return world


def test_an_idle_pod_is_asked_confirmed_and_marked_before_the_size_falls(three: World) -> None:
    """The order of the protocol, look by look."""
    assert three.look(3, 2).replicas == 3
    assert three.redis.asked == {"a:0"}
    assert three.written == []

    three.say(busy=["c"], idle={"a": 91, "b": 71})
    assert three.look(3, 2).replicas == 2
    assert three.written == [("a", {DELETION_COST: "-1000"})]


def test_a_pod_that_holds_a_message_by_redis_own_account_does_not_go(three: World) -> None:
    """Presence says idle, the set of acknowledgements says otherwise: the set is right."""
    three.look(3, 2)
    three.say(busy=["c"], idle={"a": 91, "b": 71})
    three.redis.held["id-a-0"] = 1
    assert three.look(3, 2).replicas == 3
    assert three.written == []

    three.redis.held.clear()
    assert three.look(3, 2).replicas == 2


def test_a_pod_that_took_a_task_meanwhile_stays_and_another_is_asked(three: World) -> None:
    """The request is taken back."""
    three.look(3, 2)
    three.say(busy=["a", "c"], idle={"b": 71})
    assert three.look(3, 2).replicas == 3
    assert three.redis.asked == {"b:0"}


def test_a_pod_of_several_processes_goes_when_all_of_them_are_quiet() -> None:
    """One process that has stopped says nothing of the other."""
    world = World(processes=2)
    world.pod("a")
    world.say(idle={"a": 90}, processes=2)
    world.look(1, 0)
    assert world.redis.asked == {"a:0", "a:1"}
    world.say(idle={"a": 91}, processes=2)
    world.redis.held["id-a-1"] = 1
    assert world.look(1, 0).replicas == 1
    world.redis.held.clear()
    assert world.look(1, 0).replicas == 0


def test_a_pod_of_which_a_process_is_silent_is_not_taken_for_idle() -> None:
    """Half a member's word is no word."""
    world = World(processes=2)
    world.pod("a")
    world.say(idle={"a": 90}, processes=1)
    seen = world.members.seen(KEY, world.state(1).members, running=1)
    assert seen is None


def test_a_process_that_is_silent_stays_asked_and_its_pod_until_its_time_is_up() -> None:
    """C code may keep the interpreter's lock for long: nothing beats then, and the task runs all the same."""
    world = World(processes=2, timeoutSeconds=100)
    world.pod("a")
    world.pod("b")
    world.say(busy=["a", "b"], processes=2)
    world.look(2, 1, whoever=True)
    asked = set(world.redis.asked)
    assert len(asked) == 2
    (name,) = {process.partition(":")[0] for process in asked}
    other = "b" if name == "a" else "a"
    world.hear(a=2, b=2)

    for speaking in ({other: 2}, {other: 2, name: 1}, {other: 2}):
        world.now += 50
        world.hear(**speaking)
        assert world.look(2, 1, whoever=True).go == ()
        assert world.redis.asked == asked
    world.now += 11
    world.hear(**{other: 2})
    assert world.look(2, 1, whoever=True).go == (name,)


def test_a_silent_pod_is_asked_by_the_names_that_it_had() -> None:
    """It reads what it is told when it is back; until then it may work."""
    world = World()
    world.pod("a")
    world.say(busy=["a"])
    world.now += 20
    world.hear()
    assert world.look(1, 0, whoever=True) == Step(1, ask=("a",))
    assert world.redis.asked == {"a:0"}


def test_who_was_asked_by_a_dead_operator_and_is_silent_is_not_let_go() -> None:
    """That a process is asked says that it spoke; another operator need not have heard it."""
    world = World(processes=2)
    world.pod("a")
    world.redis.asked = {"a:0", "a:1"}
    world.hear(a=1)
    assert world.look(1, 0, whoever=True) == Step(1)
    assert world.redis.asked == {"a:0", "a:1"}


def test_whoever_is_silent_and_stays_is_told_so_too() -> None:
    """Else a process of it would stand idle for good."""
    world = World(processes=2)
    world.pod("a")
    world.redis.asked = {"a:0", "a:1"}
    world.hear(a=1)
    world.look(1, 1)
    assert world.redis.asked == set()


def test_a_process_in_whose_place_another_runs_is_asked_no_more() -> None:
    """Its container started anew, or it was replaced: nobody bears its name."""
    world = World()
    world.pod("a")
    world.redis.asked = {"a:before"}
    world.say(busy=["a"])
    world.look(1, 0, whoever=True)
    assert "a:before" not in world.redis.asked


def test_a_pod_that_spoke_lately_and_is_silent_counts_as_busy(three: World) -> None:
    """It is not one that has only begun, however young it is."""
    three.pod("d", since=three.now)
    three.say(busy=["c"], idle={"a": 90, "b": 70, "d": 0})
    three.now += 20
    three.say(busy=["c"], idle={"a": 110, "b": 90})
    seen = three.members.seen(KEY, three.state(4).members, running=2)
    assert seen == MembersSeen(2, (110, 90))


def test_nobody_is_chosen_while_members_are_replaced(three: World) -> None:
    """A Deployment that rolls chooses by itself whom a smaller size takes; only all at once is safe then."""
    assert three.look(3, 2, settled=False) == Step(3)
    assert three.redis.asked == set()


def test_what_a_dead_operator_asked_is_taken_back(three: World) -> None:
    """Nothing is remembered here: who is asked stands in Redis, who is marked on the pod."""
    three.redis.asked = {"a:0"}
    three.pod("a", **{DELETION_COST: "-1000"})
    three.say(busy=["c"], idle={"a": 91, "b": 71})
    assert three.retirement.needs_care(KEY, three.state(3))
    three.look(3, 3)
    three.say(busy=["c"], idle={"a": 92, "b": 72})

    assert three.redis.asked == set()
    assert three.written == [("a", {DELETION_COST: None})]
    assert not three.retirement.needs_care(KEY, three.state(3))


def test_a_request_to_a_process_that_is_gone_is_cleaned_away(three: World) -> None:
    """A name that nobody bears any more stays in no set."""
    three.redis.asked = {"gone:0"}
    three.say(busy=["c"], idle={"a": 91, "b": 71})
    three.look(3, 3)
    assert three.redis.asked == set()


def test_who_was_let_go_stays_asked_until_it_is_ended(three: World) -> None:
    """Between the smaller size and SIGTERM nobody fetches again."""
    three.look(3, 2)
    three.say(busy=["c"], idle={"a": 91, "b": 71})
    step = three.look(3, 2)
    three.retirement.lowered(KEY, step, three.state(3).members)
    three.say(busy=["c"], idle={"a": 92, "b": 72})
    three.look(2, 2)
    assert three.redis.asked == {"a:0"}
    assert len(three.written) == 1


def test_pods_that_leave_are_compared_with_those_that_were_chosen(three: World) -> None:
    """A mismatch is counted, and each pod once."""
    three.look(3, 1)
    three.say(busy=["c"], idle={"a": 91, "b": 71})
    three.retirement.lowered(KEY, three.look(3, 1), three.state(3).members)
    three.pod("a", MemberPhase.DRAINING)
    three.pod("c", MemberPhase.DRAINING)
    for _ in range(3):
        three.retirement.saw(KEY, three.state(1).members)
    assert sorted(three.counted) == [False, True]


def test_a_busy_pod_that_must_leave_is_asked_and_goes_when_it_is_done(three: World) -> None:
    """It finishes what it runs, whoever wants it gone."""
    three.look(3, 0, whoever=True)
    assert three.redis.asked == {"a:0", "b:0", "c:0"}
    three.say(busy=["c"], idle={"a": 91, "b": 71})
    assert three.look(3, 0, whoever=True).replicas == 1
    three.say(idle={"a": 91, "b": 71, "c": 0})
    assert three.look(3, 0, whoever=True).replicas == 0


def test_of_more_that_were_asked_who_is_done_first_goes_and_the_others_stay(three: World) -> None:
    """Nobody knows beforehand who that is."""
    three.say(busy=["a", "b", "c"])
    three.look(3, 2, whoever=True, spare=2)
    assert three.redis.asked == {"a:0", "b:0", "c:0"}
    three.say(busy=["a", "c"], idle={"b": 0})
    assert three.members.seen(KEY, three.state(3).members, running=2) == MembersSeen(2, (0,), stopped=1)
    assert three.look(3, 2, whoever=True, spare=2).replicas == 2
    assert three.redis.asked == {"b:0"}


def test_a_pod_that_never_comes_to_an_end_goes_after_its_grace() -> None:
    """Bounded: the time that a task may take, and a minute."""
    world = World(timeoutSeconds=100)
    world.pod("a")
    world.say(busy=["a"])
    world.look(1, 0, whoever=True)
    world.say(busy=["a"])
    world.now += 159
    assert world.look(1, 0, whoever=True).replicas == 1
    world.now += 2
    assert world.look(1, 0, whoever=True).replicas == 0


def test_pods_that_cannot_be_asked_leave_at_once_where_all_is_idle() -> None:
    """A plain image: the careful rule has seen that nothing is outstanding before it asks for fewer."""
    world = World()
    world.pod("a")
    world.pod("b")
    world.members.heard(KEY, {})
    assert world.members.seen(KEY, world.state(2).members, running=0) is None
    assert world.look(2, 0).replicas == 0


def test_a_worker_that_was_started_by_hand_is_no_member() -> None:
    """It speaks on the same queue; the pods of a plain image are silent all the same, and may leave."""
    world = World()
    world.pod("a")
    world.pod("b")
    world.say(busy=["somebodys-desktop"])
    assert world.members.seen(KEY, world.state(2).members, running=1) is None
    assert world.look(2, 1).replicas == 1
    assert world.redis.asked == set()


def test_a_redis_that_is_away_changes_nothing(three: World) -> None:
    """No smaller size without an answer."""
    three.redis.is_away = True
    for _ in range(60):
        three.now += 1
        with pytest.raises(NotAsked):
            three.look(3, 2)
    assert three.written == []


def test_who_must_leave_does_so_unasked_where_nobody_can_be_asked(three: World) -> None:
    """A user of Redis without the right to write must not keep a disabled fleet alive; pods have their grace."""
    three.redis.is_away = True
    with pytest.raises(NotAsked):
        three.look(3, 0, whoever=True)
    three.now += 16
    assert three.look(3, 0, whoever=True).replicas == 0


def test_a_silent_pod_counts_as_busy_as_long_as_anything_runs(three: World) -> None:
    """Ready for long and without a word: it may hold what runs; where nothing runs it holds nothing."""
    three.pod("d")
    members = three.state(4).members
    running, empty = (three.members.seen(KEY, members, running=count) for count in (1, 0))
    assert running is not None
    assert empty is not None
    assert (running.busy, empty.busy) == (2, 1)
    assert sorted(running.idle_seconds) == [70, 90]


def test_a_pod_that_was_never_heard_leaves_first_and_is_marked_for_it(three: World) -> None:
    """It fetches nothing yet, but the API server has it for ready: unmarked, any other might go instead."""
    three.pod("d", since=three.now - 5)
    three.say(busy=["c"], idle={"a": 90, "b": 70})
    assert three.look(4, 3) == Step(3, go=("d",))
    assert three.written == [("d", {DELETION_COST: "-1000"})]
    assert three.redis.asked == set()


def test_a_pod_that_works_for_long_is_not_to_be_disturbed(three: World) -> None:
    """Told once, taken back when it has rested."""
    three.now += 31
    three.say(busy=["c"], idle={"a": 120, "b": 100})
    three.look(3, 3)
    three.look(3, 3)
    assert [(name, change[SAFE_TO_EVICT]) for name, change in three.written] == [("c", "false")]
    assert three.members.left_alone(KEY)

    three.say(idle={"a": 150, "b": 130, "c": 31})
    three.look(3, 3)
    assert three.written[-1] == (
        "c",
        {DELETION_COST: None, SAFE_TO_EVICT: None, "karpenter.sh/do-not-disrupt": None},
    )
    assert not three.members.left_alone(KEY)


def test_a_pod_that_vanishes_while_it_is_marked_disturbs_nobody(three: World) -> None:
    """404 on one pod is no reason to stop."""
    three.look(3, 2)
    three.say(busy=["c"], idle={"a": 91, "b": 71})
    three.gone.add("a")
    assert three.look(3, 2).replicas == 2
