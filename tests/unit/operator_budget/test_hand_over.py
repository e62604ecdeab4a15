"""While slots change hands ticks come sooner, as far as they are cheap."""

from typing import Any

import pytest

from astrid_operator.astrid_queue import QueueKey
from astrid_operator.fleet import FleetState
from astrid_operator.hand_over import SECONDS, is_under_way, tick_seconds
from astrid_operator.scaling import Reason, ScalingDecision
from support.queue_documents import queue

WAITS, SERVED = Reason.SCALE_LIMITED, Reason.BACKLOG

#: Current members, those that leave, granted, and why; for each of two queues.
ROWS = [
    ("nobody waits", (2, 1, 2, SERVED), (1, 0, 1, SERVED), False),
    ("somebody waits, and nobody gives anything back", (2, 0, 2, SERVED), (1, 0, 1, WAITS), False),
    ("somebody waits, and a member of another leaves", (2, 1, 2, SERVED), (1, 0, 1, WAITS), True),
    ("somebody waits, and a member of another is asked", (2, 0, 1, WAITS), (1, 0, 1, WAITS), True),
    ("who grows gives nothing back", (2, 0, 3, SERVED), (1, 0, 1, WAITS), False),
]


@pytest.mark.parametrize(
    ("one", "other", "expected"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS]
)
def test_slots_change_hands_as_the_table_says(one: Any, other: Any, expected: bool) -> None:
    """Each row is a sentence about two queues."""
    asked, granted = {}, {}
    for name, (current, draining, members, reason) in (("one", one), ("other", other)):
        each = queue(name, app="sky.tasks")
        fleet = FleetState(exists=True, desired=current, current=current, draining=draining)
        asked[each.key] = (each, fleet, ScalingDecision(current, SERVED, "why"))
        granted[each.key] = ScalingDecision(members, reason, "why")
    assert is_under_way(asked, granted) is expected


def test_without_queues_nothing_changes_hands() -> None:
    """Nobody is there."""
    none: dict[QueueKey, ScalingDecision] = {}
    assert is_under_way({}, none) is False


@pytest.mark.parametrize(
    ("usual", "took", "under_way", "expected"),
    [(1.0, 0.01, False, 1.0), (1.0, 0.01, True, SECONDS), (1.0, 0.05, True, 0.5), (1.0, 0.5, True, 1.0), (0.1, 0.01, True, 0.1)],
    ids=["usually", "sooner", "a tenth of the time at most", "a long tick is not repeated sooner", "never later"],
)  # fmt: skip
def test_the_next_tick_comes_in_time(usual: float, took: float, under_way: bool, expected: float) -> None:
    """By what the last one took, and never later than usual."""
    assert tick_seconds(usual, took, is_under_way=under_way) == expected
