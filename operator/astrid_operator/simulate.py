"""`astrid-operator simulate`: what fleets would do under a load, without starting anything.

Owns the verb: its arguments, what is put together for it, and what is printed. Decisions are the operator's
own; queues that share nothing are simulated side by side on all cores.
"""

import argparse
import json
import random
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from astrid_operator.astrid_queue import AstridQueue, QueueKey
from astrid_operator.local import cores
from astrid_operator.manifest_files import FileRejected, read_queues
from astrid_operator.simulation import Conditions, QueueOutcome, simulate
from astrid_operator.simulation_budget import at_most
from astrid_operator.simulation_load import Arrival, LoadRejected, burst, diurnal, poisson, read_trace
from astrid_operator.simulation_picture import PictureImpossible, save_picture
from astrid_operator.simulation_report import as_json, sparklines, table, verdict
from astrid_operator.simulation_timeline import together

#: Exit status for input that cannot be used.
UNUSABLE = 2
#: Exit status where tasks were interrupted or messages never finished.
NOT_ALL_DONE = 1

#: Fewer messages than this are not worth a second process.
WORTH_A_PROCESS = 20_000

EXAMPLE = """\
example: would four nodes do for tonight?  One exposure every 40 s, 8 s of work each, and at the start 500
observations that were left from yesterday; a worker needs 20 to 40 s to start:

  astrid-operator simulate -f manifests/samples/differencing.yaml \\
      --poisson 0.025,8,0.4 --burst 500,8 --for 9h --start-seconds 20,40 --capacity 4

Read p95 for how long an image waits, pod-hours for what you pay, and busy for how much of that was work.
Then change the spec or --capacity and run it again. A recorded night is replayed with --trace night.csv:

  2026-11-25T20:15:03Z,differencing,7.9        (enqueue time, queue, seconds of work)
  2026-11-25T20:16:00Z,differencing,7.9,600    (… and its delay: not due before ten minutes later)

What would a bad night cost, in which a tenth of all attempts fail?  --fail 0.1 lets them: each is retried
after a growing delay, or goes to the dead letters, by maxRetries, retryDelaySeconds and maxRetryDelaySeconds
of its spec. Of what was delayed or retried the wait counts from when it was due.

QUEUE: in front of a load gives it to one queue (--burst differencing:500,8), else every queue has its own.
"""


@dataclass(frozen=True, slots=True)
class Drawn:
    """A load to draw, as it was asked for."""

    #: The queue it is for; None: every queue.
    queue: str | None
    draw: Callable[[random.Random, float], list[Arrival]]


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the verb."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EXAMPLE
    add = parser.add_argument
    add("-f", "--filename", action="append", required=True, metavar="FILE",
        help="YAML file or folder with AstridQueues, - for standard input; may be repeated")  # fmt: skip
    add("--trace", type=Path, metavar="CSV",
        help="recorded load: enqueue time, queue, seconds of work[, delay in seconds]")  # fmt: skip
    add("--poisson", action="append", default=[], type=_poisson, metavar="RATE,SECONDS[,SIGMA]",
        help="RATE messages a second at random, SECONDS of work each (log-normal with SIGMA)")  # fmt: skip
    add("--burst", action="append", default=[], type=_burst, metavar="N,SECONDS[,SIGMA]",
        help="N messages at once, at the start")  # fmt: skip
    add("--diurnal", action="append", default=[], type=_diurnal, metavar="PEAK,SECONDS[,SIGMA]",
        help="a night whose rate rises to PEAK messages a second, and falls again")  # fmt: skip
    add("--for", dest="length", type=_length, default=3600.0, metavar="TIME",
        help="for how long --poisson and --diurnal draw: 900, 15m, 10h (default: 1h)")  # fmt: skip
    add("--start-seconds", type=_start, default=(10.0, 10.0), metavar="LEAST[,MOST]",
        help="time until a new worker works, drawn evenly (default: 10)")  # fmt: skip
    add("--fail", dest="fail_share", type=_share, default=0.0, metavar="SHARE",
        help="part of all attempts that fail, 0 to 1; retried as the spec says (default: 0)")  # fmt: skip
    add("--capacity", type=_count, metavar="N", help="workers there may be in all, shared by priority")
    add("--gpus", type=_count, metavar="N", help="GPUs there are for queues with gpu.count")
    add("--without-presence", action="store_true",
        help="workers do not say who is busy, as in a foreign image without Astrid's middleware")  # fmt: skip
    add("--seed", type=int, default=0, help="another number draws another load (default: %(default)s)")
    add("--jobs", type=_count, default=cores(), metavar="N", help="processes to use (default: the cores)")
    add("--picture", type=Path, metavar="PNG", help="draw the load and the fleet (needs matplotlib)")
    add("--rows", type=_count, default=30, metavar="N", help="queues to list (default: %(default)s)")
    add("--json", action="store_true", help="print everything, every change of size too, as JSON")


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


def loads_of(options: argparse.Namespace, queues: Sequence[AstridQueue]) -> dict[QueueKey, Sequence[Arrival]]:
    """The arrivals of every queue, sorted by time; raises LoadRejected."""
    drawn: list[Drawn] = [*options.poisson, *options.burst, *options.diurnal]
    names = {queue.spec.queue_name for queue in queues}
    for each in drawn:
        if each.queue is not None and each.queue not in names:
            raise LoadRejected(f"no spec serves queue {each.queue!r}, only {', '.join(sorted(names))}")
    if options.trace is None and not drawn:
        raise LoadRejected("no load: give --trace, --poisson, --burst or --diurnal")
    recorded = read_trace(options.trace, names) if options.trace else {}
    return {
        queue.key: sorted([*recorded.get(queue.spec.queue_name, ()), *_drawn(queue, drawn, options)])
        for queue in queues
    }


def run(
    loads: Mapping[QueueKey, Sequence[Arrival]], queues: Sequence[AstridQueue], options: argparse.Namespace
) -> list[QueueOutcome]:
    """Simulate all queues together where they share something, else on as many cores as pays."""
    last = max((load[-1].at for load in loads.values() if load), default=0.0)
    conditions = Conditions(
        start_seconds=options.start_seconds,
        seed=options.seed,
        says_who_is_busy=not options.without_presence,
        fail_share=options.fail_share,
        length_seconds=last,
    )
    budget = at_most(options.capacity, options.gpus)
    if budget is not None:
        return simulate(loads, queues, conditions, budget=budget)
    messages = sum(map(len, loads.values()))
    jobs = max(1, min(options.jobs, len(queues), messages // WORTH_A_PROCESS))
    shares = [([(queue, loads[queue.key]) for queue in queues[job::jobs]], conditions) for job in range(jobs)]
    if jobs == 1:
        return _alone(shares[0])
    with ProcessPoolExecutor(jobs) as pool:
        found = {each.queue.key: each for share in pool.map(_alone, shares) for each in share}
    return [found[queue.key] for queue in queues]


def _alone(share: tuple[Sequence[tuple[AstridQueue, Sequence[Arrival]]], Conditions]) -> list[QueueOutcome]:
    """Queues that share nothing, one after the other."""
    queues, conditions = share
    return [simulate({queue.key: load}, [queue], conditions)[0] for queue, load in queues]


def _drawn(queue: AstridQueue, drawn: Sequence[Drawn], options: argparse.Namespace) -> list[Arrival]:
    rng = random.Random(f"{options.seed} load {queue.key}")  # noqa: S311 (a simulation)
    return [
        arrival
        for each in drawn
        if each.queue in (None, queue.spec.queue_name)
        for arrival in each.draw(rng, options.length)
    ]


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


# ------------------------------------------------------------------------------------------ arguments


def _poisson(text: str) -> Drawn:
    queue, (rate, seconds, sigma) = _numbers(text, "RATE,SECONDS[,SIGMA]")
    return Drawn(queue, lambda rng, length: poisson(rng, rate, seconds, sigma, length))


def _diurnal(text: str) -> Drawn:
    queue, (peak, seconds, sigma) = _numbers(text, "PEAK,SECONDS[,SIGMA]")
    return Drawn(queue, lambda rng, length: diurnal(rng, peak, seconds, sigma, length))


def _burst(text: str) -> Drawn:
    queue, (count, seconds, sigma) = _numbers(text, "N,SECONDS[,SIGMA]")
    if count != int(count):
        raise argparse.ArgumentTypeError(f"{count:g} is no number of messages")
    return Drawn(queue, lambda rng, _: burst(rng, int(count), seconds, sigma))


def _numbers(text: str, form: str) -> tuple[str | None, tuple[float, float, float]]:
    """`QUEUE:` if given, and two or three numbers: above 0, above 0, and 0 or more."""
    queue, _, given = text.rpartition(":")
    try:
        first, second, third = [*map(float, given.split(",")), 0.0][:3]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not {form}") from None
    if given.count(",") > 2 or not (0 < first < 1e7 and 0 < second <= 7 * 86400 and 0 <= third <= 3):
        raise argparse.ArgumentTypeError(
            f"{text!r}: {form} must be above 0, above 0 and at most a week, and 0 to 3"
        )
    return queue or None, (first, second, third)


def _length(text: str) -> float:
    units = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
    unit = units.get(text[-1:], 0.0)
    try:
        seconds = float(text[:-1]) * unit if unit else float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= 30 * 86400:
        raise argparse.ArgumentTypeError(f"{text!r} is no time, must be above 0 and at most 30d")
    return seconds


def _start(text: str) -> tuple[float, float]:
    try:
        bounds = [float(part) for part in text.split(",")]
    except ValueError:
        bounds = []
    if len(bounds) not in (1, 2) or not 0 <= bounds[0] <= bounds[-1] <= 86400:
        raise argparse.ArgumentTypeError(f"{text!r} is not LEAST[,MOST] in seconds")
    return bounds[0], bounds[-1]


def _share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no share, must be 0 to 1")
    return share


def _count(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no number, must be 1 or more")
    return int(text)
