"""One connection of the operator to a broker, for scripts and single commands.

Owns when the connection is made and given up, how long one answer is waited for, and that a script is sent by
its digest, whole only where the server does not know it. Translates no error and tries nothing again.
"""

import asyncio
import hashlib
from collections.abc import Sequence
from typing import Any

import redis.asyncio
from redis import exceptions as redis_errors

from astrid_operator.redis_connection import connection, leave


class RedisCalls:
    """Calls to the broker at `url`; the connection, called `name` there, is made by the first of them.

    A call raises redis-py's errors, TimeoutError after `timeout_seconds`, and ValueError where `url` is no
    address. After any of them the state of the connection is not known: `drop` it.
    """

    def __init__(self, url: str, *, timeout_seconds: float, name: str) -> None:
        self._url = url
        self._timeout_seconds = timeout_seconds
        self._name = name
        self._client: redis.asyncio.Redis | None = None

    async def run(self, script: str, keys: Sequence[str], *arguments: Any) -> Any:
        """What `script` answers."""
        sha = hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest()
        try:
            return await self.call("EVALSHA", sha, len(keys), *keys, *arguments)
        except redis_errors.NoScriptError:
            return await self.call("EVAL", script, len(keys), *keys, *arguments)

    async def call(self, *words: Any) -> Any:
        """What one command answers."""
        if self._client is None:
            self._client = connection(self._url, timeout_seconds=self._timeout_seconds, name=self._name)
        async with asyncio.timeout(self._timeout_seconds):
            return await self._client.execute_command(*words)  # type: ignore[no-untyped-call]

    async def drop(self) -> None:
        """End the connection, whatever state it is in; the next call makes a new one."""
        client, self._client = self._client, None
        if client is not None:
            await leave(client)
