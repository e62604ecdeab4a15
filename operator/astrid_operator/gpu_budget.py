"""How GPUs, and any other kind of device, are shared among the queues of a cluster, tick by tick.

Owns which bounds hold for whom: the quotas of a namespace for its queues, what nodes have for all. Supply is
`gpu_supply.py`'s, who gets what is `sharing.py`'s and `budget.py`'s. Asks nobody: all is known from watches.
What fails in one pool (a device in a namespace, or in the cluster) holds the fleets of that pool only.
"""

from collections.abc import Callable, Iterable

import structlog

from astrid_operator.astrid_queue import QueueKey
from astrid_operator.gpu_supply import by_quota, held_by, on_nodes
from astrid_operator.kinds import Kind
from astrid_operator.scaling import ScalingDecision
from astrid_operator.seen import Seen
from astrid_operator.sharing import Asked, SeenMembers, Sharing

log = structlog.get_logger(__name__)

#: A kind of device, and the namespace in which it is short; None: the cluster.
Pool = tuple[str, str | None]

#: Least seconds between two logs of one pool whose sharing fails unexpectedly.
BUG_TOLD_SECONDS = 60.0


class GpuBudget:
    """Implements `loop.Budget` on a cluster.

    `nodes_grow`: nodes come when pods ask for them, so that what nodes have now is no bound.
    """

    def __init__(
        self, seen: Seen, members: SeenMembers, clock: Callable[[], float], *, nodes_grow: bool = False
    ) -> None:
        self._seen = seen
        self._members = members
        self._clock = clock
        self._nodes_grow = nodes_grow
        #: Each remembers who waits.
        self._sharings: dict[Pool, Sharing] = {}
        #: What could not be read, and was said.
        self._unread: set[str] = set()
        #: When it was logged last that the sharing of a pool failed unexpectedly.
        self._bug_told_at: dict[Pool, float] = {}

    def __call__(self, asked: Asked) -> dict[QueueKey, ScalingDecision]:
        """The decisions as granted; queues without devices have all they want.

        Without those of a pool whose sharing failed: their fleets are to stay as they are.
        """
        granted = {key: decision for key, (_, _, decision) in asked.items()}
        users_of: dict[str, list[QueueKey]] = {}
        for key, (queue, _, _) in asked.items():
            if queue.spec.gpu.count:
                users_of.setdefault(queue.spec.gpu.resource_name, []).append(key)
        for resource, users in sorted(users_of.items()):
            for namespace in sorted({key.namespace for key in users}):
                there = [key for key in users if key.namespace == namespace]
                self._share_or_hold(asked, granted, there, (resource, namespace))
            self._share_or_hold(asked, granted, users, (resource, None))
        return granted

    def _share_or_hold(
        self, asked: Asked, granted: dict[QueueKey, ScalingDecision], users: Iterable[QueueKey], pool: Pool
    ) -> None:
        """Share one pool; where that fails unexpectedly nothing is granted to its users, and others go on."""
        concerned = [key for key in users if key in granted]
        try:
            self._share(asked, granted, concerned, *pool)
        except Exception:
            if self._is_to_be_told(pool):
                log.exception("Sharing failed unexpectedly", resource=pool[0], namespace=pool[1])
            for key in concerned:
                del granted[key]

    def _is_to_be_told(self, pool: Pool) -> bool:
        """The sharing of `pool` fails, and that was not logged for a while."""
        now = self._clock()
        is_late = now >= self._bug_told_at.get(pool, float("-inf")) + BUG_TOLD_SECONDS
        if is_late:
            self._bug_told_at[pool] = now
        return is_late

    def _tell_unread(self, sentence: str) -> None:
        if sentence not in self._unread:
            self._unread.add(sentence)
            log.warning("Devices not counted", trouble=sentence)

    def _share(
        self,
        asked: Asked,
        granted: dict[QueueKey, ScalingDecision],
        users: Iterable[QueueKey],
        resource: str,
        namespace: str | None,
    ) -> None:
        """Let `users` have no more together than there is, of what they were granted so far."""
        held = self._held(resource, namespace)
        supply = self._supply(resource, namespace, sum(held.values()))
        if supply is None:
            self._sharings.pop((resource, namespace), None)
            return
        wished = {key: (asked[key][0], asked[key][1], granted[key]) for key in users}
        others = {key: count for key, count in held.items() if key not in wished}
        granted |= self._sharing(resource, namespace).share(wished, supply, others)

    def _supply(self, resource: str, namespace: str | None, held: int) -> int | None:
        if namespace is not None:
            quotas = [quota for key, quota in self._seen.owned(Kind.QUOTA) if key.namespace == namespace]
            return by_quota(quotas, held, resource, self._tell_unread)
        if self._nodes_grow:
            return None
        nodes, pods = self._seen.all(Kind.NODE), self._seen.all(Kind.POD)
        return on_nodes(nodes, pods, resource, self._tell_unread)

    def _held(self, resource: str, namespace: str | None) -> dict[QueueKey, int]:
        """Devices that the pods of each AstridQueue hold, those that leave and those of deleted ones too."""
        held: dict[QueueKey, int] = {}
        for key, pod in self._seen.owned(Kind.POD):
            if namespace in (None, key.namespace):
                held[key] = held.get(key, 0) + held_by(pod, resource, self._tell_unread)
        return {key: count for key, count in held.items() if count}

    def _sharing(self, resource: str, namespace: str | None) -> Sharing:
        word = "GPU" if resource.endswith("/gpu") else f"{resource} device"
        return self._sharings.setdefault(
            (resource, namespace),
            Sharing(word, lambda queue: queue.spec.gpu.count, self._members, self._clock),
        )
