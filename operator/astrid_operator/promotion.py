"""Delayed messages that are due and that nobody holds go to their queue on time, whoever is there.

Owns the second thing that the operator does to Dramatiq's keys by itself (`recovery.py` has the first): what
a worker does with a delayed message whose time has come is done for one that stands in the list of delayed
messages, where no worker may ever reach it. A few at a time, in one step on the server, and only where the
message is what it was when it was read: it is in one place or in the other, whatever ends half-way, and no
message is moved twice. Never before its time, by the server's clock. What is no JSON of Dramatiq's is left to
the workers. Run by whoever leads; two at once would do no harm.
"""

import asyncio
import hashlib
from collections import defaultdict
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar
from uuid import uuid4

import structlog
from redis import exceptions as redis_errors

from astrid_operator.astrid_queue import QueueKey
from astrid_operator.brokers import BrokerAddress
from astrid_operator.claims import BrokerQueue, by_broker
from astrid_operator.dramatiq_keys import DramatiqQueue
from astrid_operator.due import HELD_AGAIN_MS, LEFT_ALONE_MS, DueMessages, Released, released
from astrid_operator.due_scripts import FIND, GONE, HELD, MOVE, NOT_SEEN
from astrid_operator.redis_connection import trouble_of
from astrid_operator.redis_scripts import RedisCalls
from astrid_operator.servers import Servers

log = structlog.get_logger(__name__)

T = TypeVar("T")

#: A queue is looked after this many seconds before its next message is due; a tick is a second.
AHEAD_SECONDS = 1.5
#: Messages that are looked for one by one; from so many on the list is looked through, in parts of so many
#: ids.
FEW, PART = 20, 5000
#: Ids that may be compared in one step when looking one by one: a few milliseconds.
COMPARED_AT_ONCE = 200_000
#: Most messages, and most bytes of them, that are moved in one step.
MOVED_AT_ONCE, BYTES_AT_ONCE = 200, 2_000_000
#: Messages that one sweep through a list looks for.
SOUGHT = 1000
#: Part of the time for which a queue with much to move keeps the server busy.
DUTY = 0.3
#: Seconds between two looks for one that is due earlier than the next that was known.
LOOK_SECONDS = 0.2
#: A message that was not where it had been found is looked for again after this time, in ms.
MISSED_AGAIN_MS = 500.0
#: Seconds after which a server that failed is tried again.
AGAIN_SECONDS = 2.0
#: Seconds for which the queues of one tick may be written to when no further tick comes.
LET_SECONDS = 5.0


class DueSource(Protocol):
    """Where it is known what is delayed; `demand.DemandReader` is one."""

    def due_messages(self, claim: BrokerQueue) -> DueMessages | None:
        """What is known of one queue; None: nothing."""

    def server_ms(self, broker: BrokerAddress) -> float | None:
        """The time on a server, in ms since the epoch, never ahead of it; None: not known."""


class Promotion:
    """Looks after all queues; `begin` is called once a tick and waits for nothing."""

    def __init__(self, source: DueSource, clock: Callable[[], float], *, timeout_seconds: float) -> None:
        self._source = source
        self._clock = clock
        self._timeout = timeout_seconds
        self._servers = Servers(self._server, _Server.close)

    def begin(self, claims: Mapping[QueueKey, BrokerQueue]) -> None:
        """Move what is due until the next tick in the queues of `claims`; no other may be written."""
        claimed = by_broker(claims)
        for broker in claimed:
            self._servers.of(broker)
        for broker, server in self._servers.items():
            server.begin(claimed.get(broker, {}))

    def keep(self, brokers: Collection[BrokerAddress]) -> None:
        """Connections to others than `brokers`, which are all that are named, end."""
        self._servers.keep(brokers)

    def take(self) -> list[tuple[QueueKey, int]]:
        """How many messages were moved since this was asked last."""
        found = [each for server in self._servers.values() for each in server.moved.items()]
        for server in self._servers.values():
            server.moved.clear()
        return found

    async def close(self) -> None:
        """End all work and every connection."""
        await self._servers.close()

    def _server(self, broker: BrokerAddress) -> "_Server":
        return _Server(broker, self._source, self._clock, self._timeout)


@dataclass(frozen=True, slots=True)
class _Found:
    """A message that can be moved."""

    name: bytes
    index: int
    body: bytes
    new_id: str
    new: Released


class _Server:
    """One Redis; each queue is served by one task at a time, and the server by one step at a time."""

    def __init__(
        self, broker: BrokerAddress, source: DueSource, clock: Callable[[], float], timeout_seconds: float
    ) -> None:
        self._broker = broker
        self._source = source
        self._clock = clock
        self._calls = RedisCalls(
            broker.url, timeout_seconds=timeout_seconds, name="astrid-operator-promotion"
        )
        self._turn = asyncio.Lock()
        self._queues: dict[DramatiqQueue, QueueKey] = {}
        self._tasks: dict[DramatiqQueue, asyncio.Task[None]] = {}
        self._begun_at = self._next_try_at = float("-inf")
        self._is_failing = False
        self._told: set[DramatiqQueue] = set()
        self.moved: defaultdict[QueueKey, int] = defaultdict(int)

    def begin(self, queues: Mapping[DramatiqQueue, QueueKey]) -> None:
        self._queues, self._begun_at = dict(queues), self._clock()
        self._tasks = {queue: task for queue, task in self._tasks.items() if not task.done()}
        if self._begun_at < self._next_try_at:
            return
        for queue in queues:
            seconds = self._seconds_until_due(queue)
            if queue not in self._tasks and seconds is not None and seconds <= AHEAD_SECONDS:
                self._tasks[queue] = asyncio.create_task(
                    self._guarded(queue), name=f"move due of {queue.name}"
                )

    async def close(self) -> None:
        for task in self._tasks.values():
            task.cancel()
        for task in self._tasks.values():
            with suppress(asyncio.CancelledError):
                await task
        await self._calls.drop()

    def _due_messages(self, queue: DramatiqQueue) -> DueMessages | None:
        return self._source.due_messages(BrokerQueue(self._broker, queue))

    def _seconds_until_due(self, queue: DramatiqQueue) -> float | None:
        messages, now_ms = self._due_messages(queue), self._source.server_ms(self._broker)
        if messages is None or now_ms is None or (at_ms := messages.next_ms()) is None:
            return None
        return max(0.0, (at_ms - now_ms) / 1000)

    def _may_write(self, queue: DramatiqQueue) -> bool:
        return queue in self._queues and self._clock() - self._begun_at <= LET_SECONDS

    async def _guarded(self, queue: DramatiqQueue) -> None:
        """Serve one queue; whatever fails, a later tick tries again."""
        try:
            await self._serve(queue)
        except (redis_errors.RedisError, OSError, ValueError) as error:
            await self._failed(trouble_of(error))
        except Exception:
            log.exception("Due messages not moved", broker=str(self._broker), queue=queue.name)
            await self._failed("bug")

    async def _failed(self, trouble: str) -> None:
        say = log.debug if self._is_failing else log.warning
        say("Due messages not moved", broker=str(self._broker), trouble=trouble)
        self._is_failing = True
        self._next_try_at = self._clock() + AGAIN_SECONDS
        await self._calls.drop()

    async def _serve(self, queue: DramatiqQueue) -> None:
        """Move what is due, and wait for what is due soon."""
        while (seconds := self._seconds_until_due(queue)) is not None and seconds <= AHEAD_SECONDS:
            if seconds:
                await asyncio.sleep(min(seconds, LOOK_SECONDS))  # an earlier one may come meanwhile
                continue
            if not self._may_write(queue):
                return
            await self._pass(queue)
            self._is_failing = False

    async def _pass(self, queue: DramatiqQueue) -> None:
        """Move some of what is due: one step for few, one sweep through the list for many."""
        messages, now_ms = self._due_messages(queue), self._source.server_ms(self._broker)
        if messages is None or now_ms is None:
            return
        sought = messages.due(now_ms, SOUGHT)
        if len(sought) <= FEW:
            few = sought[: max(1, COMPARED_AT_ONCE // max(1, messages.listed))]
            await self._paced(self._step(queue, messages, few, 0, 0))
            return
        left = messages.listed
        while sought and left > 0 and self._may_write(queue):
            sought, left = await self._paced(self._step(queue, messages, sought, PART, left))

    async def _paced(self, step: Awaitable[T]) -> T:
        """Take a step, and let others have the server for longer than it took."""
        began = self._clock()
        answer = await step
        await asyncio.sleep((self._clock() - began) * (1 / DUTY - 1))
        return answer

    async def _step(
        self, queue: DramatiqQueue, messages: DueMessages, names: list[bytes], part: int, left: int
    ) -> tuple[list[bytes], int]:
        """Find `names` and move them; which were not seen yet, and how many ids are left to look through.

        `part` ids are looked through, the first of the last `left`; 0: each is looked for in the whole list.
        """
        prefix, suffix = queue.acks_of("\n")[1].split("\n")
        holders = () if part else messages.holders
        async with self._turn:
            answer = await self._calls.run(
                FIND,
                queue.delayed.keys[:2],
                *(prefix, suffix, BYTES_AT_ONCE, part, left, len(holders), *holders, *names),
            )
            now_ms, length, left = float(answer[0]), int(answer[1]), int(answer[2])
            places = dict(zip(names, answer[3], strict=True))
            bodies = dict(zip(names, answer[4], strict=True))
            listed = {
                name: (place, bodies[name]) for name, place in places.items() if bodies[name] is not None
            }
            found = self._understood(queue, messages, listed, now_ms)
            moved = 0
            for start in range(0, len(found), MOVED_AT_ONCE):
                batch = found[start : start + MOVED_AT_ONCE]
                moved += await self._move(queue, messages, length, moved, batch, now_ms)
        messages.forget(name for name, place in places.items() if place == GONE)
        unseen = [name for name, place in places.items() if place == NOT_SEEN]
        held = [name for name, place in places.items() if place == HELD]
        messages.defer(held if left else held + unseen, now_ms + HELD_AGAIN_MS)
        return unseen, left

    def _understood(
        self,
        queue: DramatiqQueue,
        messages: DueMessages,
        listed: Mapping[bytes, tuple[int, bytes]],
        now_ms: float,
    ) -> list[_Found]:
        """What can be moved now, by index; the others are put off."""
        found: list[_Found] = []
        for name, (index, body) in listed.items():
            new_id = str(uuid4())
            new = released(body, queue.name, new_id)
            if new is None:
                messages.defer([name], now_ms + LEFT_ALONE_MS)
                self._tell_once(queue)
            elif new.eta_ms > now_ms:
                messages.defer([name], new.eta_ms)
            else:
                found.append(_Found(name, index, body, new_id, new))
        return sorted(found, key=lambda each: each.index)

    def _tell_once(self, queue: DramatiqQueue) -> None:
        if queue not in self._told:
            self._told.add(queue)
            log.warning("Some due messages are no JSON of Dramatiq's: left to the workers", queue=queue.name)

    async def _move(
        self,
        queue: DramatiqQueue,
        messages: DueMessages,
        length: int,
        before: int,
        found: Sequence[_Found],
        now_ms: float,
    ) -> int:
        """Move `found`; how many. What was not moved is tried again soon.

        They stood in a list of `length` ids, from which `before` have been moved since.
        """
        waiting, bodies, *_ = queue.keys
        arguments: list[Any] = [length - before]
        for each in found:
            sha = hashlib.sha1(each.body, usedforsecurity=False).hexdigest()
            arguments += [each.name, each.index - before, sha, each.new_id, each.new.body]
        answer = await self._calls.run(MOVE, (*queue.delayed.keys[:2], waiting, bodies), *arguments)
        count = 0
        for each, in_its_place in zip(found, answer, strict=True):
            if in_its_place is None:
                messages.defer([each.name], now_ms + MISSED_AGAIN_MS)
            else:
                messages.moved(each.name, in_its_place)
                count += 1
        if count and (key := self._queues.get(queue)) is not None:
            self.moved[key] += count
            late = (now_ms - min(each.new.eta_ms for each in found)) / 1000
            log.info("Due messages moved", queue=str(key), messages=count, late_seconds=round(late, 2))
        return count
