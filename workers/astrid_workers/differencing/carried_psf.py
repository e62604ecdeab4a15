"""The PSF of the broader frame as the sharper one's stars and the kernel have it.

Owns one PSF. A kernel is fitted on every source that both frames hold, galaxies too; where it is used, stars
are few, and those of the broader frame, mostly the shallower one, fewer still and harder to tell from
galaxies. Never measures a star and never fits a kernel.
"""

import numpy as np
from scipy import fft

from astrid_workers.differencing.alard_lupton import AlardLupton
from astrid_workers.imaging.psf import Psf, Stamps, measure_fwhm, polynomial

#: Places along each axis at which the product of kernel and PSF is worked out, enough for any order.
PLACES = 5


def with_carried_psf(broad: Psf, sharp: Psf, kernel: AlardLupton) -> Psf:
    """The broader frame's PSF: the sharper one's through the kernel.

    `broad` is its own as it was measured, and comes back where the sharper frame has no stack of stars. The
    kernel's gain and shift are no part of it. As wide a stamp as `broad`, of sum 1. A kernel moves no light
    beyond its reach, so that wings end early: 0.6 % of a star's light is missing for a Moffat of exponent
    3.5, more of a lower one. The wings of `broad` in their place made fluxes no better. What lies beyond the
    stamp is what `broad` has there.
    """
    if sharp.model == "moffat":
        return broad
    ny, nx = sharp.frame_shape
    order = max(sharp.order, kernel.order)
    x, y = (
        axis.ravel() for axis in np.meshgrid(np.linspace(0, nx - 1, PLACES), np.linspace(0, ny - 1, PLACES))
    )
    stamps = np.stack([_carried(sharp, kernel, *place, broad.size_px) for place in zip(x, y, strict=True)])
    terms = np.linalg.lstsq(polynomial(x, y, sharp.frame_shape, order), stamps.reshape(len(x), -1))[0]
    terms = terms.reshape(-1, *stamps.shape[1:])
    why = (
        f"the sharper frame's PSF, of {sharp.n_stars} stars, through the kernel of {kernel.n_sources} "
        f"sources; its own would be {broad.why}"
    )
    fwhm_px = measure_fwhm(terms[0])
    return Psf(
        terms.astype(np.float32), sharp.frame_shape, fwhm_px, sharp.n_stars, "kernel", why, broad.light_beyond
    )


def _carried(sharp: Psf, kernel: AlardLupton, x: float, y: float, size_px: int) -> Stamps:
    """The PSF through the kernel at a place: float64 `(size_px, size_px)`, sum 1."""
    kernel_stamp, psf_stamp = kernel.kernel(x, y), sharp.at(x, y).astype(np.float64)
    side = kernel_stamp.shape[0] + psf_stamp.shape[0] - 1
    size = (side, side)
    whole = fft.irfft2(fft.rfft2(kernel_stamp, s=size) * fft.rfft2(psf_stamp, s=size), s=size)
    spare = (size_px - side) // 2
    stamp = np.pad(whole, spare) if spare >= 0 else whole[-spare:spare, -spare:spare]
    return np.asarray(stamp / stamp.sum())
