"""Who leaves first, and how a roll-out keeps its capacity."""

import pytest

from astrid_operator.fleet import MemberPhase
from astrid_operator.process_fleet import to_leave
from astrid_operator.retirement import Candidate, leaving_order

READY, STARTING = MemberPhase.READY, MemberPhase.STARTING


def idle(name: str, seconds: float, *, old: bool = False) -> Candidate:
    """A ready member that has had nothing to do for `seconds`."""
    return Candidate(name, READY, old, is_busy=False, idle_seconds=seconds)


def busy(name: str, *, old: bool = False) -> Candidate:
    """A ready member that runs a message."""
    return Candidate(name, READY, old, is_busy=True)


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
