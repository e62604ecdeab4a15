"""Points in a row against points anywhere: what is told, and how rarely chance is."""

import numpy as np
import pytest

from astrid_workers.imaging.aligned_points import MOST_POINTS, Row, aligned_points

SIDE = 1000.0


def scattered(n: int, seed: int) -> np.ndarray:
    """Rows `(x, y, error)` of points that lie anywhere, with the errors of sources from 5 sigma on."""
    rng = np.random.default_rng(seed)
    snr = np.minimum(5 * (1 - rng.uniform(size=n)) ** (-1 / 1.5), 60.0)
    return np.column_stack([rng.uniform(0, SIDE, (n, 2)), 1.3 / snr])


def chain(
    n: int, *, gap: float = 40.0, degrees: float = 25.0, error: float = 0.1, missing: int = -1
) -> np.ndarray:
    """Rows of points at equal gaps on a straight line, one of them perhaps not seen."""
    along = np.delete(np.arange(n) * gap, missing) if missing >= 0 else np.arange(n) * gap
    turn = np.radians(degrees)
    off = np.random.default_rng(3).normal(0, error, (2, along.size))
    x, y = 300 + along * np.cos(turn) + off[0], 200 + along * np.sin(turn) + off[1]
    return np.column_stack([x, y, np.full(along.size, error)])


def rows_of(*points: np.ndarray) -> list[Row]:
    """Of all points together, on a frame of one Mpix."""
    return aligned_points(*np.concatenate(points).T, SIDE**2)


@pytest.mark.parametrize(
    ("others", "dots", "is_told"),
    [
        (0, 2, False), (0, 4, True), (20, 4, True), (50, 5, True), (200, 4, False), (200, 6, True), (200, 8, True),
        (20, 2, False), (20, 3, False),
    ],
)  # fmt: skip
def test_a_chain_is_told_where_chance_does_not_make_it(others: int, dots: int, is_told: bool) -> None:
    """Four dots among few, six among many; never two, nor three among others."""
    found = rows_of(chain(dots), scattered(others, 11))

    assert [set(row.members) for row in found] == ([set(range(dots))] if is_told else [])


@pytest.mark.parametrize("degrees", [0.0, 90.0, 45.0, 133.0, 179.9, -91.0])
def test_its_direction_does_not_matter(degrees: float) -> None:
    """Along a row, along a column, either way."""
    (row,) = rows_of(chain(6, gap=25.0, degrees=degrees), scattered(40, 5))

    assert set(row.members) >= set(range(6))


def test_a_flash_may_be_missing() -> None:
    """Equal gaps but for a place where nothing was seen."""
    (row,) = rows_of(chain(7, missing=3), scattered(40, 6))

    assert set(row.members) == set(range(6))


def test_a_row_needs_no_equal_gaps_if_it_is_long_enough() -> None:
    """Seven dots anywhere on 300 pixels of a line."""
    dots = chain(7)
    along = np.array([0.0, 31, 48, 122, 197, 261, 300])
    dots[:, 0], dots[:, 1] = 300 + along * 0.8, 200 + along * 0.6
    (row,) = rows_of(dots, scattered(40, 7))

    assert set(row.members) == set(range(7))


def test_dots_off_the_line_by_more_than_their_errors_are_no_row() -> None:
    """A zigzag of eight pixels."""
    dots = chain(6)
    dots[::2, 1] += 8.0

    assert rows_of(dots, scattered(40, 8)) == []


@pytest.mark.parametrize("others", [30, 200])
def test_chance_makes_hardly_any_row(others: int) -> None:
    """Sixty frames of points anywhere: 0.001 rows are expected in each."""
    assert [rows_of(scattered(others, 100 + seed)) for seed in range(60)] == [[]] * 60


def test_a_crowd_makes_no_row() -> None:
    """Eighty points of a cluster, forty times as dense as the frame: the density beside a line counts."""
    crowds = [scattered(80, 500 + seed) * [0.1, 0.1, 1] + [400, 400, 0] for seed in range(30)]

    assert [rows_of(crowd, scattered(20, 600 + seed)) for seed, crowd in enumerate(crowds)] == [[]] * 30


def test_two_points_at_one_place_and_too_many_are_no_reason_to_fail() -> None:
    """Lines of no length are none; only the first points are asked."""
    twice = np.repeat(scattered(5, 9), 3, axis=0)
    assert isinstance(rows_of(twice), list)
    assert rows_of(scattered(MOST_POINTS, 10), chain(9)) == []
