"""Whether a peak of the difference came through the telescope, or hit a pixel or two of the detector.

Owns the comparison of both explanations for frames so sharp that a star is hardly wider than a pixel: there
second moments tell little, and a likelihood all there is to know. Never looks beyond one stamp.
"""

from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from astrid_workers.imaging.moved_stamp import moved_middles

Floats = NDArray[np.float64]
BoolStamp = NDArray[np.bool_]

#: What chi² must gain over the square of the S/N: a PSF that is a little wrong costs a strong source so much.
GAIN_PER_SNR2 = 0.1
#: Pixels about the peak that decide, and half the side of what is cut out for them.
REACH_PX, HALF_PX = 2.5, 4
#: Steps from its place that a point source is tried at, pixels.
STEPS = (-0.3, -0.15, 0.0, 0.15, 0.3)
#: Power of the frame's PSF below which it is not undone: what it let through there is noise.
LEAST_POWER = 1e-3
#: Pixels about the peak, and pairs of them that touch.
_PIXELS = list(product((-1, 0, 1), repeat=2))
_PAIRS = np.array(
    [
        (i, j)
        for i, (row, column) in enumerate(_PIXELS)
        for j, (other_row, other_column) in enumerate(_PIXELS)
        if i < j and max(abs(row - other_row), abs(column - other_column)) == 1
    ]
)


def hit_profile(psf_of_difference: NDArray[np.floating], psf_of_frame: NDArray[np.floating]) -> Floats:
    """What a hit of one pixel of a frame becomes in the difference: its PSF without that of the frame.

    Both are odd squares at one place, the second of sum 1 and cut to the first where it is larger.
    """
    size = psf_of_difference.shape[0]
    seen = np.zeros((size, size))
    half, middle, centre = min(size, psf_of_frame.shape[0]) // 2, size // 2, psf_of_frame.shape[0] // 2
    seen[middle - half : middle + half + 1, middle - half : middle + half + 1] = psf_of_frame[
        centre - half : centre + half + 1, centre - half : centre + half + 1
    ]
    through = fft.rfft2(fft.ifftshift(seen))
    whole = fft.rfft2(fft.ifftshift(np.asarray(psf_of_difference, float)))
    without = whole * np.conj(through) / (np.abs(through) ** 2 + LEAST_POWER)
    return np.asarray(fft.fftshift(fft.irfft2(without, s=(size, size))))


def hit_gain(
    stamp: Floats,
    variance: Floats,
    good: BoolStamp,
    psf: NDArray[np.floating],
    hit: NDArray[np.floating],
    place: tuple[float, float],
    hit_place: tuple[float, float] = (0.0, 0.0),
) -> float:
    """By how much less chi² one or two neighbouring hits leave of a peak than a point source.

    `stamp`, `variance`, `good` (measured pixels), `psf` and `hit` (what a hit in the middle looks like) are
    odd squares about one pixel, `stamp` signed so that the peak is positive; the source stands at `place` (x
    and y from the middle), the hit that is nearest to it at `hit_place`.
    """
    middle = stamp.shape[0] // 2
    cut = (slice(middle - HALF_PX, middle + HALF_PX + 1),) * 2
    axis = np.arange(-HALF_PX, HALF_PX + 1)
    near = good[cut] & (np.hypot(axis[:, None], axis) <= REACH_PX)
    weight = (near / variance[cut]).ravel()
    data = stamp[cut].ravel()
    across, down = ([along + step for step in STEPS] for along in place)
    sources = moved_middles(psf, across, down, HALF_PX).reshape(len(STEPS) ** 2, -1)
    across, down = ([along + step for step in (-1, 0, 1)] for along in hit_place)
    hits = moved_middles(hit, across, down, HALF_PX).reshape(len(_PIXELS), -1)
    by_source = float(_explained_alone(sources, weight, data).max())
    return _explained_by_hits(hits, weight, data) - by_source


def _explained_alone(templates: Floats, weight: Floats, data: Floats) -> Floats:
    """What each of the templates `(n, pixels)`, with a flux that is not negative, takes off chi²."""
    side = np.maximum((templates * weight) @ data, 0.0)
    return np.asarray(side**2 / np.maximum(np.sum(templates**2 * weight, axis=1), 1e-30))


def _explained_by_hits(templates: Floats, weight: Floats, data: Floats) -> float:
    """The most that one of the templates or a pair that touches takes off chi², of fluxes not negative."""
    normal, side = (templates * weight) @ templates.T, (templates * weight) @ data
    i, j = _PAIRS.T
    power = np.diag(normal)
    determinant = power[i] * power[j] - normal[i, j] ** 2
    known = determinant > 1e-6 * power[i] * power[j]
    determinant = np.where(known, determinant, 1.0)
    first = (side[i] * power[j] - side[j] * normal[i, j]) / determinant
    second = (side[j] * power[i] - side[i] * normal[i, j]) / determinant
    both = np.where(known & (first > 0) & (second > 0), first * side[i] + second * side[j], 0.0)
    return float(max(both.max(), _explained_alone(templates, weight, data).max()))
