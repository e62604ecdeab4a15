"""`astrid submit`: files, folders and tables become messages to the pipeline.

Owns the loop, what is skipped and what is printed; payloads are made in `ingestion.submission`. A file that
cannot be used does not stop the rest, and nothing is sent twice unless it is asked for.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

from rich.console import Console
from rich.progress import Progress

from astrid_workers.broker import send
from astrid_workers.errors import PermanentFailure, ServiceUnavailable
from astrid_workers.ingestion.journal import Journal
from astrid_workers.ingestion.listing import Item, TableRejected, items_of
from astrid_workers.ingestion.submission import Submission, placed, prepared
from astrid_workers.pipeline import Stage
from astrid_workers.settings import StorageSettings
from astrid_workers.storage.artifacts import get_store
from astrid_workers.storage.connection import Database
from astrid_workers.storage.database import open_database
from astrid_workers.storage.fits import FitsLimits
from astrid_workers.storage.models import Observation

T = TypeVar("T")


@dataclass(slots=True)
class Outcome:
    """What became of the items: each is `{name, outcome, …}`, sent, would_send, skipped or refused."""

    items: list[dict[str, Any]] = field(default_factory=list)
    #: Why it stopped before the end, if it did.
    stopped: str | None = None

    def count(self, outcome: str) -> int:
        """How many items ended so."""
        return sum(item["outcome"] == outcome for item in self.items)

    @property
    def exit_status(self) -> int:
        """0 sent, 1 stopped before the end, 2 something was refused, 3 nothing to send."""
        if self.stopped is not None:
            return 1
        if self.count("refused"):
            return 2
        return 0 if self.count("sent") or self.count("would_send") else 3


def main(options: argparse.Namespace) -> int:
    """Submit; the exit status is that of the outcome."""
    try:
        items = list(items_of(options.paths))
    except TableRejected as error:
        print(f"astrid submit: {error}", file=sys.stderr)
        return 2
    if options.id is not None and len(items) != 1:
        print(f"astrid submit: --id names one observation, {len(items)} were found", file=sys.stderr)
        return 2
    outcome = _submit(items, options)
    _report(outcome, as_json=options.json)
    return outcome.exit_status


def _submit(items: list[Item], options: argparse.Namespace) -> Outcome:
    outcome = Outcome()
    settings = StorageSettings()
    ready = sorted(_prepared(items, options, outcome), key=lambda submission: not submission.is_reference)
    journal = Journal(options.journal)
    try:
        is_there = _looked_up()
        for submission in _with_progress(ready, "Sending", options):
            why = None if options.again else _why_skipped(submission, journal, is_there)
            if why is not None:
                outcome.items.append(_entry(submission, "skipped", why=why))
            elif options.dry_run:
                outcome.items.append(_entry(submission, "would_send", payload=dict(submission.payload)))
            else:
                _send(submission, journal, settings, outcome)
    except ServiceUnavailable as error:
        outcome.stopped = str(error)
    return outcome


def _prepared(items: list[Item], options: argparse.Namespace, outcome: Outcome) -> Iterator[Submission]:
    limits = FitsLimits.from_settings(StorageSettings())
    for item in _with_progress(items, "Reading headers", options):
        try:
            yield prepared(item, _overrides(options), limits)
        except PermanentFailure as error:
            outcome.items.append({"name": item.name, "outcome": "refused", "why": str(error)})


def _send(submission: Submission, journal: Journal, settings: StorageSettings, outcome: Outcome) -> None:
    try:
        payload = placed(submission, get_store(), settings.allowed_roots)
    except PermanentFailure as error:
        outcome.items.append(_entry(submission, "refused", why=str(error)))
        return
    message_id = send("ingest_observation", Stage.OBSERVATION_INGESTION, payload)
    journal.add(submission, message_id)
    outcome.items.append(_entry(submission, "sent", message_id=message_id))


def _overrides(options: argparse.Namespace) -> dict[str, Any]:
    given = {
        "survey_id": options.survey,
        "observation_id": options.id,
        "is_reference": options.reference,
        "ra": options.ra,
        "dec": options.dec,
        "observation_time": options.time,
        "filter_band": options.filter,
        "exposure_time": options.exposure,
        "bias_frame": _address(options.bias),
        "dark_frame": _address(options.dark),
        "flat_frame": _address(options.flat),
    }
    return {name: value for name, value in given.items() if value is not None}


def _address(text: str | None) -> str | None:
    return text if text is None or "://" in text else str(Path(text).absolute())


def _why_skipped(
    submission: Submission, journal: Journal, is_there: Callable[[Submission], bool]
) -> str | None:
    if is_there(submission):
        return "it is in the database already"
    return "it was sent before" if journal.has(submission) else None


def _looked_up() -> Callable[[Submission], bool]:
    """Whether the database has an observation; where it does not answer, the journal has to do."""
    try:
        database = open_database(wait=False)
    except ServiceUnavailable as error:
        print(f"astrid submit: only the journal says what was sent, {error}", file=sys.stderr)
        return lambda _: False
    return lambda submission: _is_complete(database, submission)


def _is_complete(database: Database, submission: Submission) -> bool:
    with database.reading() as session:
        row = session.get(Observation, UUID(submission.uuid))
        return row is not None and (row.frame_key is not None or "fits_url" not in submission.payload)


def _entry(submission: Submission, outcome: str, **facts: Any) -> dict[str, Any]:
    named = {name: submission.payload[name] for name in ("survey_id", "observation_id")}
    return {"name": submission.name, "outcome": outcome, "uuid": submission.uuid, **named, **facts}


def _with_progress(things: Iterable[T], what: str, options: argparse.Namespace) -> Iterator[T]:
    console = Console(stderr=True)
    if options.json or not console.is_terminal:
        yield from things
        return
    with Progress(console=console, transient=True) as progress:
        yield from progress.track(list(things), description=what)


def _report(outcome: Outcome, *, as_json: bool) -> None:
    counts = {name: outcome.count(name) for name in ("sent", "would_send", "skipped", "refused")}
    if as_json:
        print(json.dumps({**counts, "stopped": outcome.stopped, "items": outcome.items}))
        return
    for item in outcome.items:
        called, said = (
            item.get("observation_id", item["name"]),
            item.get("why") or item.get("message_id") or "",
        )
        print(f"{item['outcome'].replace('_', ' '):>10}  {called}  {said}".rstrip())
    told = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in counts.items() if count)
    print(told or "nothing found")
    if outcome.stopped is not None:
        print(f"astrid submit: stopped, {outcome.stopped}; run it again to go on", file=sys.stderr)
