"""`astrid-operator simulate`: what fleets would do under a load, without starting anything.

Owns the verb: its arguments, what is put together for it, and what is printed. Decisions are the operator's
own; queues that share nothing are simulated side by side on all cores.
"""

import argparse
import gc
import json
import random
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from astrid_operator.arguments.simulate import Drawn
from astrid_operator.astrid_queue import AstridQueue, QueueKey
from astrid_operator.manifest_files import FileRejected, read_queues
from astrid_operator.progress_line import ProgressLine
from astrid_operator.simulation import Conditions, QueueOutcome, simulate
from astrid_operator.simulation_budget import at_most
from astrid_operator.simulation_load import Arrival, Load, burst, diurnal, poisson
from astrid_operator.simulation_picture import PictureImpossible, save_picture
from astrid_operator.simulation_report import as_json, sparklines, table, verdict
from astrid_operator.simulation_timeline import together
from astrid_operator.simulation_trace import LoadRejected, read_trace

#: Exit status for input that cannot be used.
UNUSABLE = 2
#: Exit status where tasks were interrupted or messages never finished.
NOT_ALL_DONE = 1

#: Fewer messages than this are not worth a second process.
WORTH_A_PROCESS = 20_000
#: Shares of the queues that each process is handed, one after the other, so that all end at the same time and
#: it is seen how far they are.
SHARES_PER_PROCESS = 10


def main(options: argparse.Namespace) -> int:
    """Simulate and print; 1 where a task was interrupted or never done, 2 where something is unusable."""
    began = time.monotonic()
    try:
        queues = [entry.queue for entry in read_queues(options.filename)]
        loads = loads_of(options, queues)
        outcomes = run(loads, queues, options)
        if options.picture:
            save_picture(outcomes, options.picture)
    except (FileRejected, LoadRejected, PictureImpossible) as error:
        sys.stderr.write(f"{error}\n")
        return UNUSABLE
    sys.stdout.write(_printed(outcomes, options, time.monotonic() - began))
    is_done = all(each.finished + each.dead == each.messages and not each.interrupted for each in outcomes)
    return 0 if is_done else NOT_ALL_DONE


def loads_of(options: argparse.Namespace, queues: Sequence[AstridQueue]) -> dict[QueueKey, Load]:
    """What every queue is asked; raises LoadRejected."""
    drawn: list[Drawn] = [*options.poisson, *options.burst, *options.diurnal]
    names = {queue.spec.queue_name for queue in queues}
    for each in drawn:
        if each.queue is not None and each.queue not in names:
            raise LoadRejected(f"no spec serves queue {each.queue!r}, only {', '.join(sorted(names))}")
    if options.trace is None and not drawn:
        raise LoadRejected("no load: give --trace, --poisson, --burst or --diurnal")
    recorded = read_trace(options.trace, names) if options.trace else {}
    return {
        queue.key: _together(recorded.get(queue.spec.queue_name), _drawn(queue, drawn, options))
        for queue in queues
    }


def _together(recorded: Load | None, drawn: list[Arrival]) -> Load:
    if recorded is None or drawn:
        return Load.of([*(recorded.arrivals() if recorded else ()), *drawn])
    return recorded


def run(
    loads: Mapping[QueueKey, Load], queues: Sequence[AstridQueue], options: argparse.Namespace
) -> list[QueueOutcome]:
    """Simulate all queues together where they share something, else on as many cores as pays."""
    last = max((load.last_at for load in loads.values()), default=0.0)
    conditions = Conditions(
        start_seconds=options.start_seconds,
        seed=options.seed,
        says_who_is_busy=not options.without_presence,
        fail_share=options.fail_share,
        length_seconds=last,
    )
    budget = at_most(options.capacity, options.gpus)
    messages = sum(map(len, loads.values()))
    with ProgressLine(sys.stderr, "messages simulated", messages) as progress:
        if budget is not None:
            everything = {key: load.arrivals() for key, load in loads.items()}
            return simulate(everything, queues, conditions, budget=budget, arrived=progress.more)
        jobs = max(1, min(options.jobs, len(queues), messages // WORTH_A_PROCESS))
        if jobs == 1:
            return [_alone(queue, loads[queue.key], conditions, progress.more) for queue in queues]
        return _side_by_side(loads, queues, conditions, jobs, progress)


def _side_by_side(
    loads: Mapping[QueueKey, Load],
    queues: Sequence[AstridQueue],
    conditions: Conditions,
    jobs: int,
    progress: ProgressLine,
) -> list[QueueOutcome]:
    """Queues that share nothing, in so many processes."""
    from concurrent.futures import ProcessPoolExecutor

    count = min(len(queues), jobs * SHARES_PER_PROCESS)
    shares = [
        _Share(queues[first::count], [loads[queue.key] for queue in queues[first::count]], conditions)
        for first in range(count)
    ]
    found: dict[QueueKey, QueueOutcome] = {}
    # what a simulation makes holds no cycles, so that to look for them finds nothing
    with ProcessPoolExecutor(jobs, initializer=gc.disable) as pool:
        for outcomes in pool.map(_Share.outcomes, shares):
            found |= {each.queue.key: each for each in outcomes}
            progress.more(sum(each.messages for each in outcomes))
    return [found[queue.key] for queue in queues]


@dataclass(frozen=True, slots=True)
class _Share:
    """Queues that another process simulates, one after the other."""

    queues: Sequence[AstridQueue]
    loads: Sequence[Load]
    conditions: Conditions

    def outcomes(self) -> list[QueueOutcome]:
        return [
            _alone(queue, load, self.conditions) for queue, load in zip(self.queues, self.loads, strict=True)
        ]


def _alone(
    queue: AstridQueue,
    load: Load,
    conditions: Conditions,
    arrived: Callable[[int], None] | None = None,
) -> QueueOutcome:
    """A queue that shares nothing."""
    return simulate({queue.key: load.arrivals()}, [queue], conditions, arrived=arrived)[0]


def _drawn(queue: AstridQueue, drawn: Sequence[Drawn], options: argparse.Namespace) -> list[Arrival]:
    rng = random.Random(f"{options.seed} load {queue.key}")  # noqa: S311 (a simulation)
    return [
        arrival
        for each in drawn
        if each.queue in (None, queue.spec.queue_name)
        for arrival in _arrivals(each, rng, options.length)
    ]


def _arrivals(drawn: Drawn, rng: random.Random, length: float) -> list[Arrival]:
    if drawn.shape == "burst":
        return burst(rng, int(drawn.amount), drawn.seconds, drawn.sigma)
    draw = poisson if drawn.shape == "poisson" else diurnal
    return draw(rng, drawn.amount, drawn.seconds, drawn.sigma, length)


def _printed(outcomes: Sequence[QueueOutcome], options: argparse.Namespace, seconds: float) -> str:
    if options.json:
        return json.dumps({"seed": options.seed, **as_json(outcomes)}, indent=1) + "\n"
    picture = (
        f"picture: {options.picture}"
        if options.picture
        else sparklines(together(each.timeline for each in outcomes))
    )
    decisions = sum(each.decisions for each in outcomes)
    how = f"seed {options.seed}, {decisions} decisions, simulated in {seconds:.1f} s"
    return f"{table(outcomes, options.rows)}\n\n{picture}\n\n{verdict(outcomes)} ({how})\n"
