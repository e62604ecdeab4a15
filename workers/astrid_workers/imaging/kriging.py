"""A smooth field from scattered measurements with errors: what all others around a place foretell there.

Owns Gaussian-process regression (kriging) with a squared-exponential covariance, whose scale and amplitude
and the measurements' own scatter are the likeliest ones (Rasmussen & Williams 2006, Gaussian Processes for
Machine Learning, equations 2.23 to 2.26, 2.30 and 5.12); never knows what is measured.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve_triangular

Floats = NDArray[np.float64]
Indices = NDArray[np.intp]

#: What is tried: scales in mean distances of measurements, amplitudes and own scatters in their scatter.
SCALES = (0.7, 1.2, 2.0, 3.3, 5.0)
AMPLITUDES = (0.4, 0.7, 1.0, 1.5, 2.2)
OWN_SCATTERS = (0.03, 0.15, 0.3, 0.6)
#: Rounds in which each of the three is chosen with the others held, from these.
ROUNDS, FIRST_GUESS = 3, (2.0, 1.0, 0.15)
#: Neighbouring measurements that are asked for scale and amplitude: more only cost time.
MOST_ASKED = 150
#: Up to so many measurements are solved for together; more are dealt to cells of about so many, each with
#: what surrounds it by half its side.
MOST_TOGETHER, PER_CELL = 480, 120
#: Sigma from which a measurement is off, and is believed as little as that.
OUTLYING_SIGMA = 4.0


@dataclass(frozen=True, slots=True, eq=False)
class Field:
    """Zero in the mean, Gaussian about that; `amplitude` 0 is no field."""

    x: Floats
    y: Floats
    scale_px: float
    amplitude: float
    #: `(ny, nx)` of the frame and the cells along y and x.
    frame_shape: tuple[int, int]
    counts: tuple[int, int]
    #: Per cell, row by row: the measurements that it is foretold by, and their weights.
    members: tuple[Indices, ...]
    weights: tuple[Floats, ...]
    #: At each measurement as all others see it, and the 1-sigma error of that.
    left_out: Floats
    error: Floats

    def at(self, x: Floats, y: Floats) -> Floats:
        """The field at positions, `(m,)`."""
        found = np.zeros(len(x))
        if self.amplitude == 0:
            return found
        cells = _cells_of(x, y, self.frame_shape, self.counts)
        for cell in np.unique(cells):
            here, by = np.flatnonzero(cells == cell), self.members[cell]
            distance2 = (x[here, None] - self.x[by]) ** 2 + (y[here, None] - self.y[by]) ** 2
            found[here] = _covariance(distance2, self.scale_px, self.amplitude) @ self.weights[cell]
        return found

    def on_grid(self, x: Floats, y: Floats) -> Floats:
        """The field where columns `x` and rows `y` cross, `(len(y), len(x))`: the covariance is a product."""
        found = np.zeros((len(y), len(x)))
        if self.amplitude == 0:
            return found
        rows, columns = (
            _cells_along(place, size, count)
            for place, size, count in zip((y, x), self.frame_shape, self.counts, strict=True)
        )
        for row in np.unique(rows):
            for column in np.unique(columns):
                cell = row * self.counts[1] + column
                by, down, across = self.members[cell], rows == row, columns == column
                along_y = _covariance((y[down, None] - self.y[by]) ** 2, self.scale_px, self.amplitude)
                along_x = _covariance((x[across, None] - self.x[by]) ** 2, self.scale_px, 1.0)
                found[np.ix_(down, across)] = (along_y * self.weights[cell]) @ along_x.T
        return found


def no_field(x: Floats, y: Floats, frame_shape: tuple[int, int]) -> Field:
    """Zero everywhere."""
    zero = np.zeros(len(x))
    return Field(x, y, 1.0, 0.0, frame_shape, (1, 1), (), (), zero, zero)


def measure_field(
    x: Floats, y: Floats, values: Floats, errors: Floats, scatter: float, frame_shape: tuple[int, int]
) -> Field:
    """The field that `values` at pixel positions show, all `(n,)`; `scatter` is theirs beyond their errors.

    `frame_shape` is `(ny, nx)` of the pixels that they are spread over.
    """
    if scatter <= 0 or len(x) < 2:
        return no_field(x, y, frame_shape)
    spacing = float(np.sqrt(frame_shape[0] * frame_shape[1] / len(x)))
    middle = np.hypot(x - np.median(x), y - np.median(y))
    asked = np.argsort(middle, kind="stable")[:MOST_ASKED]
    scale, amplitude, own = _likeliest(x[asked], y[asked], values[asked], errors[asked], spacing, scatter)
    counts = _counts(len(x), frame_shape)
    own_cells = _cells_of(x, y, frame_shape, counts)
    left_out, error = np.zeros(len(x)), np.zeros(len(x))
    members, weights = [], []
    for cell in range(counts[0] * counts[1]):
        by = _around(x, y, frame_shape, counts, cell)
        distance2 = (x[by, None] - x[by]) ** 2 + (y[by, None] - y[by]) ** 2
        prior = _covariance(distance2, scale, amplitude)
        solved, left, sigma = _solved(prior, values[by], np.hypot(errors[by], own))
        members.append(by)
        weights.append(solved)
        inside = own_cells[by] == cell
        left_out[by[inside]], error[by[inside]] = left[inside], sigma[inside]
    return Field(x, y, scale, amplitude, frame_shape, counts, tuple(members), tuple(weights), left_out, error)


def _covariance(distance2: Floats, scale: float, amplitude: float) -> Floats:
    return np.asarray(amplitude**2 * np.exp(-0.5 * distance2 / scale**2))


def _likeliest(
    x: Floats, y: Floats, values: Floats, errors: Floats, spacing: float, scatter: float
) -> tuple[float, float, float]:
    """Scale, amplitude and own scatter, each the best of what is tried with the others held."""
    distance2 = (x[:, None] - x) ** 2 + (y[:, None] - y) ** 2
    shapes = {factor: _covariance(distance2, factor * spacing, 1.0) for factor in SCALES}
    known: dict[tuple[float, float, float], float] = {}

    def likelihood(scale: float, amplitude: float, own: float) -> float:
        asked = (scale, amplitude, own)
        if asked not in known:
            covariance = (amplitude * scatter) ** 2 * shapes[scale]
            known[asked] = _log_likelihood(covariance, values, errors**2 + (own * scatter) ** 2)
        return known[asked]

    scale, amplitude, own = FIRST_GUESS
    for _ in range(ROUNDS):
        before = (scale, amplitude, own)
        scale = max(SCALES, key=lambda tried: likelihood(tried, amplitude, own))
        own = max(OWN_SCATTERS, key=lambda tried: likelihood(scale, amplitude, tried))
        amplitude = max(AMPLITUDES, key=lambda tried: likelihood(scale, tried, own))
        if (scale, amplitude, own) == before:
            break
    return scale * spacing, amplitude * scatter, own * scatter


def _log_likelihood(covariance: Floats, values: Floats, variance: Floats) -> float:
    """Of values with a prior of this covariance and errors of this variance, but for a constant."""
    covariance[np.diag_indices(len(values))] += variance
    factor = np.linalg.cholesky(covariance)
    white = solve_triangular(factor, values, lower=True, check_finite=False)
    return float(-0.5 * white @ white - np.log(np.diag(factor)).sum())


def _solved(prior: Floats, values: Floats, errors: Floats) -> tuple[Floats, Floats, Floats]:
    """Weights, and what is foretold of each value without it, with the error of that; outliers hardly
    count.
    """
    for again in (True, False):
        full = prior.copy()
        full[np.diag_indices(len(values))] += errors**2
        inverse = np.linalg.inv(full)
        weights = inverse @ values
        diagonal = np.diag(inverse)
        left = weights / diagonal
        off = np.abs(left) > OUTLYING_SIGMA / np.sqrt(diagonal)
        if again and off.any():
            errors = np.where(off, np.hypot(errors, left), errors)
        else:
            break
    return weights, values - left, np.sqrt(np.maximum(1 / diagonal - errors**2, 0.0))


def _counts(n: int, frame_shape: tuple[int, int]) -> tuple[int, int]:
    """Cells along y and x."""
    if n <= MOST_TOGETHER:
        return 1, 1
    side = np.sqrt(frame_shape[0] * frame_shape[1] * PER_CELL / n)
    return max(1, round(frame_shape[0] / side)), max(1, round(frame_shape[1] / side))


def _cells_of(x: Floats, y: Floats, frame_shape: tuple[int, int], counts: tuple[int, int]) -> Indices:
    """The cell that each position lies in; the nearest one of those beyond the frame."""
    row = _cells_along(y, frame_shape[0], counts[0])
    return np.asarray(row * counts[1] + _cells_along(x, frame_shape[1], counts[1]))


def _cells_along(place: Floats, size: int, count: int) -> Indices:
    return np.asarray(np.clip((place * count // size).astype(np.intp), 0, count - 1))


def _around(
    x: Floats, y: Floats, frame_shape: tuple[int, int], counts: tuple[int, int], cell: int
) -> Indices:
    """The measurements in a cell and within half its side of it."""
    near = np.ones(len(x), bool)
    for place, size, count, index in (
        (y, frame_shape[0], counts[0], cell // counts[1]),
        (x, frame_shape[1], counts[1], cell % counts[1]),
    ):
        if count > 1:
            at = place * count / size
            near &= (at >= index - 0.5) & (at < index + 1.5)
    return np.flatnonzero(near)
