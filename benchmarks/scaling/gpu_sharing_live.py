"""The real half of B10: queues with a device per worker, on the control plane, with workers as pods.

Owns the run: the node with its devices, the sending of a load at its times, and how it all looked afterwards,
rebuilt from what each task and each pod noted. Judges nothing (`gpu_sharing.py` does).
"""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gpu_shares import Look
from process_rig import Diary, ProcessRig, process_rig_or_exit
from rig import say, spread

from astrid_operator.simulation_load import Arrival

CHIP = "example.com/chip"

#: Time between binding a pod and its start, as pulls and sandboxes take; imports come on top.
START_S = (0.5, 2.0)

#: Seconds between two looks at what the diaries say.
STEP_S = 0.25

Arrivals = dict[str, list[Arrival]]


@dataclass(frozen=True, slots=True)
class Run:
    """How a load was served: looks in order of time, and by queue the seconds until each message began."""

    looks: Sequence[Look]
    waits: Mapping[str, list[float]]
    facts: dict[str, Any] = field(default_factory=dict)


def run_live(
    arrivals: Arrivals, priorities: Mapping[str, int], devices: int, task_s: float, seed: int
) -> Run:
    """Send `arrivals`, and look until the last of them was sent and one task time has passed."""
    with process_rig_or_exit(seed=seed, start_seconds=START_S, capacity={CHIP: str(devices)}) as rig:
        rig.start_operator(sees_nodes=True)
        scaling = {
            "maxReplicas": devices,
            "expectedTaskSeconds": task_s,
            "targetDrainSeconds": math.ceil(task_s),
        }
        gpu = {"count": 1, "resourceName": CHIP}
        for name, priority in priorities.items():
            rig.make_fleet(name, priority=priority, gpu=gpu, scaling=scaling)
        diaries = {name: Diary(rig, name) for name in arrivals}
        began = time.time()
        _send(diaries, arrivals, began)
        time.sleep(task_s)  # so that what was sent last may begin
        until = time.time()
        for diary in diaries.values():
            diary.server.client.delete(f"dramatiq:{diary.queue}", f"dramatiq:{diary.queue}.msgs")
        return _told(rig, diaries, began, until)


def _send(diaries: Mapping[str, Diary], arrivals: Arrivals, began: float) -> None:
    """Each message at its time."""
    merged = sorted(
        (each.at, name, number, each.seconds)
        for name, load in arrivals.items()
        for number, each in enumerate(load)
    )
    for at, name, number, seconds in merged:
        time.sleep(max(0.0, began + at - time.time()))  # the load itself
        diaries[name].send(round(seconds, 2), f"{name}-{number}")
    say(f"{len(merged)} messages sent")


def _told(rig: ProcessRig, diaries: Mapping[str, Diary], began: float, until: float) -> Run:
    begins = {name: diary.times("begin") for name, diary in diaries.items()}
    ends = {name: diary.times("end") for name, diary in diaries.items()}
    pods = {name: rig.runs_of(name) for name in diaries}
    to_wall = time.time() - time.monotonic()
    waiting = {
        name: [(at, begins[name].get(mark, [until])[0]) for mark, at in diary.sent.items()]
        for name, diary in diaries.items()
    }
    running = {
        name: [
            (at, (ends[name].get(mark) or [until])[0]) for mark, times in begins[name].items() for at in times
        ]
        for name in diaries
    }
    held = {
        name: [
            (run.bound_at + to_wall, until if run.gone_at is None else run.gone_at + to_wall) for run in runs
        ]
        for name, runs in pods.items()
    }
    looks = []
    for step in range(int((until - began) / STEP_S)):
        at = began + step * STEP_S
        counts = ({name: _at(spans, at) for name, spans in each.items()} for each in (waiting, running, held))
        looks.append(Look(at - began, STEP_S, *counts))
    waits = {
        name: [begins[name].get(mark, [until])[0] - at for mark, at in diary.sent.items()]
        for name, diary in diaries.items()
    }
    return Run(looks, waits, _facts(diaries, begins, pods))


def _at(spans: Sequence[tuple[float, float]], at: float) -> int:
    return sum(begin <= at < end for begin, end in spans)


def _facts(
    diaries: Mapping[str, Diary], begins: Mapping[str, Any], pods: Mapping[str, Any]
) -> dict[str, Any]:
    runs = [run for each in pods.values() for run in each]
    return {
        "messages": {name: len(diary.sent) for name, diary in diaries.items()},
        "not_begun": {name: len(diary.sent) - len(begins[name]) for name, diary in diaries.items()},
        "begun_again": {name: sum(len(each) - 1 for each in begins[name].values()) for name in diaries},
        "pods": len(runs),
        "pods_killed_after_grace": sum(run.was_killed for run in runs),
        "starts_s": spread([run.ready_at - run.bound_at for run in runs if run.ready_at is not None]),
    }
