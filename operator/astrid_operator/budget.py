"""Who gets the slots when there are fewer than all queues want.

Owns the sharing of one kind of slot (local worker processes; GPUs are the same sum). Pure: no clock, no
client and no settings. Never grants more than was decided for a queue, nor more than is free right now: slots
that are still held, by leaving members too, are handed on when they have been given back.

    held fast -> floors -> what demand wants -> what is kept idle

each class by class (priority 1 first), and within a class by weighted max-min.
"""

import heapq
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from astrid_operator.astrid_queue import QueueKey

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


def grants(claims: Sequence[Claim], capacity: int, slot: str = "slot") -> dict[QueueKey, Grant]:
    """A grant for every claim; together they take at most `capacity` slots, what is held fast apart.

    `slot` is the word for one of them in the sentences. A member that takes more slots than there are counts
    as taking all of them, so that it can run alone.
    """
    claims = [replace(claim, slots_each=max(1, min(claim.slots_each, capacity))) for claim in claims]
    targets = _targets(claims, capacity)
    allowed = _into_free_slots(claims, targets, capacity)
    return {
        claim.key: Grant(allowed[claim.key], _why(claim, targets[claim.key], allowed, claims, capacity, slot))
        for claim in claims
    }


def _targets(claims: Sequence[Claim], capacity: int) -> Targets:
    """Members that each queue should end up with, whoever holds the slots now."""
    given = {claim.key: claim.decided if claim.is_held_fast else 0 for claim in claims}
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
    for priority in sorted({claim.priority for claim in claims}):
        yield [claim for claim in claims if claim.priority == priority]


def _fill(claims: Sequence[Claim], given: Targets, limit: Limit, left: int) -> int:
    """Raise the claims of one class, always the one with the least for its weight; returns the slots left."""

    def entry(number: int) -> tuple[float, int, int]:
        claim = claims[number]
        # of equals, the one that has members already: nobody starts what another would have to end
        return (given[claim.key] + 1) * claim.slots_each / claim.weight, -claim.current, number

    heap = [entry(number) for number, claim in enumerate(claims) if given[claim.key] < limit(claim)]
    heapq.heapify(heap)
    while heap:
        number = heapq.heappop(heap)[2]
        claim = claims[number]
        if claim.slots_each > left:
            continue
        given[claim.key] += 1
        left -= claim.slots_each
        if given[claim.key] < limit(claim):
            heapq.heappush(heap, entry(number))
    return left


def _into_free_slots(claims: Sequence[Claim], targets: Targets, capacity: int) -> Targets:
    """`targets`, where growth waits for slots that are free already, the first class first."""
    free = capacity - sum(claim.held for claim in claims)
    allowed: Targets = {}
    for members in _classes(claims):
        for claim in members:
            growth = targets[claim.key] - claim.current
            if growth > 0:
                growth = min(growth, max(0, free) // claim.slots_each)
                free -= growth * claim.slots_each
            allowed[claim.key] = claim.current + growth
    return allowed


def _why(
    claim: Claim, target: int, allowed: Targets, claims: Sequence[Claim], capacity: int, slot: str
) -> str:
    if allowed[claim.key] >= claim.decided:
        return ""
    holders = [f"{other.key.name} {other.held}" for other in claims if other.held and other.key != claim.key]
    by_whom = f", held by {', '.join(holders)}" if holders else ""
    if target > allowed[claim.key]:
        return f"waiting for {slot}s to be given back{by_whom}"
    needs = f" and one member takes {claim.slots_each}" if claim.slots_each > 1 else ""
    return f"{capacity} {slot}s in all{needs}{by_whom}"
