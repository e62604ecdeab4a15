"""What a piece of work cost this process: wall seconds, CPU and peak memory.

Owns the measuring; never decides on it. CPU and memory are those of the whole process, so threads of the same
worker that run side by side are counted in each other's numbers.
"""

import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

#: `ru_maxrss` is in bytes on macOS and in KiB elsewhere.
_MAXRSS_BYTES = 1 if sys.platform == "darwin" else 1024


@dataclass(slots=True)
class Cost:
    """Filled in when the measured block ends; None before."""

    #: Wall clock, seconds.
    seconds: float | None = None
    #: CPU time of the process over wall clock, per cent of one core.
    cpu_percent: float | None = None
    #: Highest resident memory of the process so far, MB of 10⁶ bytes.
    peak_rss_mb: float | None = None


@contextmanager
def metered() -> Iterator[Cost]:
    """Measure the block; its cost is filled in also when it raises."""
    cost = Cost()
    wall, cpu = time.perf_counter(), time.process_time()
    try:
        yield cost
    finally:
        seconds = time.perf_counter() - wall
        cost.seconds = round(seconds, 6)
        cost.cpu_percent = round(100 * (time.process_time() - cpu) / seconds, 1) if seconds > 0 else None
        cost.peak_rss_mb = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _MAXRSS_BYTES / 1e6, 1)
