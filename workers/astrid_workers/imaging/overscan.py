"""The strips of a raw frame that saw no light: their level taken off, and cut away, amplifier by amplifier.

Owns the arithmetic on pixels; which sections a header names is `storage.fits_sections`' business.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from astrid_workers.frame import Float32Image

#: Lines over which an overscan's medians are smoothed: slow drifts are followed, read-out noise is not.
SMOOTHING_PX = 16.0


@dataclass(frozen=True, slots=True)
class Section:
    """A rectangle of pixels, 0-based and half-open."""

    y0: int
    y1: int
    x0: int
    x1: int

    @property
    def slices(self) -> tuple[slice, slice]:
        """For indexing `[y, x]`."""
        return slice(self.y0, self.y1), slice(self.x0, self.x1)

    def overlaps(self, other: "Section") -> bool:
        """Whether they share a pixel."""
        return self.x0 < other.x1 and other.x0 < self.x1 and self.y0 < other.y1 and other.y0 < self.y1


@dataclass(frozen=True, slots=True)
class Amplifier:
    """One read-out channel: where its light and its overscan lie, and what its counts are multiplied with."""

    data: Section
    #: None: no overscan of its own; its counts are taken as they are.
    overscan: Section | None
    #: Its gain over the mean of all.
    factor: float = 1.0


@dataclass(frozen=True, slots=True)
class Layout:
    """The amplifiers of one image, and the rows and columns that are left when the rest is cut away."""

    amplifiers: tuple[Amplifier, ...]
    #: `(ny, nx)` of the raw image.
    raw_shape: tuple[int, int]
    #: Rows and columns of the raw image that hold light, ascending.
    rows: tuple[tuple[int, int], ...]
    columns: tuple[tuple[int, int], ...]

    @property
    def shape(self) -> tuple[int, int]:
        """`(ny, nx)` after trimming."""
        return sum(b - a for a, b in self.rows), sum(b - a for a, b in self.columns)

    @property
    def origin(self) -> tuple[int, int] | None:
        """`(y, x)` of the first pixel in the raw image; None when parts were moved against each other."""
        whole = len(self.rows) == 1 and len(self.columns) == 1
        return (self.rows[0][0], self.columns[0][0]) if whole else None

    def takes(self, shape: tuple[int, ...]) -> bool:
        """Whether a plane of `shape` is to be trimmed as the raw image is."""
        return shape == self.raw_shape

    def trim(self, plane: NDArray[np.generic]) -> NDArray[np.generic]:
        """The pixels that hold light of a plane of the raw shape."""
        rows = np.concatenate([np.arange(a, b) for a, b in self.rows])
        columns = np.concatenate([np.arange(a, b) for a, b in self.columns])
        return np.asarray(plane[rows[:, None], columns[None, :]])


def layout_of(amplifiers: Sequence[Amplifier], raw_shape: tuple[int, int]) -> Layout:
    """Rows and columns that the amplifiers' data cover; strips between them close up."""
    return Layout(
        tuple(amplifiers),
        raw_shape,
        _joined([(a.data.y0, a.data.y1) for a in amplifiers]),
        _joined([(a.data.x0, a.data.x1) for a in amplifiers]),
    )


def _joined(spans: Sequence[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """Spans sorted, those that touch or overlap as one."""
    joined: list[tuple[int, int]] = []
    for low, high in sorted(spans):
        if joined and low <= joined[-1][1]:
            joined[-1] = joined[-1][0], max(joined[-1][1], high)
        else:
            joined.append((low, high))
    return tuple(joined)


def without_overscan(pixels: Float32Image, layout: Layout) -> tuple[Float32Image, float]:
    """Raw `pixels` (NaN where not measured) trimmed, levels taken off, amplifiers on one gain; and the level.

    The level of a strip beside the data is followed along it, line by line; that of one elsewhere is
    constant. The second value is the median level of all strips, 0 without any.
    """
    work = pixels.copy()
    levels = []
    for one in layout.amplifiers:
        if one.overscan is not None:
            level = _level(pixels[one.overscan.slices], one)
            levels.append(float(np.median(level)))
            work[one.data.slices] -= level
        work[one.data.slices] *= np.float32(one.factor)
    trimmed: Float32Image = layout.trim(work).astype(np.float32)
    return trimmed, float(np.median(levels)) if levels else 0.0


def _level(strip: Float32Image, one: Amplifier) -> Float32Image:
    """What is taken off an amplifier's data; broadcasts against it."""
    data, overscan = one.data, one.overscan
    assert overscan is not None
    seen = strip[np.isfinite(strip)]
    whole = np.where(np.isfinite(strip), strip, np.median(seen) if seen.size else np.float32(0))
    for axis, (low, high), (start, stop) in (
        (1, (overscan.y0, overscan.y1), (data.y0, data.y1)),
        (0, (overscan.x0, overscan.x1), (data.x0, data.x1)),
    ):
        if low <= start and high >= stop:
            lines = np.median(whole, axis=axis)
            smooth = ndimage.gaussian_filter1d(lines, SMOOTHING_PX, mode="nearest")
            part = smooth[start - low : stop - low].astype(np.float32)
            return np.asarray(part[:, None] if axis == 1 else part[None, :])
    return np.full((1, 1), np.median(whole), np.float32)
