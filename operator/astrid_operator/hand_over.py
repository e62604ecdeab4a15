"""Whether slots change hands now, and how soon to look again while they do.

What was given back lies idle until a tick sees it, and so does who was asked to leave and has stopped. Pure:
no clock, and nothing but what a tick knows.
"""

from collections.abc import Mapping

from astrid_operator.astrid_queue import QueueKey
from astrid_operator.scaling_values import Reason, ScalingDecision
from astrid_operator.sharing import Asked

#: Seconds between two ticks while slots change hands.
SECONDS = 0.25
#: Part of the time that ticks may then take.
MOST_TICKING = 0.1


def is_under_way(asked: Asked, granted: Mapping[QueueKey, ScalingDecision]) -> bool:
    """Somebody waits for slots, and members leave or are asked to. Who was granted nothing stays as it is."""
    if not any(decision.reason is Reason.SCALE_LIMITED for decision in granted.values()):
        return False
    return any(
        fleet.draining > 0 or (key in granted and granted[key].replicas < fleet.current)
        for key, (_, fleet, _) in asked.items()
    )


def tick_seconds(usual: float, took: float, *, is_under_way: bool) -> float:
    """From the begin of a tick that `took` so long to that of the next."""
    return min(usual, max(SECONDS, took / MOST_TICKING)) if is_under_way else usual
