"""Images pasted on one sheet, with titles, labels and circles.

Owns stretches, the colours of pixels and where they are pasted; never measures anything. All pixels are one
array and one artist: forty plots would take ten times as long to draw.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.collections import EllipseCollection
from matplotlib.figure import Figure
from matplotlib.transforms import IdentityTransform
from numpy.typing import NDArray

from astrid_workers.report.drawing import DPI, NEGATIVE, POSITIVE, empty_figure, png_of

Image = NDArray[np.floating]
Pixels = NDArray[np.uint8]
Stretch = Literal["sky", "signed", "decades"]

#: Longest side of a frame in a picture, pixels; larger frames are averaged in blocks.
MOST_PIXELS = 560
#: Levels of grey and red of what was not measured, of the paper and of the line around an image.
UNMEASURED, PAPER, LINE = 216, 255, 0
#: Colours of each stretch, by matplotlib's names.
_SCALES: dict[Stretch, str] = {"sky": "gray", "signed": "RdBu_r", "decades": "viridis"}
#: Room above an image for its title, pixels.
TITLE_PX = 28
#: Diameter of a circle: this share of the image's width, and at least so many of its pixels.
CIRCLE_SHARE, CIRCLE_PX = 1 / 30, 8


@dataclass(frozen=True, slots=True, eq=False)
class Panel:
    """One image with its title and how it is stretched: `sky` from the sky up, `signed` about zero, `decades`
    logarithmically over four below the maximum.
    """

    image: Image
    title: str
    stretch: Stretch
    #: For `signed`: the value of the darkest colour; None: five times the scatter.
    limit: float | None = None


@dataclass(frozen=True, slots=True)
class Mark:
    """A circle at a pixel position."""

    x: float
    y: float
    is_positive: bool


class Sheet:
    """Paper of so many dots; places on it are dots from its left and its top."""

    def __init__(self, width: int, height: int) -> None:
        self._pixels = np.full((max(height, DPI), width, 3), PAPER, np.uint8)
        self._figure: Figure = empty_figure(width / DPI, height / DPI, layout=None)

    def paste(self, pixels: Pixels, left: int, top: int, title: str = "") -> None:
        """Lay `pixels` `(height, width, 3)` down, a line about them, the title above."""
        height, width = pixels.shape[:2]
        self._pixels[top : top + height, left : left + width] = LINE
        self._pixels[top + 1 : top + height - 1, left + 1 : left + width - 1] = pixels[1:-1, 1:-1]
        if title:
            self.write(title, left + width / 2, top - 6, ha="center", va="baseline", fontsize=10)

    def write(self, text: str, left: float, top: float, **style: Any) -> None:
        """Text at a place; `style` is matplotlib's."""
        height, width = self._pixels.shape[:2]
        self._figure.text(left / width, 1 - top / height, text, **style)

    def circle(self, marks: Sequence[Mark], shape: tuple[int, int], box: tuple[int, int, int, int]) -> None:
        """Circles on an image of `shape` that was pasted into `box` (left, top, width, height); dashed where
        negative.
        """
        left, top, width, height = box
        (ny, nx), bottom = shape, self._pixels.shape[0] - top - height
        across = max(width * CIRCLE_SHARE, CIRCLE_PX * width / nx)
        for is_positive, colour, style in ((True, POSITIVE, "-"), (False, NEGATIVE, "--")):
            chosen = [mark for mark in marks if mark.is_positive == is_positive]
            if not chosen:
                continue
            x = left + (np.array([mark.x for mark in chosen]) + 0.5) * width / nx
            y = bottom + (np.array([mark.y for mark in chosen]) + 0.5) * height / ny
            self._figure.add_artist(
                EllipseCollection(
                    [across], [across], [0], units="dots", offsets=np.column_stack([x, y]),
                    offset_transform=IdentityTransform(), facecolors="none", edgecolors=colour,
                    linewidths=1.1, linestyles=style,
                )
            )  # fmt: skip

    def plot(self, left: int, top: int, width: int, height: int) -> Axes:
        """Empty axes in a box, without minor ticks: hundreds of artists that nobody reads."""
        tall, wide = self._pixels.shape[:2]
        axes = self._figure.add_axes((left / wide, 1 - (top + height) / tall, width / wide, height / tall))
        axes.grid(alpha=0.3)
        return axes

    def png(self) -> bytes:
        """The sheet as it is seen."""
        self._figure.figimage(self._pixels, 0, 0, origin="upper", zorder=-1)
        return png_of(self._figure)


def painted(panel: Panel, width: int, height: int) -> Pixels:
    """The panel in colours, `(height, width, 3)`, its first row at the bottom."""
    image = block_mean(panel.image)
    if panel.stretch == "sky":
        low, high = sky_limits(image)
        share = np.arcsinh((image - low) / (high - low) * 5) / np.arcsinh(5)
    elif panel.stretch == "decades":
        share = np.log10(np.maximum(image / np.max(image), 1e-4)) / 4 + 1
    else:
        limit = panel.limit or _signed_limit(image)
        share = (image / limit + 1) / 2
    measured = np.isfinite(share)
    index = np.where(measured, np.clip(share, 0, 1) * 255, 256).astype(np.intp)
    rows = (np.arange(height)[::-1] + 0.5) * image.shape[0] / height
    columns = (np.arange(width) + 0.5) * image.shape[1] / width
    seen = index[rows.astype(np.intp)[:, None], columns.astype(np.intp)[None, :]]
    pixels: Pixels = _colours(panel.stretch)[seen]
    return pixels


@lru_cache(maxsize=3)
def _colours(stretch: Stretch) -> Pixels:
    """256 colours from low to high, and that of what was not measured."""
    scale = colormaps[_SCALES[stretch]](np.arange(256), bytes=True)[:, :3]
    return np.vstack([scale, np.full((1, 3), UNMEASURED)]).astype(np.uint8)


def block_mean(image: Image, most: int = MOST_PIXELS) -> Image:
    """The image averaged in blocks so that no side exceeds `most`; NaN counts for nothing."""
    step = -(-max(image.shape) // most)
    if step == 1:
        return image
    ny, nx = (side // step for side in image.shape)
    total, n = np.zeros((ny, nx * step), np.float32), np.zeros((ny, nx * step), np.float32)
    for offset in range(step):
        rows = image[offset : ny * step : step, : nx * step]
        measured = np.isfinite(rows)
        total += np.where(measured, rows, 0)
        n += measured
    total, n = (plane.reshape(ny, nx, step).sum(axis=2) for plane in (total, n))
    return np.where(n > 0, total / np.maximum(n, 1), np.nan)


def sky_limits(image: Image) -> tuple[float, float]:
    """Black and white of a sky: a little below the median, and far enough up for faint sources."""
    values = image[np.isfinite(image)]
    if values.size == 0:
        return 0.0, 1.0
    median = float(np.median(values))
    scatter = float(1.4826 * np.median(np.abs(values - median)))
    top = max(median + 12 * scatter, float(np.percentile(values, 99.0)))
    return median - 2 * scatter, top if top > median - 2 * scatter else median + 1.0


def _signed_limit(image: Image) -> float:
    values = image[np.isfinite(image)]
    scatter = float(1.4826 * np.median(np.abs(values - np.median(values)))) if values.size else 0.0
    return 5 * scatter if scatter > 0 else 1.0
