"""Places on the sky as whole numbers, so that an ordinary index finds what lies near a point.

Owns the grid and angles on the sphere; never queries. The sky is cut into zones of one degree of declination,
each zone into cells about one degree wide. The numbers stand in rows: a change of the grid is a migration.
"""

import math
from collections.abc import Iterator, Sequence
from itertools import accumulate

#: Height of a zone and least width of a cell, in degrees.
CELL_DEG = 1.0
N_ZONES = 180


def _cells_in_zone(zone: int) -> int:
    southern_edge = -90.0 + zone * CELL_DEG
    nearest_equator = min(abs(southern_edge), abs(southern_edge + CELL_DEG))
    return max(1, math.floor(360.0 * math.cos(math.radians(nearest_equator)) / CELL_DEG))


_COUNTS = [_cells_in_zone(zone) for zone in range(N_ZONES)]
_FIRST = [0, *accumulate(_COUNTS)]


def cell_of(ra_deg: float, dec_deg: float) -> int:
    """The cell that holds the point; RA may be any number of turns."""
    zone = _zone_of(dec_deg)
    return _FIRST[zone] + _step(ra_deg, _COUNTS[zone])


def cells_near(ra_deg: float, dec_deg: float, radius_deg: float) -> list[int]:
    """All cells that a cone of `radius_deg` around the point touches, and perhaps a few more."""
    cells: list[int] = []
    for zone in range(_zone_of(dec_deg - radius_deg), _zone_of(dec_deg + radius_deg) + 1):
        half_width = _half_width(dec_deg, radius_deg)
        cells.extend(_FIRST[zone] + step for step in _steps(ra_deg, half_width, _COUNTS[zone]))
    return cells


def separation_deg(ra_1: float, dec_1: float, ra_2: float, dec_2: float) -> float:
    """Angle between two points, in degrees; exact for small and for large angles (haversine)."""
    d_ra, d_dec = math.radians(ra_2 - ra_1), math.radians(dec_2 - dec_1)
    cosines = math.cos(math.radians(dec_1)) * math.cos(math.radians(dec_2))
    chord = math.sin(d_dec / 2) ** 2 + cosines * math.sin(d_ra / 2) ** 2
    return math.degrees(2 * math.asin(math.sqrt(min(1.0, chord))))


def centre_of(corners: Sequence[Sequence[float]]) -> tuple[float, float]:
    """The point `(ra_deg, dec_deg)` in the middle of `corners`, which lie within one hemisphere."""
    vectors = [unit_vector(ra, dec) for ra, dec in corners]
    x, y, z = (sum(axis) for axis in zip(*vectors, strict=True))
    return math.degrees(math.atan2(y, x)) % 360.0, math.degrees(math.atan2(z, math.hypot(x, y)))


def unit_vector(ra_deg: float, dec_deg: float) -> tuple[float, float, float]:
    """The direction of the point: x towards RA 0, z towards the north pole."""
    ra, dec = math.radians(ra_deg), math.radians(dec_deg)
    return math.cos(dec) * math.cos(ra), math.cos(dec) * math.sin(ra), math.sin(dec)


def _zone_of(dec_deg: float) -> int:
    return min(N_ZONES - 1, max(0, math.floor((dec_deg + 90.0) / CELL_DEG)))


def _step(ra_deg: float, count: int) -> int:
    return min(count - 1, math.floor((ra_deg % 360.0) / 360.0 * count))


def _half_width(dec_deg: float, radius_deg: float) -> float:
    """Largest difference in RA within the cone, in degrees; all around where it holds a pole."""
    if abs(dec_deg) + radius_deg >= 90.0:
        return 180.0
    return math.degrees(math.asin(math.sin(math.radians(radius_deg)) / math.cos(math.radians(dec_deg))))


def _steps(ra_deg: float, half_width: float, count: int) -> Iterator[int]:
    first = math.floor((ra_deg - half_width) / 360.0 * count)
    last = math.floor((ra_deg + half_width) / 360.0 * count)
    if last - first + 1 >= count:
        return iter(range(count))
    return (step % count for step in range(first, last + 1))
