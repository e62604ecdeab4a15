"""Which members of a fleet leave first.

Owns the order, and nothing else: how many leave is decided elsewhere, how they leave is the fleet's. Pure.
The same order holds wherever members can be chosen one by one.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from astrid_operator.fleet import MemberPhase


@dataclass(frozen=True, slots=True)
class Candidate:
    """One member that might leave."""

    name: str
    phase: MemberPhase
    #: Runs an older manifest than the present one.
    is_outdated: bool = False
    #: Whether it runs a message; None: it does not say.
    is_busy: bool | None = None
    #: Seconds since it last had one; None: it has one, or does not say.
    idle_seconds: float | None = None


#: The less a member is worth, the sooner it goes.
_WORTH = {
    MemberPhase.FAILED: 0,
    MemberPhase.UNSCHEDULED: 1,
    MemberPhase.STARTING: 2,
    MemberPhase.READY: 3,
    MemberPhase.DRAINING: 4,
}


def leaving_order(members: Iterable[Candidate]) -> list[Candidate]:
    """Those that do no work yet, then the longest idle, then those that do not say, and the busy ones last.

    Among equals an outdated one goes first; the newest name goes before an older one.
    """
    by_name = sorted(members, key=lambda each: each.name, reverse=True)
    return sorted(by_name, key=_reluctance)


def _reluctance(member: Candidate) -> tuple[int, int, bool, float]:
    busy = {False: 0, None: 1, True: 2}[member.is_busy]
    return _WORTH[member.phase], busy, not member.is_outdated, -(member.idle_seconds or 0.0)
