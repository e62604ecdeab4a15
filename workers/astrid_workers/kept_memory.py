"""Memory that a process keeps for its next array when one is gone.

Owns two settings of the C library's allocator; never allocates anything itself.
"""

import ctypes
from collections.abc import Callable

#: Names of glibc's `mallopt(3)`.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
#: Arrays beyond this come from the system and go back to it at once: glibc's own limit for that setting.
LARGEST_KEPT_BYTES = 32 * 2**20
#: What may lie free at the end of the heap before the system gets it back.
MOST_FREE_BYTES = 128 * 2**20


def keep_freed_memory() -> bool:
    """Have freed arrays of up to `LARGEST_KEPT_BYTES` used again, `MOST_FREE_BYTES` in all; False where the C
    library is not glibc.

    For a process that works through images and ends. By default the system takes large blocks back and hands
    them out again page by page, cleared: two fifths of a subtraction's page faults, and 3 % of its time.
    """
    mallopt = _mallopt()
    if mallopt is None:
        return False
    return bool(mallopt(_MMAP_THRESHOLD, LARGEST_KEPT_BYTES) and mallopt(_TRIM_THRESHOLD, MOST_FREE_BYTES))


def _mallopt() -> Callable[[int, int], int] | None:
    try:
        mallopt: Callable[[int, int], int] = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library, or another system
        return None
    return mallopt
