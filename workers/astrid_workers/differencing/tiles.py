"""The subtraction itself, tile by tile in Fourier space, with the noise that belongs to it.

Owns one scheme that all algorithms share: D = (a_n N - a_r R) whitened, S = its matched filter, and the
variance of S from the photons of both frames, the registration's residual and the models' errors. An
algorithm is a pair of transfer functions a_n, a_r per tile (`zogy.py`, `alard_lupton.py`). Never measures a
PSF and never detects anything.

Zackay, Ofek & Gal-Yam 2016, ApJ 830, 27, equations 12 to 17 and 25 to 33, in the form that any pair of
transfer functions takes: source response q = a_n P_n, noise power den = c_n |a_n|² + c_r |a_r|²,
    D = sqrt(den(0) / den) (a_n N - a_r R) / a_n(0),  S = conj(q) (a_n N - a_r R) / den.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from astrid_workers.differencing.products import TileKernels
from astrid_workers.frame import Float32Image
from astrid_workers.imaging.noise_model import NoiseModel
from astrid_workers.imaging.photometric_match import stamp_hat
from astrid_workers.imaging.psf import Psf

ComplexHat = NDArray[np.complexfloating]


class Matching(Protocol):
    """An algorithm: what each frame is convolved with so that constant sources cancel."""

    def transfer(self, x: float, y: float, size: tuple[int, int]) -> tuple[ComplexHat, ComplexHat]:
        """`(a_n, a_r)` at a position, rfft2 coefficients on a `(ny, nx)` grid."""


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
    #: Squared gradients of the reference's part of the statistic, for registration noise of 1 px: along x and
    #: y.
    gradient_x: Float32Image
    gradient_y: Float32Image
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
    planes = [np.zeros(shape, np.float32) for _ in range(8)]
    rows, columns = grid.counts
    size = 2 * (max(pair.psf_science.size_px, pair.psf_reference.size_px) // 2) + 1
    psfs, profiles = (np.zeros((rows, columns, size, size), np.float32) for _ in range(2))
    for row in range(rows):
        for column in range(columns):
            tile = _Tile(pair, grid, row, column)
            kernels = _kernels(pair, matching, grid, tile)
            for plane, values in zip(planes, tile.run(kernels), strict=True):
                plane[tile.core] = values
            psfs[row, column] = _stamp(kernels.difference_psf_hat, grid.padded_px, size)
            profiles[row, column] = _stamp(kernels.profile_hat, grid.padded_px, size)
            if progress is not None:
                progress((row * columns + column + 1) / (rows * columns))
    profiles /= profiles[:, :, size // 2, size // 2][..., None, None]
    psfs /= psfs.sum(axis=(2, 3), keepdims=True)
    return Subtracted(TileKernels(grid.core_px, psfs, profiles), *planes)


@dataclass(frozen=True, slots=True, eq=False)
class _Kernels:
    """Everything that one tile multiplies with, rfft2 layout."""

    a_n: ComplexHat
    a_r: ComplexHat
    #: D = whiten × (a_n N - a_r R).
    whiten: NDArray[np.floating]
    k_n: ComplexHat
    k_r: ComplexHat
    #: Squared kernels, for the propagation of variances, with the noise's correlation in them.
    k_n2: ComplexHat
    k_r2: ComplexHat
    #: The same for a pixel of the difference: sums of squared kernels.
    d_n2: float
    d_r2: float
    response: float
    difference_psf_hat: ComplexHat
    profile_hat: ComplexHat


def _kernels(pair: Prepared, matching: Matching, grid: TileGrid, tile: "_Tile") -> _Kernels:
    side = grid.padded_px
    size = (side, side)
    x, y = tile.centre
    a_n, a_r = matching.transfer(x, y, size)
    p_n = stamp_hat(pair.psf_science.at(x, y), size)
    power_n, power_r = pair.noise_science.power(size), pair.noise_reference.power(size)
    c_n = tile.sky_variance_science * power_n
    c_r = tile.sky_variance_reference * power_r
    den = c_n * np.abs(a_n) ** 2 + c_r * np.abs(a_r) ** 2
    den = np.maximum(den, np.float32(1e-10) * den.max())
    q = a_n * p_n
    matched = np.conj(q) / den
    k_n, k_r = matched * a_n, matched * a_r
    whiten = np.sqrt(den[0, 0] / den) / np.real(a_n[0, 0])
    weights = _rfft_weights(side)
    profile = np.abs(q) ** 2 / den
    return _Kernels(
        a_n.astype(np.complex64),
        a_r.astype(np.complex64),
        whiten.astype(np.float32),
        k_n.astype(np.complex64),
        k_r.astype(np.complex64),
        _squared(k_n, power_n, side, weights),
        _squared(k_r, power_r, side, weights),
        float(np.sum(weights * np.abs(whiten * a_n) ** 2 * power_n)),
        float(np.sum(weights * np.abs(whiten * a_r) ** 2 * power_r)),
        float(np.sum(weights * profile)),
        (whiten * q).astype(np.complex64),
        profile.astype(np.complex64),
    )


def _rfft_weights(side: int) -> NDArray[np.float64]:
    """What each rfft2 coefficient counts for in a mean over all frequencies: `(side, side // 2 + 1)`, sum
    1.
    """
    weights = np.full((side, side // 2 + 1), 2.0)
    weights[:, 0] = 1.0
    if side % 2 == 0:
        weights[:, -1] = 1.0
    return weights / side**2


def _squared(
    kernel: ComplexHat, power: NDArray[np.float32], side: int, weights: NDArray[np.float64]
) -> ComplexHat:
    """rfft2 of the kernel's square, scaled so that correlated noise of uniform variance comes out exactly."""
    square = fft.irfft2(kernel.astype(np.complex64), s=(side, side)) ** 2
    white = float(np.sum(weights * np.abs(kernel) ** 2))
    coloured = float(np.sum(weights * np.abs(kernel) ** 2 * power))
    return np.asarray(fft.rfft2(square) * np.float32(coloured / white))


def _stamp(hat: ComplexHat, side: int, size: int) -> NDArray[np.float32]:
    """A kernel centred in an odd stamp."""
    half = size // 2
    image = np.roll(fft.irfft2(hat, s=(side, side)), (half, half), axis=(0, 1))
    stamp: NDArray[np.float32] = image[:size, :size].astype(np.float32)
    return stamp


def _sky_variance(variance: Float32Image, sky: NDArray[np.bool_], core: tuple[slice, slice]) -> float:
    """Median variance of the empty sky of a core; of all its pixels where there is hardly any sky."""
    every = (slice(core[0].start, core[0].stop, 3), slice(core[1].start, core[1].stop, 3))
    values = variance[every][sky[every]]
    return float(np.median(values if values.size >= 100 else variance[every]))


class _Tile:
    """One tile's pixels: the core with its margin, zero outside the frame."""

    def __init__(self, pair: Prepared, grid: TileGrid, row: int, column: int) -> None:
        ny, nx = grid.shape
        top, left = row * grid.core_px, column * grid.core_px
        bottom, right = min(top + grid.core_px, ny), min(left + grid.core_px, nx)
        self.core = (slice(top, bottom), slice(left, right))
        self.centre = ((left + right - 1) / 2, (top + bottom - 1) / 2)
        self._pair, self._grid = pair, grid
        margin = grid.margin_px
        self._outer = (
            slice(max(top - margin, 0), min(bottom + margin, ny)),
            slice(max(left - margin, 0), min(right + margin, nx)),
        )
        self._offset = (top - self._outer[0].start, left - self._outer[1].start)
        self.sky_variance_science = _sky_variance(pair.variance_science, pair.sky, self.core)
        self.sky_variance_reference = _sky_variance(pair.variance_reference, pair.sky, self.core)

    def _hat(self, image: Float32Image) -> ComplexHat:
        side = self._grid.padded_px
        padded = np.zeros((side, side), np.float32)
        part = image[self._outer]
        padded[: part.shape[0], : part.shape[1]] = part
        return np.asarray(fft.rfft2(padded, overwrite_x=True))

    def _variance_hat(self, variance: Float32Image, sky: float) -> ComplexHat:
        """The transform of variance beyond the sky's; the sky itself is uniform and handled exactly."""
        return self._hat(variance - np.float32(sky))

    def _back(self, hat: ComplexHat) -> Float32Image:
        side = self._grid.padded_px
        image = fft.irfft2(hat, s=(side, side), overwrite_x=True)
        oy, ox = self._offset
        height = self.core[0].stop - self.core[0].start
        width = self.core[1].stop - self.core[1].start
        return np.asarray(image[oy : oy + height, ox : ox + width], np.float32)

    def run(self, k: _Kernels) -> tuple[Float32Image, ...]:
        """difference, its variance, statistic, its variance, gradients, subtracted light, response."""
        pair, side = self._pair, self._grid.padded_px
        n_hat, r_hat = self._hat(pair.science), self._hat(pair.reference)
        left = k.a_n * n_hat - k.a_r * r_hat
        difference = self._back(k.whiten * left)
        subtracted_hat = k.k_r * r_hat
        statistic = self._back(k.k_n * n_hat - subtracted_hat)
        omega_y = (2j * np.pi * fft.fftfreq(side)[:, None]).astype(np.complex64)
        omega_x = (2j * np.pi * fft.rfftfreq(side)[None, :]).astype(np.complex64)
        gradient_x, gradient_y = self._back(omega_x * subtracted_hat), self._back(omega_y * subtracted_hat)
        subtracted = self._back(subtracted_hat)
        sky_n, sky_r = self.sky_variance_science, self.sky_variance_reference
        beyond = self._back(
            k.k_n2 * self._variance_hat(pair.variance_science, sky_n)
            + k.k_r2 * self._variance_hat(pair.variance_reference, sky_r)
        )
        uniform = np.float32(sky_n * k.k_n2[0, 0].real + sky_r * k.k_r2[0, 0].real)
        score_variance = np.maximum(uniform + beyond, np.float32(0.5) * uniform)
        variance = pair.variance_science[self.core] * np.float32(k.d_n2) + pair.variance_reference[
            self.core
        ] * np.float32(k.d_r2)
        response = np.full_like(statistic, k.response)
        return (
            difference,
            variance,
            statistic,
            score_variance,
            gradient_x**2,
            gradient_y**2,
            subtracted,
            response,
        )
