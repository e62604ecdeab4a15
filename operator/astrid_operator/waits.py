"""How long messages waited until they were started, as workers counted it.

Owns the bounds within which waits are counted and what makes sense of the counts; they only ever grow. Pure.
"""

import math
from dataclasses import dataclass

#: Waits are counted up to each of these, in seconds, and beyond; the workers' own are the same.
BOUNDS_SECONDS = (0.5, 2, 10, 30, 60, 120, 600, 3600)

#: Fields of the hash of counters: all waits together, then starts by the least bound that their wait kept.
FIELDS = ("wait_seconds", *(f"waited_{bound:g}" for bound in BOUNDS_SECONDS), "waited_longer")


@dataclass(frozen=True, slots=True)
class Waits:
    """Waits of one queue since counting began."""

    #: All together, in seconds.
    seconds: float
    #: Starts by the least bound of `BOUNDS_SECONDS` that their wait kept; the last: by none.
    starts: tuple[int, ...]

    def up_to(self) -> tuple[int, ...]:
        """Starts that waited no longer than each bound; the last: all."""
        return tuple(sum(self.starts[: number + 1]) for number in range(len(self.starts)))


def waits_of(said: bytes) -> Waits | None:
    """`said` holds the values of `FIELDS` as workers wrote them; `-` stands for none.

    None where they are not as many, or one of them is no number that could have been counted.
    """
    values = said.split()
    if len(values) != len(FIELDS):
        return None
    try:
        seconds, *starts = [0.0 if value == b"-" else float(value) for value in values]
    except ValueError:
        return None
    if not all(math.isfinite(number) and number >= 0 for number in (seconds, *starts)):
        return None
    return Waits(seconds, tuple(map(int, starts)))
