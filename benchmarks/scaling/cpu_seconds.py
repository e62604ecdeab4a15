"""CPU seconds of everything that takes part in a benchmark, and of all that does not; and who comes first.

Owns the differences between two looks at the kernel's counters. "others" is what the machine was busy with
beside the parts: on a quiet machine next to nothing.
"""

import os
from collections.abc import Mapping
from pathlib import Path

import psutil
from rig import Rig

#: How nice parts are to others where they go ahead of them.
AHEAD = "-15"


def go_ahead(rig: Rig) -> None:
    """Let all parts have a core before anything else on the machine. Needs root, and Linux.

    Linux shares cores among sessions first, and each part has one of its own: that is what is weighed.
    """
    for each in _processes(rig).values():
        Path(f"/proc/{each.pid}/autogroup").write_text(AHEAD)


class CpuSeconds:
    """Counts from when it is made."""

    def __init__(self, rig: Rig) -> None:
        self._processes = _processes(rig)
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


def _processes(rig: Rig) -> dict[str, psutil.Process]:
    found = {name: psutil.Process(each.pid) for name, each in rig.plane.components.items()}
    found |= {"redis": psutil.Process(rig.redis.pid), "benchmark": psutil.Process(os.getpid())}
    return found if rig.operator is None else {**found, "operator": psutil.Process(rig.operator.process.pid)}


def _used(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)
