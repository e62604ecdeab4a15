"""Straight streaks through a frame: satellites and aeroplanes.

Owns finding and measuring lines of light; never changes an image. What is compact weighs little: pixels are
binned and clipped before they are summed along lines, and a line must then be seen in the medians of most of
its own pieces.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from astrid_workers.frame import Float32Image
from astrid_workers.imaging.line_sums import OCTANTS, Octant, line_sums

BoolImage = NDArray[np.bool_]
Floats = NDArray[np.float64]

#: Pixels that are averaged before lines are looked for, and the side of the blocks to search, in bins.
BIN_PX, BLOCK_BINS = 4, 512
#: Steps in which bins are summed along lines, as integers: what rounding adds to a bin is 0.04 sigma, and a
#: thousand bins at the clip are still within 16 bits.
STEPS_PER_SIGMA = 8
#: Rows of bins that are averaged together: bounds what is computed on the way.
BIN_ROWS = 64
#: Clip of a pixel, sigma of the sky, and of a bin, in its own sigma: a star counts no more than this.
PIXEL_CLIP, BIN_CLIP = 4.0, 3.0
#: A sum stands out of those of the parallel lines this many bins away…
BESIDE_BINS = (4, 7)
#: …by this many times the scatter of all such differences.
CANDIDATE_SIGMA = 6.5
#: Shortest line, as a share of a block's side.
SHORTEST_SHARE = 0.4
#: Lines that are looked into per block, and streaks that a frame may have.
MOST_LINES, MOST_STREAKS = 12, 8
#: Pieces in which a streak is measured, half-width of what is looked at, pixels.
PIECE_PX, LOOK_PX = 64, 24
#: Steps in which the ends of a line are moved about, pixels, and how many to each side.
TRY_STEPS_PX, TRIES = (1.5, 0.5), 6
#: A piece shows the streak when its middle stands this many of its own sigma above its sides; so many must.
PIECE_SIGMA, LIT_SHARE = 2.0, 0.7
#: All pieces together must stand out by this many sigma.
STREAK_SIGMA = 9.0
#: Pieces that a streak must have.
FEWEST_PIECES = 4
#: A streak's profile is followed until it is below this share of the sky's sigma.
FAINTEST_SIGMA = 0.12
#: What is masked beyond that, pixels.
MARGIN_PX = 1.5


@dataclass(frozen=True, slots=True)
class Streak:
    """A straight line of light, in zero-based pixels, from where it is first seen to where it is last."""

    x0: float
    y0: float
    x1: float
    y1: float
    #: What is beyond this from its middle line is not touched.
    half_width_px: float
    #: Median height of its middle over the sky, in sigma of a pixel of the sky.
    height_sigma: float
    #: How sure it is, sigma.
    significance: float

    @property
    def length_px(self) -> float:
        """From end to end."""
        return float(np.hypot(self.x1 - self.x0, self.y1 - self.y0))

    def along_and_across(self, x: Floats, y: Floats) -> tuple[Floats, Floats]:
        """Distance from the start along the streak, and from its middle line (to the left: negative)."""
        ux, uy = (self.x1 - self.x0) / self.length_px, (self.y1 - self.y0) / self.length_px
        dx, dy = x - self.x0, y - self.y0
        return dx * ux + dy * uy, dy * ux - dx * uy

    def pixels(
        self, shape: tuple[int, ...], margin_px: float = 0.0
    ) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Rows and columns of the pixels that it covers, grown by `margin_px` to its sides."""
        reach = self.half_width_px + margin_px
        steps = np.arange(np.floor(self.length_px) + 1)
        ux, uy = (self.x1 - self.x0) / self.length_px, (self.y1 - self.y0) / self.length_px
        across = np.arange(-np.ceil(reach) - 1, np.ceil(reach) + 1.5, 0.5)
        columns = np.rint(self.x0 + steps[:, None] * ux - across[None, :] * uy).astype(np.intp)
        rows = np.rint(self.y0 + steps[:, None] * uy + across[None, :] * ux).astype(np.intp)
        inside = (rows >= 0) & (columns >= 0) & (rows < shape[0]) & (columns < shape[1])
        flat = np.unique(rows[inside] * shape[1] + columns[inside])
        rows, columns = np.divmod(flat, shape[1])
        _, off = self.along_and_across(columns.astype(float), rows.astype(float))
        near = np.abs(off) <= reach
        return rows[near], columns[near]


def find_streaks(image: Float32Image, rms: Float32Image | float, unusable: BoolImage) -> list[Streak]:
    """Streaks of a background-subtracted `image`, surest first; the same pixels give the same streaks.

    `rms` is the sky's sigma of a pixel. What is found is left out, and the rest is looked at again, until
    nothing more is found.
    """
    pulls = np.asarray(np.divide(image, rms, dtype=np.float32))
    np.clip(pulls, -PIXEL_CLIP, PIXEL_CLIP, out=pulls)
    pulls[unusable] = np.nan
    found: list[Streak] = []
    bins, known = _binned(pulls)
    for rows, columns in _blocks(bins.shape):
        part, seen = bins[rows, columns].copy(), known[rows, columns].copy()
        for _ in range(MOST_STREAKS):
            fresh = _next_streak(part, seen, (rows.start, columns.start), pulls)
            if fresh is None:
                break
            _leave_out(part, seen, fresh, (rows.start, columns.start))
            if not any(_same(fresh, other) for other in found):
                found.append(fresh)
    return sorted(found, key=lambda streak: -streak.significance)[:MOST_STREAKS]


def _binned(pulls: Float32Image) -> tuple[Float32Image, BoolImage]:
    """Means of squares in sigma of such a mean, clipped and without their own median; False where hardly any
    pixel is known.
    """
    rows, columns = (side // BIN_PX for side in pulls.shape)
    count, total = np.empty((2, rows, columns), np.float32)
    for first in range(0, rows, BIN_ROWS):
        band = slice(first, min(first + BIN_ROWS, rows))
        pixels = pulls[band.start * BIN_PX : band.stop * BIN_PX, : columns * BIN_PX]
        squares = pixels.reshape(-1, BIN_PX, columns, BIN_PX)
        is_known = np.isfinite(squares)
        count[band] = _sums(is_known)
        total[band] = _sums(np.where(is_known, squares, np.float32(0)))
    known = count > BIN_PX**2 / 2
    bins = np.where(known, total / np.sqrt(np.maximum(count, 1)), np.float32(0))
    if known.any():
        bins -= np.float32(np.median(bins[known]))
    return np.where(known, np.clip(bins, -BIN_CLIP, BIN_CLIP), np.float32(0)).astype(np.float32), known


def _sums(squares: NDArray[Any]) -> Float32Image:
    """Over the second and fourth of four axes; down first, which adds whole rows."""
    down = squares.sum(axis=1, dtype=np.float32)
    return np.asarray(np.sum([down[..., step] for step in range(BIN_PX)], axis=0))


def _blocks(shape: tuple[int, ...]) -> list[tuple[slice, slice]]:
    """Blocks of about `BLOCK_BINS` that cover the frame."""
    edges = [np.linspace(0, side, max(1, round(side / BLOCK_BINS)) + 1).astype(int) for side in shape]
    return [
        (slice(int(top), int(bottom)), slice(int(left), int(right)))
        for top, bottom in zip(edges[0], edges[0][1:], strict=False)
        for left, right in zip(edges[1], edges[1][1:], strict=False)
    ]


def _next_streak(
    bins: Float32Image, known: BoolImage, corner: tuple[int, int], pulls: Float32Image
) -> Streak | None:
    """The first of the strongest lines of a block that its pieces confirm."""
    for x0, y0, x1, y1 in _strongest_lines(bins, known):
        ends = [
            (value + first) * BIN_PX + (BIN_PX - 1) / 2
            for value, first in ((x0, corner[1]), (y0, corner[0]), (x1, corner[1]), (y1, corner[0]))
        ]
        streak = _confirmed(pulls, ends)
        if streak is not None:
            return streak
    return None


def _strongest_lines(bins: Float32Image, known: BoolImage) -> list[tuple[float, float, float, float]]:
    """Ends, in bins, of a block's lines whose sums stand out of their parallels' on both sides, strongest
    first.
    """
    side = 1 << max(int(np.ceil(np.log2(max(bins.shape)))), 3)
    square = np.zeros((2, side, side), np.int16)
    square[0, : bins.shape[0], : bins.shape[1]] = np.rint(bins * STEPS_PER_SIGMA)
    square[1, : bins.shape[0], : bins.shape[1]] = known
    shortest = SHORTEST_SHARE * max(bins.shape)
    lines: list[tuple[float, tuple[float, float, float, float]]] = []
    for octant in OCTANTS:
        sums, lengths = line_sums(np.ascontiguousarray(octant.turned(square))).astype(np.float32)
        lines += _peaks(sums, lengths, shortest, octant, side)
    lines.sort(key=lambda line: -line[0])
    return [line for _, line in lines[:MOST_LINES]]


def _peaks(
    sums: Float32Image, lengths: Float32Image, shortest: float, octant: Octant, side: int
) -> list[tuple[float, tuple[float, float, float, float]]]:
    means = sums / np.sqrt(np.maximum(lengths, shortest))
    excess = np.full(means.shape, np.inf, np.float32)
    for beside in BESIDE_BINS:
        one = np.full(means.shape, -np.inf, np.float32)
        one[:, beside:-beside] = means[:, beside:-beside] - np.maximum(
            means[:, 2 * beside :], means[:, : -2 * beside]
        )
        excess = np.minimum(excess, one) if beside == BESIDE_BINS[0] else np.maximum(excess, one)
    excess[lengths < shortest] = -np.inf
    real = excess[np.isfinite(excess)]
    if real.size < 1000:
        return []
    middle = float(np.median(real[::7]))
    scatter = 1.4826 * float(np.median(np.abs(real[::7] - middle)))
    found = []
    for _ in range(MOST_LINES // 3):
        rise, start = np.unravel_index(int(np.argmax(excess)), excess.shape)
        strength = float((excess[rise, start] - middle) / scatter) if scatter > 0 else 0.0
        if not strength > CANDIDATE_SIGMA:
            break
        found.append((strength, octant.line(float(start) - side, float(rise), side)))
        # its own neighbours: lines that cross it at a small angle
        rises = slice(max(int(rise) - 6, 0), int(rise) + 7)
        excess[rises, max(int(start) - 6, 0) : int(start) + 7] = -np.inf
    return found


def _confirmed(pulls: Float32Image, ends: list[float]) -> Streak | None:
    """The line through the frame, fitted to what its pieces show; None where they do not show it."""
    line = _across_frame(ends, pulls.shape)
    if line is None:
        return None
    for step_px in TRY_STEPS_PX:
        profiles, middles = _pieces(pulls, line, LOOK_PX)
        line = _refitted(profiles, middles, line, step_px)
    profiles, middles = _pieces(pulls, line, LOOK_PX)
    return _judged(profiles, middles, line)


def _across_frame(ends: list[float], shape: tuple[int, ...]) -> Floats | None:
    """`x, y, ux, uy, length` of the line, from edge to edge of the frame."""
    x0, y0, x1, y1 = ends
    length = float(np.hypot(x1 - x0, y1 - y0))
    if length < 1:
        return None
    ux, uy = (x1 - x0) / length, (y1 - y0) / length
    low, high = -np.inf, np.inf
    for start, unit, side in ((x0, ux, shape[1]), (y0, uy, shape[0])):
        if abs(unit) < 1e-9:
            if not 0 <= start <= side - 1:
                return None
            continue
        first, last = sorted((-start / unit, (side - 1 - start) / unit))
        low, high = max(low, first), min(high, last)
    if high - low < FEWEST_PIECES * PIECE_PX:
        return None
    return np.array([x0 + low * ux, y0 + low * uy, ux, uy, high - low])


def _pieces(pulls: Float32Image, line: Floats, look_px: int) -> tuple[Floats, Floats]:
    """Median profiles across the line, by pieces `(pieces, 2 look + 1)`, and the pieces' middles along it.

    NaN where a piece has too few known pixels.
    """
    x, y, ux, uy, length = line
    n = int(length // PIECE_PX)
    along = (np.arange(n * PIECE_PX) + (length - n * PIECE_PX) / 2)[:, None]
    across = np.arange(-look_px, look_px + 1)[None, :]
    columns = np.rint(x + along * ux - across * uy).astype(np.intp)
    rows = np.rint(y + along * uy + across * ux).astype(np.intp)
    inside = (rows >= 0) & (columns >= 0) & (rows < pulls.shape[0]) & (columns < pulls.shape[1])
    values = np.where(
        inside, pulls[np.clip(rows, 0, pulls.shape[0] - 1), np.clip(columns, 0, pulls.shape[1] - 1)], np.nan
    ).reshape(n, PIECE_PX, -1)
    few = np.isfinite(values).sum(axis=1) < PIECE_PX / 3
    values.sort(axis=1)  # NaN last: the median of what is known
    count = np.maximum(np.isfinite(values).sum(axis=1), 1)
    low = np.take_along_axis(values, ((count - 1) // 2)[:, None], axis=1)[:, 0]
    high = np.take_along_axis(values, (count // 2)[:, None], axis=1)[:, 0]
    return np.where(few, np.nan, (low + high) / 2).astype(float), along.reshape(n, PIECE_PX).mean(axis=1)


def _refitted(profiles: Floats, middles: Floats, line: Floats, step_px: float) -> Floats:
    """The line moved to where its pieces are brightest in all: its ends tried in steps of `step_px` about
    where they are, and a parabola through the best place of each.
    """
    half = profiles.shape[1] // 2
    light = np.nan_to_num(_less_sides(profiles))
    light[:, 1:-1] = (light[:, :-2] + light[:, 1:-1] + light[:, 2:]) / 3
    tries = np.arange(-TRIES, TRIES + 1) * step_px
    share = middles / line[4]
    # by start, end and piece
    off = tries[:, None, None] * (1 - share) + tries[None, :, None] * share
    low = np.clip(np.floor(off).astype(np.intp) + half, 0, profiles.shape[1] - 2)
    part = off + half - low
    pieces = np.arange(len(middles))
    total = ((1 - part) * light[pieces, low] + part * light[pieces, low + 1]).sum(axis=2)
    i, j = np.unravel_index(int(np.argmax(total)), total.shape)
    start = tries[i] + step_px * _vertex(total[:, j], int(i))
    end = tries[j] + step_px * _vertex(total[i], int(j))
    x, y, ux, uy, length = line
    slope = (end - start) / length
    turned = np.array([ux - slope * uy, uy + slope * ux])
    turned /= np.hypot(*turned)
    return np.array([x - start * uy, y + start * ux, turned[0], turned[1], length])


def _vertex(values: Floats, best: int) -> float:
    """Where between its neighbours a largest value's parabola peaks, in steps."""
    if not 0 < best < len(values) - 1:
        return 0.0
    low, middle, high = values[best - 1 : best + 2]
    bend = low - 2 * middle + high
    return float(np.clip(0.5 * (low - high) / bend, -0.5, 0.5)) if bend < 0 else 0.0


def _less_sides(profiles: Floats) -> Floats:
    """Profiles less the median of their outer thirds, left and right together."""
    third = profiles.shape[1] // 3
    sides = np.concatenate([profiles[:, :third], profiles[:, -third:]], axis=1)
    known = np.isfinite(sides)
    level = np.nanmedian(np.where(known.any(axis=1)[:, None], sides, 0.0), axis=1)
    return np.asarray(profiles - level[:, None])


def _judged(profiles: Floats, middles: Floats, line: Floats) -> Streak | None:
    """What the pieces say of a line: a streak, from its first lit piece to its last, or nothing."""
    half = profiles.shape[1] // 2
    light = _less_sides(profiles)
    third = profiles.shape[1] // 3
    known = np.isfinite(light).all(axis=1)
    if np.count_nonzero(known) < FEWEST_PIECES:
        return None
    sides = np.concatenate([light[known, :third], light[known, -third:]], axis=1)
    noise = 1.4826 * float(np.median(np.abs(sides))) or 1e-6
    height = light[:, half - 1 : half + 2].mean(axis=1)  # three pixels: sigma is noise / sqrt(3)
    strength = np.where(known, height * np.sqrt(3) / noise, 0.0)
    lit = np.asarray(strength > PIECE_SIGMA)
    span = _span(lit, np.asarray(known))
    if span is None:
        return None
    inside = np.zeros(len(lit), bool)
    inside[span] = True
    inside &= known
    significance = float(strength[inside].sum() / np.sqrt(np.count_nonzero(inside)))
    if lit[inside].mean() < LIT_SHARE or significance < STREAK_SIGMA:
        return None
    profile = np.median(light[inside], axis=0)
    width = _half_width(profile, noise * 1.25 / np.sqrt(np.count_nonzero(inside)))
    x, y, ux, uy, length = line
    first = 0.0 if span.start == 0 else max(middles[span.start] - PIECE_PX, 0.0)
    last = length if span.stop == len(lit) else min(middles[span.stop - 1] + PIECE_PX, length)
    return Streak(
        x + first * ux, y + first * uy, x + last * ux, y + last * uy,
        width + MARGIN_PX, float(np.median(height[inside])), significance,
    )  # fmt: skip


def _span(lit: BoolImage, known: BoolImage) -> slice | None:
    """From the first to the last lit piece, less lonely ones at the ends; None of too few."""
    best, score = None, 0
    where = np.flatnonzero(lit)
    for first in where[:3]:
        for last in where[-3:]:
            among = known[first : last + 1]
            n_lit = int(np.count_nonzero(lit[first : last + 1]))
            n_dark = int(np.count_nonzero(among)) - n_lit
            if n_lit - 2 * n_dark > score:
                best, score = slice(int(first), int(last) + 1), n_lit - 2 * n_dark
    return best if best is not None and best.stop - best.start >= FEWEST_PIECES else None


def _half_width(profile: Floats, noise: float) -> float:
    """Where the streak's profile has fallen into its noise, or below what is seen, on the farther side."""
    half = len(profile) // 2
    limit = max(FAINTEST_SIGMA, 2.5 * noise)
    reaches = []
    for side in (profile[half:], profile[half::-1]):
        dark = np.flatnonzero(side < limit)
        reaches.append(float(dark[0]) if dark.size else float(half))
    return max(*reaches, 1.0)


def _leave_out(bins: Float32Image, known: BoolImage, streak: Streak, corner: tuple[int, int]) -> None:
    """Bins that a streak touches count no more."""
    rows, columns = np.nonzero(known)
    x = np.asarray((columns + corner[1]) * float(BIN_PX) + (BIN_PX - 1) / 2)
    y = np.asarray((rows + corner[0]) * float(BIN_PX) + (BIN_PX - 1) / 2)
    along, across = streak.along_and_across(x, y)
    on = np.abs(across) < streak.half_width_px + BIN_PX
    on &= (along > -PIECE_PX) & (along < streak.length_px + PIECE_PX)
    bins[rows[on], columns[on]] = 0
    known[rows[on], columns[on]] = False


def _same(one: Streak, other: Streak) -> bool:
    """Whether a streak lies within another one."""
    _, off = other.along_and_across(np.array([one.x0, one.x1]), np.array([one.y0, one.y1]))
    return bool(np.all(np.abs(off) < other.half_width_px + one.half_width_px + BIN_PX))
