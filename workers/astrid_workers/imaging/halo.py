"""How far a saturated star spoils what is around it.

Owns the growth of saturated regions by the brightness that their size betrays; never changes a frame's mask.
"""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from astrid_workers.frame import Float32Image
from astrid_workers.imaging.grow import grow
from astrid_workers.imaging.psf import Psf

#: A wing may be mismatched by this share of itself…
MISMATCH = 0.02
#: …and by no more than this many sigma of the sky per pixel.
TOLERATED_SIGMA = 0.3
#: Exponent of the profile that is assumed for the wings.
WING_BETA = 3.0
#: No region grows further than this many FWHM.
MAX_GROWTH_FWHM = 12.0


def grow_saturated(
    image: Float32Image, saturated: NDArray[np.bool_], psf: Psf, rms: float
) -> NDArray[np.bool_]:
    """Pixels in `saturated` regions and in the wings around them: bool `[y, x]`.

    `image` is background-subtracted; a region's pixels stand at the level where it saturated. Its radius and
    that level give the brightness of the star, and so the radius at which the mismatch of its wing drowns in
    the sky.
    """
    grown = np.zeros(image.shape, bool)
    if not saturated.any():
        return grown
    labels, _ = ndimage.label(grow(saturated, 1))
    alpha = psf.fwhm_px / (2 * np.sqrt(2 ** (1 / WING_BETA) - 1))
    level = _saturation_level(image, saturated, rms)
    for number, window in enumerate(ndimage.find_objects(labels), start=1):
        region = labels[window] == number
        width = min(region.shape)
        radius = min(np.sqrt(np.count_nonzero(region) / np.pi), width / 2)
        ratio = max(level * MISMATCH / (TOLERATED_SIGMA * max(rms, 1e-30)), 1.0) ** (1 / WING_BETA)
        reach = alpha * np.sqrt(max((1 + (radius / alpha) ** 2) * ratio - 1, 0.0)) - radius
        _paint(
            grown,
            labels,
            number,
            window,
            int(np.ceil(np.clip(reach, psf.fwhm_px, MAX_GROWTH_FWHM * psf.fwhm_px))),
        )
    return grown


def _saturation_level(image: Float32Image, saturated: NDArray[np.bool_], rms: float) -> float:
    """The brightest that unsaturated neighbours of saturated pixels are: the level of a region's rim."""
    rim = grow(saturated, 2) & ~grow(saturated, 1)
    values = image[rim]
    return float(np.percentile(values, 75)) if values.size else 100 * rms


def _paint(
    grown: NDArray[np.bool_], labels: NDArray[np.int32], number: int, window: tuple[slice, slice], reach: int
) -> None:
    """Set everything within `reach` pixels of one region."""
    box = tuple(slice(max(s.start - reach - 1, 0), s.stop + reach + 1) for s in window)
    distance = ndimage.distance_transform_edt(labels[box] != number)
    grown[box] |= distance <= reach
