"""Which star of one list is which of another.

Owns voting, matching and the fit of the map between two lists; never looks at pixels or at a WCS.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from astrid_workers.imaging.chance import log_poisson_tail

Float64Array = NDArray[np.float64]
Indices = NDArray[np.intp]

#: Stars of each list that vote on the shift: pairs grow with the square.
MOST_VOTERS = 100
#: Half-widths of the voting bins in pixels, small ones first: rotation and scale smear the true shift.
BIN_SIZES_PX = (2.0, 5.0, 12.0)
#: How often chance may make a bin as full as the best one, over all places looked at.
FALSE_ALARMS = 1e-3
#: Fewest votes that are believed.
FEWEST_VOTES = 3
#: Residuals beyond this many robust sigmas do not count in a fit.
CLIP_SIGMA = 3.5


@dataclass(frozen=True, slots=True, eq=False)
class Affine:
    """`(x', y') = matrix · (x, y) + shift`."""

    matrix: Float64Array
    shift: Float64Array

    @classmethod
    def of_shift(cls, dx: float, dy: float) -> "Affine":
        """A pure shift."""
        return cls(np.eye(2), np.array([dx, dy]))

    def __call__(self, x: Float64Array, y: Float64Array) -> tuple[Float64Array, Float64Array]:
        """Where `x, y` go."""
        m, b = self.matrix, self.shift
        return m[0, 0] * x + m[0, 1] * y + b[0], m[1, 0] * x + m[1, 1] * y + b[1]

    def after(self, earlier: "Affine") -> "Affine":
        """This map on what `earlier` yields."""
        return Affine(self.matrix @ earlier.matrix, self.matrix @ earlier.shift + self.shift)

    @property
    def is_mirrored(self) -> bool:
        """Whether it turns the plane over."""
        return bool(np.linalg.det(self.matrix) < 0)

    @property
    def scale(self) -> float:
        """Square root of the determinant."""
        return float(np.sqrt(abs(np.linalg.det(self.matrix))))

    @property
    def rotation_deg(self) -> float:
        """Angle of the nearest rotation, from x towards y; if mirrored, after x has changed its sign."""
        m = self.matrix if not self.is_mirrored else self.matrix @ np.diag([-1.0, 1.0])
        return float(np.degrees(np.arctan2(m[1, 0] - m[0, 1], m[0, 0] + m[1, 1])))


@dataclass(frozen=True, slots=True)
class Vote:
    """The most common difference of places between two lists."""

    dx: float
    dy: float
    votes: int
    #: Votes expected in a bin if nothing matched.
    by_chance: float
    bin_px: float
    #: Bins as full as this one that chance makes, over all places looked at; natural logarithm.
    log_false_alarms: float

    @property
    def is_significant(self) -> bool:
        """Whether chance can be ruled out."""
        return self.votes >= FEWEST_VOTES and self.log_false_alarms < np.log(FALSE_ALARMS)


@dataclass(frozen=True, slots=True, eq=False)
class Match:
    """A fitted map from the first list to the second, and the pairs it rests on."""

    map: Affine
    #: Indices into both lists, one pair a row.
    first: Indices
    second: Indices
    #: Robust scatter of one axis about the map, pixels of the second list.
    rms_px: float
    #: "shift", "similarity" or "affine".
    model: str
    #: Pairs as close as these that chance would make.
    by_chance: float

    @property
    def is_significant(self) -> bool:
        """Whether so many pairs, so close, cannot be chance."""
        return bool(log_poisson_tail(self.first.size - 1, self.by_chance) < np.log(FALSE_ALARMS))

    def after(self, earlier: Affine) -> "Match":
        """The same pairs, with the map from what `earlier` was applied to."""
        model = "similarity" if self.model == "shift" else self.model
        return replace(self, map=self.map.after(earlier), model=model)


def vote_on_shift(
    x1: Float64Array, y1: Float64Array, x2: Float64Array, y2: Float64Array, within_px: float
) -> Vote:
    """The best shift `second - first` of at most `within_px` per axis, by a histogram of all differences.

    Lists are brightest first; only the first `MOST_VOTERS` vote. Finer bins win when they are as significant.
    """
    x1, y1, x2, y2 = x1[:MOST_VOTERS], y1[:MOST_VOTERS], x2[:MOST_VOTERS], y2[:MOST_VOTERS]
    dx = (x2[None, :] - x1[:, None]).ravel()
    dy = (y2[None, :] - y1[:, None]).ravel()
    near = (np.abs(dx) <= within_px) & (np.abs(dy) <= within_px)
    points = np.column_stack([dx[near], dy[near]])
    if points.shape[0] == 0:
        return Vote(0.0, 0.0, 0, 0.0, BIN_SIZES_PX[0], np.inf)
    spans = (
        np.array([x1.min(), x1.max(), x2.min(), x2.max()]),
        np.array([y1.min(), y1.max(), y2.min(), y2.max()]),
    )
    votes = [_best_bin(points, radius, x1.size * x2.size, spans) for radius in BIN_SIZES_PX]
    return min(votes, key=lambda vote: vote.log_false_alarms)


def match_stars(
    x1: Float64Array,
    y1: Float64Array,
    x2: Float64Array,
    y2: Float64Array,
    start: Affine,
    radius_px: float,
    sigma_px: Float64Array | None = None,
) -> Match | None:
    """Refine `start` from mutual nearest neighbours, in a radius that shrinks from `radius_px`; None below
    three pairs.

    `sigma_px`, the centring error per star of the first list, weighs the fit. A similarity, then an affine
    map, is chosen over a shift only where it lowers chi² by more than chance would.
    """
    best = start
    weights = np.ones(x1.size) if sigma_px is None else 1 / np.square(sigma_px)
    tree = cKDTree(np.column_stack([x2, y2]))
    found: Match | None = None
    radius = radius_px
    for _ in range(12):
        first, second = _mutual(best, x1, y1, x2, y2, tree, radius)
        if first.size < 3:
            return found
        found = _fitted(x1, y1, x2, y2, first, second, weights)
        moved = float(np.max(np.hypot(*np.subtract(found.map(x1, y1), best(x1, y1)))))
        best = found.map
        smaller = max(4 * found.rms_px, 1.0)
        if smaller >= radius and moved < 1e-3:
            break
        radius = max(min(radius, smaller), 1.0)
    return found


def _best_bin(
    points: Float64Array, radius: float, n_pairs: int, spans: tuple[Float64Array, Float64Array]
) -> Vote:
    """The difference with most others around it."""
    tree = cKDTree(points)
    counts = tree.query_ball_point(points, radius, return_length=True)
    top = int(np.argmax(counts))
    near = points[tree.query_ball_point(points[top], radius)]
    centre = np.median(near, axis=0)
    density = n_pairs * _density(centre[0], spans[0]) * _density(centre[1], spans[1])
    chance = max(density * np.pi * radius**2, 1e-6)
    # every difference is a centre that was tried, and counts itself: the others are what chance must explain
    alarms = np.log(points.shape[0]) + log_poisson_tail(int(counts[top]) - 2, chance)
    return Vote(float(centre[0]), float(centre[1]), int(counts[top]), float(chance), radius, float(alarms))


def _density(shift: float, span: Float64Array) -> float:
    """Probability per pixel that two places drawn evenly from both spans differ by `shift`."""
    low1, high1, low2, high2 = span
    common = min(high1 + shift, high2) - max(low1 + shift, low2)
    return float(max(common, 1.0) / (max(high1 - low1, 1.0) * max(high2 - low2, 1.0)))


def _mutual(
    mapping: Affine,
    x1: Float64Array,
    y1: Float64Array,
    x2: Float64Array,
    y2: Float64Array,
    tree: cKDTree,
    radius: float,
) -> tuple[Indices, Indices]:
    """Pairs that are each other's nearest within `radius`."""
    moved = np.column_stack(mapping(x1, y1))
    distance, nearest = tree.query(moved, distance_upper_bound=radius)
    _, back = cKDTree(moved).query(np.column_stack([x2, y2]), distance_upper_bound=radius)
    first = np.flatnonzero(np.isfinite(distance))
    first = first[back[nearest[first]] == first]
    return first, nearest[first]


def _fitted(
    x1: Float64Array,
    y1: Float64Array,
    x2: Float64Array,
    y2: Float64Array,
    first: Indices,
    second: Indices,
    weights: Float64Array,
) -> Match:
    """The simplest model that the pairs ask for, outliers clipped."""
    keep = np.ones(first.size, bool)
    for _ in range(4):
        a, b = first[keep], second[keep]
        mapping, model = _chosen_model(x1[a], y1[a], x2[b], y2[b], weights[a])
        px, py = mapping(x1[first], y1[first])
        distance = np.hypot(x2[second] - px, y2[second] - py)
        # the median of a two-dimensional Gaussian's radius is 1.177 sigma
        sigma = max(float(np.median(distance[keep])) / 1.1774, 1e-6)
        closer = distance < CLIP_SIGMA * sigma * 1.2
        if closer.sum() < 3 or np.array_equal(closer, keep):
            break
        keep = closer
    px, py = mapping(x1[first[keep]], y1[first[keep]])
    residual = np.concatenate([x2[second[keep]] - px, y2[second[keep]] - py])
    freedom = max(1.0, residual.size - {"shift": 2, "similarity": 4, "affine": 6}[model])
    rms = float(np.sqrt(np.sum(residual**2) / freedom))
    area = max((np.ptp(x2) + 1) * (np.ptp(y2) + 1), 1.0)
    by_chance = x1.size * x2.size / area * np.pi * (CLIP_SIGMA * rms) ** 2
    return Match(mapping, first[keep], second[keep], rms, model, max(float(by_chance), 1e-6))


def _chosen_model(
    x: Float64Array, y: Float64Array, u: Float64Array, v: Float64Array, weights: Float64Array
) -> tuple[Affine, str]:
    """Shift, similarity or affine: more parameters only for a gain that noise makes once in a thousand
    times.
    """
    weights = weights / weights.sum() * x.size
    best, model, chi2 = _shift_fit(x, y, u, v, weights)
    for fit, name, parameters in ((_similarity_fit, "similarity", 4), (_affine_fit, "affine", 6)):
        if 2 * x.size < 2 * parameters + 4:
            break
        mapping, other = fit(x, y, u, v, weights)
        freedom = 2 * x.size - parameters
        if (chi2 - other) / 2 > 6.9 * other / freedom:
            best, model, chi2 = mapping, name, other
    return best, model


def _chi2(
    mapping: Affine, x: Float64Array, y: Float64Array, u: Float64Array, v: Float64Array, w: Float64Array
) -> float:
    px, py = mapping(x, y)
    return float(np.sum(w * ((u - px) ** 2 + (v - py) ** 2)))


def _shift_fit(
    x: Float64Array, y: Float64Array, u: Float64Array, v: Float64Array, w: Float64Array
) -> tuple[Affine, str, float]:
    mapping = Affine.of_shift(float(np.average(u - x, weights=w)), float(np.average(v - y, weights=w)))
    return mapping, "shift", _chi2(mapping, x, y, u, v, w)


def _similarity_fit(
    x: Float64Array, y: Float64Array, u: Float64Array, v: Float64Array, w: Float64Array
) -> tuple[Affine, float]:
    one, zero, root = np.ones_like(x), np.zeros_like(x), np.sqrt(w)
    design = np.concatenate([np.column_stack([x, -y, one, zero]), np.column_stack([y, x, zero, one])])
    both = np.concatenate([root, root])
    a, b, c, d = np.linalg.lstsq(design * both[:, None], np.concatenate([u, v]) * both, rcond=None)[0]
    mapping = Affine(np.array([[a, -b], [b, a]]), np.array([c, d]))
    return mapping, _chi2(mapping, x, y, u, v, w)


def _affine_fit(
    x: Float64Array, y: Float64Array, u: Float64Array, v: Float64Array, w: Float64Array
) -> tuple[Affine, float]:
    root = np.sqrt(w)
    design = np.column_stack([x, y, np.ones_like(x)]) * root[:, None]
    solved = np.linalg.lstsq(design, np.column_stack([u, v]) * root[:, None], rcond=None)[0]
    mapping = Affine(solved[:2].T.copy(), solved[2].copy())
    return mapping, _chi2(mapping, x, y, u, v, w)
