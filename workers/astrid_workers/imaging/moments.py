"""Place and shape of many sources at once, by adaptive Gaussian moments.

Owns the iteration of Bernstein & Jarvis (2002), with a weight that is no narrower than pixels can sample;
never decides what a star is.
"""

from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from astrid_workers.frame import Float32Image

Float64Array = NDArray[np.float64]
Float32Array = NDArray[np.float32]

#: FWHM of a Gaussian per sigma.
FWHM_PER_SIGMA = 2.354820045
#: Half a stamp, in units of a source's first-guess sigma and in pixels at most.
_REACH_SIGMA, _LARGEST_RADIUS = 5.0, 20
#: Below twice this variance along its narrower axis nothing is measured: it is far narrower than a pixel.
_LEAST_VARIANCE_PX2 = 0.025
#: Variance of the narrowest weight: a narrower one sees one pixel, and shrinks on to nothing.
_LEAST_WEIGHT_PX2 = 0.64
#: What has it keeps it up to so many times this: what is no Gaussian is wider under a wider weight.
_STAYS_NARROW = 1.5
#: How far a centre may stray from its first guess, in the typical sigma, and a pixel more.
_STRAYS_SIGMA = 1.5
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
    first guesses in pixels. Pixels outside the image count as 0. Weight = the Gaussian itself, iterated, or a
    round one of 0.8 px (sigma) where that is narrower; a source whose weight strays to a neighbour has no
    fit, and stays where it was.
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
    stamps, middle_x, middle_y = _stamps(image, x, y, radius)
    powers = _powers(radius)
    cx, cy = x - middle_x, y - middle_y
    first_x, first_y, strays = cx.copy(), cy.copy(), _STRAYS_SIGMA * typical + 1
    cxx, cyy, cxy = (np.full(x.size, v) for v in (typical**2, typical**2, 0.0))
    alive = np.ones(x.size, bool)
    settled, narrow = np.zeros(x.size, bool), np.zeros(x.size, bool)
    flux = np.full(x.size, np.nan)
    for _ in range(iterations):
        index = np.flatnonzero(alive & ~settled)
        if index.size == 0:
            break
        limit = 2 * _LEAST_WEIGHT_PX2 * np.where(narrow[index], _STAYS_NARROW, 1.0)
        is_narrow = narrow[index] = cxx[index] + cyy[index] < limit
        wxx, wyy = (np.where(is_narrow, _LEAST_WEIGHT_PX2, each[index]) for each in (cxx, cyy))
        weights = _gaussians(cx[index], cy[index], wxx, wyy, np.where(is_narrow, 0.0, cxy[index]), powers)
        weights *= stamps[index]
        total, mx, my, qxx, qyy, qxy = _central_moments(weights @ powers.T, cx[index], cy[index])
        good = (total > 0) & (qxx > 0) & (qyy > 0) & (qxx * qyy > qxy**2)
        good &= np.hypot(mx, my) < 2 * typical + 1
        # no further in all: a brighter neighbour draws a weight over
        good &= np.hypot(cx[index] + 2 * mx - first_x[index], cy[index] + 2 * my - first_y[index]) < strays
        # a Gaussian under its own weight has half its covariance
        nxx, nyy, nxy = 2 * qxx, 2 * qyy, 2 * qxy
        nxx[is_narrow], nyy[is_narrow], nxy[is_narrow] = _without_weight(
            qxx[is_narrow], qyy[is_narrow], qxy[is_narrow]
        )
        # and moves by half its distance, and gives half its light
        whole = np.where(is_narrow, 1 + (nxx + nyy) / (2 * _LEAST_WEIGHT_PX2), 2.0)
        good &= (nxx < (0.7 * radius) ** 2) & (nyy < (0.7 * radius) ** 2)
        # determinant over trace is half the variance of a round source, and all of it of one that is a line
        good &= nxx * nyy - nxy**2 > _LEAST_VARIANCE_PX2 * (nxx + nyy)
        alive[index[~good]] = False
        keep = index[good]
        moved = np.hypot(mx, my)[good]
        change = np.abs(nxx[good] - cxx[keep]) + np.abs(nyy[good] - cyy[keep])
        cx[keep] += (whole * mx)[good]
        cy[keep] += (whole * my)[good]
        cxx[keep], cyy[keep], cxy[keep] = nxx[good], nyy[good], nxy[good]
        flux[keep] = (whole * total)[good]
        settled[keep] = (moved < 1e-3) & (change < 2e-3 * (cxx[keep] + cyy[keep]))
    failed = ~settled
    mean, half = (cxx + cyy) / 2, np.hypot((cxx - cyy) / 2, cxy)
    major, minor = np.sqrt(mean + half), np.sqrt(np.maximum(mean - half, 1e-6))
    fwhm = np.where(failed, np.nan, FWHM_PER_SIGMA * np.sqrt(major * minor))
    ellipticity = np.where(failed, np.nan, 1 - minor / major)
    px, py = np.where(failed, x, middle_x + cx), np.where(failed, y, middle_y + cy)
    return px, py, np.where(failed, np.nan, flux), fwhm, ellipticity, settled


def _without_weight(
    qxx: Float64Array, qyy: Float64Array, qxy: Float64Array
) -> tuple[Float64Array, Float64Array, Float64Array]:
    """Covariances of Gaussians that have these under the narrowest weight; 0 where none has.

    Inverses of covariances add where Gaussians are multiplied.
    """
    det = qxx * qyy - qxy**2
    with np.errstate(divide="ignore", invalid="ignore"):
        ixx, iyy, ixy = qyy / det - 1 / _LEAST_WEIGHT_PX2, qxx / det - 1 / _LEAST_WEIGHT_PX2, -qxy / det
        inverse = ixx * iyy - ixy**2
        known = (ixx > 0) & (iyy > 0) & (inverse > 0) & (det > 0)
        found = [np.where(known, each / inverse, 0.0) for each in (iyy, ixx, -ixy)]
    return found[0], found[1], found[2]


def _powers(radius: int) -> Float32Array:
    """1, x, y, x², xy and y² of a stamp's pixels from its middle: `(6, pixels)`."""
    steps = np.arange(-radius, radius + 1, dtype=np.float32)
    x, y = (axis.ravel() for axis in np.meshgrid(steps, steps))
    return np.stack([np.ones_like(x), x, y, x * x, x * y, y * y])


def _gaussians(
    cx: Float64Array,
    cy: Float64Array,
    cxx: Float64Array,
    cyy: Float64Array,
    cxy: Float64Array,
    powers: Float32Array,
) -> Float32Array:
    """Gaussians of height 1 with these centres and covariances, `(n, pixels)`: their exponents are
    polynomials, one matrix product for all.
    """
    det = cxx * cyy - cxy**2
    ixx, iyy, ixy = cyy / det, cxx / det, -cxy / det
    along_x, along_y = ixx * cx + ixy * cy, iyy * cy + ixy * cx
    constant = -0.5 * (cx * along_x + cy * along_y)
    terms = np.stack([constant, along_x, along_y, -0.5 * ixx, -ixy, -0.5 * iyy], axis=1)
    exponents = terms.astype(np.float32) @ powers
    return np.asarray(np.exp(exponents, out=exponents))


def _central_moments(sums: Float32Array, cx: Float64Array, cy: Float64Array) -> tuple[Float64Array, ...]:
    """Total, means from the centres, and second moments about the means, from sums `(n, 6)` of powers."""
    total, x, y, xx, xy, yy = sums.astype(np.float64).T
    with np.errstate(invalid="ignore", divide="ignore"):
        x, y = x / total, y / total
        return total, x - cx, y - cy, xx / total - x**2, yy / total - y**2, xy / total - x * y


def _stamps(
    image: Float32Image, x: Float64Array, y: Float64Array, radius: int
) -> tuple[Float32Array, Float64Array, Float64Array]:
    """Pixels `(n, pixels)` of squares about the nearest pixel, 0 outside the image, and their middles."""
    ny, nx = image.shape
    side = 2 * radius + 1
    columns, rows = np.rint(x).astype(int), np.rint(y).astype(int)
    stamps = np.zeros((x.size, side, side), np.float32)
    whole = (columns >= radius) & (columns < nx - radius) & (rows >= radius) & (rows < ny - radius)
    if whole.any():
        squares = sliding_window_view(image, (side, side))
        stamps[whole] = squares[rows[whole] - radius, columns[whole] - radius]
    for i in np.flatnonzero(~whole):
        top, left = rows[i] - radius, columns[i] - radius
        seen = image[max(top, 0) : max(top + side, 0), max(left, 0) : max(left + side, 0)]
        stamps[i, max(-top, 0) :, max(-left, 0) :][: seen.shape[0], : seen.shape[1]] = seen
    return stamps.reshape(x.size, -1), columns.astype(float), rows.astype(float)
