"""B12: does a queue of a million messages, or one whose Redis answers late, slow down everybody else?

A hundred ordinary queues on one Redis; one of them gets 1,000 messages, and the time until 100 members are
asked for is taken (as B1). Neighbours are a queue of 10^6 messages on the same Redis, and two queues on Redis
of their own that answer everything 2 s late (longer than the operator waits) and 0.35 s late (so that each
read succeeds, slowly). Bar: the median with them within ± 20 % of the median without.

Most of that time is the wait for the next tick, anything from nothing to a second, and the difference of two
medians of some dozen such times says little. So the ticks are watched in Redis, bursts come at moments of the
tick that are spread evenly over it, and each moment is tried once without and once with the neighbours, on
the same queue. Blocks without and with them follow one another as ABBA. Beside the whole time stands what is
left of it after the tick began that found the burst.

    python benchmarks/scaling/noisy_neighbours.py --trials 16 --seed 1            # four and a half minutes
    python benchmarks/scaling/noisy_neighbours.py --trials 16 --seed 2 --add      # further pairs for the file
"""

import argparse
import json
import os
import random
import re
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from control_latency import PATIENT
from rig import PATIENT_LEASE, RESULTS, Rig, machine, message_body, rig_or_exit, save, say, spread
from ticks import FIRST_MOMENT, TICK, Ticks

from support.redis_server import RedisServer, valkey_binary
from support.tcp_proxy import TcpProxy

ORDINARY = 100
HUGE = "huge"
MESSAGES = 1_000_000
#: Neighbours by what they add to each answer of their Redis, in seconds.
LATE = {"late2000": 2.0, "late350": 0.35}
PART = 10_000
MOST = 100
BAR = 0.20

#: Which blocks have neighbours.
ORDER = (False, True, True, False)

#: Puts ARGV[2] messages with the body ARGV[1] on a queue, in the server itself.
FILL = """
local there = redis.call('LLEN', KEYS[1])
for number = there + 1, there + tonumber(ARGV[2]) do
  redis.call('HSET', KEYS[2], number, ARGV[1])
  redis.call('RPUSH', KEYS[1], number)
end
"""

_TICKS = re.compile(r"^astrid_tick_duration_seconds_(sum|count) (\S+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Burst:
    """One trial; all in seconds."""

    queue: str
    #: After the tick before it began.
    moment_s: float
    #: Until 100 members were asked for.
    took_s: float
    #: The same from the tick that found it; None: it came while a tick read.
    after_tick_s: float | None


def fill(server: RedisServer, name: str, count: int) -> None:
    """Enqueue `count` messages, a part at a time, as the server answers nobody meanwhile."""
    for _ in range(count // PART):
        keys = (f"dramatiq:{name}", f"dramatiq:{name}.msgs")
        server.client.eval(FILL, 2, *keys, message_body(name), PART)


def trial(rig: Rig, ticks: Ticks, name: str, moment: float) -> Burst:
    """A burst `moment` seconds after a tick began; the queue is at zero again afterwards."""
    time.sleep(2)  # what was before is told
    with ticks.watched():
        tick = ticks.sleep_until(moment)
        pushed = rig.push([name], 1000)
        took = rig.sizes.wait([name], MOST, pushed, 60).get(name, float("inf"))
    found = ticks.last_between(pushed, pushed + took)
    rig.edit_queues([name], enabled=False)
    rig.wait_for_sizes([name], 0)
    rig.redis.client.delete(f"dramatiq:{name}", f"dramatiq:{name}.msgs")
    rig.edit_queues([name], enabled=True)
    after_tick = None if found is None else round(pushed + took - found, 3)
    return Burst(name, round(pushed - tick, 3), round(took, 3), after_tick)


def block(rig: Rig, ticks: Ticks, bursts: Sequence[tuple[str, float]]) -> dict[str, Any]:
    """A trial for each queue and moment."""
    rig.wait_until_calm(timeout_s=60)
    before, cpu = ticks_of(rig), rig.usage()
    trials = [asdict(trial(rig, ticks, name, moment)) for name, moment in bursts]
    (seconds, count), later = ticks_of(rig), rig.usage()
    return {
        "bursts": trials,
        "mean_tick_s": round((seconds - before[0]) / (count - before[1]), 4),
        "operator_cores": round((later.cpu_seconds - cpu.cpu_seconds) / (later.at - cpu.at), 3),
        "rss_mb": round(later.rss_bytes / 1e6, 1),
        "load_average": round(os.getloadavg()[0], 1),
    }


def ticks_of(rig: Rig) -> tuple[float, float]:
    """Seconds that the operator's ticks took so far, and how many there were."""
    assert rig.operator is not None
    found = dict(_TICKS.findall(rig.operator.metrics()))
    return float(found["sum"]), float(found["count"])


def let_in(rig: Rig, ways: Mapping[str, TcpProxy]) -> None:
    """The neighbours come."""
    for name, way in ways.items():
        file = rig.plane.folder / "brokers" / rig.namespace / name / "url"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(way.url())
        broker = {"secretRef": {"name": name, "key": "url"}}
        rig.make_queues([name], scaling={**PATIENT, "maxReplicas": 5}, broker=broker)
    rig.make_queues([HUGE], scaling={**PATIENT, "maxReplicas": MOST})
    rig.wait_for_sizes([HUGE], MOST)


def blocks_of(
    names: Sequence[str], trials: int, rng: random.Random
) -> list[tuple[bool, list[tuple[str, float]]]]:
    """Whether each block has neighbours, and queue and moment of its bursts: each comes once of a kind."""
    moments = [FIRST_MOMENT + TICK * (part + rng.random()) / trials for part in range(trials)]
    rng.shuffle(moments)
    bursts = list(zip(rng.sample(names, trials), moments, strict=True))
    halves = {which: iter((bursts[::2], bursts[1::2])) for which in (False, True)}
    return [(wanted, next(halves[wanted])) for wanted in ORDER]


def measure(rig: Rig, ways: Mapping[str, TcpProxy], trials: int, rng: random.Random) -> list[dict[str, Any]]:
    """Blocks without and with neighbours, in the order of `ORDER`; `trials` pairs in all."""
    names = [f"q{number:04d}" for number in range(ORDINARY)]
    rig.make_queues(names, scaling={**PATIENT, "maxReplicas": MOST})
    rig.wait_for_sizes(names, 0)
    fill(rig.redis, HUGE, MESSAGES)
    ticks = Ticks(rig.redis.port)
    found: list[dict[str, Any]] = []
    are_there = False
    for number, (wanted, bursts) in enumerate(blocks_of(names, trials, rng)):
        if wanted and not are_there:
            let_in(rig, ways)
        elif are_there and not wanted:
            for name in (HUGE, *ways):
                rig.api.delete("astridqueues", name, rig.namespace)
        are_there = wanted
        found.append({"neighbours": wanted, **block(rig, ticks, bursts)})
        took = [each["took_s"] for each in found[-1]["bursts"]]
        rest = {name: value for name, value in found[-1].items() if name != "bursts"}
        say(f"{number + 1}/{len(ORDER)} {rest}: {took}")
    return found


# ---------------------------------------------------------------------------------- comparison


def compared(runs: Sequence[Mapping[str, Any]], whats: Sequence[str]) -> dict[str, Any]:
    """Without and with, over the pairs of all runs, and how they differ; `whats` are numbers of a burst."""
    pairs = [pair for run in runs for pair in pairs_of(run["blocks"])]
    result: dict[str, Any] = {"pairs": len(pairs), "bar": BAR}
    for what in whats:
        known = [pair for pair in pairs if all(each[what] is not None for each in pair)]
        both = np.array([[each[what] for each in pair] for pair in known])
        without, with_ = both.T
        result[what] = {
            "without": spread(without.tolist()),
            "with": spread(with_.tolist()),
            "change_p50": interval(both, lambda them: np.median(them[:, 1]) / np.median(them[:, 0]) - 1),
            "mean_difference": interval(both, lambda them: float(np.mean(them[:, 1] - them[:, 0]))),
        }
    return result


def pairs_of(blocks: Sequence[Mapping[str, Any]]) -> list[tuple[Mapping[str, Any], Mapping[str, Any]]]:
    """Bursts on the same queue, at the same moment of the tick: without neighbours, and with them."""
    found: tuple[dict[str, Any], dict[str, Any]] = ({}, {})
    for each in blocks:
        found[each["neighbours"]].update({burst["queue"]: burst for burst in each["bursts"]})
    return [(burst, found[True][name]) for name, burst in found[False].items()]


def interval(both: np.ndarray, measure_of: Any) -> dict[str, float]:
    """A measure of pairs with the middle 95 % of it over pairs drawn again (bootstrap, 4,000 times)."""
    rng = np.random.default_rng(0)
    drawn = [measure_of(both[rng.integers(0, len(both), len(both))]) for _ in range(4000)]
    low, high = np.percentile(drawn, [2.5, 97.5])
    return {
        "value": round(float(measure_of(both)), 3),
        "low": round(float(low), 3),
        "high": round(float(high), 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trials", type=int, default=16, help="pairs of bursts")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--add", action="store_true", help="to the runs that the file holds already")
    parser.add_argument("--name", default="noisy-neighbours", help="of the file under benchmarks/results")
    options = parser.parse_args()
    file = RESULTS / f"{options.name}.json"
    runs = json.loads(file.read_text())["runs"] if options.add and file.exists() else []
    server = RedisServer(valkey_binary())
    with ExitStack() as parts:
        parts.callback(server.close)
        server.start()
        ways = {name: parts.enter_context(TcpProxy(server.port, delay_s=each)) for name, each in LATE.items()}
        for name in ways:
            server.client.hset(f"dramatiq:{name}.msgs", mapping={f"m{each}": "{}" for each in range(2)})
        rig = parts.enter_context(rig_or_exit())
        rig.start_operator(ASTRID_OPERATOR_BROKERS_DIR=str(rig.plane.folder / "brokers"), **PATIENT_LEASE)
        blocks = measure(rig, ways, options.trials, random.Random(options.seed))
    runs.append({"seed": options.seed, "machine": machine(), "blocks": blocks})
    result = compared(runs, ("took_s", "after_tick_s"))
    say(json.dumps(result))
    facts = {"messages": MESSAGES, "late_s": LATE, "ordinary_queues": ORDINARY}
    say(f"written: {save(options.name, {**facts, **result, 'runs': runs})}")


if __name__ == "__main__":
    main()
