"""The one loop that decides, once a second, for all AstridQueues.

Owns the order gather → decide → act, and who may write when. Knows no client: a cluster, one machine and a
test differ only in the Fleet, the Reporter and where the manifests come from.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Any, TypeVar

import structlog

from astrid_operator import hand_over
from astrid_operator.astrid_queue import AstridQueue, QueueKey
from astrid_operator.back_off import BackOff
from astrid_operator.brokers import Brokers
from astrid_operator.claims import BrokerQueue, claims
from astrid_operator.conditions import Trouble
from astrid_operator.errors import PersonMustAct, QueueTaken
from astrid_operator.fleet import Fleet, FleetState, Reporter
from astrid_operator.neighbours import (
    Asked,
    Bell,
    Budget,
    DemandSource,
    Observer,
    Promoter,
    Recoverer,
    unlimited,
)
from astrid_operator.pace import Pace
from astrid_operator.reconcile import Failure, Gathered, Outcome, Plan, carry_out, plan
from astrid_operator.records import Manifest, Record, Records
from astrid_operator.scaling import DemandReading, ScalingDecision, decide
from astrid_operator.telling import Telling, Write
from astrid_operator.workqueue import WorkQueue

log = structlog.get_logger(__name__)

#: Longest pause between two tries of a size, in seconds, where nobody asks for more: work waits for it.
LONGEST_SIZING_RETRY_SECONDS = 15.0

#: Least seconds between two logs of decisions for one queue, or of a budget, that fail unexpectedly.
BUG_TOLD_SECONDS = 60.0

#: AstridQueues that are looked at in one go: then writes under way may go on. A tick of a thousand takes half
#: a second of a small core, in which no answer would be read.
AT_ONE_GO = 25

K = TypeVar("K")
V = TypeVar("V")


class Loop:
    """Decides for every AstridQueue that `manifests` holds, until `run` is cancelled."""

    def __init__(
        self,
        manifests: Callable[[], Mapping[QueueKey, Manifest]],
        fleet: Fleet,
        reporter: Reporter,
        demand: DemandSource,
        brokers: Brokers,
        *,
        clock: Callable[[], float],
        rng: random.Random,
        observer: Observer,
        tick_seconds: float = 1.0,
        status_writes_per_second: float = 0.2,
        budget: Budget = unlimited,
        recovery: Recoverer | None = None,
        promotion: Promoter | None = None,
        bell: Bell | None = None,
        wall: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._manifests = manifests
        self._fleet = fleet
        self._demand = demand
        self._brokers = brokers
        self._clock = clock
        self._observer = observer
        self._budget = budget
        self._recovery = recovery
        self._promotion = promotion
        self._bell = bell
        self._records = Records(clock)
        self._telling = Telling(
            self._records,
            reporter,
            self._start,
            clock=clock,
            rng=rng,
            wall=wall,
            writes_per_second=status_writes_per_second,
        )
        self._work: WorkQueue[QueueKey] = WorkQueue(clock, rng)
        #: Whose size could not be changed, growth (True) apart: work does not wait for what shrinks.
        self._sizing: BackOff[tuple[QueueKey, bool]] = BackOff(clock, rng)
        self._pace = Pace(clock, self._work, bell, tick_seconds)
        #: Which Dramatiq queue each AstridQueue serves.
        self._claims: Mapping[QueueKey, BrokerQueue] = {}
        self._drifted: set[QueueKey] = set()
        #: Whose write ended since a tick began to gather: what it gathered of them is old.
        self._written: set[QueueKey] = set()
        #: What is under way beside the writes of records: removals, and events of their own.
        self._beside: set[asyncio.Task[None]] = set()
        #: Slots change hands: whoever waits for them looks more often.
        self._is_handing_over = False
        #: When it was logged last that the budget failed unexpectedly.
        self._budget_told_at = float("-inf")
        #: When the last tick ended; before the first, when the loop was made.
        self.ticked_at = clock()

    def wake(self, key: QueueKey) -> None:
        """The AstridQueue `key` came or was edited: do not wait for the next tick."""
        self._work.changed(key)

    def drifted(self, key: QueueKey) -> None:
        """The workload of `key` changed by somebody's hand: compare it at the next tick."""
        self._drifted.add(key)

    async def run(self) -> None:
        """Tick for ever."""
        try:
            while True:
                started = self._clock()
                await self.tick()
                await self._pace.pause(started, self._records.tasks, is_handing_over=self._is_handing_over)
        finally:
            await self._end_tasks()

    async def tick(self) -> None:
        """Gather and decide for all, and start the writes that are needed; does not wait for these.

        Whatever is only told is looked for once every size that is wanted is on its way.
        """
        started = self._clock()
        self._take_over(self._manifests())
        gathered = await self._gather()
        decisions = await self._decide(gathered)
        self._listen(gathered, decisions)
        due = set(self._work.take_due())
        acting = {
            key
            async for key, each in _breathing(gathered)
            if self._acts(each, decisions.get(key), is_due=key in due)
        }
        for key in due - gathered.keys():
            self._work.done(key)
        await asyncio.sleep(0)
        async for key, each in _breathing(gathered):
            self._observer.saw(each, decisions.get(key))
            if key not in acting:
                self._telling.look(each, decisions.get(key))
        self._telling.look_at_invalid()
        self._tell_reclaimed()
        self._telling.grant()
        self.ticked_at = self._clock()
        self._observer.ticked(self.ticked_at - started, len(self._work))

    async def settled(self) -> None:
        """Return when no write is under way."""
        while tasks := [*self._records.tasks(), *self._beside]:
            await asyncio.wait(tasks)

    # -------------------------------------------------------------------------------------- gather

    def _take_over(self, manifests: Mapping[QueueKey, Manifest]) -> None:
        changed, gone = self._records.update(manifests)
        for key, record in gone.items():
            self._forget(key, record)
        for key in changed:
            self._work.changed(key)
        for key in self._drifted:
            if key in self._records:
                self._work.add(key)
        self._drifted.clear()

    async def _gather(self) -> dict[QueueKey, Gathered]:
        queues = self._records.valid()
        granted, refused = claims(queues, self._brokers)
        self._claims = granted
        self._leave_unnamed(granted)
        read = await self._demand.read(granted)
        self._move_due(granted, read)
        self._look_for_orphans(granted, read)
        self._written.clear()
        return {
            key: await self._gathered(queue, granted.get(key), read.get(key), refused.get(key))
            async for key, queue in _breathing(queues)
        }

    def _leave_unnamed(self, granted: Mapping[QueueKey, BrokerQueue]) -> None:
        """Let nobody keep connections to an address that no AstridQueue names any more."""
        brokers = {claim.broker for claim in granted.values()}
        for each in (self._recovery, self._promotion):
            if each is not None:
                each.keep(brokers)

    def _look_for_orphans(
        self, granted: Mapping[QueueKey, BrokerQueue], readings: Mapping[QueueKey, DemandReading]
    ) -> None:
        """Begin to look for orphans where any message is held."""
        if self._recovery is not None:
            self._recovery.begin({key: claim for key, claim in granted.items() if _is_held(readings[key])})

    def _orphans(self, claim: BrokerQueue, reading: DemandReading) -> int | None:
        """How many messages of a queue are known to be held by nobody alive; None: nobody looks for them."""
        if self._recovery is None:
            return None
        return self._recovery.orphans(claim) if _is_held(reading) else 0

    def _move_due(
        self, granted: Mapping[QueueKey, BrokerQueue], readings: Mapping[QueueKey, DemandReading]
    ) -> None:
        """Let delayed messages be moved when they are due, and count those that were."""
        if self._promotion is None:
            return
        delayed = {key: demand for key in granted if (demand := readings[key].demand) and demand.delayed}
        self._promotion.begin({key: granted[key] for key in delayed})
        for key, messages in self._promotion.take():
            self._observer.promoted(key, messages)

    async def _gathered(
        self,
        queue: AstridQueue,
        claim: BrokerQueue | None,
        reading: DemandReading | None,
        refused: PersonMustAct | None,
    ) -> Gathered:
        fleet = await self._fleet.observe(queue.key)
        trouble = Trouble(refused.reason, str(refused)) if refused else None
        record, is_hands_off = self._records[queue.key], isinstance(refused, QueueTaken)
        record.starts.saw(fleet.members)
        if reading is None or claim is None:
            reading = DemandReading(self._clock(), None, trouble.message if trouble else "not read yet")
        else:
            reading = _complete(reading, self._orphans(claim, reading), record.starts.usual_seconds())
        if record.is_hands_off and not is_hands_off:
            self._work.changed(queue.key)
        record.is_hands_off = is_hands_off
        return Gathered(queue, fleet, reading, record.previous, trouble, is_hands_off)

    # -------------------------------------------------------------------------------------- decide

    async def _decide(self, gathered: Mapping[QueueKey, Gathered]) -> Mapping[QueueKey, ScalingDecision]:
        """A decision for each queue that may be sized, as the budget grants it."""
        now = self._clock()
        asked: dict[QueueKey, tuple[AstridQueue, FleetState, ScalingDecision]] = {}
        async for key, each in _breathing(gathered):
            if not each.is_hands_off and (decision := self._decided(each, now)) is not None:
                asked[key] = (each.queue, each.fleet, decision)
        granted = self._granted(asked, now)
        self._is_handing_over = hand_over.is_under_way(asked, granted)
        return granted

    def _decided(self, gathered: Gathered, now: float) -> ScalingDecision | None:
        """The decision for one queue; None where making it failed: that fleet stays, the others go on."""
        record, policy = self._records[gathered.queue.key], gathered.queue.spec
        try:
            decision, record.memory = decide(policy, gathered.reading, gathered.fleet, record.memory, now)
        except Exception:
            self._observer.reconciled("bug", 0.0)
            if now >= record.bug_told_at + BUG_TOLD_SECONDS:
                record.bug_told_at = now
                log.exception("Decision failed unexpectedly", queue=str(gathered.queue.key))
            return None
        return decision

    def _granted(self, asked: Asked, now: float) -> Mapping[QueueKey, ScalingDecision]:
        """What the budget grants; nothing where it fails: the fleets stay as they are until the next tick."""
        granted: Mapping[QueueKey, ScalingDecision] = {}
        try:
            granted = self._budget(asked)
        except Exception:
            if now >= self._budget_told_at + BUG_TOLD_SECONDS:
                self._budget_told_at = now
                log.exception("Budget failed unexpectedly", queues=[str(key) for key in asked])
        for _ in asked.keys() - granted.keys():
            self._observer.reconciled("bug", 0.0)
        return granted

    def _listen(
        self, gathered: Mapping[QueueKey, Gathered], decisions: Mapping[QueueKey, ScalingDecision]
    ) -> None:
        """Be told of the first message where none is and nobody is wanted."""
        if self._bell is not None:
            asleep = (key for key in self._claims if _sleeps(gathered[key], decisions.get(key)))
            self._bell.listen(self._claims[key] for key in asleep)

    # ----------------------------------------------------------------------------------------- act

    def _acts(self, gathered: Gathered, decision: ScalingDecision | None, *, is_due: bool) -> bool:
        """Start what the fleet needs; whether there is a reason to leave the status alone at this tick."""
        key, record = gathered.queue.key, self._records[gathered.queue.key]
        if record.is_busy or key in self._written:
            self._put_off(key, is_due=is_due)
            return True
        todo = plan(gathered, decision, shape=is_due)
        if is_due or (not todo.is_empty and not self._backs_off(key, todo)):
            self._start(key, partial(self._carry_out, gathered, todo, is_due=is_due))
            return True
        return False

    def _backs_off(self, key: QueueKey, todo: Plan) -> bool:
        """The like of `todo` failed lately. A size does not wait for a shape that is refused."""
        return self._work.backs_off(key) if todo.shape else self._sizing.is_on((key, todo.grows))

    def _put_off(self, key: QueueKey, *, is_due: bool) -> None:
        """Look again at the next tick: a write for `key` is under way, or was when this one gathered."""
        if is_due:
            self._work.done(key)
            self._drifted.add(key)

    async def _carry_out(self, gathered: Gathered, todo: Plan, *, is_due: bool) -> None:
        key, record, started = gathered.queue.key, self._records[gathered.queue.key], self._clock()
        outcome = await carry_out(self._fleet, gathered.queue, todo)
        record.outcome = outcome.after(record.outcome, shaped=is_due or todo.shape)
        self._observer.reconciled(outcome.word, self._clock() - started)
        if outcome.size is not None and todo.decision is not None:
            done = replace(todo.decision, replicas=outcome.size)
            self._observer.scaled(key, done, gathered.fleet.desired)
            log.info("Fleet scaled", queue=str(key), was=gathered.fleet.desired, **_facts(done))
        await self._telling.tell(gathered, todo.decision, is_granted=False)
        self._give_back(key, todo, outcome)

    def _give_back(self, key: QueueKey, todo: Plan, outcome: Outcome) -> None:
        """Plan the next try of what failed; of a shape that failed before and was not tried it is planned."""
        if todo.is_sized and outcome.sizing is None:
            self._sizing.forget((key, todo.grows))
        if outcome.failure is not None:
            pause = self._pause(key, todo, outcome, outcome.failure)
            trouble = outcome.failure.message
            log.warning(
                "Fleet not written", queue=str(key), trouble=trouble, again_in_seconds=round(pause, 1)
            )
        elif self._records[key].outcome.went_well:
            self._work.done(key)

    def _pause(self, key: QueueKey, todo: Plan, outcome: Outcome, failure: Failure) -> float:
        """Seconds until the next try: of the size alone, where that failed, sooner than of all."""
        pause = self._work.retry(key, failure.least_seconds, failure.longest_seconds)
        if (sizing := outcome.sizing) is None:
            return pause
        longest = min(LONGEST_SIZING_RETRY_SECONDS, sizing.longest_seconds)
        return min(pause, self._sizing.failed((key, todo.grows), sizing.least_seconds, longest))

    def _tell_reclaimed(self) -> None:
        """Count what came back, and tell whoever looks at the AstridQueue."""
        for key, found in self._recovery.take() if self._recovery is not None else ():
            if key in self._records:
                self._observer.reclaimed(key, found.messages + found.delayed)
                event = self._telling.event(self._records[key].subject, "OrphansReclaimed", found.sentence)
                self._start_beside(event, f"tell {key}")

    # --------------------------------------------------------------------------------------- tasks

    def _start(self, key: QueueKey, write: Write) -> None:
        self._records[key].task = asyncio.create_task(self._guarded(key, write), name=f"write {key}")

    async def _guarded(self, key: QueueKey, write: Write) -> None:
        """Run one piece of writing; whatever it raises, the loop lives on and the key is tried again."""
        try:
            await write()
        except Exception:
            self._work.retry(key)
            self._observer.reconciled("bug", 0.0)
            log.exception("Reconciliation failed unexpectedly", queue=str(key))
        finally:
            self._written.add(key)

    def _forget(self, key: QueueKey, record: Record) -> None:
        self._work.drop(key)
        self._sizing.forget((key, True))
        self._sizing.forget((key, False))
        self._observer.forgot(key)
        if record.task is not None:
            record.task.cancel()
        self._start_beside(self._fleet.remove(key), f"remove {key}")

    def _start_beside(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.create_task(work, name=name)
        self._beside.add(task)
        task.add_done_callback(self._beside.discard)

    async def _end_tasks(self) -> None:
        for task in (tasks := [*self._records.tasks(), *self._beside]):
            task.cancel()
        for task in tasks:
            with suppress(asyncio.CancelledError):
                await task


async def _breathing(each: Mapping[K, V]) -> AsyncIterator[tuple[K, V]]:
    """The items of `each`, as it is now; what else waits in the event loop goes on in between."""
    for number, item in enumerate(list(each.items()), start=1):
        yield item
        if number % AT_ONE_GO == 0:
            await asyncio.sleep(0)


def _sleeps(gathered: Gathered, decision: ScalingDecision | None) -> bool:
    """The queue is known to hold no message that could be worked on now, and nobody is wanted for it."""
    demand = gathered.reading.demand
    return decision is not None and not decision.replicas and demand is not None and not demand.outstanding


def _is_held(reading: DemandReading) -> bool:
    """Somebody holds messages of the queue, or is to hold them once they are due."""
    return reading.demand is not None and bool(reading.demand.running or reading.demand.delayed)


def _complete(reading: DemandReading, orphans: int | None, start_seconds: float | None) -> DemandReading:
    """`reading` with what its source does not know of orphans and starts."""
    demand = reading.demand
    if demand is None:
        return reading
    found = demand.orphans if orphans is None else orphans
    starts = start_seconds if demand.start_seconds is None else demand.start_seconds
    return replace(reading, demand=replace(demand, orphans=found, start_seconds=starts))


def _facts(decision: ScalingDecision) -> dict[str, Any]:
    return {"to": decision.replicas, "reason": decision.reason.value, "why": decision.message}
