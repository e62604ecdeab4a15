"""What a subtraction leaves at the stars that it should have removed.

Owns the stack of residuals and one score per star; never changes a pixel and never judges (`validate` does).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from astrid_workers.differencing.products import Difference
from astrid_workers.frame import Float32Image, Frame
from astrid_workers.imaging.cutout import cutout

Floats = NDArray[np.float64]

#: Side of a stamp in FWHM, and the brightest stars that are stacked.
STAMP_FWHM, MOST_STACKED = 8.0, 200
#: Stars of less light than this, in sigma of the score, say nothing of a model.
LEAST_LIGHT_SIGMA = 20.0


@dataclass(frozen=True, slots=True, eq=False)
class StarResiduals:
    """Left at stars that are matched in both frames."""

    #: Light that was subtracted at each star, in sigma of the score, and the score there.
    light_sigma: Floats
    score: Floats
    #: Median over the brightest of the star and of what is left, each over the star's peak: odd squares.
    star: Float32Image
    left: Float32Image
    n_stacked: int


def star_residuals(science: Frame, made: Difference) -> StarResiduals | None:
    """Residuals at the matched stars; None where none is known or measured."""
    if made.match is None:
        return None
    x, y = made.match.x[made.match.is_star], made.match.y[made.match.is_star]
    rows, columns = np.rint(y).astype(int), np.rint(x).astype(int)
    light = np.abs(made.subtracted_light[rows, columns]).astype(float)
    score = made.score[rows, columns].astype(float)
    known = np.flatnonzero(np.isfinite(score) & (light > LEAST_LIGHT_SIGMA))
    if known.size == 0:
        return None
    brightest = known[np.argsort(-light[known])][:MOST_STACKED]
    side = 2 * (int(STAMP_FWHM * made.fwhm_science_px) // 2) + 1
    stars, left = [], []
    for x_star, y_star in zip(x[brightest], y[brightest], strict=True):
        stamp = cutout(science.science, x_star, y_star, side)
        stamp -= np.nanmedian(np.concatenate([stamp[0], stamp[-1], stamp[:, 0], stamp[:, -1]]))
        peak = stamp[side // 2, side // 2]
        if peak > 0:
            stars.append(stamp / peak)
            left.append(cutout(made.difference, x_star, y_star, side) / peak)
    if not stars:
        return None
    star, what_is_left = (np.asarray(np.nanmedian(stack, axis=0), np.float32) for stack in (stars, left))
    return StarResiduals(light[known], score[known], star, what_is_left, len(stars))
