"""How far long work has come: one line of a terminal, written over itself and wiped at the end.

Owns when it is written and what it says. Writes nothing where nobody looks: to no file and no pipe.
"""

import time
from collections.abc import Callable
from types import TracebackType
from typing import Self, TextIO

#: Seconds between two writes, and from the start until what is left is foretold.
WRITE_SECONDS, FORETELL_SECONDS = 0.2, 2.0
_WIPE = "\r\x1b[K"


class ProgressLine:
    """`with` this about the work; whoever has done a part of `total` says so by `more`."""

    def __init__(
        self, output: TextIO, what: str, total: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._output, self._what, self._total, self._clock = output, what, total, clock
        self._is_seen = output.isatty() and total > 0
        self._done = 0
        self._began = self._written_at = clock()

    def more(self, count: int) -> None:
        """So many more of the total are done."""
        self._done += count
        now = self._clock()
        if self._is_seen and now - self._written_at >= WRITE_SECONDS:
            self._written_at = now
            self._output.write(f"{_WIPE}{said(self._what, self._done, self._total, now - self._began)}")
            self._output.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        if self._is_seen:
            self._output.write(_WIPE)
            self._output.flush()


def said(what: str, done: int, total: int, passed_seconds: float) -> str:
    """The line: what is done of the total, and how long the rest takes at the pace so far."""
    line = f"{what}: {done:,} of {total:,} ({done / total:.0%})"
    if not done or passed_seconds < FORETELL_SECONDS:
        return line
    return f"{line}, about {passed_seconds * (total - done) / done:.0f} s left"
