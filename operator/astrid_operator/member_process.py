"""One member of a local fleet: a session of processes of its own, its log, and its end.

Owns starting, asking to leave and killing one process and all below it. On Linux a member is asked to leave
(SIGTERM) when this process ends, however that ends; elsewhere the next start finds what was left, by the
process id and start time that are written down. Never decides who lives.
"""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

#: Becomes the member, after asking the kernel for a SIGTERM when its starter ends. A small program of its
#: own, since Python code between fork and exec is not safe where there are threads.
_LAUNCHER = """
import ctypes, os, signal, sys
parent, program, *arguments = sys.argv[1:]
ctypes.CDLL(None).prctl(1, signal.SIGTERM)
if os.getppid() == int(parent):
    os.execvp(program, [program, *arguments])
"""

#: Bytes of a log's end that are looked at for a member's last words.
_LAST_WORDS_BYTES = 16384
_LAST_WORDS_CHARACTERS = 200


_HAS_PROC = Path("/proc/self/stat").exists()
#: Positions in what `_stat` returns.
_STATE_FIELD, _SESSION_FIELD, _START_FIELD = 0, 3, 19


@dataclass(frozen=True, slots=True)
class ProcessId:
    """One process for good: ids are used again, an id with its start time is not."""

    pid: int
    started: str

    @property
    def is_alive(self) -> bool:
        """Whether that very process is still there."""
        return start_time(self.pid) == self.started

    def as_json(self) -> dict[str, int | str]:
        """What is written down of it."""
        return asdict(self)


def start_time(pid: int) -> str:
    """When a process started, in the system's own words; empty: it is gone, or only its remains are left."""
    if _HAS_PROC:
        fields = _stat(pid)
        return fields[_START_FIELD] if fields and fields[_STATE_FIELD] != "Z" else ""
    return _asked_ps("-o", "lstart=", "-p", str(pid)).strip()


def signal_session(session: int, number: int) -> None:
    """Send a signal to all that is left of a session: what a member started, in whatever process group."""
    for pid in _pids_of_session(session):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


def _pids_of_session(session: int) -> list[int]:
    if not _HAS_PROC:
        rows = (line.split() for line in _asked_ps("-A", "-o", "pid=,sess=").splitlines())
        return [int(row[0]) for row in rows if len(row) == 2 and row[1] == str(session)]
    pids = [int(each.name) for each in Path("/proc").iterdir() if each.name.isdecimal()]
    return [pid for pid in pids if (fields := _stat(pid)) and fields[_SESSION_FIELD] == str(session)]


def _stat(pid: int) -> list[str]:
    """The fields of /proc/<pid>/stat from the third on; empty: there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _asked_ps(*arguments: str) -> str:
    return subprocess.run(["ps", *arguments], capture_output=True, text=True, check=False).stdout


class MemberProcess:
    """A started member. Only the loop that started it may use it."""

    def __init__(self, name: str, process: asyncio.subprocess.Process, log: Path) -> None:
        self.name = name
        self.log = log
        self._process = process
        self.id = ProcessId(process.pid, start_time(process.pid))

    @classmethod
    async def start(
        cls, name: str, command: Sequence[str], environment: Mapping[str, str], log: Path
    ) -> "MemberProcess":
        """Start `command` in a session of its own, with all output in `log`. Raises OSError where it
        cannot."""
        with log.open("wb") as output:
            process = await asyncio.create_subprocess_exec(
                *_bound_to_us(command),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=asyncio.subprocess.STDOUT,
                env=dict(environment),
                start_new_session=True,
            )
        return cls(name, process, log)

    @property
    def exit_code(self) -> int | None:
        """None while it runs; minus the signal that ended it."""
        return self._process.returncode

    def ask_to_leave(self) -> None:
        """SIGTERM to its first process alone: it finishes what it runs and gives back the rest."""
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL to all of it: also what a first process that is gone left behind."""
        signal_session(self.id.pid, signal.SIGKILL)

    async def wait(self) -> int:
        """Its exit code, when it has ended."""
        return await self._process.wait()

    def last_words(self) -> str:
        """Why it ended, as far as it said so, in one shortened line; empty: it said nothing."""
        try:
            with self.log.open("rb") as log:
                log.seek(max(0, self.log.stat().st_size - _LAST_WORDS_BYTES))
                return last_words(log.read().decode(errors="replace"))
        except OSError:
            return ""


def last_words(text: str) -> str:
    """The error of the last traceback in `text`, else its last line; at most `_LAST_WORDS_CHARACTERS`."""
    lines = [line.rstrip() for line in text.splitlines() if line.strip()]
    heads = [number for number, line in enumerate(lines) if line.startswith("Traceback (most recent call")]
    after = lines[heads[-1] + 1 :] if heads else []
    raised = next((line for line in after if not line.startswith(" ")), "")
    said = raised or (lines[-1].strip() if lines else "")
    return said[:_LAST_WORDS_CHARACTERS]


def _bound_to_us(command: Sequence[str]) -> list[str]:
    if sys.platform != "linux":
        return list(command)
    return [sys.executable, "-I", "-S", "-c", _LAUNCHER, str(os.getpid()), *command]
