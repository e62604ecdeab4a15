"""The operator's work queue: keys are due once, back off alone, and are never worked on twice at a time."""

import asyncio
import random

from astrid_operator.back_off import LONGEST_RETRY_SECONDS
from astrid_operator.workqueue import WorkQueue


class Clock:
    """A clock that stands still until it is told to move."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def make_queue() -> tuple[WorkQueue[str], Clock]:
    clock = Clock()
    return WorkQueue(clock, random.Random(7)), clock


def test_a_key_added_often_is_taken_once() -> None:
    """Many events about one object are one piece of work."""
    queue, _ = make_queue()
    for _ in range(5):
        queue.add("a")

    assert queue.take_due() == ["a"]
    assert queue.take_due() == []


def test_a_key_is_not_handed_out_while_it_is_worked_on() -> None:
    """Two workers never hold one key; what happened meanwhile is looked at afterwards."""
    queue, _ = make_queue()
    queue.add("a")
    queue.take_due()
    queue.add("a")

    assert queue.take_due() == []

    queue.done("a")

    assert queue.take_due() == ["a"]


def test_a_failing_key_backs_off_and_leaves_others_alone() -> None:
    """The pause doubles with jitter up to a limit, for the key that failed only."""
    queue, clock = make_queue()
    pauses = []
    for _ in range(14):
        queue.add("bad")
        clock.now += 1000
        assert queue.take_due() == ["bad"]
        pauses.append(queue.retry("bad"))
        queue.add("good")
        assert queue.take_due() == ["good"]
        queue.done("good")

    assert 0.25 <= pauses[0] <= 0.5
    assert pauses[3] > pauses[0]
    assert all(LONGEST_RETRY_SECONDS / 2 <= pause <= LONGEST_RETRY_SECONDS for pause in pauses[-3:])


def test_an_event_does_not_shorten_the_back_off_but_an_edit_does() -> None:
    """A key that failed waits its time, except when a person changed its object."""
    queue, clock = make_queue()
    queue.add("a")
    queue.take_due()
    queue.retry("a", at_least_seconds=30)
    queue.add("a")
    clock.now += 1

    assert queue.take_due() == []

    queue.changed("a")

    assert queue.take_due() == ["a"]


def test_retry_waits_as_long_as_the_other_side_asked() -> None:
    """Retry-After is a least pause."""
    queue, _ = make_queue()
    queue.add("a")
    queue.take_due()

    assert queue.retry("a", at_least_seconds=17) == 17


def test_a_dropped_key_never_comes_back() -> None:
    """Work for an object that is gone ends, also when it was asked for while being worked on."""
    queue, clock = make_queue()
    queue.add("a")
    queue.take_due()
    queue.add("a")
    queue.drop("a")
    clock.now += 1000

    assert queue.take_due() == []
    assert len(queue) == 0


def test_wait_returns_when_a_key_is_added() -> None:
    """A new event does not wait for the next tick."""

    async def scenario() -> list[str]:
        loop = asyncio.get_running_loop()
        queue: WorkQueue[str] = WorkQueue(loop.time, random.Random(1))
        loop.call_later(0.01, queue.add, "a")
        await asyncio.wait_for(queue.wait(30), 5)
        return queue.take_due()

    assert asyncio.run(scenario()) == ["a"]


def test_wait_ends_at_its_deadline_with_nothing_due() -> None:
    """The tick comes even when nothing happens."""

    async def scenario() -> list[str]:
        loop = asyncio.get_running_loop()
        queue: WorkQueue[str] = WorkQueue(loop.time, random.Random(1))
        queue.add("a")
        queue.take_due()
        queue.retry("a", at_least_seconds=60)
        await asyncio.wait_for(queue.wait(0.02), 5)
        return queue.take_due()

    assert asyncio.run(scenario()) == []
