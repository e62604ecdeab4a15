"""Spikes of a pair's bright stars, of those that clip and of those that do not.

Owns which stars are asked, and what of them is said; never finds a ray (`imaging/spikes.py` does).
"""

import numpy as np
from numpy.typing import NDArray

from astrid_workers.differencing.saturated import Saturated
from astrid_workers.differencing.score import Score
from astrid_workers.frame import Frame
from astrid_workers.imaging.bright_stars import bright_stars
from astrid_workers.imaging.spikes import OFF_CLIPPED_FWHM, find_spikes
from astrid_workers.imaging.streaks import Streak

BoolImage = NDArray[np.bool_]
Floats = NDArray[np.float64]


def spikes_of(
    score: Score, frames: tuple[Frame, Frame], saturated: Saturated, bad: BoolImage, fwhm_px: float
) -> list[Streak]:
    """Rays by which the frames differ, as `find_spikes` gives them; `bad` pixels are not asked."""
    images = [frame.science for frame in frames]
    x, y = bright_stars(score.subtracted_light, score.flux_error, images, fwhm_px)
    off = np.ones(len(x), bool)
    for star in saturated.stars:
        off &= np.hypot(x - star.x, y - star.y) > star.radius_px + OFF_CLIPPED_FWHM * fwhm_px
    clipped = [
        (star.x, star.y, star.radius_px)
        for star, reach in zip(saturated.stars, saturated.reach_px, strict=True)
        if reach
    ]
    others = np.stack([x[off], y[off], np.zeros(np.count_nonzero(off))], axis=1)
    stars: Floats = np.concatenate([np.array(clipped, float).reshape(-1, 3), others])
    return find_spikes(score.score, ~bad, stars, fwhm_px)
