"""Fluxes where a user asks for them, whether or not anything is there.

Owns forced photometry on the difference and on both direct frames; never searches, and never turns a flux
that is not significant into a detection.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from astrid_workers.differencing.measure import VARIANCE_FLOOR, left_over_sky, unusable_pixels
from astrid_workers.differencing.pair import PairResult
from astrid_workers.differencing.products import Difference
from astrid_workers.frame import Frame
from astrid_workers.imaging.known_sky import background_of
from astrid_workers.imaging.lanczos import TAPS, lanczos_weights
from astrid_workers.imaging.noise_model import NoiseModel
from astrid_workers.imaging.point_sources import PointFluxes, fit_fluxes
from astrid_workers.imaging.psf import Psf

Floats = NDArray[np.float64]

#: Limits are this many sigma.
LIMIT_SIGMA = 5.0
#: Below this significance a magnitude is a guess: only the limit is given.
MAGNITUDE_SIGMA = 3.0


@dataclass(frozen=True, slots=True, eq=False)
class ForcedFluxes:
    """Photometry at given places, float64 arrays of one length; NaN: not measured.

    Fluxes are in the unit and on the flux scale of the science frame; magnitudes need its zero point.
    """

    #: 0-based pixels of the science frame; NaN where a position has no place on it.
    x: Floats
    y: Floats
    difference_flux: Floats
    difference_flux_err: Floats
    science_flux: Floats
    science_flux_err: Floats
    #: Of the reference, times `flux_scale`.
    reference_flux: Floats
    reference_flux_err: Floats
    #: Magnitude of |difference flux| where it is beyond 3 sigma, its error, and the 5-sigma limit.
    difference_mag: Floats
    difference_mag_err: Floats
    difference_limit_mag: Floats
    science_mag: Floats
    science_mag_err: Floats
    science_limit_mag: Floats

    def __len__(self) -> int:
        return self.x.size

    def only(self, keep: NDArray[np.bool_]) -> "ForcedFluxes":
        """The rows where `keep` is True."""
        return ForcedFluxes(*(getattr(self, field.name)[keep] for field in fields(self)))

    @classmethod
    def joined(cls, parts: "Sequence[ForcedFluxes]") -> "ForcedFluxes":
        """The rows of all."""
        return cls(*(np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(cls)))

    @property
    def difference_limit(self) -> Floats:
        """5-sigma limit of the difference."""
        return LIMIT_SIGMA * self.difference_flux_err

    @property
    def science_limit(self) -> Floats:
        """5-sigma limit of the science frame."""
        return LIMIT_SIGMA * self.science_flux_err


def forced_photometry(pair: PairResult, x: Floats, y: Floats) -> ForcedFluxes:
    """PSF fluxes at 0-based places of the science frame, in the difference and in both frames.

    The difference's flux is its matched filter's at the place; the frames' are PSF fits above their own sky,
    in which neighbours within the PSF are not told apart; their errors are those of the noise that the sky
    shows, correlated as it is. NaN where masked, off the frame, or NaN was given.
    """
    x, y = np.asarray(x, float), np.asarray(y, float)
    made = pair.difference
    flux, error = difference_fluxes(made, x, y)
    science = _direct(pair.science, made.psf_science, made.noise_science, x, y)
    reference = _direct(pair.reference, made.psf_reference, made.noise_reference, x, y)
    scale, zero_point = made.flux_scale, pair.science.facts.zero_point_mag
    return ForcedFluxes(
        x, y, flux, error,
        science.flux, science.flux_err, scale * reference.flux, scale * reference.flux_err,
        *magnitudes(np.abs(flux), error, zero_point), *magnitudes(science.flux, science.flux_err, zero_point),
    )  # fmt: skip


def difference_fluxes(difference: Difference, x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """Matched-filter flux and its 1-sigma error at 0-based places: Lanczos-3 on score × flux error.

    A matched filter's output is as smooth as the PSF, so that its value between pixels is the filter's at
    that place. NaN where the nearest pixel was not measured, and off the frame.
    """
    ny, nx = difference.shape
    column, row = np.rint(np.nan_to_num(x, nan=-9)), np.rint(np.nan_to_num(y, nan=-9))
    inside = (column >= 0) & (row >= 0) & (column < nx) & (row < ny)
    flux, error = np.full(x.shape, np.nan), np.full(x.shape, np.nan)
    near = row[inside].astype(np.intp), column[inside].astype(np.intp)
    error[inside] = difference.flux_error[near]
    flux[inside] = _between_pixels(difference, x[inside], y[inside], error[inside])
    return flux, error


def _between_pixels(difference: Difference, x: Floats, y: Floats, error: Floats) -> Floats:
    """Score × flux error of the 6 × 6 pixels around each place; masked ones take the nearest's error."""
    offsets = np.arange(-2, TAPS - 2)
    left, bottom = np.floor(x), np.floor(y)
    rows = np.clip(bottom[:, None] + offsets, 0, difference.shape[0] - 1).astype(np.intp)
    columns = np.clip(left[:, None] + offsets, 0, difference.shape[1] - 1).astype(np.intp)
    pixels = rows[:, :, None], columns[:, None, :]
    local = difference.flux_error[pixels].astype(float)
    local = np.where(np.isfinite(local), local, error[:, None, None])
    values = difference.unmasked_score[pixels] * local
    weights_y, weights_x = lanczos_weights(y - bottom), lanczos_weights(x - left)
    return np.asarray(np.einsum("nij,ni,nj->n", values, weights_y, weights_x))


def magnitudes(
    flux: Floats, error: Floats, zero_point_mag: float | Floats | None
) -> tuple[Floats, Floats, Floats]:
    """Magnitude and error where `flux` is beyond 3 sigma, and the 5-sigma limit; NaN elsewhere and without a
    zero point (None, or NaN for one flux). A zero point is the magnitude of a flux of 1 in the frame's unit.
    """
    if zero_point_mag is None:
        nothing = np.full(flux.shape, np.nan)
        return nothing, nothing, nothing
    with np.errstate(invalid="ignore", divide="ignore"):
        seen = flux > MAGNITUDE_SIGMA * error
        mag = np.where(seen, zero_point_mag - 2.5 * np.log10(flux), np.nan)
        mag_err = np.where(seen, 2.5 / np.log(10) * error / flux, np.nan)
        limit = zero_point_mag - 2.5 * np.log10(LIMIT_SIGMA * error)
    return mag, mag_err, limit


def _direct(frame: Frame, psf: Psf, noise: NoiseModel, x: Floats, y: Floats) -> PointFluxes:
    """PSF fits on one frame above its own sky; errors by the `noise` that its sky shows."""
    unusable = unusable_pixels(frame)
    sky = background_of(frame, unusable)
    level = sky.level + np.float32(left_over_sky(frame.science, sky, unusable))
    placed = np.isfinite(x) & np.isfinite(y)
    # as low as the plane may be that the noise was measured against
    variance = np.maximum(frame.variance, np.float32(VARIANCE_FLOOR * sky.rms_median**2))
    found = fit_fluxes(frame.science - level, variance, ~unusable, psf, x[placed], y[placed])
    error = found.flux_err * noise.point_source_factor(psf.stamp)
    whole = [np.full(x.shape, np.nan) for _ in range(3)]
    for column, values in zip(whole, (found.flux, error, found.light_seen), strict=True):
        column[placed] = values
    return PointFluxes(*whole)
