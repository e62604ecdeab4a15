"""How a PSF varies over the frame where pixels by themselves cannot tell: in width and ellipticity only.

Owns the three shapes, their weighted least-squares fit to all stars' pixels at once, for frames with few
stars, and the wings that go with a core that varies. A polynomial for each pixel by itself follows the noise
of a few dozen stars, or of the wings of many, and its sum over pixels, which every flux is divided by, with
it; three shapes of no net light cannot. Never moves a star and never decides how many are enough.
"""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from astrid_workers.imaging.psf import Stamps

#: What is known before of the relative change of a width from the frame's middle to its edge.
STRETCH_PRIOR = 0.15
#: A star whose shape is off by more than this many times the median chi² is no single star; chi² of three
#: shapes that fit has a median of 2.4.
OUTLYING, MEDIAN_CHI2, ITERATIONS = 6.0, 2.4, 3
#: Radii in FWHM to which each pixel may vary by itself, and from which wings vary as the core does.
FREE_FWHM, WINGS_FWHM = 1.3, 2.0
#: Radii in FWHM between which wings are seen to vary; what is known of their share before, mean and sigma; by
#: how much a star's may differ besides (neighbours, galaxies), and the misfit from which one is left out.
SEEN_FWHM, SHARE_PRIOR, WING_SPREAD, OUTLYING_SIGMA = (1.6, 3.0), (0.5, 0.5), 0.15, 3.0
#: Five-point first difference, and the share of the peak below which a PSF has no logarithm.
SLOPE, FLOOR = (1 / 12, -8 / 12, 0.0, 8 / 12, -1 / 12), 1e-6


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
    """Along y and x: five-point differences of the logarithm, which is smooth where the PSF is steep.

    A Fourier derivative of an undersampled PSF rings over the whole stamp, and differences of the PSF itself
    blunt its core: at a FWHM of 1.6 px they are off by 48 and 24 % there, these by 5 %.
    """
    logarithm = np.log(np.maximum(psf, FLOOR * psf.max()))
    along_y, along_x = (
        psf * ndimage.correlate1d(logarithm, SLOPE, axis=axis, mode="nearest") for axis in (0, 1)
    )
    return along_y, along_x


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


def with_varying_wings(
    terms: Stamps, stamps: Stamps, weights: Stamps, basis: NDArray[np.float64], radius: Stamps, fwhm_px: float
) -> Stamps:
    """Polynomial images `(n_terms, size, size)` whose wings vary with their cores, as far as stars show it.

    The first is the PSF at the middle and stays. Of the others pixels within `FREE_FWHM` stay. Beyond
    `WINGS_FWHM` they are a share of what the first image's width, ellipticity and light would have to change
    by to change the core like that, and between they go over. All of it where the seeing varies: wings that
    stayed the same where the core gets wider would put the difference into the sum over pixels, and so into
    every flux. None where optics blur the core and leave the wings alone. The share is read off the wings of
    the stars, `stamps` `(n, size, size)` of unit flux with inverse variances `weights`, at `basis`
    `(n, n_terms)`.
    """
    free = np.clip((WINGS_FWHM * fwhm_px - radius) / ((WINGS_FWHM - FREE_FWHM) * fwhm_px), 0.0, 1.0)
    core = np.where(radius < WINGS_FWHM * fwhm_px, weights.sum(axis=0), 0.0)
    wings = (1 - free) * _ring_means(_going_with(terms, core), radius)
    same = np.concatenate([terms[:1], free * terms[1:]])
    ring = (radius > SEEN_FWHM[0] * fwhm_px) & (radius < SEEN_FWHM[1] * fwhm_px)
    wing, known = terms[0][ring], weights[:, ring]
    precision = np.maximum(known @ wing**2, 1e-30)
    left = stamps[:, ring] - np.tensordot(basis, same[:, ring], axes=1)
    expected = (known * (basis[:, 1:] @ wings[:, ring])) @ wing / precision
    same[1:] += _share_of((known * left) @ wing / precision, expected, 1 / np.sqrt(precision)) * wings
    return same


def _going_with(terms: Stamps, core: Stamps) -> Stamps:
    """What all but the first of `terms` would be if the first changed in width, ellipticity and light alone.

    `core` `(size, size)` weighs the pixels that these changes are read off.
    """
    columns = np.concatenate([terms[:1], shape_images(terms[0])]).reshape(4, -1).T
    changes, root = terms[1:].reshape(len(terms) - 1, -1).T, np.sqrt(core).ravel()[:, None]
    coefficients, *_ = np.linalg.lstsq(columns * root, changes * root, rcond=None)
    return np.asarray((columns @ coefficients).T.reshape(terms[1:].shape))


def _ring_means(images: Stamps, radius: Stamps) -> Stamps:
    """Each image by its means around the middle: noise of single pixels is none of a wing."""
    ring = np.rint(radius).astype(int)
    count = np.bincount(ring.ravel())
    means = [np.bincount(ring.ravel(), image.ravel()) / np.maximum(count, 1) for image in images]
    return np.stack([each[ring] for each in means])


def _share_of(
    excess: NDArray[np.float64], expected: NDArray[np.float64], error: NDArray[np.float64]
) -> float:
    """Of what is expected in what is seen, 0 to 1: a half where stars do not tell.

    All `(n,)`, relative to the wing at the middle: by how much each star's own is brighter, by how much it
    should be, and the error of the first.
    """
    design = np.stack([expected, np.ones_like(expected)], axis=1)
    sigma, share = np.hypot(error, WING_SPREAD), SHARE_PRIOR[0]
    used, prior = np.ones(len(error), bool), np.diag([1 / SHARE_PRIOR[1] ** 2, 1e-9])
    for _ in range(ITERATIONS):
        weighted = (design / sigma[:, None])[used]
        right = weighted.T @ (excess / sigma)[used] + prior @ [SHARE_PRIOR[0], 0.0]
        share, mean = np.linalg.solve(weighted.T @ weighted + prior, right)
        misfit = np.abs(excess - design @ [share, mean]) / sigma
        used = misfit < OUTLYING_SIGMA * max(1.0, 1.4826 * float(np.median(misfit)))
    return float(np.clip(share, 0.0, 1.0))


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
