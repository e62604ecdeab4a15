"""B12: does a queue of a million messages, or one whose Redis answers late, slow down everybody else?

A hundred ordinary queues on one Redis; one of them gets 1,000 messages, and the time until 100 members are
asked for is taken (as B1). Blocks of trials without and with the neighbours follow one another in one run: a
queue of 10^6 messages on the same Redis, and two queues on Redis of their own that answer everything 2 s
late (longer than the operator waits) and 0.35 s late (so that each read succeeds, slowly). Bar: the median
with them within ± 20 % of the median without.

    python benchmarks/scaling/noisy_neighbours.py --blocks 4 --trials 6 --seed 1
"""

import argparse
import os
import random
import time
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

from control_latency import PATIENT
from rig import PATIENT_LEASE, Rig, message_body, rig_or_exit, save, say, spread

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

#: Puts ARGV[2] messages with the body ARGV[1] on a queue, in the server itself.
FILL = """
local there = redis.call('LLEN', KEYS[1])
for number = there + 1, there + tonumber(ARGV[2]) do
  redis.call('HSET', KEYS[2], number, ARGV[1])
  redis.call('RPUSH', KEYS[1], number)
end
"""


def fill(server: RedisServer, name: str, count: int) -> None:
    """Enqueue `count` messages, a part at a time, as the server answers nobody meanwhile."""
    for _ in range(count // PART):
        keys = (f"dramatiq:{name}", f"dramatiq:{name}.msgs")
        server.client.eval(FILL, 2, *keys, message_body(name), PART)


def trial(rig: Rig, name: str, rng: random.Random) -> float:
    """Seconds until 100 members are asked for; the queue is at zero again afterwards."""
    time.sleep(3 + rng.random())  # a random phase of the tick, once what was before is told
    pushed = rig.push([name], 1000)
    reached = rig.sizes.wait([name], MOST, pushed, 60)
    rig.edit_queues([name], enabled=False)
    rig.wait_for_sizes([name], 0)
    rig.redis.client.delete(f"dramatiq:{name}", f"dramatiq:{name}.msgs")
    rig.edit_queues([name], enabled=True)
    return reached.get(name, float("inf"))


def block(rig: Rig, names: list[str], trials: int, rng: random.Random) -> dict[str, Any]:
    """So many trials, each on another queue."""
    took = [trial(rig, name, rng) for name in rng.sample(names, trials)]
    usage = rig.usage()
    load = round(os.getloadavg()[0], 1)
    return {"raw_s": [round(each, 3) for each in took], "load_average": load, "rss_mb": usage.rss_bytes / 1e6}


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


def measure(
    rig: Rig, ways: Mapping[str, TcpProxy], blocks: int, trials: int, rng: random.Random
) -> dict[str, Any]:
    """Blocks without and with neighbours in turn."""
    names = [f"q{number:04d}" for number in range(ORDINARY)]
    rig.make_queues(names, scaling={**PATIENT, "maxReplicas": MOST})
    rig.wait_for_sizes(names, 0)
    fill(rig.redis, HUGE, MESSAGES)
    found: dict[str, list[dict[str, Any]]] = {"without": [], "with": []}
    for number in range(blocks):
        which = "with" if number % 2 else "without"
        if which == "with":
            let_in(rig, ways)
        rig.wait_until_quiet()
        found[which].append(block(rig, names, trials, rng))
        say(f"{number + 1}/{blocks} {which}: {found[which][-1]}")
        if which == "with":
            for name in (HUGE, *ways):
                rig.api.delete("astridqueues", name, rig.namespace)
    return {**found, **compared(found)}


def compared(found: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """All trials of a kind together, and how they differ."""
    spreads = {
        which: spread([each for one in blocks for each in one["raw_s"]]) for which, blocks in found.items()
    }
    changes = {
        what: round(spreads["with"][what] / spreads["without"][what] - 1, 3)
        for what in ("p50", "p95")
        if spreads["with"][what] is not None and spreads["without"][what]
    }
    return {"spread_s": spreads, "change": changes, "bar": BAR}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--blocks", type=int, default=4, help="half of them with neighbours")
    parser.add_argument("--trials", type=int, default=6, help="of each block")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--name", default="noisy-neighbours", help="of the file under benchmarks/results")
    options = parser.parse_args()
    server = RedisServer(valkey_binary())
    with ExitStack() as parts:
        parts.callback(server.close)
        server.start()
        ways = {name: parts.enter_context(TcpProxy(server.port, delay_s=each)) for name, each in LATE.items()}
        for name in ways:
            server.client.hset(f"dramatiq:{name}.msgs", mapping={f"m{each}": "{}" for each in range(2)})
        rig = parts.enter_context(rig_or_exit())
        rig.start_operator(ASTRID_OPERATOR_BROKERS_DIR=str(rig.plane.folder / "brokers"), **PATIENT_LEASE)
        result = measure(rig, ways, options.blocks, options.trials, random.Random(options.seed))
    say(str({name: result[name] for name in ("spread_s", "change")}))
    facts = {"seed": options.seed, "messages": MESSAGES, "late_s": LATE, "ordinary_queues": ORDINARY}
    say(f"written: {save(options.name, {**facts, **result})}")


if __name__ == "__main__":
    main()
