"""Values for pixels that were not measured, so that a Fourier transform does not ring.

Owns the filling of masked pixels from the other frame and from the neighbourhood; never claims that they were
measured: the mask travels on, with `INTERPOLATED` set by the caller.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from astrid_workers.frame import Float32Image
from astrid_workers.imaging.out_of_core import empty_plane, let_go

BoolImage = NDArray[np.bool_]

#: Reach and sigma of the kernel with which a rim is filled from what is known, pixels.
_REACH, _SIGMA = 3, 1.5
#: Share of the kernel's weight that must be known before a pixel is filled in this round.
_ENOUGH = 0.2
#: Each round fills the next rim inwards and fades towards the sky, so that wide holes end at 0.
_ROUNDS, _FADE = 24, 0.95
#: Sigmas at which a blur ends.
_TRUNCATE = 4
#: Rows that are filled together: bounds what is computed on the way.
BAND_ROWS = 2048


def fill_smoothly(image: Float32Image, hole: BoolImage) -> Float32Image:
    """A copy of float32 `image` with `hole` filled from its rim inwards by Gaussian averages of what is
    known.

    The values fade with depth; what lies deeper than about `_ROUNDS` pixels is 0, the sky of a
    background-subtracted image. Only pixels of holes are computed.
    """
    filled = np.pad(np.where(hole, np.float32(0), image), _REACH)
    if hole.any():
        _fill_rims(filled, np.pad(~hole, _REACH), hole)
    return np.ascontiguousarray(filled[_REACH:-_REACH, _REACH:-_REACH])


def _fill_rims(filled: Float32Image, known: BoolImage, hole: BoolImage) -> None:
    """Fill in place, round by round; `filled` and `known` are padded by the kernel's reach."""
    width = filled.shape[1]
    axis = np.arange(-_REACH, _REACH + 1)
    offsets = (axis[:, None] * width + axis[None, :]).ravel()
    weights = np.exp(-0.5 * (axis[:, None] ** 2 + axis[None, :] ** 2) / _SIGMA**2).ravel().astype(np.float32)
    weights /= weights.sum()
    touching = np.array([-1, 1, -width, width])
    values, is_known, is_hole = filled.ravel(), known.ravel(), np.pad(hole, _REACH).ravel()
    rim = _rim(hole, width)
    fade = np.float32(1.0)
    for _ in range(_ROUNDS):
        if rim.size == 0:
            break
        around = rim[:, None] + offsets
        share = is_known[around] * weights
        total = share.sum(axis=1)
        ready = total > _ENOUGH
        values[rim[ready]] = fade * (share[ready] * values[around[ready]]).sum(axis=1) / total[ready]
        is_known[rim[ready]] = True
        if not ready.any():
            break
        beside = np.append((rim[ready, None] + touching).ravel(), rim[~ready])
        rim = np.unique(beside[is_hole[beside] & ~is_known[beside]])
        fade = np.float32(_FADE)


def _rim(hole: BoolImage, width: int) -> NDArray[np.intp]:
    """Pixels of holes beside one that is known, in a padded plane so wide."""
    inner = hole.copy()
    inner[1:] &= hole[:-1]
    inner[:-1] &= hole[1:]
    inner[:, 1:] &= hole[:, :-1]
    inner[:, :-1] &= hole[:, 1:]
    rows, columns = np.nonzero(hole & ~inner)
    return np.asarray((rows + _REACH) * width + columns + _REACH)


def fill_pair(
    science: Float32Image,
    reference: Float32Image,
    holes: tuple[BoolImage, BoolImage],
    gain: float,
    blur_px: float,
) -> tuple[Float32Image, Float32Image]:
    """Both frames filled where they have holes: from the other frame where that was measured, else smoothly.

    `science ≈ gain × reference`, of which the sharper one is blurred by a Gaussian of sigma `|blur_px|`
    (positive: the reference is sharper). What is filled across is the other frame plus the smooth difference
    around the hole, so that nothing steps at its rim. Background-subtracted float32 in and out.
    """
    filled = (empty_plane(_shape(science)), empty_plane(_shape(reference)))
    for band in _bands(len(science), blur_px):
        inner = slice(band.rows.start - band.around.start, band.rows.stop - band.around.start)
        both = (science[band.around], reference[band.around])
        parts = (holes[0][band.around], holes[1][band.around])
        for plane, part in zip(filled, _filled_band(both, parts, gain, blur_px), strict=True):
            plane[band.rows] = part[inner]
        let_go(*filled)
    return filled


@dataclass(frozen=True, slots=True)
class _Band:
    """Rows of a frame that are filled together, and the rows that tell what they are filled with."""

    rows: slice
    around: slice


def _bands(n_rows: int, blur_px: float) -> list[_Band]:
    """Bands that cover a frame; what is filled in one is the same to the bit as without bands."""
    margin = _REACH * (_ROUNDS + 1) * 2 + int(np.ceil(_TRUNCATE * abs(blur_px))) + 1
    return [
        _Band(
            slice(start, min(start + BAND_ROWS, n_rows)),
            slice(max(start - margin, 0), min(start + BAND_ROWS + margin, n_rows)),
        )
        for start in range(0, n_rows, BAND_ROWS)
    ]


def _filled_band(
    images: tuple[Float32Image, Float32Image], holes: tuple[BoolImage, BoolImage], gain: float, blur_px: float
) -> tuple[Float32Image, Float32Image]:
    science, reference = images
    science_hole, reference_hole = holes
    smooth_science, smooth_reference = (fill_smoothly(*each) for each in zip(images, holes, strict=True))
    blurred = _blurred(smooth_reference, blur_px) * np.float32(gain)
    filled_science = _filled_across(science, science_hole, reference_hole, blurred, smooth_science)
    blurred = _blurred(smooth_science, -blur_px) / np.float32(gain)
    return filled_science, _filled_across(reference, reference_hole, science_hole, blurred, smooth_reference)


def _shape(image: Float32Image) -> tuple[int, int]:
    ny, nx = image.shape
    return ny, nx


def _blurred(image: Float32Image, sigma: float) -> Float32Image:
    if sigma < 0.3:
        return image
    blurred: Float32Image = ndimage.gaussian_filter(image, sigma, mode="nearest", truncate=_TRUNCATE)
    return blurred


def _filled_across(
    image: Float32Image, hole: BoolImage, other_hole: BoolImage, other: Float32Image, smooth: Float32Image
) -> Float32Image:
    """`image`, its hole filled from `other`, or as in `smooth` where that has a hole as well."""
    filled = other + fill_smoothly(image - other, hole)
    np.copyto(filled, image, where=~hole)
    np.copyto(filled, smooth, where=hole & other_hole)
    return filled
