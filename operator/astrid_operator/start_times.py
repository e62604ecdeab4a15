"""How long a member takes from being asked for to fetching messages, learned by watching fleets.

Owns the samples and which of them is usual. Pure: no clock, no client. A member that was ready when it was
first seen tells nothing, nor does one that was ready before; one that is silent tells by its first word.
"""

import math
from collections import deque
from collections.abc import Iterable

from astrid_operator.fleet import Member, MemberPhase

#: Samples that are kept; fleets change, so the newest count.
KEPT = 20
#: The usual time is not exceeded by this part of them.
PART = 0.75
#: A start is not expected to take longer than this, in seconds, whatever once happened.
LONGEST_SECONDS = 600.0

_COMING = (MemberPhase.UNSCHEDULED, MemberPhase.STARTING)


class StartTimes:
    """One fleet's."""

    def __init__(self) -> None:
        self._asked_at: dict[str, float] = {}
        #: Those that have been ready: what starts in them anew was not asked for.
        self._up: set[str] = set()
        self._samples: deque[float] = deque(maxlen=KEPT)

    def saw(self, members: Iterable[Member]) -> None:
        """Take in how the members stand now; who is not among them has ended."""
        before, self._asked_at = self._asked_at, {}
        up, self._up = self._up, set()
        for member in members:
            asked_at = before.get(member.name)
            if member.name in up:
                self._up.add(member.name)
            elif member.phase in _COMING:
                self._asked_at[member.name] = min(before.get(member.name, member.since), member.since)
            elif member.phase is MemberPhase.READY and not member.is_silent:
                self._up.add(member.name)
                self._learn(asked_at, member.since)
            elif member.phase is MemberPhase.READY and asked_at is not None:
                self._asked_at[member.name] = asked_at

    def _learn(self, asked_at: float | None, ready_at: float) -> None:
        if asked_at is not None:
            self._samples.append(min(LONGEST_SECONDS, max(0.0, ready_at - asked_at)))

    def usual_seconds(self) -> float | None:
        """What most starts did not exceed; None: none was seen yet."""
        if not self._samples:
            return None
        ordered = sorted(self._samples)
        return ordered[math.ceil(PART * len(ordered)) - 1]
