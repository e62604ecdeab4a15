"""B2: many queues at zero get messages at once; how long until each Deployment has its first size.

Owns one burst: the floor before it, the moment of the tick at which it comes, what it cost whom, and the way
back to zero. Every trial says how busy the machine was and who took its CPU.
"""

import os
import time
from collections.abc import Iterable, Sequence
from typing import Any

from bare_loop import BareLoop, pooled, ratio
from cpu_seconds import CpuSeconds
from rig import Rig, say, spread
from ticks import Ticks

#: Messages that each queue gets, and members that each fleet is then to have.
MESSAGES, MEMBERS = 10, 2
#: Longest that sizes are waited for, in seconds.
PATIENCE = 60.0


def b2(rig: Rig, names: Sequence[str], moments: Sequence[float], bare: BareLoop | None) -> dict[str, Any]:
    """A burst of all `names` at each of `moments`, in seconds after a tick began; `bare` before each."""
    ticks, trials = Ticks(rig.redis.port), []
    for number, moment in enumerate(moments):
        floor = None if bare is None else _floor(rig, bare)
        trials.append({**_burst(rig, ticks, names, moment), "floor": floor})
        say(f"B2 {len(names)} queues {number + 1}/{len(moments)}: {_without_raw(trials[-1])}")
        if number + 1 < len(moments):
            _back_to_zero(rig, names)
    return {**_summary(trials), "queues": len(names), "trials": trials}


def _floor(rig: Rig, bare: BareLoop) -> dict[str, Any]:
    rig.wait_until_calm()
    load, cpu = _load(), CpuSeconds(rig)
    took = bare.burst(MEMBERS, timeout_s=PATIENCE)
    found = {
        "load_average": load,
        "s": spread(took),
        "cpu_s": cpu.since(),
        "raw_s": _rounded(took),
    }
    bare.back_to_zero()
    return found


def _burst(rig: Rig, ticks: Ticks, names: Sequence[str], moment: float) -> dict[str, Any]:
    rig.wait_until_calm()
    load, requests = _load(), rig.requests()
    with ticks.watched():
        began = ticks.sleep_until(moment)
    cpu = CpuSeconds(rig)
    pushed = rig.push(names, MESSAGES)
    reached = rig.sizes.wait(names, MEMBERS, pushed, PATIENCE)
    wall, used = time.monotonic() - pushed, cpu.since()
    first = rig.sizes.wait(names, 1, pushed, 0)
    return {
        "after_tick_s": round(pushed - began, 2),
        "load_average": load,
        "to_first_s": spread(list(first.values())),
        "to_full_s": spread(list(reached.values())),
        "not_within_patience": len(names) - len(reached),
        "wall_s": round(wall, 2),
        "cpu_s": used,
        "operator_rss_mb": round(rig.usage().rss_bytes / 1e6, 1),
        **rig.quiet_after(pushed, requests),
        "raw_s": _rounded(reached.values()),
    }


def _back_to_zero(rig: Rig, names: Sequence[str]) -> None:
    rig.wait_until_calm()
    rig.empty(names)


def _summary(trials: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """All trials in one, beside the floors of them all."""
    ours = spread(pooled([each["raw_s"] for each in trials]))
    floor = spread(pooled([each["floor"]["raw_s"] for each in trials if each["floor"]]))
    return {"to_full_s": ours, "floor_s": floor, "times_the_floor_p95": ratio(ours["p95"], floor["p95"])}


def _without_raw(found: Any) -> Any:
    """For people: all but the single values."""
    if isinstance(found, list):
        return [_without_raw(each) for each in found]
    if isinstance(found, dict):
        return {name: _without_raw(each) for name, each in found.items() if name != "raw_s"}
    return found


def _rounded(seconds: Iterable[float]) -> list[float]:
    return sorted(round(each, 3) for each in seconds)


def _load() -> float:
    return round(os.getloadavg()[0], 1)
