"""Scenarios that run in an event loop of their own, with something that must be closed afterwards."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Protocol, TypeVar


class Closable(Protocol):
    """Whatever has connections."""

    async def close(self) -> None: ...


C = TypeVar("C", bound=Closable)


def play_with(make: Callable[[], C], scenario: Callable[[C], Awaitable[Any]]) -> Any:
    """What `scenario` returns of what `make` makes within the loop."""

    async def go() -> Any:
        made = make()
        try:
            return await scenario(made)
        finally:
            await made.close()

    return asyncio.run(go())
