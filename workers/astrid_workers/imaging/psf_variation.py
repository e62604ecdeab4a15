"""How a PSF varies over the frame when stars are few: in width and ellipticity only.

Owns one weighted least-squares fit of three shapes to all stars' pixels at once. A polynomial for each
pixel by itself follows the noise of a few dozen stars, and its sum over pixels, which every flux is divided
by, with it; three shapes of no net light cannot. Never moves a star and never decides how many are enough.
"""

import numpy as np
from numpy.typing import NDArray

from astrid_workers.imaging.psf import Stamps

#: What is known before of the relative change of a width from the frame's middle to its edge.
STRETCH_PRIOR = 0.15
#: A star whose shape is off by more than this many times the median chi² is no single star; chi² of three
#: shapes that fit has a median of 2.4.
OUTLYING, MEDIAN_CHI2, ITERATIONS = 6.0, 2.4, 3


def shape_images(psf: Stamps) -> Stamps:
    """What widening a PSF and stretching it along x, or along the diagonal, adds to it: `(3, size, size)`.

    Each of sum 0. Adding ε of the first makes it wider by ε, wings and all; ε of the second makes it wider
    along x and narrower along y by ε.
    """
    axis = np.arange(psf.shape[0]) - psf.shape[0] // 2.0
    x, y = axis[None, :], axis[:, None]
    dy, dx = _slopes(psf)
    shapes = np.stack([-2 * psf - x * dx - y * dy, y * dy - x * dx, -x * dy - y * dx])
    return np.asarray(shapes - shapes.sum(axis=(1, 2), keepdims=True) * psf / psf.sum())


def _slopes(psf: Stamps) -> tuple[Stamps, Stamps]:
    """Along y and x, by Fourier transform: differences would blunt an undersampled core."""
    hat = np.fft.fft2(psf)
    omega = 2j * np.pi * np.fft.fftfreq(psf.shape[0])
    return np.fft.ifft2(hat * omega[:, None]).real, np.fft.ifft2(hat * omega[None, :]).real


def varying_terms(
    centre: Stamps,
    stamps: Stamps,
    weights: Stamps,
    basis: NDArray[np.float64],
) -> Stamps:
    """Images that multiply all but the first column of `basis`: `(n_terms - 1, size, size)`, each of sum 0.

    `centre` is the PSF at the middle of the frame (`(size, size)`, sum 1), `stamps` the centred stars of
    about unit flux with the inverse variances `weights`, both `(n, size, size)`; `basis` is `(n, n_terms)`,
    its first column 1. Each star's own flux and pedestal are free: a wrong width had changed them.
    """
    n_terms = basis.shape[1]
    shapes = shape_images(centre)
    columns = shapes.reshape(len(shapes), -1).T
    free = np.stack([centre.ravel(), np.ones(centre.size)], axis=1)
    equations = [
        _of_star((stamp - centre).ravel(), weight.ravel(), columns, free)
        for stamp, weight in zip(stamps, weights, strict=True)
    ]
    normal, right = (np.stack(parts) for parts in zip(*equations, strict=True))
    prior = 1 / STRETCH_PRIOR**2
    kept = np.ones(len(stamps), bool)
    found = np.zeros((n_terms - 1, len(shapes)))
    for _ in range(ITERATIONS):
        found = _fit(normal[kept], right[kept], basis[kept, 1:], prior)
        left = right - np.einsum("nij,nj->ni", normal, basis[:, 1:] @ found)
        misfit = np.einsum("ni,nij,nj->n", left, np.linalg.pinv(normal, hermitian=True), left)
        kept = misfit < OUTLYING * max(float(np.median(misfit)), MEDIAN_CHI2)
    return np.asarray(np.tensordot(found, shapes, axes=1))


def _of_star(
    left: NDArray[np.float64],
    weight: NDArray[np.float64],
    columns: NDArray[np.float64],
    free: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Normal matrix and right side of one star's shapes, flux and pedestal projected out."""
    own = free.T * weight
    inverse = np.linalg.pinv(own @ free, hermitian=True)
    left = left - free @ (inverse @ (own @ left))
    seen = columns - free @ (inverse @ (own @ columns))
    return (seen.T * weight) @ seen, (seen.T * weight) @ left


def _fit(
    normal: NDArray[np.float64], right: NDArray[np.float64], across: NDArray[np.float64], prior: float
) -> NDArray[np.float64]:
    """Coefficients `(n_terms - 1, 3)` of all stars together."""
    terms, shapes = across.shape[1], right.shape[1]
    big = np.einsum("np,nq,nij->piqj", across, across, normal).reshape(terms * shapes, -1)
    big[np.diag_indices(terms * shapes)] += prior
    side = np.einsum("np,ni->pi", across, right).ravel()
    return np.asarray(np.linalg.solve(big, side)).reshape(terms, shapes)
