"""The verb `run`: the operator on a cluster.

The composition root: here clocks, clients and settings meet. Decides nothing. Ends with status 0 when it was
asked to, and with 1 when it may not or cannot go on, so that whoever runs it starts it again.
"""

import argparse
import asyncio
import gc
import os
import random
import signal
import socket
from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import UTC, datetime
from time import monotonic, time
from typing import Any
from uuid import uuid4

import structlog

from astrid_operator import handlers
from astrid_operator.brokers import Brokers
from astrid_operator.demand import DemandReader
from astrid_operator.desired import OperatorDefaults
from astrid_operator.doorbell import Doorbell
from astrid_operator.election import Election
from astrid_operator.errors import OperatorError
from astrid_operator.fleet_view import Moment
from astrid_operator.gpu_budget import GpuBudget
from astrid_operator.held_watches import HeldWatches
from astrid_operator.informer import Informer
from astrid_operator.kinds import Kind
from astrid_operator.kubernetes_api import KubernetesApi
from astrid_operator.kubernetes_connection import Connection, Credentials, connect, credentials
from astrid_operator.kubernetes_fleet import KubernetesFleet
from astrid_operator.kubernetes_reporter import KubernetesReporter
from astrid_operator.leadership import Leadership, LeaseTimes
from astrid_operator.logs import set_up_logs
from astrid_operator.loop import Loop
from astrid_operator.member_demand import AskedMemberDemand
from astrid_operator.metrics import CONTENT_TYPE, Metrics
from astrid_operator.probes import Probes, Verdict
from astrid_operator.promotion import Promotion
from astrid_operator.quiesce import Conversation
from astrid_operator.recovery import Recovery
from astrid_operator.seen import Seen
from astrid_operator.settings import OperatorSettings

log = structlog.get_logger(__name__)

#: A leader whose loop has not ticked for this long is not alive, in seconds.
LONGEST_TICK_SECONDS = 15.0

#: When garbage in cycles is looked for: containers made since, and how often among younger ones. Thousands of
#: documents are held for long and documents come by the hundred; with Python's own 700 the whole heap of a
#: thousand queues was gone through again and again in a burst, for 0.7 s each time, in which nobody decides.
COLLECT_AFTER = (20_000, 20, 50)

#: Watches objects of some kinds in some namespaces until it is cancelled; `handlers.watch` is one.
Watch = Callable[
    [
        Sequence[str],
        Iterable[Kind],
        Callable[[Kind, dict[str, Any]], None],
        Callable[[], Awaitable[Credentials]],
        Callable[[], None],
    ],
    Awaitable[None],
]


def main(options: argparse.Namespace) -> int:
    """Run until SIGTERM or SIGINT (0), or until it cannot go on (1)."""
    settings = _settings(options)
    set_up_logs(settings.log_level, settings.log_format)
    gc.set_threshold(*COLLECT_AFTER)
    log.info("Operator started", **settings.effective())
    try:
        asyncio.run(_run(settings, handlers.watch))
    except (OperatorError, OSError) as error:
        log.error("Operator ended", reason=type(error).__name__, error=str(error))  # noqa: TRY400 - an ending
        return 1
    except Exception:
        log.exception("Operator ended unexpectedly")
        return 1
    log.info("Operator stopped")
    return 0


def _settings(options: argparse.Namespace) -> OperatorSettings:
    given = {
        "namespaces": tuple(options.namespace) if options.namespace else None,
        "log_level": options.log_level,
        "log_format": options.log_format,
    }
    return OperatorSettings(**{name: value for name, value in given.items() if value is not None})


async def _run(settings: OperatorSettings, watch: Watch) -> None:
    api = await connect()
    try:
        operator = Operator(settings, api)
        await operator.run(watch)
    finally:
        await api.close()  # type: ignore[no-untyped-call]


class Operator:
    """All parts, connected."""

    def __init__(self, settings: OperatorSettings, api: Any) -> None:
        self.settings = settings
        self.seen = Seen()
        self.metrics = Metrics()
        self.stop = asyncio.Event()
        rng = random.Random()  # noqa: S311 - jitter, not secrets
        self._election = Election(connect, self._enter, self._unfit)
        requests = KubernetesApi(api, may_write=lambda: self._election.is_leader)
        self._demand = DemandReader(monotonic, rng, timeout_seconds=settings.redis_timeout_seconds)
        self._conversation = Conversation()
        self._recovery = Recovery(monotonic, timeout_seconds=settings.redis_timeout_seconds)
        self._promotion = Promotion(self._demand, monotonic, timeout_seconds=settings.redis_timeout_seconds)
        self._doorbell = Doorbell()
        defaults, retired = OperatorDefaults(settings.image), self.metrics.retired
        fleet = KubernetesFleet(requests, self.seen, defaults, _moment, self._conversation, retired)
        redis_url = settings.redis_url.get_secret_value() if settings.redis_url else None
        self.loop = Loop(
            self.seen.queues,
            fleet,
            KubernetesReporter(requests, self.seen, _moment),
            AskedMemberDemand(self._demand, fleet, self._conversation),
            Brokers(settings.brokers_dir, redis_url),
            clock=monotonic,
            rng=rng,
            observer=self.metrics,
            tick_seconds=settings.tick_seconds,
            status_writes_per_second=settings.status_writes_per_second,
            recovery=self._recovery,
            promotion=self._promotion,
            bell=self._doorbell,
            budget=GpuBudget(self.seen, fleet.seen, monotonic, nodes_grow=settings.gpu_nodes_grow),
        )
        self._informer = Informer(requests, self.seen, settings.namespaces, self.loop.drifted)
        self._held_watches = HeldWatches(lambda: requests.sizes_wanted)
        self._is_deciding = False

    async def run(self, watch: Watch) -> None:
        """Serve until `stop` is set; raises what forbids to go on."""
        for each in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(each, self.stop.set)
        probes = Probes(
            self.settings.listen_address,
            metrics_port=self.settings.metrics_port,
            probes_port=self.settings.probes_port,
            metrics=self._scrape,
            healthy=self.healthy,
            ready=self.ready,
        )
        async with probes:
            try:
                await _first_of(self.stop.wait(), self._serve(watch))
            finally:
                await self._election.end()
                await self._recovery.close()
                await self._promotion.close()
                await self._doorbell.close()
                await self._demand.close()
                await self._conversation.close()

    async def _serve(self, watch: Watch) -> None:
        """List, watch, and decide while leading, until cancelled."""
        await self._informer.begin()
        where, watched = self.settings.namespaces, self._informer.watched
        await _first_of(
            watch(where, watched, self.told, credentials, self._held_watches.wait),
            self._informer.run(self.settings.resync_seconds),
            self._lead(),
        )

    async def _lead(self) -> None:
        await self._election.acquired()
        self.loop.ticked_at = monotonic()
        self._is_deciding = True
        await _first_of(self._election.lost(), self.loop.run())

    def _enter(self, api: Connection) -> Leadership:
        where = (self.settings.home_namespace, self.settings.lease_name)
        return Leadership(api, *where, _identity(), _lease_times(self.settings))

    def _unfit(self) -> str:
        """Why this process should not lead any more; empty: it may."""
        if not self._is_deciding:
            return ""
        age = monotonic() - self.loop.ticked_at
        longest = max(LONGEST_TICK_SECONDS, 10 * self.settings.tick_seconds)
        return f"nothing was decided for {age:.0f} s" if age > longest else ""

    def told(self, kind: Kind, event: dict[str, Any]) -> None:
        """Take what a watch told, and wake whom it concerns. Every tick looks at pods and supply anyway."""
        self.metrics.watched(kind.value, time())
        key, is_edit = self.seen.take(kind, event)
        if key is not None and kind not in (Kind.POD, Kind.QUOTA, Kind.NODE):
            (self.loop.wake if is_edit else self.loop.drifted)(key)

    def healthy(self) -> Verdict:
        """Alive: what should have happened lately has happened."""
        if unfit := self._unfit():
            return Verdict(False, unfit)
        if not self._informer.is_trusted:
            return Verdict(False, "the watches miss changes")
        return Verdict(True, self._informer.waiting_for or "alive")

    def ready(self) -> Verdict:
        """Knows all objects; decides, or stands by for whoever does."""
        if self._informer.waiting_for:
            return Verdict(False, f"waiting for {self._informer.waiting_for}")
        return Verdict(True, "leading" if self._election.is_leader else "standing by")

    def _scrape(self) -> tuple[bytes, str]:
        self.metrics.leads(self._election.is_leader)
        self.metrics.brokers(self._demand.reachable())
        return self.metrics.text(), CONTENT_TYPE


async def _first_of(*parts: Awaitable[Any]) -> None:
    """Run `parts` until one of them ends or raises, then end the others; raises what the first one raised."""
    tasks = [asyncio.ensure_future(part) for part in parts]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        others = [task for task in tasks if not task.done()]
        for task in others:
            task.cancel()
        for task in others:
            await _ended(task)
    for task in done:
        task.result()


async def _ended(task: asyncio.Task[Any]) -> None:
    """Wait until `task`, which was cancelled, has ended; what it raises instead is told, and stops nobody."""
    try:
        await task
    except asyncio.CancelledError:
        return
    except OperatorError as error:
        log.warning("Part ended", part=task.get_name(), reason=type(error).__name__, error=str(error))
    except Exception:
        log.exception("Part ended unexpectedly", part=task.get_name())


def _identity() -> str:
    return f"{os.environ.get('POD_NAME') or socket.gethostname()}_{uuid4().hex[:8]}"


def _lease_times(settings: OperatorSettings) -> LeaseTimes:
    return LeaseTimes(settings.lease_seconds, settings.lease_renew_seconds, settings.lease_retry_seconds)


def _moment() -> Moment:
    return Moment(monotonic(), datetime.now(UTC))
