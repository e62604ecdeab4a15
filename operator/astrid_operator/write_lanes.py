"""Which write goes first: sizes before everything that is only told.

Owns how many writes are under way at a time, and that a status, an event or a manifest lets every size that
is wanted now go ahead of it, and is hardly in its way where that takes long. Knows nothing of what is
written; no clock but the event loop's.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

#: Writes that are under way at a time: enough to make hundreds of fleets quickly, few enough to be fair. With
#: 64 the making of 300 fleets left so little of a small API server that the Lease was lost.
WRITES_AT_A_TIME = 16
#: Sizes under way at a time. A bare loop that writes 300 of them is done no sooner with 48 than with 16, and
#: each connection costs a handshake and a quarter of a megabyte.
SIZES_AT_A_TIME = 16
#: Longest that another write lets sizes go first, in seconds: also where fleets change without a pause, new
#: ones are made and statuses told.
LONGEST_YIELD_SECONDS = 5.0
#: Other writes under way at a time after that, while sizes are still wanted: a thousand sizes take longer,
#: and a status costs the API server several times what a size does.
OTHERS_AMONG_SIZES = 2


class WriteLanes:
    """Two lanes to one API server. Not thread-safe: one event loop uses it."""

    def __init__(self) -> None:
        self._sizes = asyncio.Semaphore(SIZES_AT_A_TIME)
        self._others = asyncio.Semaphore(WRITES_AT_A_TIME)
        self._among_sizes = asyncio.Semaphore(OTHERS_AMONG_SIZES)
        self._sizes_wanted = 0
        self._no_size_wanted = asyncio.Event()
        self._no_size_wanted.set()

    @property
    def sizes_wanted(self) -> int:
        """Sizes that wait for room or have it. Any thread may ask."""
        return self._sizes_wanted

    @asynccontextmanager
    async def size(self) -> AsyncIterator[None]:
        """Room for the write of a size."""
        self._sizes_wanted += 1
        self._no_size_wanted.clear()
        try:
            async with self._sizes:
                yield
        finally:
            self._sizes_wanted -= 1
            if not self._sizes_wanted:
                self._no_size_wanted.set()

    @asynccontextmanager
    async def other(self) -> AsyncIterator[None]:
        """Room for any other write, once no size is wanted or they have gone first for long enough."""
        async with self._others:
            if not self._sizes_wanted or await self._sizes_went():
                yield
                return
            async with self._among_sizes:
                yield

    async def _sizes_went(self) -> bool:
        """Whether no size is wanted any more; False after they have gone first for long enough."""
        try:
            await asyncio.wait_for(self._no_size_wanted.wait(), LONGEST_YIELD_SECONDS)
        except TimeoutError:
            return False
        return True
