"""CPU seconds of everything that takes part in a benchmark, and of all that does not.

Owns the differences between two looks at the kernel's counters. "others" is what the machine was busy with
beside the parts: on a quiet machine next to nothing.
"""

import os
from collections.abc import Mapping

import psutil
from rig import Rig


class CpuSeconds:
    """Counts from when it is made."""

    def __init__(self, rig: Rig) -> None:
        self._processes = {
            **{name: psutil.Process(each.pid) for name, each in rig.plane.components.items()},
            "redis": psutil.Process(rig.redis.pid),
            "benchmark": psutil.Process(os.getpid()),
        }
        if rig.operator is not None:
            self._processes["operator"] = psutil.Process(rig.operator.process.pid)
        self._before = self._looked()

    def since(self) -> dict[str, float]:
        """CPU seconds of each part since then, and of "others"."""
        now = self._looked()
        used = {name: now[name] - before for name, before in self._before.items()}
        others = used.pop("machine") - sum(used.values())
        return {name: round(each, 2) for name, each in {**used, "others": max(0.0, others)}.items()}

    def _looked(self) -> Mapping[str, float]:
        machine = psutil.cpu_times()
        busy = machine.user + machine.nice + machine.system + machine.irq + machine.softirq
        return {**{name: _used(each) for name, each in self._processes.items()}, "machine": busy}


def _used(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)
