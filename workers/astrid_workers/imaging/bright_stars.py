"""The bright stars of a pair, around which its PSF is seen to far out.

Owns which places are stars; never says what is around them. Places come from the light that was subtracted,
whose holes are filled, so that a star whose core is masked has one too.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from astrid_workers.frame import Float32Image

BoolImage = NDArray[np.bool_]
Floats = NDArray[np.float64]
Indices = NDArray[np.intp]

#: Places that are looked at per megapixel, the brightest, and the least light of one, in sigma of a point
#: source on the frame's sky: a spike holds some thousandths of a star's light.
MOST_PER_MPIX, LEAST_LIGHT_SIGMA = 100.0, 20.0
#: One place is looked at in each square of this many FWHM; its peak is looked for so far from it, so often.
APART_FWHM, PEAK_FWHM, CLIMBS = 4.0, 1.5, 2
#: Less than this share of a point's peak is left in its wing: 0.03 of a Moffat's with exponent 3, where
#: galaxies have 0.06 and more.
WING_SHARE = 0.07
#: Radii of the rings of the wing and of what is beside it, in FWHM, and their width in pixels.
WING_FWHM, BESIDE_FWHM, RING_PX = 1.5, 3.0, 1.5


def bright_stars(
    light: Float32Image, error: Float32Image, images: Sequence[Float32Image], fwhm_px: float
) -> tuple[Floats, Floats]:
    """x and y of the bright stars, brightest first, to a pixel.

    `light` is what was subtracted, filtered for points and in sigma, `error` that sigma as a flux; `images`
    are the frames with all of their pixels, masked ones too: masks may hold a sharp star's core. A star is a
    point in each of them, so that a galaxy which a cosmic ray hit is none.
    """
    rows, columns = _brightest(light, error, max(round(APART_FWHM * fwhm_px), 2))
    peaks = [_peaks(image, rows, columns, fwhm_px) for image in images]
    is_point = np.logical_and.reduce([is_point for _, _, is_point in peaks])
    rows, columns, _ = peaks[0]
    _, first = np.unique(np.stack([rows, columns]), axis=1, return_index=True)
    kept = np.sort(first[is_point[first]])
    return columns[kept].astype(float), rows[kept].astype(float)


def _brightest(light: Float32Image, error: Float32Image, side_px: int) -> tuple[Indices, Indices]:
    """Rows and columns of the largest value of each square of `side_px`, largest first."""
    values, rows, columns = [], [], []
    for top in range(0, light.shape[0], side_px):
        band = np.abs(light[top : top + side_px]) * error[top : top + side_px]
        best_row = np.argmax(band, axis=0)
        best = band[best_row, np.arange(band.shape[1])]
        padded = np.pad(best, (0, -len(best) % side_px), constant_values=-1).reshape(-1, side_px)
        column = np.argmax(padded, axis=1) + side_px * np.arange(len(padded))
        values.append(best[column])
        rows.append(top + best_row[column])
        columns.append(column)
    value, row, column = (np.concatenate(each) for each in (values, rows, columns))
    least = LEAST_LIGHT_SIGMA * float(np.median(error[::7, ::7]))
    most = max(round(MOST_PER_MPIX * light.size / 1e6), 10)
    order = np.argsort(-value, kind="stable")[:most]
    order = order[value[order] > least]
    return row[order], column[order]


def _peaks(
    image: Float32Image, rows: Indices, columns: Indices, fwhm_px: float
) -> tuple[Indices, Indices, BoolImage]:
    """Rows and columns of the peaks near places, and whether the light falls from there as a point's does."""
    for _ in range(CLIMBS):
        near, lines, places = _about(image, rows, columns, *_steps(-1.0, PEAK_FWHM * fwhm_px))
        best = np.argmax(near, axis=1)[:, None]
        rows, columns = (np.take_along_axis(each, best, axis=1)[:, 0] for each in (lines, places))
    wing, beside = (
        np.median(_about(image, rows, columns, *_ring(radius_fwhm * fwhm_px))[0], axis=1)
        for radius_fwhm in (WING_FWHM, BESIDE_FWHM)
    )
    peak = np.take_along_axis(near, best, axis=1)[:, 0]
    return rows, columns, np.asarray(wing - beside < WING_SHARE * (peak - beside))


def _ring(radius_px: float) -> tuple[Indices, Indices]:
    return _steps(radius_px - RING_PX / 2, radius_px + RING_PX / 2)


def _steps(inner_px: float, outer_px: float) -> tuple[Indices, Indices]:
    """Steps along rows and columns to the pixels between two radii."""
    reach = int(np.ceil(outer_px))
    down, across = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    radius = np.hypot(down, across)
    chosen = (radius > inner_px) & (radius < outer_px)
    return down[chosen], across[chosen]


def _about(
    image: Float32Image, rows: Indices, columns: Indices, down: Indices, across: Indices
) -> tuple[Float32Image, Indices, Indices]:
    """Pixels at steps from each place, `(places, steps)`, 0 for what is no number, and where they are; beyond
    the frame, its edge.
    """
    lines = np.clip(rows[:, None] + down, 0, image.shape[0] - 1)
    places = np.clip(columns[:, None] + across, 0, image.shape[1] - 1)
    return np.nan_to_num(image[lines, places], posinf=0.0, neginf=0.0), lines, places
