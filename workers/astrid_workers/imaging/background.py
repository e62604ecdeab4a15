"""The sky under the sources: its level and its scatter, pixel by pixel.

Owns one robust mesh estimate; never changes the image, and never looks at a header.
"""

from dataclasses import dataclass

import numpy as np
import sep
from numpy.typing import NDArray

from astrid_workers.errors import FrameRejected
from astrid_workers.frame import Float32Image
from astrid_workers.imaging.box_mean import box_mean
from astrid_workers.imaging.grow import grow_diamond
from astrid_workers.imaging.noise import clipped_scatter, robust_median_and_scatter

BoolImage = NDArray[np.bool_]

#: Side of a mesh cell in pixels: wide enough that the stars in it do not raise the sky's mode.
DEFAULT_BOX_PX = 128
#: Sigmas of the smoothed image's own scatter above which a pixel belongs to a source.
SOURCE_SIGMA = 3.0
#: Good pixels below which nothing can be said of the sky.
FEWEST_PIXELS = 64


@dataclass(frozen=True, slots=True, eq=False)
class Background:
    """Sky level and scatter on the image's grid, float32 `[y, x]`, in the image's unit, finite everywhere."""

    level: Float32Image
    #: Standard deviation of one pixel of blank sky.
    rms: Float32Image
    median: float
    rms_median: float
    #: Pixels that were taken for sources.
    sources: BoolImage


def estimate_background(
    image: Float32Image, unusable: BoolImage | None = None, *, box_px: int = DEFAULT_BOX_PX
) -> Background:
    """Sky level and rms of `image` (float32 `[y, x]`, finite) by a median-filtered mesh, in two passes.

    The first pass finds sources; the second leaves them out, with what surrounds them, so that neither
    crowding nor wings raise the sky. `unusable` pixels (True) count for nothing; the level is interpolated
    under them. `box_px` is the side of a mesh cell, and is halved until at least two cells fit each way.
    Raises FrameRejected when fewer than `FEWEST_PIXELS` pixels are usable.
    """
    masked = np.zeros(image.shape, bool) if unusable is None else unusable
    good = int(masked.size - np.count_nonzero(masked))
    if good < FEWEST_PIXELS:
        msg = f"{good} usable pixels of {masked.size}, need {FEWEST_PIXELS} to measure the sky"
        raise FrameRejected(msg, usable_pixels=good, required_pixels=FEWEST_PIXELS)
    box = _fitting_box(image.shape, box_px)
    pixels = np.ascontiguousarray(image, dtype=np.float32)
    centre, scatter = robust_median_and_scatter(pixels[~masked])
    scatter = scatter or float(np.std(pixels[~masked])) or float(np.finfo(np.float32).tiny)
    rough = _mesh(pixels, masked, box, scatter)
    sources = _source_pixels(pixels - rough[0], masked, rough[1])
    sky = ~(masked | sources)
    if np.count_nonzero(sky) < FEWEST_PIXELS:  # nothing but sources: take what the first pass said
        sky = ~masked
    fine = _mesh(pixels, ~sky, box, scatter)
    level = _tamed(fine[0], centre, image)
    rms = _rescaled(pixels, level, np.maximum(fine[1], np.float32(1e-30)), sky)
    usable = ~masked
    return Background(level, rms, float(np.median(level[usable])), float(np.median(rms[usable])), sources)


def _fitting_box(shape: tuple[int, ...], box_px: int) -> int:
    return int(max(8, min(box_px, min(shape) // 2)))


def _mesh(
    pixels: Float32Image, masked: BoolImage, box: int, scatter: float
) -> tuple[Float32Image, Float32Image]:
    """Level and rms of sep's clipped mode on a mesh, median-filtered 3 × 3."""
    flattened = np.where(masked, np.float32(0), pixels)
    mesh = sep.Background(flattened, mask=masked, bw=box, bh=box, fw=3, fh=3)
    level = mesh.back(dtype=np.float32)
    rms = mesh.rms(dtype=np.float32)
    if not np.all(rms > 0):  # a cell of equal pixels: integers of a noiseless sky
        rms = np.where(rms > 0, rms, np.float32(scatter))
    return level, rms


def _source_pixels(residual: Float32Image, masked: BoolImage, rms: Float32Image) -> BoolImage:
    """Pixels of sources: where the smoothed image stands out of its own scatter, and around."""
    residual[masked] = 0
    smooth = box_mean(residual, 5)
    smooth /= rms
    # masked pixels hold 0: counted, they would make any noise look like sources
    _, scatter = robust_median_and_scatter(smooth[::2, ::2][~masked[::2, ::2]])
    high = smooth > SOURCE_SIGMA * scatter
    return grow_diamond(high, 4)


def _rescaled(pixels: Float32Image, level: Float32Image, rms: Float32Image, sky: BoolImage) -> Float32Image:
    """`rms` times what makes the sky pixels' scatter one: the mesh clips at 3 sigma, which loses 1.5 %."""
    step = max(1, int(np.sqrt(sky.size / 1_000_000)))
    every = (slice(None, None, step), slice(None, None, step))
    pulls = ((pixels[every] - level[every]) / rms[every])[sky[every]]
    scatter = clipped_scatter(pulls)
    return rms * np.float32(scatter) if np.isfinite(scatter) and scatter > 0 else rms


def _tamed(level: Float32Image, centre: float, image: Float32Image) -> Float32Image:
    """Never outside what the image holds: a cell without good pixels may extrapolate wildly."""
    if np.all(np.isfinite(level)):
        return level
    return np.where(np.isfinite(level), level, np.float32(centre)).astype(image.dtype)
