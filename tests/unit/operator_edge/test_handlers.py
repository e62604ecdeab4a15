"""What the watches tell comes over into the deciding loop: all of it, in order, and in small helpings."""

import asyncio
import threading
from itertools import pairwise
from typing import Any

import pytest
from structlog.testing import capture_logs

from astrid_operator import handlers
from astrid_operator.errors import WatchesEnded
from astrid_operator.handlers import AT_ONE_GO, Across
from astrid_operator.kinds import Kind

EVENTS = 10 * AT_ONE_GO


def event(number: int) -> dict[str, Any]:
    return {"type": "MODIFIED", "object": number}


def test_events_of_another_thread_come_in_their_order() -> None:
    """None is lost between two wake-ups, whoever is faster."""

    async def read() -> list[int]:
        found: list[int] = []
        all_there = asyncio.Event()

        def told(_: Kind, told: dict[str, Any]) -> None:
            found.append(told["object"])
            if len(found) == EVENTS:
                all_there.set()

        across = Across(asyncio.get_running_loop(), told)

        def send() -> None:
            for number in range(EVENTS):
                across.send(Kind.POD, event(number))

        thread = threading.Thread(target=send)
        thread.start()
        async with asyncio.timeout(10):
            await all_there.wait()
        thread.join()
        return found

    assert asyncio.run(read()) == list(range(EVENTS))


def test_what_else_waits_in_the_loop_goes_on_in_between() -> None:
    """Thousands of events that were not read for a while do not keep an answer waiting."""

    async def most_in_one_go() -> int:
        found: list[int] = []
        across = Across(asyncio.get_running_loop(), lambda _, told: found.append(told["object"]))
        for number in range(EVENTS):
            across.send(Kind.POD, event(number))
        goes = [0]
        while len(found) < EVENTS:
            await asyncio.sleep(0)  # one go of the loop, not time: what is counted
            goes.append(len(found))
        return max(after - before for before, after in pairwise(goes))

    assert asyncio.run(most_in_one_go()) == AT_ONE_GO


def test_one_that_cannot_be_taken_keeps_no_other_away() -> None:
    """A failure is told by the loop; the next event is taken all the same."""

    async def taken() -> tuple[list[int], int]:
        found: list[int] = []
        failures: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(context))

        def told(_: Kind, told: dict[str, Any]) -> None:
            if told["object"] == 1:
                raise ValueError
            found.append(told["object"])

        across = Across(asyncio.get_running_loop(), told)
        for number in range(3):
            across.send(Kind.POD, event(number))
        for _ in range(5):
            await asyncio.sleep(0)  # goes of the loop, not time: more than three events need
        return found, len(failures)

    assert asyncio.run(taken()) == ([0, 2], 1)


def test_a_loop_that_has_ended_is_told_nothing() -> None:
    """The thread of the watches outlives it by a moment, and does not fail for that."""
    loop = asyncio.new_event_loop()
    across = Across(loop, lambda *_: None)
    loop.close()

    across.send(Kind.POD, event(0))


def test_what_ends_the_watches_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever waits for them learns why they ended."""

    async def broken(*_: Any) -> None:
        raise ValueError("a stream that ends")

    monkeypatch.setattr(handlers, "_operator", broken)
    with pytest.raises(WatchesEnded) as raised:
        asyncio.run(watching())

    assert repr(raised.value.__cause__) == "ValueError('a stream that ends')"


def test_a_failure_while_the_watches_are_stopped_is_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for them any more, but why they failed is to be seen, with the place where they did."""
    begun = threading.Event()

    async def broken_when_stopped(_: Any, __: Any, stop: threading.Event) -> None:
        begun.set()
        await asyncio.to_thread(stop.wait)
        raise ValueError("a task that would not end")

    monkeypatch.setattr(handlers, "_operator", broken_when_stopped)
    with capture_logs() as said:
        asyncio.run(stopped(begun))

    (line,) = said
    assert (line["log_level"], line["event"]) == ("error", "Watches failed while they were stopped")
    assert repr(line["exc_info"]) == "ValueError('a task that would not end')"
    assert line["exc_info"].__traceback__.tb_next


def test_watches_that_end_when_they_are_stopped_are_worth_no_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """As they do every day."""
    begun = threading.Event()

    async def quiet(_: Any, __: Any, stop: threading.Event) -> None:
        begun.set()
        await asyncio.to_thread(stop.wait)

    monkeypatch.setattr(handlers, "_operator", quiet)
    with capture_logs() as said:
        asyncio.run(stopped(begun))

    assert said == []


async def watching() -> None:
    """Watches that are told nothing."""

    async def login() -> Any:
        raise NotImplementedError

    await handlers.watch((), Kind, lambda *_: None, login, lambda: None)


async def stopped(begun: threading.Event) -> None:
    """The same, cancelled once kopf has `begun`."""
    task = asyncio.create_task(watching())
    await asyncio.to_thread(begun.wait)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
