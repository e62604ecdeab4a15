"""Demand, and what the members of local fleets say of themselves, in one reading a tick.

Owns the order: presence is read only from a Redis that has just answered. Never writes, and takes no silence
for idleness.
"""

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace

import redis.asyncio
from redis import exceptions as redis_errors

from astrid_operator.astrid_queue import QueueKey
from astrid_operator.brokers import BrokerAddress
from astrid_operator.claims import BrokerQueue
from astrid_operator.demand import DemandReader
from astrid_operator.presence import members_said, presence_key
from astrid_operator.process_fleet import ProcessFleet
from astrid_operator.scaling import DemandReading

#: Longest that one reading of presence may take, in seconds.
PRESENCE_SECONDS = 1.0


class LocalDemand:
    """Implements `loop.DemandSource` for a `ProcessFleet`, which it tells what its members said."""

    def __init__(self, reader: DemandReader, fleet: ProcessFleet) -> None:
        self._reader = reader
        self._fleet = fleet
        self._clients: dict[BrokerAddress, redis.asyncio.Redis] = {}

    async def read(self, wanted: Mapping[QueueKey, BrokerQueue]) -> dict[QueueKey, DemandReading]:
        """A reading for every key of `wanted`."""
        readings = await self._reader.read(wanted)
        answering = {key: claim for key, claim in wanted.items() if readings[key].demand is not None}
        for broker in {claim.broker for claim in answering.values()}:
            await self._hear(
                {key: claim for key, claim in answering.items() if claim.broker == broker}, broker
            )
        return {key: self._with_members(key, reading) for key, reading in readings.items()}

    async def close(self) -> None:
        """End every connection."""
        await self._reader.close()
        for client in self._clients.values():
            with suppress(redis_errors.RedisError, OSError):
                await client.aclose()

    async def _hear(self, claims: Mapping[QueueKey, BrokerQueue], broker: BrokerAddress) -> None:
        client = self._clients.setdefault(broker, _connect(broker))
        pipeline = client.pipeline(transaction=False)
        pipeline.time()
        for claim in claims.values():
            pipeline.hgetall(presence_key(claim.queue))
        try:
            async with asyncio.timeout(PRESENCE_SECONDS):
                time, *records = await pipeline.execute()
        except (redis_errors.RedisError, OSError):
            return
        now = time[0] + time[1] / 1e6
        for key, record in zip(claims, records, strict=True):
            self._fleet.heard(key, members_said(record, now))

    def _with_members(self, key: QueueKey, reading: DemandReading) -> DemandReading:
        if reading.demand is None:
            return reading
        return replace(reading, demand=replace(reading.demand, members=self._fleet.seen(key)))


def _connect(broker: BrokerAddress) -> "redis.asyncio.Redis":
    return redis.asyncio.from_url(
        broker.url, socket_timeout=PRESENCE_SECONDS, socket_connect_timeout=PRESENCE_SECONDS
    )
