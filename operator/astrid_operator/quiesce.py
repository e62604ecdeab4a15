"""Asks worker processes in Redis to leave, and sees what they still hold.

Owns the set of processes that are asked, which forgets itself when no operator refreshes it: nobody stays
asked by one that is gone. Never decides who leaves; what processes say of themselves is read with demand.
"""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Iterable, Mapping
from typing import Any

import redis.asyncio
from redis import exceptions as redis_errors

from astrid_operator.astrid_queue import QueueKey
from astrid_operator.brokers import BrokerAddress
from astrid_operator.claims import BrokerQueue
from astrid_operator.dramatiq_keys import DramatiqQueue
from astrid_operator.errors import NotAsked
from astrid_operator.redis_connection import connection, leave, trouble_of
from astrid_operator.servers import Servers

#: Longest that one command may take, and that a tick waits for who is asked, in seconds.
PATIENCE_SECONDS = 1.0
TICK_PATIENCE_SECONDS = 0.3
#: Seconds after which a request to leave is void unless it is repeated.
ASKED_SECONDS = 60


class Conversation:
    """Speaks with the processes of all queues, each on the broker that `know` was told last."""

    def __init__(self) -> None:
        self._clients = Servers(_client, leave)
        self._claims: dict[QueueKey, BrokerQueue] = {}

    def know(self, claims: Mapping[QueueKey, BrokerQueue]) -> None:
        """Where each queue is to be found; connections to anywhere else end."""
        self._claims = dict(claims)
        self._clients.keep({claim.broker for claim in claims.values()})

    async def asked(self, keys: Iterable[QueueKey]) -> dict[QueueKey, frozenset[str]]:
        """Processes of each queue that are asked to leave; what does not answer is left out."""
        by_broker: defaultdict[BrokerAddress, dict[QueueKey, DramatiqQueue]] = defaultdict(dict)
        for key in keys:
            claim = self._claim(key)
            by_broker[claim.broker][key] = claim.queue
        answers = await asyncio.gather(*(self._asked(*each) for each in by_broker.items()))
        return {key: names for answer in answers for key, names in answer.items()}

    async def ask(self, key: QueueKey, processes: Iterable[str]) -> None:
        """Ask `processes` to leave, and go on asking whoever was asked before; raises NotAsked."""
        claim, named = self._claim(key), tuple(processes)
        pipeline = self._clients.of(claim.broker).pipeline(transaction=False)
        if named:
            pipeline.sadd(claim.queue.drain, *named)
        pipeline.expire(claim.queue.drain, ASKED_SECONDS)
        await _tried(claim.broker, pipeline.execute())

    async def release(self, key: QueueKey, processes: Iterable[str]) -> None:
        """Let `processes` stay after all, be it none; raises NotAsked."""
        claim, named = self._claim(key), tuple(processes)
        if named:
            await _tried(claim.broker, self._clients.of(claim.broker).srem(claim.queue.drain, *named))

    async def held_by(self, key: QueueKey, broker_ids: Iterable[str]) -> dict[str, int]:
        """Messages that each process holds by Redis's own account, delayed ones too; raises NotAsked."""
        claim, ids = self._claim(key), tuple(broker_ids)
        pipeline = self._clients.of(claim.broker).pipeline(transaction=False)
        for broker_id in ids:
            for acks in claim.queue.acks_of(broker_id):
                pipeline.scard(acks)
        counts = await _tried(claim.broker, pipeline.execute()) if ids else []
        return {name: counts[2 * at] + counts[2 * at + 1] for at, name in enumerate(ids)}

    async def close(self) -> None:
        """End every connection."""
        await self._clients.close()

    async def _asked(
        self, broker: BrokerAddress, queues: Mapping[QueueKey, DramatiqQueue]
    ) -> dict[QueueKey, frozenset[str]]:
        pipeline = self._clients.of(broker).pipeline(transaction=False)
        for queue in queues.values():
            pipeline.smembers(queue.drain)
        try:
            answers = await _tried(broker, pipeline.execute(), TICK_PATIENCE_SECONDS)
        except NotAsked:
            return {}
        return {
            key: frozenset(name.decode() for name in names)
            for key, names in zip(queues, answers, strict=True)
        }

    def _claim(self, key: QueueKey) -> BrokerQueue:
        if key not in self._claims:
            message = f"the broker of {key} is not known yet"
            raise NotAsked(message)
        return self._claims[key]


def _client(broker: BrokerAddress) -> "redis.asyncio.Redis":
    return connection(broker.url, timeout_seconds=PATIENCE_SECONDS, name="astrid-operator-requests")


async def _tried(broker: BrokerAddress, call: Awaitable[Any], seconds: float = PATIENCE_SECONDS) -> Any:
    try:
        async with asyncio.timeout(seconds):
            return await call
    except (redis_errors.RedisError, OSError) as error:
        message = f"Redis {broker}: {trouble_of(error)}"
        raise NotAsked(message) from error
