"""Which attempts of a simulation fail, and what becomes of their messages: a retry, or the dead letters.

Owns the drawing of failures, what the time limit of an AstridQueue makes of its load, and the rule by which
Dramatiq delays a retry, which workers apply with the settings that an AstridQueue gives them: the operator
may not import Dramatiq, a contract test compares the two. Has no clock and no queue.
"""

import random
from array import array
from collections.abc import Collection, Sequence

from astrid_operator.astrid_queue import AstridQueue, AstridQueueSpec
from astrid_operator.simulation_load import Arrival

#: Doublings of the first delay after which Dramatiq doubles no more.
MOST_DOUBLINGS = 32


class SimulatedFailures:
    """The failures among the messages of one queue, by their numbers.

    Each message has its luck from the start, one number for all its attempts, so that with another spec the
    same messages fail as often in a row; attempts fail as independently as if each had been drawn. Of those
    that are `too_long` for the time limit all attempts fail.
    """

    def __init__(
        self,
        share: float,
        policy: AstridQueueSpec,
        messages: int,
        rng: random.Random,
        too_long: Collection[int] = frozenset(),
    ) -> None:
        self.too_long = too_long
        self._share = share
        self._policy = policy
        self._rng = rng
        self._luck = array("d", (rng.random() for _ in range(messages)))
        #: Message → how many of its attempts have failed.
        self._failed: dict[int, int] = {}

    def fails(self, message: int) -> bool:
        """Whether the attempt that ends now fails; one that was cut off was none."""
        is_unlucky = self._luck[message] < self._share ** (self._failed.get(message, 0) + 1)
        return is_unlucky or message in self.too_long

    def retry_seconds(self, message: int) -> float | None:
        """Note that an attempt failed; in how long the next one is due, None: its retries are spent."""
        retries, policy = self._failed.get(message, 0), self._policy
        self._failed[message] = retries + 1
        if retries >= policy.max_retries:
            return None
        least_ms, most_ms = policy.retry_delay_seconds * 1000, policy.max_retry_delay_seconds * 1000
        return retry_delay_ms(retries, least_ms, most_ms, self._rng) / 1000


def within_limit(load: Sequence[Arrival], limit_seconds: float) -> tuple[Sequence[Arrival], frozenset[int]]:
    """`load` as workers run it, no attempt for longer than the limit, and the numbers of those cut short."""
    too_long = frozenset([number for number, each in enumerate(load) if each.seconds > limit_seconds])
    if not too_long:
        return load, too_long
    return [each._replace(seconds=min(each.seconds, limit_seconds)) for each in load], too_long


def failures_among(
    queue: AstridQueue, messages: int, share: float, seed: int, too_long: Collection[int] = frozenset()
) -> SimulatedFailures | None:
    """The failures of so many messages of `queue`, the same for the same seed; None: none fails."""
    if not share and not too_long:
        return None
    rng = random.Random(f"{seed} failures {queue.key}")  # noqa: S311 (a simulation)
    return SimulatedFailures(share, queue.spec, messages, rng, too_long)


def retry_delay_ms(retries: int, least_ms: int, most_ms: int, rng: random.Random) -> int:
    """Milliseconds until the next attempt after so many retries, as Dramatiq's `compute_backoff` draws them.

    Doubled with each retry and stretched by up to as much again; beyond the most, half of that to all of it.
    """
    delay_ms = int(least_ms * 2 ** min(retries, MOST_DOUBLINGS) * rng.uniform(1, 2))
    return delay_ms if delay_ms <= most_ms else int(most_ms * rng.uniform(0.5, 1))
