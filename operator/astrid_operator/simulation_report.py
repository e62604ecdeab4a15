"""What a simulation came to: per queue and in all, for people and as JSON.

Owns the numbers that are reported and their words. Simulates nothing.
"""

import math
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from astrid_operator.simulation import QueueOutcome
from astrid_operator.simulation_timeline import Span, Timeline, spans, together

#: Columns of a terminal that a picture takes.
PICTURE_COLUMNS = 72

_BARS = " ▁▂▃▄▅▆▇█"


@dataclass(frozen=True, slots=True)
class Waits:
    """Seconds from enqueueing, or from the ETA of what was delayed or retried, to the start of the attempt
    that finished; None where nothing was finished.
    """

    p50: float | None
    p95: float | None
    p99: float | None
    max: float | None


@dataclass(frozen=True, slots=True)
class Delays:
    """What was delayed."""

    #: Messages that were sent with a delay.
    delayed: int
    #: Attempts that failed and were retried.
    retried: int
    #: Messages in the dead letters: their retries were spent.
    dead: int


_NO_DELAYS = Delays(delayed=0, retried=0, dead=0)


@dataclass(frozen=True, slots=True)
class Summary:
    """One queue, or all of them together. Times in seconds."""

    name: str
    messages: int
    finished: int
    #: Attempts that were cut off because their member was killed.
    interrupted: int
    waits: Waits
    #: Members' time from being asked for until gone: what is paid for.
    pod_seconds: float
    #: Of the threads' time that was paid for, the part in which they worked; None: nothing was paid for.
    busy_share: float | None
    most_members: int
    scale_ups: int
    scale_downs: int
    #: When the last message was done, or dead; None: none was.
    drained_at: float | None
    decisions: int
    #: None: nothing was delayed, and nothing failed.
    delays: Delays | None = None
    #: Attempts that were ended, as failed, at `timeoutSeconds`; each is a retry or a dead letter of `delays`.
    timed_out: int = 0


def summary_of(outcome: QueueOutcome) -> Summary:
    """The numbers of one queue."""
    return _summary(str(outcome.queue.key), [outcome])


def total_of(outcomes: Sequence[QueueOutcome]) -> Summary:
    """The numbers of all queues together; `most_members` is then the sum of each queue's most."""
    return _summary("all", outcomes)


def _summary(name: str, outcomes: Sequence[QueueOutcome]) -> Summary:
    waits = array("d")
    for each in outcomes:
        waits.extend(each.waits)
    resizes = [resize for each in outcomes for resize in each.resizes]
    paid = sum(each.pod_seconds * each.queue.spec.slots for each in outcomes)
    ups = sum(resize.to > resize.was for resize in resizes)
    return Summary(
        name=name,
        messages=sum(each.messages for each in outcomes),
        finished=sum(each.finished for each in outcomes),
        interrupted=sum(each.interrupted for each in outcomes),
        waits=waits_of(waits),
        pod_seconds=sum(each.pod_seconds for each in outcomes),
        busy_share=sum(each.busy_seconds for each in outcomes) / paid if paid else None,
        most_members=sum(each.most_members for each in outcomes),
        scale_ups=ups,
        scale_downs=len(resizes) - ups,
        drained_at=max((each.drained_at for each in outcomes if each.drained_at is not None), default=None),
        decisions=sum(each.decisions for each in outcomes),
        delays=_delays(outcomes),
        timed_out=sum(each.timed_out for each in outcomes),
    )


def _delays(outcomes: Sequence[QueueOutcome]) -> Delays | None:
    delayed = sum(each.delayed for each in outcomes)
    retried = sum(each.retried for each in outcomes)
    dead = sum(each.dead for each in outcomes)
    return Delays(delayed, retried, dead) if delayed or retried or dead else None


def waits_of(waits: Iterable[float]) -> Waits:
    """Percentiles by nearest rank."""
    ordered = sorted(waits)
    if not ordered:
        return Waits(None, None, None, None)

    def rank(share: float) -> float:
        return ordered[max(0, math.ceil(share * len(ordered)) - 1)]

    return Waits(rank(0.50), rank(0.95), rank(0.99), ordered[-1])


# ------------------------------------------------------------------------------------------ for people

_HEAD = (
    f"{'queue':<28}{'messages':>10}{'wait p50':>10}{'p95':>9}{'p99':>9}{'max':>9}"
    f"{'pod-hours':>11}{'busy':>6}{'most':>7}{'up':>8}{'down':>8}{'cut':>5}"
)
#: Columns for loads of which something was delayed or failed.
_HEAD_OF_DELAYS = f"{'delayed':>9}{'retried':>9}{'dead':>7}"


def table(outcomes: Sequence[QueueOutcome], most_rows: int) -> str:
    """One line per queue, those that waited longest first, and one for all; waits in seconds."""
    rows = sorted((summary_of(each) for each in outcomes), key=_longest_wait, reverse=True)
    has_delays = any(row.delays for row in rows)
    head = _HEAD + _HEAD_OF_DELAYS if has_delays else _HEAD
    lines = [head, *(_line(row, has_delays=has_delays) for row in rows[:most_rows])]
    if len(rows) > most_rows:
        lines.append(f"… and {len(rows) - most_rows} more queues, none of which waited longer")
    if len(rows) > 1:
        lines.append(_line(total_of(outcomes), has_delays=has_delays))
    return "\n".join(lines)


def verdict(outcomes: Sequence[QueueOutcome]) -> str:
    """What a person should know besides the table."""
    total = total_of(outcomes)
    delays = total.delays or _NO_DELAYS
    left = total.messages - total.finished - delays.dead
    sentences = [f"{total.finished} of {total.messages} messages finished"]
    if total.drained_at is not None:
        sentences[0] += f", the last after {_duration(total.drained_at)}"
    if left:
        sentences.append(f"{left} NEVER FINISHED: no size of the fleet that the specs allow serves them")
    if delays.delayed:
        sentences.append(f"{delays.delayed} were delayed")
    if delays.retried or delays.dead:
        sentences.append(f"{delays.retried} retries, {delays.dead} dead letters")
    if total.timed_out:
        sentences.append(f"{total.timed_out} attempts were ended at timeoutSeconds")
    sentences.append(f"{total.interrupted} tasks interrupted")
    return "; ".join(sentences) + "."


def sparklines(timeline: Timeline) -> str:
    """Waiting messages, members, busy threads and, if any, delayed messages over time, for a terminal."""
    drawn = spans(timeline, PICTURE_COLUMNS)
    if not drawn:
        return "nothing happened"
    length = _duration(drawn[-1].at + (drawn[1].at - drawn[0].at if len(drawn) > 1 else 0))
    rows = [
        ("waiting", [float(span.waiting) for span in drawn]),
        ("members", [span.members for span in drawn]),
        ("running", [span.running for span in drawn]),
    ]
    if any(span.delayed for span in drawn):
        rows.append(("delayed", [float(span.delayed) for span in drawn]))
    lines = [f"{name:<8}{_bars(values)} {max(values):.4g} at most" for name, values in rows]
    return "\n".join([*lines, f"{'':<8}0 {'… ' + length:>{max(1, len(drawn) - 2)}}"])


def picture_spans(outcomes: Sequence[QueueOutcome], count: int) -> list[Span]:
    """All queues together over time."""
    return spans(together(each.timeline for each in outcomes), count)


def _bars(values: Sequence[float]) -> str:
    most = max(values) or 1.0
    return "".join(_BARS[math.ceil(value / most * (len(_BARS) - 1))] for value in values)


def _longest_wait(row: Summary) -> float:
    return -1.0 if row.waits.p95 is None else row.waits.p95


def _line(row: Summary, *, has_delays: bool) -> str:
    waits = "".join(
        f"{_seconds(each):>{width}}"
        for each, width in zip(
            (row.waits.p50, row.waits.p95, row.waits.p99, row.waits.max), (10, 9, 9, 9), strict=True
        )
    )
    busy = "–" if row.busy_share is None else f"{row.busy_share:.0%}"
    name = row.name if len(row.name) <= 27 else f"…{row.name[-26:]}"
    line = (
        f"{name:<28}{row.messages:>10}{waits}{row.pod_seconds / 3600:>11.2f}{busy:>6}"
        f"{row.most_members:>7}{row.scale_ups:>8}{row.scale_downs:>8}{row.interrupted:>5}"
    )
    if not has_delays:
        return line
    delays = row.delays or _NO_DELAYS
    return f"{line}{delays.delayed:>9}{delays.retried:>9}{delays.dead:>7}"


def _seconds(amount: float | None) -> str:
    return "–" if amount is None else f"{amount:.1f}"


def _duration(seconds: float) -> str:
    """As a person says it: 45 s, 12 min, 9.5 h."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


# ------------------------------------------------------------------------------------------ for programs


def as_json(outcomes: Sequence[QueueOutcome]) -> dict[str, Any]:
    """Everything that was measured, with every change of size."""
    return {
        "total": _as_json(total_of(outcomes)),
        "queues": [
            {**_as_json(summary_of(each)), "resizes": [resize._asdict() for resize in each.resizes]}
            for each in outcomes
        ],
    }


def _as_json(summary: Summary) -> dict[str, Any]:
    """Without `delays` where there were none, and without `timed_out` where nothing was."""
    found = asdict(summary)
    if summary.delays is None:
        del found["delays"]
    if not summary.timed_out:
        del found["timed_out"]
    return found
