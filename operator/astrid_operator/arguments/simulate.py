"""Arguments of `astrid-operator simulate`."""

import argparse
from pathlib import Path
from typing import Literal, NamedTuple

from astrid_operator.arguments.count import count_of
from astrid_operator.arguments.filename import add_filename
from astrid_operator.cores import cores
from astrid_operator.defaults import START_SECONDS

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
of its spec. So is what takes longer than timeoutSeconds of its spec, each time: workers end it then. Of what
was delayed or retried the wait counts from when it was due.

QUEUE: in front of a load gives it to one queue (--burst differencing:500,8), else every queue has its own.
"""


class Drawn(NamedTuple):
    """A load to draw, as it was asked for."""

    shape: Literal["poisson", "burst", "diurnal"]
    #: The queue it is for; None: every queue.
    queue: str | None
    #: Messages a second, in a night at its height; in a burst all of them.
    amount: float
    #: Of work for each message on average.
    seconds: float
    #: How far they are spread, log-normally; 0: all take the same.
    sigma: float


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the verb."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EXAMPLE
    add = parser.add_argument
    add_filename(parser)
    add("--trace", type=Path, metavar="CSV",
        help="recorded load: enqueue time, queue, seconds of work[, delay in seconds]")  # fmt: skip
    add("--poisson", action="append", default=[], type=_poisson, metavar="RATE,SECONDS[,SIGMA]",
        help="RATE messages a second at random, SECONDS of work each (log-normal with SIGMA)")  # fmt: skip
    add("--burst", action="append", default=[], type=_burst, metavar="N,SECONDS[,SIGMA]",
        help="N messages at once, at the start")  # fmt: skip
    add("--diurnal", action="append", default=[], type=_diurnal, metavar="PEAK,SECONDS[,SIGMA]",
        help="a night whose rate rises to PEAK messages a second, and falls again")  # fmt: skip
    add("--for", dest="length", type=_length, default="1h", metavar="TIME",
        help="for how long --poisson and --diurnal draw: 900, 15m, 10h (default: %(default)s)")  # fmt: skip
    add("--start-seconds", type=_start, default=f"{START_SECONDS:g}", metavar="LEAST[,MOST]",
        help="time until a new worker works, drawn evenly (default: %(default)s)")  # fmt: skip
    add("--fail", dest="fail_share", type=_share, default=0.0, metavar="SHARE",
        help="part of all attempts that fail, 0 to 1; "
        "retried as the spec says (default: %(default)g)")  # fmt: skip
    add("--capacity", type=count_of(), metavar="N", help="workers there may be in all, shared by priority")
    add("--gpus", type=count_of(), metavar="N", help="GPUs there are for queues with gpu.count")
    add("--without-presence", action="store_true",
        help="workers do not say who is busy, as in a foreign image without Astrid's middleware")  # fmt: skip
    add("--seed", type=int, default=0, help="another number draws another load (default: %(default)s)")
    add("--jobs", type=count_of(), default=cores(), metavar="N", help="processes to use (default: the cores)")
    add("--picture", type=Path, metavar="PNG", help="draw the load and the fleet (needs matplotlib)")
    add("--rows", type=count_of(), default=30, metavar="N", help="queues to list (default: %(default)s)")
    add("--json", action="store_true", help="print everything, every change of size too, as JSON")


def _poisson(text: str) -> Drawn:
    return Drawn("poisson", *_numbers(text, "RATE,SECONDS[,SIGMA]"))


def _diurnal(text: str) -> Drawn:
    return Drawn("diurnal", *_numbers(text, "PEAK,SECONDS[,SIGMA]"))


def _burst(text: str) -> Drawn:
    drawn = Drawn("burst", *_numbers(text, "N,SECONDS[,SIGMA]"))
    if drawn.amount != int(drawn.amount):
        raise argparse.ArgumentTypeError(f"{drawn.amount:g} is no number of messages")
    return drawn


def _numbers(text: str, form: str) -> tuple[str | None, float, float, float]:
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
    return queue or None, first, second, third


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
