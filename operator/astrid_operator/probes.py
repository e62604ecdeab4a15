"""Serves `/metrics`, `/healthz` and `/readyz` over HTTP.

Owns two listening sockets. Judges nothing: what is healthy is asked of whoever knows.
"""

from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass

from aiohttp import web


@dataclass(frozen=True, slots=True)
class Verdict:
    """An answer to a probe."""

    is_good: bool
    sentence: str


class Probes:
    """The two servers, as an asynchronous context."""

    def __init__(
        self,
        address: str,
        *,
        metrics_port: int,
        probes_port: int,
        metrics: Callable[[], tuple[bytes, str]],
        healthy: Callable[[], Verdict],
        ready: Callable[[], Verdict],
    ) -> None:
        self._address = address
        self._ports = (metrics_port, probes_port)
        self._metrics = metrics
        self._healthy = healthy
        self._ready = ready
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> "Probes":
        metrics, probes = web.Application(), web.Application()
        metrics.router.add_get("/metrics", self._serve_metrics)
        probes.router.add_get("/healthz", self._serve_health)
        probes.router.add_get("/readyz", self._serve_readiness)
        for port, application in zip(self._ports, (metrics, probes), strict=True):
            await self._listen(application, port)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def _listen(self, application: web.Application, port: int) -> None:
        runner = web.AppRunner(application, access_log=None, handle_signals=False, shutdown_timeout=1.0)
        await runner.setup()
        self._stack.push_async_callback(runner.cleanup)
        await web.TCPSite(runner, self._address, port).start()

    async def _serve_metrics(self, _: web.Request) -> web.Response:
        body, content_type = self._metrics()
        return web.Response(body=body, headers={"Content-Type": content_type})

    async def _serve_health(self, _: web.Request) -> web.Response:
        return _answer(self._healthy())

    async def _serve_readiness(self, _: web.Request) -> web.Response:
        return _answer(self._ready())


def _answer(verdict: Verdict) -> web.Response:
    return web.Response(status=200 if verdict.is_good else 503, text=f"{verdict.sentence}\n")
