"""Which AstridQueue serves a Dramatiq queue where several ask for it.

The oldest keeps it, whatever order they were seen in and however their addresses are spelled. Asks no Redis:
two names of one host are two servers here.
"""

from collections import defaultdict
from collections.abc import Mapping
from typing import NamedTuple

from astrid_operator.astrid_queue import AstridQueue, QueueKey
from astrid_operator.brokers import BrokerAddress, Brokers
from astrid_operator.dramatiq_keys import DramatiqQueue
from astrid_operator.errors import BrokerNotConfigured, PersonMustAct, QueueTaken
from astrid_operator.redis_connection import Place


class BrokerQueue(NamedTuple):
    """One Dramatiq queue on one Redis."""

    broker: BrokerAddress
    queue: DramatiqQueue


def claims(
    queues: Mapping[QueueKey, AstridQueue], brokers: Brokers
) -> tuple[dict[QueueKey, BrokerQueue], dict[QueueKey, PersonMustAct]]:
    """What each AstridQueue reads, and why others read nothing: no broker, or an older one has the queue."""
    granted: dict[QueueKey, BrokerQueue] = {}
    refused: dict[QueueKey, PersonMustAct] = {}
    owners: dict[tuple[Place, DramatiqQueue], QueueKey] = {}
    for queue in sorted(queues.values(), key=_age):
        try:
            claim = claim_of(queue, brokers)
        except BrokerNotConfigured as error:
            refused[queue.key] = error
            continue
        found = [(place, claim.queue) for place in sorted(claim.broker.places)]
        owner = next((owners[each] for each in found if each in owners), None)
        if owner is None:
            owners.update(dict.fromkeys(found, queue.key))
            granted[queue.key] = claim
        else:
            refused[queue.key] = QueueTaken(queue.spec.queue_name, str(owner))
    return granted, refused


def by_broker(
    claims: Mapping[QueueKey, BrokerQueue],
) -> dict[BrokerAddress, dict[DramatiqQueue, QueueKey]]:
    """Whose each queue is, server by server."""
    found: defaultdict[BrokerAddress, dict[DramatiqQueue, QueueKey]] = defaultdict(dict)
    for key, claim in claims.items():
        found[claim.broker][claim.queue] = key
    return dict(found)


def claim_of(queue: AstridQueue, brokers: Brokers) -> BrokerQueue:
    """The Dramatiq queue that `queue` means; raises BrokerNotConfigured."""
    broker = queue.spec.broker
    address = brokers.address(queue.key.namespace, broker.secret_name, broker.secret_key)
    return BrokerQueue(address, DramatiqQueue(broker.namespace, queue.spec.queue_name))


def _age(queue: AstridQueue) -> tuple[str, QueueKey]:
    """Oldest first; of those made in the same second, by name."""
    return queue.created_at, queue.key
