"""Shares one kind of slot among queues, tick by tick, so that what was granted stays for a while.

Owns what sharing must remember: since when each queue has had less than it could use, and how long its
members take to start. The sum itself is `budget.py`'s; what is withheld is said in the decision
(`ScaleLimited`). Has no client, and no clock but the one it is given.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Mapping

from astrid_operator.astrid_queue import AstridQueue, QueueKey
from astrid_operator.budget import Claim, Grant, grants
from astrid_operator.fleet import FleetState, MemberPhase
from astrid_operator.scaling import MembersSeen, Reason, ScalingDecision, limited
from astrid_operator.start_times import StartTimes

Asked = Mapping[QueueKey, tuple[AstridQueue, FleetState, ScalingDecision]]

#: What the members of a queue say they do; None: they do not say.
SeenMembers = Callable[[QueueKey], MembersSeen | None]

#: A fleet that has its size for one of these reasons is not touched for anybody's sake.
_HELD_FAST = (Reason.PAUSED, Reason.BROKER_UNREACHABLE)

#: Set-ups that a lull must last for a member to be lent in it: it goes, and another comes back.
LENT_FOR_SET_UPS = 2.0

#: Seconds for which members that were granted count as there before anybody has seen them.
PROMISED_SECONDS = 5.0

#: Seconds in which what a queue has had comes to count a third: an odd slot is made up for within this time.
HAD_SECONDS = 600.0

#: Seconds that a member is taken to need for its start until one was seen to start.
USUAL_START_SECONDS = 5.0


class Sharing:
    """One kind of slot: `slots_each` of a queue's members, and the word for it in sentences."""

    def __init__(
        self,
        slot: str,
        slots_each: Callable[[AstridQueue], int],
        seen: SeenMembers,
        clock: Callable[[], float],
    ) -> None:
        self._slot = slot
        self._slots_each = slots_each
        self._seen = seen
        self._clock = clock
        self._short_since: dict[QueueKey, float] = {}
        self._served_at: dict[QueueKey, float] = {}
        self._starts: defaultdict[QueueKey, StartTimes] = defaultdict(StartTimes)
        #: Members that each queue was granted and that are not seen yet: how many in all, and since when.
        self._promised: dict[QueueKey, tuple[int, float]] = {}
        #: Slot-seconds that each queue has had, the older the less, and until when they are counted.
        self._had: dict[QueueKey, float] = {}
        self._counted_at = clock()

    def share(
        self, asked: Asked, capacity: int, others: Mapping[QueueKey, int]
    ) -> dict[QueueKey, ScalingDecision]:
        """The decisions as granted out of `capacity`; `others` hold so many slots and ask for nothing."""
        now = self._clock()
        claims = {key: self._claim(*each, now) for key, each in asked.items()}
        gone = [Claim(key, 1, 0, 0, 0, draining=slots) for key, slots in others.items()]
        granted = grants([*claims.values(), *gone], capacity, self._slot)
        self._remember(claims, granted, now)
        self._promise(asked, granted, now)
        return {
            key: limited(decision, granted[key].members, granted[key].why, granted[key].held_by)
            for key, (_, _, decision) in asked.items()
        }

    def _claim(self, queue: AstridQueue, fleet: FleetState, decision: ScalingDecision, now: float) -> Claim:
        spec, starts = queue.spec, self._starts[queue.key]
        starts.saw(fleet.members)
        set_up_seconds = starts.usual_seconds() or USUAL_START_SECONDS
        lends = decision.lull_seconds >= LENT_FOR_SET_UPS * set_up_seconds
        least_idle = 0.0 if lends else set_up_seconds
        idle, busy = _who_may_leave(fleet, self._seen(queue.key), set_up_seconds, least_idle, now)
        last = busy if lends else 0
        return Claim(
            key=queue.key,
            priority=spec.priority,
            decided=decision.replicas,
            # what members that leave still run needs no others
            wanted=min(decision.wanted, fleet.current) if decision.lull_seconds else decision.wanted,
            current=max(fleet.current, self._promised_to(queue.key, now)),
            draining=fleet.draining,
            floor=spec.floor if spec.enabled else 0,
            weight=spec.scaling.weight,
            slots_each=self._slots_each(queue),
            is_held_fast=decision.reason in _HELD_FAST,
            may_shrink=decision.may_shrink,
            idle=idle,
            busy=busy,
            last=last,
            short_seconds=now - self._short_since.get(queue.key, now),
            unserved_seconds=now - self._served_at[queue.key] if queue.key in self._served_at else None,
            set_up_seconds=set_up_seconds,
            task_seconds=decision.task_seconds,
            had_slot_seconds=self._had.get(queue.key, 0.0),
            patience_seconds=spec.scaling.max_queue_age_seconds,
        )

    def _promised_to(self, key: QueueKey, now: float) -> int:
        """Members that it was granted lately, be they seen or not: nobody else is given their slots."""
        members, since = self._promised.get(key, (0, now))
        return members if now - since <= PROMISED_SECONDS else 0

    def _promise(self, asked: Asked, granted: Mapping[QueueKey, Grant], now: float) -> None:
        before, self._promised = self._promised, {}
        for key, (_, fleet, _) in asked.items():
            members = granted[key].members
            if members > fleet.current:
                known, since = before.get(key, (members, now))
                self._promised[key] = (members, since if known == members else now)

    def _remember(
        self, claims: Mapping[QueueKey, Claim], granted: Mapping[QueueKey, Grant], now: float
    ) -> None:
        """Who is short waits from the moment it became so; when it was last served is noted too.

        That is when it got something, and as long as it has its share: who wants more than that is not late.
        """
        for gone in (self._short_since.keys() | self._starts.keys() | self._had.keys()) - claims.keys():
            self._forget_wait(gone)
            self._starts.pop(gone, None)
            self._had.pop(gone, None)
        passed, self._counted_at = now - self._counted_at, now
        for key, claim in claims.items():
            self._had[key] = self._had.get(key, 0.0) * math.exp(-passed / HAD_SECONDS) + claim.held * passed
            members = granted[key].members
            if members >= min(claim.wanted, claim.decided):
                self._forget_wait(key)
                continue
            self._short_since.setdefault(key, now)
            if members > claim.current or members >= max(1, granted[key].share):
                self._served_at[key] = now

    def _forget_wait(self, key: QueueKey) -> None:
        self._short_since.pop(key, None)
        self._served_at.pop(key, None)


def _who_may_leave(
    fleet: FleetState, seen: MembersSeen | None, set_up_seconds: float, least_idle: float, now: float
) -> tuple[int | None, int]:
    """Members that have been idle for `least_idle` seconds, and busy ones; both are there for a start's time.

    None where nothing is known of single members: then any may leave.
    """
    if fleet.current and not fleet.members:
        return None, 0
    ready = [each for each in fleet.members if each.phase is MemberPhase.READY]
    settled = sum(now - each.since >= set_up_seconds for each in ready)
    if seen is None:
        return 0, settled
    idle = sum(each >= least_idle for each in seen.idle_seconds) + seen.stopped
    return min(idle, len(seen.idle_seconds), settled), max(0, settled - len(seen.idle_seconds))
