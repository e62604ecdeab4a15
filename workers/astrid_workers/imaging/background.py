"""The sky under the sources: its level and its scatter, pixel by pixel.

Owns one robust mesh estimate, and a finer one for skies that it does not describe; never changes the image,
and never looks at a header.
"""

from copy import copy
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import sep
from numpy.typing import NDArray

from astrid_workers.errors import FrameRejected
from astrid_workers.frame import Float32Image
from astrid_workers.imaging.box_mean import box_mean
from astrid_workers.imaging.fast_median import fast_median
from astrid_workers.imaging.grow import grow_diamond
from astrid_workers.imaging.noise import (
    ENOUGH_VALUES,
    clipped_scatter,
    regular_sample,
    robust_median_and_scatter,
)
from astrid_workers.imaging.sky_structure import is_structured, noise_varies

BoolImage = NDArray[np.bool_]

#: Side of a mesh cell in pixels: wide enough that the stars in it do not raise the sky's mode.
DEFAULT_BOX_PX = 128
#: The same where the sky itself has structure, or noise that changes within a wide cell.
FINE_BOX_PX = 32
#: Side of the square that a source must stand out of where the sky has structure.
SHARP_PX = 25
#: Sigmas of the smoothed image's own scatter above which a pixel belongs to a source.
SOURCE_SIGMA = 3.0
#: Good pixels below which nothing can be said of the sky.
FEWEST_PIXELS = 64
#: Sigmas by which the sky may differ from one cell to the next before its slope is measured first.
STEEP_SIGMA = 3.0
#: Usable share of a cell below which sep leaves it out, and a little more; share of cells like that above
#: which their own pixels are used, since too few others are left to interpolate from.
LEAST_USABLE, MOST_LEFT_OUT = 0.55, 0.25


class Planes(Protocol):
    """Level and rms at every pixel, as `Background` hands them on."""

    @property
    def level(self) -> Float32Image: ...
    @property
    def rms(self) -> Float32Image: ...
    def forget(self) -> None:
        """Give back the memory of both; who asks again has them made again."""

    def times(self, factor: float) -> "Planes":
        """Both in a unit of which there are so many in the present one."""


@dataclass(frozen=True, slots=True, eq=False)
class Background:
    """Sky level and scatter on the image's grid, float32 `[y, x]`, in the image's unit, finite everywhere."""

    planes: Planes
    median: float
    rms_median: float
    #: Pixels that were taken for sources.
    sources: BoolImage
    #: The sky was taken for one with structure.
    is_structured: bool = False

    @property
    def level(self) -> Float32Image:
        """The sky's level."""
        return self.planes.level

    @property
    def rms(self) -> Float32Image:
        """Standard deviation of one pixel of blank sky."""
        return self.planes.rms

    def times(self, factor: float) -> "Background":
        """The sky of the image times `factor`."""
        return replace(
            self,
            planes=self.planes.times(factor),
            median=self.median * factor,
            rms_median=self.rms_median * factor,
        )

    def within(self, window: tuple[slice, slice]) -> "Background":
        """The part of it in a window."""
        return replace(self, planes=_PlanesWithin(self.planes, window), sources=self.sources[window])


def estimate_background(
    image: Float32Image,
    unusable: BoolImage | None = None,
    *,
    box_px: int = DEFAULT_BOX_PX,
    has_structure: bool = False,
) -> Background:
    """Sky level and rms of `image` (float32 `[y, x]`, finite) by a median-filtered mesh, in two passes.

    The first pass finds sources; the second leaves them out, with what surrounds them, so that neither
    crowding nor wings raise the sky. `unusable` pixels (True) count for nothing; the level is interpolated
    under them. `box_px` is the side of a mesh cell, and is halved until at least two cells fit each way.
    Where the sky has structure (`sky_structure.py`) cells are `FINE_BOX_PX` wide, and the rms is that of
    neighbours' differences, to which structure is no noise; so it is where noise changes within a cell.
    `has_structure` says so beforehand.
    Raises FrameRejected when fewer than `FEWEST_PIXELS` pixels are usable.
    """
    masked = np.zeros(image.shape, bool) if unusable is None else np.ascontiguousarray(unusable)
    good = int(masked.size - np.count_nonzero(masked))
    if good < FEWEST_PIXELS:
        msg = f"{good} usable pixels of {masked.size}, need {FEWEST_PIXELS} to measure the sky"
        raise FrameRejected(msg, usable_pixels=good, required_pixels=FEWEST_PIXELS)
    box = _fitting_box(image.shape, box_px)
    pixels = np.ascontiguousarray(image, dtype=np.float32)
    planes, sources, sky = _two_passes(pixels, masked, box)
    planes.rescale(_scatter_of_sky(pixels, planes.level, planes.rms, sky))
    fine = min(box, FINE_BOX_PX)
    has_structure = has_structure or is_structured(pixels, planes.level, planes.rms, sky)
    if has_structure:
        planes, sources = _structured(pixels, masked, fine)
    elif noise_varies(pixels, planes.rms, sky):
        planes.noise_is(_NoiseMesh(pixels, sky, fine))
        planes.rescale(_scatter_of_sky(pixels, planes.level, planes.rms, sky))
    usable = ~masked
    medians = [float(fast_median(regular_sample(plane, usable))) for plane in (planes.level, planes.rms)]
    return Background(planes, medians[0], medians[1], sources, has_structure)


def _two_passes(
    pixels: Float32Image, masked: BoolImage, box: int
) -> "tuple[_MeshPlanes, BoolImage, BoolImage]":
    """A mesh of cells of `box` pixels, the sources that were left out of it, and the sky that it is of."""
    centre, scatter = _usual(pixels, masked)
    rough = _MeshPlanes(_mesh(pixels, masked, box), centre, scatter)
    typical = float(fast_median(regular_sample(rough.rms, ~masked)))
    is_steep = _steepest(rough.level, box) > STEEP_SIGMA * typical
    if is_steep:  # a slope within a cell would count as noise, and bend what is interpolated
        rough = _MeshPlanes(_mesh(pixels - rough.level, masked, box, smooth=1), centre, scatter, rough)
    residual = pixels - rough.level
    image = residual.copy() if is_steep else pixels
    sources = _source_pixels(residual, masked, rough.rms)
    del residual
    rough.forget()
    mesh = _mesh(image, ~(sky := _sky_of(masked, sources)), box, smooth=1 if is_steep else 3)
    return _MeshPlanes(mesh, centre, scatter, rough if is_steep else None), sources, sky


def _structured(pixels: Float32Image, masked: BoolImage, box: int) -> "tuple[_MeshPlanes, BoolImage]":
    """The same of fine cells, none filtered over its neighbours, where sources are what is sharp alone."""
    usual = _usual(pixels, masked)
    rough = _MeshPlanes(_mesh(pixels, masked, box, smooth=1), *usual)
    rough.noise_is(_NoiseMesh(pixels, ~masked, box))
    sources = _source_pixels(pixels - rough.level, masked, rough.rms, broadest_px=SHARP_PX)
    sky = _sky_of(masked, sources)
    planes = _MeshPlanes(_mesh(pixels, ~sky, box, smooth=1), *usual)
    planes.noise_is(_NoiseMesh(pixels, sky, box))
    return planes, sources


def _usual(pixels: Float32Image, masked: BoolImage) -> tuple[float, float]:
    """Level and scatter of the whole image, the latter positive."""
    centre, scatter = robust_median_and_scatter(regular_sample(pixels, ~masked))
    return centre, scatter or float(np.std(pixels[~masked])) or float(np.finfo(np.float32).tiny)


def _sky_of(masked: BoolImage, sources: BoolImage) -> BoolImage:
    """What is neither; where that is nothing, what is not masked."""
    sky = ~(masked | sources)
    return sky if np.count_nonzero(sky) >= FEWEST_PIXELS else ~masked


class _NoiseMesh:
    """Noise of one pixel from differences of neighbours two apart, on a mesh (`noise.pixel_noise`, cell by
    cell).
    """

    def __init__(self, pixels: Float32Image, sky: BoolImage, box: int) -> None:
        self._meshes = [_mesh(*_differences(pixels, sky, axis), box, smooth=1) for axis in (0, 1)]

    def rms(self) -> Float32Image:
        """At every pixel."""
        along, across = (mesh.rms(dtype=np.float32) for mesh in self._meshes)
        rms: Float32Image = np.hypot(along, across, out=along)
        rms *= np.float32(0.5)
        return rms


def _differences(pixels: Float32Image, sky: BoolImage, axis: int) -> tuple[Float32Image, BoolImage]:
    """Differences of pixels on both sides along one axis, and where one of them is no sky."""
    steps, hidden = np.zeros_like(pixels), np.ones(sky.shape, bool)
    before, middle, after = (
        tuple(part if each == axis else slice(None) for each in (0, 1))
        for part in (slice(None, -2), slice(1, -1), slice(2, None))
    )
    np.subtract(pixels[after], pixels[before], out=steps[middle])
    hidden[middle] = ~(sky[after] & sky[before])
    return steps, hidden


def _fitting_box(shape: tuple[int, ...], box_px: int) -> int:
    return int(max(8, min(box_px, min(shape) // 2)))


def _mesh(pixels: Float32Image, masked: BoolImage, box: int, *, smooth: int = 3) -> sep.Background:
    """sep's clipped mode on a mesh, its cells median-filtered `smooth` each way, which bends slopes' ends."""
    values, left_out = _with_samples(pixels, masked, box)
    return sep.Background(values, mask=left_out, bw=box, bh=box, fw=smooth, fh=smooth)


def _with_samples(pixels: Float32Image, masked: BoolImage, box: int) -> tuple[Float32Image, BoolImage]:
    """The pixels and the mask without cells that sep would take for empty though they are not.

    It leaves out a cell of which less than half is usable; where all are, as in a crowded field, it says 0.
    The usable pixels of such a cell stand for the others, in turn, which changes neither mode nor scatter.
    Single cells are better left out: a galaxy fills them, and its halo is no sky.
    """
    rows, columns = (np.arange(0, side, box) for side in masked.shape)
    counts = [masked[row : row + box].view(np.uint8).sum(0, dtype=np.min_scalar_type(box)) for row in rows]
    hidden = np.add.reduceat(counts, columns, axis=1, dtype=np.int32)
    sizes = np.outer(np.diff(rows, append=masked.shape[0]), np.diff(columns, append=masked.shape[1]))
    usable = sizes - hidden
    shows = usable >= FEWEST_PIXELS
    scarce = shows & (usable < LEAST_USABLE * sizes)
    if np.count_nonzero(scarce) <= MOST_LEFT_OUT * np.count_nonzero(shows):
        return pixels, masked
    filled, left = pixels.copy(), masked.copy()
    for i, j in zip(*np.nonzero(scarce), strict=True):
        cell = (slice(rows[i], rows[i] + box), slice(columns[j], columns[j] + box))
        lost = masked[cell]
        filled[cell][lost] = np.resize(pixels[cell][~lost], hidden[i, j])
        left[cell] = False
    return filled, left


class _MeshPlanes:
    """A mesh seen at every pixel: made when it is asked for, kept until it is told to forget."""

    def __init__(
        self, mesh: sep.Background, centre: float, scatter: float, above: "_MeshPlanes | None" = None
    ) -> None:
        """`above`: planes whose level was taken off before the mesh was measured."""
        self._mesh, self._centre, self._scatter = mesh, np.float32(centre), np.float32(scatter)
        self._above = above
        self._noise: _NoiseMesh | None = None
        self._level: Float32Image | None = None
        self._rms: Float32Image | None = None
        self._scale = self._unit = np.float32(1)

    @property
    def level(self) -> Float32Image:
        if self._level is None:
            level: Float32Image = self._mesh.back(dtype=np.float32)
            # a cell without good pixels may extrapolate wildly
            if not (np.isfinite(level.min()) and np.isfinite(level.max())):
                level = np.where(np.isfinite(level), level, np.float32(0) if self._above else self._centre)
            if self._above:
                level += self._above.level
                self._above.forget()
            if self._unit != 1:
                level *= self._unit
            self._level = level
        return self._level

    @property
    def rms(self) -> Float32Image:
        if self._rms is None:
            rms: Float32Image = self._mesh.rms(dtype=np.float32) if self._noise is None else self._noise.rms()
            if not rms.min() > 0:  # a cell of equal pixels: integers of a noiseless sky
                rms = np.where(rms > 0, rms, self._scatter)
            np.maximum(rms, np.float32(1e-30), out=rms)
            rms *= self._scale * self._unit
            self._rms = rms
        return self._rms

    def noise_is(self, noise: _NoiseMesh) -> None:
        """Take the rms from there instead."""
        self._noise, self._rms, self._scale = noise, None, np.float32(1)

    def rescale(self, factor: float) -> None:
        """Make the rms so many times what the mesh says; once."""
        self._scale = np.float32(factor)
        if self._rms is not None:
            self._rms *= self._scale

    def forget(self) -> None:
        self._level = self._rms = None

    def times(self, factor: float) -> "_MeshPlanes":
        """The same mesh in another unit."""
        other = copy(self)
        other.forget()
        self.forget()  # nobody asks in the old unit again
        other._unit = np.float32(self._unit * factor)
        return other


@dataclass(frozen=True, slots=True)
class _PlanesWithin:
    """The part of planes that lies in a window."""

    whole: Planes
    window: tuple[slice, slice]

    @property
    def level(self) -> Float32Image:
        return self.whole.level[self.window]

    @property
    def rms(self) -> Float32Image:
        return self.whole.rms[self.window]

    def forget(self) -> None:
        self.whole.forget()

    def times(self, factor: float) -> "_PlanesWithin":
        return _PlanesWithin(self.whole.times(factor), self.window)


def _steepest(level: Float32Image, box: int) -> float:
    """The largest step of the level from one cell to the next."""
    cells = level[box // 2 :: box, box // 2 :: box]
    steps = [np.abs(np.diff(cells, axis=axis)) for axis in (0, 1)]
    return float(max((step.max() for step in steps if step.size), default=0.0))


def _source_pixels(
    residual: Float32Image, masked: BoolImage, rms: Float32Image, broadest_px: int | None = None
) -> BoolImage:
    """Pixels of sources: where the smoothed image stands out of its own scatter, and around.

    With `broadest_px` (odd) out of what surrounds it within that square too: what is broader is no source.
    """
    residual[masked] = 0
    smooth = box_mean(residual, 5)
    if broadest_px is not None:
        smooth -= box_mean(residual, broadest_px)
    smooth /= rms
    # masked pixels hold 0: counted, they would make any noise look like sources
    _, scatter = robust_median_and_scatter(smooth[::2, ::2][~masked[::2, ::2]])
    high = smooth > SOURCE_SIGMA * scatter
    return grow_diamond(high, 4)


def _scatter_of_sky(pixels: Float32Image, level: Float32Image, rms: Float32Image, sky: BoolImage) -> float:
    """The sky pixels' scatter in units of `rms`, 1 where it cannot be told: the mesh clips at 3 sigma, which
    loses 1.5 %.
    """
    step = max(1, int(np.sqrt(sky.size / (2 * ENOUGH_VALUES))))
    every = (slice(None, None, step), slice(None, None, step))
    pulls = ((pixels[every] - level[every]) / rms[every])[sky[every]]
    scatter = clipped_scatter(pulls)
    return scatter if np.isfinite(scatter) and scatter > 0 else 1.0
