"""Where a peak of the score has its summit, alone or on the light of others.

Owns sub-pixel places and fluxes of point sources in matched-filter fluxes, one by one or fitted together.
Never says what a peak is.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from astrid_workers.differencing.neighbours import PointLight, flux_of_others
from astrid_workers.differencing.products import Difference

Floats = NDArray[np.float64]

#: Times at most that each of a blend is measured again with what the others were found to be, and the share
#: by which fluxes still change when they are taken for found.
BLEND_ROUNDS, CONVERGED = 12, 2e-4
#: Distance from a pixel's middle at which a summit lies at its edge.
AT_EDGE_PX = 0.49


def fitted_together(
    difference: Difference, alone: list[PointLight], places: list[tuple[int, int]]
) -> tuple[list[PointLight], list[tuple[int, int]]] | None:
    """Each light without the others', and its pixel; None where they cannot be told apart.

    That is where one of them would become nothing, or a source elsewhere.
    """
    lights, pixels = list(alone), list(places)
    for _ in range(BLEND_ROUNDS):
        before = list(lights)
        for k in range(len(lights)):
            lights[k] = light_at(difference, *pixels[k], [*lights[:k], *lights[k + 1 :]])
            if not _is_same(lights[k], alone[k], difference.fwhm_science_px):
                return None
            pixels[k] = _toward(pixels[k], lights[k], difference)
        if all(abs(a.flux - b.flux) < CONVERGED * abs(a.flux) for a, b in zip(lights, before, strict=True)):
            break
    return lights, pixels


def _is_same(now: PointLight, then: PointLight, fwhm_px: float) -> bool:
    """Of the same sign, and within half a FWHM of where it was seen; never where that is not known."""
    return now.flux * then.flux > 0 and bool(np.hypot(now.x - then.x, now.y - then.y) < fwhm_px / 2)


def _toward(place: tuple[int, int], found: PointLight, difference: Difference) -> tuple[int, int]:
    """The pixel beside, where a summit lies at a pixel's edge: others' light had pulled the peak over."""
    steps = (found.y - place[0], found.x - place[1])
    moved = [
        at + round(2 * step) if abs(step) > AT_EDGE_PX else at for at, step in zip(place, steps, strict=True)
    ]
    ny, nx = difference.shape
    inside = 0 < moved[0] < ny - 1 and 0 < moved[1] < nx - 1
    is_measured = inside and bool(np.isfinite(difference.flux_error[moved[0], moved[1]]))
    return (moved[0], moved[1]) if is_measured else place


def light_at(difference: Difference, y: int, x: int, others: Sequence[PointLight]) -> PointLight:
    """The summit at a pixel, without the light of `others`."""
    near = np.arange(-1, 2)
    fluxes = _fluxes_around(difference, y, x) - flux_of_others(difference.kernels, others, y + near, x + near)
    dx, dy, flux = _summit(fluxes)
    return PointLight(x + dx, y + dy, flux)


def _fluxes_around(difference: Difference, y: int, x: int) -> Floats:
    """Matched-filter fluxes of the 3 × 3 pixels around a peak; masked ones take the peak's error.

    The score is no place to measure on: a source's own photons raise its noise most at its centre, which
    flattens the score's summit and moves it about.
    """
    window = np.s_[y - 1 : y + 2, x - 1 : x + 2]
    error = difference.flux_error[window].astype(float)
    error = np.where(np.isfinite(error), error, error[1, 1])
    return np.asarray(difference.unmasked_score[window] * error)


def _summit(flux: Floats) -> tuple[float, float, float]:
    """Offset and height of the peak of a Gaussian through 3 × 3 pixels, each axis by itself."""
    centre = float(flux[1, 1])
    sign = 1.0 if centre > 0 else -1.0
    dx, gain_x = _log_parabola(*(sign * float(value) for value in flux[1]))
    dy, gain_y = _log_parabola(*(sign * float(value) for value in flux[:, 1]))
    return dx, dy, centre * gain_x * gain_y


def _log_parabola(low: float, middle: float, high: float) -> tuple[float, float]:
    """Offset of the maximum (within half a pixel) and its height over the middle's."""
    floor = 0.02 * middle
    a, b, c = (np.log(max(v, floor) / middle) for v in (low, middle, high))
    curvature = a - 2 * b + c
    if curvature >= -1e-6:
        return 0.0, 1.0
    offset = float(np.clip(0.5 * (a - c) / curvature, -0.5, 0.5))
    return offset, float(np.exp(-0.25 * (a - c) * offset))
