"""What it takes to simulate a survey night of many queues: seconds by the clock and of CPU, and memory.

Owns the drawn night, and the measuring of `astrid-operator simulate` as a user runs it, its reading of the
trace included. A night has exposures of so many images each, evenly over ten hours; each queue's begin at a
moment of their own. Images of one exposure come `--within` so many seconds: what comes at once, as a camera
reads out, is decided less often than what comes one by one.

    python benchmarks/scaling/simulated_night.py                            # about two minutes
    python benchmarks/scaling/simulated_night.py --within 2 --queues 100    # a tenth of it
    python benchmarks/scaling/simulated_night.py --python /usr/bin/python3  # by another interpreter too
"""

import argparse
import os
import random
import re
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import yaml
from rig import save, say

from astrid_operator.simulation_load import task_times
from support.queue_documents import manifest

#: A night of ten hours.
NIGHT_SECONDS = 36_000.0
#: Most members of each fleet, and the spread (log-normal) of its tasks' times.
MOST, TASK_SIGMA = 20, 0.5
_DECISIONS = re.compile(r"(\d+) decisions")


@dataclass(frozen=True, slots=True)
class Night:
    """What is drawn."""

    queues: int
    exposures: int
    images: int
    within_seconds: float
    task_seconds: float
    seed: int


@dataclass(frozen=True, slots=True)
class Cost:
    """What its simulation took; memory is the largest process's."""

    python: str
    wall_s: float
    cpu_s: float
    peak_mb: float
    decisions: int


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--queues", type=int, default=1000)
    parser.add_argument("--exposures", type=int, default=59)
    parser.add_argument("--images", type=int, default=17, help="of each exposure")
    parser.add_argument(
        "--within", type=float, nargs="+", default=[2.0, 30.0], help="seconds: one night each"
    )
    parser.add_argument("--task-seconds", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--python", nargs="+", default=[], help="further interpreters, of the same version")
    parser.add_argument("--name", default="simulated-night", help="of the file under benchmarks/results")
    options = parser.parse_args()
    trials = []
    for within in options.within:
        size = (options.queues, options.exposures, options.images)
        night = Night(*size, within, options.task_seconds, options.seed)
        with tempfile.TemporaryDirectory() as folder:
            specs, trace = write_night(night, Path(folder))
            for python in (sys.executable, *options.python):
                say(f"simulating {night.queues * night.exposures * night.images:,} messages by {python} …")
                cost = cost_of(python, specs, trace)
                print(line_of(night, cost), flush=True)
                trials.append({**asdict(night), **asdict(cost)})
    save(options.name, {"trials": trials})


def write_night(night: Night, folder: Path) -> tuple[Path, Path]:
    """The AstridQueues and the trace, as files."""
    rng = random.Random(night.seed)
    draw = task_times(rng, night.task_seconds, TASK_SIGMA)
    between = NIGHT_SECONDS / (night.exposures + 1)
    names = [f"survey-{number}" for number in range(night.queues)]
    rows = [
        (begin + exposure * between + rng.uniform(0, night.within_seconds), name, draw())
        for name in names
        for begin in [rng.uniform(0, between)]
        for exposure in range(night.exposures)
        for _ in range(night.images)
    ]
    trace, specs = folder / "night.csv", folder / "queues.yaml"
    trace.write_text("".join(f"{at:.3f},{name},{seconds:.3f}\n" for at, name, seconds in sorted(rows)))
    documents = (manifest(name, app="survey.tasks", scaling={"maxReplicas": MOST}) for name in names)
    specs.write_text(yaml.safe_dump_all(documents))
    return specs, trace


def cost_of(python: str, specs: Path, trace: Path) -> Cost:
    """Simulate it in processes of its own. The kernel counts those that have ended, with their children."""
    command = [python, "-m", "astrid_operator", "simulate", "-f", str(specs), "--trace", str(trace)]
    paths = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    done = subprocess.run(command, env={**os.environ, **paths}, capture_output=True, text=True, check=False)
    wall, after = time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    decisions = _DECISIONS.search(done.stdout)
    if done.returncode or decisions is None:
        sys.exit(f"{python}: {done.stderr or done.stdout}")
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Cost(Path(python).name, round(wall, 1), round(cpu, 1), after.ru_maxrss // 1024, int(decisions[1]))


def line_of(night: Night, cost: Cost) -> str:
    """One result as a person reads it."""
    messages = night.queues * night.exposures * night.images
    return (
        f"{night.queues:,} queues, {messages:,} messages within {night.within_seconds:g} s each, "
        f"{cost.python}: {cost.wall_s} s, {cost.cpu_s} s of CPU, {cost.peak_mb} MB, "
        f"{cost.decisions:,} decisions, {1e6 * cost.cpu_s / cost.decisions:.0f} us of CPU each"
    )


if __name__ == "__main__":
    main()
