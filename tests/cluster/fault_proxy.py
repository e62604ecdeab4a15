"""A proxy between an operator and the API server that answers some requests by itself, or not at all.

Owns a port of the loopback interface, an event loop in a thread, and the faults that a test sets. What no fault
takes is passed on as it is, watches line by line; it decides nothing and remembers only what it refused.
"""

import asyncio
import json
import re
import ssl
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from cluster.control_plane import HOST, ControlPlane

_HOP_BY_HOP = frozenset({"connection", "content-length", "content-encoding", "host", "transfer-encoding"})


@dataclass
class Fault:
    """An answer in place of the API server's for the next `times` requests that `method` and `path` (a regular
    expression) match. `path` sees the query too; watches carry `watch=true`.
    """

    method: str
    path: str
    status: int
    times: int
    headers: Mapping[str, str] = field(default_factory=dict)
    #: Requests that were answered so.
    answered: int = 0

    def takes(self, method: str, path: str) -> bool:
        return self.answered < self.times and method == self.method and bool(re.search(self.path, path))

    def document(self) -> dict[str, Any]:
        return {
            "kind": "Status",
            "apiVersion": "v1",
            "status": "Failure",
            "code": self.status,
            "reason": {409: "Conflict", 410: "Expired", 429: "TooManyRequests"}.get(self.status, "Broken"),
            "message": f"made up by a test: {self.status}",
        }


class FaultProxy:
    """A way to `plane` with faults in it. Usable as a context manager."""

    def __init__(self, plane: ControlPlane) -> None:
        self._plane = plane
        self.faults: list[Fault] = []
        self._watches_flow = asyncio.Event()
        self._watches_flow.set()
        #: Watches that stand with no byte passing.
        self.held_watches = 0
        self._streams: set[asyncio.Task[Any]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fault proxy", daemon=True)
        self._thread.start()
        self.port: int = asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(20)

    def __enter__(self) -> "FaultProxy":
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(20)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def kubeconfig(self, path: Path) -> Path:
        """A kubeconfig of whoever comes this way; he has the administrator's rights."""
        context = {"cluster": "faulty", "user": "user", "namespace": "default"}
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "faulty",
            "clusters": [{"name": "faulty", "cluster": {"server": f"http://{HOST}:{self.port}"}}],
            "users": [{"name": "user", "user": {}}],
            "contexts": [{"name": "faulty", "context": context}],
        }
        path.write_text(json.dumps(document))
        return path

    def answer(
        self, method: str, path: str, status: int, times: int, headers: Mapping[str, str] | None = None
    ) -> Fault:
        """Answer the next `times` such requests with `status`; the fault tells how many came."""
        fault = Fault(method, path, status, times, headers or {})
        self.faults.append(fault)
        return fault

    def hold_watches(self) -> None:
        """From now on no watch, present or new, gives a byte; none is closed either."""
        self._loop.call_soon_threadsafe(self._watches_flow.clear)

    def let_watches_go(self) -> None:
        """What was held is passed on."""
        self._loop.call_soon_threadsafe(self._watches_flow.set)

    def end_watches(self) -> None:
        """Break every watch that stands now, with what it held; new ones flow."""
        self._loop.call_soon_threadsafe(self._end_watches)

    @property
    def watches(self) -> int:
        """Watches that stand now."""
        return len(self._streams)

    # ------------------------------------------------------------------ in the thread

    def _end_watches(self) -> None:
        for task in tuple(self._streams):
            task.cancel()
        self._watches_flow.set()

    async def _start(self) -> int:
        keys = self._plane.keys
        tls = ssl.create_default_context(cafile=str(keys / "ca.crt"))
        tls.load_cert_chain(keys / "admin.crt", keys / "admin.key")
        connector = aiohttp.TCPConnector(limit=0, ssl=tls)
        timeout = aiohttp.ClientTimeout(total=None)
        self._client = aiohttp.ClientSession(connector=connector, timeout=timeout, read_bufsize=2**21)
        app = web.Application(client_max_size=2**24)
        app.router.add_route("*", "/{path:.*}", self._pass_on)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, HOST, 0).start()
        return int(self._runner.addresses[0][1])

    async def _close(self) -> None:
        self._watches_flow.set()
        await self._client.close()
        await self._runner.cleanup()

    async def _pass_on(self, request: web.Request) -> web.StreamResponse:
        is_watch = request.query.get("watch") in ("1", "true")
        fault = next((each for each in self.faults if each.takes(request.method, request.path_qs)), None)
        if fault is not None:
            fault.answered += 1
            if is_watch and fault.status == 410:
                return _expired(fault)
            return web.json_response(fault.document(), status=fault.status, headers=fault.headers)
        headers = {name: value for name, value in request.headers.items() if name.lower() not in _HOP_BY_HOP}
        # Without a body there is to be no content type either: discovery refuses one that it does not know.
        url, body = f"{self._plane.server}{request.path_qs}", await request.read() or None
        async with self._client.request(request.method, url, data=body, headers=headers) as answer:
            kept = {name: value for name, value in answer.headers.items() if name.lower() not in _HOP_BY_HOP}
            if not is_watch:
                return web.Response(body=await answer.read(), status=answer.status, headers=kept)
            return await self._stream(request, answer, kept)

    async def _stream(
        self, request: web.Request, answer: aiohttp.ClientResponse, headers: Mapping[str, str]
    ) -> web.StreamResponse:
        passed = web.StreamResponse(status=answer.status, headers=headers)
        await passed.prepare(request)
        task = asyncio.current_task()
        assert task is not None
        self._streams.add(task)
        try:
            async for line in answer.content:
                await self._wait_for_flow()
                await passed.write(line)
        finally:
            self._streams.discard(task)
        return passed

    async def _wait_for_flow(self) -> None:
        if self._watches_flow.is_set():
            return
        self.held_watches += 1
        try:
            await self._watches_flow.wait()
        finally:
            self.held_watches -= 1


def _expired(fault: Fault) -> web.Response:
    """A watch is answered, and the first thing in it is that its version is too old."""
    line = json.dumps({"type": "ERROR", "object": fault.document()}) + "\n"
    return web.Response(body=line, content_type="application/json")
