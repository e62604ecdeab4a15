"""Who leaves first, by which steps, and how a roll-out keeps its capacity."""

import random

import pytest

from astrid_operator.fleet import MemberPhase
from astrid_operator.retirement import Candidate, Step, leaving_order, next_step, spare, to_leave

READY, STARTING = MemberPhase.READY, MemberPhase.STARTING


def idle(name: str, seconds: float, *, old: bool = False) -> Candidate:
    """A ready member that has had nothing to do for `seconds`."""
    return Candidate(name, READY, old, is_busy=False, idle_seconds=seconds)


def busy(name: str, *, old: bool = False, task_seconds: float | None = None) -> Candidate:
    """A ready member that runs a message."""
    return Candidate(name, READY, old, is_busy=True, task_seconds=task_seconds)


def starting(name: str, *, old: bool = False) -> Candidate:
    """A member that does not fetch yet."""
    return Candidate(name, STARTING, old)


def silent(name: str) -> Candidate:
    """A ready member that says nothing of itself."""
    return Candidate(name, READY)


def test_busy_members_leave_last() -> None:
    """What does no work goes before what may, and that before what does."""
    members = [busy("b"), silent("s"), idle("short", 1), idle("long", 90), starting("new")]
    assert [each.name for each in leaving_order(members)] == ["new", "long", "short", "s", "b"]


def test_of_the_busy_those_leave_first_that_will_be_done_first() -> None:
    """Who began its task first goes first; who does not say when it began, last."""
    members = [busy("new", task_seconds=3), busy("mute"), busy("old", task_seconds=50)]
    assert [each.name for each in leaving_order(members)] == ["old", "new", "mute"]


def test_of_equals_the_outdated_leave_first() -> None:
    """A smaller fleet and a roll-out help each other, but not at the cost of work."""
    members = [idle("new", 5), idle("old", 5, old=True), busy("busy", old=True)]
    assert [each.name for each in leaving_order(members)] == ["old", "new", "busy"]


ROLLS = [
    ("a fleet of the right size loses nobody", [idle("a", 1), idle("b", 2)], 2, True, False, set()),
    ("the surplus leaves, the longest idle first", [idle("a", 1), idle("b", 2), busy("c")], 1, True, False, {"a", "b"}),
    ("to zero all leave, outdated or not", [idle("a", 1, old=True), busy("b")], 0, True, False, {"a", "b"}),
    ("with room for one more the outdated one waits for its successor", [idle("a", 1, old=True)], 1, True, False, set()),
    ("it waits while the successor starts", [idle("a", 1, old=True), starting("b")], 1, True, False, set()),
    ("it waits for a starting successor also where the room is full now", [idle("a", 1, old=True), starting("b")], 1, False, False, set()),
    ("it leaves when the successor is ready", [busy("a", old=True), idle("b", 1)], 1, True, False, {"a"}),
    ("of several outdated ones the idle leaves first", [busy("a", old=True), idle("c", 9, old=True), idle("b", 1)], 2, True, False, {"c"}),
    ("without room one outdated member goes first", [idle("a", 1, old=True), idle("b", 5, old=True)], 2, False, False, {"b"}),
    ("without room the next waits until the first is gone", [idle("a", 1, old=True)], 1, False, True, set()),
    ("without room the next waits until the successor is ready", [idle("a", 1, old=True), starting("b")], 2, False, False, set()),
    ("a smaller fleet that is all outdated shrinks at once", [idle("a", 1, old=True), idle("b", 5, old=True)], 1, True, False, {"b"}),
    ("a fleet that lacks members loses none", [idle("a", 1, old=True)], 3, True, False, set()),
]  # fmt: skip


@pytest.mark.parametrize(
    ("members", "desired", "may_surge", "already_leaving", "expected"),
    [row[1:] for row in ROLLS],
    ids=[row[0] for row in ROLLS],
)
def test_members_leave_as_the_table_says(
    members: list[Candidate], desired: int, may_surge: bool, already_leaving: bool, expected: set[str]
) -> None:
    """Each row is a sentence about one step of shrinking or rolling."""
    assert to_leave(members, desired, may_surge=may_surge, already_leaving=already_leaving) == expected


def asked(name: str, *, is_quiet: bool = False, is_busy: bool = False, is_marked: bool = False) -> Candidate:
    """A ready member that was asked to leave."""
    idle_seconds = None if is_busy else 70.0
    return Candidate(name, READY, False, is_busy, idle_seconds, True, is_quiet, is_marked)


def gone(name: str) -> Candidate:
    """A member that was ended on purpose and is not gone yet."""
    return Candidate(name, MemberPhase.DRAINING)


def placeless(name: str) -> Candidate:
    """A member that has no place yet."""
    return Candidate(name, MemberPhase.UNSCHEDULED)


#: What is there, the size, the target, whether busy ones must leave too, and the step.
STEPS = [
    ("a fleet of the right size is left alone", [idle("a", 90), busy("b")], 2, 2, False, Step(2)),
    ("the longest idle is asked first, and the size waits for its answer",
     [idle("a", 90), idle("b", 60), busy("c")], 3, 2, False, Step(3, ask=("a",))),
    ("who was asked and is quiet goes, and the size falls by exactly one",
     [asked("a", is_quiet=True), idle("b", 60), busy("c")], 3, 2, False, Step(2, go=("a",))),
    ("the size falls by those who are quiet, not by all who were asked",
     [asked("a", is_quiet=True), asked("b"), busy("c")], 3, 1, False, Step(2, go=("a",))),
    ("who was asked and took a task meanwhile is told to stay",
     [asked("a", is_busy=True), busy("b")], 2, 1, False, Step(2, release=("a",))),
    ("another one is asked in its place",
     [asked("a", is_busy=True), idle("b", 60)], 2, 1, False, Step(2, ask=("b",), release=("a",))),
    ("a busy member is never chosen", [busy("a"), busy("b")], 2, 0, False, Step(2)),
    ("a member that does not say is not chosen", [silent("a"), idle("b", 60)], 2, 0, False, Step(2, ask=("b",))),
    ("where so many must leave, the busy ones are asked too and finish first",
     [busy("a"), idle("b", 60)], 2, 0, True, Step(2, ask=("b", "a"))),
    ("where so many must leave, those who do not say go at once",
     [silent("a"), busy("b")], 2, 0, True, Step(1, ask=("b",), go=("a",))),
    ("who has no place goes before who starts, and both before who is idle",
     [idle("a", 900), starting("b"), placeless("c")], 3, 1, False, Step(1, go=("c", "b"))),
    ("members that were never made need not be asked", [busy("a")], 4, 1, False, Step(1)),
    ("what was let go is not let go twice",
     [asked("a", is_quiet=True, is_marked=True), idle("b", 60)], 1, 1, False, Step(1, go=("a",))),
    ("who is gone already is not counted", [gone("a"), idle("b", 60)], 1, 1, False, Step(1)),
    ("who was asked and is needed after all stays",
     [asked("a", is_quiet=True), busy("b")], 2, 2, False, Step(2, release=("a",))),
    ("who was marked and is needed after all is unmarked",
     [asked("a", is_quiet=True, is_marked=True), busy("b")], 2, 2, False, Step(2, release=("a",), unmark=("a",))),
    ("a choice is kept although another has become idle for longer",
     [asked("a"), idle("b", 900), busy("c")], 3, 2, False, Step(3)),
    ("a larger target changes nothing", [idle("a", 90)], 1, 5, False, Step(1)),
]  # fmt: skip


SPARES = [
    ("more are asked than must leave, those that began first",
     [busy("a", task_seconds=9), busy("b", task_seconds=5), busy("c", task_seconds=1)], 3, 2, 1, Step(3, ask=("a", "b"))),
    ("who is done first goes, whoever was to go first, and the others stay",
     [asked("a", is_busy=True), asked("b", is_quiet=True), busy("c")], 3, 2, 1, Step(2, release=("a",), go=("b",))),
    ("while fewer are done than must leave the others stay asked",
     [asked("a", is_busy=True), asked("b", is_quiet=True), asked("c", is_busy=True)], 3, 1, 1, Step(2, go=("b",))),
    ("of more that are done than must leave, those that were so for longest go",
     [asked("a", is_quiet=True), asked("b", is_quiet=True), busy("c", task_seconds=7)], 3, 2, 1,
     Step(2, release=("a",), go=("b",))),
    ("where an idle one can leave nobody more is asked",
     [idle("a", 5), busy("b", task_seconds=5)], 2, 1, 1, Step(2, ask=("a",))),
    ("who does not say is not asked beyond what must leave",
     [busy("a", task_seconds=5), silent("b")], 2, 1, 1, Step(1, go=("b",))),
    ("where nobody must leave nobody is asked", [busy("a"), busy("b")], 2, 2, 5, Step(2)),
]  # fmt: skip


@pytest.mark.parametrize(
    ("members", "desired", "target", "more", "expected"),
    [row[1:] for row in SPARES],
    ids=[row[0] for row in SPARES],
)
def test_those_that_are_done_first_go(
    members: list[Candidate], desired: int, target: int, more: int, expected: Step
) -> None:
    """Each row is a sentence about members that must leave whatever they do, and others that may be asked."""
    assert next_step(members, desired, target, whoever=True, spare=more) == expected


@pytest.mark.parametrize(
    ("task_seconds", "slots", "expected"),
    [(30.0, 1, 7), (3.9, 1, 0), (None, 1, 0), (30.0, 4, 0)],
    ids=["long tasks", "short tasks", "unknown tasks", "members of several threads"],
)
def test_no_more_are_asked_than_tasks_are_long_for(
    task_seconds: float | None, slots: int, expected: int
) -> None:
    """Who stops in vain loses a second or two: hardly anybody should."""
    assert spare(task_seconds, slots) == expected


@pytest.mark.parametrize(
    ("members", "desired", "target", "whoever", "expected"),
    [row[1:] for row in STEPS],
    ids=[row[0] for row in STEPS],
)
def test_the_next_step_is_as_the_table_says(
    members: list[Candidate], desired: int, target: int, whoever: bool, expected: Step
) -> None:
    """Each row is a sentence about one look at a fleet that is too large, or was."""
    assert next_step(members, desired, target, whoever=whoever) == expected


@pytest.mark.parametrize("seed", range(300))
def test_no_draw_lets_a_working_member_go(seed: int) -> None:
    """Whatever is there: nobody goes who is busy or was not heard to be quiet, and the size never falls by more."""
    rng = random.Random(seed)
    members = [_drawn(rng, str(number)) for number in range(rng.randint(0, 7))]
    there = [each for each in members if each.phase not in (MemberPhase.DRAINING, MemberPhase.FAILED)]
    desired, target, whoever = rng.randint(0, 9), rng.randint(0, 9), rng.random() < 0.3
    step = next_step(members, desired, target, whoever=whoever)
    by_name = {each.name: each for each in members}

    assert min(desired, target) <= step.replicas <= desired
    assert not {*step.ask, *step.go} & {*step.release, *step.unmark}
    assert step.replicas >= min(desired, len(there) - len(step.go))
    for name in step.go:
        member = by_name[name]
        works = member.phase is READY and member.is_busy is not None and not member.is_quiet
        assert not works
        assert whoever or member.phase is not READY or member.is_busy is False


def _drawn(rng: random.Random, name: str) -> Candidate:
    is_busy = rng.choice([None, True, False])
    is_asked = is_busy is not None and rng.random() < 0.4
    return Candidate(
        name,
        rng.choice(list(MemberPhase)),
        is_busy=is_busy,
        idle_seconds=rng.uniform(0, 99) if is_busy is False else None,
        is_asked=is_asked,
        is_quiet=is_asked and is_busy is False and rng.random() < 0.5,
        is_marked=rng.random() < 0.2,
    )
