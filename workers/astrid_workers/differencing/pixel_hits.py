"""Whether a peak of the difference came through the telescope, or hit a pixel or two of the detector.

Owns the comparison of both explanations for frames so sharp that a star is hardly wider than a pixel: there
second moments tell little, and a likelihood all there is to know. Never looks beyond one stamp.
"""

from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from astrid_workers.imaging.moved_stamp import moved_stamp

Floats = NDArray[np.float64]
BoolStamp = NDArray[np.bool_]

#: FWHM up to which frames are looked at, pixels: in wider ones a hit is narrower by its second moment.
SHARPEST_PX = 2.5
#: Pixels about the peak that decide, and half the side of what is cut out for them.
REACH_PX, HALF_PX = 2.5, 4
#: Steps from its place that a point source is tried at, pixels.
STEPS = (-0.15, 0.0, 0.15)
#: By how much hits must leave less chi² than a point source: at least, and over the square of the S/N, which
#: a PSF that is a little wrong costs a strong one.
LEAST_GAIN, GAIN_PER_SNR2 = 5.0, 0.1
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

    Both are odd squares of sum 1 at one place, the first the larger or cut to it.
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


def is_pixel_hit(
    stamp: Floats,
    variance: Floats,
    good: BoolStamp,
    psf: NDArray[np.floating],
    hit: Floats,
    place: tuple[float, float],
    hit_place: tuple[float, float],
    snr: float,
) -> bool:
    """Whether one or two neighbouring hits of the peak's sign explain it better than a point source.

    `stamp`, `variance`, `good` (measured pixels), `psf` and `hit` (of the difference) are squares of one odd
    side, `stamp` signed so that the peak is positive; the source stands at `place` (x and y from the middle),
    the hit pixel nearest to it at `hit_place`.
    """
    middle = stamp.shape[0] // 2
    cut = (slice(middle - HALF_PX, middle + HALF_PX + 1),) * 2
    axis = np.arange(-HALF_PX, HALF_PX + 1)
    near = good[cut] & (np.hypot(axis[:, None], axis) <= REACH_PX)
    weight = (near / variance[cut]).ravel()
    data = stamp[cut].ravel()
    sources = [moved_stamp(psf, place[0] + x, place[1] + y)[cut].ravel() for x, y in product(STEPS, repeat=2)]
    by_source = max(_explained_alone(np.array(sources), weight, data))
    hits = moved_stamp(hit, *hit_place) if any(hit_place) else hit
    by_hits = _explained_by_hits(
        np.array([np.roll(hits, pixel, (0, 1))[cut].ravel() for pixel in _PIXELS]), weight, data
    )
    return bool(by_hits - by_source > max(LEAST_GAIN, GAIN_PER_SNR2 * snr**2))


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
