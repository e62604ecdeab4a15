"""Dramatiq's Redis broker, with each queue's own prefetch and calm where Redis is away.

Owns how many messages of a queue one process holds (so that threads shared by several queues still work
on at most `concurrency` of each), and that a silent server counts as a broken connection: Dramatiq then
tries again instead of giving up an acknowledgement or a consumer. Keys, scripts and heartbeats stay
Dramatiq's.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import dramatiq
import redis
from dramatiq.brokers.redis import RedisBroker, _RedisConsumer
from dramatiq.common import q_name
from dramatiq.errors import ConnectionClosed


class QueueBroker(RedisBroker):
    """A `RedisBroker` that asks `prefetch_of` how many messages of a queue to hold."""

    def __init__(self, *, prefetch_of: Callable[[str], int], **arguments: Any) -> None:
        super().__init__(**arguments)  # type: ignore[no-untyped-call]
        self._prefetch_of = prefetch_of

    @property
    def consumer_class(self) -> type["CalmConsumer"]:
        return CalmConsumer

    def consume(self, queue_name: str, prefetch: int = 1, timeout: int = 5000) -> "CalmConsumer":
        """A consumer of `queue_name`; 0 stays 0, since a process that drains fetches nothing."""
        is_delay_queue = q_name(queue_name) != queue_name
        held = prefetch if is_delay_queue or not prefetch else self._prefetch_of(queue_name)
        return self.consumer_class(self, queue_name, held, timeout)


class CalmConsumer(_RedisConsumer):
    """A consumer for which a server that does not answer in time is a connection that broke."""

    def ack(self, message: dramatiq.MessageProxy) -> None:
        """Acknowledge; raises `ConnectionClosed` where Redis does not answer, and is then called again."""
        with _silence_is_a_broken_connection():
            super().ack(message)  # type: ignore[no-untyped-call]

    def nack(self, message: dramatiq.MessageProxy) -> None:
        """Refuse; raises as `ack` does."""
        with _silence_is_a_broken_connection():
            super().nack(message)  # type: ignore[no-untyped-call]

    def requeue(self, messages: Any) -> None:
        """Return messages to the queue; raises as `ack` does."""
        with _silence_is_a_broken_connection():
            super().requeue(messages)  # type: ignore[no-untyped-call]

    def __next__(self) -> Any:
        with _silence_is_a_broken_connection():
            return super().__next__()  # type: ignore[no-untyped-call]


@contextmanager
def _silence_is_a_broken_connection() -> Iterator[None]:
    try:
        yield
    except (redis.ConnectionError, redis.TimeoutError, redis.exceptions.ReadOnlyError) as error:
        raise ConnectionClosed(str(error)) from None  # type: ignore[no-untyped-call]
