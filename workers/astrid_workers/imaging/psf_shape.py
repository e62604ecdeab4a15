"""How wide, how elongated and which way a PSF is at places of its frame.

Owns weighted second moments of a model's stamps; never looks at a star.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from astrid_workers.imaging.psf import SIGMA_PER_FWHM, Psf

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class PsfShapes:
    """One value per place, float64."""

    #: Geometric mean of the axes, on the scale of `Psf.fwhm_px`.
    fwhm_px: Floats
    #: 1 - b/a.
    ellipticity: Floats
    #: Of the longer axis, from x towards y.
    angle_rad: Floats


def psf_shapes(psf: Psf, x: Floats, y: Floats) -> PsfShapes:
    """Shapes at 0-based pixel positions.

    Moments are weighted by a round Gaussian of the PSF's own width and freed of it, as for a Gaussian:
    inverse(covariance) = inverse(moments) - 1 / sigma².
    """
    middle = _covariance(psf, (psf.frame_shape[1] - 1) / 2, (psf.frame_shape[0] - 1) / 2)
    covariances = np.array([_covariance(psf, *place) for place in zip(x, y, strict=True)]).reshape(-1, 2, 2)
    values, vectors = np.linalg.eigh(covariances)
    values = np.maximum(values, 1e-6)
    scale = psf.fwhm_px / np.linalg.det(middle) ** 0.25
    return PsfShapes(
        scale * np.prod(values, axis=1) ** 0.25,
        1 - np.sqrt(values[:, 0] / values[:, 1]),
        np.arctan2(vectors[:, 1, 1], vectors[:, 0, 1]),
    )


def _covariance(psf: Psf, x: float, y: float) -> Floats:
    stamp = psf.at(x, y).astype(np.float64)
    axis = np.arange(psf.size_px) - psf.size_px // 2
    sigma2 = (psf.fwhm_px * SIGMA_PER_FWHM) ** 2
    weighted = stamp * np.exp(-0.5 * (axis[:, None] ** 2 + axis[None, :] ** 2) / sigma2)
    total = weighted.sum()
    xx, yy = (weighted.sum(axis=k) @ axis**2 / total for k in (0, 1))
    xy = axis @ weighted @ axis / total
    inverse = np.linalg.inv(np.array([[xx, xy], [xy, yy]])) - np.eye(2) / sigma2
    return np.asarray(np.linalg.inv(inverse))
