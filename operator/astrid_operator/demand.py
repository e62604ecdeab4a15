"""Reads from Redis what waits, runs, is delayed and is dead, for all queues once a second.

Owns when brokers are read: one pipeline per endpoint and tick, and further ones only while ETAs of delayed
messages have to be found. Never writes, never takes what it could
not read for nothing, and never lets one slow endpoint hold up another.
"""

import asyncio
import hashlib
import random
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import redis.asyncio
import structlog
from redis import exceptions as redis_errors

from astrid_operator.astrid_queue import QueueKey
from astrid_operator.brokers import BrokerAddress
from astrid_operator.claims import BrokerQueue
from astrid_operator.delayed import SLICE, EtaScan, ReadEnd, WalkOn
from astrid_operator.dramatiq_keys import (
    COUNT_QUEUE,
    MAX_HEAD_BYTES,
    MAX_MEMBERS,
    READ_DELAYED_END,
    READ_LISTED,
    WALK_DELAYED,
    DramatiqQueue,
)
from astrid_operator.due import MOST_HOLDERS, DueMessages, Part, Place, ReadListed
from astrid_operator.presence import MemberSaid, members_said
from astrid_operator.queue_counts import Count, count_of, demand_of, identity_of
from astrid_operator.redis_connection import connection, leave, trouble_of
from astrid_operator.scaling_values import DemandReading
from astrid_operator.throughput import Throughput

log = structlog.get_logger(__name__)

#: Longest that a tick waits for an endpoint that answered last time, in seconds; a later tick has the answer.
PATIENCE_SECONDS = 0.3
#: Longest pause between two attempts on an endpoint that fails, in seconds.
LONGEST_PAUSE_SECONDS = 5.0
#: Seconds after which the connection to an endpoint that no AstridQueue names any more is closed.
UNUSED_SECONDS = 60.0

#: Trouble of a read that ended as nobody foresaw; its traceback is logged when it begins.
BUG = "Unexpected: an error of the operator, see its log"

#: Slices of delayed messages looked at per tick and endpoint; each takes the server a few milliseconds.
SLICES_PER_TICK = 20
#: Slices of long queues that are asked for in one go, and short looks; the time is looked at in
#: between.
SLICES_AT_ONCE, SHORT_AT_ONCE = 4, 50
#: No ETA is later than this, in ms since the epoch.
LATEST_MS = 9e15
#: Seconds of a tick after which no further slice is begun: other queues of the endpoint wait meanwhile.
LOOKING_SECONDS = 0.1


def _sha(script: str) -> str:
    return hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest()


_COUNT_QUEUE_SHA, _WALK_SHA, _END_SHA = _sha(COUNT_QUEUE), _sha(WALK_DELAYED), _sha(READ_DELAYED_END)
_LISTED_SHA = _sha(READ_LISTED)
_SCRIPTS = (COUNT_QUEUE, WALK_DELAYED, READ_DELAYED_END, READ_LISTED)


class DemandReader:
    """The newest reading of every queue; `read` is called once a tick."""

    def __init__(self, clock: Callable[[], float], rng: random.Random, *, timeout_seconds: float) -> None:
        self._clock = clock
        self._rng = rng
        self._timeout = timeout_seconds
        self._endpoints: dict[BrokerAddress, _Endpoint] = {}

    async def read(self, wanted: Mapping[QueueKey, BrokerQueue]) -> dict[QueueKey, DemandReading]:
        """A reading for every key of `wanted`, after at most `PATIENCE_SECONDS`.

        Where an endpoint has not answered by then, the reading is the one before, until that is as old as the
        time limit; from then on it says that nothing is known.
        """
        by_broker: defaultdict[BrokerAddress, set[DramatiqQueue]] = defaultdict(set)
        for claim in wanted.values():
            by_broker[claim.broker].add(claim.queue)
        awaited = [self._endpoint(broker).start(queues) for broker, queues in by_broker.items()]
        tasks = [task for task in awaited if task is not None]
        if tasks:
            await asyncio.wait(tasks, timeout=PATIENCE_SECONDS)
        await self._forget_unused()
        return {key: self._endpoints[claim.broker].reading(claim.queue) for key, claim in wanted.items()}

    def due_messages(self, claim: BrokerQueue) -> DueMessages | None:
        """Which delayed messages of one queue nobody holds, as far as was read; None: nothing was."""
        endpoint = self._endpoints.get(claim.broker)
        return None if endpoint is None else endpoint.due_messages(claim.queue)

    def server_ms(self, broker: BrokerAddress) -> float | None:
        """The time on a server in ms since the epoch, a little behind it; None: not known."""
        endpoint = self._endpoints.get(broker)
        return None if endpoint is None else endpoint.server_ms()

    def reachable(self) -> dict[str, bool]:
        """Whether each endpoint answered its latest read, by its address without credentials.

        Of several that are told apart by nothing that may be shown, whether all did.
        """
        found: dict[str, bool] = {}
        for broker, endpoint in self._endpoints.items():
            found[str(broker)] = found.get(str(broker), True) and not endpoint.trouble
        return found

    async def close(self) -> None:
        """End every read and connection."""
        for endpoint in self._endpoints.values():
            await endpoint.close()
        self._endpoints.clear()

    def _endpoint(self, broker: BrokerAddress) -> "_Endpoint":
        if broker not in self._endpoints:
            self._endpoints[broker] = _Endpoint(broker, self._clock, self._rng, self._timeout)
        return self._endpoints[broker]

    async def _forget_unused(self) -> None:
        now = self._clock()
        unused = [broker for broker, each in self._endpoints.items() if now - each.wanted_at > UNUSED_SECONDS]
        for broker in unused:
            await self._endpoints.pop(broker).close()


@dataclass(slots=True)
class _Pace:
    """What is learned of one queue from reading to reading."""

    throughput: Throughput = field(default_factory=Throughput)
    etas: EtaScan = field(default_factory=EtaScan)
    due: DueMessages = field(default_factory=DueMessages)

    def wanted(self) -> list[WalkOn | ReadEnd | ReadListed]:
        """What to look at next. The whole list waits for the ETAs: these decide whether anybody is there."""
        etas, listed = self.etas.wanted(), self.due.wanted()
        if etas is None:
            return [] if listed is None else [listed]
        return [etas] if listed is None or listed.part is Part.ALL else [etas, listed]

    def is_long(self, what: WalkOn | ReadEnd | ReadListed) -> bool:
        """One of many slices: what is new, and queues that are read in one go, come before it."""
        if isinstance(what, WalkOn):
            return self.etas.delayed > SLICE
        return isinstance(what, ReadListed) and what.part is Part.ALL and self.due.listed > SLICE


class _Endpoint:
    """One Redis, read by one task at a time."""

    def __init__(
        self, broker: BrokerAddress, clock: Callable[[], float], rng: random.Random, timeout_seconds: float
    ) -> None:
        self._broker = broker
        self._clock = clock
        self._rng = rng
        self._timeout = timeout_seconds
        self._client: redis.asyncio.Redis | None = None
        self._task: asyncio.Task[None] | None = None
        self._readings: dict[DramatiqQueue, DemandReading] = {}
        self._paces: defaultdict[DramatiqQueue, _Pace] = defaultdict(_Pace)
        self._failures = 0
        self._next_try_at = float("-inf")
        self._started_at = float("-inf")
        #: The server's time in ms, and when it was read.
        self._time: tuple[float, float] | None = None
        self.wanted_at = clock()
        #: Why the latest read failed as a whole; empty: it did not.
        self.trouble = ""
        #: The latest read took longer than a tick waits: others are not held up by it again.
        self._is_late = False

    def start(self, queues: Collection[DramatiqQueue]) -> asyncio.Task[None] | None:
        """Begin a read unless one is under way or a pause is kept; the task, if it is worth waiting for."""
        now = self.wanted_at = self._clock()
        for gone in self._readings.keys() - set(queues):
            del self._readings[gone]
            self._paces.pop(gone, None)
        if self._task is not None and not self._task.done():
            return None
        if now < self._next_try_at:
            return None
        self._started_at = now
        self._task = asyncio.create_task(self._read(tuple(queues)), name=f"read demand from {self._broker}")
        return None if self.trouble or self._is_late else self._task

    def reading(self, queue: DramatiqQueue) -> DemandReading:
        """The newest that is known of `queue`; not the numbers of a read that is overdue."""
        now = self._clock()
        known = self._readings.get(queue)
        if known is None:
            return DemandReading(now, None, self._sentence("not read yet"))
        if known.demand is None:
            return replace(known, at=now)
        if now - known.at > self._timeout + 2 * PATIENCE_SECONDS:
            return replace(known, at=now, demand=None, trouble=self._sentence("TimedOut: no answer yet"))
        return known

    def due_messages(self, queue: DramatiqQueue) -> DueMessages | None:
        return self._paces[queue].due if queue in self._paces else None

    def server_ms(self) -> float | None:
        if self._time is None or self.trouble:
            return None
        return self._time[0] + (self._clock() - self._time[1]) * 1000

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
        await self._drop_client()

    async def _read(self, queues: tuple[DramatiqQueue, ...]) -> None:
        """Read `queues` once and keep what was found; never raises but when cancelled."""
        try:
            async with asyncio.timeout(self._timeout):
                now_ms, server, answers = await self._counts(queues)
                self._time = now_ms, self._clock()
                counts = {
                    queue: answer if isinstance(answer, Exception) else count_of(answer)
                    for queue, answer in zip(queues, answers, strict=True)
                }
                await self._look_for_etas(counts, now_ms)
            at = self._clock()
            readings = {
                queue: self._reading_of(queue, count, at, now_ms, server) for queue, count in counts.items()
            }
        except (redis_errors.RedisError, OSError, ValueError) as error:
            self._failed(trouble_of(error), queues)
            await self._drop_client()
            return
        except Exception:  # nobody waits for the task: without this its queues would not be read yet for ever
            if self.trouble != BUG:
                log.exception("Redis not read", broker=str(self._broker))
                self.trouble = BUG
            self._failed(BUG, queues)
            await self._drop_client()
            return
        self._succeeded()
        self._is_late = at - self._started_at > PATIENCE_SECONDS
        self._readings.update(readings)

    async def _counts(self, queues: tuple[DramatiqQueue, ...]) -> tuple[float, str | None, list[Any]]:
        """Server time in ms, the server's identity and one answer or error per queue."""
        if self._client is None:
            self._client = connection(self._broker.url, timeout_seconds=self._timeout, name="astrid-operator")
        answers = await self._pipeline(self._client, queues)
        if any(isinstance(each, redis_errors.NoScriptError) for each in answers):
            for script in _SCRIPTS:
                await self._client.script_load(script)
            answers = await self._pipeline(self._client, queues)
        time, server, replication, *counts = answers
        failures = [each for each in (time, *counts) if isinstance(each, Exception)]
        if len(failures) == 1 + len(counts):
            raise failures[0]
        if isinstance(time, Exception):
            raise time
        return time[0] * 1000 + time[1] / 1000, identity_of(server, replication), counts

    async def _pipeline(self, client: "redis.asyncio.Redis", queues: tuple[DramatiqQueue, ...]) -> list[Any]:
        pipeline = client.pipeline(transaction=False)
        pipeline.time()
        pipeline.info("server")
        pipeline.info("replication")
        for queue in queues:
            keys, said = queue.keys, (queue.counters, queue.presence)
            pipeline.evalsha(_COUNT_QUEUE_SHA, len(keys), *keys, MAX_HEAD_BYTES, *said, MAX_MEMBERS)
        return await pipeline.execute(raise_on_error=False)

    # ----------------------------------------------------------------------- delayed messages

    async def _look_for_etas(self, counts: Mapping[DramatiqQueue, Count | Exception], now_ms: float) -> None:
        """Find out what is delayed until when; a part a tick.

        Whose time comes when is asked of all delayed messages where nothing else asks for a worker, and of
        those that nobody holds at any time.
        """
        at = self._clock()
        paces = {queue: self._paces[queue] for queue in counts}
        for queue, count in counts.items():
            etas, due = paces[queue].etas, paces[queue].due
            if isinstance(count, Exception) or (count.outstanding and count.delayed):
                etas.not_counted()
            else:
                etas.counted(count.delayed, count.delayed_listed, now_ms, at)
            if not isinstance(count, Exception):
                due.counted(count.delayed_listed, count.first_delayed, count.last_delayed, at)
        left = SLICES_PER_TICK
        while left > 0 and self._clock() - at < LOOKING_SECONDS:
            asked = [(queue, each) for queue, pace in paces.items() for each in pace.wanted()]
            if not asked:
                return
            self._rng.shuffle(asked)  # where there are more than a tick can serve, each has its turn
            if short := [each for each in asked if not paces[each[0]].is_long(each[1])]:
                await self._look(paces, short[:SHORT_AT_ONCE])
                continue
            slices = asked[: min(left, SLICES_AT_ONCE)]
            await self._look(paces, slices)
            left -= len(slices)

    async def _look(
        self,
        paces: Mapping[DramatiqQueue, _Pace],
        asked: Sequence[tuple[DramatiqQueue, WalkOn | ReadEnd | ReadListed]],
    ) -> None:
        assert self._client is not None
        pipeline = self._client.pipeline(transaction=False)
        for queue, what in asked:
            ids, bodies, *_ = queue.delayed.keys
            if isinstance(what, WalkOn):
                pipeline.evalsha(_WALK_SHA, 1, bodies, MAX_HEAD_BYTES, what.cursor, SLICE)
            elif isinstance(what, ReadEnd):
                pipeline.evalsha(_END_SHA, 2, bodies, ids, MAX_HEAD_BYTES, what.start, SLICE)
            else:
                place = what.after.name, what.after.index, what.after.length
                latest = min(what.latest_ms, LATEST_MS)
                is_end = int(what.part is Part.END)
                pipeline.evalsha(
                    _LISTED_SHA, 2, bodies, ids, MAX_HEAD_BYTES, *place, what.most, latest, is_end
                )
        for (queue, what), answer in zip(asked, await pipeline.execute(raise_on_error=False), strict=True):
            pace = paces[queue]
            if isinstance(what, ReadListed):
                if isinstance(answer, Exception):
                    pace.due.unknown()
                else:
                    last, index, length, left_out, etas, names = answer
                    found = zip(map(float, etas.split()), names, strict=True)
                    pace.due.took(what, Place(last, int(index), int(length)), found, int(left_out))
            elif isinstance(answer, Exception):
                pace.etas.not_counted()
            else:
                cursor, not_understood, etas = answer
                pace.etas.took(what, int(cursor), [float(eta) for eta in etas], int(not_understood))

    # ------------------------------------------------------------------------------- readings

    def _reading_of(
        self, queue: DramatiqQueue, count: Count | Exception, at: float, now_ms: float, server: str | None
    ) -> DemandReading:
        before, pace = self._readings.get(queue), self._paces[queue]
        last_read_at = before.last_read_at if before else None
        if isinstance(count, Exception):
            pace.throughput.missed()
            return DemandReading(at, None, self._sentence(trouble_of(count)), last_read_at, server)
        estimates = pace.throughput.take(at, count.outstanding, count.counters)
        demand = demand_of(count, now_ms, estimates, pace.etas, pace.due.next_eta_ms())
        said = None if count.presence is None else members_said(count.presence, now_ms / 1000)
        pace.due.holders = _broker_ids(said)
        return DemandReading(at, demand, "", at, server, said)

    def _failed(self, trouble: str, queues: Collection[DramatiqQueue]) -> None:
        if not self.trouble:
            log.warning("Redis not read", broker=str(self._broker), trouble=trouble)
        self.trouble = trouble
        self._failures += 1
        pause = min(LONGEST_PAUSE_SECONDS, 0.5 * 2.0 ** min(self._failures, 10))
        at = self._clock()
        self._next_try_at = at + self._rng.uniform(pause / 2, pause)
        for queue in queues:
            before = self._readings.get(queue)
            last_read_at = before.last_read_at if before else None
            self._readings[queue] = DemandReading(at, None, self._sentence(trouble), last_read_at)
            self._paces[queue].throughput.missed()
            self._paces[queue].etas.not_counted()

    def _succeeded(self) -> None:
        if self.trouble:
            log.info("Redis read again", broker=str(self._broker), trouble=self.trouble)
        self.trouble, self._failures, self._next_try_at = "", 0, float("-inf")

    def _sentence(self, trouble: str) -> str:
        return f"Redis {self._broker}: {trouble}"

    async def _drop_client(self) -> None:
        """Close the connection, whose state is not known; the next read makes a new one."""
        client, self._client = self._client, None
        if client is not None:
            await leave(client)


def _broker_ids(said: Mapping[str, MemberSaid] | None) -> tuple[str, ...]:
    """What Dramatiq calls the processes that live."""
    names = [process.broker_id for member in (said or {}).values() for process in member.processes]
    return tuple([name for name in names if name][:MOST_HOLDERS])
