"""Tasks for the workers of `support.diary_app`, and what became of each.

Owns one queue's messages as a producer sends them, and the reading of its diary; knows nothing of pods.
"""

import base64
from collections import Counter
from pathlib import Path
from typing import Any

import dramatiq
from dramatiq.brokers.redis import RedisBroker

from cluster.api_client import Api
from support.redis_server import RedisServer
from support.waiting import wait_until

TESTS = Path(__file__).resolve().parents[1]

#: Of an AstridQueue whose pods run the application.
DIARY_APP: dict[str, Any] = {
    "app": "support.diary_app",
    "timeoutSeconds": 120,
    "env": [{"name": "PYTHONPATH", "value": str(TESTS)}],
}


class Diary:
    """Sends tasks to one queue and reads what was done."""

    def __init__(self, server: RedisServer, queue: str) -> None:
        self.queue = queue
        self.client = server.client
        self._broker = RedisBroker(url=server.url())
        self._broker.declare_queue(queue)
        self.sent: list[str] = []

    def send(self, seconds: float, mark: str) -> None:
        """Enqueue one task."""
        message = dramatiq.Message(self.queue, "work", (seconds, mark), {}, {})
        self._broker.enqueue(message)
        self.sent.append(mark)

    def close(self) -> None:
        """End the connection."""
        self._broker.close()

    def lines(self, word: str) -> list[tuple[str, str]]:
        """(mark, pod) of the tasks that began or ended, in order."""
        rows = (line.decode().split() for line in self.client.lrange(f"diary:{self.queue}", 0, -1))
        return [(row[1], row[2]) for row in rows if row[0] == word]

    def marks(self, word: str) -> list[str]:
        """Marks of the tasks that began or ended."""
        return [mark for mark, _ in self.lines(word)]

    def pod_of(self, mark: str) -> str:
        """Where a task began."""
        return wait_until(lambda: dict(self.lines("begin")).get(mark), 60, f"{mark} to begin")

    def wait_until_done(self, timeout_s: float = 120) -> None:
        """Everything that was sent has ended."""
        wait_until(lambda: set(self.sent) <= set(self.marks("end")), timeout_s, "all tasks to end")

    def check_each_ran_once(self) -> None:
        """No task was broken off, and none was begun twice."""
        begun, ended = Counter(self.marks("begin")), Counter(self.marks("end"))
        assert ended == Counter(self.sent)
        assert {mark: count for mark, count in begun.items() if count != 1} == {}


def let_pods_know(api: Api, namespace: str, server: RedisServer) -> None:
    """The Secret from which pods read where Redis is."""
    data = {"url": base64.b64encode(server.url().encode()).decode()}
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "astrid-redis"}, "data": data}
    api.create(secret, namespace)
