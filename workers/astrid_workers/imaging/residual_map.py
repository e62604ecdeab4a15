"""What neighbouring sources agree on beyond a polynomial of position: small-scale bends of gain and shift.

Owns the map, its smoothness chosen by how well sources foretell one another, and scatter beyond errors; never
sees a pixel.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

#: Sources needed for a map of what the polynomial leaves, its bandwidths in mean distances of sources, and
#: the share of the scatter that it must fall below to be used.
MIN_SOURCES_FOR_MAP = 30
BANDWIDTHS = (0.8, 1.2, 2.0, 3.5)
WORTHWHILE = 0.9


@dataclass(frozen=True, slots=True, eq=False)
class ResidualMap:
    """Local means of what sources want beyond the polynomial: relative gain, shift x, shift y.

    Gaussian-weighted, shrunk towards zero by the sources' own errors; a bandwidth of 0 switches a column off.
    """

    x: Floats
    y: Floats
    #: float64 `(n, 3)`.
    steps: Floats
    errors: Floats
    #: Scatter of the field itself, per column, and the sigma of the weights, pixels.
    scatter: Floats
    bandwidth_px: Floats

    def at(self, x: Floats, y: Floats) -> Floats:
        """The field at positions: float64 `(m, 3)`."""
        distance2 = (x[:, None] - self.x[None, :]) ** 2 + (y[:, None] - self.y[None, :]) ** 2
        return self._field(distance2, leave_out=False)

    def left_out(self) -> Floats:
        """The field at each source as all others see it: float64 `(n, 3)`."""
        distance2 = (self.x[:, None] - self.x[None, :]) ** 2 + (self.y[:, None] - self.y[None, :]) ** 2
        return self._field(distance2, leave_out=True)

    def _field(self, distance2: Floats, *, leave_out: bool) -> Floats:
        field = np.zeros((len(distance2), self.steps.shape[1]))
        for column, (bandwidth, scatter) in enumerate(zip(self.bandwidth_px, self.scatter, strict=True)):
            if bandwidth <= 0 or scatter <= 0:
                continue
            near = np.exp(-0.5 * distance2 / bandwidth**2)
            if leave_out:
                np.fill_diagonal(near, 0.0)
            weight = near / (self.errors[:, column] ** 2 + 0.25 * scatter**2)
            field[:, column] = (weight @ self.steps[:, column]) / (weight.sum(axis=1) + 1 / scatter**2)
        return field


def measure_residual_map(
    x: Floats, y: Floats, steps: Floats, errors: Floats, frame_shape: tuple[int, int]
) -> ResidualMap:
    """The bandwidth per column at which each source is best foretold by the others; 0 where none helps."""
    scatter = np.array([excess_scatter(steps[:, k], errors[:, k]) for k in range(3)])
    off = ResidualMap(x, y, steps, errors, scatter, np.zeros(3))
    if len(x) < MIN_SOURCES_FOR_MAP:
        return off
    spacing = float(np.sqrt(frame_shape[0] * frame_shape[1] / len(x)))
    best, least = np.zeros(3), scatter * WORTHWHILE
    for factor in BANDWIDTHS:
        trial = replace(off, bandwidth_px=np.full(3, factor * spacing))
        left = steps - trial.left_out()
        for k in range(3):
            remaining = excess_scatter(left[:, k], errors[:, k])
            if remaining < least[k]:
                best[k], least[k] = factor * spacing, remaining
    return replace(off, bandwidth_px=best)


def excess_scatter(values: Floats, errors: Floats) -> float:
    """Robust scatter of `values` beyond their `errors`, 0 when the errors explain it.

    Iterates sigma so that the median of |values| / sqrt(errors² + sigma²) is that of a Gaussian.
    """
    deviation = np.abs(values - np.median(values))
    low, high = 0.0, float(1.4826 * np.median(deviation) * 2 + 1e-12)
    if np.median(deviation / np.maximum(errors, 1e-30)) < 0.6745:
        return 0.0
    for _ in range(30):
        middle = (low + high) / 2
        if np.median(deviation / np.hypot(errors, middle)) > 0.6745:
            low = middle
        else:
            high = middle
    return (low + high) / 2
