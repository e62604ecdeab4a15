"""Where the idle seconds of a shared device come from: what stood between one pod's last task and the next.

Owns the names of these phases and the sums over them. Runs nothing: pods as they were seen in, seconds out.

    last task ends -> asked to leave -> smaller size written -> SIGTERM -> gone
    -> larger size written -> bound to the node -> process started -> first task begins
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from gpu_shares import Look

#: Phases in the order in which they follow each other, and whether a policy could shorten them: the others
#: are the node's and the worker's own (exit, sandbox, imports), which nobody is spared who hands over.
PHASES: Mapping[str, bool] = {
    "not asked for yet": True,
    "between two tasks": True,
    "kept though idle": True,
    "asked, until the smaller size": True,
    "smaller size, until SIGTERM": True,
    "process ends": False,
    "gone, until the larger size": True,
    "larger size, until bound": True,
    "sandbox": False,
    "imports and first fetch": False,
}

_NEVER_HELD = "not asked for yet"

#: What is longer than this between two tasks of a pod is no fetch: nothing waited for it. Seconds.
LONGEST_FETCH_S = 1.0

Span = tuple[float, float, str]


@dataclass(frozen=True, slots=True)
class Tenure:
    """One pod on a device; times in seconds of one clock. None: that did not happen before the end."""

    queue: str
    #: When the larger size was written that it came with.
    raised_at: float
    bound_at: float
    started_at: float | None
    #: When each of its tasks began and ended.
    tasks: Sequence[tuple[float, float]]
    asked_at: float | None = None
    #: When the smaller size was written that it left with.
    lowered_at: float | None = None
    told_at: float | None = None
    gone_at: float | None = None


def on_devices(tenures: Sequence[Tenure], devices: int) -> list[list[Tenure]]:
    """The pods that each device had, one after the other: a new one takes what has been free for longest."""
    found: list[list[Tenure]] = [[] for _ in range(devices)]

    def free_since(device: list[Tenure]) -> float:
        if not device:
            return float("-inf")
        gone_at = device[-1].gone_at
        return float("inf") if gone_at is None else gone_at

    for each in sorted(tenures, key=lambda each: each.bound_at):
        min(found, key=free_since).append(each)
    return found


def spans(device: Sequence[Tenure], until: float) -> list[Span]:
    """Every stretch in which the device ran no task, with its phase; the last one ends at `until`."""
    found: list[Span] = []
    free_at = float("-inf")
    for each in device:
        first = each.tasks[0][0] if each.tasks else _or(each.lowered_at, until)
        marks = [
            (each.raised_at, _NEVER_HELD if each is device[0] else "gone, until the larger size"),
            (each.bound_at, "larger size, until bound"),
            (_or(each.started_at, until), "sandbox"),
            (first, "imports and first fetch"),
        ]
        found += _before(free_at, marks)
        for (_, ended), (begin, _) in pairwise(each.tasks):
            is_fetch = begin - ended < LONGEST_FETCH_S
            found.append((ended, begin, "between two tasks" if is_fetch else "kept though idle"))
        last = each.tasks[-1][1] if each.tasks else first
        leaving = [
            (_or(each.asked_at, _or(each.lowered_at, until)), "kept though idle"),
            (_or(each.lowered_at, until), "asked, until the smaller size"),
            (_or(each.told_at, until), "smaller size, until SIGTERM"),
            (_or(each.gone_at, until), "process ends"),
        ]
        found += _before(last, leaving)
        free_at = _or(each.gone_at, until)
    if free_at < until:
        found.append((free_at, until, "gone, until the larger size" if device else _NEVER_HELD))
    return [span for span in found if span[1] > span[0]]


def idle_by_phase(looks: Sequence[Look], devices: Sequence[Sequence[Span]]) -> dict[str, float]:
    """Device-seconds of each phase while work waited, as `gpu_shares.idle_share` counts them in all.

    Of several devices without a task, when fewer messages than that wait, each counts for its part.
    """
    found: defaultdict[str, float] = defaultdict(float)
    for look in looks:
        waiting, running = sum(look.waiting.values()), sum(look.running.values())
        unused = min(max(0, len(devices) - running), waiting)
        phases = [phase for device in devices if (phase := _phase_at(device, look.at)) is not None]
        for phase in phases:
            found[phase] += look.seconds * unused / len(phases)
    return {phase: round(found[phase], 1) for phase in PHASES if found[phase] > 0}


def hand_overs(devices: Sequence[Sequence[Tenure]], until: float) -> list[dict[str, Any]]:
    """Each time that a device went from one pod to the next: when, between whom, and seconds by phase."""
    found = []
    for number, device in enumerate(devices):
        for before, after in pairwise(device):
            if not before.tasks or not after.tasks:
                continue
            last, first = before.tasks[-1][1], after.tasks[0][0]
            parts = [span for span in spans((before, after), until) if last <= span[0] < first]
            took: defaultdict[str, float] = defaultdict(float)
            for begin, end, phase in parts:
                took[phase] += min(end, first) - begin
            found.append(
                {
                    "at_s": round(last, 1),
                    "device": number,
                    "from": before.queue,
                    "to": after.queue,
                    "seconds": round(first - last, 2),
                    "phases": {phase: round(seconds, 2) for phase, seconds in took.items()},
                }
            )
    return sorted(found, key=lambda each: each["at_s"])


def spared_nobody(found: Sequence[Mapping[str, Any]], device_seconds: float) -> float:
    """Part of `device_seconds` that exits and starts took in these hand-overs: a policy's floor for idling.

    Whoever knew all that is to come would have to hand over too, and can start on no device that is held.
    """
    took = sum(seconds for each in found for phase, seconds in each["phases"].items() if not PHASES[phase])
    return round(took / device_seconds, 4) if device_seconds else 0.0


def served_by_time(
    looks: Sequence[Look], names: Sequence[str], every_s: float
) -> list[dict[str, float | list[float]]]:
    """Mean devices that ran a task of each of `names`, for stretches of `every_s` seconds."""
    found: defaultdict[int, list[Look]] = defaultdict(list)
    for look in looks:
        found[int(look.at // every_s)].append(look)
    return [
        {
            "from_s": number * every_s,
            "served": [round(sum(look.running[name] for look in some) / len(some), 2) for name in names],
        }
        for number, some in sorted(found.items())
    ]


def _before(since: float, marks: Sequence[tuple[float, str]]) -> Iterator[Span]:
    """What lies between `since` and each mark in turn; what would run backwards is empty."""
    for at, phase in marks:
        if at > since:
            yield since, at, phase
            since = at


def _phase_at(device: Sequence[Span], at: float) -> str | None:
    return next((phase for begin, end, phase in device if begin <= at < end), None)


def _or(at: float | None, otherwise: float) -> float:
    return otherwise if at is None else at
