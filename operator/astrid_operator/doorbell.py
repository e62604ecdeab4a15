"""Whether a message has come to a queue that sleeps, asked between two ticks.

Owns one question to each broker, some times a second: do any of these queues hold a message now? Reads no
number and decides nothing: the tick that follows reads and decides as every tick does. Nobody waits for a
broker that does not answer; it is asked again after the next tick.
"""

import asyncio
from collections import defaultdict
from collections.abc import Iterable
from contextlib import suppress

import redis.asyncio
import structlog
from redis import exceptions as redis_errors

from astrid_operator.brokers import BrokerAddress
from astrid_operator.claims import BrokerQueue
from astrid_operator.redis_connection import connection, disconnect

log = structlog.get_logger(__name__)

#: Seconds between two questions to one broker.
LOOK_SECONDS = 0.2
#: Longest that an answer may take, in seconds.
PATIENCE_SECONDS = 1.0


class Doorbell:
    """Listens to all brokers at a time, each by itself. Not thread-safe: one event loop uses it."""

    def __init__(self) -> None:
        self._clients: dict[BrokerAddress, redis.asyncio.Redis] = {}
        #: What is there as long as a queue holds a message, of all that sleep.
        self._bodies: dict[BrokerAddress, list[str]] = {}
        self._listening: dict[BrokerAddress, asyncio.Task[None]] = {}
        self._rung = asyncio.Event()
        #: Brokers of which an error that nobody foresaw was logged.
        self._told: set[BrokerAddress] = set()

    def listen(self, asleep: Iterable[BrokerQueue]) -> None:
        """Listen for messages of these queues from now on, which held none, and of no other."""
        self._rung.clear()
        bodies: defaultdict[BrokerAddress, list[str]] = defaultdict(list)
        for each in asleep:
            bodies[each.broker].append(each.queue.bodies)
        self._bodies = dict(bodies)
        self._listening = {broker: task for broker, task in self._listening.items() if not task.done()}
        for broker in bodies.keys() - self._listening.keys():
            task = asyncio.create_task(self._listen(broker), name=f"listen to {broker}")
            self._listening[broker] = task

    async def rung(self) -> None:
        """Return once a message has come to one of them."""
        await self._rung.wait()

    async def close(self) -> None:
        """End every question and connection."""
        for task in self._listening.values():
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        for broker in list(self._clients):
            await self._drop_client(broker)

    async def _listen(self, broker: BrokerAddress) -> None:
        """Ask until a queue holds a message or none sleeps. What fails is told by who reads the numbers."""
        try:
            await asyncio.sleep(LOOK_SECONDS)
            while bodies := self._bodies.get(broker):
                found = await self._client(broker).exists(*bodies)
                if found and bodies is self._bodies.get(broker):
                    self._rung.set()
                    return
                await asyncio.sleep(LOOK_SECONDS)
        except (redis_errors.RedisError, OSError, ValueError):
            pass
        except Exception:  # nobody waits for the task, and the next tick listens again
            if broker not in self._told:
                log.exception("Not listened to Redis", broker=str(broker))
                self._told.add(broker)
        await self._drop_client(broker)

    def _client(self, broker: BrokerAddress) -> "redis.asyncio.Redis":
        if broker not in self._clients:
            self._clients[broker] = connection(
                broker.url, timeout_seconds=PATIENCE_SECONDS, name="astrid-operator-doorbell"
            )
        return self._clients[broker]

    async def _drop_client(self, broker: BrokerAddress) -> None:
        """Close the connection, whose state is not known."""
        if (client := self._clients.pop(broker, None)) is not None:
            with suppress(TimeoutError):
                async with asyncio.timeout(PATIENCE_SECONDS):
                    await disconnect(client)
