"""Which star of one list is which of another, when nothing is known of how the frames lie.

Owns the search by asterisms: any rotation, either parity, scales within a factor of two, any shift. Never
looks at pixels or at a WCS; what it finds is refined and judged in `star_match`'s terms.

Four stars make a quad. Its widest pair spans a square in which the two others have places that no shift,
turn or scale changes: four numbers, looked up in a tree of the other list's quads (Lang et al. 2010; with
triangles Valdes et al. 1995 and Beroiz et al. 2020). Each hit proposes a similarity; hits that propose the
same one are a vote; the map that they stand for is then tried on all stars.
"""

from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from astrid_workers.imaging.chance import log_poisson_tail
from astrid_workers.imaging.star_match import FALSE_ALARMS, Affine, Match, match_stars

Float64Array = NDArray[np.float64]
ComplexArray = NDArray[np.complex128]
Indices = NDArray[np.intp]

#: Stars of each list that make quads, brightest first, and neighbours with which each one does.
QUAD_STARS, NEIGHBOURS = 80, 8
#: Widest pair of a quad, in pixels, below which centroids say little.
SHORTEST_PX = 12.0
#: Largest difference of two codes, in units of the widest pair.
CODE_TOLERANCE = 0.012
#: Hits looked at per quad.
HITS_PER_QUAD = 3
#: Scales that are believed.
SCALES = (0.5, 2.0)
#: How far a proposal may carry the middle and the edge of the frame from another's and still be the same.
SAME_MAP_SHARE, SAME_MAP_PX = 0.01, 4.0
#: Proposals that are tried on all stars.
MOST_TRIALS = 8
#: Distance within which stars may agree with a proposal, in pixels, at first.
FIRST_RADIUS_PX = 8.0
#: Stars that a quad fits by construction: only the others count as agreeing.
STARS_OF_A_QUAD = 4


@dataclass(frozen=True, slots=True, eq=False)
class AsterismMatch:
    """The best map that asterisms propose, refined on all stars."""

    #: None: no hit, or nothing that three stars follow.
    match: Match | None
    #: Whether the map turns the frame over.
    is_mirrored: bool
    #: Hits that propose this map, and all hits that were looked at.
    votes: int
    n_hits: int
    #: Matches as good as this one that chance makes, over all hits; natural logarithm.
    log_false_alarms: float

    @property
    def is_significant(self) -> bool:
        """Whether chance can be ruled out."""
        return self.match is not None and self.log_false_alarms < np.log(FALSE_ALARMS)

    @property
    def n_matched(self) -> int:
        """Stars that follow the map."""
        return 0 if self.match is None else int(self.match.first.size)


def match_asterisms(
    x1: Float64Array,
    y1: Float64Array,
    x2: Float64Array,
    y2: Float64Array,
    sigma_px: Float64Array | None = None,
) -> AsterismMatch:
    """The best map from the first list to the second, lists brightest first, both parities tried.

    `sigma_px`, the centring error per star of the first list, weighs the fit. The result depends on its
    arguments only.
    """
    first, second = x1 + 1j * y1, x2 + 1j * y2
    best = AsterismMatch(None, False, 0, 0, np.inf)
    n_hits = 0
    for is_mirrored in (False, True):
        turned = np.conj(first) if is_mirrored else first
        hits = _hits(turned[:QUAD_STARS], second[:QUAD_STARS])
        n_hits += hits.factor.size
        for votes, start in _proposals(hits, turned):
            matrix = _matrix(start[0])
            if is_mirrored:
                matrix = matrix @ np.diag([1.0, -1.0])
            begin = Affine(matrix, np.array([start[1].real, start[1].imag]))
            tried = _tried(x1, y1, x2, y2, begin, sigma_px)
            if tried is not None and (best.match is None or tried.first.size > best.n_matched):
                best = AsterismMatch(tried, is_mirrored, votes, 0, 0.0)
    return _judged(best, n_hits)


@dataclass(frozen=True, slots=True, eq=False)
class _Hits:
    """Pairs of alike quads, each with the similarity `w = factor · z + shift` that lays one on the other."""

    factor: ComplexArray
    shift: ComplexArray


def _hits(first: ComplexArray, second: ComplexArray) -> _Hits:
    none = _Hits(np.empty(0, complex), np.empty(0, complex))
    quads = [_quads(stars) for stars in (first, second)]
    if min(q.shape[0] for q in quads) == 0:
        return none
    (codes_1, quads_1), (codes_2, quads_2) = (
        _coded(stars, q) for stars, q in zip((first, second), quads, strict=True)
    )
    if not codes_1.size or not codes_2.size:
        return none
    distance, found = cKDTree(codes_2).query(codes_1, k=HITS_PER_QUAD, distance_upper_bound=CODE_TOLERANCE)
    rows, columns = np.nonzero(np.isfinite(distance))
    z, w = first[quads_1[rows]], second[quads_2[found[rows, columns]]]
    z_mean, w_mean = z.mean(axis=1), w.mean(axis=1)
    centred = z - z_mean[:, None]
    spread = np.sum(np.abs(centred) ** 2, axis=1)
    factor = np.sum((w - w_mean[:, None]) * np.conj(centred), axis=1) / spread
    size = np.abs(factor)
    good = (size > SCALES[0]) & (size < SCALES[1])
    return _Hits(factor[good], (w_mean - factor * z_mean)[good])


def _quads(stars: ComplexArray) -> Indices:
    """Each star with every three of its nearest neighbours, `(n, 4)` indices, each quad once."""
    neighbours = min(NEIGHBOURS, stars.size - 1)
    if neighbours < 3:
        return np.empty((0, 4), np.intp)
    points = np.column_stack([stars.real, stars.imag])
    _, near = cKDTree(points).query(points, k=neighbours + 1)
    threes = np.array(list(combinations(range(1, neighbours + 1), 3)))
    quads = np.concatenate(
        [np.broadcast_to(near[:, :1, None], (stars.size, len(threes), 1)), near[:, threes]], axis=2
    )
    return np.unique(np.sort(quads.reshape(-1, 4), axis=1), axis=0).astype(np.intp)


def _coded(stars: ComplexArray, quads: Indices) -> tuple[Float64Array, Indices]:
    """Codes `(n, 4)` and the quads in the order of their codes; quads that are too narrow are left out.

    The widest pair is put at 0 and 1; the others' places, which sum to at most 1 along it, stand in order.
    """
    places = stars[quads]
    pairs = np.array(list(combinations(range(4), 2)))
    lengths = np.abs(places[:, pairs[:, 0]] - places[:, pairs[:, 1]])
    widest = np.argmax(lengths, axis=1)
    rows = np.arange(len(quads))
    wide = lengths[rows, widest] > SHORTEST_PX
    quads, places, rows, widest = quads[wide], places[wide], rows[: wide.sum()], widest[wide]
    ends = pairs[widest]
    rest = np.array([sorted(set(range(4)) - set(pair)) for pair in pairs.tolist()])[widest]
    origin, far = places[rows, ends[:, 0]], places[rows, ends[:, 1]]
    inner = (places[rows[:, None], rest] - origin[:, None]) / (far - origin)[:, None]
    swap = inner.real.sum(axis=1) > 1
    inner = np.where(swap[:, None], 1 - inner, inner)
    ends = np.where(swap[:, None], ends[:, ::-1], ends)
    crossed = inner[:, 0].real > inner[:, 1].real
    inner = np.where(crossed[:, None], inner[:, ::-1], inner)
    rest = np.where(crossed[:, None], rest[:, ::-1], rest)
    order = np.concatenate([ends, rest], axis=1)
    codes = np.column_stack([inner[:, 0].real, inner[:, 0].imag, inner[:, 1].real, inner[:, 1].imag])
    return codes, quads[rows[:, None], order]


def _proposals(hits: _Hits, stars: ComplexArray) -> list[tuple[int, tuple[complex, complex]]]:
    """Distinct similarities with most votes first: votes, and the median of those that propose it."""
    if not hits.factor.size:
        return []
    middle = complex(np.mean(stars))
    reach = float(np.max(np.abs(stars - middle)))
    centre, edge = hits.factor * middle + hits.shift, hits.factor * reach
    features = np.column_stack([centre.real, centre.imag, edge.real, edge.imag])
    tree = cKDTree(features)
    same = SAME_MAP_PX + SAME_MAP_SHARE * reach
    counts = tree.query_ball_point(features, same, return_length=True)
    chosen: list[tuple[int, tuple[complex, complex]]] = []
    taken = np.zeros(len(features), bool)
    for top in np.argsort(-counts, kind="stable"):
        if taken[top]:
            continue
        near = tree.query_ball_point(features[top], same)
        u, v, p, q = np.median(features[near], axis=0)
        factor = complex(p, q) / reach
        chosen.append((int(counts[top]), (factor, complex(u, v) - factor * middle)))
        taken[tree.query_ball_point(features[top], 2 * same)] = True
        if len(chosen) == MOST_TRIALS:
            break
    return chosen


def _matrix(factor: complex) -> Float64Array:
    return np.array([[factor.real, -factor.imag], [factor.imag, factor.real]])


def _tried(
    x1: Float64Array,
    y1: Float64Array,
    x2: Float64Array,
    y2: Float64Array,
    begin: Affine,
    sigma_px: Float64Array | None,
) -> Match | None:
    """The map refined on all stars, as a map from the first list itself."""
    u, v = begin(x1, y1)
    found = match_stars(u, v, x2, y2, Affine.of_shift(0, 0), FIRST_RADIUS_PX, sigma_px)
    return None if found is None else found.after(begin)


def _judged(best: AsterismMatch, n_hits: int) -> AsterismMatch:
    """With how often chance makes as much of so many hits."""
    if best.match is None:
        return AsterismMatch(None, best.is_mirrored, best.votes, n_hits, np.inf)
    others = best.n_matched - STARS_OF_A_QUAD
    alarms = float(np.log(max(n_hits, 1)) + log_poisson_tail(others - 1, best.match.by_chance))
    return AsterismMatch(best.match, best.is_mirrored, best.votes, n_hits, alarms)
