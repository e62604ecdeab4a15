"""When the next tick begins.

Owns the period, and what ends a pause before it or draws it out: an AstridQueue that is due, slots that
change hands, a message for a queue that sleeps, an API server that is behind. Decides nothing else.
"""

import asyncio
from collections.abc import Callable, Collection
from typing import Any

from astrid_operator import hand_over
from astrid_operator.neighbours import Bell
from astrid_operator.workqueue import WorkQueue

#: Least seconds between two ticks, however many events come; also at least as long as the last tick took.
LEAST_PAUSE_SECONDS = 0.1

#: Writes under way from which the API server is behind: what a tick finds has to wait for it anyway, and a
#: tick takes the time in which its answers are read. Until these writes are done ticks get a fifth of it.
CROWD, CROWDED_PAUSE_TICKS, LONGEST_PAUSE_SECONDS = 64, 4.0, 5.0


class Pace:
    """The pauses between ticks. One that a message rang for comes beside the others, and rings for none."""

    def __init__(
        self, clock: Callable[[], float], work: WorkQueue[Any], bell: Bell | None, tick_seconds: float
    ) -> None:
        self._clock = clock
        self._work = work
        self._bell = bell
        self._tick_seconds = tick_seconds
        #: When the next tick begins by itself.
        self._next_at = clock()
        #: A message rang for the latest tick.
        self._is_rung = False

    async def pause(
        self, started: float, writes: Callable[[], Collection[asyncio.Task[None]]], *, is_handing_over: bool
    ) -> None:
        """Return when the tick after the one that began at `started`, and has just ended, is to begin."""
        took = self._clock() - started
        await asyncio.sleep(max(LEAST_PAUSE_SECONDS, took))
        if len(under_way := writes()) >= CROWD:
            further = min((CROWDED_PAUSE_TICKS - 1) * took, LONGEST_PAUSE_SECONDS)
            await asyncio.wait(under_way, timeout=further)
        if not self._is_rung:
            length = hand_over.tick_seconds(self._tick_seconds, took, is_under_way=is_handing_over)
            self._next_at = started + length
        await self._wait(self._next_at - self._clock())

    async def _wait(self, seconds: float) -> None:
        if self._bell is None or self._is_rung:
            self._is_rung = False
            await self._work.wait(seconds)
            return
        due, rung = asyncio.ensure_future(self._work.wait(seconds)), asyncio.ensure_future(self._bell.rung())
        try:
            await asyncio.wait((due, rung), return_when=asyncio.FIRST_COMPLETED)
            self._is_rung = not due.done()
        finally:
            for each in (due, rung):
                each.cancel()
            await asyncio.gather(due, rung, return_exceptions=True)
