"""How long a message waited: from when it was sent, or was due, until its task starts.

Owns the bounds within which waits are counted and what is noted on a message for it. The times are those of
the clocks of whoever sent and whoever starts: a wait is as exact as these agree, and never below zero. Pure.
"""

from bisect import bisect_left
from collections.abc import MutableMapping
from math import isfinite
from typing import Any

#: Waits are counted up to each of these, in seconds, and beyond; the operator's own are the same.
BOUNDS_S = (0.5, 2, 10, 30, 60, 120, 600, 3600)
#: Longer than this, in seconds, nothing waits: such a time was not written by Dramatiq.
LONGEST_WAIT_S = 366 * 86400.0
#: Option of a message: its ETA in ms, which Dramatiq takes off when the time has come.
DUE = "due_timestamp"


def note_due(options: MutableMapping[str, Any]) -> None:
    """Keep the ETA of a delayed message where it is found when the message starts."""
    if (eta := _milliseconds(options.get("eta"))) is not None:
        options[DUE] = eta


def waited_seconds(sent_ms: Any, options: MutableMapping[str, Any], now_ms: float) -> float | None:
    """Seconds until `now_ms` since the message was sent, sent again, or due, whichever came last.

    None where that is not known.
    """
    told = (sent_ms, options.get("requeue_timestamp"), options.get(DUE))
    times = [each for each in map(_milliseconds, told) if each is not None]
    if not times:
        return None
    seconds = max(0.0, (now_ms - max(times)) / 1000)
    return seconds if seconds <= LONGEST_WAIT_S else None


def counts_of(waited_s: float) -> dict[str, float]:
    """What one start adds to the counters: its wait, and one to the least bound that it kept."""
    place = bisect_left(BOUNDS_S, waited_s)
    name = f"waited_{BOUNDS_S[place]:g}" if place < len(BOUNDS_S) else "waited_longer"
    return {"wait_seconds": waited_s, name: 1}


def _milliseconds(value: Any) -> float | None:
    """A time as Dramatiq writes it; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
        return None
    return value
