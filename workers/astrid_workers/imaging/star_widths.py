"""Which sources are as wide as stars are: widths of stars and of galaxies told apart.

Owns the judgement by widths, ellipticities and significances alone; never sees a pixel.
"""

import numpy as np
from numpy.typing import NDArray

Float64Array = NDArray[np.float64]
BoolArray = NDArray[np.bool_]

#: S/N from which a source's width may vote on what a star looks like.
VOTING_SNR = 20.0
#: How much longer (ellipticity) than the typical star one may be.
ROUND = 0.15
#: A crowd of widths ends where fewer than this share of its most lie within so much of one; of fewer than so
#: many nothing can be told.
VALLEY_DEPTH, VALLEY_WIDTH, VALLEY_LEAST = 0.6, 0.04, 8
#: A few stars among many galaxies are a crowd within so much of one width that ends, within reach, in a gap:
#: so many, and a share of the largest crowd, and the least gap.
APART_WIDTH, APART_REACH = 0.05, 0.12
APART = ((6, 0.12, 0.07), (5, 0.12, 0.09), (4, 0.0, 0.25))
#: Hardly anything is narrower than stars: such a plane of widths is looked for where no more sources than
#: these are so significant, from so many of the narrowest of them; slopes that are tried, across half of the
#: frame, and what any slope costs.
PLANE_SNR, PLANE_MOST, PLANE_FROM = 60.0, 800, 30
PLANE_SLOPES, PLANE_STEEPEST, SLOPE_COSTS = (-0.12, -0.06, 0.0, 0.06, 0.12), 0.123, 10.0
#: How near to it stars lie (logarithm of widths) besides so many errors of theirs; the least number of them,
#: and how many each source outweighs that lies below it, by so many times that.
PLANE_WIDTH, WIDTH_ERRORS, PLANE_LEAST, BELOW_OUTWEIGHS, BELOW = 0.04, 1.2, 5, 6.0, 1.3
#: Below this FWHM (pixels) a width depends on where in its pixel a star stands, and scatters by more.
SHARP_PX, SHARP_WIDTH = 2.4, 0.1
#: Sources needed to fit it, rounds, and how near to it is like a star. It counts where those are so much
#: narrower than the crowd.
PLANE_FIT, PLANE_ROUNDS, LIKE = 12, 3, 0.05
NARROWER = 0.97


def like_stars(
    fwhm: Float64Array,
    ellipticity: Float64Array,
    snr: Float64Array,
    candidate: BoolArray,
    places: tuple[Float64Array, Float64Array],
) -> BoolArray:
    """Which of the `candidate` sources are as wide and as round as stars; `places` are x and y, pixels.

    Those within a tolerance of the narrowest common width, or where galaxies outnumber stars those on the
    plane of widths that hardly anything lies below.
    """
    voters = candidate & (snr > VOTING_SNR) & np.isfinite(fwhm)
    if np.count_nonzero(voters) < 3:
        return voters
    alike = _like_the_crowd(fwhm, ellipticity, voters)
    on_plane = _on_lowest_plane(fwhm, snr, voters, places)
    if not on_plane.any():
        return alike
    if np.median(fwhm[on_plane]) > NARROWER * np.median(fwhm[alike]):
        return alike
    round_enough: BoolArray = ellipticity < float(np.median(ellipticity[on_plane])) + ROUND
    return on_plane & round_enough


def _like_the_crowd(fwhm: Float64Array, ellipticity: Float64Array, voters: BoolArray) -> BoolArray:
    """Within a tolerance of the narrowest common width: the half-sample mode of what is bright."""
    width = half_sample_mode(narrowest_crowd(fwhm[voters]))
    near = voters & (np.abs(fwhm - width) < 0.15 * width)
    if np.count_nonzero(near) < 3:
        return voters
    spread = 1.4826 * float(np.median(np.abs(fwhm[near] - width)))
    tolerance = max(0.05 * width, min(4 * spread, 0.15 * width))
    shape = float(np.median(ellipticity[near]))
    alike: BoolArray = voters & (np.abs(fwhm - width) < tolerance) & (ellipticity < shape + ROUND)
    return alike


def _on_lowest_plane(
    fwhm: Float64Array, snr: Float64Array, voters: BoolArray, places: tuple[Float64Array, Float64Array]
) -> BoolArray:
    """Voters on the plane of widths over the frame that has most of the significant ones on it, each that is
    below taking off several; none where there is no such plane or stars are many.
    """
    strong = np.flatnonzero(voters & (snr > PLANE_SNR))
    if not PLANE_LEAST <= strong.size <= PLANE_MOST:
        return np.zeros(len(fwhm), bool)
    across = [2 * (axis - axis.mean()) / max(float(np.ptp(axis)), 1.0) for axis in places]
    widths = np.log(np.where(voters, fwhm, 1.0))
    scatter = np.where(fwhm < SHARP_PX, SHARP_WIDTH, PLANE_WIDTH)
    error = np.hypot(scatter, WIDTH_ERRORS / np.maximum(snr, 1.0))
    best, plane = 0.0, None
    for slope in _slopes():
        sloped = slope[0] * across[0] + slope[1] * across[1]
        level = widths[strong] - sloped[strong]
        starts = np.sort(level)[:PLANE_FROM]
        off = (level - starts[:, None]) / error[strong]
        on = np.count_nonzero(np.abs(off) < 1, axis=1)
        score = on - BELOW_OUTWEIGHS * np.count_nonzero(off < -BELOW, axis=1) - SLOPE_COSTS * np.hypot(*slope)
        score[on < PLANE_LEAST] = 0.0
        if score.max() > best:
            best, plane = float(score.max()), starts[np.argmax(score)] + sloped
    return np.zeros(len(fwhm), bool) if plane is None else _about(plane, widths, snr, voters, across)


def _slopes() -> list[tuple[float, float]]:
    """The flattest first."""
    slopes = [(x, y) for x in PLANE_SLOPES for y in PLANE_SLOPES if np.hypot(x, y) < PLANE_STEEPEST]
    return sorted(slopes, key=lambda slope: float(np.hypot(*slope)))


def _about(
    plane: Float64Array,
    widths: Float64Array,
    snr: Float64Array,
    voters: BoolArray,
    across: list[Float64Array],
) -> BoolArray:
    """Voters about the plane that is fitted to those about `plane`, from which it was begun."""
    like = np.where(np.exp(plane) < SHARP_PX, SHARP_WIDTH, LIKE)
    reach = np.hypot(like, 1 / np.maximum(snr, 1.0))
    basis = np.stack([np.ones_like(widths), *across], axis=1) / reach[:, None]
    for _ in range(PLANE_ROUNDS):
        near = voters & (np.abs(widths - plane) < reach)
        if np.count_nonzero(near) < PLANE_LEAST:
            break
        if np.count_nonzero(near) < PLANE_FIT:
            plane = plane + np.median((widths - plane)[near])
            continue
        solution = np.linalg.lstsq(basis[near], (widths / reach)[near], rcond=None)[0]
        plane = (basis * reach[:, None]) @ solution
    return np.asarray(voters & (np.abs(widths - plane) < reach))


def narrowest_crowd(widths: Float64Array) -> Float64Array:
    """The narrowest widths that many share: where stars are few, galaxies crowd at larger ones.

    Every width counts those within 8 % of it; the first local crowd with at least 5 members and 40 % of the
    largest crowd's wins, or a smaller one that is tight and stands apart from all wider ones. It ends where
    widths get rare, so that it does not grow into the galaxies' beyond. All widths when there is no crowd.
    """
    ordered = np.sort(widths)
    low, high = (np.searchsorted(ordered, ordered * factor) for factor in (0.92, 1.08))
    crowd = high - low
    enough = crowd >= max(5, 0.4 * crowd.max())
    ends = _ends_of_apart(ordered, float(crowd.max()))
    if not (enough | np.isfinite(ends)).any():
        return ordered
    index = int(np.argmax(enough | np.isfinite(ends)))
    first = ordered[index]
    near: BoolArray = (ordered >= first * 0.92) & (ordered <= first * 1.25)
    near &= ordered <= (_valley(ordered, first * 0.92) if enough[index] else ends[index])
    top = ordered[near][np.argmax(crowd[near])]
    crowded: Float64Array = ordered[(ordered > top * 0.92) & (ordered < top * 1.08)]
    return crowded


def _ends_of_apart(ordered: Float64Array, largest: float) -> Float64Array:
    """For each width the last one of its crowd, where that is tight and ends in a gap that is wide enough for
    so few beside the `largest` crowd; elsewhere infinity.
    """
    low, high = (np.searchsorted(ordered, ordered * factor) for factor in (1 - APART_WIDTH, 1 + APART_WIDTH))
    ends = np.full(ordered.size, np.inf)
    for members, share, gap in APART:
        last = np.append(ordered[:-1][ordered[1:] > ordered[:-1] * (1 + gap)], np.inf)
        end = last[np.searchsorted(last, ordered)]
        apart = (high - low >= max(members, share * largest)) & (end <= ordered * (1 + APART_REACH))
        ends = np.where(apart, np.minimum(ends, end), ends)
    return ends


def _valley(ordered: Float64Array, start: float) -> float:
    """The first width from `start` on whose neighbours are rare after a crowd; infinity: there is none."""
    factors = (1 - VALLEY_WIDTH, 1 + VALLEY_WIDTH)
    low, high = (np.searchsorted(ordered, ordered * factor) for factor in factors)
    beyond = ordered >= start
    count = (high - low)[beyond]
    most = np.maximum.accumulate(count)
    rare = (most >= VALLEY_LEAST) & (count < VALLEY_DEPTH * most)
    return float(ordered[beyond][np.argmax(rare)]) if rare.any() else np.inf


def half_sample_mode(values: Float64Array) -> float:
    """Mode of a sample (Bickel & Frühwirth 2006): halve to the densest half until two values are left."""
    ordered = np.sort(values)
    while ordered.size > 3:
        half = (ordered.size + 1) // 2
        widths = ordered[half - 1 :] - ordered[: ordered.size - half + 1]
        start = int(np.argmin(widths))
        ordered = ordered[start : start + half]
    return float(np.mean(ordered))
