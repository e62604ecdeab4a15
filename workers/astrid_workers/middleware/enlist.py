"""Makes the workers of any Dramatiq application on Redis members of a fleet, by being imported.

Named on Dramatiq's command line after the application, it adds the fleet's middleware to the broker that
is set:

    dramatiq my_application fleet_middleware.enlist --path . /opt/astrid

where `/opt/astrid/fleet_middleware/` holds the files of this folder: what the pods of an AstridQueue run that
names a ConfigMap of them in `middleware`. WORKER_MAX_RETRIES, WORKER_TIMEOUT and WORKER_MAX_MEMORY hold where
neither message nor actor says. Rows of dead letters are Astrid's own; their reasons are written into Redis
here too. Never touches actors, and never acts twice.
"""

import os

import dramatiq
import dramatiq.broker
from dramatiq.brokers.redis import RedisBroker
from dramatiq.middleware import Middleware, TimeLimit

from . import dramatiq_version  # noqa: F401 - refuses a wrong one, before others fail in words of their own
from .held import Held
from .order import surround
from .poison import DEFAULT_MAX_RETRIES
from .time_limit import DEFAULT_LIMIT_MS


def enlist(broker: dramatiq.Broker) -> None:
    """Put the fleet's middleware around what `broker` has; Dramatiq's `TimeLimit` gives way to ours."""
    if not isinstance(broker, RedisBroker):
        raise TypeError(f"the fleet's middleware needs a RedisBroker, not {type(broker).__name__}")
    theirs: list[Middleware] = broker.middleware
    if any(isinstance(one, Held) for one in theirs):
        return
    limits = [one.time_limit for one in theirs if isinstance(one, TimeLimit)]
    broker.middleware = surround(
        [one for one in theirs if not isinstance(one, TimeLimit)],
        max_retries=int(os.environ.get("WORKER_MAX_RETRIES") or DEFAULT_MAX_RETRIES),
        time_limit_ms=float(os.environ.get("WORKER_TIMEOUT") or 0) * 1000
        or next(iter(limits), DEFAULT_LIMIT_MS),
        max_memory_mb=int(os.environ.get("WORKER_MAX_MEMORY") or 0),
    )
    broker.actor_options |= {option for one in broker.middleware for option in one.actor_options}


def _broker_that_is_set() -> dramatiq.Broker:
    """Raises RuntimeError where there is none: Dramatiq would make up one, which no actor uses."""
    if dramatiq.broker.global_broker is None:
        raise RuntimeError("no broker is set: the application must call dramatiq.set_broker")
    return dramatiq.get_broker()


enlist(_broker_that_is_set())
