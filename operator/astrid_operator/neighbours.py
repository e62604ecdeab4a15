"""Whom the deciding loop talks to, as far as it must know them.

Owns the protocols that a cluster, one machine and a test fill in differently. Does nothing itself.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Protocol

from astrid_operator.astrid_queue import AstridQueue, QueueKey
from astrid_operator.brokers import BrokerAddress
from astrid_operator.claims import BrokerQueue
from astrid_operator.fleet import FleetState
from astrid_operator.orphans import Reclaimed
from astrid_operator.reconcile import Gathered
from astrid_operator.scaling import DemandReading, ScalingDecision


class DemandSource(Protocol):
    """Where demand is read; `demand.DemandReader` is one."""

    async def read(self, wanted: Mapping[QueueKey, BrokerQueue]) -> Mapping[QueueKey, DemandReading]: ...


class Recoverer(Protocol):
    """Who gives back what processes that are gone had fetched; `recovery.Recovery` is one."""

    def begin(self, claims: Mapping[QueueKey, BrokerQueue]) -> None: ...

    def keep(self, brokers: Collection[BrokerAddress]) -> None: ...

    def orphans(self, claim: BrokerQueue) -> int | None: ...

    def take(self) -> Sequence[tuple[QueueKey, Reclaimed]]: ...


class Promoter(Protocol):
    """Who moves messages that are due and that nobody holds; `promotion.Promotion` is one."""

    def begin(self, claims: Mapping[QueueKey, BrokerQueue]) -> None: ...

    def keep(self, brokers: Collection[BrokerAddress]) -> None: ...

    def take(self) -> Sequence[tuple[QueueKey, int]]: ...


class Bell(Protocol):
    """Who notices between two ticks that a queue without messages has one; `doorbell.Doorbell` is one."""

    def listen(self, asleep: Iterable[BrokerQueue]) -> None: ...

    async def rung(self) -> None: ...


class Observer(Protocol):
    """Who counts what the loop does; `metrics.Metrics` is one."""

    def saw(self, gathered: Gathered, decision: ScalingDecision | None) -> None: ...

    def scaled(self, key: QueueKey, decision: ScalingDecision, was: int) -> None: ...

    def reclaimed(self, key: QueueKey, messages: int) -> None: ...

    def promoted(self, key: QueueKey, messages: int) -> None: ...

    def reconciled(self, result: str, seconds: float) -> None: ...

    def ticked(self, seconds: float, waiting: int) -> None: ...

    def forgot(self, key: QueueKey) -> None: ...


Asked = Mapping[QueueKey, tuple[AstridQueue, FleetState, ScalingDecision]]

#: Shares what is short among all: what was decided for each, to what it is granted. Whoever is missing
#: there keeps the fleet that it has.
Budget = Callable[[Asked], Mapping[QueueKey, ScalingDecision]]


def unlimited(asked: Asked) -> Mapping[QueueKey, ScalingDecision]:
    """The budget of a place where nothing is short: everybody gets what was decided."""
    return {key: decision for key, (_, _, decision) in asked.items()}
