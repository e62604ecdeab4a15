"""`astrid-operator local` as a real process, with a folder of AstridQueue files of its own.

Owns one such process; a test writes files, sends messages to it through Redis, and reads its status file.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from support.waiting import wait_until

TESTS = Path(__file__).resolve().parents[1]


class LocalOperator:
    """A local fleet in `folder`; `write` its queues, then `start` it."""

    def __init__(self, folder: Path, redis_url: str | None) -> None:
        self.folder = folder
        self.queues = folder / "queues"
        self.state = folder / "state"
        self.status_file = folder / "status.json"
        self.queues.mkdir(parents=True)
        self._redis_url = redis_url
        self._process: subprocess.Popen[str] | None = None

    def write(self, name: str, **spec: Any) -> None:
        """Write (or edit) the AstridQueue `name`."""
        manifest = {"apiVersion": "astrid.dev/v1alpha1", "kind": "AstridQueue", "metadata": {"name": name}}
        (self.queues / f"{name}.yaml").write_text(yaml.safe_dump({**manifest, "spec": spec}))

    def start(self, *arguments: str, capacity: int = 2, env: Mapping[str, str] | None = None) -> None:
        """Start it; every change is a line of JSON in `output`."""
        command = [sys.executable, "-m", "astrid_operator", "local", "-f", str(self.queues), "--json"]
        command += ["--capacity", str(capacity), "--folder", str(self.state)]
        command += ["--status-file", str(self.status_file), *arguments]
        with (self.folder / "out").open("w") as out, (self.folder / "log").open("w") as log:
            self._process = subprocess.Popen(
                command, stdout=out, stderr=log, env=self._environment(env or {})
            )

    def _environment(self, more: Mapping[str, str]) -> dict[str, str]:
        base = {name: value for name, value in os.environ.items() if name != "REDIS_URL"}
        address = {} if self._redis_url is None else {"REDIS_URL": self._redis_url}
        return {**base, **address, "PYTHONPATH": str(TESTS), "OMP_NUM_THREADS": "1", **more}

    # ------------------------------------------------------------------ what it says

    @property
    def log(self) -> str:
        """What it logged."""
        return (self.folder / "log").read_text()

    @property
    def output(self) -> list[dict[str, Any]]:
        """Its lines of JSON."""
        return [json.loads(line) for line in (self.folder / "out").read_text().splitlines()]

    @property
    def worker_logs(self) -> str:
        """What its members wrote."""
        return "\n".join(path.read_text(errors="replace") for path in (self.state / "logs").rglob("*.log"))

    def status(self, name: str) -> dict[str, Any]:
        """The row of one AstridQueue; an empty one until the status file has it."""
        self._check_alive()
        if not self.status_file.exists():
            return {}
        rows = json.loads(self.status_file.read_text())["queues"]
        return next((row for row in rows if row["name"] == name), {})

    def wait_status(self, name: str, timeout_s: float = 30, **expected: Any) -> dict[str, Any]:
        """Wait until all of `expected` holds for one AstridQueue."""

        def holds() -> dict[str, Any] | None:
            row = self.status(name)
            return row if row and all(row[field] == value for field, value in expected.items()) else None

        try:
            return wait_until(holds, timeout_s, f"{name} to be {expected}")
        except AssertionError as failure:
            told = f"it is {self.status(name)}\n{self.log[-3000:]}\n{self.worker_logs[-3000:]}"
            raise AssertionError(f"{failure}; {told}") from None

    def member_pids(self) -> list[int]:
        """Process ids of its members, as it wrote them down."""
        notes = self.state / "members.json"
        return [each["pid"] for each in json.loads(notes.read_text())] if notes.exists() else []

    # ------------------------------------------------------------------ ends

    def _check_alive(self) -> None:
        assert self._process is not None
        code = self._process.poll()
        assert code is None, f"astrid-operator local ended with {code}\n{self.log[-3000:]}"

    def interrupt(self) -> None:
        """What Ctrl-C does."""
        assert self._process is not None
        self._process.send_signal(signal.SIGINT)

    def kill(self) -> None:
        """SIGKILL to it alone."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(10)

    def wait(self, timeout_s: float = 30) -> int:
        """Its exit status."""
        assert self._process is not None
        return self._process.wait(timeout_s)

    def close(self) -> None:
        """End it, quickly if it does not go by itself."""
        if self._process is None or self._process.poll() is not None:
            return
        self.interrupt()
        try:
            self.wait(15)
        except subprocess.TimeoutExpired:
            self.interrupt()
            self.wait(15)
