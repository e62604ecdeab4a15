"""Messages of processes that are gone come back, without luck and from zero too.

Owns the one thing that the operator does to Dramatiq's keys by itself: what a dead process had fetched goes
back to its queue, in one step on the server, a bounded number at a time. Dramatiq does the same by chance,
when another process happens to ask; here it is looked for every few seconds. Never takes from one that may
live:

- its presence must not beat (workers that carry Astrid's middleware beat every two seconds);
- its heartbeat must have been seen unchanged for a minute; no clock but the operator's monotonic one counts,
  and no minute in which Redis was not read;
- one that never said anything but heartbeats and holds delayed messages in plenty may be full and therefore
  silent; it is given as long as its longest task may take.

Where presence cannot be read, nothing is taken. Never searches the server's keys. Run by whoever leads; two
at once would do no harm.
"""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from typing import Any

import structlog
from redis import exceptions as redis_errors

from astrid_operator.astrid_queue import QueueKey
from astrid_operator.brokers import BrokerAddress
from astrid_operator.claims import BrokerQueue, by_broker
from astrid_operator.dramatiq_keys import DramatiqQueue, heartbeats_key
from astrid_operator.orphans import HOLDERS, PRESENCE_OF, RECLAIM, Holder, Reclaimed
from astrid_operator.presence import STALE_SECONDS
from astrid_operator.redis_connection import trouble_of
from astrid_operator.redis_scripts import RedisCalls
from astrid_operator.servers import Servers
from astrid_operator.silence import Silence

log = structlog.get_logger(__name__)

#: Seconds between two looks at one server.
LOOK_SECONDS = 4.0
#: Heartbeats that are read at a time; where there are more, each look takes the next ones.
BEATS_PER_LOOK = 5000
#: Processes that are asked about in one step, and steps per look.
ASKED_AT_ONCE, STEPS_PER_LOOK = 500, 200
#: Messages that go back in one step, and steps per look.
MOVED_AT_ONCE, MOVES_PER_LOOK = 1000, 20


class Recovery:
    """Looks after all queues; `begin` is called once a tick and waits for nothing."""

    def __init__(self, clock: Callable[[], float], *, timeout_seconds: float) -> None:
        self._clock = clock
        self._timeout = timeout_seconds
        self._servers = Servers(self._server, _Server.close)

    def begin(self, claims: Mapping[QueueKey, BrokerQueue]) -> None:
        """Look at the queues of `claims`, where it is time to; those are all there are to look after."""
        for broker, queues in by_broker(claims).items():
            self._servers.of(broker).begin(queues)

    def keep(self, brokers: Collection[BrokerAddress]) -> None:
        """Connections to others than `brokers`, which are all that are named, end."""
        self._servers.keep(brokers)

    def orphans(self, claim: BrokerQueue) -> int | None:
        """Messages of a queue held by processes that are gone, as last seen; None: not looked for."""
        server = self._servers.get(claim.broker)
        return None if server is None else server.orphans.get(claim.queue)

    def take(self) -> list[tuple[QueueKey, Reclaimed]]:
        """What went back since this was asked last."""
        found: list[tuple[QueueKey, Reclaimed]] = []
        for server in self._servers.values():
            found += server.reclaimed
            server.reclaimed = []
        return found

    async def close(self) -> None:
        """End every look and connection."""
        await self._servers.close()

    def _server(self, broker: BrokerAddress) -> "_Server":
        return _Server(broker, self._clock, self._timeout)


class _Server:
    """One Redis, looked at by one task at a time."""

    def __init__(self, broker: BrokerAddress, clock: Callable[[], float], timeout_seconds: float) -> None:
        self._broker = broker
        self._clock = clock
        self._timeout = timeout_seconds
        self._calls = RedisCalls(broker.url, timeout_seconds=timeout_seconds, name="astrid-operator-recovery")
        self._task: asyncio.Task[None] | None = None
        self._look_at = float("-inf")
        self._silence: defaultdict[str, Silence] = defaultdict(Silence)
        self._next_beats: Counter[str] = Counter()
        self._queues: dict[DramatiqQueue, QueueKey] = {}
        self.orphans: dict[DramatiqQueue, int] = {}
        self.reclaimed: list[tuple[QueueKey, Reclaimed]] = []
        self._is_failing = False
        #: Queues looked at before the steps of a look were used up.
        self._looked_at = 0

    def begin(self, queues: Mapping[DramatiqQueue, QueueKey]) -> None:
        self._queues = dict(queues)
        if (self._task is None or self._task.done()) and self._clock() >= self._look_at:
            self._look_at = self._clock() + LOOK_SECONDS
            self._task = asyncio.create_task(self._guarded(), name=f"look for orphans on {self._broker}")

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
        await self._calls.drop()

    async def _guarded(self) -> None:
        """One look; whatever fails, nothing is known afterwards, and the next one begins anew."""
        try:
            async with asyncio.timeout(self._timeout + LOOK_SECONDS):
                await self._look()
        except (redis_errors.RedisError, OSError, ValueError) as error:
            await self._failed(trouble_of(error))
        except Exception:
            log.exception("Look for orphans failed", broker=str(self._broker))
            await self._failed("bug")
        else:
            self._is_failing = False

    async def _failed(self, trouble: str) -> None:
        say = log.debug if self._is_failing else log.warning
        say("Orphans not looked for", broker=str(self._broker), trouble=trouble)
        self._is_failing = True
        self.orphans.clear()
        for silence in self._silence.values():
            silence.broken()
        await self._calls.drop()

    # ------------------------------------------------------------------------------------- look

    async def _look(self) -> None:
        for namespace in {queue.namespace for queue in self._queues}:
            await self._hear(namespace)
            names = {queue.name for queue in self._queues if queue.namespace == namespace}
            self._silence[namespace].forget_queues(names)
        self.orphans = {queue: number for queue, number in self.orphans.items() if queue in self._queues}
        steps, queues = STEPS_PER_LOOK, list(self._queues.items())
        first = self._looked_at % max(1, len(queues))
        for queue, key in [*queues[first:], *queues[:first]]:
            steps = await self._look_at_queue(queue, key, steps)
            self._looked_at += 1
            if not steps:
                return
        self._looked_at = 0

    async def _look_at_queue(self, queue: DramatiqQueue, key: QueueKey, steps: int) -> int:
        """Find and take back the orphans of one queue; the steps that are left for others."""
        try:
            holders, steps = await self._holders(queue, steps)
            self.orphans[queue] = sum(each.held + each.delayed for each in holders if each.is_missed)
            await self._reclaim(queue, key, [each for each in holders if each.is_gone])
        except redis_errors.ResponseError as error:
            self.orphans.pop(queue, None)
            log.debug("Orphans of a queue not looked for", queue=str(key), trouble=str(error))
        return steps

    async def _hear(self, namespace: str) -> None:
        """Read the next heartbeats of a namespace."""
        first = self._next_beats[namespace]
        last = first + BEATS_PER_LOOK - 1
        try:
            beats = await self._calls.call("ZRANGE", heartbeats_key(namespace), first, last, "WITHSCORES")
        except redis_errors.ResponseError as error:
            self._silence[namespace].broken()
            log.debug("Heartbeats not read", namespace=namespace, trouble=str(error))
            return
        found = _scores(beats)
        self._next_beats[namespace] = first + BEATS_PER_LOOK if len(found) == BEATS_PER_LOOK else 0
        self._silence[namespace].look(found, self._clock())

    async def _holders(self, queue: DramatiqQueue, steps: int) -> tuple[list[Holder], int]:
        """Silent processes that hold something of `queue`, and the steps that are left to look for more."""
        silence = self._silence[queue.namespace]
        quiet = silence.silent_for(STALE_SECONDS, queue.name)[: steps * ASKED_AT_ONCE]
        holders: list[Holder] = []
        prefix, suffix = queue.acks_of("\n")[0].split("\n")
        for start in range(0, len(quiet), ASKED_AT_ONCE):
            asked = quiet[start : start + ASKED_AT_ONCE]
            answer = await self._calls.run(HOLDERS, (), prefix, suffix, *asked)
            held = {answer[i].decode(): (answer[i + 1], answer[i + 2]) for i in range(0, len(answer), 3)}
            silence.holds_nothing(set(asked) - held.keys(), queue.name)
            for broker_id, (waiting, delayed) in held.items():
                said = await self._said(queue, broker_id)
                holders.append(Holder(broker_id, waiting, delayed, silence.seconds(broker_id), said))
            steps -= 1
        return holders, max(steps, 0)

    async def _said(self, queue: DramatiqQueue, broker_id: str) -> str:
        """What a process says of itself; one that once did and whose record is gone is not unheard of."""
        said = str((await self._calls.run(PRESENCE_OF, (queue.presence,), broker_id, STALE_SECONDS)).decode())
        silence = self._silence[queue.namespace]
        if said != "none":
            silence.spoke(broker_id)
        return "stale" if said == "none" and silence.has_spoken(broker_id) else said

    # ---------------------------------------------------------------------------------- reclaim

    async def _reclaim(self, queue: DramatiqQueue, key: QueueKey, gone: Sequence[Holder]) -> None:
        messages = delayed = 0
        owners: list[Holder] = []
        for holder in gone[:MOVES_PER_LOOK]:
            waiting = await self._take_back(queue, queue, holder, holder.held)
            later = await self._take_back(queue, queue.delayed, holder, holder.delayed)
            if waiting + later:
                messages, delayed, owners = messages + waiting, delayed + later, [*owners, holder]
        if owners:
            found = Reclaimed(messages, delayed, len(owners), max(each.silent_seconds for each in owners))
            self.orphans[queue] = max(0, self.orphans[queue] - messages - delayed)
            self.reclaimed.append((key, found))
            names = [each.broker_id for each in owners]
            log.warning("Orphans reclaimed", queue=str(key), why=found.sentence, brokers=names[:10])

    async def _take_back(self, queue: DramatiqQueue, part: DramatiqQueue, holder: Holder, held: int) -> int:
        """Put back what `holder` has of `part`: the queue, or its delayed half."""
        beat = self._silence[queue.namespace].beat_of(holder.broker_id)
        ids, bodies, *_ = part.keys
        acks = part.acks_of(holder.broker_id)[0]
        keys = (heartbeats_key(queue.namespace), ids, bodies, acks, queue.presence, queue.drain)
        moved = 0
        for _ in range(min(MOVES_PER_LOOK, -(-held // MOVED_AT_ONCE))):
            count = await self._calls.run(
                RECLAIM, keys, holder.broker_id, repr(beat), STALE_SECONDS, MOVED_AT_ONCE
            )
            if count < 0:
                break
            moved += count
        return moved


def _scores(answer: Sequence[Any]) -> dict[str, float]:
    """Members and scores of a sorted set, as either protocol answers them."""
    pairs = answer
    if answer and not isinstance(answer[0], list | tuple):
        pairs = list(zip(answer[::2], answer[1::2], strict=True))
    return {name.decode(errors="replace"): float(score) for name, score in pairs}
