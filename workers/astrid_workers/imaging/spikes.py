"""Spikes: straight rays of light that the supports of a telescope's mirrors draw from each bright star.

Owns finding them in what a star's smooth light leaves, by the angle at which ring after ring is brighter than
the rest of its ring, on both sides of the star. Never changes an image or a mask, and never says what stands
on a ray.
"""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from astrid_workers.frame import Float32Image
from astrid_workers.imaging.streaks import Streak

BoolImage = NDArray[np.bool_]
Floats = NDArray[np.float64]
Indices = NDArray[np.intp]

#: Angles, width of a ring in pixels, and how far a spike is followed: by the radius of what clips, within
#: limits.
ANGLES, RING_PX, LONGEST_RADII, SHORTEST_PX, LONGEST_PX = 180, 6, 15, 72, 162
#: A pixel counts no more than this, in its own sigma; a place of a ring likewise: a source is no spike.
PIXEL_CLIP, PLACE_CLIP = 5.0, 4.0
#: Rings that a spike has at least, from the star on; the share of them in which it is seen, and how well.
FEWEST_RINGS, LIT_SHARE, LIT_SIGMA = 4, 0.75, 1.5
#: All its rings together must stand out by this many sigma, and those of the ray on the star's other side,
#: within so many steps of angle, by these: what supports draw goes both ways, a row of faint stars does not.
SPIKE_SIGMA, OPPOSITE_SIGMA, OPPOSITE_STEPS = 7.0, 5.0, 2
#: Spikes of a star at most, and the angle within which two are one, in steps.
MOST_SPIKES, APART = 12, 4
#: Half-width of a spike, and how far beyond its last ring it is believed to go, in FWHM.
HALF_WIDTH_FWHM, BEYOND_FWHM = 0.7, 2.0


def find_spikes(
    image: Float32Image,
    variance: Float32Image,
    usable: BoolImage,
    place: tuple[float, float],
    radius_px: float,
    fwhm_px: float,
) -> list[Streak]:
    """Rays from the star at `place` (x, y), surest first; `radius_px` is how far it clips.

    `image` is background-subtracted, less the star's smooth light; `usable` is True where a pixel may be
    asked, and False on other stars.
    """
    reach_px = int(np.clip(LONGEST_RADII * radius_px, SHORTEST_PX, LONGEST_PX))
    inner_px = radius_px + fwhm_px
    significance = _polar(image, variance, usable, place, reach_px // RING_PX)
    first = int(np.ceil(inner_px / RING_PX))
    rings = significance[:, first:]
    if rings.shape[1] < FEWEST_RINGS:
        return []
    rings = _less_their_ring(_as_wide_as_a_spike(rings, first, fwhm_px))
    strength, length = _strengths(rings)
    turned = np.stack(
        [np.roll(strength, ANGLES // 2 + step) for step in range(-OPPOSITE_STEPS, OPPOSITE_STEPS + 1)]
    )
    strength[turned.max(axis=0) < OPPOSITE_SIGMA] = -np.inf
    found: list[Streak] = []
    for _ in range(MOST_SPIKES):
        best = int(np.argmax(strength))
        if not strength[best] > SPIKE_SIGMA:
            break
        reach = (first + length[best]) * RING_PX + BEYOND_FWHM * fwhm_px
        found.append(_ray(place, best, inner_px, reach, fwhm_px, rings[best], float(strength[best])))
        strength[(best + np.arange(-APART, APART + 1)) % ANGLES] = -np.inf
    return found


def _ray(
    place: tuple[float, float],
    angle: int,
    inner_px: float,
    reach_px: float,
    fwhm_px: float,
    rings: Floats,
    strength: float,
) -> Streak:
    direction = (angle + 0.5) * 2 * np.pi / ANGLES - np.pi
    ux, uy = float(np.cos(direction)), float(np.sin(direction))
    x, y = place
    return Streak(
        x + inner_px * ux, y + inner_px * uy, x + reach_px * ux, y + reach_px * uy,
        HALF_WIDTH_FWHM * fwhm_px, float(np.nanmedian(rings)), strength,
    )  # fmt: skip


@lru_cache(maxsize=1)
def _places() -> tuple[Indices, Indices]:
    """Number of the angle and of the ring of each pixel of a square about a star."""
    offset = np.arange(-LONGEST_PX, LONGEST_PX + 1.0)
    turn = np.arctan2(offset[:, None], offset[None, :]) / (2 * np.pi) + 0.5
    angle = np.minimum((turn * ANGLES).astype(np.intp), ANGLES - 1)
    ring = (np.hypot(offset[:, None], offset[None, :]) / RING_PX).astype(np.intp)
    return angle, ring


def _polar(
    image: Float32Image,
    variance: Float32Image,
    usable: BoolImage,
    place: tuple[float, float],
    n_rings: int,
) -> Floats:
    """Clipped pulls by angle and ring, `(ANGLES, rings)`, in sigma of their mean; NaN where none is known."""
    column, row = round(place[0]), round(place[1])
    (ny, nx), reach = image.shape, n_rings * RING_PX
    rows = slice(max(row - reach, 0), min(row + reach + 1, ny))
    columns = slice(max(column - reach, 0), min(column + reach + 1, nx))
    own = (
        slice(rows.start - row + LONGEST_PX, rows.stop - row + LONGEST_PX),
        slice(columns.start - column + LONGEST_PX, columns.stop - column + LONGEST_PX),
    )
    angle, ring = (each[own] for each in _places())
    asked = usable[rows, columns] & (ring < n_rings)
    flat = angle[asked] * n_rings + ring[asked]
    pulls = np.clip(
        image[rows, columns][asked] / np.sqrt(variance[rows, columns][asked]), -PIXEL_CLIP, PIXEL_CLIP
    )
    count = np.bincount(flat, minlength=ANGLES * n_rings)
    total = np.bincount(flat, pulls, minlength=ANGLES * n_rings)
    with np.errstate(invalid="ignore"):
        mean = total / np.sqrt(count)
    return np.asarray(np.where(count > 0, mean, np.nan).reshape(ANGLES, n_rings))


def _as_wide_as_a_spike(rings: Floats, first: int, fwhm_px: float) -> Floats:
    """Running means along each ring over the angle that a spike covers there."""
    radius = (first + np.arange(rings.shape[1]) + 0.5) * RING_PX
    half = (fwhm_px * ANGLES / (2 * np.pi * radius) / 2).astype(np.intp)
    known = np.isfinite(rings)
    count, total = (
        _sums_around(values, half) for values in (known.astype(float), np.where(known, rings, 0.0))
    )
    return np.where(count > half, total / np.maximum(count, 1), np.nan)


def _sums_around(rings: Floats, half: Indices) -> Floats:
    """Of `half` places to either side along each ring, which closes."""
    most = int(half.max())
    closed = np.pad(rings, ((most, most), (0, 0)), mode="wrap")
    sums = np.concatenate([np.zeros((1, rings.shape[1])), np.cumsum(closed, axis=0)])
    place, ring = np.arange(len(rings))[:, None] + most, np.arange(rings.shape[1])
    return np.asarray(sums[place + half + 1, ring] - sums[place - half, ring])


def _less_their_ring(rings: Floats) -> Floats:
    """In sigma of each ring's own scatter over the angles, clipped; NaN where nothing is known."""
    enough = np.isfinite(rings).sum(axis=0) > ANGLES // 4
    filled = np.where(enough, rings, 0.0)
    middle = _median_of_known(filled)
    scatter = 1.4826 * _median_of_known(np.abs(filled - middle))
    usable = enough & (scatter > 0)
    pulls = (filled - middle) / np.where(usable, scatter, 1.0)
    return np.where(usable, np.clip(pulls, -PLACE_CLIP, PLACE_CLIP), np.nan)


def _median_of_known(rings: Floats) -> Floats:
    """Median over the angles where they are known, as some are in each ring."""
    ordered = np.sort(rings, axis=0)  # what is not known comes last
    count = np.count_nonzero(np.isfinite(rings), axis=0)
    ring = np.arange(rings.shape[1])
    return np.asarray((ordered[(count - 1) // 2, ring] + ordered[count // 2, ring]) / 2)


def _strengths(rings: Floats) -> tuple[Floats, Indices]:
    """By angle: sigma of the most significant run of rings from the first on, and its number of rings."""
    known = np.isfinite(rings)
    pulls = np.where(known, rings, 0.0)
    count = np.maximum(np.cumsum(known, axis=1), 1)
    lit = np.cumsum(pulls > LIT_SIGMA, axis=1) / count
    sigma = np.cumsum(pulls, axis=1) / np.sqrt(count)
    sigma[(lit < LIT_SHARE) | (count < FEWEST_RINGS)] = -np.inf
    # a run ends on a ring in which it is seen
    sigma[~(pulls > LIT_SIGMA)] = -np.inf
    best = np.argmax(sigma, axis=1)
    return sigma[np.arange(len(sigma)), best], best + 1
