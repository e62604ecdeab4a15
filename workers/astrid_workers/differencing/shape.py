"""The shape of a peak of the difference, against that of a point source.

Owns second moments, central contrast and the fit's chi², and the two verdicts drawn from them; never looks
beyond one stamp.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
BoolStamp = NDArray[np.bool_]

#: Central contrast over a PSF's from which a peak is narrower than a point source, if it is so by these
#: sigma.
SHARP_RATIO, SHARP_SIGMA = 1.5, 3.5
#: Second moment over a PSF's below which it is, if (1 - moment) × S/N exceeds this: it scatters by 1.3 for
#: point sources of any S/N, and is 9 to 200 for nearly all cosmic rays. And FWHM of the widest one, by which
#: the moment must be less in a wide PSF: a model of that which is a little too wide makes all sources narrow.
SHARP_MOMENT, SHARP_MOMENT_SNR, WIDEST_RAY_PX = 0.75, 4.5, 3.1
#: Reduced chi² within one FWHM up to which a PSF explains a peak all the same: dark light beside it, of what
#: faded there, makes its moment small.
EXPLAINED_CHI2 = 1.3
#: Width over the PSF's from which a peak is extended, and the S/N at which widths mean anything.
EXTENDED_RATIO, EXTENDED_SNR = 2.0, 6.5
#: Light beyond the PSF's by which a peak is extended too: FWHM of the profile that it is looked for with, in
#: PSFs; sigma; and the share of the peak's own S/N that a PSF model that is a little wrong may leave.
BROAD_RATIO, BROAD_SIGMA, BROAD_SHARE = 3.0, 4.0, 0.2
#: Moment from which a Gaussian-weighted width diverges: what is that wide is given `WIDEST` PSFs.
DIVERGING, WIDEST = 1.95, 6.0


@dataclass(frozen=True, slots=True)
class Shape:
    """What a stamp says; None where it cannot."""

    #: FWHM by second moments, corrected for their weight, and major over minor axis.
    fwhm_px: float | None
    elongation: float | None
    #: Second moment under the PSF's weight over the PSF's own: 1 for a point source.
    moment: float | None
    #: FWHM of the PSF of the difference, measured likewise.
    psf_fwhm_px: float
    #: By how many sigma the central contrast exceeds `SHARP_RATIO` times a PSF's.
    contrast_sigma: float
    #: Reduced, within one FWHM.
    chi2: float | None
    #: Sigma of light of the peak's sign that is `BROAD_RATIO` times as wide as the PSF and no part of it.
    broad_sigma: float

    def is_narrower_than_psf(self, snr: float) -> bool:
        """Sharper than light that came through the telescope can be: a cosmic ray or a hot pixel."""
        rays = 2 / (1 + (self.psf_fwhm_px / WIDEST_RAY_PX) ** 2)  # of a Gaussian of that width
        by_moment = (
            self.moment is not None
            and self.moment < min(SHARP_MOMENT, rays)
            and (1 - self.moment) * snr > SHARP_MOMENT_SNR
            and not (self.chi2 is not None and self.chi2 < EXPLAINED_CHI2)
        )
        return by_moment or self.contrast_sigma > SHARP_SIGMA

    def is_wider_than_psf(self, snr: float) -> bool:
        """Much wider than a point source: a residual of the subtraction, or a trail."""
        wide = self.fwhm_px is not None and self.fwhm_px > EXTENDED_RATIO * self.psf_fwhm_px
        return (wide and snr > EXTENDED_SNR) or self.broad_sigma > np.hypot(BROAD_SIGMA, BROAD_SHARE * snr)


def measure_shape(
    stamp: Floats, variance: Floats, good: BoolStamp, model: Floats, flux: float, fwhm_px: float
) -> Shape:
    """Shape of a peak in the middle of `stamp`.

    `stamp`, `variance`, `good` (measured pixels) and `model` (the PSF of the difference at the peak's
    sub-pixel place, sum 1) are float64 or bool squares of one odd side; `flux` is the fitted flux, signed;
    `fwhm_px` the science frame's.
    """
    psf_width = _width_above_half(model)
    moment, width, elongation = _moments(stamp, good, model, flux, psf_width)
    return Shape(
        width,
        elongation,
        moment,
        psf_width,
        _contrast(stamp, variance, good, model, flux),
        _chi2(stamp, variance, good, model, flux, fwhm_px),
        _broad_sigma(stamp, variance, good, model, flux, psf_width),
    )


def _moments(
    stamp: Floats, good: BoolStamp, model: Floats, flux: float, psf_width: float
) -> tuple[float | None, float | None, float | None]:
    """Relative second moment, FWHM and elongation under the PSF's own weight."""
    weight = np.where(good, np.maximum(model, 0.0), 0.0)
    total = float(np.sum(weight * stamp)) * np.sign(flux)
    reference = float(np.sum(weight * model))
    if total <= 0 or reference <= 0:
        return None, None, None
    axis = np.arange(stamp.shape[0]) - stamp.shape[0] // 2.0
    xx, xy, yy = _second_moments(weight * stamp * np.sign(flux) / total, axis)
    ideal = _second_moments(weight * model / reference, axis)
    if ideal[0] + ideal[2] <= 0:
        return None, None, None
    moment = (xx + yy) / (ideal[0] + ideal[2])
    if moment <= 0:
        return moment, None, None
    if moment >= DIVERGING:
        return moment, WIDEST * psf_width, None
    mean, root = (xx + yy) / 2, float(np.hypot((xx - yy) / 2, xy))
    elongation = float(np.sqrt((mean + root) / (mean - root))) if mean > root else None
    return moment, psf_width * float(np.sqrt(moment / (2 - moment))), elongation


def _second_moments(density: Floats, axis: Floats) -> tuple[float, float, float]:
    xx = float(np.sum(density * axis[None, :] ** 2))
    yy = float(np.sum(density * axis[:, None] ** 2))
    xy = float(np.sum(density * axis[None, :] * axis[:, None]))
    return xx, xy, yy


def _width_above_half(model: Floats) -> float:
    """FWHM of a stamp by the area above half its maximum."""
    return float(2 * np.sqrt(max(int(np.count_nonzero(model > model.max() / 2)), 1) / np.pi))


def _contrast(stamp: Floats, variance: Floats, good: BoolStamp, model: Floats, flux: float) -> float:
    """Sigma by which the central pixel stands out of its neighbours beyond `SHARP_RATIO` times a PSF's."""
    half = stamp.shape[0] // 2
    ring = np.zeros_like(good)
    ring[half - 1 : half + 2, half - 1 : half + 2] = True
    ring[half, half] = False
    ring &= good
    if not good[half, half] or not ring.any():
        return 0.0
    expected = flux * float(model[half, half] - model[ring].mean())
    if expected * flux <= 0:
        return 0.0
    contrast = float(stamp[half, half] - stamp[ring].mean())
    noise = float(np.sqrt(variance[half, half] + variance[ring].mean() / np.count_nonzero(ring)))
    return float(np.sign(flux)) * (contrast - SHARP_RATIO * expected) / noise


def _chi2(
    stamp: Floats, variance: Floats, good: BoolStamp, model: Floats, flux: float, fwhm_px: float
) -> float | None:
    """Reduced chi² of flux × PSF within one FWHM; a PSF may be wrong by 5 % of itself."""
    axis = np.arange(stamp.shape[0]) - stamp.shape[0] // 2
    near = good & (np.hypot(axis[:, None], axis[None, :]) <= max(fwhm_px, 2.0))
    if not near.any():
        return None
    pulls = (stamp - flux * model) ** 2 / (variance + (0.05 * flux * model) ** 2)
    return float(pulls[near].mean())


def _broad_sigma(
    stamp: Floats, variance: Floats, good: BoolStamp, model: Floats, flux: float, psf_width: float
) -> float:
    """Significance of a Gaussian `BROAD_RATIO` PSFs wide in a weighted fit together with the PSF.

    The second term of a generalised least-squares fit to uncorrelated pixels: its template is what of the
    Gaussian is orthogonal to the PSF, so that a point source of any flux gives a standard normal number.
    """
    weight = good / variance
    axis = np.arange(stamp.shape[0]) - stamp.shape[0] // 2.0
    profile = np.exp(-4 * np.log(2) * (axis / (BROAD_RATIO * psf_width)) ** 2)
    broad = profile[:, None] * profile[None, :]
    power = float(np.sum(weight * model**2))
    if power <= 0:
        return 0.0
    broad = broad - model * (np.sum(weight * model * broad) / power)
    norm = float(np.sqrt(np.sum(weight * broad**2)))
    return float(np.sign(flux) * np.sum(weight * stamp * broad) / norm) if norm > 0 else 0.0
