"""Whether a size costs the API server less when it is replaced (PUT) than when it is patched.

Copies of a fleet's Deployment get one size after the other, block by block by PUT and by PATCH, first the one
and then the other; the controllers stand still meanwhile, so that nothing else is counted.

    python benchmarks/scaling/put_or_patch.py            # two minutes
"""

import argparse
import os
import signal
import statistics
from typing import Any

import psutil
from bare_loop import VERBS, BareLoop
from control_latency import PATIENT
from rig import rig_or_exit, save, say

COPIES = 100


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--name", default="put-or-patch", help="of the file under benchmarks/results")
    options = parser.parse_args()
    cost: dict[str, list[float]] = {verb: [] for verb in VERBS}
    with rig_or_exit() as rig:
        rig.start_operator()
        rig.make_queues(["model"], scaling={**PATIENT, "maxReplicas": 2})
        rig.wait_for_sizes(["model"], 0)
        bare = BareLoop(rig, "bare", COPIES, "model")
        rig.wait_until_calm()
        for each in ("kube-controller-manager", "kube-scheduler"):
            os.kill(rig.plane.components[each].pid, signal.SIGSTOP)
        server = psutil.Process(rig.plane.components["kube-apiserver"].pid)
        for number in range(-1, options.rounds):
            for turn, verb in enumerate(VERBS if number % 2 else VERBS[::-1]):
                before = server.cpu_times()
                bare.burst(2 * number + turn + 3, verb)
                after = server.cpu_times()
                used = after.user - before.user + after.system - before.system
                if number >= 0:  # the first of each opens what is open from then on
                    cost[verb].append(round(used / COPIES * 1000, 2))
        for each in ("kube-controller-manager", "kube-scheduler"):
            os.kill(rig.plane.components[each].pid, signal.SIGCONT)
    result: dict[str, Any] = {verb: _summary(each) for verb, each in cost.items()}
    say(f"{ {verb: each['mean'] for verb, each in result.items()} }: {save(options.name, result)}")


def _summary(milliseconds: list[float]) -> dict[str, Any]:
    """CPU of the API server for one write, in ms: mean, its standard error, and each block's."""
    error = statistics.stdev(milliseconds) / len(milliseconds) ** 0.5
    mean = round(statistics.mean(milliseconds), 2)
    return {"mean": mean, "standard_error": round(error, 2), "blocks_ms": milliseconds}


if __name__ == "__main__":
    main()
