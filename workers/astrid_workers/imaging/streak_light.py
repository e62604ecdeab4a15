"""The light of a streak, pixel by pixel, so that it can be taken off.

Owns its profile across, piece by piece along, from medians: a star or a transient on the streak is not in it.
Never finds a streak.
"""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from astrid_workers.frame import Float32Image
from astrid_workers.imaging.grouped_median import grouped_median
from astrid_workers.imaging.streaks import Streak

BoolImage = NDArray[np.bool_]
Floats = NDArray[np.float64]
Indices = NDArray[np.intp]

#: Length of a piece and width of a bin across, pixels: a median of some sixty pixels.
PIECE_PX, BIN_PX = 128.0, 0.5
#: Width of what is looked at beside the streak, to see the sky under it, pixels.
BESIDE_PX = 8.0


def streak_light(
    image: Float32Image, usable: BoolImage, streak: Streak
) -> tuple[Indices, Indices, Float32Image]:
    """Rows, columns and light of the pixels of `streak`, above the sky beside it.

    `image` is background-subtracted; only `usable` pixels are asked. Between pieces and bins the light is
    interpolated.
    """
    rows, columns = streak.pixels(image.shape, BESIDE_PX)
    along, across = streak.along_and_across(columns.astype(float), rows.astype(float))
    asked = usable[rows, columns]
    pieces = max(1, round(streak.length_px / PIECE_PX))
    reach = streak.half_width_px + BESIDE_PX
    bins = 2 * int(np.ceil(reach / BIN_PX)) + 1
    piece = np.clip((along / streak.length_px * pieces).astype(int), 0, pieces - 1)
    place = np.clip(np.rint(across / BIN_PX).astype(int) + bins // 2, 0, bins - 1)
    profile = grouped_median(
        image[rows, columns][asked].astype(float), (piece * bins + place)[asked], pieces * bins
    )
    profile = profile.reshape(pieces, bins)
    offset = (np.arange(bins) - bins // 2) * BIN_PX
    beside = np.abs(offset) > streak.half_width_px
    sides = profile[:, beside]
    known = np.asarray(np.isfinite(sides).any(axis=1))
    level = np.nanmedian(np.where(known.reshape(-1, 1), sides, 0.0), axis=1)
    profile = np.where(beside, 0.0, np.nan_to_num(profile - level.reshape(-1, 1)))
    on = np.flatnonzero(np.abs(across) <= streak.half_width_px)
    where = np.stack([along[on] / streak.length_px * pieces - 0.5, across[on] / BIN_PX + bins // 2])
    light = ndimage.map_coordinates(profile, where, order=1, mode="nearest")
    return rows[on], columns[on], light.astype(np.float32)
