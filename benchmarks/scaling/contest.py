"""B11 in the simulator: our policy against models of KEDA + HPA on the same loads, starts and seeds.

Owns the loads and the table. A row is the mean over seeds; waits are seconds until a message's (finishing)
attempt begins, pod-hours count from asking for a pod until it is gone, "cut" are tasks that a scale-in ended.

    python benchmarks/scaling/contest.py --seeds 10
"""

import argparse
import json
import math
import random
import statistics
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import keda_model
from keda_model import KedaDecider, Profile

from astrid_operator.astrid_queue import AstridQueue, AstridQueueSpec, parse_astrid_queue
from astrid_operator.simulation import Conditions, Conduct, Decider, PolicyDecider, simulate
from astrid_operator.simulation_load import Arrival, burst, poisson, task_times
from astrid_operator.simulation_report import Summary, summary_of

RESULTS = Path(__file__).resolve().parents[1] / "results"

#: Most members of every fleet here, each with one thread.
MOST = 50
TASK_SECONDS = 10.0
TASK_SIGMA = 0.5
#: Time until a new pod works: an image that is there already, an application that imports for a while.
START_SECONDS = (5.0, 15.0)


@dataclass(frozen=True, slots=True)
class Scenario:
    """A load, what is told of its tasks, and how many members there may be."""

    name: str
    load: Callable[[random.Random], list[Arrival]]
    task_seconds: float = TASK_SECONDS
    timeout_seconds: int = 300
    most: int = MOST


@dataclass(frozen=True, slots=True)
class Contender:
    """Who decides; None of a profile: our own policy, with that spec."""

    name: str
    profile: Profile | None = None
    scaling: tuple[tuple[str, int], ...] = ()


def steady(share: float) -> Callable[[random.Random], list[Arrival]]:
    """An hour of Poisson arrivals that keep `share` of 20 members busy."""
    return lambda rng: poisson(rng, 20 * share / TASK_SECONDS, TASK_SECONDS, TASK_SIGMA, 3600)


def sawtooth(rng: random.Random) -> list[Arrival]:
    """Every ten minutes the rate climbs from nothing to what 30 members can do, and drops to nothing."""
    possible = poisson(rng, 30 / TASK_SECONDS, TASK_SECONDS, TASK_SIGMA, 3600)
    return [each for each in possible if rng.random() < (each.at % 600) / 600]


def on_off(rng: random.Random) -> list[Arrival]:
    """Ten minutes with work for 15 members, ten without, three times."""
    possible = poisson(rng, 15 / TASK_SECONDS, TASK_SECONDS, TASK_SIGMA, 3600)
    return [each for each in possible if each.at % 1200 < 600]


def long_tasks(rng: random.Random) -> list[Arrival]:
    """200 messages at once; each takes a minute and an exponential ten more."""
    return sorted(Arrival(0.0, 60 + min(rng.expovariate(1 / 600), 7000)) for _ in range(200))


def exposures(rng: random.Random) -> list[Arrival]:
    """A camera: every 90 s 16 images within two seconds."""
    draw = task_times(rng, TASK_SECONDS, TASK_SIGMA)
    return sorted(Arrival(at + rng.uniform(0, 2), draw()) for at in range(0, 3600, 90) for _ in range(16))


SCENARIOS = (
    Scenario("sawtooth", sawtooth),
    Scenario("poisson 0.3", steady(0.3)),
    Scenario("poisson 0.7", steady(0.7)),
    Scenario("poisson 0.95", steady(0.95)),
    Scenario("on/off 10 min", on_off),
    Scenario("burst 1000", lambda rng: burst(rng, 1000, TASK_SECONDS, TASK_SIGMA), most=100),
    Scenario("long tasks", long_tasks, task_seconds=660, timeout_seconds=7200),
    Scenario("exposures", exposures),
)
CONTENDERS = (
    Contender("Astrid default"),
    Contender("Astrid tuned", scaling=(("targetDrainSeconds", 10), ("idleSeconds", 30))),
    Contender("Astrid lean", scaling=(("targetDrainSeconds", 10), ("idleSeconds", 15))),
    *(
        Contender(profile.name, profile)
        for profile in (
            keda_model.DEFAULT,
            keda_model.TUNED,
            keda_model.EXPERT,
            keda_model.EXPERT_PATIENT,
        )
    ),
)


def trial(scenario: Scenario, contender: Contender, seed: int) -> Summary:
    """One contender on one draw of a scenario; the same seed gives all contenders the same load."""
    queue = _queue(scenario, contender)
    load = scenario.load(random.Random(seed))
    conditions = Conditions(START_SECONDS, seed=seed, longest_seconds=6 * 3600)
    decider, conduct = _who(contender, seed)
    (outcome,) = simulate({queue.key: load}, [queue], conditions, decider=decider, conduct=conduct)
    return summary_of(outcome)


def _queue(scenario: Scenario, contender: Contender) -> AstridQueue:
    scaling = {
        "maxReplicas": scenario.most,
        "expectedTaskSeconds": scenario.task_seconds,
        **dict(contender.scaling),
    }
    spec = {"app": "sky.tasks", "timeoutSeconds": scenario.timeout_seconds, "scaling": scaling}
    return parse_astrid_queue(
        {
            "apiVersion": "astrid.dev/v1alpha1",
            "kind": "AstridQueue",
            "metadata": {"name": "contest"},
            "spec": spec,
        }
    )


def _who(contender: Contender, seed: int) -> tuple[Callable[[AstridQueueSpec], Decider], Conduct]:
    profile = contender.profile
    if profile is None:
        return PolicyDecider, Conduct()
    rng = random.Random(f"phases {seed}")
    return lambda spec: KedaDecider(profile, spec, rng), keda_model.conduct(profile)


# ---------------------------------------------------------------------- the table

_HEAD = (
    f"{'':<26}{'wait p50':>9}{'p95':>8}{'max':>8}{'pod-h':>8}{'busy':>6}{'ups':>6}{'downs':>7}"
    f"{'cut':>6}{'left':>6}{'done':>8}"
)


def row(name: str, summaries: Sequence[Summary]) -> str:
    """Means over the seeds; `left` are messages that were never finished."""

    def mean(values: Sequence[float | None]) -> float:
        known = [value for value in values if value is not None]
        return statistics.fmean(known) if known else math.nan

    return (
        f"{name:<26}{mean([each.waits.p50 for each in summaries]):>9.1f}"
        f"{mean([each.waits.p95 for each in summaries]):>8.1f}"
        f"{mean([each.waits.max for each in summaries]):>8.1f}"
        f"{mean([each.pod_seconds for each in summaries]) / 3600:>8.2f}"
        f"{mean([each.busy_share for each in summaries]):>6.0%}"
        f"{mean([each.scale_ups for each in summaries]):>6.1f}"
        f"{mean([each.scale_downs for each in summaries]):>7.1f}"
        f"{mean([each.interrupted for each in summaries]):>6.1f}"
        f"{mean([each.messages - each.finished for each in summaries]):>6.1f}"
        f"{mean([each.drained_at for each in summaries]):>8.0f}"
    )


def _trial(task: tuple[int, int, int]) -> tuple[tuple[int, int, int], Summary]:
    scenario, contender, seed = task
    return task, trial(SCENARIOS[scenario], CONTENDERS[contender], seed)


def main() -> None:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--seeds", type=int, default=10, help="draws of every load")
    parser.add_argument("--first-seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--scenario", action="append", help="one of them alone; may be repeated")
    options = parser.parse_args()
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    chosen = [
        n
        for n, each in enumerate(SCENARIOS)
        if options.scenario in (None, []) or each.name in options.scenario
    ]
    tasks = [(n, c, seed) for n in chosen for c in range(len(CONTENDERS)) for seed in seeds]
    with ProcessPoolExecutor(options.jobs) as pool:
        found = dict(pool.map(_trial, tasks, chunksize=2))
    raw_rows: list[dict[str, Any]] = []
    for n in chosen:
        print(f"\n{SCENARIOS[n].name}\n{_HEAD}")
        for c, contender in enumerate(CONTENDERS):
            print(row(contender.name, [found[n, c, seed] for seed in seeds]))
            raw_rows += [
                {"scenario": SCENARIOS[n].name, "seed": seed, "contender": contender.name}
                | asdict(found[n, c, seed])
                for seed in seeds
            ]
    if options.scenario is None:
        RESULTS.mkdir(parents=True, exist_ok=True)
        path = RESULTS / "contest.json"
        facts = {"start_seconds": START_SECONDS, "seeds": list(seeds), "kind": "simulation; KEDA is a model"}
        path.write_text(json.dumps({**facts, "trials": raw_rows}, indent=0) + "\n")
        print(f"\nwritten: {path}")


if __name__ == "__main__":
    main()
