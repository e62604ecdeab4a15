"""The fleet's middleware in its one order, around whatever an application has of its own.

Dramatiq runs `before_…` hooks down the list and `after_…` hooks up it. So: what runs is known before
anything else looks; presence and counters see the whole task; who stands in for this process is gone before
presence takes back what it said; the poison limit refuses before the task starts; and the time limit is
nearest to the task, so that waiting for Redis in the retries outside it does not count against it.
"""

from collections.abc import Callable, Sequence

from dramatiq.middleware import Middleware

from .counters import Counters
from .dead_letters import DeadLetter, DeadLetters
from .drain import Drain
from .held import Held
from .memory_limit import MemoryLimit
from .poison import Poison
from .presence import Presence
from .stand_in import StandIn
from .time_limit import TimeLimit


def surround(
    inner: Sequence[Middleware],
    *,
    max_retries: int,
    time_limit_ms: float,
    max_memory_mb: int,
    version: str | None = None,
    record: Callable[[DeadLetter], None] | None = None,
) -> list[Middleware]:
    """`inner` with the fleet's middleware around it;

    the numbers hold where neither message nor actor says.
    """
    held, counters, stand_in = Held(), Counters(), StandIn()
    return [
        held,
        Presence(held, counters, stand_in, version=version),
        stand_in,
        counters,
        DeadLetters(record),
        Poison(max_retries=max_retries),
        *inner,
        TimeLimit(held, stand_in, time_limit=time_limit_ms),
        Drain(held),
        *([MemoryLimit(max_memory_mb)] if max_memory_mb else []),
    ]
