"""B10: three queues share eight GPUs while their load shifts. Who is served, how evenly, what stands idle?

Two equal queues (priority 5) want more than there is, in turns and together; a third (priority 1) is quiet
but for small bursts. Bars: a message of the high class begins within one task time (p95); Jain's index of the
equals at least 0.95 in every stretch in which both wait; at most 5 % of GPU-seconds idle while work waits
(`gpu_shares.py` says how each is counted). The real run has shorter tasks against its starts than the
simulated one, and fewer stretches of load; its idle seconds are told by phase (`gpu_timeline.py`), beside
what the exits and starts of the same hand-overs cost alone, which no policy is spared.

    python benchmarks/scaling/gpu_sharing.py                # simulated, 20 seeds, two minutes of CPU
    python benchmarks/scaling/gpu_sharing.py live --seed 1  # real workers as pods of a node with 8 devices
    python benchmarks/scaling/gpu_sharing.py live --seed 2 --add   # one more run, added to those in the file
"""

import argparse
import json
import math
import random
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from gpu_shares import Look, evenness, idle_share
from gpu_sharing_live import Arrivals, Run, run_live
from gpu_timeline import spared_nobody
from rig import RESULTS, machine, save, say, spread

from astrid_operator.astrid_queue import AstridQueue, QueueKey, parse_astrid_queue
from astrid_operator.fleet import FleetState
from astrid_operator.scaling import DemandReading, ScalingDecision
from astrid_operator.simulation import Conditions, PolicyDecider, QueueOutcome, simulate
from astrid_operator.simulation_budget import at_most
from astrid_operator.simulation_load import Arrival, task_times

DEVICES = 8
HIGH, EQUALS = "first", ("one", "two")
BARS = {"high_class_wait_task_times_p95": 1.0, "jain": 0.95, "idle": 0.05}

#: Simulated: one task on average, its spread, a start, and a stretch of the load. Seconds.
TASK_S, SIGMA, START_S, PHASE_S = 60.0, 0.3, (5.0, 10.0), 600.0
#: In each stretch, the GPUs that each of the equals could keep busy.
PHASES = ((8, 0), (8, 8), (2, 8), (0, 10), (8, 4), (6, 8), (8, 1), (3, 3))
#: The real run: a task, and the stretches of its load.
LIVE_TASK_S, LIVE_PHASES = 30.0, ((8, 0), (8, 8), (2, 8))
#: Between two bursts of the high class on average, and at most so many messages in one.
QUIET_S, BURST = 150.0, 4


def load(rng: random.Random, task_s: float, phase_s: float, phases: Sequence[tuple[int, int]]) -> Arrivals:
    """What comes to each queue: Poisson arrivals that shift by `phases`, and bursts of the high class."""
    draw = task_times(rng, task_s, SIGMA)
    found: dict[str, list[Arrival]] = {HIGH: [], **{name: [] for name in EQUALS}}
    for phase, wanted in enumerate(phases):
        for name, members in zip(EQUALS, wanted, strict=True):
            at = phase * phase_s
            while members and (at := at + rng.expovariate(members / task_s)) < (phase + 1) * phase_s:
                found[name].append(Arrival(at, draw()))
    at, end, quiet_s = 0.0, len(phases) * phase_s, QUIET_S * task_s / TASK_S
    while (at := at + task_s + rng.expovariate(1 / quiet_s)) < end:
        found[HIGH] += [Arrival(at, draw()) for _ in range(rng.randint(1, BURST))]
    return found


def queue(name: str, task_s: float, **spec: Any) -> AstridQueue:
    """Of a queue that takes one GPU per member."""
    scaling = {
        "maxReplicas": DEVICES,
        "expectedTaskSeconds": task_s,
        "targetDrainSeconds": math.ceil(task_s),
    }
    body = {"app": "sky.tasks", "gpu": {"count": 1}, "scaling": scaling, **spec}
    return parse_astrid_queue(
        {
            "apiVersion": "astrid.dev/v1alpha1",
            "kind": "AstridQueue",
            "metadata": {"name": name},
            "spec": {"priority": 1 if name == HIGH else 5, **body},
        }
    )


class Watched(PolicyDecider):
    """The operator's policy, and a note of how the queue stood at each tick."""

    def __init__(self, of: AstridQueue, notes: "dict[float, dict[str, tuple[int, int, int]]]") -> None:
        super().__init__(of.spec)
        self._name, self._notes = of.key.name, notes

    def decide(self, reading: DemandReading, fleet: FleetState, now: float) -> ScalingDecision:
        """As the policy says."""
        if (demand := reading.demand) is not None:
            held = fleet.current + fleet.draining
            self._notes[now][self._name] = (demand.ready, demand.running, held)
        return super().decide(reading, fleet, now)


def simulated(seed: int) -> dict[str, Any]:
    """One draw of the load, looked at once a second."""
    loads = load(random.Random(seed), TASK_S, PHASE_S, PHASES)
    queues = [queue(name, TASK_S) for name in loads]
    by_spec = {id(each.spec): each for each in queues}
    notes: defaultdict[float, dict[str, tuple[int, int, int]]] = defaultdict(dict)
    conditions = Conditions(START_S, seed=seed, every_tick=True, longest_seconds=4 * 3600)
    outcomes = simulate(
        {QueueKey("default", name): arrivals for name, arrivals in loads.items()},
        queues,
        conditions,
        decider=lambda spec: Watched(by_spec[id(spec)], notes),
        budget=at_most(None, DEVICES),
    )
    looks = [_look(at, said) for at, said in sorted(notes.items())]
    waits = {each.queue.key.name: list(each.waits) for each in outcomes}
    left = {each.queue.key.name: each.messages - each.finished for each in outcomes}
    return {"seed": seed, "left": left, **judged(Run(looks, waits), TASK_S), **_moves(outcomes)}


def _look(at: float, said: dict[str, tuple[int, int, int]]) -> Look:
    waiting, running, held = ({name: each[of] for name, each in said.items()} for of in range(3))
    return Look(at, 1.0, waiting, running, held)


def _moves(outcomes: Sequence[QueueOutcome]) -> dict[str, int]:
    return {
        "sizes_written": sum(len(each.resizes) for each in outcomes),
        "interrupted": sum(each.interrupted for each in outcomes),
    }


def judged(run: Run, task_s: float) -> dict[str, Any]:
    """The numbers of one run that the bars are about."""
    stretches = evenness(run.looks, EQUALS, task_s)
    high = run.waits[HIGH]
    return {
        "high_class_wait_s": spread(high),
        "high_class_waits_s": [round(each, 2) for each in high],
        "high_class_within_a_task": round(sum(each <= task_s for each in high) / len(high), 4)
        if high
        else None,
        "waits_s": {name: spread(run.waits[name]) for name in EQUALS},
        "stretches": stretches,
        "jain_least": min((each["jain"] for each in stretches), default=None),
        **idle_share(run.looks, DEVICES),
    }


def together(runs: Sequence[dict[str, Any]], task_s: float) -> dict[str, Any]:
    """Over all seeds."""
    indices = [stretch["jain"] for run in runs for stretch in run["stretches"]]
    served = [run for run in runs if run["high_class_waits_s"]]
    waits = [each / task_s for run in runs for each in run["high_class_waits_s"]]
    return {
        "high_class_wait_task_times_p95": spread(
            [run["high_class_wait_s"]["p95"] / task_s for run in served]
        ),
        "high_class_within_a_task": spread([run["high_class_within_a_task"] for run in served]),
        "high_class_task_times_of_all": spread(waits),
        "high_class_within_of_all": round(sum(each <= 1 for each in waits) / max(1, len(waits)), 4),
        "jain": spread(indices),
        "jain_below_the_bar": sum(each < BARS["jain"] for each in indices),
        "idle": spread([run["idle"] for run in runs]),
        "idle_but_held": spread([run["idle_but_held"] for run in runs]),
        "bars": BARS,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("where", nargs="?", choices=("simulated", "live"), default="simulated")
    parser.add_argument("--seeds", type=int, default=20, help="draws of the load (simulated)")
    parser.add_argument("--seed", type=int, default=101, help="the first of them, or the one (live)")
    parser.add_argument("--name", help="of the file under benchmarks/results")
    parser.add_argument("--add", action="store_true", help="to the runs that the file has (live)")
    options = parser.parse_args()
    result: dict[str, Any]
    name = options.name or ("gpu-sharing-live" if options.where == "live" else "gpu-sharing")
    if options.where == "live":
        result = live(options.seed, earlier(name) if options.add else [])
    else:
        result = many(range(options.seed, options.seed + options.seeds))
    for what, value in result["together"].items():
        say(f"{what}: {value}")
    say(f"written: {save(name, result)}")


def many(seeds: Sequence[int]) -> dict[str, Any]:
    """The simulated runs of all `seeds`."""
    runs = [simulated(seed) for seed in seeds]
    facts = {"kind": "simulation", "task_s": TASK_S, "start_s": START_S, "phases": PHASES}
    return {**facts, "together": together(runs, TASK_S), "runs": runs}


def earlier(name: str) -> list[dict[str, Any]]:
    """The runs that a result has."""
    runs: list[dict[str, Any]] = json.loads((RESULTS / f"{name}.json").read_text())["runs"]
    return runs


def live(seed: int, before: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One run with real workers, beside those `before`."""
    arrivals = load(random.Random(seed), LIVE_TASK_S, 3 * LIVE_TASK_S, LIVE_PHASES)
    run = run_live(arrivals, {HIGH: 1, **dict.fromkeys(EQUALS, 5)}, DEVICES, LIVE_TASK_S, seed)
    found = {"seed": seed, "load_average": machine()["load_average"], **judged(run, LIVE_TASK_S), **run.facts}
    found["idle_of_hand_overs_alone"] = spared_nobody(
        found["hand_overs"], found["device_seconds_with_work_waiting"]
    )
    facts = {"kind": "real workers as pods", "task_s": LIVE_TASK_S, "phases": LIVE_PHASES}
    runs = [*before, found]
    return {**facts, "together": together(runs, LIVE_TASK_S), "runs": runs}


if __name__ == "__main__":
    main()
