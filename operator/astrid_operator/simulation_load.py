"""What is asked of the queues in a simulation: messages, each with its time, its work and its delay.

Owns how a load is kept, and the drawing of arrivals from a seed (`simulation_trace.py` reads recorded ones).
Knows no fleet and no policy; the same arguments give the same load.
"""

import math
import random
from array import array
from collections.abc import Callable, Iterable
from itertools import chain
from operator import attrgetter
from typing import NamedTuple


class Arrival(NamedTuple):
    """One message: when it is enqueued (seconds since the start), how long a thread works on it, and how long
    after it was enqueued it is due (seconds; 0: it is not delayed).
    """

    at: float
    seconds: float
    delay: float = 0.0


class Load:
    """Messages of one queue in order of time, as plain numbers.

    A million arrivals as objects take a quarter of a gigabyte, and to hand them to another process one by one
    takes as long as a tenth of a whole simulation.
    """

    __slots__ = ("_numbers",)

    def __init__(self, numbers: "array[float]") -> None:
        """The fields of one arrival after the other, in order of time."""
        self._numbers = numbers

    @classmethod
    def of(cls, arrivals: Iterable[Arrival]) -> "Load":
        """`arrivals`, in any order; of equal times each keeps its place."""
        in_order: list[Arrival] = sorted(arrivals, key=attrgetter("at"))
        return cls(array("d", chain.from_iterable(in_order)))

    def __len__(self) -> int:
        return len(self._numbers) // len(Arrival._fields)

    def arrivals(self) -> list[Arrival]:
        """All of them."""
        field = iter(self._numbers)
        return list(map(Arrival, field, field, field))

    @property
    def last_at(self) -> float:
        """When the last message is enqueued; 0: there is none."""
        return self._numbers[-len(Arrival._fields)] if self._numbers else 0.0


def poisson(rng: random.Random, rate: float, seconds: float, sigma: float, length: float) -> list[Arrival]:
    """Messages that come independently of one another, `rate` a second for `length` seconds.

    Each takes `seconds` on average, spread log-normally by `sigma` (0: all take the same).
    """
    draw, arrivals, at = task_times(rng, seconds, sigma), [], rng.expovariate(rate)
    while at < length:
        arrivals.append(Arrival(at, draw()))
        at += rng.expovariate(rate)
    return arrivals


def burst(
    rng: random.Random, count: int, seconds: float, sigma: float = 0.0, at: float = 0.0
) -> list[Arrival]:
    """`count` messages at once, each `seconds` on average."""
    draw = task_times(rng, seconds, sigma)
    return [Arrival(at, draw()) for _ in range(count)]


def diurnal(rng: random.Random, peak: float, seconds: float, sigma: float, length: float) -> list[Arrival]:
    """One night: the rate rises from nothing to `peak` a second at half of `length`, and falls again."""
    possible = poisson(rng, peak, seconds, sigma, length)
    return [each for each in possible if rng.random() < math.sin(math.pi * each.at / length) ** 2]


def task_times(rng: random.Random, mean: float, sigma: float) -> Callable[[], float]:
    """Draws times of tasks: log-normal with that mean, or always the mean."""
    if sigma == 0:
        return lambda: mean
    mu = math.log(mean) - sigma * sigma / 2
    return lambda: rng.lognormvariate(mu, sigma)
