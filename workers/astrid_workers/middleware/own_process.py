"""What this process costs, as the system counts it.

Owns two readings; never a limit. What cannot be read is None.
"""

import os
import time
from pathlib import Path

_STATM = Path("/proc/self/statm")


def rss_bytes() -> int | None:
    """Resident memory now, in bytes; None where neither /proc nor psutil tells."""
    if _STATM.exists():
        return int(_STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    try:
        import psutil
    except ImportError:
        return None
    return int(psutil.Process().memory_info().rss)


def cpu_seconds() -> float:
    """CPU time that this process has used, all threads, user and system."""
    return time.process_time()
