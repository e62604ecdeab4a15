"""The same tasks at the same times for our fleets and for one that a running KEDA sizes, with real workers.

Owns the loads, the fleets and what each waited and cost, counted from what tasks and pods noted. Loads run in
groups, all contenders of a group side by side on one machine. Never judges (`keda_report.py` does).
"""

import math
import random
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from keda_contender import Keda
from process_rig import Diary, ProcessRig
from rig import say, spread

from astrid_operator.simulation_load import Arrival, poisson
from support.waiting import wait_until

#: Members at most of each fleet, one thread each; seconds of a task and the spread of their logarithm.
MOST, TASK_S, SIGMA = 4, 4.0, 0.5
#: Seconds for which tasks are sent, and for which pods are counted after the last of a load has ended: a
#: cooldown costs too.
LENGTH_S, AFTER_S = 240.0, 75.0

#: Contender → what its AstridQueue is told beside `maxReplicas` and `expectedTaskSeconds`. `tuned` keeps idle
#: members for as long as KEDA's expert does; `lean` for a few starts: it breaks off no task to let only idle
#: members go.
OURS: Mapping[str, Mapping[str, int]] = {
    "astrid": {},
    "astrid tuned": {"targetDrainSeconds": 10, "idleSeconds": 30},
    "astrid lean": {"targetDrainSeconds": 10, "idleSeconds": 5},
}
KEDA = "expert"

#: What an expert tells a worker whose fleet is sized by messages: take no more than one beyond that at work.
EXPERT_ENV = {"dramatiq_queue_prefetch": "1"}

Load = Callable[[random.Random], list[Arrival]]


def steady(share: float) -> Load:
    """Poisson arrivals that keep `share` of `MOST` members busy."""
    return lambda rng: poisson(rng, MOST * share / TASK_S, TASK_S, SIGMA, LENGTH_S)


def sawtooth(rng: random.Random) -> list[Arrival]:
    """Every 80 s the rate climbs from nothing to what `MOST` members can do, and drops to nothing."""
    return [each for each in steady(1.0)(rng) if rng.random() < (each.at % 80) / 80]


def on_off(rng: random.Random) -> list[Arrival]:
    """40 s with work for three quarters of the members, 80 s without."""
    return [each for each in steady(0.75)(rng) if each.at % 120 < 40]


#: Loads that run side by side.
GROUPS: Sequence[Mapping[str, Load]] = (
    {"sawtooth": sawtooth, "on/off": on_off},
    {"poisson 0.3": steady(0.3), "poisson 0.7": steady(0.7), "poisson 0.95": steady(0.95)},
)
LOADS: Mapping[str, Load] = {name: load for group in GROUPS for name, load in group.items()}


def draws_of(load: str, draws: int) -> Mapping[str, Load]:
    """So many draws of one load, to run side by side."""
    return {f"{load}, draw {number}": LOADS[load] for number in range(1, draws + 1)}


def waits(rig: ProcessRig, keda: Keda, group: Mapping[str, Load], seed: int) -> dict[str, Any]:
    """Load → contender → waits, pod-seconds and what became of the tasks."""
    fleets = {(load, who): _queue(load, who) for load in group for who in (*OURS, KEDA)}
    diaries = {each: Diary(rig, queue) for each, queue in fleets.items()}
    for (_, who), queue in fleets.items():
        if who != KEDA:
            scaling = {"maxReplicas": MOST, "expectedTaskSeconds": math.ceil(TASK_S), **OURS[who]}
            rig.make_fleet(queue, scaling=scaling)
    theirs = [queue for (_, who), queue in fleets.items() if who == KEDA]
    for queue in theirs:
        rig.make_deployment(queue, 0, **EXPERT_ENV)
    keda.scale(theirs, MOST)
    wait_until(lambda: keda.have_begun(theirs), 120, "every HPA to be made", every_s=0.5)
    arrivals = {load: made(random.Random(f"{seed} {load}")) for load, made in group.items()}
    _send(diaries, arrivals)
    done = {each: diary.wait_until_done(180) for each, diary in diaries.items()}
    time.sleep(AFTER_S)  # what a fleet costs that has nothing left to do
    until = time.monotonic()
    found: dict[str, Any] = {load: {} for load in group}
    for (load, who), queue in fleets.items():
        found[load][who] = _told(rig, diaries[load, who], queue, until) | {"all_done": done[load, who]}
        say(f"{load}, {who}: {found[load][who]}")
    keda.forget(theirs)
    return found


def _queue(load: str, who: str) -> str:
    word = "".join(letter if letter.isalnum() else "-" for letter in f"{load} {who}")
    return f"waits-{word}"


def _send(diaries: Mapping[tuple[str, str], Diary], arrivals: Mapping[str, list[Arrival]]) -> None:
    """Each task at its time, to all contenders of its load."""
    merged = sorted(
        (each.at, load, number, each.seconds)
        for load, listed in arrivals.items()
        for number, each in enumerate(listed)
    )
    began = time.monotonic()
    for at, load, number, seconds in merged:
        time.sleep(max(0.0, began + at - time.monotonic()))  # the load itself
        for (of, _), diary in diaries.items():
            if of == load:
                diary.send(round(seconds, 2), f"t{number}")
    say(f"{len(merged)} tasks sent to each contender")


def _told(rig: ProcessRig, diary: Diary, queue: str, until: float) -> dict[str, Any]:
    begins = diary.times("begin")
    runs = [run for run in rig.runs_of(queue) if run.bound_at < until]
    lived = [min(until, run.gone_at or until) - run.bound_at for run in runs]
    return {
        "wait_s": spread([min(begins[mark]) - sent for mark, sent in diary.sent.items() if mark in begins]),
        "pod_seconds": round(sum(lived), 1),
        "pods": len(runs),
        "start_s": spread([run.ready_at - run.bound_at for run in runs if run.ready_at is not None]),
        **diary.count(),
    }
