"""A process that works through images does not hand its memory back between two of them."""

import platform
import resource
import subprocess
import sys

import pytest

from astrid_workers import kept_memory

#: Prints how many pages a process is given while it makes and drops, fifty times, five arrays of 3 MB.
FAULTS = """
import resource
import numpy as np
from astrid_workers.kept_memory import keep_freed_memory

def work():
    return [np.ones(750_000, np.float32) for _ in range(5)]

assert {keep} is False or keep_freed_memory()
work()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(50):
    work()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="settings of glibc's allocator")
def test_freed_arrays_are_used_again() -> None:
    pages = 5 * 750_000 * 4 / resource.getpagesize()
    kept, usual = (_faults(keep) for keep in (True, False))
    assert kept < 2 * pages
    assert usual > 20 * pages  # or else there is nothing to gain, and the settings should go


def _faults(keep: bool) -> int:
    said = subprocess.run(
        [sys.executable, "-c", FAULTS.format(keep=keep)], check=True, capture_output=True, text=True
    ).stdout
    return int(said)


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(_name: str | None) -> object:
        return object()

    monkeypatch.setattr(kept_memory.ctypes, "CDLL", missing)
    assert kept_memory.keep_freed_memory() is False
