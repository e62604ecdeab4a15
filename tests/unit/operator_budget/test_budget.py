"""Slots are shared by class, then by weight, and never taken from a member before it has left."""

import random
from typing import Any

import pytest

from astrid_operator.astrid_queue import QueueKey
from astrid_operator.budget import Claim, grants


def claim(name: str, priority: int = 5, **values: Any) -> Claim:
    """A claim that wants what was decided, and holds nothing yet."""
    decided = values.pop("decided", values.get("wanted", 0))
    wanted = values.pop("wanted", decided)
    return Claim(QueueKey("ns", name), priority, decided, wanted, values.pop("current", 0), **values)


def members(claims: list[Claim], capacity: int) -> dict[str, int]:
    """Name → members granted."""
    return {key.name: grant.members for key, grant in grants(claims, capacity).items()}


TABLE = [
    ("where there is enough, everybody gets what was decided", 8,
     [claim("a", wanted=3), claim("b", wanted=4)], {"a": 3, "b": 4}),
    ("a lower number is served first", 4,
     [claim("late", 6, wanted=4), claim("early", 1, wanted=3)], {"early": 3, "late": 1}),
    ("floors come before the wishes of a higher class", 3,
     [claim("early", 1, wanted=5), claim("late", 9, wanted=5, floor=1)], {"early": 2, "late": 1}),
    ("of two floors that do not both fit, the higher class has its own", 1,
     [claim("late", 9, wanted=1, floor=1), claim("early", 1, wanted=1, floor=1)], {"early": 1, "late": 0}),
    ("within a class slots are shared evenly, up to what each wants", 9,
     [claim("a", wanted=1), claim("b", wanted=9), claim("c", wanted=9)], {"a": 1, "b": 4, "c": 4}),
    ("within a class a weight of two gets twice as much", 9,
     [claim("a", wanted=9, weight=1), claim("b", wanted=9, weight=2)], {"a": 3, "b": 6}),
    ("of equals, the one that already runs keeps its slot", 1,
     [claim("a", wanted=1), claim("b", wanted=1, current=1)], {"a": 0, "b": 1}),
    ("of equals with as many members, who had less so far is given the odd slot", 3,
     [claim("a", wanted=2, current=1, had_slot_seconds=9), claim("b", wanted=2, current=1, had_slot_seconds=5)],
     {"a": 1, "b": 2}),
    ("who had less for its weight", 3,
     [claim("a", wanted=9, had_slot_seconds=9, weight=2), claim("b", wanted=9, had_slot_seconds=5, weight=2)],
     {"a": 1, "b": 2}),
    ("but no member is moved for that", 3,
     [claim("a", wanted=2, current=2, had_slot_seconds=9), claim("b", wanted=2, current=1, had_slot_seconds=5)],
     {"a": 2, "b": 1}),
    ("a member of several slots takes several", 5,
     [claim("big", 1, wanted=3, slots_each=2), claim("small", 2, wanted=3)], {"big": 2, "small": 1}),
    ("a member larger than the machine runs alone", 2,
     [claim("huge", 1, wanted=3, slots_each=8), claim("small", 2, wanted=3)], {"huge": 1, "small": 0}),
    ("a member kept idle leaves when another queue, of any class, wants its slot", 1,
     [claim("idle", 1, wanted=0, decided=1, current=1), claim("busy", 9, wanted=1)], {"idle": 0, "busy": 0}),
    ("a member kept idle stays where nobody wants its slot", 2,
     [claim("idle", 9, wanted=0, decided=1, current=1), claim("busy", 1, wanted=1)], {"idle": 1, "busy": 1}),
    ("growth waits until a leaving member has given its slot back", 2,
     [claim("early", 1, wanted=2), claim("late", 9, wanted=1, current=1, draining=1)], {"early": 0, "late": 0}),
    ("a slot that was given back is used at once", 2,
     [claim("early", 1, wanted=2), claim("late", 9, wanted=1, draining=1)], {"early": 1, "late": 0}),
    ("a queue that is held fast keeps what it has", 2,
     [claim("paused", 9, wanted=0, decided=2, current=2, is_held_fast=True), claim("early", 1, wanted=2)],
     {"paused": 2, "early": 0}),
    ("a fleet that may not shrink keeps its members, and has no more than its part beyond them", 6,
     [claim("untrusted", 9, wanted=6, current=2, may_shrink=False), claim("early", 1, wanted=3)],
     {"untrusted": 3, "early": 3}),
    ("what was decided to leave leaves all the same", 2,
     [claim("smaller", 9, wanted=1, current=2, may_shrink=False), claim("early", 1, wanted=2)],
     {"smaller": 1, "early": 0}),
    ("nothing is granted beyond what was decided", 9,
     [claim("held back by a pause", wanted=5, decided=1)], {"held back by a pause": 1}),
    ("without slots nobody gets one", 0, [claim("a", wanted=1, floor=1)], {"a": 0}),
]  # fmt: skip


@pytest.mark.parametrize(
    ("capacity", "claims", "expected"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE]
)
def test_slots_are_shared_as_the_table_says(
    capacity: int, claims: list[Claim], expected: dict[str, int]
) -> None:
    """Each row is a sentence about who gets what."""
    assert members(claims, capacity) == expected


def test_what_is_withheld_is_said_with_its_holders() -> None:
    """A person must see who has the slots."""
    claims = [claim("early", 1, wanted=2, current=2), claim("late", 2, wanted=3)]
    granted = grants(claims, 2)
    assert granted[QueueKey("ns", "early")].why == ""
    assert granted[QueueKey("ns", "late")].why == "2 slots in all, held by early 2"


def test_a_slot_that_is_not_free_yet_is_waited_for() -> None:
    """The sentence tells waiting from having no claim."""
    claims = [claim("early", 1, wanted=2), claim("late", 9, wanted=2, current=2)]
    assert (
        grants(claims, 2)[QueueKey("ns", "early")].why == "waiting for slots to be given back, held by late 2"
    )


def test_who_gives_back_after_its_last_task_is_told_so() -> None:
    """It lacks nothing now, so that nothing is waited for."""
    claims = [claim("early", 1, wanted=2, current=2, idle=0, busy=2, last=2), claim("late", 9, wanted=2)]
    granted = grants(claims, 2)[QueueKey("ns", "early")]
    assert granted.why == "what it runs is its last for now, and others wait"


@pytest.mark.parametrize("seed", range(200))
def test_no_draw_breaks_the_rules(seed: int) -> None:
    """Never over the budget by growing, never above the decision, nothing idle while somebody wants it."""
    rng = random.Random(seed)
    capacity = rng.randint(0, 12)
    claims = []
    for number in range(rng.randint(1, 6)):
        decided = rng.randint(0, 6)
        claims.append(
            claim(
                str(number),
                rng.randint(1, 3),
                wanted=rng.randint(0, decided),
                decided=decided,
                current=rng.randint(0, 3),
                draining=rng.randint(0, 1),
                floor=rng.randint(0, 2),
                weight=rng.randint(1, 4),
                slots_each=rng.randint(1, 2),
                may_shrink=rng.random() < 0.7,
            )
        )
    granted = grants(claims, capacity)
    after = {each.key: granted[each.key].members for each in claims}
    grown = sum(max(0, after[each.key] - each.current) * each.slots_each for each in claims)
    held = sum(each.held for each in claims)
    assert grown <= max(0, capacity - held)
    for each in claims:
        assert 0 <= after[each.key] <= max(each.decided, 0)
        assert (granted[each.key].why == "") == (after[each.key] >= each.decided)
        assert each.may_shrink or after[each.key] >= min(each.current, each.decided)


@pytest.mark.parametrize("seed", range(50))
def test_repeating_the_grants_comes_to_rest(seed: int) -> None:
    """With unchanged wishes the fleets reach a state in which nothing moves and no wanted slot is left idle."""
    rng = random.Random(seed)
    capacity = rng.randint(1, 8)
    claims = [
        claim(str(number), rng.randint(1, 3), wanted=rng.randint(0, 4), current=rng.randint(0, 2))
        for number in range(5)
    ]
    for _ in range(10):
        granted = grants(claims, capacity)
        moved = [
            claim(each.key.name, each.priority, wanted=each.wanted, current=granted[each.key].members)
            for each in claims
        ]
        if moved == claims:
            break
        claims = moved
    else:
        pytest.fail("the grants never came to rest")
    assert sum(each.current for each in claims) == min(capacity, sum(each.wanted for each in claims))


MOVES = [
    ("an idle member is not taken for who has waited for less than a start",
     [claim("idle", decided=2, wanted=0, current=2, idle=2), claim("b", wanted=1, short_seconds=4, set_up_seconds=5)],
     {"idle": 2, "b": 0}),
    ("an idle member is taken for who has waited for a start",
     [claim("idle", decided=2, wanted=0, current=2, idle=2), claim("b", wanted=1, short_seconds=5, set_up_seconds=5)],
     {"idle": 1, "b": 0}),
    ("no more are taken than are waited for",
     [claim("a", decided=1, wanted=0, current=1), claim("b", decided=1, wanted=0, current=1), claim("c", wanted=1)],
     {"a": 1, "b": 0, "c": 0}),
    ("what is on its way back is not asked for twice",
     [claim("a", decided=1, wanted=0, current=1, draining=1), claim("c", wanted=1)], {"a": 1, "c": 0}),
    ("what its own decision gives back is not asked of others",
     [claim("a", decided=1, current=2), claim("b", decided=1, wanted=0, current=1), claim("c", wanted=1)],
     {"a": 1, "b": 1, "c": 0}),
    ("a member that works is not taken for an equal that has waited for one start only",
     [claim("a", wanted=2, current=2, idle=0, busy=2), claim("b", wanted=2, short_seconds=5, set_up_seconds=5)],
     {"a": 2, "b": 0}),
    ("a member that works leaves for an equal that has waited for three",
     [claim("a", wanted=2, current=2, idle=0, busy=2), claim("b", wanted=2, short_seconds=15, set_up_seconds=5)],
     {"a": 1, "b": 0}),
    ("members that work leave at once for a higher class whose tasks are worth a start",
     [claim("late", 9, wanted=2, current=2, idle=0, busy=2),
      claim("early", 1, wanted=2, short_seconds=0, set_up_seconds=5, task_seconds=5)], {"late": 0, "early": 0}),
    ("idle members do so too",
     [claim("late", 9, decided=2, wanted=0, current=2, idle=2),
      claim("early", 1, wanted=2, short_seconds=0, set_up_seconds=5, task_seconds=5)], {"late": 0, "early": 0}),
    ("a higher class with short tasks waits for three starts first",
     [claim("late", 9, wanted=2, current=2, idle=0, busy=2),
      claim("early", 1, wanted=2, short_seconds=14, set_up_seconds=5, task_seconds=4)], {"late": 2, "early": 0}),
    ("and so does one whose tasks nobody has measured",
     [claim("late", 9, wanted=2, current=2, idle=0, busy=2),
      claim("early", 1, wanted=2, short_seconds=14, set_up_seconds=5)], {"late": 2, "early": 0}),
    ("but after three it is given what works",
     [claim("late", 9, wanted=2, current=2, idle=0, busy=2),
      claim("early", 1, wanted=2, short_seconds=15, set_up_seconds=5)], {"late": 0, "early": 0}),
    ("of two that wait, only the higher class is given working members at once",
     [claim("late", 9, wanted=3, current=3, idle=0, busy=3),
      claim("early", 1, wanted=1, short_seconds=0, set_up_seconds=5, task_seconds=9),
      claim("equal", 9, wanted=3, short_seconds=5, set_up_seconds=5)], {"late": 2, "early": 0, "equal": 0}),
    ("who was served lately still presses for what it lacks",
     [claim("a", wanted=6, current=5, idle=0, busy=5),
      claim("b", wanted=3, current=1, short_seconds=20, unserved_seconds=0, set_up_seconds=5)], {"a": 3, "b": 1}),
    ("who was served lately is no late one",
     [claim("a", 4, wanted=2, current=2, idle=0, busy=2),
      claim("b", 5, wanted=2, short_seconds=200, unserved_seconds=10, patience_seconds=100)], {"a": 2, "b": 0}),
    ("an equal that lacks two members need not wait where its tasks are worth a start",
     [claim("a", wanted=4, current=4, idle=0, busy=4),
      claim("b", wanted=4, short_seconds=0, set_up_seconds=5, task_seconds=30)], {"a": 2, "b": 0}),
    ("one that lacks a single member waits as ever: that may be a fluctuation",
     [claim("a", wanted=4, current=3, idle=0, busy=3),
      claim("b", wanted=4, current=1, short_seconds=0, set_up_seconds=5, task_seconds=30)], {"a": 3, "b": 1}),
    ("and so does one whose tasks are short",
     [claim("a", wanted=4, current=4, idle=0, busy=4),
      claim("b", wanted=4, short_seconds=0, set_up_seconds=5, task_seconds=4)], {"a": 4, "b": 0}),
    ("a lower class that lacks much waits too",
     [claim("early", 1, decided=4, wanted=2, current=4, idle=0, busy=4),
      claim("late", 9, wanted=4, short_seconds=0, set_up_seconds=5, task_seconds=30)], {"early": 4, "late": 0}),
    ("equals whose parts differ by less than two are left alone, however long they wait",
     [claim("a", wanted=4, current=4, idle=0, busy=4), claim("b", wanted=4, current=3, short_seconds=900)],
     {"a": 4, "b": 3}),
    ("who runs the last that there is for it is asked already, of a higher class too",
     [claim("early", 1, wanted=2, current=2, idle=0, busy=2, last=2), claim("late", 9, wanted=3)],
     {"early": 0, "late": 0}),
    ("no more of them than are waited for",
     [claim("early", 1, wanted=2, current=2, idle=0, busy=2, last=2), claim("late", 9, wanted=1)],
     {"early": 1, "late": 0}),
    ("nor sooner than an idle one",
     [claim("early", 1, wanted=2, current=2, idle=0, busy=2, last=2),
      claim("late", 9, wanted=1, short_seconds=4, set_up_seconds=5)], {"early": 2, "late": 0}),
    ("they stay where nobody waits",
     [claim("early", 1, wanted=2, current=2, idle=0, busy=2, last=2), claim("late", 9, wanted=1, current=1)],
     {"early": 2, "late": 1}),
    ("an equal with too much is asked before who runs its last: what is to come is shared when it comes",
     [claim("early", 1, wanted=4, current=4, idle=0, busy=4, last=4), claim("a", wanted=8, current=4, idle=0, busy=4),
      claim("b", wanted=8)], {"early": 2, "a": 2, "b": 0}),
    ("a floor is kept although its last is run",
     [claim("early", 1, wanted=2, current=2, idle=0, busy=2, last=2, floor=1), claim("late", 9, wanted=3)],
     {"early": 1, "late": 0}),
    ("of equals with as many members, who had more so far gives to a higher class",
     [claim("a", wanted=2, current=2, idle=0, busy=2, had_slot_seconds=5),
      claim("b", wanted=2, current=2, idle=0, busy=2, had_slot_seconds=9), claim("early", 1, wanted=1)],
     {"a": 2, "b": 1, "early": 0}),
    ("members that have only just come leave for nobody",
     [claim("late", 9, wanted=2, current=2, idle=0, busy=0), claim("early", 1, wanted=2)], {"late": 2, "early": 0}),
    ("members of a higher class do not leave for a lower one",
     [claim("early", 1, wanted=2, current=2, idle=0, busy=2), claim("late", 9, wanted=2)], {"early": 2, "late": 0}),
    ("within a class the larger part gives to the smaller",
     [claim("a", wanted=2, current=2, idle=0, busy=2), claim("b", wanted=2)], {"a": 1, "b": 0}),
    ("who has waited twice too long is served as one class earlier",
     [claim("a", 4, wanted=2, current=2, idle=0, busy=2),
      claim("b", 5, wanted=2, short_seconds=200, patience_seconds=100)], {"a": 1, "b": 0}),
    ("the idle leave before those that work",
     [claim("working", 9, wanted=1, current=1, idle=0, busy=1), claim("idle", 2, decided=1, wanted=0, current=1, idle=1),
      claim("early", 1, wanted=1)], {"working": 1, "idle": 0, "early": 0}),
    ("a held-fast fleet gives nothing",
     [claim("paused", 9, wanted=0, decided=2, current=2, idle=2, is_held_fast=True), claim("early", 1, wanted=2)],
     {"paused": 2, "early": 0}),
    ("nor does one that may not shrink, be its members idle or at work",
     [claim("untrusted", 9, wanted=0, decided=2, current=2, idle=1, busy=1, may_shrink=False),
      claim("early", 1, wanted=2, task_seconds=9)], {"untrusted": 2, "early": 0}),
    ("then others of its class give",
     [claim("untrusted", 9, wanted=1, current=1, may_shrink=False), claim("late", 9, wanted=1, current=1),
      claim("early", 1, wanted=2)], {"untrusted": 1, "late": 0, "early": 0}),
]  # fmt: skip


@pytest.mark.parametrize(("claims", "expected"), [row[1:] for row in MOVES], ids=[row[0] for row in MOVES])
def test_slots_move_as_the_table_says(claims: list[Claim], expected: dict[str, int]) -> None:
    """Each row is a sentence about who gives a slot to whom; all slots are held."""
    capacity = sum(each.held for each in claims)
    assert members(claims, capacity) == expected
