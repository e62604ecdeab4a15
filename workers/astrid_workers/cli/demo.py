"""`astrid demo`: a simulated night through the whole pipeline, on this machine.

Owns the order of things: start, submit, watch, measure, report. Exit status 0 where every observation ended,
1 where one was lost or the fleet did not go back to zero, 2 where it cannot start.
"""

import argparse
import os
import shutil
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

from rich.console import Console

from astrid_workers.demo.night import Field, observation_id, write_field
from astrid_workers.demo.services import embedded_server, environment, local_fleet
from astrid_workers.errors import SettingRejected
from astrid_workers.pipeline import Stage
from astrid_workers.redis_address import check_address, redacted

#: What a run leaves in its folder; an earlier run's is removed first, anything else is left alone.
_MADE = ("frames", "artifacts")


def main(options: argparse.Namespace) -> int:
    """Run the demonstration."""
    home: Path = options.out.resolve()
    try:
        _check(options)
        _clear(home)
        return _demonstrate(options, home)
    except SettingRejected as error:
        print(f"astrid demo: {error}", file=sys.stderr)
        return 2


def _check(options: argparse.Namespace) -> None:
    if options.observations < 1:
        msg = f"--observations is {options.observations}, expected 1 or more"
        raise SettingRejected(msg)
    if options.capacity is not None and options.capacity < 1:
        msg = f"--capacity is {options.capacity}, expected 1 or more worker processes"
        raise SettingRejected(msg)
    if not options.timeout_seconds > 0:
        msg = f"--timeout-seconds is {options.timeout_seconds:g}, expected more than 0"
        raise SettingRejected(msg)
    if options.redis_url:
        _check_server(options.redis_url)
    if not options.queues.exists():
        msg = f"--queues names {options.queues}, which does not exist; expected AstridQueue files"
        raise SettingRejected(msg)


def _check_server(url: str) -> None:
    expected = f"--redis-url is {redacted(url)}, expected redis://host:port"
    if not url.startswith(("redis://", "rediss://")):
        raise SettingRejected(expected)
    try:
        check_address(url)
    except ValueError as trouble:
        msg = f"{expected}: {trouble}"
        raise SettingRejected(msg) from None
    address = urlsplit(url)
    if not address.hostname or address.path not in ("", "/"):
        raise SettingRejected(expected)


def _clear(home: Path) -> None:
    home.mkdir(parents=True, exist_ok=True)
    for name in _MADE:
        shutil.rmtree(home / name, ignore_errors=True)
    for pattern in ("astrid.sqlite3*", "fleet.json"):
        for path in home.glob(pattern):
            path.unlink()


def _demonstrate(options: argparse.Namespace, home: Path) -> int:
    began = time.monotonic()
    console = Console(stderr=True)
    capacity = options.capacity or len(Stage) + (os.cpu_count() or 1)
    with ExitStack() as stack:
        redis_url = options.redis_url or stack.enter_context(embedded_server())
        shared = environment(redis_url.rstrip("/"), home)
        # The broker and the database read their addresses from the environment when they are imported.
        os.environ.update(shared)
        fleet = stack.enter_context(local_fleet(options.queues, home=home, capacity=capacity, shared=shared))
        from astrid_workers.demo.watch import watch
        from astrid_workers.storage.database import get_database

        fields = _submit(options, home, console)
        ids = [observation_id(each) for each in fields]
        watched = watch(
            fleet, get_database(), ids, began=began, timeout_s=options.timeout_seconds, console=console
        )
        if watched.trouble:
            print(f"astrid demo: {watched.trouble}; see {fleet.log_file}", file=sys.stderr)
    from astrid_workers.demo.report import write_report

    report = write_report(home, fields, watched)
    print(report.sentence)
    print(f"report: {home / 'report.html'}")
    return 1 if report.lost or watched.trouble else 0


def _submit(options: argparse.Namespace, home: Path, console: Console) -> list[Field]:
    """Draw the fields and send each as soon as it is drawn, the reference first."""
    from astrid_workers.ingestion.observation_workers import ingest_observation

    fields = []
    with console.status("drawing the night …") as status:
        for index in range(options.observations):
            status.update(f"drawing and submitting field {index + 1} of {options.observations}")
            field = write_field(index, seed=options.seed, folder=home / "frames")
            ingest_observation.send(field.reference_payload)
            ingest_observation.send(field.science_payload)
            fields.append(field)
    return fields
