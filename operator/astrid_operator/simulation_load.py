"""What is asked of the queues in a simulation: recorded in a file, or drawn from a seed.

Owns the reading of traces and the drawing of arrivals. Knows no fleet and no policy; the same arguments give
the same load.
"""

import csv
import math
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from astrid_operator.errors import PersonMustAct

#: Longest time of one message in seconds: a week; what is longer is a mistake of units.
LONGEST_SECONDS = 7 * 86400.0

#: Longest delay of one message in seconds: a week, as Dramatiq has it.
LONGEST_DELAY_SECONDS = 7 * 86400.0


class Arrival(NamedTuple):
    """One message: when it is enqueued (seconds since the start), how long a thread works on it, and how long
    after it was enqueued it is due (seconds; 0: it is not delayed).
    """

    at: float
    seconds: float
    delay: float = 0.0


class LoadRejected(PersonMustAct):
    """A load that cannot be used: the sentence names the file, the line and what was expected."""

    reason = "InvalidLoad"


def poisson(rng: random.Random, rate: float, seconds: float, sigma: float, length: float) -> list[Arrival]:
    """Messages that come independently of one another, `rate` a second for `length` seconds.

    Each takes `seconds` on average, spread log-normally by `sigma` (0: all take the same).
    """
    draw, arrivals, at = task_times(rng, seconds, sigma), [], rng.expovariate(rate)
    while at < length:
        arrivals.append(Arrival(at, draw()))
        at += rng.expovariate(rate)
    return arrivals


def burst(
    rng: random.Random, count: int, seconds: float, sigma: float = 0.0, at: float = 0.0
) -> list[Arrival]:
    """`count` messages at once, each `seconds` on average."""
    draw = task_times(rng, seconds, sigma)
    return [Arrival(at, draw()) for _ in range(count)]


def diurnal(rng: random.Random, peak: float, seconds: float, sigma: float, length: float) -> list[Arrival]:
    """One night: the rate rises from nothing to `peak` a second at half of `length`, and falls again."""
    possible = poisson(rng, peak, seconds, sigma, length)
    return [each for each in possible if rng.random() < math.sin(math.pi * each.at / length) ** 2]


def task_times(rng: random.Random, mean: float, sigma: float) -> Callable[[], float]:
    """Draws times of tasks: log-normal with that mean, or always the mean."""
    if sigma == 0:
        return lambda: mean
    mu = math.log(mean) - sigma * sigma / 2
    return lambda: rng.lognormvariate(mu, sigma)


def read_trace(path: Path, queues: Iterable[str]) -> dict[str, list[Arrival]]:
    """Arrivals by queue from a CSV of enqueue time, queue, duration and, if any, delay; raises LoadRejected.

    Duration and delay are in seconds; a delay that is missing or empty is none. Times are seconds, or dates
    as ISO 8601 writes them, and count from the first of them. A first line that holds no time is a header.
    `queues` are the names that the specs serve.
    """
    known = set(queues)
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = [_row(path, line, cells, known) for line, cells in _lines(file)]
    except (OSError, UnicodeDecodeError) as error:
        sentence = error.strerror if isinstance(error, OSError) and error.strerror else "is not text in UTF-8"
        raise LoadRejected(f"{path}: {sentence}") from error
    if not rows:
        raise LoadRejected(f"{path}: holds no message")
    first = min(at for at, _, _, _ in rows)
    found: dict[str, list[Arrival]] = {}
    for at, queue, seconds, delay in rows:
        found.setdefault(queue, []).append(Arrival(at - first, seconds, delay))
    return {queue: sorted(arrivals) for queue, arrivals in found.items()}


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
