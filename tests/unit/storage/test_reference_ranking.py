"""Which reference is taken: coverage, then depth, then seeing."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from astrid_workers.storage.reference_ranking import Pointing, ReferenceFacts, coverage, ranked, reason_of

NIGHT = datetime(2026, 1, 1, tzinfo=UTC)


def square(ra, dec, half=0.1):
    """Corners of a field about the equator."""
    return Pointing(
        ra,
        dec,
        [(ra - half, dec - half), (ra + half, dec - half), (ra + half, dec + half), (ra - half, dec + half)],
    )


def reference(number, pointing, **facts):
    """A reference with id `number`."""
    return ReferenceFacts(UUID(int=number), pointing, facts.pop("time", NIGHT), **facts)


@pytest.mark.parametrize(
    ("offset", "expected"), [(0.0, 1.0), (0.05, 0.75), (0.1, 0.5), (0.19, 0.05), (0.2, 0.0), (5.0, 0.0)]
)
@pytest.mark.parametrize("ra", [10.0, 0.02, 359.95])
def test_coverage_is_the_share_of_the_field(ra, offset, expected):
    """Also across RA 0."""
    assert coverage(square(ra, 0), square(ra + offset, 0)) == pytest.approx(expected, abs=0.05)


def test_coverage_does_not_depend_on_the_direction_of_the_corners():
    """Flipped and rotated cameras."""
    field = square(10, 0)
    flipped = Pointing(10, 0, list(reversed(field.corners)))
    assert coverage(field, flipped) == coverage(flipped, field) == 1.0


def test_a_larger_reference_covers_the_whole_field_and_not_the_other_way_round():
    """Coverage is of the science frame."""
    assert coverage(square(10, 0, 0.1), square(10, 0, 0.3)) == 1.0
    assert coverage(square(10, 0, 0.3), square(10, 0, 0.1)) == pytest.approx(1 / 9, abs=0.01)


def test_without_corners_the_same_pointing_is_taken_for_the_same_field():
    """Frames without a WCS are matched by the position they came with, and no farther than 0.1 degrees."""
    assert coverage(Pointing(10, 0), Pointing(10.05, 0)) == 1.0
    assert coverage(Pointing(10, 0), Pointing(10.2, 0)) == 0.0
    assert coverage(Pointing(10.15, 0), square(10, 0, 0.2)) == 1.0
    assert coverage(square(10, 0, 0.2), Pointing(10.25, 0)) == 0.0


def test_references_are_ranked_by_coverage_then_depth_then_seeing():
    """The order of the contract; numbers that hardly differ do not decide."""
    science, here, half = square(10, 0), square(10, 0), square(10.1, 0)
    deep_half = reference(1, half, limiting_magnitude=25.0, fwhm_arcsec=0.5)
    shallow = reference(2, here, limiting_magnitude=20.0, fwhm_arcsec=0.5)
    deep = reference(3, here, limiting_magnitude=22.0, fwhm_arcsec=3.0)
    deep_sharp = reference(4, here, limiting_magnitude=22.01, fwhm_arcsec=1.0)
    elsewhere = reference(5, square(11, 0), limiting_magnitude=30.0)
    order = ranked(science, [elsewhere, deep_half, shallow, deep, deep_sharp])
    assert [r.observation_id.int for r, _ in order] == [4, 3, 2, 1]
    assert order[-1][1] == pytest.approx(0.5, abs=0.05)


def test_without_a_limiting_magnitude_exposure_stands_for_depth():
    """And a measured depth is preferred to a guess."""
    here = square(10, 0)
    short, long = reference(1, here, exposure_time_s=30.0), reference(2, here, exposure_time_s=300.0)
    measured = reference(3, here, exposure_time_s=10.0, limiting_magnitude=19.0)
    assert [r.observation_id.int for r, _ in ranked(here, [short, long, measured])] == [3, 2, 1]


def test_the_order_is_the_same_whatever_the_database_returns_first():
    """Two workers must pick the same reference."""
    here = square(10, 0)
    same = [reference(i, here, time=NIGHT + timedelta(days=i % 2)) for i in range(1, 7)]
    expected = [r.observation_id.int for r, _ in ranked(here, same)]
    assert expected == [1, 3, 5, 2, 4, 6]
    assert [r.observation_id.int for r, _ in ranked(here, reversed(same))] == expected


@pytest.mark.parametrize(
    ("best", "other", "sentence"),
    [
        ({}, None, "a covers 100 % of the field: no other reference does"),
        ({}, {"at": 0.1}, "a covers 100 % of the field, b 50 % (of 2 references)"),
        (
            {"limiting_magnitude": 22.0},
            {"limiting_magnitude": 21.4},
            "is deeper than b: 22.00 mag against 21.40 mag",
        ),
        ({"limiting_magnitude": 22.0}, {}, "is deeper than b: 22.00 mag against not known"),
        (
            {"exposure_time_s": 300.0},
            {"exposure_time_s": 60.0},
            "was exposed for longer than b: 300 s against 60 s",
        ),
        ({"fwhm_arcsec": 0.9}, {"fwhm_arcsec": 1.2}, "is sharper than b: 0.90 arcsec against 1.20 arcsec"),
        ({"time": NIGHT + timedelta(days=1)}, {}, "is as good as b and later"),
        ({}, {}, "is as good as b and comes first by its id"),
    ],
)
def test_the_reason_is_the_first_thing_that_differs(best, other, sentence):
    """With the numbers of both."""
    facts = [reference(1, square(10, 0), name="a", **best)]
    if other is not None:
        facts.append(reference(2, square(10 + other.pop("at", 0), 0), name="b", **other))
    assert sentence in reason_of(ranked(square(10, 0), facts))
