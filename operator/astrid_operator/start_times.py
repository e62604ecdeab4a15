"""How long a member takes from being asked for to being ready, learned by watching fleets.

Owns the samples and which of them is usual. Pure: no clock, no client. A member that was ready when it was
first seen tells nothing.
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
        self._samples: deque[float] = deque(maxlen=KEPT)

    def saw(self, members: Iterable[Member]) -> None:
        """Take in how the members stand now; who is not among them has ended."""
        before, self._asked_at = self._asked_at, {}
        for member in members:
            if member.phase in _COMING:
                self._asked_at[member.name] = min(before.get(member.name, member.since), member.since)
            elif member.phase is MemberPhase.READY and member.name in before:
                self._samples.append(min(LONGEST_SECONDS, max(0.0, member.since - before[member.name])))

    def usual_seconds(self) -> float | None:
        """What most starts did not exceed; None: none was seen yet."""
        if not self._samples:
            return None
        ordered = sorted(self._samples)
        return ordered[math.ceil(PART * len(ordered)) - 1]
