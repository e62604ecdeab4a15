"""Which stars of a frame the other frame bears out: neither galaxies there, nor risen or faded since.

Owns that judgement for PSFs of few stars, which a few blends of a transient with its host would shape; never
measures a PSF.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from astrid_workers.imaging.stars import Stars, frame_fwhm_px

BoolArray = NDArray[np.bool_]

#: The same source lies within this many FWHM in both frames.
SAME_FWHM = 0.5
#: Sources of both frames needed to know how bright the same star is in each.
MIN_PAIRS = 5
#: Stars of the other frame that suffice where most of this frame's are galaxies there.
MIN_STARS_THERE = 3
#: A star is as bright in both frames within so much, and within so many sigma.
MOST_CHANGE, CHANGE_SIGMA = 0.1, 3.0
#: A source that is wider than the other frame's stars by so much, and by so many sigma, is a galaxy.
MOST_WIDENING, WIDENING_SIGMA = 0.1, 3.0


def steady_stars(stars: Stars, other: Stars) -> Stars:
    """`stars` with `clean` only where `other`, the sources of the other frame on the same grid, agrees.

    A clean star is none when the other frame has a source there that is wider than its stars are or that has
    changed its flux by more than the errors say. One that the other frame does not have is a point all the
    same: it may be what is looked for. Where most of them are wider than the other frame's stars, galaxies
    were taken for stars here, and the stars are what the other frame says.
    """
    fwhm_px = frame_fwhm_px(stars), frame_fwhm_px(other)
    if len(stars) == 0 or len(other) == 0 or not np.isfinite(fwhm_px).all():
        return stars
    near, index = cKDTree(np.stack([other.x, other.y], axis=1)).query(np.stack([stars.x, stars.y], axis=1))
    seen = other.only(index)
    same = (near < SAME_FWHM * max(fwhm_px)) & np.isfinite(seen.fwhm_px) & (seen.flux > 0) & (stars.flux > 0)
    # of a Gaussian's width: as uncertain as its flux, relatively
    widened = seen.fwhm_px / fwhm_px[1] - 1 > np.hypot(
        MOST_WIDENING, WIDENING_SIGMA / np.maximum(seen.snr, 1.0)
    )
    wide, stars_there = same & stars.clean & widened, same & seen.clean & np.isfinite(stars.fwhm_px)
    if 2 * np.count_nonzero(wide) > np.count_nonzero(stars.clean):
        return stars.with_clean(stars_there) if np.count_nonzero(stars_there) >= MIN_STARS_THERE else stars
    pairs = stars_there & stars.clean
    if np.count_nonzero(pairs) < MIN_PAIRS:
        return stars
    changed = same & _changed(stars, seen, pairs)
    return stars.with_clean(np.asarray(stars.clean & ~(changed | wide), bool))


def _changed(stars: Stars, seen: Stars, pairs: BoolArray) -> BoolArray:
    """Whose flux over that of the same source in the other frame, `seen`, is not that of `pairs`."""
    error = np.hypot(1 / np.maximum(stars.snr, 1.0), 1 / np.maximum(seen.snr, 1.0))
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.log(stars.flux / seen.flux)
    deviation = np.abs(ratio - np.median(ratio[pairs]))
    return np.asarray(deviation > np.hypot(MOST_CHANGE, CHANGE_SIGMA * error))
