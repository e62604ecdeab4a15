"""Which of several references suits an observation best.

Owns the order (coverage, depth, seeing), the sentence that says why, and the share of a field that a
reference covers; never queries.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from astrid_workers.storage.sky_cells import separation_deg, unit_vector

#: Without corners on either side, pointings up to this far apart are taken for the same field, in degrees.
SAME_POINTING_DEG = 0.1
#: The share of a field is counted on a grid of this many points squared.
_GRID = 12
#: Differences in coverage below this do not outweigh depth and seeing.
_COVERAGE_STEP = 0.02
#: Differences in depth below this do not outweigh seeing, in magnitudes.
_DEPTH_STEP_MAG = 0.1

#: Sky corners in order around the frame, `(ra_deg, dec_deg)` each.
Corners = Sequence[Sequence[float]]
_Vector = tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class Pointing:
    """Where a frame looks; `corners` is None without a WCS."""

    ra_deg: float
    dec_deg: float
    corners: Corners | None = None
    #: Name of the part of a mosaic; None for a whole frame.
    part: str | None = None


@dataclass(frozen=True, slots=True)
class ReferenceFacts:
    """What is known of one reference in the observation's filter; None where nothing was measured."""

    observation_id: UUID
    pointing: Pointing
    observation_time: datetime
    limiting_magnitude: float | None = None
    exposure_time_s: float | None = None
    fwhm_arcsec: float | None = None
    #: For sentences.
    name: str = ""


def reason_of(order: Sequence[tuple[ReferenceFacts, float]]) -> str:
    """Why the first of `ranked` is taken: by what it is better than the second, with numbers."""
    (best, share), *rest = order
    covers = f"{best.name} covers {100 * share:.0f} % of the field"
    if not rest:
        return f"{covers}: no other reference does"
    (other, its_share) = rest[0]
    keys = zip(_order(order[0]), _order(rest[0]), strict=True)
    first = next((i for i, (one, two) in enumerate(keys) if one != two), 5)
    return f"{covers}, {_advantage(first, best, other, its_share)} (of {len(order)} references)"


def _advantage(key: int, best: ReferenceFacts, other: ReferenceFacts, its_share: float) -> str:
    """What stands at place `key` of `_order`."""
    if key == 0:
        return f"{other.name} {100 * its_share:.0f} %"
    if key == 1:
        ours, its = _text(best.limiting_magnitude, "mag"), _text(other.limiting_magnitude, "mag")
        return f"is deeper than {other.name}: {ours} against {its}"
    if key == 2:
        ours, its = _text(best.exposure_time_s, "s", 0), _text(other.exposure_time_s, "s", 0)
        return f"was exposed for longer than {other.name}: {ours} against {its}"
    if key == 3:
        ours, its = _text(best.fwhm_arcsec, "arcsec"), _text(other.fwhm_arcsec, "arcsec")
        return f"is sharper than {other.name}: {ours} against {its}"
    return f"is as good as {other.name} and " + ("later" if key == 4 else "comes first by its id")


def _text(value: float | None, unit: str, digits: int = 2) -> str:
    return "not known" if value is None else f"{value:.{digits}f} {unit}"


def ranked(science: Pointing, references: Iterable[ReferenceFacts]) -> list[tuple[ReferenceFacts, float]]:
    """The references that cover any of the field, best first, each with its coverage in 0..1.

    More coverage comes before more depth (limiting magnitude, else exposure), depth before sharper seeing;
    the rest is settled by the later observation and then the id, so that the order is always the same.
    """
    covering = ((reference, coverage(science, reference.pointing)) for reference in references)
    return sorted(((r, share) for r, share in covering if share > 0), key=_order)


def coverage(science: Pointing, reference: Pointing) -> float:
    """Share of the science field that the reference holds, 0..1.

    Where one of them has no corners it is 1 for pointings within `SAME_POINTING_DEG`, or for a centre inside
    the other's corners, else 0; parts of mosaics then meet only by their names.
    """
    if science.corners is None or reference.corners is None:
        return float(_may_be_same_part(science, reference) and _is_same_field(science, reference))
    inside = [_is_inside(point, reference.corners) for point in _grid(science.corners)]
    return sum(inside) / len(inside)


def _order(item: tuple[ReferenceFacts, float]) -> tuple[float, float, float, float, float, str]:
    reference, share = item
    depth = reference.limiting_magnitude
    return (
        -round(share / _COVERAGE_STEP),
        -round(depth / _DEPTH_STEP_MAG) if depth is not None else 0.0,
        -(reference.exposure_time_s or 0.0) if depth is None else 0.0,
        reference.fwhm_arcsec if reference.fwhm_arcsec is not None else float("inf"),
        -reference.observation_time.timestamp(),
        str(reference.observation_id),
    )


def _may_be_same_part(one: Pointing, other: Pointing) -> bool:
    """Whether two frames, of which one has no WCS, can be of one part: all parts have one pointing then."""
    if one.part == other.part:
        return True
    is_one_whole = one.part is None or other.part is None
    return is_one_whole and (one.corners is not None or other.corners is not None)


def _is_same_field(one: Pointing, other: Pointing) -> bool:
    if separation_deg(one.ra_deg, one.dec_deg, other.ra_deg, other.dec_deg) <= SAME_POINTING_DEG:
        return True
    corners, centre = (one.corners, other) if one.corners is not None else (other.corners, one)
    return corners is not None and _is_inside(unit_vector(centre.ra_deg, centre.dec_deg), corners)


def _grid(corners: Corners) -> list[_Vector]:
    """Directions spread evenly over the field, each in the middle of its part."""
    a, b, c, d = (unit_vector(ra, dec) for ra, dec in corners)
    steps = [(i + 0.5) / _GRID for i in range(_GRID)]
    return [
        _mean((a, b, c, d), ((1 - u) * (1 - v), u * (1 - v), u * v, (1 - u) * v))
        for u in steps
        for v in steps
    ]


def _mean(vectors: Sequence[_Vector], weights: Sequence[float]) -> _Vector:
    x, y, z = (sum(w * vector[axis] for vector, w in zip(vectors, weights, strict=True)) for axis in range(3))
    return x, y, z


def _is_inside(point: _Vector, corners: Corners) -> bool:
    """Whether the direction lies on one and the same side of all edges."""
    vectors = [unit_vector(ra, dec) for ra, dec in corners]
    sides = [_dot(_cross(v, vectors[(i + 1) % len(vectors)]), point) for i, v in enumerate(vectors)]
    return all(side >= 0 for side in sides) or all(side <= 0 for side in sides)


def _cross(a: _Vector, b: _Vector) -> _Vector:
    return a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]


def _dot(a: _Vector, b: _Vector) -> float:
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]
