"""`astrid status`: what waits, what runs and how many workers there are, per queue.

Owns the table and its JSON form. Reads Redis, changes nothing. Exit status 1 where the broker does not
answer.
"""

import argparse
import json
import sys
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import redis
from rich import box
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from astrid_workers.broker import get_broker
from astrid_workers.config import get_worker_config
from astrid_workers.errors import SettingRejected
from astrid_workers.fleet_reading import FleetReading, read_fleet
from astrid_workers.monitoring import known_queues

#: Columns of the table and keys of each queue in the JSON form.
COLUMNS = ("ready", "running", "delayed", "dead", "workers", "busy", "draining")

#: Between two looks of --watch.
LONGEST_PAUSE_S = 86_400.0


def main(options: argparse.Namespace) -> int:
    """Show the fleet once, or until interrupted."""
    try:
        _check(options)
        queues = options.queues or known_queues()
        if options.watch:
            _watch(queues, options.every, options.json)
            return 0
        reading = _read(queues)
    except KeyboardInterrupt:
        return 0
    except redis.RedisError as error:
        print(f"astrid status: the broker does not answer: {error}", file=sys.stderr)
        return 1
    except SettingRejected as error:
        print(f"astrid status: {error}", file=sys.stderr)
        return 2
    if options.json:
        print(json.dumps(as_json(reading)))
    else:
        Console().print(as_table(reading))
    return 0


def _check(options: argparse.Namespace) -> None:
    if not 0 < options.every <= LONGEST_PAUSE_S:
        msg = f"--every is {options.every:g}, expected seconds above 0 and at most {LONGEST_PAUSE_S:g}"
        raise SettingRejected(msg)


def _read(queues: Sequence[str]) -> FleetReading:
    return read_fleet(get_broker().client, get_worker_config().namespace, queues)


def _watch(queues: Sequence[str], every_s: float, as_lines: bool) -> None:
    """Look again and again; a broker that does not answer is said and looked for again."""
    if as_lines:
        for look in _looks(queues, every_s):
            said = as_json(look) if isinstance(look, FleetReading) else {"error": str(look)}
            print(json.dumps(said), flush=True)
        return
    console = Console()
    if not console.is_terminal:  # a live picture would be drawn at the end only
        for look in _looks(queues, every_s):
            console.print(_shown(look))
        return
    with Live(console=console, auto_refresh=False) as live:
        for look in _looks(queues, every_s):
            live.update(_shown(look), refresh=True)


def _shown(look: FleetReading | redis.RedisError) -> Table | Text:
    return as_table(look) if isinstance(look, FleetReading) else Text(f"the broker does not answer: {look}")


def _looks(queues: Sequence[str], every_s: float) -> Iterator[FleetReading | redis.RedisError]:
    while True:
        try:
            yield _read(queues)
        except redis.RedisError as error:
            yield error
        time.sleep(every_s)


def rows(reading: FleetReading) -> Iterator[tuple[str, dict[str, int]]]:
    """(queue, column → number) of every queue."""
    for queue in reading.queues:
        alive = reading.alive(queue)
        yield (
            queue.queue,
            {
                "ready": queue.ready,
                "running": queue.running,
                "delayed": queue.delayed,
                "dead": queue.dead,
                "workers": len(alive),
                "busy": sum(one.busy for one in alive),
                "draining": sum(one.draining for one in alive),
            },
        )


def as_json(reading: FleetReading) -> dict[str, Any]:
    """`at` and, per queue, the columns; workers counts processes, busy the tasks that they work on."""
    at = datetime.fromtimestamp(reading.at, UTC).isoformat()
    return {"at": at, "queues": [{"queue": queue, **numbers} for queue, numbers in rows(reading)]}


def as_table(reading: FleetReading) -> Table:
    """The same for people; what is zero is dim, dead letters stand out."""
    table = Table(
        title=f"{datetime.fromtimestamp(reading.at, UTC):%Y-%m-%d %H:%M:%S} UTC",
        title_justify="left",
        box=box.SIMPLE,  # the longest queue name fits into 80 columns
        padding=0,
        collapse_padding=True,
    )
    table.add_column("queue", no_wrap=True)
    for column in COLUMNS:
        table.add_column(f" {column}", justify="right")
    for queue, numbers in rows(reading):
        table.add_row(
            queue, *(Text(str(numbers[column]), style=_style(column, numbers[column])) for column in COLUMNS)
        )
    return table


def _style(column: str, number: int) -> str:
    if number == 0:
        return "dim"
    return "bold red" if column == "dead" else "bold"
