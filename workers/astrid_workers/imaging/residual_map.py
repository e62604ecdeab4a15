"""What neighbouring sources agree on beyond a polynomial of position: small-scale bends of gain and shift.

Owns the map and whether it is worth having, and scatter beyond errors; never sees a pixel.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from astrid_workers.imaging.kriging import Field, measure_field, no_field

Floats = NDArray[np.float64]

#: Sources needed for a map of what the polynomial leaves, and the share of the scatter that it must fall
#: below to be used.
MIN_SOURCES_FOR_MAP = 30
WORTHWHILE = 0.9
#: |residual| / error from which one more sigma says nothing more of a scatter.
CLIP_SIGMA = 3.0


@dataclass(frozen=True, slots=True, eq=False)
class ResidualMap:
    """Fields of relative gain, shift x and shift y, as sources want them beyond the polynomial."""

    fields: tuple[Field, Field, Field]

    def at(self, x: Floats, y: Floats) -> Floats:
        """The fields at positions: float64 `(m, 3)`."""
        return np.column_stack([field.at(x, y) for field in self.fields])

    def on_grid(self, x: Floats, y: Floats) -> Floats:
        """The fields where columns `x` and rows `y` cross: float64 `(3, len(y), len(x))`."""
        return np.stack([field.on_grid(x, y) for field in self.fields])

    def left_out(self) -> Floats:
        """The fields at each source as all others see them: float64 `(n, 3)`."""
        return np.column_stack([field.left_out for field in self.fields])

    def errors(self) -> Floats:
        """1-sigma errors of `left_out`: float64 `(n, 3)`."""
        return np.column_stack([field.error for field in self.fields])


def measure_residual_map(
    x: Floats, y: Floats, steps: Floats, errors: Floats, frame_shape: tuple[int, int]
) -> ResidualMap:
    """The map of what sources at pixel positions want, `steps` with `errors`, `(n, 3)` each.

    A column in which sources do not foretell one another is zero.
    """
    off = no_field(x, y, frame_shape)
    if len(x) < MIN_SOURCES_FOR_MAP:
        return ResidualMap((off, off, off))
    gain, across, along = (_worthwhile(x, y, steps[:, k], errors[:, k], frame_shape, off) for k in range(3))
    return ResidualMap((gain, across, along))


def _worthwhile(
    x: Floats, y: Floats, steps: Floats, errors: Floats, frame_shape: tuple[int, int], off: Field
) -> Field:
    scatter = excess_scatter(steps, errors)
    field = measure_field(x, y, steps, errors, scatter, frame_shape)
    return field if excess_scatter(steps - field.left_out, errors) < WORTHWHILE * scatter else off


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


def likeliest_scatter(values: Floats, errors: Floats) -> float:
    """Scatter about 0 of few `values` beyond their `errors` by largest likelihood, outliers clipped.

    Half as uncertain as a median's, which of a dozen values says next to nothing.
    """
    largest = float(np.max(np.abs(values), initial=0.0))
    if largest == 0:
        return 0.0
    tried = np.append(0.0, np.geomspace(largest / 100, largest, 60))
    variance = np.maximum(errors, 1e-30) ** 2 + tried[:, None] ** 2
    loss = np.minimum(values**2 / variance, CLIP_SIGMA**2) + np.log(variance)
    return float(tried[np.argmin(loss.sum(axis=1))])
