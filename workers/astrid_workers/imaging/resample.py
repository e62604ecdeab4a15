"""A frame on another pixel grid.

Owns interpolation with its footprint, mask and variance; never measures where a grid lies (`align` does).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from astropy.wcs import WCS
from numpy.typing import NDArray

from astrid_workers.frame import Float32Image, Frame, Uint32Image
from astrid_workers.imaging.bad_surroundings import filled
from astrid_workers.imaging.fast_median import fast_median
from astrid_workers.imaging.grow import grow
from astrid_workers.imaging.lanczos import TAPS, interpolated, shifted, sum_of_squares
from astrid_workers.imaging.noise import FloatArray, regular_sample
from astrid_workers.mask import MaskBit

Float64Array = NDArray[np.float64]
BoolImage = NDArray[np.bool_]
#: From places on the new grid to places on the frame's own: `x, y` in, `x, y` out, float64, 0-based.
PixelMap = Callable[[Float64Array, Float64Array], tuple[Float64Array, Float64Array]]

#: Distance of the nodes at which a map is evaluated; between them it is taken as bilinear.
NODE_PX = 16
#: Displacement that a map may deviate by from a pure shift and still be treated as one.
SHIFT_TOLERANCE_PX = 2e-3
#: Rows and columns interpolated together: what is touched stays inside the processor's cache.
_ROWS, _COLUMNS = 32, 512
#: Mask bits whose pixels are filled in before interpolation, so that they do not ring into their neighbours.
_FILLED = np.uint32(MaskBit.BAD_PIXEL | MaskBit.COSMIC_RAY | MaskBit.NO_DATA)
#: Units in which a pixel's value does not depend on its size.
_PER_AREA = ("/sr", "sr-1", "arcsec-2", "/arcsec", "/pix", "mag")


@dataclass(frozen=True, slots=True, eq=False)
class Resampled:
    """A frame on a new grid."""

    frame: Frame
    #: True where the new grid lies on the old frame.
    footprint: BoolImage
    #: By how much the per-pixel variance understates the noise of large areas, as a ratio of sigmas:
    #: interpolation moves variance into the covariance of neighbours. 1 for a whole-pixel shift.
    area_noise_factor: float


def resample_frame(
    frame: Frame, mapping: PixelMap, shape: tuple[int, int], *, wcs: WCS | None = None
) -> Resampled:
    """`frame` seen on a grid of `shape` whose pixel `x, y` lies at `mapping(x, y)` of the frame; `wcs` is
    that grid's.

    Lanczos-3 on filled-in pixels. Flux is conserved: values scale with the area of a pixel, except for units
    per solid angle. Where the new pixels are twice the old ones or wider, the frame is binned first. Mask
    bits come from the nearest pixel and its neighbours; outside the footprint, and under it where nothing was
    measured: `NO_DATA`, 0 and infinite variance; within three pixels of the footprint's edge also `EDGE`.
    Variance is that of the interpolated pixel; what went into correlations is `area_noise_factor`.
    """
    nodes = _Nodes.of(mapping, shape)
    bins = max(1, int(np.sqrt(nodes.median_area) + 0.05))
    if bins > 1:
        frame, nodes = _binned(frame, bins), nodes.in_bins_of(bins)
    image = filled(frame.science, (frame.mask & _FILLED) != 0)
    spread = _spread(frame.mask)
    finite = np.where(np.isfinite(frame.variance), frame.variance, np.float32(0))
    out = _Output.empty(shape)
    fixed = nodes.pure_shift()
    if fixed is not None:
        out.fill_shifted(image, finite, spread, fixed)
    else:
        for part in _parts(shape):
            out.fill_mapped(image, finite, spread, part, *nodes.at(*part))
    area = 1.0 if is_per_area(frame.unit) else nodes.median_area
    return _finished(frame, out, area, nodes, wcs)


def is_per_area(unit: str) -> bool:
    """Whether a pixel's value in `unit` does not depend on the pixel's size: surface brightness."""
    compact = unit.replace(" ", "").lower()
    return any(mark in compact for mark in _PER_AREA)


@dataclass(frozen=True, slots=True, eq=False)
class _Nodes:
    """A map sampled on a coarse grid of nodes, bilinear in between."""

    x: Float64Array
    y: Float64Array
    shape: tuple[int, int]
    #: Old pixels per new pixel, by area, at the middle of the grid.
    median_area: float

    @classmethod
    def of(cls, mapping: PixelMap, shape: tuple[int, int]) -> "_Nodes":
        columns = np.arange(0, shape[1] + NODE_PX, NODE_PX, dtype=np.float64)
        rows = np.arange(0, shape[0] + NODE_PX, NODE_PX, dtype=np.float64)
        grid_x, grid_y = np.meshgrid(columns, rows)
        x, y = mapping(grid_x.ravel(), grid_y.ravel())
        x, y = np.reshape(x, grid_x.shape), np.reshape(y, grid_x.shape)
        return cls(x, y, shape, _median_area(x, y))

    def in_bins_of(self, bins: int) -> "_Nodes":
        """The same map onto the frame binned `bins` × `bins`."""
        half = (bins - 1) / 2
        return _Nodes((self.x - half) / bins, (self.y - half) / bins, self.shape, self.median_area / bins**2)

    def pure_shift(self) -> tuple[float, float] | None:
        """The shift `x_old - x_new, y_old - y_new` when the map is nothing else."""
        ny, nx = self.x.shape
        dx = self.x - np.arange(nx)[None, :] * NODE_PX
        dy = self.y - np.arange(ny)[:, None] * NODE_PX
        if not (np.isfinite(dx).all() and np.isfinite(dy).all()):
            return None
        if max(float(np.ptp(dx)), float(np.ptp(dy))) > 2 * SHIFT_TOLERANCE_PX:
            return None
        return float(dx.mean()), float(dy.mean())

    def at(self, rows: slice, columns: slice) -> tuple[Float64Array, Float64Array]:
        """The map at every pixel of some rows and columns."""
        row, fy = _node_before(rows)
        column, fx = _node_before(columns)
        fy = fy[:, None]
        mapped = []
        for plane in (self.x, self.y):
            band = plane[row] * (1 - fy) + plane[row + 1] * fy
            left = band[:, column]
            mapped.append(left + (band[:, column + 1] - left) * fx)
        return mapped[0], mapped[1]


def _node_before(pixels: slice) -> tuple[NDArray[np.intp], Float64Array]:
    """The last node at or before each pixel, and how much of the way to the next it has gone."""
    place = np.arange(pixels.start, pixels.stop)
    return place // NODE_PX, place % NODE_PX / NODE_PX


def _parts(shape: tuple[int, int]) -> Iterator[tuple[slice, slice]]:
    """The grid, part by part."""
    for top in range(0, shape[0], _ROWS):
        for left in range(0, shape[1], _COLUMNS):
            yield slice(top, min(top + _ROWS, shape[0])), slice(left, min(left + _COLUMNS, shape[1]))


@dataclass(frozen=True, slots=True, eq=False)
class _Output:
    """Arrays of the new grid, filled in place band by band."""

    science: Float32Image
    variance: Float32Image
    mask: Uint32Image
    footprint: BoolImage

    @classmethod
    def empty(cls, shape: tuple[int, int]) -> "_Output":
        return cls(
            np.zeros(shape, np.float32),
            np.zeros(shape, np.float32),
            np.zeros(shape, np.uint32),
            np.zeros(shape, bool),
        )

    def fill_shifted(
        self, image: Float32Image, variance: Float32Image, mask: Uint32Image, shift: tuple[float, float]
    ) -> None:
        """A pure shift: two one-dimensional passes."""
        (dx, dy), (ny, nx) = shift, self.science.shape
        y, x = np.arange(ny, dtype=np.float64) + dy, np.arange(nx, dtype=np.float64) + dx
        inside_y, inside_x = _inside(y, image.shape[0]), _inside(x, image.shape[1])
        self.science[:] = shifted(image, x, y)
        near_y = np.clip(np.rint(y).astype(np.intp), 0, image.shape[0] - 1)
        near_x = np.clip(np.rint(x).astype(np.intp), 0, image.shape[1] - 1)
        self.variance[:] = variance[near_y[:, None], near_x[None, :]]
        self.variance[:] *= np.float32(sum_of_squares(dx) * sum_of_squares(dy))
        self.mask[:] = mask[near_y[:, None], near_x[None, :]]
        self.footprint[:] = inside_y[:, None] & inside_x[None, :]

    def fill_mapped(
        self,
        image: Float32Image,
        variance: Float32Image,
        mask: Uint32Image,
        part: tuple[slice, slice],
        x: Float64Array,
        y: Float64Array,
    ) -> None:
        """A part of a general map: 36 taps each."""
        ny, nx = image.shape
        inside = _inside(x, nx) & _inside(y, ny)
        x, y = np.where(inside, x, 0.0), np.where(inside, y, 0.0)
        values, squares = interpolated(image, x, y)
        nearest = np.rint(y).astype(np.intp) * nx + np.rint(x).astype(np.intp)
        nearest = np.minimum(nearest, image.size - 1)
        self.science[part] = values
        self.variance[part] = variance.ravel()[nearest] * squares
        self.mask[part] = mask.ravel()[nearest]
        self.footprint[part] = inside


def _inside(places: Float64Array, size: int) -> NDArray[np.bool_]:
    with np.errstate(invalid="ignore"):
        inside: NDArray[np.bool_] = (places >= -0.5) & (places <= size - 0.5)
    return inside


def _median_area(x: Float64Array, y: Float64Array) -> float:
    dxx, dxy = np.diff(x, axis=1)[:-1] / NODE_PX, np.diff(x, axis=0)[:, :-1] / NODE_PX
    dyx, dyy = np.diff(y, axis=1)[:-1] / NODE_PX, np.diff(y, axis=0)[:, :-1] / NODE_PX
    area = np.abs(dxx * dyy - dxy * dyx)
    good = area[np.isfinite(area)]
    return float(np.median(good)) if good.size else 1.0


def _binned(frame: Frame, bins: int) -> Frame:
    """Sums over `bins` × `bins` pixels (means for units per area); mask bits of any of them."""
    ny, nx = (n // bins * bins for n in frame.shape)

    def blocks(plane: NDArray[Any]) -> NDArray[Any]:
        return plane[:ny, :nx].reshape(ny // bins, bins, nx // bins, bins)

    weight = 1 / bins**2 if is_per_area(frame.unit) else 1.0
    image = filled(frame.science, (frame.mask & _FILLED) != 0)
    science = blocks(image).sum(axis=(1, 3), dtype=np.float32) * np.float32(weight)
    variance = blocks(frame.variance).sum(axis=(1, 3), dtype=np.float32) * np.float32(weight**2)
    mask = np.bitwise_or.reduce(np.bitwise_or.reduce(blocks(frame.mask), axis=3), axis=1)
    return Frame(science, variance, mask, None, frame.unit, frame.facts, frame.assumed, frame.name)


def _spread(mask: Uint32Image) -> Uint32Image:
    """Every bit of the mask, grown by one pixel: the taps next to a bad pixel are not to be trusted."""
    spread = mask.copy()
    if not mask.any():
        return spread
    spread[1:] |= mask[:-1]
    spread[:-1] |= mask[1:]
    tall = spread.copy()
    spread[:, 1:] |= tall[:, :-1]
    spread[:, :-1] |= tall[:, 1:]
    return spread


def _finished(frame: Frame, out: _Output, area: float, nodes: _Nodes, wcs: WCS | None) -> Resampled:
    """Flux scale, footprint and edge bits applied; the frame with its facts on the new grid."""
    science, variance, mask = out.science, out.variance, out.mask
    before = regular_sample(frame.variance, np.isfinite(frame.variance))
    after = regular_sample(variance, out.footprint & (variance > 0))
    if area != 1.0:
        science *= np.float32(area)
        variance *= np.float32(area**2)
    factor = _area_noise_factor(before, after, nodes.median_area)
    mask[~out.footprint] = np.uint32(MaskBit.NO_DATA)
    lost = (mask & np.uint32(MaskBit.NO_DATA)) != 0
    science[lost] = 0
    variance[lost] = np.inf
    mask[_rim(out.footprint, TAPS // 2)] |= np.uint32(MaskBit.EDGE)
    facts = frame.facts
    level, scale = facts.saturation, facts.pixel_scale_arcsec
    facts = replace(
        facts,
        saturation=None if level is None else level * area,
        pixel_scale_arcsec=None if scale is None else scale * float(np.sqrt(nodes.median_area)),
    )
    resampled = Frame(science, variance, mask, wcs, frame.unit, facts, frame.assumed, frame.name)
    return Resampled(resampled, out.footprint, factor)


def _rim(footprint: BoolImage, pixels: int) -> BoolImage:
    """What of the footprint lies within so many pixels of its edge, the frame's own edge included."""
    outside = grow(np.pad(~footprint, pixels, constant_values=True), pixels)
    rim: BoolImage = footprint & outside[pixels:-pixels, pixels:-pixels]
    return rim


def _area_noise_factor(before: FloatArray, after: FloatArray, pixels: float) -> float:
    """√(what a new pixel contributes to the variance of a large area / its own variance).

    Variances of old and new pixels, these before they were scaled; `pixels` old ones lie under a new one.
    """
    if before.size == 0 or after.size == 0:
        return 1.0
    old, new = float(fast_median(before)), float(fast_median(after))
    return float(np.sqrt(old / (pixels * new))) if new > 0 else 1.0
