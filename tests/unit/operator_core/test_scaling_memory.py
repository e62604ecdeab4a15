"""What is remembered of a queue: every field is taken over, and peaks are what they are said to be."""

import math
from dataclasses import fields, replace
from itertools import accumulate

from hypothesis import given, settings
from hypothesis import strategies as st

from astrid_operator.scaling import Demand, DemandReading, ScalingMemory
from astrid_operator.scaling_memory import decided, remember, watched, with_peak

#: Every field another value than any other, and than what is put in its place.
BEFORE = ScalingMemory(
    started_at=-5000.0,
    decided=3,
    at=9.0,
    was_known=True,
    demand=Demand(ready=4, running=2),
    server="one",
    idle_seconds=0.25,
    untrusted_until=11.0,
    untrusted_why="because",
    surplus_since=5.0,
    watched_since=4.0,
    peaks=((50.0, 8), (70.0, 2)),
    burst_until=12.0,
    no_room_until=13.0,
)


def test_every_field_is_told_apart_here() -> None:
    """A new field is added above, so that the tests below see it."""
    values = [getattr(BEFORE, each.name) for each in fields(ScalingMemory)]

    assert len({repr(each) for each in values}) == len(values)


def test_a_reading_changes_what_was_read_and_nothing_else() -> None:
    """Work goes on: the last reading is another one, and all else stays."""
    demand = Demand(ready=1, running=2)
    after = remember(DemandReading(10.0, demand, server="one"), 6, BEFORE, 10.0)

    assert after == replace(BEFORE, at=10.0, demand=demand, idle_seconds=0.0)


def test_what_is_wanted_changes_the_watch_alone() -> None:
    """And nothing at all where it is as it was."""
    assert watched(BEFORE, 6.0, 7.0, ((80.0, 1),)) == replace(
        BEFORE, surplus_since=6.0, watched_since=7.0, peaks=((80.0, 1),)
    )
    assert watched(BEFORE, 5.0, 4.0, BEFORE.peaks) is BEFORE


def test_a_decision_changes_the_size_alone() -> None:
    """And nothing at all where it is as it was."""
    assert decided(BEFORE, 9) == replace(BEFORE, decided=9)
    assert decided(BEFORE, 3) is BEFORE


@settings(deadline=None, max_examples=300, derandomize=True)
@given(
    st.lists(st.tuples(st.floats(0.1, 40.0), st.integers(0, 6)), min_size=1, max_size=40),
    st.floats(30.0, 90.0),
)
def test_peaks_are_what_was_wanted_lately_and_not_exceeded_since(
    found: list[tuple[float, int]], seconds: float
) -> None:
    """By their definition, from all that was ever found: each held until the next was, rounded up to 5 s."""
    times = list(accumulate(passed for passed, _ in found))
    sizes = [size for _, size in found]
    peaks: tuple[tuple[float, int], ...] = ()
    for now, size in zip(times, sizes, strict=True):
        peaks = with_peak(peaks, size, now, seconds)

    held_until = [math.ceil(until / 5) * 5 + seconds for until in [*times[1:], times[-1]]]
    assert peaks == tuple(
        (until, size)
        for number, (until, size) in enumerate(zip(held_until, sizes, strict=True))
        if until > times[-1] and all(later < size for later in sizes[number + 1 :])
    )
