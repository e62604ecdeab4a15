"""The handlers that kopf calls: each puts what a watch told where the loop finds it.

The only module with kopf decorators. Handlers decide nothing, ask nobody and write nothing; there are none
for create, update or delete, no timers and no daemons, so that kopf leaves no annotation and no finalizer.
"""

import asyncio
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any

import kopf
import structlog

from astrid_operator.errors import WatchesEnded
from astrid_operator.kinds import LABELLED, QUEUE_LABEL, Kind
from astrid_operator.kubernetes_connection import Credentials
from astrid_operator.kubernetes_requests import RESOURCES

log = structlog.get_logger(__name__)

#: Seconds after which the server ends a watch, which is then begun anew: no stream can be dead for longer.
WATCH_SECONDS = 600

#: Seconds for which kopf keeps a task for an object of which nothing more is told: a burst is of thousands.
IDLE_SECONDS = 1.0

#: Events that the deciding loop takes in one go: answers to what it writes are read in between.
AT_ONE_GO = 25

#: Seconds that the watches get to end.
STOP_SECONDS = 5.0


#: Takes one watch event of a kind.
Told = Callable[[Kind, dict[str, Any]], None]
Login = Callable[[], Awaitable[Credentials]]


async def watch(
    namespaces: Sequence[str], watched: Iterable[Kind], told: Told, login: Login, wait: Callable[[], None]
) -> None:
    """Watch until cancelled, and call `told` in the caller's event loop; raises what ended the watches.

    A kind of `watched` that may not be watched ends them all.

    What fails while they are stopped ends nothing any more: it is logged.
    kopf gets a thread and an event loop of its own: when it ends, it cancels every task it finds in its loop.
    `wait` is called in that thread before an event is handed on: as long as it blocks, no watch is read.
    """
    loop, stop, ended = asyncio.get_running_loop(), threading.Event(), asyncio.Event()
    failures: list[Exception] = []
    across = Across(loop, told)

    def forward(kind: Kind, event: dict[str, Any]) -> None:
        wait()
        across.send(kind, event)

    def run() -> None:
        try:
            asyncio.run(_operator(namespaces, registry(forward, login, watched), stop))
        except Exception as error:  # noqa: BLE001 - raised again where somebody waits for it
            failures.append(error)
        with suppress(RuntimeError):  # the loop has been closed meanwhile
            loop.call_soon_threadsafe(ended.set)

    threading.Thread(target=run, name="kopf", daemon=True).start()
    try:
        await ended.wait()
    except asyncio.CancelledError:
        stop.set()
        with suppress(TimeoutError):
            await asyncio.wait_for(ended.wait(), STOP_SECONDS)
        for failure in failures:
            log.exception("Watches failed while they were stopped", exc_info=failure)
        raise
    message = "the watches ended"
    raise WatchesEnded(message) from (failures[0] if failures else None)


class Across:
    """Events from the thread of the watches to the event loop in which `told` takes them.

    The loop is woken for the first of those that wait, not for each: waking it is a message through the
    kernel, and took as much as all else that an event cost the thread.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, told: Told) -> None:
        self._loop = loop
        self._told = told
        self._waiting: deque[tuple[Kind, dict[str, Any]]] = deque()

    def send(self, kind: Kind, event: dict[str, Any]) -> None:
        """Hand on one event; in the thread of the watches."""
        self._waiting.append((kind, event))
        if len(self._waiting) == 1:
            with suppress(RuntimeError):  # the loop has been closed meanwhile
                self._loop.call_soon_threadsafe(self._take)

    def _take(self) -> None:
        """Take some; the others after what else waits in the loop, also where taking one failed."""
        try:
            for _ in range(min(AT_ONE_GO, len(self._waiting))):
                self._told(*self._waiting.popleft())
        finally:
            if self._waiting:
                self._loop.call_soon(self._take)


async def _operator(namespaces: Sequence[str], found: kopf.OperatorRegistry, stop: threading.Event) -> None:
    def failed(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """At the end kopf's generators complain when they are closed; before, everything is worth a line."""
        if not stop.is_set():
            loop.default_exception_handler(context)

    asyncio.get_running_loop().set_exception_handler(failed)
    await kopf.operator(
        registry=found,
        settings=settings(namespaces),
        namespaces=namespaces,
        clusterwide=not namespaces,
        standalone=True,
        # Without it kopf asks for the user's name, which the numeric user of a container need not have.
        identity="astrid-operator",  # type: ignore[arg-type] # kopf keeps its NewType to itself
        stop_flag=stop,
    )


def registry(told: Told, login: Login, watched: Iterable[Kind]) -> kopf.OperatorRegistry:
    """Handlers for the kinds that are watched."""
    found = kopf.OperatorRegistry()

    @kopf.on.login(registry=found)
    async def _login(**_: Any) -> kopf.ConnectionInfo:
        return _connection(await login())

    def _watch(kind: Kind) -> None:
        @kopf.on.event(*_place(kind), id=kind.value, registry=found)
        async def _told(*, event: Any, **_: Any) -> None:
            told(kind, dict(event))

    for each in watched:
        _watch(each)
    return found


def settings(namespaces: Sequence[str]) -> kopf.OperatorSettings:
    """kopf as informer and nothing else."""
    found = kopf.OperatorSettings()
    found.posting.enabled = False
    found.peering.standalone = True
    found.scanning.disabled = bool(namespaces)
    found.watching.server_timeout = WATCH_SECONDS
    found.watching.connect_timeout = 10
    found.networking.request_timeout = 60
    found.process.ultimate_exiting_timeout = 20
    found.persistence.diffbase_storage = _NoComparison([])
    found.persistence.progress_storage = kopf.MultiProgressStorage([])
    found.queueing.idle_timeout = IDLE_SECONDS
    for kind in LABELLED:
        found.watching.label_selectors[_place(kind)] = QUEUE_LABEL
    return found


def _place(kind: Kind) -> tuple[str, str, str]:
    resource = RESOURCES[kind]
    return resource.group, resource.version, resource.plural


class _NoComparison(kopf.MultiDiffBaseStorage):
    """Nobody here asks kopf what changed: without this it copies each object three times for every event."""

    def build(self, **_: Any) -> kopf.BodyEssence:
        return kopf.BodyEssence()


def _connection(credentials: Credentials) -> kopf.ConnectionInfo:
    scheme, _, token = (credentials.authorization or "").rpartition(" ")
    return kopf.ConnectionInfo(
        server=credentials.server,
        ca_path=credentials.ca_path,
        ca_data=credentials.ca_data,
        insecure=credentials.insecure,
        certificate_path=credentials.certificate_path,
        private_key_path=credentials.private_key_path,
        scheme=scheme or None,
        token=token or None,
    )
