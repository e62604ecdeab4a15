"""What workers and operator tell each other in Redis: the names of the keys, once on this side.

Owns names and how a process is called; never decides what is written. All of it is bounded in size: one
field per process, per message being worked on, or per counter.
"""

import os
import socket
from typing import Any

import redis
from dramatiq.brokers.redis import RedisBroker
from redis.backoff import NoBackoff
from redis.retry import Retry
from redis.sentinel import SentinelConnectionPool

#: Seconds that one command may take before the caller goes on without it.
SIDE_TIMEOUT_S = 5.0

#: Seconds between two beats of presence.
BEAT_EVERY_S = 2.0
#: Seconds without a beat after which a process counts as gone, and after which its record is removed.
STALE_AFTER_S = 10.0
REMOVED_AFTER_S = 60.0
#: Hours for which counters are kept hour by hour.
HOURS_KEPT = 168


def presence_key(namespace: str, queue: str) -> str:
    """Hash: process → JSON of what it says of itself."""
    return f"astrid:{namespace}:presence:{queue}"


def counters_key(namespace: str, queue: str) -> str:
    """Hash: started, finished, failed, retried, dead, seconds, seconds_squared, and `waits`' → number."""
    return f"astrid:{namespace}:counters:{queue}"


def hours_key(namespace: str, queue: str) -> str:
    """Hash, for the last `HOURS_KEPT` hours.

    `<hours since the epoch>:<finished, failed or seconds>` → number.
    """
    return f"astrid:{namespace}:hours:{queue}"


def starts_key(namespace: str, queue: str) -> str:
    """Hash: message id → how often it was started without having ended."""
    return f"astrid:{namespace}:starts:{queue}"


def drain_key(namespace: str, queue: str) -> str:
    """Set of processes that the operator asks to leave."""
    return f"astrid:{namespace}:drain:{queue}"


def acks_key(broker: RedisBroker, queue: str) -> str:
    """Dramatiq's set of the messages of `queue` that this process holds."""
    return f"{broker.namespace}:__acks__.{broker.broker_id}.{queue}"


def heartbeats_key(namespace: str) -> str:
    """Dramatiq's sorted set: broker id → milliseconds at which it last said anything."""
    return f"{namespace}:__heartbeats__"


def pod_name() -> str:
    """The pod, or the machine where there is none."""
    return os.environ.get("POD_NAME") or socket.gethostname()


def process_name(broker: RedisBroker) -> str:
    """This process, among all that ever were: its pod and the start of its broker id."""
    return f"{pod_name()}:{broker.broker_id[:8]}"


def side_client(broker: RedisBroker) -> Any:
    """A client that gives up after `SIDE_TIMEOUT_S` and shares no connection with the broker's own."""
    pool = broker.client.connection_pool
    own = {
        "socket_timeout": SIDE_TIMEOUT_S,
        "socket_connect_timeout": SIDE_TIMEOUT_S,
        "decode_responses": False,
        "retry": Retry(NoBackoff(), 1),
    }
    kwargs = {**pool.connection_kwargs, **own}
    if isinstance(pool, SentinelConnectionPool):
        # the other pool, in which its connections look up the present server
        kwargs.pop("connection_pool", None)
        beside = SentinelConnectionPool(  # type: ignore[no-untyped-call]
            pool.service_name, pool.sentinel_manager, connection_class=pool.connection_class, **kwargs
        )
        return redis.Redis(connection_pool=beside)
    if type(pool) is not redis.ConnectionPool:
        return broker.client
    return redis.Redis(connection_pool=redis.ConnectionPool(pool.connection_class, **kwargs))
