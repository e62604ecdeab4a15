"""`astrid-operator run` as a real subprocess: its settings by environment, its log in a file.

Owns one operator process and where its probes answer; never looks inside it.
"""

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx

from cluster.owned_process import OwnedProcess
from support.waiting import wait_until


@dataclass
class OperatorProcess:
    """A started operator: `process` to pause, stop or kill; ports of metrics and probes."""

    process: OwnedProcess
    metrics_port: int
    probes_port: int

    @classmethod
    def start(
        cls,
        kubeconfig: Path,
        log: Path,
        *,
        arguments: Sequence[str],
        env: Mapping[str, str],
        ports: tuple[int, int],
    ) -> "OperatorProcess":
        """Start `astrid-operator run ARGUMENTS`; it may not be ready yet."""
        metrics_port, probes_port = ports
        settings = {
            **{name: os.environ[name] for name in ("HOME", "LANG", "TMPDIR") if name in os.environ},
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), "/usr/bin", "/bin"]),
            "PYTHONUNBUFFERED": "1",
            "KUBECONFIG": str(kubeconfig),
            "ASTRID_OPERATOR_LISTEN_ADDRESS": "127.0.0.1",
            "ASTRID_OPERATOR_METRICS_PORT": str(metrics_port),
            "ASTRID_OPERATOR_PROBES_PORT": str(probes_port),
            **env,
        }
        command = [sys.executable, "-m", "astrid_operator", "run", *arguments]
        return cls(OwnedProcess.start("astrid-operator", command, log, settings), metrics_port, probes_port)

    def wait_until_healthy(self, timeout_s: float = 60) -> "OperatorProcess":
        """Wait for `/healthz`; fails with its last words when it ends before that."""

        def healthy() -> bool:
            assert self.process.is_alive, (
                f"the operator ended with {self.process.exit_code}\n{self.process.tail()}"
            )
            return self.answers("/healthz")

        try:
            wait_until(healthy, timeout_s, "the operator's /healthz")
        except AssertionError as failure:
            raise AssertionError(f"{failure}\n{self.process.tail()}") from None
        return self

    def answers(self, path: str) -> bool:
        """True when its probes port says 200 to `path`."""
        try:
            return self._get(self.probes_port, path).status_code == 200
        except httpx.HTTPError:
            return False

    def metrics(self) -> str:
        """Its `/metrics` as text."""
        return self._get(self.metrics_port, "/metrics").raise_for_status().text

    @staticmethod
    def _get(port: int, path: str) -> httpx.Response:
        return httpx.get(f"http://127.0.0.1:{port}{path}", timeout=2, trust_env=False)
