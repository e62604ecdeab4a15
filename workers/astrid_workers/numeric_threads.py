"""How many threads the numeric libraries of one worker process may use.

Owns the formula and the variables that those libraries read when they are imported, so
`limit_numeric_threads` is called before numpy is. Never measures load.
"""

import os
from collections.abc import MutableMapping
from pathlib import Path

#: Read by OpenMP (and torch), OpenBLAS, MKL, BLIS, Accelerate and numexpr at import.
VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
)

#: `<microseconds of CPU> <microseconds of period>` of this container, or `max <period>`.
CGROUP_CPU_MAX = Path("/sys/fs/cgroup/cpu.max")


def numeric_threads(*, cores: float, max_cpu_percent: int, processes: int, threads: int) -> int:
    """Threads per task with which all tasks together use `max_cpu_percent` of `cores`; at least 1."""
    return max(1, int(cores * max_cpu_percent / 100 / (processes * threads)))


def available_cores(cpu_max: Path = CGROUP_CPU_MAX) -> float:
    """Cores that this process may use: those it may run on, and no more than its container is given."""
    affinity = getattr(os, "sched_getaffinity", None)
    cores = float(len(affinity(0)) if affinity else os.cpu_count() or 1)
    try:
        quota, period = cpu_max.read_text().split()
    except (OSError, ValueError):
        return cores
    return cores if quota == "max" else min(cores, int(quota) / int(period))


def limit_numeric_threads(number: int, environment: MutableMapping[str, str] = os.environ) -> None:
    """Tell the numeric libraries; a variable that is already set was set on purpose and stays."""
    for name in VARIABLES:
        if not environment.get(name):
            environment[name] = str(number)
