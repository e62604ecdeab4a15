"""The worker processes of one command: kept running until the command is told to stop.

Each is one `dramatiq` command with one worker process, so that one that dies takes no other with it. A
process that ends by itself (killed, over its memory limit, ended by its time limit) is replaced; one that
cannot use its settings, or cannot even start a few times in a row, ends the command, for whoever watches
it to see. SIGTERM, SIGINT and SIGHUP are handed on once, as SIGTERM, and waited for.

A signal may come between any two steps of what this process does, so the handlers take no lock (not that
of an `Event` either: a handler that meets it held by what it broke into would wait for ever) and start or
end nothing: they leave a note, which the one loop reads.
"""

import contextlib
import ctypes
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence

#: Exit status where a flag or a variable cannot be used.
EXIT_UNUSABLE = 2
#: A process that lived for less counts as one that could not start, in seconds.
SHORT_LIFE_S = 15.0
#: Short lives in a row after which the command ends.
SHORT_LIVES = 5
#: Seconds before the replacement of a process that could not start, times the short lives so far.
REPLACE_AFTER_S = 2.0
#: Seconds between two looks at the processes, where nothing tells earlier.
LOOK_EVERY_S = 1.0


class WorkerSet:
    """`processes` processes of one `command`, in `environment`."""

    def __init__(self, command: Sequence[str], processes: int, environment: Mapping[str, str]) -> None:
        self._command = list(command)
        self._environment = dict(environment)
        self._children: list[_Child] = [_Child() for _ in range(processes)]

    def run(self) -> int:
        """Keep all of them running until told to stop.

        The exit status is 0 then; `EXIT_UNUSABLE` or 1 where they cannot run.
        """
        signals = _Signals()
        stopping, failed = False, 0
        while True:
            if not stopping:
                for child in self._children:
                    if not child.runs():
                        failed = failed or self._replace(child)
                if failed or signals.told_to_stop:
                    stopping = True
                    for child in self._children:
                        child.terminate()
            if stopping and not any(child.runs() for child in self._children):
                return failed
            signals.wait(LOOK_EVERY_S)

    def _replace(self, child: "_Child") -> int:
        """Start `child` (again) when it is time; 0, or the status to end with where that cannot help."""
        if child.ended():
            _say(f"worker process {child.pid} ended with status {child.status} after {child.lived():.0f} s")
            if child.status == EXIT_UNUSABLE:
                return EXIT_UNUSABLE
        if child.short_lives >= SHORT_LIVES:
            _say(f"{SHORT_LIVES} worker processes in a row could not start; see above for why")
            return 1
        if time.monotonic() >= child.not_before:
            child.start(self._command, self._environment)
        return 0


class _Signals:
    """What this process was told by signals, and a wait that each of them ends."""

    def __init__(self) -> None:
        self.told_to_stop = False
        self._reads, writes = socket.socketpair()
        self._reads.setblocking(False)
        writes.setblocking(False)
        self._writes = writes
        signal.set_wakeup_fd(writes.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._note_stop)

    def _note_stop(self, *_: object) -> None:
        self.told_to_stop = True

    def wait(self, timeout_s: float) -> None:
        """Return after `timeout_s`, or at once where a signal came since the last wait ended."""
        if select.select([self._reads], [], [], timeout_s)[0]:
            self._reads.recv(4096)


class _Child:
    """One `dramatiq` command: starts, ends, and how often it did not even start."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._since = 0.0
        self._seen_end = True
        self.short_lives = 0
        self.not_before = 0.0
        self.status = 0

    @property
    def pid(self) -> int:
        """Of the process that runs or ran last."""
        return self._process.pid if self._process is not None else 0

    def start(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        """Start it, in a process group of its own so that a terminal's Ctrl-C reaches it only through us."""
        self._process = subprocess.Popen(
            command,
            env=environment,
            process_group=0,
            preexec_fn=die_with_parent,  # noqa: PLW1509 - this process has one thread
        )
        self._since, self._seen_end = time.monotonic(), False

    def runs(self) -> bool:
        """Whether it lives."""
        return self._process is not None and self._process.poll() is None

    def lived(self) -> float:
        """Seconds since it was started."""
        return time.monotonic() - self._since

    def ended(self) -> bool:
        """Whether it has ended since this was last asked; counts short lives."""
        if self._seen_end or self._process is None:
            return False
        self._seen_end = True
        self.status = self._process.returncode
        self.short_lives = self.short_lives + 1 if self.lived() < SHORT_LIFE_S and self.status != 0 else 0
        self.not_before = time.monotonic() + REPLACE_AFTER_S * self.short_lives
        return True

    def terminate(self) -> None:
        """Ask it to stop."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def die_with_parent() -> None:
    """End this process when its starter is gone, however that ended. Does nothing but on Linux."""
    pr_set_pdeathsig = 1
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)
