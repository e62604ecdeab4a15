"""Stamps of shared sources, each frame convolved with the other's PSF, so that constant light is alike.

Owns which sources are whole enough and how their pixels are brought to one PSF; never fits them.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from astrid_workers.frame import Float32Image
from astrid_workers.imaging.fast_median import fast_median
from astrid_workers.imaging.psf import Psf, polynomial
from astrid_workers.imaging.transfer import stamp_hat

Floats = NDArray[np.float64]

#: More sources than this, or than this per megapixel of a large frame, only cost time.
MAX_SOURCES, MAX_PER_MPIX = 300, 90
#: Sigmas of the wings' Gaussians, FWHM.
WING_SIGMAS_FWHM = (0.75, 1.5)
#: What background meshes may be wrong by, in sigma of a pixel.
PEDESTAL_SIGMA = 0.05
#: Pixels within this radius count, FWHM: wings are matched too.
REACH_FWHM = 2.7


@dataclass(frozen=True, slots=True, eq=False)
class MatchedStamps:
    """Cross-convolved stamps, `(n, size, size)`, and where they lie."""

    x: Floats
    y: Floats
    matched_science: Floats
    #: rfft2 of the reference ⊗ science PSF, so that shifts and widths are exact.
    matched_reference_hat: NDArray[np.complexfloating]
    #: Variance of a pixel of the matched difference at unit gain, per frame.
    variance_science: Floats
    variance_reference: Floats
    #: Pixels that count, within this distance of a source.
    inner: NDArray[np.bool_]
    reach_px: int
    #: How far a stamp reaches from its source to each side, pixels.
    half_px: int
    #: By how much errors of gain, shift x and shift y exceed those of white noise: the matching correlates
    #: pixels.
    error_factors: Floats
    wing_sigmas_px: Floats
    #: What is known of a stamp's pedestal: the background meshes are that good.
    pedestal_sigma: float


def cut_stamps(
    science: Float32Image,
    reference: Float32Image,
    variance: tuple[Float32Image, Float32Image],
    bad: NDArray[np.bool_],
    psfs: tuple[Psf, Psf],
    places: tuple[Floats, Floats],
) -> MatchedStamps:
    fwhm = max(psfs[0].fwhm_px, psfs[1].fwhm_px)
    reach = int(np.ceil(max(REACH_FWHM * fwhm, 5)))
    half = reach + int(np.ceil(max(2.0 * fwhm, 4)))
    x, y = _usable(places, bad, reach, half)
    size = 2 * half + 1
    rows = np.rint(y).astype(int)[:, None, None] + np.arange(-half, half + 1)[None, :, None]
    columns = np.rint(x).astype(int)[:, None, None] + np.arange(-half, half + 1)[None, None, :]
    padded = fft.next_fast_len(size + half, real=True)
    good = ~bad[rows, columns]
    pn, pr = (_psf_hats(p, x, y, padded) for p in psfs)
    n_hat, r_hat = (
        fft.rfft2(np.where(good, image[rows, columns], 0.0), s=(padded, padded))
        for image in (science, reference)
    )
    vn, vr = (np.where(good, plane[rows, columns], 0.0) for plane in variance)
    matched_n = fft.irfft2(n_hat * pr, s=(padded, padded))[:, :size, :size]
    noise_n = vn * np.mean(np.abs(pr) ** 2, axis=(1, 2))[:, None, None]
    noise_r = vr * np.mean(np.abs(pn) ** 2, axis=(1, 2))[:, None, None]
    axis = np.arange(-half, half + 1.0)
    inner = np.hypot(axis[:, None], axis[None, :]) <= reach
    factors = _error_factors(psfs, variance, bad, padded)
    wing_sigmas = np.array(WING_SIGMAS_FWHM) * fwhm
    pedestal = PEDESTAL_SIGMA * float(np.sqrt(fast_median(vn) + fast_median(vr))) if len(x) else 1.0
    return MatchedStamps(
        x, y, matched_n, r_hat * pn, noise_n, noise_r, inner, reach, half, factors, wing_sigmas, pedestal
    )


def _error_factors(
    psfs: tuple[Psf, Psf], variance: tuple[Float32Image, Float32Image], bad: NDArray[np.bool_], padded: int
) -> Floats:
    """Square roots of noise power where a star's gain and shifts are measured, over its mean over
    frequency.
    """
    pn, pr = (np.abs(stamp_hat(psf.stamp, (padded, padded))) ** 2 for psf in psfs)
    vn, vr = (
        float(fast_median(plane[::7, ::7][~bad[::7, ::7]])) if not bad.all() else 1.0 for plane in variance
    )
    noise = vn * pr + vr * pn
    counts = np.full_like(noise, 2.0)
    counts[:, 0] = 1.0
    omega_y, omega_x = fft.fftfreq(padded)[:, None], fft.rfftfreq(padded)[None, :]
    mean = float((noise * counts).sum() / counts.sum())
    star = pn * pr * counts
    profiles = (star, star * omega_x**2, star * omega_y**2)
    return np.sqrt([float((profile * noise).sum() / profile.sum()) / mean for profile in profiles])


def inside_of(shape: tuple[int, ...], places: tuple[Floats, Floats], half: int) -> tuple[Floats, Floats]:
    """Places that lie at least `half` pixels from the edges of a frame `(ny, nx)`."""
    x, y = (np.asarray(axis, float) for axis in places)
    inside = (np.rint(x) >= half) & (np.rint(x) < shape[1] - half)
    inside &= (np.rint(y) >= half) & (np.rint(y) < shape[0] - half)
    return x[inside], y[inside]


def _usable(
    places: tuple[Floats, Floats], bad: NDArray[np.bool_], reach: int, half: int
) -> tuple[Floats, Floats]:
    """Places whole within the frame, without a bad pixel within reach, the first ones if they are many."""
    x, y = inside_of(bad.shape, places, half)
    offsets = np.arange(-reach, reach + 1)
    rows = np.rint(y).astype(int)[:, None, None] + offsets[None, :, None]
    columns = np.rint(x).astype(int)[:, None, None] + offsets[None, None, :]
    whole = ~bad[rows, columns].any(axis=(1, 2))
    most = max(MAX_SOURCES, round(MAX_PER_MPIX * bad.size / 1e6))
    return x[whole][:most], y[whole][:most]


def _psf_hats(psf: Psf, x: Floats, y: Floats, padded: int) -> NDArray[np.complexfloating]:
    """rfft2 of the PSF at each place, centred on pixel (0, 0): complex `(n, padded, padded // 2 + 1)`."""
    if psf.order == 0:
        return np.broadcast_to(stamp_hat(psf.stamp, (padded, padded)), (len(x), padded, padded // 2 + 1))
    weights = polynomial(x, y, psf.frame_shape, psf.order)
    hats = np.stack([stamp_hat(term, (padded, padded)) for term in psf.terms])
    mixed = np.tensordot(weights.astype(np.float32), hats, axes=1)
    return np.asarray(mixed / mixed[:, :1, :1].real)
