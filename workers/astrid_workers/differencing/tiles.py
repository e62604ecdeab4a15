"""The subtraction itself, tile by tile in Fourier space, with the noise that belongs to it.

Owns one scheme that all algorithms share: the kernels of `fourier_kernels.py` at a tile's centre with their
slopes across it, so that PSFs and kernels vary smoothly and not in steps, and the variance of the statistic
from the photons of both frames. A registration bends within a tile as no slope does: what slopes leave behind
is moved pixel by pixel. Never measures a PSF and never detects anything.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from astrid_workers.differencing.fourier_kernels import (
    ComplexHat,
    Kernels,
    Matching,
    NoisePower,
    VarianceKernels,
    kernels_at,
    variance_kernels,
)
from astrid_workers.differencing.products import TileKernels
from astrid_workers.frame import Float32Image
from astrid_workers.imaging.fast_median import fast_median
from astrid_workers.imaging.noise_model import NoiseModel
from astrid_workers.imaging.out_of_core import empty_plane, let_go
from astrid_workers.imaging.psf import Psf

#: Distance of the nodes at which shifts are asked for; between them they are bilinear.
NODE_PX = 16


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """Two frames on one grid, background-subtracted and filled, with their noise."""

    science: Float32Image
    reference: Float32Image
    #: Variance of a pixel, finite everywhere, corrected to the sky's measured scatter.
    variance_science: Float32Image
    variance_reference: Float32Image
    #: True on measured, empty sky.
    sky: NDArray[np.bool_]
    noise_science: NoiseModel
    noise_reference: NoiseModel
    psf_science: Psf
    psf_reference: Psf
    #: 1-sigma residual of the registration along x and y, pixels.
    astrometric_noise_px: tuple[float, float] = (0.0, 0.0)


@dataclass(frozen=True, slots=True, eq=False)
class Subtracted:
    """What the tiles add up to; float32 images `[y, x]` without masks."""

    kernels: TileKernels
    difference: Float32Image
    #: Variance of a pixel of `difference`.
    variance: Float32Image
    #: Matched-filter statistic; its variance is `score_variance` plus what models add.
    statistic: Float32Image
    #: From the photons and read noise of both frames.
    score_variance: Float32Image
    #: What the registration's residual adds to that: squared gradients of the reference's part of the
    #: statistic times the residual squared, along x and y together.
    registration_variance: Float32Image
    #: The reference's part of the statistic: the light that was subtracted.
    subtracted: Float32Image
    #: Statistic at the peak of a source of unit flux.
    response: Float32Image


@dataclass(frozen=True, slots=True)
class TileGrid:
    """Cores that tile a frame, each transformed with a margin of real or zero pixels around it."""

    shape: tuple[int, int]
    core_px: int
    margin_px: int

    @property
    def counts(self) -> tuple[int, int]:
        """Tiles along y and x."""
        return -(-self.shape[0] // self.core_px), -(-self.shape[1] // self.core_px)

    @property
    def padded_px(self) -> int:
        """Side of the transforms."""
        return int(fft.next_fast_len(self.core_px + 2 * self.margin_px, real=True))


def plan_tiles(shape: tuple[int, int], psf_half_px: int, core_px: int) -> TileGrid:
    """Cores of about `core_px`, evenly over the frame, with margins that hold the kernels: two PSFs deep."""
    margin = int(np.clip(2 * psf_half_px, 24, 120))
    wanted = max(core_px, 2 * margin)
    rows, columns = (max(1, round(side / wanted)) for side in shape)
    return TileGrid(shape, max(-(-shape[0] // rows), -(-shape[1] // columns)), margin)


def subtract(
    pair: Prepared, matching: Matching, grid: TileGrid, progress: Callable[[float], None] | None = None
) -> Subtracted:
    """Run every tile; `progress` is told the share that is done."""
    shape = pair.science.shape
    planes = [empty_plane(shape) for _ in range(7)]
    rows, columns = grid.counts
    side = grid.padded_px
    shapes = (pair.noise_science.power((side, side)), pair.noise_reference.power((side, side)))
    size = 2 * (max(pair.psf_science.size_px, pair.psf_reference.size_px) // 2) + 1
    psfs, profiles = (np.zeros((rows, columns, size, size), np.float32) for _ in range(2))
    for row in range(rows):
        for column in range(columns):
            tile = _Tile(pair, grid, row, column)
            kernels = _Local.at(pair, matching, tile, shapes, side)
            for plane, values in zip(planes, tile.run(kernels, matching), strict=True):
                plane[tile.core] = values
            psfs[row, column] = _stamp(kernels.middle.psf, side, size)
            profiles[row, column] = _stamp(kernels.middle.profile, side, size)
            if progress is not None:
                progress((row * columns + column + 1) / (rows * columns))
        let_go(*planes)
    profiles /= profiles[:, :, size // 2, size // 2][..., None, None]
    psfs *= np.float32(pair.psf_science.light_within) / psfs.sum(axis=(2, 3), keepdims=True)
    return Subtracted(TileKernels(grid.core_px, psfs, profiles), *planes)


@dataclass(frozen=True, slots=True, eq=False)
class _Local:
    """The kernels of one tile: at its centre, and half a core to the right and below where they vary."""

    middle: Kernels
    right: Kernels | None
    below: Kernels | None
    variance: VarianceKernels

    @classmethod
    def at(
        cls,
        pair: Prepared,
        matching: Matching,
        tile: "_Tile",
        shapes: tuple[NDArray[np.float32], NDArray[np.float32]],
        side: int,
    ) -> "_Local":
        noise = NoisePower(
            np.float32(tile.sky_variance_science) * shapes[0],
            np.float32(tile.sky_variance_reference) * shapes[1],
            *shapes,
        )
        (x, y), (dx, dy) = tile.centre, tile.half_core
        middle = kernels_at(matching, pair.psf_science, noise, x, y, side)
        right = below = None
        if matching.varies:
            right = kernels_at(matching, pair.psf_science, noise, x + dx, y, side)
            below = kernels_at(matching, pair.psf_science, noise, x, y + dy, side)
        return cls(middle, right, below, variance_kernels(middle, noise, side))


def _stamp(hat: ComplexHat | NDArray[np.float32], side: int, size: int) -> NDArray[np.float32]:
    """A kernel centred in an odd stamp: its transform summed at the stamp's pixels only."""
    along_y, along_x = _stamp_waves(side, size)
    return np.asarray((along_y @ hat @ along_x).real, np.float32)


@lru_cache(maxsize=2)
def _stamp_waves(side: int, size: int) -> tuple[ComplexHat, ComplexHat]:
    """The inverse of rfft2 at the pixels of an odd stamp about the origin: what stands left and right."""
    pixels, half = np.arange(size) - size // 2, side // 2 + 1
    waves = np.exp(2j * np.pi / side * pixels[:, None] * np.arange(side)) / side
    twice = np.full(half, 2.0)  # frequencies that the layout holds once
    twice[0] = 1.0
    if side % 2 == 0:
        twice[-1] = 1.0
    return waves.astype(np.complex64), (waves[:, :half] * twice).T.astype(np.complex64)


def _sky_variance(variance: Float32Image, sky: NDArray[np.bool_], core: tuple[slice, slice]) -> float:
    """Median variance of the empty sky of a core; of all its pixels where there is hardly any sky."""
    every = (slice(core[0].start, core[0].stop, 3), slice(core[1].start, core[1].stop, 3))
    values = variance[every][sky[every]]
    return float(fast_median(values if values.size >= 100 else variance[every]))


def _between_nodes(size: int, n_nodes: int) -> NDArray[np.float32]:
    """Weights `(size, n_nodes)` of linear interpolation from nodes `NODE_PX` apart, the first at pixel 0."""
    place = np.arange(size) / NODE_PX
    return np.asarray(np.maximum(1 - np.abs(place[:, None] - np.arange(n_nodes)), 0), np.float32)


def _filtered(at: Kernels, n_hat: ComplexHat, r_hat: ComplexHat) -> tuple[ComplexHat, ComplexHat]:
    """Transforms of the difference and of the statistic by the kernels of one position."""
    left = at.a_n * n_hat
    left -= at.a_r * r_hat
    difference = at.whiten * left
    left *= at.matched
    return difference, left


class _Tile:
    """One tile's pixels: the core with its margin, zero outside the frame."""

    def __init__(self, pair: Prepared, grid: TileGrid, row: int, column: int) -> None:
        ny, nx = grid.shape
        top, left = row * grid.core_px, column * grid.core_px
        bottom, right = min(top + grid.core_px, ny), min(left + grid.core_px, nx)
        self.core = (slice(top, bottom), slice(left, right))
        self.centre = ((left + right - 1) / 2, (top + bottom - 1) / 2)
        self.half_core = (max((right - left) / 2, 1.0), max((bottom - top) / 2, 1.0))
        self._pair, self._grid = pair, grid
        margin = grid.margin_px
        self._outer = (
            slice(max(top - margin, 0), min(bottom + margin, ny)),
            slice(max(left - margin, 0), min(right + margin, nx)),
        )
        self._offset = (top - self._outer[0].start, left - self._outer[1].start)
        self.sky_variance_science = _sky_variance(pair.variance_science, pair.sky, self.core)
        self.sky_variance_reference = _sky_variance(pair.variance_reference, pair.sky, self.core)

    def _hat(self, image: Float32Image, less: float = 0.0) -> ComplexHat:
        """The transform of the tile's part of an image, less a constant; 0 outside the frame."""
        side = self._grid.padded_px
        padded = np.zeros((side, side), np.float32)
        part = image[self._outer]
        np.subtract(part, np.float32(less), out=padded[: part.shape[0], : part.shape[1]])
        return np.asarray(fft.rfft2(padded, overwrite_x=True))

    def _back(self, hat: ComplexHat) -> Float32Image:
        """The core of an image from its transform, which is overwritten; rows outside are not computed."""
        return self._along_rows(self._down_columns(hat))

    def _down_columns(self, hat: ComplexHat) -> ComplexHat:
        """The first half of the way back, of the core's rows: `(height, frequencies along x)`."""
        top, height = self._offset[0], self.core[0].stop - self.core[0].start
        return np.asarray(fft.ifft(hat, axis=0, overwrite_x=True)[top : top + height])

    def _along_rows(self, rows: ComplexHat) -> Float32Image:
        """The second half, of the core's columns."""
        left, width = self._offset[1], self.core[1].stop - self.core[1].start
        back = fft.irfft(rows, self._grid.padded_px, axis=1)
        return np.asarray(back[:, left : left + width], np.float32)

    def _both(self, n_hat: ComplexHat, r_hat: ComplexHat, k: _Local) -> tuple[Float32Image, Float32Image]:
        """Difference and statistic: their kernels are those of the middle plus their slopes times the
        distance from it.
        """
        middle = _filtered(k.middle, n_hat, r_hat)
        if k.right is None or k.below is None:
            return self._back(middle[0]), self._back(middle[1])
        right, below = _filtered(k.right, n_hat, r_hat), _filtered(k.below, n_hat, r_hat)
        images = []
        for hat, hat_right, hat_below in zip(middle, right, below, strict=True):
            across, down = hat_right - hat, hat_below - hat
            # the distance along y is a number for each row: half of the way back is made once for both
            rows = self._down_columns(hat)
            rows += self._down() * self._down_columns(down)
            image = self._along_rows(rows)
            image += self._across() * self._back(across)
            images.append(image)
        return images[0], images[1]

    def _across(self) -> Float32Image:
        """Distance from the centre along x, in half cores: `(1, width)`."""
        x = np.arange(self.core[1].start, self.core[1].stop)
        return ((x - self.centre[0]) / self.half_core[0]).astype(np.float32)[None, :]

    def _down(self) -> Float32Image:
        y = np.arange(self.core[0].start, self.core[0].stop)
        return ((y - self.centre[1]) / self.half_core[1]).astype(np.float32)[:, None]

    def _response(self, k: _Local) -> Float32Image:
        height = self.core[0].stop - self.core[0].start
        width = self.core[1].stop - self.core[1].start
        response = np.full((height, width), k.middle.response, np.float32)
        for other, weight in ((k.right, self._across()), (k.below, self._down())):
            if other is not None:
                response += weight * np.float32(other.response - k.middle.response)
        np.maximum(response, np.float32(0.5 * k.middle.response), out=response)
        # kernels are of what lies on the PSF's stamp, fluxes of all of a source's light
        response *= np.float32(self._pair.psf_science.light_within)
        return response

    def _variances(self, v: VarianceKernels) -> tuple[Float32Image, Float32Image]:
        """Of a pixel of the difference and of the statistic, from the photons and read noise of both
        frames.
        """
        pair, sky_n, sky_r = self._pair, self.sky_variance_science, self.sky_variance_reference
        # the sky itself is uniform and handled exactly: only what is beyond it is transformed
        beyond = self._back(
            v.k_n2 * self._hat(pair.variance_science, sky_n)
            + v.k_r2 * self._hat(pair.variance_reference, sky_r)
        )
        uniform = np.float32(sky_n * v.k_n2[0, 0].real + sky_r * v.k_r2[0, 0].real)
        science, reference = pair.variance_science[self.core], pair.variance_reference[self.core]
        variance = science * np.float32(v.d_n2) + reference * np.float32(v.d_r2)
        return variance, np.maximum(uniform + beyond, np.float32(0.5) * uniform)

    def _left_behind(self, matching: Matching) -> Float32Image:
        """Relative gain and shifts `(3, height, width)` by which the reference is not where its sources are,
        since kernels follow them along slopes only.
        """
        (x, y), (dx, dy) = self.centre, self.half_core
        axes = [np.arange(part.start, part.stop + NODE_PX, NODE_PX, dtype=np.float64) for part in self.core]
        # the middle and the ends of the slopes are asked together with the nodes: most of it is the asking
        asked = np.append(axes[1], [x, x + dx]), np.append(axes[0], [y, y + dy])
        moves = matching.moves_on_grid(*asked)
        at_nodes = moves[:, :-2, :-2]
        middle, right, below = moves[:, -2:-1, -2:-1], moves[:, -2:-1, -1:], moves[:, -1:, -2:-1]
        at_nodes -= middle + (right - middle) * ((axes[1] - x) / dx)[None, None, :]
        at_nodes -= (below - middle) * ((axes[0] - y) / dy)[None, :, None]
        along_y, along_x = (
            _between_nodes(part.stop - part.start, len(axis))
            for part, axis in zip(self.core, axes, strict=True)
        )
        return np.asarray(along_y @ at_nodes.astype(np.float32) @ along_x.T)

    def run(self, k: _Local, matching: Matching) -> tuple[Float32Image, ...]:
        """The planes of `Subtracted`, in its order."""
        n_hat, r_hat = self._hat(self._pair.science), self._hat(self._pair.reference)
        difference, statistic = self._both(n_hat, r_hat, k)
        r_hat *= k.middle.a_r
        subtracted = self._back(k.middle.matched * r_hat)
        along_y, along_x = np.gradient(subtracted)
        if matching.varies:
            left = self._left_behind(matching)
            statistic += left[1] * along_x + left[2] * along_y - left[0] * subtracted
            model = self._back(k.middle.whiten * r_hat)
            model_y, model_x = np.gradient(model)
            difference += left[1] * model_x + left[2] * model_y - left[0] * model
        across, down = (np.float32(noise_px**2) for noise_px in self._pair.astrometric_noise_px)
        registration = across * along_x**2 + down * along_y**2
        variance, score_variance = self._variances(k.variance)
        response = self._response(k)
        return (
            difference,
            variance,
            statistic,
            score_variance,
            np.asarray(registration, np.float32),
            subtracted,
            response,
        )
