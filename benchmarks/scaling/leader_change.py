"""B13: the leading operator is gone in the middle of a burst, and another one, standing by, goes on.

Owns the trials: 10 messages on each of many queues at zero, and the leader ended as soon as a tenth of the
fleets has its size, by SIGKILL (its Lease must run out) or by SIGTERM (it gives the Lease back). Counted from
that moment until every fleet has its size, and every size that was smaller than one before.

    python benchmarks/scaling/leader_change.py --queues 100 --trials 3
"""

import argparse
import os
import random
import time
from collections.abc import Mapping, Sequence
from typing import Any

from control_latency import PATIENT
from rig import Rig, rig_or_exit, save, say, spread

from cluster.operator_process import OperatorProcess
from support.waiting import wait_until

#: Lease, renewal and retry in seconds: as it comes, and as other controllers have it.
LEASES: Mapping[str, tuple[float, float, float]] = {"default": (5, 3.5, 1), "long": (15, 10, 2)}

WAYS = ("kill", "stop")


class Pair:
    """Two operators with one Lease, one of which leads."""

    def __init__(self, rig: Rig, lease: tuple[float, float, float]) -> None:
        self._rig = rig
        names = ("LEASE", "LEASE_RENEW", "LEASE_RETRY")
        self._settings = {
            f"ASTRID_OPERATOR_{name}_SECONDS": f"{value:g}" for name, value in zip(names, lease, strict=True)
        }
        self._both: list[OperatorProcess] = []
        self.stand_by()

    def stand_by(self) -> None:
        """Start whoever is missing, and wait until one leads and the other is ready to."""
        self._both = [each for each in self._both if each.process.is_alive]
        while len(self._both) < 2:
            self._both.append(self._rig.start_operator(**self._settings))
        wait_until(lambda: self.leader() is not None, 180, "an operator to lead")
        wait_until(lambda: all(each.answers("/readyz") for each in self._both), 180, "both to be ready")

    def leader(self) -> OperatorProcess | None:
        return next((each for each in self._both if "astrid_leader 1.0" in each.metrics()), None)

    def end_leader(self, leader: OperatorProcess, way: str) -> float:
        """When it was told to end (monotonic)."""
        at = time.monotonic()
        if way == "kill":
            leader.process.kill()
        else:
            leader.process.stop()
        return at

    def close(self) -> None:
        for each in self._both:
            each.process.stop()


def trials(
    rig: Rig, names: Sequence[str], way: str, lease: str, count: int, rng: random.Random
) -> dict[str, Any]:
    """`count` bursts, each with a leader that ends in it."""
    pair, right_again, unserved, shrinks, load = Pair(rig, LEASES[lease]), [], [], 0, []
    for trial in range(count):
        pair.stand_by()
        rig.wait_until_calm()
        time.sleep(rng.random())
        leader = pair.leader()
        assert leader is not None
        pushed = rig.push(names, 10)
        wait_until(lambda: _served(rig, names) >= len(names) // 10, 30, "the burst to begin", every_s=0.005)
        at = pair.end_leader(leader, way)
        unserved.append(len(names) - _served(rig, names))
        reached = rig.sizes.wait(names, 2, pushed, 90)
        assert len(reached) == len(names), f"{len(names) - len(reached)} fleets are not right after 90 s"
        right_again.append(max(0.0, pushed + max(reached.values()) - at))
        shrinks += sum(_shrank(rig.sizes.writes_since(name, pushed)) for name in names)
        load.append(round(os.getloadavg()[0], 1))
        say(
            f"B13 {way}, {lease} Lease, {trial + 1}/{count}: {right_again[-1]:.1f} s, {unserved[-1]} unserved"
        )
        pair.stand_by()
        rig.empty(names)
        rig.wait_for_sizes(names, 0)
    pair.close()
    return {
        "lease_s": LEASES[lease],
        "queues": len(names),
        "right_again_s": spread(right_again),
        "raw_s": [round(each, 2) for each in right_again],
        "not_served_at_the_end_of_the_leader": unserved,
        "shrinks": shrinks,
        "load_average": load,
    }


def _served(rig: Rig, names: Sequence[str]) -> int:
    return sum(rig.sizes.now(name) == 2 for name in names)


def _shrank(sizes: Sequence[int]) -> bool:
    return list(sizes) != sorted(sizes)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--queues", type=int, default=100)
    parser.add_argument("--trials", type=int, default=3)
    parser.add_argument("--lease", choices=tuple(LEASES), action="append", help="one of them alone")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--name", default="leader-change", help="of the file under benchmarks/results")
    options = parser.parse_args()
    rng = random.Random(options.seed)
    result: dict[str, Any] = {"seed": options.seed}
    names = [f"q{number:04d}" for number in range(options.queues)]
    with rig_or_exit() as rig:
        rig.make_queues(names, scaling={**PATIENT, "maxReplicas": 2})
        for lease in options.lease or LEASES:
            for way in WAYS:
                result[f"{way}, {lease} Lease"] = trials(rig, names, way, lease, options.trials, rng)
                save(options.name, result)
    say(f"written: {save(options.name, result)}")


if __name__ == "__main__":
    main()
