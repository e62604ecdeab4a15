"""Watches wait while a crowd of sizes is to be written: never for long, never twice in a row."""

import pytest

from astrid_operator.held_watches import (
    CROWD,
    LEAST_READING_SECONDS,
    LONGEST_WAIT_SECONDS,
    HeldWatches,
    is_to_wait,
)

LONG_AGO = float("inf")


@pytest.mark.parametrize(
    ("sizes_wanted", "waited", "read", "waits"),
    [
        (0, 0.0, LONG_AGO, False),
        (CROWD, 0.0, LONG_AGO, False),
        (CROWD + 1, 0.0, LONG_AGO, True),
        (1000, LONGEST_WAIT_SECONDS - 0.01, LONG_AGO, True),
        (1000, LONGEST_WAIT_SECONDS, LONG_AGO, False),
        (1000, 0.0, LEAST_READING_SECONDS, True),
        (1000, 0.0, LEAST_READING_SECONDS - 0.01, False),
    ],
)
def test_only_a_crowd_of_sizes_is_waited_for(
    sizes_wanted: int, waited: float, read: float, waits: bool
) -> None:
    """More sizes than are under way at a time, for two seconds, and not again before ten of reading."""
    assert is_to_wait(sizes_wanted, waited, read) is waits


class Burst:
    """Sizes that are written one after the other while time passes; nothing else makes it pass."""

    def __init__(self, sizes: int, sizes_per_second: float) -> None:
        self.now = 100.0
        self._sizes, self._rate, self._began = sizes, sizes_per_second, self.now

    def wanted(self) -> int:
        return max(0, round(self._sizes - self._rate * (self.now - self._began)))

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def waits(burst: Burst, events: int, event_seconds: float) -> list[float]:
    """How long the watches waited before each event, where reading one takes `event_seconds`."""
    held, found = HeldWatches(burst.wanted, clock=burst.clock, sleep=burst.sleep), []
    for _ in range(events):
        began = burst.now
        held.wait()
        found.append(burst.now - began)
        burst.sleep(event_seconds)
    return found


def test_reading_goes_on_once_few_sizes_are_left() -> None:
    """The last ones are under way: there is nothing left to be sent sooner."""
    first, *others = waits(Burst(sizes=216, sizes_per_second=200.0), events=20, event_seconds=0.001)

    assert first == pytest.approx(1.0, abs=0.05)
    assert set(others) == {0.0}


def test_a_burst_that_takes_long_is_read_after_a_while() -> None:
    """Whatever is still to be written: two seconds later everything is read, for ten at least."""
    found = waits(Burst(sizes=100_000, sizes_per_second=10.0), events=2500, event_seconds=0.01)
    held = [number for number, seconds in enumerate(found) if seconds]

    assert all(found[number] == pytest.approx(LONGEST_WAIT_SECONDS, abs=0.05) for number in held)
    assert held[:2] == [0, pytest.approx(LEAST_READING_SECONDS / 0.01, abs=2)]


def test_a_few_sizes_hold_nobody_up() -> None:
    """What is always under way somewhere in a large fleet is no burst."""
    assert set(waits(Burst(sizes=CROWD, sizes_per_second=0.0), events=20, event_seconds=0.001)) == {0.0}
