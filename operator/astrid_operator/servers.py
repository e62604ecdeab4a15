"""One of something for each broker, as long as anybody names that broker.

Owns that what belongs to an address which nobody names any more ends, as after a new password, and that
nobody waits for it. Knows nothing of what it holds but how it is made and ended.
"""

import asyncio
from collections.abc import Callable, Collection, Coroutine, ItemsView, ValuesView
from typing import Any, Generic, TypeVar

from astrid_operator.brokers import BrokerAddress

S = TypeVar("S")


class Servers(Generic[S]):
    """What `make` makes for a broker, until `end` ends it."""

    def __init__(
        self, make: Callable[[BrokerAddress], S], end: Callable[[S], Coroutine[Any, Any, None]]
    ) -> None:
        self._make = make
        self._end = end
        self._there: dict[BrokerAddress, S] = {}
        #: Ends that are under way; held here, since the event loop itself would forget them.
        self._ending: set[asyncio.Task[None]] = set()

    def of(self, broker: BrokerAddress) -> S:
        """That of `broker`, made where there is none."""
        if broker not in self._there:
            self._there[broker] = self._make(broker)
        return self._there[broker]

    def get(self, broker: BrokerAddress) -> S | None:
        """That of `broker`, if there is one."""
        return self._there.get(broker)

    def items(self) -> ItemsView[BrokerAddress, S]:
        return self._there.items()

    def values(self) -> ValuesView[S]:
        return self._there.values()

    def keep(self, brokers: Collection[BrokerAddress]) -> None:
        """Begin to end those of all others."""
        for broker in self._there.keys() - set(brokers):
            ending = asyncio.create_task(self._end(self._there.pop(broker)), name=f"leave {broker}")
            self._ending.add(ending)
            ending.add_done_callback(self._ending.discard)

    async def close(self) -> None:
        """End all."""
        self.keep(())
        if self._ending:
            await asyncio.wait(self._ending)
