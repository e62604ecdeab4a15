"""What a person sees of a local fleet: a live table, lines of JSON, and a file for other programs.

Owns the form of all three, from one snapshot. Decides nothing, and shows no number that was not measured.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self, TextIO

from astrid_operator.astrid_queue import QueueKey

if TYPE_CHECKING:
    from rich.table import Table


@dataclass(frozen=True, slots=True)
class Row:
    """One queue at one moment. Counts of messages are None where Redis could not be read."""

    #: Dramatiq's name of the queue, and the AstridQueue's own.
    queue: str
    namespace: str
    name: str
    ready: int | None
    running: int | None
    delayed: int | None
    dead: int | None
    #: Worker members that are there and not leaving, those of them that fetch messages, and those that leave.
    members: int
    members_ready: int
    members_leaving: int
    #: Members that were decided on, as granted; None: nothing could be decided.
    desired: int | None
    #: What was decided before slots were shared.
    wanted: int | None
    reason: str
    message: str
    #: Why members do not come up; empty: nothing known.
    unhealthy: str = ""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All queues at one moment, the first served first; `at` is UTC (RFC 3339), `seconds` since the start."""

    at: str
    seconds: float
    capacity: int
    slots_held: int
    rows: tuple[Row, ...]
    #: What a person should know beside the rows: why files are not in force, that members leave; or empty.
    note: str = ""

    def as_json(self) -> dict[str, Any]:
        """The form of the status file: one object, with a list `queues`."""
        head = {field: value for field, value in asdict(self).items() if field != "rows"}
        return {**head, "queues": [asdict(row) for row in self.rows]}


class View(Protocol):
    """Where snapshots are shown; a context manager."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def show(self, snapshot: Snapshot) -> None:
        """Show it, if there is anything new in it."""


class JsonLines:
    """A line for each queue whose fleet or decision changed."""

    def __init__(self, output: TextIO) -> None:
        self._output = output
        self._shown: dict[tuple[str, str], Row] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._output.flush()

    def show(self, snapshot: Snapshot) -> None:
        """Write a line for each row that tells something new; messages that come and go alone do not."""
        for row in snapshot.rows:
            key = row.namespace, row.name
            if _news(row) != _news(self._shown.get(key)):
                line = {"at": snapshot.at, "seconds": round(snapshot.seconds, 2), **asdict(row)}
                self._output.write(json.dumps(line, ensure_ascii=False) + "\n")
                self._output.flush()
            self._shown[key] = row


def _news(row: Row | None) -> Row | None:
    """`row` without what changes all the time."""
    quiet = {"ready": None, "running": None, "delayed": None, "message": ""}
    return None if row is None else replace(row, **quiet)  # type: ignore[arg-type]


class LiveTable:
    """A table on a terminal that is drawn anew with every snapshot."""

    def __init__(self, output: TextIO) -> None:
        from rich.console import Console
        from rich.live import Live

        self._live = Live(console=Console(file=output), auto_refresh=False)

    def __enter__(self) -> Self:
        self._live.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.__exit__(kind, error, trace)

    def show(self, snapshot: Snapshot) -> None:
        """Draw it."""
        self._live.update(table(snapshot), refresh=True)


def table(snapshot: Snapshot) -> "Table":
    """A snapshot as a table: a line for each queue, and a last one about slots and files."""
    from rich.table import Table

    slots = f"{snapshot.slots_held} of {snapshot.capacity} slots held"
    caption = f"{slots}; {snapshot.note}" if snapshot.note else slots
    shown = Table(caption=caption, caption_justify="left", expand=True)
    for column in ("queue", "ready", "running", "delayed", "dead", "members", "desired"):
        shown.add_column(column, justify="left" if column == "queue" else "right", no_wrap=True)
    shown.add_column("reason", overflow="ellipsis", no_wrap=True, ratio=1)
    for row in snapshot.rows:
        shown.add_row(*_cells(row))
    return shown


def _cells(row: Row) -> list[str]:
    counts = [_number(each) for each in (row.ready, row.running, row.delayed, row.dead)]
    leaving = f" −{row.members_leaving}" if row.members_leaving else ""
    members = f"{row.members_ready}/{row.members}{leaving}"
    why = row.unhealthy or row.message
    return [row.queue, *counts, members, _number(row.desired), f"{row.reason}: {why}" if why else row.reason]


def _number(value: int | None) -> str:
    return "–" if value is None else str(value)


def view_for(output: TextIO, *, as_json: bool) -> View:
    """The table on a terminal where `rich` is installed, else lines of JSON."""
    if not as_json and output.isatty():
        try:
            return LiveTable(output)
        except ModuleNotFoundError:
            sys.stderr.write("rich is not installed: lines of JSON instead of a table\n")
    return JsonLines(output)


def write_status(path: Path, snapshot: Snapshot) -> None:
    """Replace `path` by `snapshot` in one step, so that no reader sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f"{path.name}.new")
    new.write_text(json.dumps(snapshot.as_json(), ensure_ascii=False) + "\n")
    new.replace(path)


def missing_warning(missing: Mapping[QueueKey, Sequence[str]]) -> str:
    """One sentence about all the variables that workers will lack."""
    users: dict[str, list[str]] = {}
    for queue, names in sorted(missing.items()):
        for name in names:
            users.setdefault(name, []).append(str(queue))
    parts = [f"{name} for {', '.join(queues)}" for name, queues in users.items()]
    return f"The environment does not hold what these references need: {'; '.join(parts)}" if parts else ""
