"""Is the model of KEDA true? The same queue lengths, second by second, for it and for a KEDA that runs.

Owns the script of lengths, and the comparison of the sizes that both then want. Lengths do not depend on
sizes here, so that only the rules are compared, with phases at random for both. Needs `ASTRID_KEDA_RIG`.

    python benchmarks/scaling/keda_model_check.py           # 12 minutes, hardly any CPU
"""

import argparse
import random
import signal
import statistics
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

import keda_model
from keda_contender import Keda, KedaTool
from keda_model import KedaDecider, Profile
from keda_trials import drop
from rig import Rig, keda_or_why_not, rig_or_exit, save, say

from astrid_operator.astrid_queue import parse_astrid_queue
from astrid_operator.fleet import FleetState
from astrid_operator.scaling import Demand, DemandReading
from support.waiting import wait_until

MOST = 100
#: Two teeth of so many seconds, each up to so many messages outstanding; then nothing.
TOOTH_SECONDS, HEIGHT = 150, 60
MODELS = {"default": keda_model.DEFAULT, "tuned": keda_model.TUNED, "expert": keda_model.EXPERT}
#: 16 queues, of which eight are polled every second: fewer than the client's limits allow.
QUEUES = {"default": 8, "tuned": 4, "expert": 4}
#: Seconds watched: the teeth and the longest cooldown.
WATCHED = {"default": 660, "tuned": 390, "expert": 390}

#: (seconds, new size) of each change.
Trace = list[tuple[float, int]]
#: (ready, running) of each second.
Script = Sequence[tuple[int, int]]


def lengths(rng: random.Random) -> list[tuple[int, int]]:
    """(ready, running) of each second: both climb with noise and fall to nothing, twice."""
    script = []
    for second in range(2 * TOOTH_SECONDS):
        share = (second % TOOTH_SECONDS) / TOOTH_SECONDS
        outstanding = max(0, round(HEIGHT * share + rng.gauss(0, 3))) if share > 0.1 else 0
        ready = round(outstanding * rng.uniform(0.3, 0.7))
        script.append((ready, outstanding - ready))
    return script


# ---------------------------------------------------------------------- the model


def modelled(profile: Profile, script: Script, seconds: int, seed: int) -> Trace:
    """Sizes that the model wants, asked each second as in the simulator."""
    manifest = {
        "apiVersion": "astrid.dev/v1alpha1",
        "kind": "AstridQueue",
        "metadata": {"name": "model"},
        "spec": {"app": "sky.tasks", "scaling": {"maxReplicas": MOST}},
    }
    decider = KedaDecider(profile, parse_astrid_queue(manifest).spec, random.Random(seed))
    size, trace = 0, []
    for second in range(seconds):
        ready, running = script[second] if second < len(script) else (0, 0)
        reading = DemandReading(second, Demand(ready=ready, running=running))
        wanted = decider.decide(reading, FleetState(exists=True, desired=size), second).replicas
        if wanted != size:
            size = wanted
            trace.append((float(second), size))
    return trace


# ---------------------------------------------------------------------- the real one


def measured(
    rig: Rig, tool: KedaTool, script: Sequence[tuple[int, int]], seed: int
) -> dict[str, list[Trace]]:
    """Profile → traces of its queues, each of which began at a random moment."""
    rng = random.Random(seed)
    names = {profile: [f"{profile}-{each}" for each in range(count)] for profile, count in QUEUES.items()}
    for profile, mine in names.items():
        contender = Keda(rig, tool, profile, profile)
        contender.make(mine, MOST)
        wait_until(lambda: contender.have_begun(mine), 120, "everything to be made", every_s=0.5)  # noqa: B023
    began = time.monotonic()
    starts = {name: began + rng.uniform(0, 30) for mine in names.values() for name in mine}
    players = [
        threading.Thread(target=_play, args=(rig, name, script, at), daemon=True)
        for name, at in starts.items()
    ]
    for each in players:
        each.start()
    time.sleep(30 + max(WATCHED.values()))  # the time that is watched
    found = {}
    for profile, mine in names.items():
        found[profile] = [
            [
                (round(at - starts[name], 2), size)
                for at, size in rig.sizes.seen[name]
                if 0 <= at - starts[name] <= WATCHED[profile]
            ]
            for name in mine
        ]
    return found


def _play(rig: Rig, name: str, script: Script, start: float) -> None:
    """Give a queue the lengths of the script, one each second."""
    ids, bodies = f"dramatiq:{name}", f"dramatiq:{name}.msgs"
    had = 0
    for second, (ready, running) in enumerate(script):
        time.sleep(max(0.0, start + second - time.monotonic()))
        outstanding = ready + running
        with rig.redis.client.pipeline(transaction=True) as pipeline:
            pipeline.delete(ids)
            if ready:
                pipeline.rpush(ids, *range(ready))
            if outstanding > had:
                pipeline.hset(bodies, mapping=dict.fromkeys(range(had, outstanding), "{}"))
            elif outstanding < had:
                pipeline.hdel(bodies, *map(str, range(outstanding, had)))
            pipeline.execute()
        had = outstanding
    time.sleep(max(0.0, start + len(script) - time.monotonic()))
    drop(rig, [name])


# ---------------------------------------------------------------------- the comparison


def facts(trace: Trace, seconds: int) -> dict[str, float]:
    """What a trace comes to."""
    each = at_seconds(trace, seconds)
    sizes = [size for _, size in trace]
    ups = sum(later > earlier for earlier, later in zip([0, *sizes], sizes, strict=False))
    return {
        "member-seconds": float(sum(each)),
        "largest": float(max(sizes, default=0)),
        "changes up": float(ups),
        "changes down": float(len(sizes) - ups),
        "first member, s": trace[0][0] if trace else float("nan"),
        "back at none, s": trace[-1][0] if trace and not sizes[-1] else float("nan"),
    }


def at_seconds(trace: Trace, seconds: int) -> list[int]:
    """The size in each second."""
    found, size, left = [], 0, list(trace)
    for second in range(seconds):
        while left and left[0][0] <= second:
            size = left.pop(0)[1]
        found.append(size)
    return found


def compared(real: Sequence[Trace], model: Sequence[Trace], seconds: int) -> dict[str, Any]:
    """Each fact of both; real ones within the model's middle 90 %; and how far the mean sizes lie apart."""
    theirs, ours = [facts(each, seconds) for each in real], [facts(each, seconds) for each in model]
    found: dict[str, Any] = {}
    for word in ours[0]:
        drawn = sorted(each[word] for each in ours)
        low, high = drawn[len(drawn) // 20], drawn[-1 - len(drawn) // 20]
        values = [each[word] for each in theirs]
        found[word] = {
            "real_mean": round(statistics.fmean(values), 1),
            "model_mean": round(statistics.fmean(drawn), 1),
            "model_90": [low, high],
            "real_within": sum(low <= each <= high for each in values),
            "n": len(values),
        }
    mean_real, mean_model = _mean_trace(real, seconds), _mean_trace(model, seconds)
    apart = sum(abs(a - b) for a, b in zip(mean_real, mean_model, strict=True))
    found["mean sizes apart, share"] = round(apart / max(1e-9, sum(mean_real)), 3)
    return found


def _mean_trace(traces: Sequence[Trace], seconds: int) -> list[float]:
    columns = zip(*[at_seconds(each, seconds) for each in traces], strict=True)
    return [statistics.fmean(column) for column in columns]


def told(results: Mapping[str, Any]) -> str:
    """For a person."""
    lines = []
    for profile, found in results.items():
        lines.append(f"{profile}: mean sizes apart {found['mean sizes apart, share']:.1%}")
        for word, values in found.items():
            if isinstance(values, dict):
                lines.append(
                    f"  {word:<18} KEDA {values['real_mean']:>8}  model {values['model_mean']:>8}  "
                    f"middle 90 % {values['model_90']}  within {values['real_within']} of {values['n']}"
                )
    return "\n".join(lines)


def main() -> None:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--draws", type=int, default=400, help="of the model's phases")
    options = parser.parse_args()
    say(keda_or_why_not())
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended from outside"))  # so that KEDA is stopped
    script = lengths(random.Random(options.seed))
    with rig_or_exit() as rig, KedaTool(rig).runs() as tool:
        real = measured(rig, tool, script, options.seed)
        version = tool.version
    model = {
        profile: [modelled(each, script, WATCHED[profile], seed) for seed in range(options.draws)]
        for profile, each in MODELS.items()
    }
    results = {profile: compared(real[profile], model[profile], WATCHED[profile]) for profile in MODELS}
    print(told(results))
    save("keda-model-check", {"seed": options.seed, "keda": version, "compared": results, "real": real})


if __name__ == "__main__":
    main()
