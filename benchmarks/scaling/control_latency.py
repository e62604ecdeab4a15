"""B1 to B4: how soon a fleet is asked for, at which cost to the API server, on a real control plane.

Owns the trials; each begins at a moment of the operator's tick that is drawn or given. There is no kubelet:
pods stay pending, so that what is measured is the operator and the API server, not a node.

    python benchmarks/scaling/control_latency.py            # all, about 20 minutes
    python benchmarks/scaling/control_latency.py b1 --trials 30 --seed 7
    python benchmarks/scaling/control_latency.py b2 --at-once 300 --moments 0.1 0.5 0.9
"""

import argparse
import random
import threading
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bare_loop import BareLoop
from bursts import b2
from cpu_seconds import go_ahead
from rig import PATIENT_LEASE, Rig, keda_or_why_not, rig_or_exit, save, say, spread, stretch
from ticks import FIRST_MOMENT, TICK

from support.waiting import wait_until

#: Members are never there, so a pod that fits nowhere must not be what is measured.
PATIENT = {"unschedulableSeconds": 86400, "idleSeconds": 5}
#: After a tick began, in seconds: from when to when a burst comes whose moment is drawn.
MOMENTS = (FIRST_MOMENT, FIRST_MOMENT + TICK)


def b1(rig: Rig, trials: int, rng: random.Random) -> dict[str, Any]:
    """One queue at zero gets 1,000 messages; at most 100 members."""
    rig.make_queues(["burst"], scaling={**PATIENT, "maxReplicas": 100})
    rig.wait_for_sizes(["burst"], 0)
    latencies, sizes = [], []
    for trial in range(trials):
        rig.wait_until_quiet()
        time.sleep(rng.random())
        pushed = rig.push(["burst"], 1000)
        reached = rig.sizes.wait(["burst"], 100, pushed, 60)
        latencies.append(reached.get("burst", float("inf")))
        sizes.append(rig.sizes.writes_since("burst", pushed))
        say(f"B1 {trial + 1}/{trials}: {latencies[-1]:.3f} s, sizes {sizes[-1]}")
        rig.empty(["burst"])
        rig.wait_for_sizes(["burst"], 0)
    return {"seconds": spread(latencies), "raw": latencies, "sizes_written": sizes}


def b4(rig: Rig, names: list[str]) -> dict[str, Any]:
    """Apply many AstridQueues; until all Deployments exist."""
    with stretch(rig) as cost:
        began = time.monotonic()
        rig.make_queues(names, scaling={**PATIENT, "maxReplicas": 2})
        applied = time.monotonic() - began
        rig.wait_for_sizes(names, 0)
        exist = time.monotonic() - began
        wait_until(lambda: _all_told(rig, len(names)), 120, "every status to be written", every_s=0.5)
    say(f"B4: {len(names)} applied in {applied:.1f} s, exist after {exist:.1f} s")
    return {"queues": len(names), "applied_s": applied, "exist_s": exist, "cost": asdict(cost)}


def _all_told(rig: Rig, count: int) -> bool:
    queues = rig.api.list("astridqueues", rig.namespace)
    told = [each for each in queues if each.get("status", {}).get("observedGeneration")]
    return len(told) >= count


def b3(rig: Rig, names: list[str], seconds: float, rng: random.Random) -> dict[str, Any]:
    """Steady: nothing waits anywhere; then something does everywhere, and its number moves each second."""
    rig.wait_until_quiet()
    with stretch(rig) as idle:
        time.sleep(seconds)
    rig.push(names, 10)
    rig.wait_for_sizes(names, 2)
    rig.wait_until_calm()  # controllers have made every pod, and all of it is told
    ended = threading.Event()
    mover = threading.Thread(target=_move, args=(rig, names, ended, rng))
    mover.start()
    time.sleep(15)  # a while after which it is a steady state
    with stretch(rig) as active:
        time.sleep(seconds)
    ended.set()
    mover.join()
    say(f"B3 idle {idle.operator_writes_per_s:.3f}/s, active {active.operator_writes_per_s:.3f}/s")
    return {"queues": len(names), "idle": asdict(idle), "active": asdict(active)}


def _move(rig: Rig, names: list[str], ended: threading.Event, rng: random.Random) -> None:
    """Every second another number of messages waits on every queue, between 8 and 40."""
    depth = dict.fromkeys(names, 10)
    while not ended.wait(1.0):
        up = [name for name in names if depth[name] <= 8 or (depth[name] < 40 and rng.random() < 0.6)]
        rig.push(up, 1)
        with rig.redis.client.pipeline(transaction=False) as pipeline:
            for name in set(names) - set(up):
                pipeline.lpop(f"dramatiq:{name}")
            pipeline.execute()
        for name in names:
            depth[name] += 1 if name in up else -1


def main() -> None:
    options = _options()
    rng = random.Random(options.seed)
    result: dict[str, Any] = {"seed": options.seed, "contenders": keda_or_why_not()}
    result["patient_lease"], result["ahead"] = options.patient_lease, options.ahead
    result["operator"] = "of another checkout" if options.operator else "of this checkout"
    code = {"PYTHONPATH": str(options.operator.resolve())} if options.operator else {}
    say(result["contenders"])
    with rig_or_exit() as rig:
        rig.start_operator(**code, **(PATIENT_LEASE if options.patient_lease else {}))
        if options.ahead:
            go_ahead(rig)
        if "b1" in options.parts:
            result["b1"] = b1(rig, options.trials, rng)
            save(options.name, result)
        names = [f"q{number:04d}" for number in range(options.queues)]
        if {"b2", "b3", "b4"} & set(options.parts):
            result["b4"] = b4(rig, names)
            save(options.name, result)
        if "b2" in options.parts:
            moments = options.moments or [rng.uniform(*MOMENTS) for _ in range(options.many_trials)]
            result["b2"] = []
            for count in options.at_once or (options.queues // 3, options.queues):
                bare = None if options.no_floor else BareLoop(rig, f"bare{count}-", count, names[0])
                result["b2"].append(b2(rig, names[:count], moments, bare))
                save(options.name, result)
        if "b3" in options.parts:
            result["b3"] = b3(rig, names, options.seconds, rng)
    say(f"written: {save(options.name, result)}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", default=["b1", "b2", "b3", "b4"], metavar="b1|b2|b3|b4")
    parser.add_argument("--queues", type=int, default=300, help="AstridQueues of B2, B3 and B4")
    parser.add_argument("--trials", type=int, default=20, help="of B1")
    parser.add_argument("--many-trials", type=int, default=3, help="of B2, at moments that are drawn")
    parser.add_argument(
        "--moments", type=float, nargs="+", help="of B2: seconds after a tick began, one for each trial"
    )
    parser.add_argument(
        "--at-once", type=int, nargs="+", help="of B2: queues that become active (default: a third, and all)"
    )
    parser.add_argument("--no-floor", action="store_true", help="no bare loop before each trial of B2")
    parser.add_argument("--seconds", type=float, default=60.0, help="length of the steady states")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--patient-lease", action="store_true", help="an operator that a busy machine does not depose"
    )
    parser.add_argument(
        "--operator", type=Path, help="folder `operator` of another checkout, whose code is measured instead"
    )
    parser.add_argument("--ahead", action="store_true", help="of all else that the machine does (root)")
    parser.add_argument("--name", default="control-latency", help="of the file under benchmarks/results")
    return parser.parse_args()


if __name__ == "__main__":
    main()
