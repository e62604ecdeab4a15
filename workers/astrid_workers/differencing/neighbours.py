"""Candidates that stand close together: pairs of opposite sign are one dipole, those of one sign are blended.

Owns which candidates belong together, what light of one another's falls on them, and how much less sure each
is for that. Never looks at an image.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from astrid_workers.differencing.products import Candidate, Difference, TileKernels

Floats = NDArray[np.float64]

#: Two peaks of opposite sign this close (in FWHM) and this alike in strength are one dipole.
DIPOLE_FWHM, DIPOLE_RATIO = 2.0, 0.3
#: Peaks of one sign this close (in FWHM) are fitted together.
BLEND_FWHM = 2.5
#: Light of others, as a share of its own flux, from which a candidate is blended.
BLENDED_SHARE = 0.02
#: More than this many together are no blend but a field that failed; they are left as they are.
MOST_TOGETHER = 40


@dataclass(frozen=True, slots=True)
class PointLight:
    """Another candidate as a point source: its place in pixels and its flux."""

    x: float
    y: float
    flux: float


def blends(found: Sequence[Candidate], difference: Difference) -> list[list[int]]:
    """Indices of candidates of one sign that stand together, by group; who stands alone is in none."""
    reach = BLEND_FWHM * max(difference.fwhm_science_px, difference.fwhm_reference_px)
    groups: list[list[int]] = []
    for is_positive in (True, False):
        among = [i for i, c in enumerate(found) if c.is_positive == is_positive]
        if len(among) < 2:
            continue
        pairs = cKDTree([(found[i].x, found[i].y) for i in among]).query_pairs(reach, output_type="ndarray")
        ones = np.ones(len(pairs))
        links = coo_matrix((ones, (pairs[:, 0], pairs[:, 1])), shape=(len(among), len(among)))
        _, labels = connected_components(links, directed=False)
        members = [np.flatnonzero(labels == label) for label in np.unique(labels[pairs])]
        groups += [[among[k] for k in each] for each in members if len(each) <= MOST_TOGETHER]
    return groups


def flux_of_others(
    kernels: TileKernels, others: Sequence[PointLight], rows: NDArray[np.intp], columns: NDArray[np.intp]
) -> Floats:
    """What `others` add to the matched-filter flux at pixels: `(len(rows), len(columns))`."""
    return _light(others, rows, columns, [kernels.at(each.x, each.y)[1] for each in others])


def light_of_others(
    kernels: TileKernels, others: Sequence[PointLight], rows: NDArray[np.intp], columns: NDArray[np.intp]
) -> Floats:
    """What `others` add to the difference at pixels: `(len(rows), len(columns))`."""
    return _light(others, rows, columns, [kernels.at(each.x, each.y)[0] for each in others])


def error_factors(kernels: TileKernels, places: Sequence[PointLight]) -> Floats:
    """How much larger the flux error of each is than if it stood alone.

    Matched-filter fluxes are m = M f with the score's profiles in M, and their covariance is sigma² M, so
    that f has sigma² M⁻¹: the errors of PSFs that are fitted together (Stetson 1987, PASP 99, 191).
    """
    matrix = np.array(
        [[float(_at(kernels.at(b.x, b.y)[1], b, np.array([a.y]), np.array([a.x]))[0, 0]) for b in places]
         for a in places]
    )  # fmt: skip
    matrix = (matrix + matrix.T) / 2
    np.fill_diagonal(matrix, 1.0)
    return np.asarray(np.sqrt(np.maximum(np.diag(np.linalg.pinv(matrix, hermitian=True)), 1.0)))


def _light(
    others: Sequence[PointLight],
    rows: NDArray[np.intp],
    columns: NDArray[np.intp],
    stamps: Sequence[NDArray[np.float32]],
) -> Floats:
    total = np.zeros((len(rows), len(columns)))
    for each, stamp in zip(others, stamps, strict=True):
        total += each.flux * _at(stamp, each, rows.astype(float), columns.astype(float))
    return total


def _at(stamp: NDArray[np.float32], place: PointLight, rows: Floats, columns: Floats) -> Floats:
    """A stamp that is centred on a place, seen at pixels; 0 beyond it."""
    half = stamp.shape[0] // 2
    y, x = np.meshgrid(rows - place.y + half, columns - place.x + half, indexing="ij")
    return np.asarray(ndimage.map_coordinates(stamp.astype(float), [y, x], order=3, mode="constant"))


def merge_dipoles(found: list[Candidate], difference: Difference) -> list[Candidate]:
    """Close pairs of opposite sign and like strength become one candidate, the stronger, flagged."""
    reach = DIPOLE_FWHM * max(difference.fwhm_science_px, difference.fwhm_reference_px)
    ordered = sorted(found, key=lambda c: -abs(c.score))
    gone: set[int] = set()
    dipoles: set[int] = set()
    if len(ordered) > 1:
        tree = cKDTree(np.array([(c.x, c.y) for c in ordered]))
        for first, second in sorted(tree.query_pairs(reach)):
            one, two = ordered[first], ordered[second]
            alike = abs(two.score) > DIPOLE_RATIO * abs(one.score)
            if one.is_positive != two.is_positive and alike and first not in gone and second not in gone:
                gone.add(second)
                dipoles.add(first)
    return [_as_dipole(c) if i in dipoles else c for i, c in enumerate(ordered) if i not in gone]


def _as_dipole(c: Candidate) -> Candidate:
    """The same candidate as half of a pair: beside its partner it looks narrower than it is."""
    return replace(c, flags=(*(flag for flag in c.flags if flag != "sharp"), "dipole"))
