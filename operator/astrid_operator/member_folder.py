"""The folder of a local fleet: its logs, and what is written down of members that an earlier run left behind.

Owns that one fleet uses the folder, the names of logs, and the end of members whose fleet was killed: they
have their grace, then they are killed. Never touches a process that is not written down with its start time.
"""

import contextlib
import fcntl
import json
import os
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from signal import SIGKILL, SIGTERM
from typing import Any

import structlog

from astrid_operator.astrid_queue import QueueKey
from astrid_operator.member_process import ProcessId, signal_session

log = structlog.get_logger(__name__)

#: Logs kept of members of one queue that are gone.
LOGS_KEPT = 20


class FolderTaken(Exception):  # noqa: N818 - named for what it is
    """Another local fleet uses this folder."""


class MemberFolder:
    """One folder, from `take` to `leave`. Times are those of the fleet's monotonic clock, in seconds."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = contextlib.ExitStack()
        #: Members of an earlier run that are still there, and when each is killed.
        self._leftovers: dict[ProcessId, float] = {}

    def take(self, now: float) -> None:
        """Make it ours, and ask what an earlier run left to leave. Raises FolderTaken."""
        self._folder.mkdir(parents=True, exist_ok=True)
        lock = self._lock.enter_context((self._folder / "lock").open("w"))
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._lock.close()
            raise FolderTaken(f"another local fleet runs in {self._folder}") from None
        self._find_leftovers(now)

    def leave(self) -> None:
        """Let others have it."""
        self._lock.close()

    def write_down(self, members: Iterable[tuple[ProcessId, float]]) -> None:
        """Note the members that live, with their grace, for whoever comes after a fleet that is killed."""
        new = self._notes.with_suffix(".new")
        new.write_text(json.dumps([{**identity.as_json(), "grace": grace} for identity, grace in members]))
        new.replace(self._notes)

    def end_leftovers(self, now: float) -> None:
        """Kill members of an earlier run that have had their grace."""
        for identity, deadline in list(self._leftovers.items()):
            if not identity.is_alive:
                del self._leftovers[identity]
            elif now > deadline:
                signal_session(identity.pid, SIGKILL)

    def new_log(self, key: QueueKey, member: str) -> Path:
        """Where a new member of a queue writes."""
        path = self._logs_of(key) / f"{member}.log"
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def forget_old_logs(self, key: QueueKey, alive: Collection[Path]) -> None:
        """Remove all but the newest logs of members that are gone."""
        gone = [path for path in self._logs_of(key).glob("*.log") if path not in alive]
        gone.sort(key=lambda path: path.stat().st_mtime)
        for path in gone[:-LOGS_KEPT]:
            path.unlink(missing_ok=True)

    @property
    def _notes(self) -> Path:
        return self._folder / "members.json"

    def _logs_of(self, key: QueueKey) -> Path:
        return self._folder / "logs" / key.namespace / key.name

    def _find_leftovers(self, now: float) -> None:
        try:
            noted = [_noted(each) for each in json.loads(self._notes.read_text())]
        except (OSError, ValueError, TypeError, KeyError):
            return
        self._leftovers = {identity: now + grace for identity, grace in noted if identity.is_alive}
        for identity in self._leftovers:
            log.warning("Member of an earlier run still ends", pid=identity.pid)
            with contextlib.suppress(ProcessLookupError):
                os.kill(identity.pid, SIGTERM)


def _noted(entry: Mapping[str, Any]) -> tuple[ProcessId, float]:
    return ProcessId(int(entry["pid"]), str(entry["started"])), float(entry["grace"])
