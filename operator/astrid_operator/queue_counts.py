"""What the answers to one read of a queue mean: counts, and the demand that they and earlier ones add up to.

Owns the form in which `COUNT_QUEUE` answers and what tells one server from another. Pure: never connects.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from astrid_operator.delayed import EtaScan
from astrid_operator.scaling_values import Demand
from astrid_operator.throughput import COUNTERS, Counted, Estimates, counted


@dataclass(frozen=True, slots=True)
class Count:
    """The answer of `COUNT_QUEUE`."""

    ready: int
    outstanding: int
    delayed: int
    dead: int
    #: Since when the head waits, in ms since the epoch; negative: not known.
    since_ms: int
    #: Delayed messages that no worker has taken into its hands.
    delayed_listed: int
    #: How long messages waited, as `waits.waits_of` understands it; empty: nobody counted.
    waits: bytes
    #: What workers counted, and their records of presence; None: not to be had.
    counters: Counted | None
    presence: Mapping[bytes, bytes] | None
    #: First and last id of the list of delayed messages; empty: it has none.
    first_delayed: bytes = b""
    last_delayed: bytes = b""


def count_of(answer: Sequence[Any]) -> Count:
    """The answer of `COUNT_QUEUE` in its words."""
    line, presence, first_delayed, last_delayed = answer
    ready, outstanding, delayed, dead, since_ms, listed, *counters, waits = line.split(
        maxsplit=6 + len(COUNTERS)
    )
    return Count(
        ready=int(ready),
        outstanding=int(outstanding),
        delayed=int(delayed),
        dead=int(dead),
        since_ms=int(since_ms),
        delayed_listed=int(listed),
        waits=waits if waits.strip(b"- ") else b"",
        counters=counted(counters),
        presence=_pairs(presence),
        first_delayed=first_delayed or b"",
        last_delayed=last_delayed or b"",
    )


def _pairs(presence: Any) -> dict[bytes, bytes] | None:
    """A hash as scripts answer it, whatever the protocol."""
    if presence is None or isinstance(presence, dict):
        return presence
    return dict(zip(presence[::2], presence[1::2], strict=True))


def demand_of(
    count: Count, now_ms: float, estimates: Estimates, scan: EtaScan, listed_eta_ms: float | None = None
) -> Demand:
    """What was counted and what was learned, as demand.

    `now_ms` is the server's time, `listed_eta_ms` the next ETA of those that nobody holds: that is known
    before a long walk is over.
    """
    # While anything is outstanding somebody is needed anyway, and ETAs are not looked for.
    etas = scan.etas(now_ms) if count.delayed and not count.outstanding else None
    known = None if etas is None or etas.is_unreadable else etas
    none = None if count.delayed else 0
    return Demand(
        ready=count.ready,
        running=max(0, count.outstanding - count.ready),
        delayed=count.delayed,
        dead=count.dead,
        oldest_seconds=max(0.0, (now_ms - count.since_ms) / 1000) if count.since_ms >= 0 else None,
        due=none if known is None else known.due,
        soon=none if known is None else known.soon,
        delayed_unread=0 if known is None else known.unread,
        next_due_seconds=None if known is None else _sooner(known.next_due_seconds, listed_eta_ms, now_ms),
        service_seconds=estimates.service_seconds,
        service_spread_seconds=estimates.service_spread_seconds,
        arrivals_per_s_fast=estimates.arrivals_per_s_fast,
        arrivals_per_s_slow=estimates.arrivals_per_s_slow,
        finished=count.counters.ended if count.counters else None,
        failed=count.counters.failed if count.counters else None,
        task_seconds=count.counters.seconds if count.counters else None,
        waits=count.waits,
    )


def _sooner(seconds: float | None, eta_ms: float | None, now_ms: float) -> float | None:
    """Until the next message is due, of those that are not."""
    known = [
        each for each in (seconds, None if eta_ms is None else (eta_ms - now_ms) / 1000) if each is not None
    ]
    return min((each for each in known if each > 0), default=None)


def identity_of(server: Any, replication: Any) -> str | None:
    """What changes when another server answers: run id and role; None where the user may not ask."""
    if isinstance(server, Exception) or isinstance(replication, Exception) or "run_id" not in server:
        return None
    return f"{server['run_id']}/{replication.get('role', '')}"
