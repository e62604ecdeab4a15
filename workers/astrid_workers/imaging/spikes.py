"""Spikes: straight rays of light that the supports of a telescope's mirrors draw from each bright star.

Owns finding them in a score, by the angles at which ring after ring about a star stands out (`rays.py` says
which to believe). Never changes an image or a mask, and never says what stands on a ray. A score's noise is
known, and what is the same in both frames is gone from it: galaxies and neighbours do not disturb, and rays
that match are not found, for they do no harm.
"""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from astrid_workers.frame import Float32Image
from astrid_workers.imaging.rays import ANGLES, Belief, Sighted, believed_rays, direction
from astrid_workers.imaging.streaks import Streak

BoolImage = NDArray[np.bool_]
Floats = NDArray[np.float64]
Indices = NDArray[np.intp]

#: How far from a star the first ring is, how far from what clips, the distance of rings, and how far the last
#: one is from the first, in FWHM: further in, errors of a PSF are seen; closer, rings have the same noise.
FIRST_FWHM, OFF_CLIPPED_FWHM, STEP_FWHM, SPAN_FWHM = 2.5, 1.5, 1.0, 25.0
#: A place counts no more than this, sigma: a source is no ray.
PLACE_CLIP = 5.0
#: Rings that a ray has at least, from the star on; the share of them in which it is seen, and how well; so
#: many in a row in which it is not are its end.
FEWEST_RINGS, LIT_SHARE, LIT_SIGMA, DARK_RINGS = 3, 0.75, 1.5, 2
#: Peak of a point source that looks like a ray to `BELIEF` at least, sigma; rings that it may be taken to
#: light, the share of it that is left two rings from there, steps of angle to its flank; and what of a ray is
#: beyond these rings at least, sigma.
POINT_SIGMA, POINT_RINGS, POINT_WING, FLANK_STEPS, LEFT_SIGMA = 6.0, 7, 0.15, 6, 1.5
#: Scatter of the mean of rings over that of as many independent places.
RINGS_SCATTER = 1.2
#: Which rays are believed.
BELIEF = Belief(stronger=6.0, weaker=4.5, common_stronger=4.0, common_weaker=2.5, cut=6.0, cut_alone=9.0)
#: What a ray covers, in FWHM: to its sides, as kernels carry it there, before its first ring and beyond its
#: last.
HALF_WIDTH_FWHM, BEFORE_FWHM, BEYOND_FWHM = 1.2, 1.0, 1.5
#: Stars whose surroundings are looked at together: bounds memory.
TOGETHER = 256


def find_spikes(score: Float32Image, usable: BoolImage, stars: Floats, fwhm_px: float) -> list[Streak]:
    """Bright rays of `stars` (those of the science frame), then dark ones, whose height is negative.

    `stars` has rows of x, y and the radius within which a star clips, pixels, 0 for one that does not.
    `score` is in sigma and of scatter one, `usable` True where it may be asked.
    """
    radii = _radii(stars[:, 2], fwhm_px)
    bright, dark = _sighted(score, usable, stars, radii, fwhm_px)
    found = []
    for sign, sighted in ((1, bright), (-1, dark)):
        for star, angle in believed_rays(sighted, BELIEF):
            strength, n_rings = float(sighted.strength[star, angle]), int(sighted.length[star, angle])
            ends = radii[star, 0] - BEFORE_FWHM * fwhm_px, radii[star, n_rings - 1] + BEYOND_FWHM * fwhm_px
            height = sign * strength * RINGS_SCATTER / float(np.sqrt(n_rings))
            found.append(_ray(stars[star], angle, ends, HALF_WIDTH_FWHM * fwhm_px, height, strength))
    return found


def _radii(clipped_px: Floats, fwhm_px: float) -> Floats:
    """Of the rings about each star: `(stars, rings)`."""
    first = np.maximum(FIRST_FWHM * fwhm_px, clipped_px + OFF_CLIPPED_FWHM * fwhm_px)
    return np.asarray(first[:, None] + np.arange(0.0, SPAN_FWHM, STEP_FWHM) * fwhm_px)


def _ray(
    star: Floats,
    angle: int,
    ends_px: tuple[float, float],
    half_width_px: float,
    height: float,
    strength: float,
) -> Streak:
    x, y = star[:2]
    ux, uy = np.cos(direction(angle)), np.sin(direction(angle))
    x0, y0, x1, y1 = (float(place) for end in ends_px for place in (x + end * ux, y + end * uy))
    return Streak(x0, y0, x1, y1, half_width_px, height, strength)


def _sighted(
    score: Float32Image, usable: BoolImage, stars: Floats, radii: Floats, fwhm_px: float
) -> tuple[Sighted, Sighted]:
    """What is seen of bright rays, and of dark ones."""
    both: tuple[list[Sighted], list[Sighted]] = [], []
    apart = np.ceil(np.arcsin(fwhm_px / radii[:, 0]) * ANGLES / (2 * np.pi)).astype(np.intp)
    for start in range(0, max(len(stars), 1), TOGETHER):
        some = slice(start, start + TOGETHER)
        pulls = _less_their_ring(_sampled(score, usable, stars[some], radii[some]))
        for seen, sign in zip(both, (1, -1), strict=True):
            seen.append(_surest_runs(sign * pulls, apart[some]))
    bright, dark = (Sighted.of(seen) for seen in both)
    return bright, dark


def _sampled(score: Float32Image, usable: BoolImage, stars: Floats, radii: Floats) -> Float32Image:
    """The nearest pixels, `(stars, rings, ANGLES)`; NaN where none may be asked."""
    angles = direction(np.arange(ANGLES))
    x, y = stars[:, 0, None, None], stars[:, 1, None, None]
    columns = np.rint(x + radii[..., None] * np.cos(angles)).astype(np.intp)
    rows = np.rint(y + radii[..., None] * np.sin(angles)).astype(np.intp)
    ny, nx = score.shape
    inside = (columns >= 0) & (columns < nx) & (rows >= 0) & (rows < ny)
    rows, columns = np.where(inside, rows, 0), np.where(inside, columns, 0)
    asked = inside & usable[rows, columns]
    return np.where(asked, score[rows, columns], np.float32(np.nan))


def _less_their_ring(samples: Float32Image) -> Float32Image:
    """Less the median of each ring, where a fifth of it is known (of a star in a corner a quarter is); NaN
    elsewhere.
    """
    count = np.count_nonzero(np.isfinite(samples), axis=2)[..., None]
    ordered = np.sort(samples, axis=2)  # what is not known comes last
    middle = np.take_along_axis(ordered, np.maximum(count - 1, 0) // 2, axis=2)
    return np.where(count >= ANGLES // 5, samples - middle, np.float32(np.nan))


def _surest_runs(pulls: Float32Image, apart: Indices) -> Sighted:
    """The most significant run of rings from the first on, for every star and angle."""
    known = np.isfinite(pulls)
    clipped = np.where(known, np.clip(pulls, -PLACE_CLIP, PLACE_CLIP), np.float32(0))
    is_lit = clipped > LIT_SIGMA
    count = np.cumsum(known, axis=1, dtype=np.float32)
    sigma = np.cumsum(clipped, axis=1) / (RINGS_SCATTER * np.sqrt(np.maximum(count, 1)))
    too_dark = np.cumsum(is_lit, axis=1, dtype=np.float32) < LIT_SHARE * count
    # a run ends on a ring in which it is seen, and no source beyond its end makes it longer
    sigma[too_dark | ~is_lit | (count < FEWEST_RINGS) | _is_beyond_gap(known & ~is_lit)] = -np.inf
    sigma[:, :POINT_RINGS][_is_point(pulls[:, :POINT_RINGS], known[:, :POINT_RINGS])] = -np.inf
    best = np.argmax(sigma, axis=1)
    strength = np.take_along_axis(sigma, best[:, None], axis=1)[:, 0].astype(np.float64)
    return Sighted(strength, best + 1, np.asarray(known[:, :FEWEST_RINGS].all(axis=1)), apart)


def _is_point(pulls: Float32Image, known: BoolImage) -> BoolImage:
    """Of the runs that end on each ring: whether a point source explains them, a transient beside the star.

    It lights its own ring and those beside it, and at angles beside its own its flank; of a ray there is
    light beyond these rings, more than the wing of such a point and than noise.
    """
    values = np.where(known, pulls, np.float32(0))
    about = ndimage.maximum_filter1d(values, 2 * FLANK_STEPS + 1, axis=2, mode="wrap")
    is_point = np.zeros(known.shape, bool)
    for last in range(known.shape[1]):
        brightest = np.argmax(about[:, : last + 1], axis=1)[:, None]
        height = np.take_along_axis(about, brightest, axis=1)[:, 0]
        beyond = known[:, : last + 1] & (np.abs(np.arange(last + 1)[:, None] - brightest) > 1)
        count = np.maximum(np.count_nonzero(beyond, axis=1), 1)
        left = np.sum(values[:, : last + 1] * beyond, axis=1) / count - POINT_WING * height
        is_point[:, last] = (height > POINT_SIGMA) & (left * np.sqrt(count) < LEFT_SIGMA)
    return is_point


def _is_beyond_gap(is_dark: BoolImage) -> BoolImage:
    """Whether `DARK_RINGS` in a row are dark before a ring, or at it."""
    in_a_row = [np.roll(is_dark, step, axis=1) for step in range(DARK_RINGS)]
    gap = np.logical_and.reduce(in_a_row)
    gap[:, : DARK_RINGS - 1] = False
    return np.asarray(np.logical_or.accumulate(gap, axis=1))
