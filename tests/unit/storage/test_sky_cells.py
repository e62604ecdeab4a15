"""A cone search finds all that lies within, wherever on the sky."""

import itertools
import math

import numpy as np
import pytest

from astrid_workers.storage.sky_cells import (
    N_ZONES,
    cell_of,
    cells_near,
    centre_of,
    separation_deg,
    unit_vector,
)


@pytest.mark.parametrize("radius", [0.01, 0.7, 3.0, 40.0])
def test_no_point_within_the_cone_is_outside_its_cells(radius):
    """Poles, RA 0 and the equator included; compared with the angle itself."""
    rng = np.random.default_rng(1)
    corners = itertools.product([0.0, 0.001, 180.0, 359.999], [-90.0, -89.95, -0.001, 0.0, 59.9, 89.5, 90.0])
    drawn = zip(rng.uniform(0, 360, 150), np.degrees(np.arcsin(rng.uniform(-1, 1, 150))), strict=True)
    for ra, dec in [*corners, *drawn]:
        cells = set(cells_near(ra, dec, radius))
        for distance, angle in zip(
            radius * np.sqrt(rng.uniform(0, 1, 40)), rng.uniform(0, 360, 40), strict=True
        ):
            there = _offset(ra, dec, float(distance), float(angle))
            assert cell_of(*there) in cells, (ra, dec, there)


def test_cells_are_numbered_without_gaps_or_overlap():
    """Every point has one cell; far points never share one."""
    rng = np.random.default_rng(2)
    points = list(zip(rng.uniform(0, 360, 3000), rng.uniform(-90, 90, 3000), strict=True))
    by_cell = {}
    for ra, dec in points:
        other = by_cell.setdefault(cell_of(ra, dec), (ra, dec))
        assert separation_deg(ra, dec, *other) < 3.5
    assert min(by_cell) >= 0
    assert max(by_cell) < 41_600


def test_a_small_cone_looks_up_few_cells():
    """An index is of no use when most of the sky is asked for."""
    assert len(cells_near(10.0, 0.0, 0.5)) <= 6
    assert len(cells_near(10.0, 60.0, 0.5)) <= 6
    assert len(cells_near(0.0, 90.0, 180.0)) == cell_of(0.0, 90.0) + len(cells_near(0, 90, 0.1))
    assert N_ZONES == 180


def test_ra_may_be_any_number_of_turns():
    """RA −0.5 and 359.5 are one place."""
    assert cell_of(-0.5, 10) == cell_of(359.5, 10) == cell_of(719.5, 10)


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ((0, 0), (180, 0), 180.0),
        ((0, 90), (77, 90), 0.0),
        ((359.9, 0), (0.1, 0), 0.2),
        ((10, 60), (10.0002777777, 60), 0.5 / 3600),
        ((0, 89), (180, 89), 2.0),
    ],
)
def test_angles_are_right_where_formulas_go_wrong(one, other, expected):
    """Poles, antipodes, RA 0 and arcseconds."""
    assert math.isclose(separation_deg(*one, *other), expected, rel_tol=1e-5, abs_tol=1e-9)


def test_the_middle_of_corners_is_found_across_ra_zero_and_at_the_pole():
    """Averaging RA itself would give 180 instead of 0."""
    ra, dec = centre_of([(359, -1), (1, -1), (1, 1), (359, 1)])
    assert separation_deg(ra, dec, 0, 0) < 1e-9
    assert centre_of([(0, 89), (90, 89), (180, 89), (270, 89)])[1] == pytest.approx(90)


def _offset(ra, dec, distance, angle):
    """The point at `distance` from another in direction `angle` (all degrees), by rotation of vectors."""
    x, y, z = unit_vector(ra, dec)
    east = np.array([-math.sin(math.radians(ra)), math.cos(math.radians(ra)), 0.0])
    centre = np.array([x, y, z])
    north = np.cross(centre, east)
    d, a = math.radians(distance), math.radians(angle)
    v = centre * math.cos(d) + (east * math.sin(a) + north * math.cos(a)) * math.sin(d)
    return math.degrees(math.atan2(v[1], v[0])) % 360, math.degrees(math.asin(max(-1.0, min(1.0, v[2]))))
