"""When ticks begin: by themselves, for a message that came, and never so often that they do nothing else."""

import asyncio
import random
from collections.abc import Iterable

import pytest

from astrid_operator.claims import BrokerQueue
from astrid_operator.pace import Pace
from astrid_operator.workqueue import WorkQueue

#: A period that no test waits for.
LONG_SECONDS = 1000.0


class Ringing:
    """A bell that rings when the test says so."""

    def __init__(self) -> None:
        self.asked = 0
        self.rings = asyncio.Event()

    def listen(self, asleep: Iterable[BrokerQueue]) -> None:
        raise NotImplementedError

    async def rung(self) -> None:
        self.asked += 1
        await self.rings.wait()


async def paused(pace: Pace, started: float) -> None:
    async with asyncio.timeout(10):
        await pace.pause(started, list, is_handing_over=False)


def pace_of(now: list[float], bell: Ringing | None, tick_seconds: float) -> tuple[Pace, WorkQueue[str]]:
    def clock() -> float:
        return now[0]

    work: WorkQueue[str] = WorkQueue(clock, random.Random(1))
    return Pace(clock, work, bell, tick_seconds), work


def test_a_message_ends_a_pause() -> None:
    """The next tick comes when a queue that slept has a message, long before its time."""

    async def go() -> None:
        bell = Ringing()
        pace, _ = pace_of([5.0], bell, LONG_SECONDS)
        bell.rings.set()
        await paused(pace, 5.0)
        assert bell.asked == 1

    asyncio.run(go())


def test_an_edit_ends_a_pause_in_which_a_bell_may_ring() -> None:
    """An AstridQueue that is due does not wait for the bell, and the bell is asked again afterwards."""

    async def go() -> None:
        bell = Ringing()
        pace, work = pace_of([5.0], bell, LONG_SECONDS)
        for _ in range(2):
            work.changed("edited")
            await paused(pace, 5.0)
        assert bell.asked == 2

    asyncio.run(go())


def test_a_tick_that_was_rung_for_comes_beside_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bell that rings again and again doubles the ticks at most; those of the period keep their times."""
    monkeypatch.setattr("astrid_operator.pace.LEAST_PAUSE_SECONDS", 0.0)
    now = [100.0]

    async def go() -> list[float]:
        bell = Ringing()
        pace, work = pace_of(now, bell, 1.0)
        bell.rings.set()

        async def wait(seconds: float) -> None:
            asked = bell.asked
            await asyncio.sleep(0)  # where the bell may ring it is asked meanwhile
            if bell.asked > asked:
                now[0] += 0.25
                await asyncio.Event().wait()
            now[0] += seconds

        monkeypatch.setattr(work, "wait", wait)
        begun = []
        for _ in range(4):
            await paused(pace, now[0])
            begun.append(now[0])
        return begun

    assert asyncio.run(go()) == [100.25, 101.0, 101.25, 102.0]
