"""Whether a worker reaches what it works with: broker, database, artifact store.

Owns three probes and the actor `health_check`, which every worker loads and `--queues default` serves. A
probe says what it saw and how long that took; nothing is repaired.
"""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import redis
import sqlalchemy

from astrid_workers.broker import actor, get_broker
from astrid_workers.errors import AstridError
from astrid_workers.middleware.fleet_keys import process_name
from astrid_workers.storage.artifacts import get_store
from astrid_workers.storage.database import open_database

#: What the probes raise where a service is away.
AWAY = (AstridError, redis.RedisError, sqlalchemy.exc.SQLAlchemyError, OSError)


def check_health() -> dict[str, Any]:
    """`status` (healthy, unhealthy) and one entry per service: `reachable`, `latency_ms`, `error`."""
    services = {
        "broker": _probe(get_broker().client.ping),
        "database": _probe(lambda: open_database(wait=False)),
        "artifact_store": _probe(lambda: get_store().exists("health")),
    }
    healthy = all(service["reachable"] for service in services.values())
    return {
        "status": "healthy" if healthy else "unhealthy",
        "timestamp": datetime.now(UTC).isoformat(),
        "worker_id": process_name(get_broker()),
        **services,
    }


def _probe(look: Callable[[], object]) -> dict[str, Any]:
    started = time.perf_counter()
    error = None
    try:
        look()
    except AWAY as reason:
        error = str(reason) or type(reason).__name__
    latency_ms = round((time.perf_counter() - started) * 1000, 3)
    return {"reachable": error is None, "latency_ms": latency_ms if error is None else None, "error": error}


@actor("default")
def health_check() -> dict[str, Any]:
    """Whether the worker that took this message reaches its services."""
    return check_health()
