"""Real worker processes: started with an environment, waited for, ended in every way.

Owns the processes that it started and their logs; never asserts about what they do.
"""

import itertools
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import redis

from support.waiting import wait_until

#: Seconds within which a worker must have said in Redis that it is there. Imports take most of them.
PRESENT_TIMEOUT_S = 60.0


@dataclass(slots=True)
class WorkerProcess:
    """One `start_workers` (or `dramatiq`) command and what runs below it."""

    name: str
    process: subprocess.Popen[bytes]
    log_path: Path
    redis_url: str
    namespace: str

    @property
    def pid(self) -> int:
        """Id of the process at the top."""
        return self.process.pid

    @property
    def log(self) -> str:
        """All that it has said so far."""
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def log_lines(self) -> list[dict[str, object]]:
        """Its log lines that are JSON objects."""
        lines = (line for line in self.log.splitlines() if line.startswith("{"))
        return [json.loads(line) for line in lines if line.endswith("}")]

    def presences(self, queue: str) -> dict[str, dict[str, object]]:
        """What its processes say of themselves on `queue`: process → record."""
        with redis.Redis.from_url(self.redis_url, decode_responses=True) as client:
            said = client.hgetall(f"astrid:{self.namespace}:presence:{queue}")
        records = {process: json.loads(text) for process, text in said.items()}
        return {process: record for process, record in records.items() if record.get("pod") == self.name}

    def wait_present(self, *queues: str, count: int = 1, timeout_s: float = PRESENT_TIMEOUT_S) -> None:
        """Wait until `count` of its processes are present on each of `queues`."""
        for queue in queues:
            wait_until(
                lambda queue=queue: self._alive() and len(self.presences(queue)) >= count,
                timeout_s,
                f"{self.name} to be present on {queue}; it said:\n{self.log[-4000:]}",
            )

    def _alive(self) -> bool:
        assert self.process.poll() is None, (
            f"{self.name} ended with {self.process.returncode}:\n{self.log[-4000:]}"
        )
        return True

    def terminate(self) -> None:
        """Ask it to stop (SIGTERM), without waiting."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)

    def stop(self, timeout_s: float = 30.0) -> int:
        """Ask it to stop and return its exit status."""
        self.terminate()
        return self.process.wait(timeout_s)

    def kill(self) -> None:
        """End it and all below it at once (SIGKILL to its process group), as a node that goes away does."""
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            return
        self.process.wait(10)


#: The tests' folder, from which `support` is imported.
TESTS = Path(__file__).parents[1]

#: `start_workers` with the actors of `support.worker_actors`.
WITH_TEST_ACTORS = ("-m", "support.start_test_workers")


class WorkerProcesses:
    """Starts worker processes whose logs go to `folder`; `close` ends them all."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._numbers = itertools.count(1)
        self._started: list[WorkerProcess] = []

    def start(
        self,
        redis_url: str,
        arguments: Sequence[str] = (),
        *,
        environment: Mapping[str, str] | None = None,
        command: Sequence[str] = ("-m", "astrid_workers.start_workers"),
        cwd: Path | None = None,
    ) -> WorkerProcess:
        """Start `python <command> <arguments>` against `redis_url`, in a process group of its own.

        The environment is this one plus the address, POD_NAME, a database and an artifact store in the test's own
        folder, and `environment`.
        """
        name = f"worker-{next(self._numbers)}"
        self._folder.mkdir(parents=True, exist_ok=True)
        variables = {
            **os.environ,
            "REDIS_URL": redis_url,
            "POD_NAME": name,
            "OMP_NUM_THREADS": "1",
            "PYTHONUNBUFFERED": "1",
            "PYTHONPATH": os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")]),
            "ASTRID_DATABASE_URL": f"sqlite:///{self._folder}/astrid.sqlite3",
            "ASTRID_ARTIFACTS_URL": str(self._folder / "artifacts"),
            **(environment or {}),
        }
        log_path = self._folder / f"{name}.log"
        with log_path.open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, *command, *arguments],
                env=variables,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                cwd=cwd,
                start_new_session=True,
            )
        namespace = variables.get("WORKER_NAMESPACE", "dramatiq")
        worker = WorkerProcess(name, process, log_path, redis_url, namespace)
        self._started.append(worker)
        return worker

    def close(self) -> None:
        """End all that were started, and print what they said for the report of a failed test."""
        for worker in self._started:
            worker.kill()
            print(f"--- {worker.name} said:\n{worker.log[-6000:]}")  # shown by pytest where the test failed
