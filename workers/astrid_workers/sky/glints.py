"""Glints: flashes of sunlight from satellites and debris that turn.

Owns where chains of dots and short trails fall and the point sources that they are painted with; never knows
a profile or a detector.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from astrid_workers.sky.light import Points

Float64Array = NDArray[np.float64]

#: Gap between neighbouring dots of a chain, pixels, log-uniform; and how far one is off its place, rms.
SPACING_PX, JITTER_PX = (25.0, 110.0), 0.1
#: Points per pixel that a trail is painted with: a fourth of a pixel is far below any PSF.
POINTS_PER_PX = 4
#: Pixels from the frame's edge within which no glint begins or ends.
BORDER_PX = 15.0
#: Places that are tried for one glint: a long one fits few.
TRIES = 2000


@dataclass(frozen=True, slots=True, eq=False)
class Glints:
    """What was drawn. All arrays are float64 but the chains' numbers."""

    #: Dots of chains: places and electrons, and the number of the chain of each.
    dots: Points
    chain: NDArray[np.intp]
    #: Trails, one row each: x0, y0, x1, y1 in pixels, and the electrons of the whole trail.
    trails: Float64Array

    def light(self) -> Points:
        """All of it as point sources."""
        points = self.dots
        for x0, y0, x1, y1, flux in self.trails:
            n = max(int(np.hypot(x1 - x0, y1 - y0) * POINTS_PER_PX), 2)
            share = (np.arange(n) + 0.5) / n
            points = points.plus(Points(x0 + share * (x1 - x0), y0 + share * (y1 - y0), np.full(n, flux / n)))
        return points


def draw_glints(
    seed: int,
    shape: tuple[int, int],
    *,
    n_chains: int,
    dots: int,
    n_trails: int,
    trail_px: tuple[float, float],
    flux_e: float,
) -> Glints:
    """Chains of `dots` evenly spaced flashes of about `flux_e` electrons each (±30 %), and trails whose
    lengths are log-uniform in `trail_px` with `flux_e` electrons per trail.
    """
    chains = [_chain(np.random.default_rng([seed, 5, k]), shape, dots) for k in range(n_chains)]
    places = np.concatenate([np.zeros((0, 2)), *chains])
    rng = np.random.default_rng([seed, 6])
    flux = flux_e * rng.uniform(0.7, 1.3, len(places))
    trails = [_trail(np.random.default_rng([seed, 7, k]), shape, trail_px, flux_e) for k in range(n_trails)]
    return Glints(
        Points(places[:, 0], places[:, 1], flux),
        np.repeat(np.arange(n_chains), dots),
        np.array(trails, float).reshape(-1, 5),
    )


def _chain(rng: np.random.Generator, shape: tuple[int, int], dots: int) -> Float64Array:
    """Places `(dots, 2)` of one chain inside the frame."""
    longest = max(dots - 1, 1)
    largest = min((min(shape) - 2 * BORDER_PX) / longest, SPACING_PX[1])
    spacing = float(np.exp(rng.uniform(np.log(min(SPACING_PX[0], largest)), np.log(largest))))
    start, end = _segment(rng, shape, spacing * longest)
    share = np.linspace(0, 1, dots)[:, None]
    return np.asarray(start + share * (end - start) + rng.normal(0, JITTER_PX, (dots, 2)))


def _trail(
    rng: np.random.Generator, shape: tuple[int, int], trail_px: tuple[float, float], flux_e: float
) -> list[float]:
    length = float(np.exp(rng.uniform(np.log(trail_px[0]), np.log(trail_px[1]))))
    start, end = _segment(rng, shape, length)
    return [*start, *end, flux_e]


def _segment(
    rng: np.random.Generator, shape: tuple[int, int], length_px: float
) -> tuple[Float64Array, Float64Array]:
    """Ends of a segment of that length and any direction that lies inside the frame."""
    low = np.full(2, BORDER_PX)
    high = np.array([shape[1], shape[0]], float) - 1 - BORDER_PX
    for _ in range(TRIES):
        angle = rng.uniform(0, 2 * np.pi)
        start = rng.uniform(low, high)
        end = start + length_px * np.array([np.cos(angle), np.sin(angle)])
        if np.all((end >= low) & (end <= high)):
            return start, end
    msg = f"a glint of {length_px:.0f} pixels does not fit into {shape[1]} x {shape[0]}"
    raise ValueError(msg)
