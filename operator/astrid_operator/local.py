"""`astrid-operator local`: the fleets of AstridQueues in files, as processes of this machine.

Owns the verb: its arguments, what is put together for it, what a person sees, and how it ends. The deciding
loop is the cluster's own (`loop.py`). Needs no Kubernetes.
"""

import argparse
import asyncio
import logging
import os
import random
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AsyncExitStack, ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import structlog

from astrid_operator.astrid_queue import AstridQueue, QueueKey
from astrid_operator.brokers import DEFAULT_KEY, DEFAULT_SECRET, Brokers
from astrid_operator.claims import claims
from astrid_operator.demand import DemandReader
from astrid_operator.fleet import EventType, FleetState, Subject
from astrid_operator.local_files import LocalFiles
from astrid_operator.local_slots import LocalSlots
from astrid_operator.local_view import LiveTable, Row, Snapshot, View, missing_warning, view_for, write_status
from astrid_operator.loop import Loop
from astrid_operator.manifest_files import FileRejected, read_queues
from astrid_operator.member_demand import MemberDemand
from astrid_operator.member_folder import FolderTaken
from astrid_operator.process_fleet import ProcessFleet
from astrid_operator.promotion import Promotion
from astrid_operator.reconcile import Gathered
from astrid_operator.recovery import Recovery
from astrid_operator.scaling import ScalingDecision
from astrid_operator.settings import OperatorSettings

log = structlog.get_logger(__name__)

#: Exit status for input that cannot be used.
UNUSABLE = 2
#: Status is not held back: telling costs nothing here.
STATUS_WRITES_PER_SECOND = 1000.0


def main(options: argparse.Namespace) -> int:
    """Run until interrupted: 0 when all members have left, 2 and a sentence where something is unusable."""
    settings = OperatorSettings()
    clock = time.monotonic
    try:
        files = LocalFiles(options.filename, clock)
        queues = {entry.queue.key: entry.queue for entry in read_queues(options.filename)}
        _check_brokers(queues, settings)
        return asyncio.run(_run(options, settings, files))
    except (FileRejected, FolderTaken, _NoBroker) as error:
        sys.stderr.write(f"{error}\n")
        return UNUSABLE


class _NoBroker(Exception):  # noqa: N818 - named for what it is
    """No queue has a Redis that this process knows of."""


def _check_brokers(queues: Mapping[QueueKey, AstridQueue], settings: OperatorSettings) -> None:
    """On a cluster a broker may be mounted later; here the environment does not change any more."""
    granted, refused = claims(queues, _brokers(settings))
    if not granted:
        raise _NoBroker("; ".join(dict.fromkeys(str(error) for error in refused.values())))


def _brokers(settings: OperatorSettings) -> Brokers:
    url = settings.redis_url
    return Brokers(settings.brokers_dir, None if url is None else url.get_secret_value())


# ---------------------------------------------------------------------------------------- putting together


async def _run(options: argparse.Namespace, settings: OperatorSettings, files: LocalFiles) -> int:
    async with AsyncExitStack() as stack:
        view = view_for(sys.stdout, as_json=options.json or options.dry_run)
        stack.enter_context(_logs(settings, options.folder if isinstance(view, LiveTable) else None))
        fleet = ProcessFleet(
            options.folder,
            capacity=options.capacity,
            machine=os.environ,
            mounted=_mounted(settings.brokers_dir),
        )
        reader = _reader(settings)
        stack.push_async_callback(reader.close)
        recovery = Recovery(time.monotonic, timeout_seconds=settings.redis_timeout_seconds)
        stack.push_async_callback(recovery.close)
        promotion = Promotion(reader, time.monotonic, timeout_seconds=settings.redis_timeout_seconds)
        stack.push_async_callback(promotion.close)
        stack.enter_context(view)
        watcher = _Watcher(files, fleet, view, options)
        local = Loop(
            files,
            _Idle(fleet) if options.dry_run else fleet,
            watcher,
            MemberDemand(reader, fleet),
            _brokers(settings),
            clock=time.monotonic,
            rng=random.Random(),  # noqa: S311 (back-off, no secret)
            observer=watcher,
            tick_seconds=settings.tick_seconds,
            status_writes_per_second=STATUS_WRITES_PER_SECOND,
            budget=LocalSlots(options.capacity, fleet, fleet.seen),
            recovery=None if options.dry_run else recovery,
            promotion=None if options.dry_run else promotion,
        )
        if options.dry_run:
            await local.tick()
            return 0
        await stack.enter_async_context(fleet)
        await _until_interrupted(local, fleet, watcher)
    return 0


def _reader(settings: OperatorSettings) -> DemandReader:
    rng = random.Random()  # noqa: S311 (back-off, no secret)
    return DemandReader(time.monotonic, rng, timeout_seconds=settings.redis_timeout_seconds)


def _mounted(folder: Path) -> Callable[[str, str, str], str | None]:
    def read(namespace: str, name: str, key: str) -> str | None:
        if (name, key) == (DEFAULT_SECRET, DEFAULT_KEY) and not (folder / namespace / name / key).is_file():
            return None
        try:
            return (folder / namespace / name / key).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError):
            return None

    return read


async def _until_interrupted(local: Loop, fleet: ProcessFleet, watcher: "_Watcher") -> None:
    """Run the loop; the first signal lets every member finish, the second ends them at once."""
    first, second = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, lambda: second.set() if first.is_set() else first.set())
    running = asyncio.create_task(local.run(), name="local loop")
    interrupted = asyncio.create_task(first.wait())
    await asyncio.wait([running, interrupted], return_when=asyncio.FIRST_COMPLETED)
    running.cancel()
    (ending,) = await asyncio.gather(running, return_exceptions=True)
    await _drain(fleet, second, watcher)
    if isinstance(ending, Exception):
        raise ending


async def _drain(fleet: ProcessFleet, hurry: asyncio.Event, watcher: "_Watcher") -> None:
    """Let every member finish, and show how that goes on; once `hurry` is set, end them at once."""
    log.info("Members asked to leave; interrupt again to end them at once", slots=fleet.slots_held())
    drained, hurried = asyncio.create_task(fleet.drain()), asyncio.create_task(hurry.wait())
    while not drained.done() and not hurry.is_set():
        await watcher.show_leaving()
        await asyncio.wait([drained, hurried], timeout=1.0, return_when=asyncio.FIRST_COMPLETED)
    if not drained.done():
        await fleet.kill()
    await watcher.show_leaving()


@contextmanager
def _logs(settings: OperatorSettings, folder: Path | None) -> Iterator[None]:
    """Logs go to standard error, or beside the members' where a table has the terminal."""
    with ExitStack() as stack:
        output = sys.stderr
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            output = stack.enter_context((folder / "operator.log").open("a", buffering=1))
        form: Any = structlog.dev.ConsoleRenderer(colors=False)
        structlog.configure(
            processors=[
                structlog.processors.add_log_level,
                structlog.processors.TimeStamper(fmt="iso", utc=True),
                structlog.processors.format_exc_info,
                form,
            ],
            wrapper_class=structlog.make_filtering_bound_logger(
                logging.getLevelName(settings.log_level.upper())
            ),
            logger_factory=structlog.PrintLoggerFactory(output),
            cache_logger_on_first_use=False,
        )
        yield


# ------------------------------------------------------------------------------------------ who looks on


class _Idle:
    """A fleet that knows what there is and changes nothing."""

    def __init__(self, fleet: ProcessFleet) -> None:
        self._fleet = fleet

    async def observe(self, key: QueueKey) -> FleetState:
        return await self._fleet.observe(key)

    async def ensure(self, queue: AstridQueue, replicas: int = 0) -> None:
        pass

    async def scale_to(self, key: QueueKey, replicas: int) -> None:
        pass

    async def tend(self, queue: AstridQueue, replicas: int, *, whoever: bool, spare: int = 0) -> int | None:
        pass

    async def remove(self, key: QueueKey) -> None:
        pass


@dataclass(slots=True)
class _Known:
    gathered: Gathered
    decision: ScalingDecision | None


class _Watcher:
    """Implements `loop.Observer` and `fleet.Reporter`: makes a snapshot of every tick and shows it."""

    def __init__(
        self, files: LocalFiles, fleet: ProcessFleet, view: View, options: argparse.Namespace
    ) -> None:
        self._files = files
        self._fleet = fleet
        self._view = view
        self._options = options
        self._began = time.monotonic()
        self._known: dict[QueueKey, _Known] = {}
        self._said: set[str] = set()

    # ------------------------------------------------------------------ Observer

    def saw(self, gathered: Gathered, decision: ScalingDecision | None) -> None:
        """Keep what this tick found."""
        self._known[gathered.queue.key] = _Known(gathered, decision)

    def scaled(self, key: QueueKey, decision: ScalingDecision, was: int) -> None:
        """Nothing to add: the loop logs it."""

    def reclaimed(self, key: QueueKey, messages: int) -> None:
        """Nothing to add: the event says it."""

    def promoted(self, key: QueueKey, messages: int) -> None:
        """Nothing to add: the log says it."""

    def reconciled(self, result: str, seconds: float) -> None:
        """Nothing to add: the loop logs what goes wrong."""

    def forgot(self, key: QueueKey) -> None:
        """Its AstridQueue is gone."""
        self._known.pop(key, None)

    def ticked(self, seconds: float, waiting: int) -> None:  # noqa: ARG002 - the protocol's
        """Show what this tick found, and say once what members lack."""
        self._publish({key: each.gathered.fleet for key, each in self._known.items()})
        if missing := missing_warning(self._fleet.missing()):
            self._say_once(missing, missing)

    def _say_once(self, what: str, sentence: str, **facts: str) -> None:
        if what not in self._said:
            self._said.add(what)
            log.warning(sentence, **facts)

    async def show_leaving(self) -> None:
        """Show how it ends: whatever was decided last, nobody is asked for any more."""
        for known in self._known.values():
            known.decision = None
        held = self._fleet.slots_held()
        note = "members leave; interrupt again to end them at once" if held else "all members have left"
        self._publish({key: await self._fleet.observe(key) for key in self._known}, note)

    # ------------------------------------------------------------------ Reporter

    async def status(self, queue: Subject, status: Mapping[str, Any]) -> None:
        """The loop remembers it; the view shows the same facts."""

    async def event(self, queue: Subject, kind: EventType, reason: str, message: str) -> None:
        """A transition that a person should know of; changes of size are in the log already."""
        say = log.warning if kind == "Warning" else log.debug
        say("Event", queue=str(queue.key), reason=reason, message=message)

    # ------------------------------------------------------------------ snapshots

    def _publish(self, fleets: Mapping[QueueKey, FleetState], note: str = "") -> None:
        order = sorted(fleets, key=lambda key: (self._known[key].gathered.queue.spec.priority, key))
        snapshot = Snapshot(
            at=datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            seconds=time.monotonic() - self._began,
            capacity=self._options.capacity,
            slots_held=self._fleet.slots_held(),
            rows=tuple(_row(self._known[key], fleets[key]) for key in order),
            note=note or self._files.trouble,
        )
        try:
            self._view.show(snapshot)
            if self._options.status_file is not None:
                write_status(self._options.status_file, snapshot)
        except OSError as error:
            self._say_once("deaf", "Fleet not shown", error=str(error))


def _row(known: _Known, fleet: FleetState) -> Row:
    gathered, decision = known.gathered, known.decision
    demand, trouble = gathered.reading.demand, gathered.trouble
    reason, message = (trouble.reason, trouble.message) if trouble else ("", "")
    if decision is not None and trouble is None:
        reason, message = decision.reason.value, decision.message
    return Row(
        queue=gathered.queue.spec.queue_name,
        namespace=gathered.queue.key.namespace,
        name=gathered.queue.key.name,
        ready=demand.ready if demand is not None else None,
        running=demand.running if demand is not None else None,
        delayed=demand.delayed if demand is not None else None,
        dead=demand.dead if demand is not None else None,
        members=fleet.current,
        members_ready=fleet.ready,
        members_leaving=fleet.draining,
        desired=decision.replicas if decision is not None else None,
        wanted=decision.wanted if decision is not None else None,
        reason=reason,
        message=message,
        unhealthy=fleet.unhealthy,
    )
