"""Task times and arrivals, learned from counts that only ever grow."""

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from astrid_operator.throughput import Counted, Estimates, Throughput, counted


def counts(ended: int, each_s: float = 2.0) -> Counted:
    return Counted(ended, ended * each_s, ended * each_s**2)


def test_it_learns_from_the_first_end_and_from_what_was_counted_before() -> None:
    """An operator that has just started knows at once what workers counted for days."""
    assert Throughput().take(0, 5, counts(0)).service_seconds is None
    assert Throughput().take(0, 5, counts(1)).service_seconds == 2.0
    assert Throughput().take(0, 5, counts(1000, 7.0)).service_seconds == pytest.approx(7.0)


def test_the_newest_tasks_count_most() -> None:
    """After a hundred tasks of another kind the old kind is forgotten; after one it is not."""
    pace = Throughput()
    pace.take(0, 0, Counted(100, 200.0, 400.0))
    assert pace.take(1, 0, Counted(101, 220.0, 800.0)).service_seconds == pytest.approx(2 + 0.05 * 18)
    last = pace.take(2, 0, Counted(301, 220.0 + 200 * 20, 800.0 + 200 * 400))
    assert last.service_seconds == pytest.approx(20, rel=0.01)


def test_an_acknowledgement_that_comes_after_its_count_is_no_arrival() -> None:
    """Ends are counted a moment before messages leave: the sum wavers, the rate over a window does not grow."""
    pace = Throughput()
    for second in range(0, 60, 2):
        pace.take(second, 10, counts(second))
        last = pace.take(second + 1, 10 - 2, counts(second + 2))
    assert last.arrivals_per_s_fast == pytest.approx(1.0, abs=0.2)
    assert last.arrivals_per_s_slow == pytest.approx(1.0, abs=0.05)


def test_a_burst_shows_in_the_short_window_first() -> None:
    """A minute of one per second, then a hundred at once."""
    pace = Throughput()
    for second in range(61):
        pace.take(second, second, counts(0))
    last = pace.take(61, 161, counts(0))
    assert last.arrivals_per_s_fast == pytest.approx(11.0, rel=0.1)
    assert last.arrivals_per_s_slow == pytest.approx(2.7, rel=0.1)


def test_a_purge_is_no_negative_rate() -> None:
    """Messages that are deleted did not un-arrive."""
    pace = Throughput()
    for second in range(20):
        pace.take(second, 1000, counts(0))
    assert pace.take(20, 0, counts(0)).arrivals_per_s_fast == 0.0


def test_counts_that_shrink_begin_anew() -> None:
    """A flushed server, or another one: neither the old mean nor a huge rate survives."""
    pace = Throughput()
    for second in range(20):
        pace.take(second, 0, counts(100 * second))
    after = pace.take(20, 5, counts(1, 9.0))
    assert after.service_seconds == 9.0
    assert after.arrivals_per_s_fast is None


def test_a_missed_reading_leaves_no_rate_behind() -> None:
    """What came in an outage did not come in the second after it."""
    pace = Throughput()
    for second in range(20):
        pace.take(second, 0, counts(0))
    pace.missed()
    assert pace.take(200, 10_000, counts(0)).arrivals_per_s_fast is None
    assert pace.take(206, 10_000, counts(0)).arrivals_per_s_fast == 0.0


@pytest.mark.parametrize("ended", [Counted(2, 1e300, 1.0), Counted(2, -5.0, 1.0), Counted(2, 5.0, -1e9)])
def test_what_no_task_can_take_is_not_believed(ended: Counted) -> None:
    """A worker that lies about its seconds changes nothing."""
    pace = Throughput()
    pace.take(0, 0, Counted(1, 4.0, 16.0))
    assert pace.take(1, 0, ended).service_seconds == 4.0


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ([b"-"] * 5, None),
        ([b"3", b"-", b"-", b"-", b"-"], Counted(0, 0.0, 0.0)),
        ([b"5", b"3", b"1", b"8.5", b"20"], Counted(4, 8.5, 20.0, failed=1)),
        ([b"5", b"x", b"1", b"8.5", b"20"], None),
        ([b"5", b"nan", b"1", b"8.5", b"20"], None),
        ([b"5", b"1e999", b"1", b"8.5", b"20"], None),
        ([b"5", b"-3", b"1", b"8.5", b"20"], None),
    ],
)
def test_counters_are_numbers_or_nothing(values: list[bytes], found: Counted | None) -> None:
    """Text, NaN, infinity and less than nothing are not counts."""
    assert counted(values) == found


#: Seconds since the reading before, messages that came, tasks that ended, seconds of each; None: it failed.
READING = st.one_of(
    st.none(),
    st.tuples(
        st.floats(0.1, 20.0),
        st.one_of(st.just(0), st.just(0), st.integers(-2, 30)),
        st.integers(0, 4),
        st.floats(0.0, 50.0),
    ),
)


@settings(deadline=None, max_examples=200, derandomize=True)
@given(st.lists(READING, min_size=1, max_size=60))
def test_what_is_dropped_and_kept_ready_changes_no_estimate(readings: list[Any]) -> None:
    """The same numbers, to the last bit, as from all that was ever read."""
    pace, plain = Throughput(), Plain()
    at, outstanding, ended, seconds, squares = 0.0, 0, 0, 0.0, 0.0
    for reading in readings:
        if reading is None:
            pace.missed()
            plain.levels.clear()
            continue
        passed, came, tasks, each_s = reading
        at, outstanding, ended = at + passed, outstanding + came - tasks, ended + tasks
        seconds, squares = seconds + tasks * each_s, squares + tasks * each_s**2

        assert pace.take(at, outstanding, Counted(ended, seconds, squares)) == plain.take(
            at, outstanding, Counted(ended, seconds, squares)
        )


class Plain:
    """The estimates by their definition: every level is kept, and all of it is worked out for each reading."""

    def __init__(self) -> None:
        #: [since, until, came]
        self.levels: list[list[float]] = []
        self.last = Counted(0, 0.0, 0.0)
        self.mean: float | None = None
        self.square = 0.0

    def take(self, at: float, outstanding: int, now: Counted) -> Estimates:
        tasks = now.ended - self.last.ended
        if tasks:
            weight = 1.0 if self.mean is None else 1 - 0.95**tasks
            mean, square = (
                (now.seconds - self.last.seconds) / tasks,
                (now.seconds_squared - self.last.seconds_squared) / tasks,
            )
            self.mean = mean if self.mean is None else self.mean + weight * (mean - self.mean)
            self.square += weight * (square - self.square)
        self.last = now
        came = outstanding + now.ended
        if self.levels and self.levels[-1][2] == came:
            self.levels[-1][1] = at
        else:
            self.levels.append([at, at, came])
        spread = None if self.mean is None else math.sqrt(max(0.0, self.square - self.mean**2))
        return Estimates(self.mean or None, spread, self._rate(at, 10.0), self._rate(at, 60.0))

    def _rate(self, at: float, window: float) -> float | None:
        if at - self.levels[0][0] < 5:
            return None
        first = [each for each in self.levels if each[0] <= at - window][-1:] or self.levels[:1]
        since, until, came = first[0]
        return max(0.0, (self.levels[-1][2] - came) / (at - max(since, min(until, at - window))))
