"""Demand, and what the members of each fleet say of themselves, in one reading a tick.

Owns who hears what: a fleet is told what its members said, and which of them are asked to leave where one of
them says that it has stopped. Never writes, and takes no silence for idleness.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Protocol

from astrid_operator.astrid_queue import QueueKey
from astrid_operator.claims import BrokerQueue
from astrid_operator.presence import MemberSaid
from astrid_operator.scaling import DemandReading, MembersSeen


class DemandSource(Protocol):
    """Where demand itself is read; `demand.DemandReader` is one."""

    async def read(self, wanted: Mapping[QueueKey, BrokerQueue]) -> Mapping[QueueKey, DemandReading]: ...


class Listener(Protocol):
    """A fleet that knows its members by name."""

    def heard(self, key: QueueKey, said: Mapping[str, MemberSaid] | None) -> None:
        """Take in what the members of a queue said; None: nobody could be heard."""

    def seen(self, key: QueueKey, running: int) -> MembersSeen | None:
        """What they do, where each can be asked to leave; `running` messages are held by somebody."""


class Requests(Protocol):
    """Where requests to leave stand; `quiesce.Conversation` is one."""

    def know(self, claims: Mapping[QueueKey, BrokerQueue]) -> None: ...

    async def asked(self, keys: Iterable[QueueKey]) -> Mapping[QueueKey, frozenset[str]]: ...


class AskedListener(Listener, Protocol):
    """A fleet whose members are asked to leave by name."""

    def asks(self, key: QueueKey) -> bool:
        """Somebody of the queue may have been asked."""

    def heard_asked(self, key: QueueKey, processes: frozenset[str]) -> None:
        """Take in whose processes are asked to leave."""


class MemberDemand:
    """Implements `loop.DemandSource` for a fleet, which it tells what its members said."""

    def __init__(self, demand: DemandSource, fleet: Listener) -> None:
        self._demand = demand
        self._fleet = fleet

    async def read(self, wanted: Mapping[QueueKey, BrokerQueue]) -> dict[QueueKey, DemandReading]:
        """A reading for every key of `wanted`."""
        readings = await self._demand.read(wanted)
        for key in wanted:
            self._fleet.heard(key, readings[key].said)
        return {key: self._with_members(key, reading) for key, reading in readings.items()}

    def _with_members(self, key: QueueKey, reading: DemandReading) -> DemandReading:
        if reading.demand is None:
            return reading
        seen = self._fleet.seen(key, reading.demand.running)
        if seen == reading.demand.members:
            return reading
        return replace(reading, demand=replace(reading.demand, members=seen))


class AskedMemberDemand(MemberDemand):
    """The same for a fleet whose members are asked by name."""

    def __init__(self, demand: DemandSource, fleet: AskedListener, requests: Requests) -> None:
        super().__init__(demand, fleet)
        self._asked_fleet = fleet
        self._requests = requests

    async def read(self, wanted: Mapping[QueueKey, BrokerQueue]) -> dict[QueueKey, DemandReading]:
        """A reading for every key of `wanted`."""
        self._requests.know(wanted)
        readings = await super().read(wanted)
        asking = [key for key in wanted if self._asked_fleet.asks(key)]
        for key, processes in (await self._requests.asked(asking)).items():
            self._asked_fleet.heard_asked(key, processes)
        return readings
