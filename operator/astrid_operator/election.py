"""One process's part in the election, in a thread of its own.

Owns that thread, its event loop and its connection to the API server: the Lease is renewed in time also while
a thousand fleets are decided on and written. Decides nothing of who leads (`leadership.py` does). Whoever is
not fit any more gives the Lease up: a thread that renews on for a loop that hangs would keep others out.
"""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress

import structlog

from astrid_operator.kubernetes_connection import Connection
from astrid_operator.leadership import Leadership

log = structlog.get_logger(__name__)

#: Seconds that giving the Lease back may take at the end; who stands by waits for it to run out otherwise.
LONGEST_END_SECONDS = 5.0

Connect = Callable[[], Awaitable[Connection]]


class Election:
    """Takes part from `acquired` until `end`, both of one event loop, which is not needed in between."""

    def __init__(
        self, connect: Connect, enter: Callable[[Connection], Leadership], unfit: Callable[[], str]
    ) -> None:
        self._connect, self._enter, self._unfit = connect, enter, unfit
        self._leadership: Leadership | None = None
        self._within: tuple[asyncio.AbstractEventLoop, asyncio.Task[None]] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._acquired, self._ended = asyncio.Event(), asyncio.Event()
        self._why_ended: Exception | None = None

    @property
    def is_leader(self) -> bool:
        """Nobody else can hold the Lease now. Any thread may ask."""
        return self._leadership is not None and self._leadership.is_leader

    async def acquired(self) -> None:
        """Begin, and return once this process holds the Lease; raises what forbids to go on."""
        self._loop = asyncio.get_running_loop()
        threading.Thread(target=self._run, name="election", daemon=True).start()
        waiting = [asyncio.ensure_future(each.wait()) for each in (self._acquired, self._ended)]
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in waiting:
                each.cancel()
        if self._why_ended is not None:
            raise self._why_ended

    async def lost(self) -> None:
        """Return when the part is over; raises LeadershipLost, or whatever else ended it."""
        await self._ended.wait()
        if self._why_ended is not None:
            raise self._why_ended

    async def end(self) -> None:
        """Give the Lease back if it is ours, and leave; what fails meanwhile is told, and stops nobody."""
        if self._loop is None:
            return
        was_over = self._ended.is_set()
        if self._within is not None:
            loop, task = self._within
            with suppress(RuntimeError):  # it has ended by itself meanwhile
                loop.call_soon_threadsafe(task.cancel)
        with suppress(TimeoutError):
            await asyncio.wait_for(self._ended.wait(), LONGEST_END_SECONDS)
        if self._why_ended is not None and not was_over:
            who = None if self._leadership is None else self._leadership.identity
            log.error("Part in the election ended unexpectedly", identity=who, exc_info=self._why_ended)

    # ------------------------------------------------------------------ in the thread

    def _run(self) -> None:
        try:
            asyncio.run(self._take_part())
        except asyncio.CancelledError:
            pass  # `end` asked for it
        except Exception as error:  # noqa: BLE001 - raised again where somebody waits for it
            self._why_ended = error
        self._say(self._ended)

    async def _take_part(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._within = (asyncio.get_running_loop(), task)
        api = await self._connect()
        try:
            self._leadership = leadership = self._enter(api)
            try:
                await leadership.acquire()
                self._say(self._acquired)
                await leadership.hold(self._unfit)
            finally:
                await leadership.release()
        finally:
            await api.close()  # type: ignore[no-untyped-call]

    def _say(self, what: asyncio.Event) -> None:
        assert self._loop is not None
        with suppress(RuntimeError):  # the loop has been closed meanwhile
            self._loop.call_soon_threadsafe(what.set)
