"""What a sharing of devices is judged by: who was served when, how even it was, and what stood idle.

Owns the sums over a run that was looked at in small steps, simulated or real. Runs nothing.

- *idle while work waits*: device-seconds in which no task ran although one waited, of all device-seconds in
  which any waited. Starts of members and members that leave count as idle: nobody gets anything for them.
- *Jain's index* over the device-seconds in which each of two equals was served, for every stretch in which
  work of both waited without a break for at least `LEAST_TASKS` task times. 1: the same; 0.5: one had all.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

#: A stretch of contention is judged if it lasts for so many task times.
LEAST_TASKS = 3


@dataclass(frozen=True, slots=True)
class Look:
    """How all queues stood from `at` on, for `seconds`: messages that waited and tasks that ran, by queue."""

    at: float
    seconds: float
    waiting: Mapping[str, int]
    running: Mapping[str, int]
    #: Devices that the queue's members held, those that start and leave too.
    held: Mapping[str, int]


def idle_share(looks: Sequence[Look], devices: int) -> dict[str, float]:
    """Device-seconds without a task while work waited, and the part of them that members held."""
    there = idle = held = 0.0
    for look in looks:
        waiting, running = sum(look.waiting.values()), sum(look.running.values())
        if not waiting:
            continue
        unused = min(max(0, devices - running), waiting)
        there += look.seconds * devices
        idle += look.seconds * unused
        held += look.seconds * min(unused, max(0, sum(look.held.values()) - running))
    return {
        "device_seconds_with_work_waiting": round(there, 1),
        "idle": round(idle / there, 4) if there else 0.0,
        "idle_but_held": round(held / there, 4) if there else 0.0,
    }


def jain(parts: Sequence[float]) -> float:
    """1: all have the same; 1/n: one has all; NaN: nobody has anything."""
    squares = sum(each**2 for each in parts)
    return sum(parts) ** 2 / (len(parts) * squares) if squares else math.nan


def evenness(looks: Sequence[Look], equals: Sequence[str], task_seconds: float) -> list[dict[str, Any]]:
    """Every stretch in which all `equals` had work waiting, with Jain's index of how they were served."""
    found: list[dict[str, Any]] = []
    served, began = dict.fromkeys(equals, 0.0), None
    for look in [*looks, Look(math.inf, 0.0, {}, {}, {})]:
        if all(look.waiting.get(name) for name in equals):
            began = look.at if began is None else began
            last = look.at + look.seconds
            for name in equals:
                served[name] += look.seconds * look.running[name]
        elif began is not None:
            if last - began >= LEAST_TASKS * task_seconds:
                index = round(jain(list(served.values())), 4)
                found.append({"from_s": round(began, 1), "seconds": round(last - began, 1), "jain": index})
            served, began = dict.fromkeys(equals, 0.0), None
    return found
