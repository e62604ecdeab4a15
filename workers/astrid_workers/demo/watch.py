"""Following the night until everything has ended and every worker has left.

Owns the loop and its deadline, and the record of the fleet over time; never sends a message.
"""

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol
from uuid import UUID

from rich.console import Console
from rich.live import Live

from astrid_workers.demo.progress import Progress, line, picture, read_states
from astrid_workers.demo.services import QueueState
from astrid_workers.storage.database import Database

#: Seconds between two looks.
LOOK_EVERY_S = 0.5
#: Seconds between two lines where there is no terminal.
LINE_EVERY_S = 5.0


class Fleet(Protocol):
    """Where the state of the queues is read."""

    @property
    def is_running(self) -> bool:
        """Whether somebody sizes the fleet."""

    def read(self) -> list[QueueState]:
        """Every queue as it was last seen."""


@dataclass(slots=True)
class Watched:
    """How it ended."""

    progress: Progress
    #: `{t, queue, members, outstanding}`, one row per queue and change.
    fleet: list[dict[str, Any]] = field(default_factory=list)
    #: Why the watch ended early; empty: everything had ended and every worker had left.
    trouble: str = ""


def watch(
    fleet: Fleet, database: Database, ids: Sequence[UUID], *, began: float, timeout_s: float, console: Console
) -> Watched:
    """Look every half second until all of `ids` have ended and no worker is left, or for `timeout_s`.

    `began` is a reading of `time.monotonic`. On a terminal a live picture is drawn, else a line now and then.
    """
    watched = Watched(_look(fleet, database, ids, began))
    with _shown(console) as show:
        while not (watched.progress.is_over and watched.progress.is_at_rest):
            show(watched.progress)
            _record(watched.fleet, watched.progress)
            watched.trouble = _trouble(fleet, watched.progress, timeout_s)
            if watched.trouble:
                break
            time.sleep(LOOK_EVERY_S)
            watched.progress = _look(fleet, database, ids, began)
        show(watched.progress)
    _record(watched.fleet, watched.progress)
    return watched


def _look(fleet: Fleet, database: Database, ids: Sequence[UUID], began: float) -> Progress:
    return Progress(time.monotonic() - began, len(ids), read_states(database, ids), tuple(fleet.read()))


def _trouble(fleet: Fleet, progress: Progress, timeout_s: float) -> str:
    if not fleet.is_running:
        return "the operator ended before the night did"
    if progress.seconds > timeout_s:
        return f"not done after {timeout_s:.0f} s"
    return ""


def _record(fleet: list[dict[str, Any]], progress: Progress) -> None:
    latest = {row["queue"]: row for row in fleet}
    for row in progress.fleet_rows():
        before = latest.get(row["queue"])
        if before is None or any(before[key] != row[key] for key in ("members", "outstanding")):
            fleet.append(row)


class _Show(Protocol):
    def __call__(self, progress: Progress) -> None: ...


@contextmanager
def _shown(console: Console) -> Iterator[_Show]:
    if console.is_terminal:
        with Live(console=console, auto_refresh=False, transient=True) as live:
            yield lambda progress: live.update(picture(progress), refresh=True)
        return
    last = -LINE_EVERY_S

    def show(progress: Progress) -> None:
        nonlocal last
        if progress.seconds - last >= LINE_EVERY_S:
            last = progress.seconds
            sys.stderr.write(line(progress) + "\n")

    yield show
