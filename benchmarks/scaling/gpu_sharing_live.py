"""The real half of B10: queues with a device per worker, on the control plane, with workers as pods.

Owns the run: the node with its devices, the sending of a load at its times, and how it all looked afterwards,
rebuilt from what each task and each pod noted. Judges nothing (`gpu_sharing.py` does).
"""

import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from gpu_shares import Look
from gpu_timeline import Tenure, hand_overs, idle_by_phase, on_devices, served_by_time, spans
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
        rig.start_operator(sees_nodes=True, ASTRID_OPERATOR_LOG_LEVEL="info")
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
        return _told(rig, diaries, began, until, devices)


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


def _told(rig: ProcessRig, diaries: Mapping[str, Diary], began: float, until: float, devices: int) -> Run:
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
    tenures = [each for diary in diaries.values() for each in _tenures(rig, diary, began, until)]
    told = [
        {
            "at_s": round(at, 1),
            **{word: [name[-5:] for name in said[word]] for word in ("asked", "stay", "go")},
        }
        for at, said in _requests(rig, began)
    ]
    return Run(
        looks,
        waits,
        {"requests": told}
        | _facts(diaries, begins, pods)
        | _timeline(looks, tenures, devices, until - began),
    )


def _at(spans: Sequence[tuple[float, float]], at: float) -> int:
    return sum(begin <= at < end for begin, end in spans)


def _timeline(looks: Sequence[Look], tenures: Sequence[Tenure], devices: int, until: float) -> dict[str, Any]:
    """Where idle seconds come from, every change of hands, and who was served when."""
    by_device = on_devices(tenures, devices)
    names = sorted(looks[0].running)
    return {
        "idle_s_by_phase": idle_by_phase(looks, [spans(each, until) for each in by_device]),
        "hand_overs": hand_overs(by_device, until),
        "served": {"queues": names, "by_time": served_by_time(looks, names, 15.0)},
    }


def _tenures(rig: ProcessRig, diary: Diary, began: float, until: float) -> Iterator[Tenure]:
    """The pods of one queue as holders of devices; times from the begin of the run."""
    shift = time.time() - time.monotonic() - began
    raised, lowered = _resizes(rig, diary.queue, shift)
    asked, tasks = _asked_at(rig, began), diary.by_pod()
    runs = sorted(rig.runs_of(diary.queue), key=lambda run: run.bound_at)
    leavers = sorted((run for run in runs if run.asked_to_leave_at), key=lambda run: run.asked_to_leave_at)
    lowered_at = {run.name: at for run, at in zip(leavers, lowered, strict=False)}
    for run, raised_at in zip(runs, raised, strict=False):
        yield Tenure(
            diary.queue,
            raised_at,
            run.bound_at + shift,
            _shifted(run.ready_at, shift),
            [(begin - began, min(end - began, until - began)) for begin, end in tasks.get(run.name, ())],
            asked.get(run.name),
            lowered_at.get(run.name),
            _shifted(run.asked_to_leave_at, shift),
            _shifted(run.gone_at, shift),
        )


def _shifted(at: float | None, shift: float) -> float | None:
    return None if at is None else at + shift


def _resizes(rig: ProcessRig, name: str, shift: float) -> tuple[list[float], list[float]]:
    """When each single member was added, and when each was taken away, in order of time."""
    raised, lowered, before = [], [], 0
    for at, size in list(rig.sizes.seen[name]):
        (raised if size > before else lowered).extend([at + shift] * abs(size - before))
        before = size
    return raised, lowered


def _asked_at(rig: ProcessRig, began: float) -> dict[str, float]:
    """When each pod was last asked to leave, as the operator's log says."""
    return {name: at for at, said in _requests(rig, began) for name in said["asked"]}


def _requests(rig: ProcessRig, began: float) -> Iterator[tuple[float, dict[str, Any]]]:
    """Each time that pods were asked to leave, told to stay, or let go."""
    assert rig.operator is not None
    for line in rig.operator.process.log.read_text().splitlines():
        if '"asked": [' in line:
            said = json.loads(line)
            yield datetime.fromisoformat(said["timestamp"]).timestamp() - began, said


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
