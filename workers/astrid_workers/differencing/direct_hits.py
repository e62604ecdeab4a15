"""Candidates that a look at the frames themselves shows to be cosmic rays.

Owns that look, at the frame whose light a candidate has, before anything convolved or moved it: a hit fills
pixels there that no star of its PSF could. Never looks where other light stands, and never changes a
candidate.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from astrid_workers.differencing.pixel_hits import GAIN_PER_SNR2, hit_gain
from astrid_workers.differencing.products import Candidate, Candidates, Difference
from astrid_workers.frame import Frame
from astrid_workers.imaging.psf import moffat_stamp
from astrid_workers.mask import UNUSABLE

Floats = NDArray[np.float64]
Place = Callable[[float, float], tuple[float, float]]

#: FWHM up to which frames are looked at, pixels: in wider ones rays are found already.
WIDEST_PX = 2.5
#: Half the side of what is cut out, pixels; sky is beyond so many FWHM, and takes so many pixels.
HALF_PX, SKY_FWHM, LEAST_SKY_PX = 12, 2.2, 50
#: By how much less chi² hits must leave of a candidate than a point source: the reference's PSF on its own
#: grid is known less well. And the side of that.
SCIENCE_GAIN, REFERENCE_GAIN, REFERENCE_PSF_PX = 6.0, 8.0, 25
#: Whose light is not their own.
SHARED = frozenset({"blended", "dipole"})


@dataclass(frozen=True, slots=True)
class DirectFrame:
    """A frame on its own grid, and what stars look like on it."""

    frame: Frame
    fwhm_px: float
    #: Its PSF at a place of its own, an odd square of sum 1; not asked for where its width is not known.
    psf_at: Callable[[float, float], NDArray[np.floating]]
    #: From a place on the candidates' grid to one on its own.
    place: Place
    #: By how much less chi² hits must leave than a point source.
    least_gain: float
    #: Whether it is the one that positive candidates are in; then other light is told by their flags.
    is_science: bool


def direct_science(science: Frame, made: Difference) -> DirectFrame:
    """The science frame, on whose grid candidates are, with the PSF that was measured on it."""
    return DirectFrame(
        science, made.fwhm_science_px, made.psf_science.at, lambda x, y: (x, y), SCIENCE_GAIN, True
    )


def direct_reference(
    reference: Frame, fwhm_px: float, to_reference: Callable[[Floats, Floats], tuple[Floats, Floats]]
) -> DirectFrame:
    """The reference before it was moved, whose PSF is a Moffat as wide as its stars; `fwhm_px` may be NaN."""
    moffat = moffat_stamp(fwhm_px if np.isfinite(fwhm_px) else 1.0, REFERENCE_PSF_PX)

    def place(x: float, y: float) -> tuple[float, float]:
        seen_x, seen_y = to_reference(np.array([x]), np.array([y]))
        return float(seen_x[0]), float(seen_y[0])

    return DirectFrame(reference, fwhm_px, lambda _x, _y: moffat, place, REFERENCE_GAIN, False)


def without_hits(candidates: Candidates, *frames: DirectFrame) -> Candidates:
    """`candidates` but for those that hit pixels of the one of `frames` they are in, counted as `sharp`."""
    kept = tuple(c for c in candidates.items if not any(_is_hit(c, frame) for frame in frames))
    gone = len(candidates.items) - len(kept)
    if not gone:
        return candidates
    rejected = {**candidates.rejected, "sharp": candidates.rejected.get("sharp", 0) + gone}
    items = tuple(replace(c, index=i) for i, c in enumerate(kept))
    return replace(candidates, items=items, rejected=rejected)


def _is_hit(candidate: Candidate, direct: DirectFrame) -> bool:
    """Whether a candidate of this frame is a hit there; what cannot be seen is none.

    What faded stands on a source of the reference: itself. What rose on one of the science frame is mixed.
    """
    is_mixed = direct.is_science and "on_source" in candidate.flags
    if candidate.is_positive != direct.is_science or is_mixed or SHARED.intersection(candidate.flags):
        return False
    if not direct.fwhm_px <= WIDEST_PX:
        return False
    x, y = direct.place(candidate.x, candidate.y)
    if not (np.isfinite(x) and np.isfinite(y)):
        return False
    row, column = round(y), round(x)
    ny, nx = direct.frame.shape
    if not (HALF_PX <= row < ny - HALF_PX and HALF_PX <= column < nx - HALF_PX):
        return False
    cut = (slice(row - HALF_PX, row + HALF_PX + 1), slice(column - HALF_PX, column + HALF_PX + 1))
    good = (direct.frame.mask[cut] & np.uint32(UNUSABLE)) == 0
    image, variance = direct.frame.science[cut].astype(float), direct.frame.variance[cut].astype(float)
    axis = np.arange(-HALF_PX, HALF_PX + 1)
    sky = good & (np.hypot(axis[:, None], axis) > SKY_FWHM * direct.fwhm_px + 1)
    if np.count_nonzero(sky) < LEAST_SKY_PX:
        return False
    hit = np.zeros_like(image)
    hit[HALF_PX, HALF_PX] = 1
    gain = hit_gain(
        np.where(good, image - np.median(image[sky]), 0.0),
        np.where(good, variance, 1.0),
        good,
        direct.psf_at(x, y),
        hit,
        (x - column, y - row),
    )
    return gain > max(direct.least_gain, GAIN_PER_SNR2 * candidate.snr**2)
