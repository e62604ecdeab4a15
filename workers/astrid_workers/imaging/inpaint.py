"""Values for pixels that were not measured, so that a Fourier transform does not ring.

Owns the filling of masked pixels from the other frame and from the neighbourhood; never claims that they were
measured: the mask travels on, with `INTERPOLATED` set by the caller.
"""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from astrid_workers.frame import Float32Image

BoolImage = NDArray[np.bool_]

#: Kernel sigmas, in pixels, of the successive passes that fill a hole from its rim inwards.
_SIGMAS = (1.0, 3.0, 9.0)
#: Share of the kernel's weight that must come from measured pixels before a pass may fill a pixel.
_ENOUGH = 0.05


def fill_smoothly(image: Float32Image, hole: BoolImage) -> Float32Image:
    """A copy of float32 `image` with `hole` filled by normalised Gaussian averages of what surrounds it.

    Narrow kernels fill the rim, wider ones the middle; what even the widest does not reach is 0 (the sky of a
    background-subtracted image). Only the neighbourhood of holes is computed.
    """
    filled = np.where(hole, np.float32(0), image)
    for window in _windows(hole):
        part, left = filled[window], hole[window].copy()
        known = (~left).astype(np.float32)
        for sigma in _SIGMAS:
            if not left.any():
                break
            weight = ndimage.gaussian_filter(known, sigma, mode="nearest", truncate=3)
            value = ndimage.gaussian_filter(part * known, sigma, mode="nearest", truncate=3)
            reached = left & (weight > _ENOUGH)
            part[reached] = value[reached] / weight[reached]
            left &= ~reached
    return filled


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
    science_hole, reference_hole = holes
    blurred_reference = _blurred(fill_smoothly(reference, reference_hole), blur_px) * np.float32(gain)
    blurred_science = _blurred(fill_smoothly(science, science_hole), -blur_px) / np.float32(gain)
    return (
        _filled_across(science, science_hole, reference_hole, blurred_reference),
        _filled_across(reference, reference_hole, science_hole, blurred_science),
    )


def _blurred(image: Float32Image, sigma: float) -> Float32Image:
    if sigma < 0.3:
        return image
    blurred: Float32Image = ndimage.gaussian_filter(image, sigma, mode="nearest", truncate=4)
    return blurred


def _filled_across(
    image: Float32Image, hole: BoolImage, other_hole: BoolImage, other: Float32Image
) -> Float32Image:
    residual = fill_smoothly(image - other, hole)
    across = other + residual
    both = hole & other_hole
    smooth = fill_smoothly(image, hole) if both.any() else image
    return np.where(both, smooth, np.where(hole, across, image)).astype(np.float32)


def _windows(hole: BoolImage) -> list[tuple[slice, slice]]:
    """Boxes around the holes with room for the widest kernel; one box for the whole frame when they are
    many.
    """
    labels, count = ndimage.label(ndimage.binary_dilation(hole, iterations=6))
    if count == 0:
        return []
    margin = int(3 * max(_SIGMAS))
    found = ndimage.find_objects(labels)
    area = sum((s[0].stop - s[0].start + 2 * margin) * (s[1].stop - s[1].start + 2 * margin) for s in found)
    if area > hole.size:
        return [(slice(0, hole.shape[0]), slice(0, hole.shape[1]))]
    return [
        (
            slice(max(s[0].start - margin, 0), s[0].stop + margin),
            slice(max(s[1].start - margin, 0), s[1].stop + margin),
        )
        for s in found
    ]
