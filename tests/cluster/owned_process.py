"""A program that a test started: its log in a file, its end by its own process id.

Owns one process in a session of its own. It never outlives its starter on Linux, not even one that is killed.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from support.waiting import wait_until

#: Becomes the program, after asking the kernel for a SIGKILL when the starter ends. An own small program, since
#: Python code between fork and exec is not safe where there are threads.
_LAUNCHER = """
import ctypes, os, signal, sys
parent, program, *arguments = sys.argv[1:]
ctypes.CDLL(None).prctl(1, signal.SIGKILL)
if os.getppid() == int(parent):
    os.execvp(program, [program, *arguments])
"""


def bound_to_us(command: Sequence[str]) -> list[str]:
    """`command`, started so that on Linux it ends when this process does, however that ends."""
    if sys.platform != "linux":
        return list(command)
    return [sys.executable, "-I", "-S", "-c", _LAUNCHER, str(os.getpid()), *command]


@dataclass
class OwnedProcess:
    """A running program; `name` is what messages call it."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path
    command: tuple[str, ...]

    @classmethod
    def start(
        cls, name: str, command: Sequence[str | Path], log: Path, env: Mapping[str, str]
    ) -> "OwnedProcess":
        """Start `command` with exactly `env`; output of both kinds is appended to `log`."""
        with log.open("ab") as output:
            process = subprocess.Popen(
                bound_to_us([os.fspath(part) for part in command]),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=dict(env),
                start_new_session=True,
            )
        return cls(name, process, log, tuple(os.fspath(part) for part in command))

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def is_alive(self) -> bool:
        return self.process.poll() is None

    @property
    def exit_code(self) -> int | None:
        return self.process.poll()

    def text(self) -> str:
        """All that it has written so far."""
        return self.log.read_text(errors="replace")

    def tail(self, lines: int = 25) -> str:
        """Its last words, for a message."""
        last = [line[:400] for line in self.text().splitlines()[-lines:]]
        return "\n".join([f"--- last lines of {self.name} ({self.log})", *last])

    def signal(self, number: int) -> None:
        """Send a signal to it alone, if it is still there."""
        if self.is_alive:
            self.process.send_signal(number)

    def pause(self) -> None:
        """SIGSTOP: frozen, its connections open."""
        self.signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT: goes on."""
        self.signal(signal.SIGCONT)

    def kill(self) -> None:
        """SIGKILL, and wait for its end."""
        self.signal(signal.SIGKILL)
        self.process.wait(timeout=30)

    def stop(self, grace_s: float = 20) -> int:
        """SIGTERM, then SIGKILL after `grace_s`; returns the exit code."""
        self.resume()
        self.signal(signal.SIGTERM)
        try:
            return self.process.wait(timeout=grace_s)
        except subprocess.TimeoutExpired:
            self.kill()
            return self.process.returncode

    def wait_for_text(self, text: str, timeout_s: float = 30) -> None:
        """Wait until it has written `text`; fails with its last words when it ends before that."""

        def written() -> bool:
            if text in self.text():
                return True
            assert self.is_alive, f"{self.name} ended with {self.exit_code}\n{self.tail()}"
            return False

        wait_until(written, timeout_s, f"{self.name} to write {text!r}")
