"""Place and shape of many sources at once, by adaptive Gaussian moments.

Owns the iteration of Bernstein & Jarvis (2002); never decides what a star is.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from astrid_workers.frame import Float32Image

Float64Array = NDArray[np.float64]

#: FWHM of a Gaussian per sigma.
FWHM_PER_SIGMA = 2.354820045
#: Half a stamp, in units of a source's first-guess sigma and in pixels at most.
_REACH_SIGMA, _LARGEST_RADIUS = 5.0, 20
#: Stamps measured together: bounds the memory of a crowded frame.
_BATCH = 512


@dataclass(frozen=True, slots=True, eq=False)
class Moments:
    """The best-fitting elliptical Gaussian of each source; NaN where `converged` is False."""

    x: Float64Array
    y: Float64Array
    flux: Float64Array
    fwhm_px: Float64Array
    ellipticity: Float64Array
    converged: NDArray[np.bool_]


def adaptive_moments(
    image: Float32Image, x: Float64Array, y: Float64Array, sigma_px: Float64Array, *, iterations: int = 25
) -> Moments:
    """Centre, covariance and flux of the Gaussian that best matches each source.

    `image` is float32 `[y, x]`, background-subtracted, with 0 where it is unusable; `x, y, sigma_px` are
    first guesses in pixels. Pixels outside the image count as 0. Weight = the Gaussian itself, iterated.
    """
    batches = [
        _batch(image, x[i : i + _BATCH], y[i : i + _BATCH], sigma_px, iterations)
        for i in range(0, x.size, _BATCH)
    ]
    if not batches:
        empty = np.empty(0)
        return Moments(empty, empty, empty, empty, empty, np.empty(0, bool))
    columns = (np.concatenate(column) for column in zip(*batches, strict=True))
    return Moments(*columns)


def _batch(
    image: Float32Image, x: Float64Array, y: Float64Array, sigma_px: Float64Array, iterations: int
) -> tuple[Float64Array, Float64Array, Float64Array, Float64Array, Float64Array, NDArray[np.bool_]]:
    typical = float(np.clip(np.median(sigma_px), 0.8, 8.0))
    radius = int(np.clip(np.ceil(_REACH_SIGMA * typical), 5, _LARGEST_RADIUS))
    stamps, left, bottom = _stamps(image, x, y, radius)
    offsets = np.arange(2 * radius + 1, dtype=np.float64)
    cx, cy = x - left, y - bottom
    cxx, cyy, cxy = (np.full(x.size, v) for v in (typical**2, typical**2, 0.0))
    alive = np.ones(x.size, bool)
    settled = np.zeros(x.size, bool)
    flux = np.full(x.size, np.nan)
    for _ in range(iterations):
        index = np.flatnonzero(alive & ~settled)
        if index.size == 0:
            break
        dx = offsets[None, :] - cx[index, None]
        dy = offsets[None, :] - cy[index, None]
        det = cxx[index] * cyy[index] - cxy[index] ** 2
        ixx, iyy, ixy = cyy[index] / det, cxx[index] / det, -cxy[index] / det
        power = (
            ixx[:, None, None] * (dx**2)[:, None, :]
            + iyy[:, None, None] * (dy**2)[:, :, None]
            + 2 * ixy[:, None, None] * dx[:, None, :] * dy[:, :, None]
        )
        weighted = np.exp(-0.5 * power) * stamps[index]
        across, down = weighted.sum(axis=1), weighted.sum(axis=2)
        total = across.sum(axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            mx, my = (across * dx).sum(axis=1) / total, (down * dy).sum(axis=1) / total
            qxx = (across * dx**2).sum(axis=1) / total - mx**2
            qyy = (down * dy**2).sum(axis=1) / total - my**2
            qxy = np.einsum("kij,kj,ki->k", weighted, dx, dy) / total - mx * my
        good = (total > 0) & (qxx > 0) & (qyy > 0) & (qxx * qyy > qxy**2)
        good &= np.hypot(mx, my) < 2 * typical + 1
        # a Gaussian under its own weight has half its covariance; 4/3 of a step converges faster, and 2
        # overshoots
        nxx, nyy, nxy = 2 * qxx, 2 * qyy, 2 * qxy
        good &= (nxx < (0.7 * radius) ** 2) & (nyy < (0.7 * radius) ** 2) & (nxx > 0.05) & (nyy > 0.05)
        alive[index[~good]] = False
        keep = index[good]
        moved = np.hypot(mx, my)[good]
        change = np.abs(nxx[good] - cxx[keep]) + np.abs(nyy[good] - cyy[keep])
        cx[keep] += 2 * mx[good]
        cy[keep] += 2 * my[good]
        cxx[keep], cyy[keep], cxy[keep] = nxx[good], nyy[good], nxy[good]
        flux[keep] = 2 * total[good]
        settled[keep] = (moved < 1e-3) & (change < 2e-3 * (cxx[keep] + cyy[keep]))
    failed = ~settled
    mean, half = (cxx + cyy) / 2, np.hypot((cxx - cyy) / 2, cxy)
    major, minor = np.sqrt(mean + half), np.sqrt(np.maximum(mean - half, 1e-6))
    fwhm = np.where(failed, np.nan, FWHM_PER_SIGMA * np.sqrt(major * minor))
    ellipticity = np.where(failed, np.nan, 1 - minor / major)
    px, py = np.where(failed, x, left + cx), np.where(failed, y, bottom + cy)
    return px, py, np.where(failed, np.nan, flux), fwhm, ellipticity, settled


def _stamps(
    image: Float32Image, x: Float64Array, y: Float64Array, radius: int
) -> tuple[Float64Array, Float64Array, Float64Array]:
    """Squares about the nearest pixel, 0 outside the image, and where their first columns and rows are."""
    ny, nx = image.shape
    left, bottom = np.rint(x).astype(int) - radius, np.rint(y).astype(int) - radius
    steps = np.arange(2 * radius + 1)
    columns, rows = left[:, None] + steps, bottom[:, None] + steps
    inside = ((rows >= 0) & (rows < ny))[:, :, None] & ((columns >= 0) & (columns < nx))[:, None, :]
    values = image[np.clip(rows, 0, ny - 1)[:, :, None], np.clip(columns, 0, nx - 1)[:, None, :]]
    return np.where(inside, values, 0).astype(np.float64), left.astype(float), bottom.astype(float)
