"""Our operator and a KEDA that runs, one after the other on the same control plane, Redis and loads.

Owns the order of the trials and the file of results. `ASTRID_KEDA_RIG` names the tool that starts KEDA;
without it this says so and ends. Each part has a control plane of its own and adds to the results.

    python benchmarks/scaling/against_keda.py bursts        # B1 and the ways down: 20 minutes, hardly any CPU
    python benchmarks/scaling/against_keda.py outage        # 8 minutes, hardly any CPU
    python benchmarks/scaling/against_keda.py many ROW      # B2, B3, B4; a row of `ROWS`: 3 to 6 minutes each
    python benchmarks/scaling/against_keda.py waits         # B11 with real workers: 15 minutes
    python benchmarks/scaling/against_keda.py waits --load "poisson 0.3" --draws 3   # one load, 7 minutes
    python benchmarks/scaling/against_keda.py report        # the table alone
"""

import argparse
import json
import random
import signal
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import keda_report
import live_waits
from keda_contender import Contender, Keda, KedaTool, Ours, keda_tool
from keda_trials import bursts, many, outage
from process_rig import process_rig_or_exit
from rig import RESULTS, Rig, keda_or_why_not, machine, rig_or_exit, say

NAME = "against-keda"


@dataclass(frozen=True, slots=True)
class Row:
    """One contender with many queues."""

    queues: int
    trials: int
    profile: str = ""
    is_raised: bool = False
    changes: dict[str, Any] = field(default_factory=dict)


#: KEDA's default profile comes down after 300 s, so it has one trial.
ROWS = {
    "astrid-100": Row(100, 2),
    "default-100": Row(100, 1, "default"),
    "expert-100": Row(100, 1, "expert"),
    "expert-100-raised": Row(100, 2, "expert", is_raised=True),
    "astrid-300": Row(300, 2),
    "default-300": Row(300, 1, "default"),
    "expert-300-5s-raised": Row(300, 2, "expert", is_raised=True, changes={"pollingInterval": 5}),
}


def run_bursts(seed: int) -> None:
    """Ours alone; then KEDA's three profiles side by side: they wait for timers, not for each other."""
    with rig_or_exit() as rig:
        with ours(rig) as astrid:
            remember(
                "bursts astrid", seed, bursts(rig, astrid, queues=8, rounds=3, within_s=8, rng=_rng(seed))
            )
        with KedaTool(rig).runs() as tool, ThreadPoolExecutor(3) as pool:
            trials = {
                profile: pool.submit(
                    bursts,
                    rig,
                    Keda(rig, tool, profile, profile),
                    queues=queues,
                    rounds=rounds,
                    within_s=within_s,
                    rng=_rng(f"{seed} {profile}"),
                )
                for profile, queues, rounds, within_s in (
                    ("default", 8, 3, 30),
                    ("tuned", 4, 6, 15),
                    ("expert", 4, 6, 15),
                )
            }
            for profile, trial in trials.items():
                remember(f"bursts {profile}", seed, trial.result(), tool.version)


def run_outage(seed: int) -> None:
    """Ours alone, then KEDA's three profiles at once, through outages of the same drawn length."""
    rng = _rng(seed)
    away_s = rng.uniform(60, 90)
    with rig_or_exit() as rig:
        with ours(rig) as astrid:
            remember("outage astrid", seed, outage(rig, [astrid], queues=4, away_s=away_s, rng=rng))
        with KedaTool(rig).runs() as tool:
            profiles = [Keda(rig, tool, each, each) for each in ("default", "tuned", "expert")]
            found = outage(rig, profiles, queues=4, away_s=away_s, rng=rng)
            remember("outage keda", seed, found, tool.version)


def run_waits(seed: int, load: str | None, draws: int) -> None:
    """Ours and KEDA's expert side by side, each with pods of its own that do the same tasks.

    One draw of every load, or so many of `load` alone.
    """
    for group in live_waits.GROUPS if load is None else [live_waits.draws_of(load, draws)]:
        with process_rig_or_exit(seed=seed) as rig, KedaTool(rig).runs() as tool:
            rig.start_operator()
            expert = Keda(rig, tool, live_waits.KEDA, live_waits.KEDA)
            for load, found in live_waits.waits(rig, expert, group, seed).items():
                remember(f"waits {load}", seed, found, tool.version)


def run_many(name: str, seed: int, seconds: float) -> None:
    """One row of `ROWS` on a fresh control plane."""
    row = ROWS[name]
    with rig_or_exit() as rig, contender_of(rig, row) as (contender, version):
        found = many(rig, contender, count=row.queues, trials=row.trials, seconds=seconds, rng=_rng(seed))
        remember(f"many {name}", seed, found, version)


@contextmanager
def contender_of(rig: Rig, row: Row) -> Iterator[tuple[Contender, str | None]]:
    """Who a row is about, running, and KEDA's version."""
    if not row.profile:
        with ours(rig) as astrid:
            yield astrid, None
        return
    with KedaTool(rig).runs(is_raised=row.is_raised) as tool:
        yield Keda(rig, tool, row.profile, row.profile, row.changes), tool.version


@contextmanager
def ours(rig: Rig) -> Iterator[Ours]:
    """Our operator and AstridQueues with their defaults; inside the `with` alone."""
    operator = rig.start_operator()
    try:
        yield Ours(rig)
    finally:
        rig.operator = None
        operator.process.stop()


def remember(key: str, seed: int, result: dict[str, Any], version: str | None = None) -> None:
    """Add to the file of results, in place of what was there under that key."""
    path = RESULTS / f"{NAME}.json"
    known = json.loads(path.read_text()) if path.exists() else {}
    known[key] = {"seed": seed, "keda": version, "machine": machine(), **result}
    RESULTS.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(known, indent=None, separators=(",", ":")).replace('},"', '},\n"') + "\n")
    say(f"{key}: written to {path.name}")


def _rng(seed: object) -> random.Random:
    return random.Random(str(seed))


def main() -> None:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument(
        "part", nargs="?", default="all", choices=["all", "bursts", "outage", "many", "waits", "report"]
    )
    parser.add_argument(
        "rows", nargs="*", metavar="ROW", help=f"of many: {', '.join(ROWS)}; none: all of them"
    )
    parser.add_argument("--load", choices=live_waits.LOADS, help="of waits: this one alone")
    parser.add_argument("--draws", type=int, default=3, help="of --load, side by side")
    parser.add_argument("--seconds", type=float, default=45.0, help="length of the steady state of B3")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    say(keda_or_why_not())
    if options.part != "report":
        if "takes no part" in keda_or_why_not():
            return
        keda_tool()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended from outside"))  # so that KEDA is stopped
    if options.part in ("all", "bursts"):
        run_bursts(options.seed)
    if options.part in ("all", "outage"):
        run_outage(options.seed)
    if options.part in ("all", "waits"):
        run_waits(options.seed, options.load, options.draws)
    if options.part in ("all", "many"):
        for name in options.rows or ROWS:
            run_many(name, options.seed, options.seconds)
    print(keda_report.table(json.loads((RESULTS / f"{NAME}.json").read_text())))


if __name__ == "__main__":
    main()
