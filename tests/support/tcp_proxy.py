"""A way to a server that can be slow or shut: what stands between an operator and its Redis in tests and benchmarks.

Owns a port of the loopback interface and an event loop in a thread. Passes bytes on as they are, answers late
by `delay_s`; shut, it refuses connections and has none. Knows nothing of what passes.
"""

import asyncio
import contextlib
import threading
from collections.abc import Coroutine
from typing import Any

from support.redis_server import free_port

HOST = "127.0.0.1"


class TcpProxy:
    """A port in front of `server_port`. Usable as a context manager; open from then on."""

    def __init__(self, server_port: int, *, delay_s: float = 0.0) -> None:
        self.port = free_port()
        self._to, self._delay_s = server_port, delay_s
        self._listening: asyncio.Server | None = None
        self._passing: set[asyncio.Task[Any]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="tcp proxy", daemon=True)

    def __enter__(self) -> "TcpProxy":
        self._thread.start()
        self.open()
        return self

    def __exit__(self, *_: object) -> None:
        self.shut()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def url(self) -> str:
        """The first database of the server, by this way."""
        return f"redis://{HOST}:{self.port}/0"

    def open(self) -> None:
        """Let connections in."""
        self._do(self._open())

    def shut(self) -> None:
        """Refuse connections, and break those that stand."""
        self._do(self._shut())

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(20)

    async def _open(self) -> None:
        self._listening = await asyncio.start_server(self._pass, HOST, self.port)

    async def _shut(self) -> None:
        if self._listening is not None:
            self._listening.close()
        tasks = tuple(self._passing)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._passing.add(task)
        try:
            their_reader, their_writer = await asyncio.open_connection(HOST, self._to)
            with contextlib.closing(their_writer):
                both = (_copy(reader, their_writer, 0.0), _copy(their_reader, writer, self._delay_s))
                await asyncio.gather(*both)
        except (OSError, asyncio.CancelledError):
            pass  # one of the two ends is gone, or we are shut: so is this connection
        finally:
            writer.close()
            self._passing.discard(task)


async def _copy(source: asyncio.StreamReader, target: asyncio.StreamWriter, delay_s: float) -> None:
    """Pass on what comes, each piece `delay_s` after it came; the end too."""
    while data := await source.read(65536):
        if delay_s:
            await asyncio.sleep(delay_s)  # the fault itself
        target.write(data)
        await target.drain()
    target.close()
