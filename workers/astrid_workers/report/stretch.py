"""How an image becomes levels of colour.

Owns stretches, colour scales and averaging in blocks; never draws and never measures anything.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from astrid_workers.imaging.fast_median import fast_median

Image = NDArray[np.floating]
Levels = NDArray[np.uint8]
Stretch = Literal["sky", "signed", "decades", "range"]

#: Longest side of a frame in a picture, pixels; larger frames are averaged in blocks.
MOST_PIXELS = 560
#: The level of what was not measured, and its grey.
UNMEASURED, UNMEASURED_GREY = 255, 200
#: Anchors of each scale from low to high. RdBu and viridis are told apart by every kind of colour vision.
_ANCHORS: dict[Stretch, tuple[str, ...]] = {
    "sky": ("000000", "ffffff"),
    "signed": (
        "053061", "2166ac", "4393c3", "92c5de", "d1e5f0", "f7f7f7",
        "fddbc7", "f4a582", "d6604d", "b2182b", "67001f",
    ),
    "decades": (
        "440154", "482475", "414487", "355f8d", "2a788e", "21918c",
        "22a884", "44bf70", "7ad151", "bddf26", "fde725",
    ),
}  # fmt: skip
_ANCHORS["range"] = _ANCHORS["decades"]


@dataclass(frozen=True, slots=True, eq=False)
class Panel:
    """One image with its title and how it is stretched: `sky` from the sky up, `signed` about zero, `decades`
    logarithmically over four below the maximum, `range` linearly over all of its values.
    """

    image: Image
    title: str
    stretch: Stretch
    #: For `signed`: the value of the darkest colour; None: five times the scatter.
    limit: float | None = None


def levels(panel: Panel) -> Levels:
    """The panel, averaged to what is shown, as indices of `palette`; the first row is the image's last."""
    image = block_mean(panel.image)
    if panel.stretch == "sky":
        low, high = sky_limits(image)
        share = np.arcsinh((image - low) / (high - low) * 5) / np.arcsinh(5)
    elif panel.stretch == "decades":
        share = np.log10(np.maximum(image / np.max(image), 1e-4)) / 4 + 1
    elif panel.stretch == "range":
        low, high = float(np.nanmin(image)), float(np.nanmax(image))
        share = (image - low) / max(high - low, 1e-30)
    else:
        limit = panel.limit or _signed_limit(image)
        share = (image / limit + 1) / 2
    measured = np.isfinite(share)
    shown = np.clip(np.where(measured, share, 0), 0, 1) * (UNMEASURED - 1)
    index = np.where(measured, np.rint(shown), UNMEASURED)[::-1]
    return np.asarray(index, dtype=np.uint8)


@lru_cache(maxsize=4)
def palette(stretch: Stretch) -> Levels:
    """The colours of a stretch's levels, `(256, 3)`."""
    anchors = np.array([[int(code[i : i + 2], 16) for i in (0, 2, 4)] for code in _ANCHORS[stretch]])
    at = np.linspace(0, len(anchors) - 1, UNMEASURED)
    colours = np.stack([np.interp(at, np.arange(len(anchors)), anchors[:, k]) for k in range(3)], axis=1)
    return np.asarray(np.rint(np.vstack([colours, np.full((1, 3), UNMEASURED_GREY)])), dtype=np.uint8)


def block_mean(image: Image, most: int = MOST_PIXELS) -> Image:
    """The image averaged in blocks so that no side exceeds `most`; NaN counts for nothing."""
    step = -(-max(image.shape) // most)
    if step == 1:
        return image
    ny, nx = (side // step for side in image.shape)
    whole = image[: ny * step, : nx * step]
    down = np.zeros((ny, nx * step), np.float32)
    for offset in range(step):
        down += whole[offset::step]
    total = np.zeros((ny, nx), np.float32)
    for offset in range(step):
        total += down[:, offset::step]
    mean = total / np.float32(step**2)
    # most blocks are measured whole; of the others the pixels that are
    partly = np.nonzero(~np.isfinite(mean))
    blocks = whole.reshape(ny, step, nx, step)[partly[0], :, partly[1], :]
    measured = np.isfinite(blocks)
    n = np.count_nonzero(measured, axis=(1, 2))
    total = np.where(measured, blocks, 0).sum(axis=(1, 2), dtype=np.float32)
    mean[partly] = np.where(n > 0, total / np.maximum(n, 1), np.nan)
    return mean


def sky_limits(image: Image) -> tuple[float, float]:
    """Black and white of a sky: a little below the median, and far enough up for faint sources."""
    values = image[np.isfinite(image)]
    if values.size == 0:
        return 0.0, 1.0
    median = float(fast_median(values))
    scatter = float(1.4826 * fast_median(np.abs(values - median)))
    top = max(median + 12 * scatter, float(np.percentile(values, 99.0)))
    return median - 2 * scatter, top if top > median - 2 * scatter else median + 1.0


def _signed_limit(image: Image) -> float:
    values = image[np.isfinite(image)]
    scatter = float(1.4826 * fast_median(np.abs(values - fast_median(values)))) if values.size else 0.0
    return 5 * scatter if scatter > 0 else 1.0
