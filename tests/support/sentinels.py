"""A Redis service with a replica and a Sentinel that watches both: real processes, to fail over.

Owns the three of them; the binary is the one the other tests use, which is a Sentinel too.
"""

import shutil
import subprocess
import tempfile
from pathlib import Path

import redis

from support.redis_server import RedisServer, free_port, valkey_binary
from support.waiting import wait_until

SERVICE = "astrid"
#: Milliseconds of silence after which a server counts as down.
DOWN_AFTER_MS = 1000


class WatchedService:
    """Two servers and a Sentinel; `url` names the Sentinel. Use it as a context manager."""

    def __init__(self) -> None:
        self.first = RedisServer(valkey_binary())
        self.second = RedisServer(valkey_binary(), "--replicaof", "127.0.0.1", str(self.first.port))
        self.port = free_port()
        self._folder = Path(tempfile.mkdtemp(prefix="astrid-sentinel-"))
        self._process: subprocess.Popen[bytes] | None = None
        self.sentinel = redis.Redis(host="127.0.0.1", port=self.port, socket_timeout=5, decode_responses=True)

    @property
    def url(self) -> str:
        """The address of the service."""
        return f"redis+sentinel://127.0.0.1:{self.port}/{SERVICE}/0"

    def __enter__(self) -> "WatchedService":
        self.first.start()
        self.second.start()
        config = self._folder / "sentinel.conf"
        config.write_text(
            f"port {self.port}\nbind 127.0.0.1\ndir {self._folder}\n"
            f"sentinel monitor {SERVICE} 127.0.0.1 {self.first.port} 1\n"
            f"sentinel down-after-milliseconds {SERVICE} {DOWN_AFTER_MS}\n"
            f"sentinel failover-timeout {SERVICE} 5000\n"
        )
        with (self._folder / "log").open("wb") as log:
            command = [str(valkey_binary()), str(config), "--sentinel"]
            self._process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        wait_until(self._knows_the_replica, 30, "the Sentinel to know the replica")
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self.sentinel.close()
        self.first.close()
        self.second.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def serving(self) -> int:
        """Port of the server that the Sentinel names."""
        return int(self.sentinel.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE)[1])

    def _knows_the_replica(self) -> bool:
        try:
            states = self.sentinel.execute_command("SENTINEL", "REPLICAS", SERVICE)
        except redis.RedisError:
            return False
        in_step = self.second.client.info("replication").get("master_link_status") == "up"
        return len(states) == 1 and in_step
