"""What nodes and ReplicaSets are told of a pod changes on transitions only."""

import pytest

from astrid_operator.node_hints import (
    BUSY,
    DELETION_COST,
    LEAVES,
    NOTHING,
    SAFE_TO_EVICT,
    Work,
    changes,
    hints,
)

#: Sentence, what the pod carries, what it does, whether it leaves, and what it should carry.
TABLE = [
    ("a pod that has just begun to work carries nothing", NOTHING, Work(busy_seconds=29), False, NOTHING),
    ("after half a minute of work it is not to be disturbed", NOTHING, Work(busy_seconds=30), False, BUSY),
    ("a short pause changes nothing", BUSY, Work(idle_seconds=29), False, BUSY),
    ("the next task after a short pause changes nothing", BUSY, Work(busy_seconds=1), False, BUSY),
    ("after half a minute without work its node may be emptied", BUSY, Work(idle_seconds=30), False, NOTHING),
    ("a pod that does not say keeps what it carries", BUSY, Work(), False, BUSY),
    ("a pod that never said anything carries nothing", NOTHING, Work(), False, NOTHING),
    ("a pod that leaves goes first", NOTHING, Work(idle_seconds=90), True, LEAVES),
    ("a pod that leaves may be disturbed", BUSY, Work(idle_seconds=5), True, LEAVES),
    ("a pod that stays after all carries nothing again", LEAVES, Work(idle_seconds=90), False, NOTHING),
]  # fmt: skip


@pytest.mark.parametrize(
    ("before", "work", "leaves", "after"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE]
)
def test_a_pod_carries_what_the_table_says(before, work, leaves, after) -> None:
    """Each row is a sentence about one pod."""
    assert hints(before, work, leaves=leaves) == after


def test_in_a_roll_a_busy_pod_goes_last_at_once() -> None:
    """The Deployment ends old pods by itself then, the cheapest first."""
    assert hints(NOTHING, Work(busy_seconds=3), leaves=False, rolls=True) == BUSY
    assert hints(NOTHING, Work(idle_seconds=3), leaves=False, rolls=True) == NOTHING


def test_nothing_is_written_where_nothing_changes() -> None:
    """Steady work is steady silence, and annotations of others are no business of ours."""
    assert changes({**BUSY, "example.com/theirs": "kept"}, BUSY) == {}


def test_what_no_longer_holds_is_removed() -> None:
    """A merge with null removes; what stays is not repeated."""
    assert changes(BUSY, LEAVES) == {
        DELETION_COST: "-1000",
        SAFE_TO_EVICT: None,
        "karpenter.sh/do-not-disrupt": None,
    }
