"""A recorded load, from a CSV file: `astrid-operator simulate --trace`.

Owns what a line may hold, and the sentence about one that makes no sense. Draws nothing and knows no fleet.
"""

import csv
import math
from array import array
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

from astrid_operator.errors import PersonMustAct
from astrid_operator.simulation_load import Arrival, Load

#: Longest time of one message in seconds: a week; what is longer is a mistake of units.
LONGEST_SECONDS = 7 * 86400.0

#: Longest delay of one message in seconds: a week, as Dramatiq has it.
LONGEST_DELAY_SECONDS = 7 * 86400.0


class LoadRejected(PersonMustAct):
    """A load that cannot be used: the sentence names the file, the line and what was expected."""

    reason = "InvalidLoad"


def read_trace(path: Path, queues: Iterable[str]) -> dict[str, Load]:
    """Loads by queue from a CSV of enqueue time, queue, duration and, if any, delay; raises LoadRejected.

    Duration and delay are in seconds; a delay that is missing or empty is none. Times are seconds, or dates
    as ISO 8601 writes them, and count from the first of them. A first line that holds no time is a header.
    `queues` are the names that the specs serve.
    """
    known = set(queues)
    found: dict[str, array[float]] = {}
    try:
        with path.open(newline="", encoding="utf-8") as file:
            for line, cells in _lines(file):
                at, queue, seconds, delay = _row(path, line, cells, known)
                numbers = found.get(queue)
                if numbers is None:
                    numbers = found[queue] = array("d")
                numbers.extend((at, seconds, delay))
    except (OSError, UnicodeDecodeError) as error:
        sentence = error.strerror if isinstance(error, OSError) and error.strerror else "is not text in UTF-8"
        raise LoadRejected(f"{path}: {sentence}") from error
    if not found:
        raise LoadRejected(f"{path}: holds no message")
    fields = len(Arrival._fields)
    first = min(min(numbers[::fields]) for numbers in found.values())
    return {queue: _counted_from(first, numbers) for queue, numbers in found.items()}


def _counted_from(first: float, numbers: "array[float]") -> Load:
    """The load of one queue whose times are those of the file."""
    fields = len(Arrival._fields)
    times = array("d", [at - first for at in numbers[::fields]])
    numbers[::fields] = times
    is_in_order = all(earlier <= later for earlier, later in pairwise(times))
    return Load(numbers) if is_in_order else Load.of(Load(numbers).arrivals())


def _lines(file: Iterable[str]) -> Iterator[tuple[int, list[str]]]:
    """Lines that hold something, with their numbers and without a header."""
    for line, row in enumerate(csv.reader(file), start=1):
        cells = [cell.strip() for cell in row]
        if any(cells) and not (line == 1 and _time(cells[0]) is None):
            yield line, cells


def _row(path: Path, line: int, cells: Sequence[str], known: set[str]) -> tuple[float, str, float, float]:
    if len(cells) not in (3, 4):
        raise _rejected(
            path, line, f"has {len(cells)} cells, must have 3 or 4: enqueue time, queue, seconds[, delay]"
        )
    at, seconds = _time(cells[0]), _time(cells[2])
    if at is None:
        raise _rejected(path, line, f"{cells[0]!r} is no time, must be seconds or a date in ISO 8601")
    if cells[1] not in known:
        raise _rejected(path, line, f"no spec serves queue {cells[1]!r}, only {', '.join(sorted(known))}")
    if seconds is None or not 0 <= seconds <= LONGEST_SECONDS:
        raise _rejected(
            path, line, f"{cells[2]!r} is no duration, must be 0 to {LONGEST_SECONDS:.0f} seconds"
        )
    delay = _time(cells[3]) if len(cells) == 4 and cells[3] else 0.0
    if delay is None or not 0 <= delay <= LONGEST_DELAY_SECONDS:
        raise _rejected(
            path,
            line,
            f"{cells[3]!r} in the 4th column is no delay, must be empty or 0 to"
            f" {LONGEST_DELAY_SECONDS:.0f} seconds",
        )
    return at, cells[1], seconds, delay


def _rejected(path: Path, line: int, why: str) -> LoadRejected:
    return LoadRejected(f"{path}, line {line}: {why}")


def _time(text: str) -> float | None:
    """Seconds; None where `text` is neither a finite number nor a date."""
    try:
        number = float(text)
    except ValueError:
        return _date(text)
    return number if math.isfinite(number) else None


def _date(text: str) -> float | None:
    try:
        date = datetime.fromisoformat(text)
    except ValueError:
        return None
    return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
