"""Alard–Lupton: a kernel that turns the sharper frame into the broader one, by least squares on the pixels of
sources.

Owns the basis (Gaussians times polynomials, Alard & Lupton 1998; zero-sum but the first, Alard 2000), the fit
with its variation over the frame, and which frame is convolved: always the sharper. Needs no PSF, so it holds
where stars are too few for one. The noise it correlates is undone by `tiles.py`. Never convolves a whole
frame itself.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from astrid_workers.errors import SubtractionRefused
from astrid_workers.frame import Float32Image
from astrid_workers.imaging.photometric_match import MODEL_ERROR, stamp_hat
from astrid_workers.imaging.psf import SIGMA_PER_FWHM, polynomial

Floats = NDArray[np.float64]

#: Sigmas of the basis Gaussians in units of the difference of seeing, and the degree of their polynomials.
BASIS = ((0.7, 4), (1.4, 2), (2.8, 1))
#: Sigmas of round Gaussians that match the wings, in FWHM of the broader frame, and the reach of kernel and
#: stamp.
WINGS_FWHM = (0.5, 1.0)
KERNEL_HALF_FWHM, REACH_FWHM = 2.2, 2.5
#: Share of the light that may be moved to each, and what background meshes may be wrong by, in sigma of a
#: pixel.
WING_PRIOR, PEDESTAL_SIGMA = 0.03, 0.05
#: The same when sources are few: less freedom.
SMALL_BASIS = ((0.8, 2), (2.0, 0))
#: Sources for the full basis, and for its variation over the frame.
MIN_SOURCES_FULL = 12
MIN_SOURCES_FOR_ORDER = {1: 40, 2: 100}
MIN_SOURCES = 3
MAX_SOURCES = 150
#: The difference of seeing counts as no less than this, pixels (sigma): equal seeing still needs freedom.
MIN_SIGMA_PX = 0.7


@dataclass(frozen=True, slots=True, eq=False)
class AlardLupton:
    """The fitted kernel; `convolved` says which frame it is for."""

    #: float64 `(n_terms, size, size)`: kernel images that multiply 1, u, v, u², uv, v².
    terms: Floats
    order: int
    frame_shape: tuple[int, int]
    convolved: Literal["reference", "science"]
    n_sources: int
    n_rejected: int
    #: Median reduced chi² of the sources that were used.
    chi2: float

    @property
    def flux_scale(self) -> float:
        """science = flux_scale × reference, at the frame's centre."""
        total = float(self.terms[0].sum())
        return total if self.convolved == "reference" else 1 / total

    def kernel(self, x: float, y: float) -> Floats:
        """The kernel at a position: `(size, size)`."""
        weights = polynomial(np.array([x]), np.array([y]), self.frame_shape, self.order)[0]
        return np.asarray(np.tensordot(weights, self.terms, axes=1))

    def transfer(
        self, x: float, y: float, size: tuple[int, int]
    ) -> tuple[NDArray[np.complexfloating], NDArray[np.complexfloating]]:
        """`(a_n, a_r)` at a position, rfft2 coefficients on a `(ny, nx)` grid, complex."""
        kernel = stamp_hat(self.kernel(x, y).astype(np.float32), size)
        one = np.ones_like(kernel)
        return (one, kernel) if self.convolved == "reference" else (kernel, one)


@dataclass(frozen=True, slots=True, eq=False)
class Unmatched:
    """No PSF matching at all: a gain, for comparison only."""

    flux_scale: float

    def transfer(
        self,
        x: float,  # noqa: ARG002 - the same everywhere
        y: float,  # noqa: ARG002 - the same everywhere
        size: tuple[int, int],
    ) -> tuple[NDArray[np.complexfloating], NDArray[np.complexfloating]]:
        """`(1, flux_scale)`."""
        one = np.ones((size[0], size[1] // 2 + 1), np.complex64)
        return one, one * np.float32(self.flux_scale)


def fit_kernel(
    science: Float32Image,
    reference: Float32Image,
    variance: tuple[Float32Image, Float32Image],
    bad: NDArray[np.bool_],
    fwhm: tuple[float, float],
    places: tuple[Floats, Floats],
    *,
    max_order: int = 2,
) -> AlardLupton:
    """Fit the kernel on stamps around `places` (x, y of bright sources, brightest first).

    Images are background-subtracted on one grid; `variance` and `fwhm` are (science, reference); `bad` marks
    pixels unusable in either. Raises `SubtractionRefused` with fewer than `MIN_SOURCES` whole sources.
    """
    backwards = fwhm[0] < fwhm[1]
    images = (reference, science) if backwards else (science, reference)
    variances = variance[::-1] if backwards else variance
    broad, sharp = max(fwhm), min(fwhm)
    base = max(np.sqrt(broad**2 - sharp**2) * SIGMA_PER_FWHM, MIN_SIGMA_PX)
    reach = int(np.ceil(max(REACH_FWHM * broad, 6)))
    half_kernel = int(np.ceil(max(KERNEL_HALF_FWHM * broad, 6)))
    x, y = _whole(places, bad, reach, half_kernel)
    if len(x) < MIN_SOURCES:
        msg = (
            f"{len(x)} sources are bright and unsaturated in both frames, {MIN_SOURCES} needed to fit a "
            "kernel"
        )
        raise SubtractionRefused(msg, sources=len(x), needed=MIN_SOURCES)
    order = max((o for o, n in MIN_SOURCES_FOR_ORDER.items() if len(x) >= n and o <= max_order), default=0)
    parts = BASIS if len(x) >= MIN_SOURCES_FULL else SMALL_BASIS
    wings = tuple(factor * broad for factor in WINGS_FWHM)
    basis = kernel_basis(base, half_kernel, parts, wings)
    target, design, weight = _stamps(images, variances, x, y, basis, reach)
    pedestal = PEDESTAL_SIGMA * float(np.sqrt(sum(np.median(v[::7, ::7][~bad[::7, ::7]]) for v in variances)))
    frame_shape = (science.shape[0], science.shape[1])
    where = polynomial(x, y, frame_shape, order)
    held = np.zeros(len(basis))
    held[-len(wings) :] = 1 / (WING_PRIOR * _gain(target, design)) ** 2
    coefficients, kept, chi2 = _solve(target, design, weight, where, held, pedestal)
    terms = np.tensordot(coefficients, basis, axes=1)
    return AlardLupton(
        terms,
        order,
        frame_shape,
        "science" if backwards else "reference",
        int(np.count_nonzero(kept)),
        int(np.count_nonzero(~kept)),
        float(np.median(chi2[kept])),
    )


def kernel_basis(
    base_sigma: float, half: int, parts: tuple[tuple[float, int], ...], wings: tuple[float, ...] = ()
) -> Floats:
    """Basis kernels `(n, size, size)`: the first a delta of sum 1, the others Gaussians × polynomials of
    sum 0.
    """
    axis = np.arange(-half, half + 1.0)
    delta = np.zeros((2 * half + 1, 2 * half + 1))
    delta[half, half] = 1.0
    kernels = [delta]
    shapes = [(max(factor * base_sigma, 0.5), degree) for factor, degree in parts]
    for sigma, degree in [*shapes, *((sigma, 0) for sigma in wings)]:
        gauss = np.exp(-0.5 * (axis / sigma) ** 2)
        for i in range(degree + 1):
            for j in range(degree + 1 - i):
                kernel = np.outer((axis / sigma) ** j * gauss, (axis / sigma) ** i * gauss)
                kernel /= np.abs(kernel).sum()
                kernels.append(kernel - kernel.sum() * delta)
    return np.stack(kernels)


def _whole(
    places: tuple[Floats, Floats], bad: NDArray[np.bool_], reach: int, half_kernel: int
) -> tuple[Floats, Floats]:
    """Places whose stamp and what the kernel adds to it are whole."""
    x, y = (np.asarray(axis, float) for axis in places)
    margin = reach + half_kernel
    inside = (np.rint(x) >= margin) & (np.rint(x) < bad.shape[1] - margin)
    inside &= (np.rint(y) >= margin) & (np.rint(y) < bad.shape[0] - margin)
    x, y = x[inside], y[inside]
    offsets = np.arange(-reach - 2, reach + 3)
    rows = np.rint(y).astype(int)[:, None, None] + offsets[None, :, None]
    columns = np.rint(x).astype(int)[:, None, None] + offsets[None, None, :]
    whole = ~bad[rows, columns].any(axis=(1, 2))
    return x[whole][:MAX_SOURCES], y[whole][:MAX_SOURCES]


def _stamps(
    images: tuple[Float32Image, Float32Image],
    variances: tuple[Float32Image, Float32Image],
    x: Floats,
    y: Floats,
    basis: Floats,
    reach: int,
) -> tuple[Floats, Floats, Floats]:
    """Target `(n, p)`, design `(n, n_basis, p)` and weights `(n, p)` of the pixels within reach of each
    source.
    """
    broad, sharp = images
    half_kernel = basis.shape[-1] // 2
    half = reach + half_kernel
    size = 2 * half + 1
    rows = np.rint(y).astype(int)[:, None, None] + np.arange(-half, half + 1)[None, :, None]
    columns = np.rint(x).astype(int)[:, None, None] + np.arange(-half, half + 1)[None, None, :]
    padded = fft.next_fast_len(size + half_kernel, real=True)
    sharp_hat = fft.rfft2(sharp[rows, columns].astype(np.float64), s=(padded, padded))
    axis = np.arange(-half, half + 1.0)
    inner = np.hypot(axis[:, None], axis[None, :]) <= reach
    design = np.empty((len(x), len(basis), int(inner.sum())))
    for k, kernel in enumerate(basis):
        convolved = fft.irfft2(sharp_hat * stamp_hat(kernel, (padded, padded)), s=(padded, padded))
        design[:, k] = convolved[:, :size, :size][:, inner]
    target = broad[rows, columns].astype(np.float64)[:, inner]
    gain = _gain(target, design)
    noise = variances[0][rows, columns][:, inner] + gain**2 * variances[1][rows, columns][:, inner]
    weight = 1 / (noise + (MODEL_ERROR * target) ** 2)
    return target, design, weight


def _gain(target: Floats, design: Floats) -> float:
    """Median ratio of the light within reach: what the priors are scaled by, no more."""
    light = design[:, 0].sum(axis=1)
    return max(float(np.median(target.sum(axis=1) / np.where(light > 0, light, np.inf))), 1e-12)


def _solve(
    target: Floats, design: Floats, weight: Floats, where: Floats, held: Floats, pedestal_sigma: float
) -> tuple[Floats, NDArray[np.bool_], Floats]:
    """Coefficients `(n_terms, n_basis)`, which sources agree, and the reduced chi² of each."""
    n, n_basis = design.shape[:2]
    terms = where.shape[1]
    normal, right = np.empty((n, n_basis, n_basis)), np.empty((n, n_basis))
    for i in range(n):
        columns = np.vstack([design[i], np.ones(design.shape[2])])
        full = (columns * weight[i]) @ columns.T
        full[-1, -1] += 1 / pedestal_sigma**2
        side = (columns * weight[i]) @ target[i]
        normal[i] = full[:-1, :-1] - np.outer(full[:-1, -1], full[-1, :-1]) / full[-1, -1]
        right[i] = side[:-1] - full[:-1, -1] * side[-1] / full[-1, -1]
    kept = np.ones(n, bool)
    chi2 = np.ones(n)
    coefficients = np.zeros((terms, n_basis))
    for _ in range(4):
        big = np.einsum("np,nq,nij->piqj", where[kept], where[kept], normal[kept]).reshape(
            terms * n_basis, -1
        )
        side = np.einsum("np,ni->pi", where[kept], right[kept]).ravel()
        big[np.diag_indices(len(big))] *= 1 + 1e-8
        big[np.diag_indices(len(big))] += np.tile(held, terms)
        big[np.diag_indices(len(big))] += 1e-9 * float(np.mean(np.diag(big)))
        coefficients = np.linalg.solve(big, side).reshape(terms, n_basis)
        chi2 = _misfit(target, design, weight, where @ coefficients)
        middle = float(np.median(chi2[kept]))
        agree = chi2 < middle + 5 * max(1.4826 * float(np.median(np.abs(chi2[kept] - middle))), 0.2)
        if np.count_nonzero(agree) < MIN_SOURCES or np.array_equal(agree, kept):
            break
        kept = agree
    return coefficients, kept, chi2


def _misfit(target: Floats, design: Floats, weight: Floats, local: Floats) -> Floats:
    """Reduced chi² of each source with its own pedestal."""
    residual = target - np.einsum("nk,nkp->np", local, design)
    pedestal = (weight * residual).sum(axis=1) / weight.sum(axis=1)
    return np.asarray((weight * (residual - pedestal[:, None]) ** 2).mean(axis=1))
