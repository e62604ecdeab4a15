"""Points in a row: places on one straight line that chance does not put there.

Owns the test of a row and which points are in one; knows places alone and never looks at an image.

A row counts by how many such rows are expected among as many points that lie anywhere: the *number of false
alarms* of Desolneux, Moisan & Morel (2000, IJCV 40, 7), for what lies along a segment between two of the
points, and for what stands at its equal parts.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import comb, lgamma, log

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln

Floats = NDArray[np.float64]
Indices = NDArray[np.intp]
BoolArray = NDArray[np.bool_]

#: Logarithm of the rows that are expected by chance in a frame, at most: 1 in 1,000 frames.
LOG_ALARMS = log(1e-3)
#: A point is on a line when it is no farther than this many of its errors (and of the line's), with this much
#: for what is no error of measurement: pixels, and share of the line's length (optics bend what is straight).
ERRORS, LEAST_PX, BENT = 2.5, 0.4, 0.0005
#: Where the density beside a line is looked at: half-widths of bands along it and radii of discs about its
#: middle, as shares of its length.
BANDS, DISCS = (0.125, 0.25), (0.5, 1.5)
#: Equal parts that a line may have; flashes may be missing at some of its places.
MOST_PARTS = 24
#: Points that are asked, the first ones: the time grows with their square.
MOST_POINTS = 500


@dataclass(frozen=True, slots=True)
class Row:
    """Points on one line: their indices, ends included, and the natural logarithm of the false alarms."""

    members: tuple[int, ...]
    log_false_alarms: float


@dataclass(frozen=True, slots=True, eq=False)
class _Field:
    """All points: places and errors in pixels, and how many there are in a square pixel."""

    x: Floats
    y: Floats
    error: Floats
    density: float

    @property
    def log_pairs(self) -> float:
        """Logarithm of the number of segments that are looked at."""
        return log(len(self.x) * (len(self.x) - 1) / 2)


def aligned_points(x: Floats, y: Floats, error: Floats, area_px: float) -> list[Row]:
    """Rows of three points or more, surest first; a point is in one row at most.

    `x`, `y` and the 1-sigma `error` of each place are in pixels, `area_px` is that of the frame in square
    pixels. Three points are a row only where their gaps are equal. Where points crowd, the density around a
    segment counts instead of the frame's. No more than the first `MOST_POINTS` are asked.
    """
    x, y, error = (np.asarray(each, float)[:MOST_POINTS] for each in (x, y, error))
    if len(x) < 3:
        return []
    field = _Field(x, y, error, len(x) / area_px)
    rows = [row for a, b in _seeds(field) if (row := _row(field, a, b)) is not None]
    rows.sort(key=lambda row: row.log_false_alarms)
    taken: set[int] = set()
    found = []
    for row in rows:
        if taken.isdisjoint(row.members):
            found.append(row)
            taken.update(row.members)
    return found


def _seeds(field: _Field) -> Iterator[tuple[int, int]]:
    """Pairs that could be ends of a row: so many others lie between them, wherever on the line."""
    needed = _fewest_between(field)
    for a in range(len(field.x) - 2):
        b, covers = _seen_from(field, a)
        b = b[covers >= needed]
        if b.size:
            yield from ((a, int(each)) for each in b[_could_be_rows(field, a, b)])


def _fewest_between(field: _Field) -> int:
    """Points that the surest row has between its ends, at least."""
    least = np.hypot(LEAST_PX, ERRORS * field.error.mean())
    box = log(field.density * (2 * least) ** 2)
    enough = (k for k in range(1, MOST_PARTS) if field.log_pairs + k * box + _log_tests(k + 1) < LOG_ALARMS)
    return next(enough, MOST_PARTS)


def _log_tests(parts: int) -> float:
    """Of the false alarms, rows of so many parts get one in (parts - 1) parts, which sum to one; half of that
    is for equal parts.
    """
    return log(2 * (parts - 1) * parts)


def _seen_from(field: _Field, a: int) -> tuple[Indices, Indices]:
    """Points after `a`, and how many others lie in the direction of each as seen from `a`, near or far."""
    dx, dy = field.x - field.x[a], field.y - field.y[a]
    radius = np.hypot(dx, dy)
    angle = np.arctan2(dy, dx)
    tolerance = np.hypot(LEAST_PX, ERRORS * np.hypot(field.error, field.error.max()))
    half = np.minimum(tolerance / np.maximum(radius, 1e-3) + BENT, np.pi / 2)
    others = np.arange(len(angle)) != a
    low, high = (angle - half)[others], (angle + half)[others]
    over, under = high > np.pi, low < -np.pi
    low = np.sort(np.concatenate([low, low[over] - 2 * np.pi, low[under] + 2 * np.pi]))
    high = np.sort(np.concatenate([high, high[over] - 2 * np.pi, high[under] + 2 * np.pi]))
    later = angle[a + 1 :]
    covers = np.searchsorted(low, later, "right") - np.searchsorted(high, later, "left") - 1
    return np.arange(a + 1, len(angle)), covers


def _could_be_rows(field: _Field, a: int, b: Indices) -> BoolArray:
    """Whether what lies between `a` and each of `b` would be a row at equal parts, or as it is."""
    _, _, tolerance, on = _between(field, a, b)
    width = 2 * tolerance.mean(axis=1)
    length = np.hypot(field.x[b] - field.x[a], field.y[b] - field.y[a])
    k = on.sum(axis=1)
    parts = np.maximum(k, 1)
    at_parts = k * np.log(field.density * width**2) + np.log(2 * parts * (parts + 1))
    anywhere = k * np.log(field.density * width * length) - gammaln(k + 1)
    anywhere += np.log(2 * (parts - 1) * parts + 1)
    return np.asarray((k > 0) & (field.log_pairs + np.minimum(at_parts, anywhere) < LOG_ALARMS))


def _between(field: _Field, a: int, b: Indices) -> tuple[Floats, Floats, Floats, BoolArray]:
    """Of all points (columns), for lines from `a` to each of `b` (rows): where along the line and how far off
    it they are, how far they may be, and whether they are on it, between its ends.
    """
    dx, dy = (field.x[b] - field.x[a])[:, None], (field.y[b] - field.y[a])[:, None]
    length = np.maximum(np.hypot(dx, dy), 1e-9)
    along = ((field.x - field.x[a]) * dx + (field.y - field.y[a]) * dy) / length
    across = ((field.y - field.y[a]) * dx - (field.x - field.x[a]) * dy) / length
    ends = np.maximum(field.error[a], field.error[b])[:, None]
    tolerance = np.hypot(LEAST_PX + BENT * length, ERRORS * np.hypot(field.error, ends))
    on = (np.abs(across) < tolerance) & (along > tolerance) & (along < length - tolerance)
    return along, across, tolerance, on


def _row(field: _Field, a: int, b: int) -> Row | None:
    """The row between two points, if it is one that chance does not make."""
    length = float(np.hypot(field.x[b] - field.x[a], field.y[b] - field.y[a]))
    along, across, tolerance, on = (each[0] for each in _between(field, a, np.array([b])))
    inside = np.flatnonzero(on)
    if inside.size == 0:
        return None
    density = max(field.density, _density_around(along, across, tolerance, length))
    best = _along_the_line(field, inside, tolerance, length, density)
    even = _at_equal_parts(field, inside, along, tolerance, length, density)
    if even is not None and (best is None or even[0] < best[0]):
        best = even
    if best is None or best[0] > LOG_ALARMS:
        return None
    return Row((a, *(int(each) for each in best[1]), b), best[0])


def _density_around(along: Floats, across: Floats, tolerance: Floats, length: float) -> float:
    """Points in a square pixel beside the line: the densest of bands along it and discs about its middle."""
    off, radius = np.abs(across), np.hypot(along - length / 2, across)
    beside, within = off >= tolerance, (along > 0) & (along < length)
    densities = [
        np.count_nonzero(beside & within & (off < share * length)) / (2 * share * length**2)
        for share in BANDS
    ]
    densities += [
        np.count_nonzero(beside & (radius < share * length)) / (np.pi * (share * length) ** 2)
        for share in DISCS
    ]
    return float(max(densities))


def _along_the_line(
    field: _Field, inside: Indices, tolerance: Floats, length: float, density: float
) -> tuple[float, Indices] | None:
    """Logarithm of the false alarms of points anywhere along the line, and those points; two at least."""
    k = len(inside)
    if k < 2:
        return None
    expected = density * 2 * float(tolerance.mean()) * length
    return field.log_pairs + k * log(expected) - lgamma(k + 1) + _log_tests(k), inside


def _at_equal_parts(
    field: _Field, inside: Indices, along: Floats, tolerance: Floats, length: float, density: float
) -> tuple[float, Indices] | None:
    """The same of points at equal parts of the line, for the best number of parts."""
    best: tuple[float, Indices] | None = None
    for parts in range(len(inside) + 1, min(MOST_PARTS, 2 * len(inside) + 2) + 1):
        place = along[inside] / length * parts
        number = np.rint(place).astype(int)
        fits = np.abs(place - number) * length / parts < tolerance[inside]
        fits &= (number > 0) & (number < parts)
        filled = len(np.unique(number[fits]))
        if filled == 0 or 2 * filled < parts - 1:
            continue
        box = density * (2 * float(tolerance.mean())) ** 2
        alarms = field.log_pairs + log(comb(parts - 1, filled)) + filled * log(box) + _log_tests(parts)
        if best is None or alarms < best[0]:
            best = alarms, inside[fits]
    return best
