"""The processes below a worker command: told once, whenever the word comes."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from support.waiting import wait_until

#: A command of two worker processes that only last, and what is done just before it runs.
RUNS = """
import os, signal, sys
from astrid_workers import worker_set
{first}
sys.exit(worker_set.WorkerSet(["sleep", "600"], 2, os.environ).run())
"""
#: Each process that is started sends SIGTERM to its starter, before it has become the process that was meant.
TOLD_WHILE_STARTING = """
def tells_its_starter():
    os.kill(os.getppid(), signal.SIGTERM)
worker_set.die_with_parent = tells_its_starter
"""
#: Seconds for which signals are sent without a pause.
STORM_S = 0.5


@pytest.fixture
def worker_set():
    """Starts a `WorkerSet` in a process of its own; what is left of it at the end is killed."""
    started = []

    def start(first: str = "") -> subprocess.Popen[bytes]:
        process = subprocess.Popen([sys.executable, "-c", RUNS.format(first=first)], start_new_session=True)
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            for child in children(process):
                os.kill(child, signal.SIGKILL)
            process.kill()
            process.wait(10)


def children(process: subprocess.Popen[bytes]) -> list[int]:
    """The processes below it now."""
    return [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]


def test_it_ends_whatever_signals_come_with_the_word(worker_set):
    """Children that end while the command does anything at all, itself told to stop, never make it wait for ever."""
    process = worker_set()
    wait_until(lambda: len(children(process)) == 2, 30, "both processes to run")

    end = time.monotonic() + STORM_S
    while time.monotonic() < end:
        process.send_signal(signal.SIGCHLD)
    process.send_signal(signal.SIGTERM)

    assert process.wait(20) == 0


def test_the_word_that_comes_while_a_process_is_started_reaches_it(worker_set):
    """Told to stop between two starts or in the midst of one, it ends what it started and then itself."""
    process = worker_set(TOLD_WHILE_STARTING)
    assert process.wait(30) == 0


def test_a_killed_process_is_replaced(worker_set):
    """A process that is killed is followed by another; its sibling stays."""
    process = worker_set()
    wait_until(lambda: len(children(process)) == 2, 30, "both processes to run")
    killed, sibling = children(process)

    os.kill(killed, signal.SIGKILL)

    wait_until(lambda: len(set(children(process)) - {killed}) == 2, 20, "a replacement")
    assert sibling in children(process)
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 0
