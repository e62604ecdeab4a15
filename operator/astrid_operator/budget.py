"""Who gets the slots when there are fewer than all queues want.

Owns the sharing of one kind of slot (local worker processes; GPUs are the same sum). Pure: no clock, no
client and no settings. Never grants more than was decided for a queue, nor more than is free right now: slots
that are still held, by leaving members too, are handed on when they have been given back.

    held fast, and members that may not be taken -> floors -> what demand wants -> what is kept idle

each class by class (priority 1 first), and within a class by weighted max-min. Who waits too long gains
weight, and then class. A slot is moved only for whoever has waited longer than the move costs: from an idle
member, and from one that works (it finishes first) only for whoever has waited for several times that. A
higher class whose tasks take at least as long as a start does not wait: one task alone is worth the move.
"""

import heapq
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from astrid_operator.astrid_queue import QueueKey

#: Set-ups that a queue must have waited for before members are asked to leave for it: idle ones, and those
#: that work.
PATIENCE_SET_UPS_IDLE = 1.0
PATIENCE_SET_UPS_BUSY = 3.0

#: Members below its share from which an equal is no mere fluctuation.
LACKS_MUCH = 2

Targets = dict[QueueKey, int]
Limit = Callable[["Claim"], int]


@dataclass(frozen=True, slots=True)
class Claim:
    """What one queue has, and what it would have if nothing were short. Counts are members."""

    key: QueueKey
    #: The class: 1 is served first.
    priority: int
    #: What was decided for the queue; never is more granted.
    decided: int
    #: What demand alone asks for. Members above it are kept idle, and lent to whoever needs them.
    wanted: int
    #: Members that are there and not leaving.
    current: int
    #: Members that are leaving, and hold their slots until they are gone.
    draining: int = 0
    #: So many before any queue gets more than its floor.
    floor: int = 0
    #: Share within the class, against the other weights there.
    weight: int = 1
    #: Slots that one member takes.
    slots_each: int = 1
    #: The size must not be touched now (paused, or demand is not known).
    is_held_fast: bool = False
    #: False: it may grow, but none of its members is taken (nobody knows yet that they are not needed).
    may_shrink: bool = True
    #: Of `current`, those that have had nothing to do for long enough; None: not known, any may be taken.
    idle: int | None = None
    #: Of `current`, those that work, and have been there for long enough to leave when they are done.
    busy: int = 0
    #: Of `busy`, those that run the last that there is for them: nothing waits, and nothing is likely to come
    #: before they would be back.
    last: int = 0
    #: Seconds for which it has had fewer than it could use, without a break.
    short_seconds: float = math.inf
    #: Of these, those since it last got a member or had its share; None: it never did.
    unserved_seconds: float | None = None
    #: Seconds that moving a slot to it costs.
    set_up_seconds: float = 0.0
    #: Seconds that one task of it takes; None: not known.
    task_seconds: float | None = None
    #: Slot-seconds that it has had lately: of equals with as many members, who had less is served first.
    had_slot_seconds: float = 0.0
    #: Seconds after which its waiting counts for more.
    patience_seconds: float = math.inf

    @property
    def lateness(self) -> float:
        """How many times longer than it should it has waited."""
        waited = self.short_seconds if self.unserved_seconds is None else self.unserved_seconds
        return 0.0 if math.isinf(waited) else waited / self.patience_seconds

    @property
    def rank(self) -> int:
        """Its class; each time that it has waited for too long once more, it is served one class earlier."""
        return max(1, self.priority - max(0, int(self.lateness) - 1))

    @property
    def share(self) -> float:
        """Its weight, which grows while it waits too long."""
        return self.weight * max(1.0, self.lateness)

    @property
    def is_worth_a_move(self) -> bool:
        """A single task pays for the start of who runs it."""
        return self.task_seconds is not None and self.task_seconds >= self.set_up_seconds

    @property
    def kept(self) -> int:
        """Members that are its own, whoever else wants their slots."""
        if self.is_held_fast:
            return self.decided
        return 0 if self.may_shrink else min(self.current, self.decided)

    @property
    def held(self) -> int:
        """Slots that its members hold."""
        return (self.current + self.draining) * self.slots_each


@dataclass(frozen=True, slots=True)
class Grant:
    """How many members a queue may have now."""

    members: int
    #: Why that is fewer than were decided; empty: it is not fewer.
    why: str = ""
    #: Then: the other queues that hold slots, those that hold most first.
    held_by: tuple[str, ...] = ()
    #: What it should end up with, whoever holds the slots now.
    share: int = 0


def grants(claims: Sequence[Claim], capacity: int, slot: str = "slot") -> dict[QueueKey, Grant]:
    """A grant for every claim; together they take at most `capacity` slots, what is held fast apart.

    `slot` is the word for one of them in the sentences. A member that takes more slots than there are counts
    as taking all of them, so that it can run alone.
    """
    claims = [replace(claim, slots_each=max(1, min(claim.slots_each, capacity))) for claim in claims]
    targets = _targets(claims, capacity)
    allowed = _allowed(claims, targets, capacity)
    return {claim.key: _grant(claim, targets, allowed, claims, capacity, slot) for claim in claims}


def _targets(claims: Sequence[Claim], capacity: int) -> Targets:
    """Members that each queue should end up with, whoever holds the slots now."""
    given = {claim.key: claim.kept for claim in claims}
    left = capacity - sum(given[claim.key] * claim.slots_each for claim in claims)
    limits: tuple[Limit, ...] = (
        lambda claim: min(claim.floor, claim.decided),
        lambda claim: min(claim.wanted, claim.decided),
        lambda claim: claim.decided,
    )
    for limit in limits:
        for members in _classes(claims):
            left = _fill(members, given, limit, left)
    return given


def _classes(claims: Sequence[Claim]) -> Iterator[list[Claim]]:
    for rank in sorted({claim.rank for claim in claims}):
        yield [claim for claim in claims if claim.rank == rank]


def _fill(claims: Sequence[Claim], given: Targets, limit: Limit, left: int) -> int:
    """Raise the claims of one class, always the one with the least for its weight; returns the slots left."""

    def entry(number: int) -> tuple[float, int, float, int]:
        claim = claims[number]
        level = (given[claim.key] + 1) * claim.slots_each / claim.share
        # of equals, the one that has members already: nobody starts what another would have to end
        return level, -claim.current, claim.had_slot_seconds / claim.weight, number

    heap = [entry(number) for number, claim in enumerate(claims) if given[claim.key] < limit(claim)]
    heapq.heapify(heap)
    while heap:
        number = heapq.heappop(heap)[3]
        claim = claims[number]
        if claim.slots_each > left:
            continue
        given[claim.key] += 1
        left -= claim.slots_each
        if given[claim.key] < limit(claim):
            heapq.heappush(heap, entry(number))
    return left


def _allowed(claims: Sequence[Claim], targets: Targets, capacity: int) -> Targets:
    """What each may have now: growth from free slots, and less only as far as others press for it."""
    growth = _growth(claims, targets, capacity)
    taken = _taken(claims, targets, growth, capacity)
    return {
        claim.key: claim.current + growth[claim.key]
        if growth[claim.key]
        else (claim.decided if claim.is_held_fast else min(claim.current, claim.decided)) - taken[claim.key]
        for claim in claims
    }


def _growth(claims: Sequence[Claim], targets: Targets, capacity: int) -> Targets:
    """New members that fit into the slots that are free now, the first class first."""
    free = capacity - sum(claim.held for claim in claims)
    growth: Targets = {}
    for members in _classes(claims):
        for claim in members:
            wished = max(0, targets[claim.key] - claim.current)
            growth[claim.key] = min(wished, max(0, free) // claim.slots_each)
            free -= growth[claim.key] * claim.slots_each
    return growth


def _taken(claims: Sequence[Claim], targets: Targets, growth: Targets, capacity: int) -> Targets:
    """Members that are to leave for others: no more than these wait for, the last class first."""
    taken = {claim.key: 0 for claim in claims}
    givers = [claim for members in _classes(claims) for claim in members][::-1]
    ends = [replace(claim, wanted=max(0, claim.wanted - claim.last)) for claim in claims]
    later = _targets(ends, capacity) if any(claim.last for claim in claims) else targets
    passes: tuple[tuple[Targets, Limit, bool], ...] = (
        (targets, lambda claim: claim.current if claim.idle is None else claim.idle, False),
        (targets, lambda claim: claim.busy, True),
        (later, lambda claim: claim.last, False),
    )
    for aims, limit, of_busy in passes:
        for claim in givers:
            need = _pressing(claims, aims, growth, capacity, claim.rank, of_busy=of_busy)
            need -= sum(taken[each.key] * each.slots_each for each in claims)
            over = min(claim.current, claim.decided) - aims[claim.key] - taken[claim.key]
            taken[claim.key] += max(0, min(over, limit(claim), math.ceil(need / claim.slots_each)))
    return taken


def _pressing(
    claims: Sequence[Claim], targets: Targets, growth: Targets, capacity: int, rank: int, *, of_busy: bool
) -> int:
    """Slots that those of class `rank` must give back for who has waited long enough for that.

    Without what comes back anyway. `of_busy`: by members that work.
    """
    set_ups = PATIENCE_SET_UPS_BUSY if of_busy else PATIENCE_SET_UPS_IDLE
    lacks = {claim.key: max(0, targets[claim.key] - claim.current - growth[claim.key]) for claim in claims}
    missing = sum(
        lacks[claim.key] * claim.slots_each
        for claim in claims
        if _presses_at_once(claim, lacks[claim.key], rank)
        or claim.short_seconds >= set_ups * claim.set_up_seconds
    )
    grown = sum(growth[claim.key] * claim.slots_each for claim in claims)
    free = capacity - sum(claim.held for claim in claims) - grown
    coming = sum(
        (claim.draining + max(0, claim.current - claim.decided)) * claim.slots_each for claim in claims
    )
    return missing - free - coming


def _presses_at_once(claim: Claim, lacks: int, rank: int) -> bool:
    """It need not wait before members of class `rank` are asked for it."""
    lacks_much = claim.rank == rank and lacks >= LACKS_MUCH
    return claim.is_worth_a_move and (claim.rank < rank or lacks_much)


def _grant(
    claim: Claim, targets: Targets, allowed: Targets, claims: Sequence[Claim], capacity: int, slot: str
) -> Grant:
    members = allowed[claim.key]
    if members >= claim.decided:
        return Grant(members, share=targets[claim.key])
    holders = sorted(
        (each for each in claims if each.held and each is not claim), key=lambda each: -each.held
    )
    by_whom = f", held by {', '.join(f'{each.key.name} {each.held}' for each in holders)}" if holders else ""
    if targets[claim.key] > members:
        why = f"waiting for {slot}s to be given back{by_whom}"
        if claim.last and members < claim.current:
            why = "what it runs is its last for now, and others wait"
    else:
        needs = f" and one member takes {claim.slots_each}" if claim.slots_each > 1 else ""
        why = f"{capacity} {slot}s in all{needs}{by_whom}"
    return Grant(members, why, tuple(str(each.key) for each in holders), targets[claim.key])
