"""What a tile multiplies with in Fourier space: whitened difference, matched filter and the variances of
both.

Owns the algebra of Zackay, Ofek & Gal-Yam 2016 (ApJ 830, 27, equations 12 to 17 and 25 to 33) in the form
that any pair of transfer functions takes: source response q = a_n P_n, noise power den = c_n |a_n|² + c_r
|a_r|²,
    D = sqrt(den(0) / den) (a_n N - a_r R) / a_n(0),  S = conj(q) (a_n N - a_r R) / den.
Never sees a pixel.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from astrid_workers.imaging.psf import Psf
from astrid_workers.imaging.transfer import psf_hat

ComplexHat = NDArray[np.complexfloating]

#: Noise power below this share of its maximum is not divided by.
POWER_FLOOR = 1e-10


class Matching(Protocol):
    """An algorithm: what each frame is convolved with so that constant sources cancel."""

    @property
    def varies(self) -> bool:
        """Whether the transfer functions depend on the position."""

    def transfer(self, x: float, y: float, size: tuple[int, int]) -> tuple[ComplexHat, ComplexHat]:
        """`(a_n, a_r)` at a position, rfft2 coefficients on a `(ny, nx)` grid, complex64."""

    def moves_on_grid(self, x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
        """Of what `a_r` does what bends within a tile, where columns `x` and rows `y` cross.

        Relative gain, shift x and shift y (px): `(3, len(y), len(x))`.
        """


@dataclass(frozen=True, slots=True, eq=False)
class NoisePower:
    """Noise power per frequency of science and reference in one tile, float32, rfft2 layout."""

    science: NDArray[np.float32]
    reference: NDArray[np.float32]
    #: The same with mean 1: the correlation alone.
    science_shape: NDArray[np.float32]
    reference_shape: NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Kernels:
    """At one position: D = whiten (a_n N - a_r R) and S = matched (a_n N - a_r R)."""

    #: complex64, as `Matching.transfer` gives them.
    a_n: ComplexHat
    a_r: ComplexHat
    #: float32.
    whiten: NDArray[np.float32]
    #: complex64.
    matched: ComplexHat
    #: Statistic at the peak of a source of unit flux.
    response: float
    #: complex64: transform of a source of unit flux in a_n N.
    source: ComplexHat
    #: float32: transform of a source's profile in the statistic.
    profile: NDArray[np.float32]

    @property
    def psf(self) -> ComplexHat:
        """Transform of the difference's PSF."""
        return np.asarray(self.whiten * self.source)


@dataclass(frozen=True, slots=True, eq=False)
class VarianceKernels:
    """How variances of pixels become variances of the statistic and of the difference."""

    #: Squared kernels of the statistic, with the noise's correlation in their scale.
    k_n2: ComplexHat
    k_r2: ComplexHat
    #: Sums of squared kernels of the difference.
    d_n2: float
    d_r2: float


def kernels_at(
    matching: Matching, psf_science: Psf, noise: NoisePower, x: float, y: float, side: int
) -> Kernels:
    """The kernels at a position, on a grid of `side` × `side`."""
    size = (side, side)
    a_n, a_r = matching.transfer(x, y, size)
    q = a_n * psf_hat(psf_science, x, y, size)
    den = noise.science * _power(a_n) + noise.reference * _power(a_r)
    np.maximum(den, np.float32(POWER_FLOOR) * den.max(), out=den)
    # complex numbers are multiplied with reciprocals: dividing them takes five times as long
    inverse = np.reciprocal(den)
    matched = np.conj(q)
    matched *= inverse
    whiten = np.sqrt(den[0, 0] * inverse)
    whiten /= np.float32(np.real(a_n[0, 0]))
    profile = _power(q)
    profile *= inverse
    return Kernels(a_n, a_r, whiten, matched, _mean(profile, side), q, profile)


def variance_kernels(kernels: Kernels, noise: NoisePower, side: int) -> VarianceKernels:
    """For the noise around one position."""
    whitened = np.square(kernels.whiten)
    return VarianceKernels(
        _squared(kernels.matched * kernels.a_n, noise.science_shape, side),
        _squared(kernels.matched * kernels.a_r, noise.reference_shape, side),
        _mean(_power(kernels.a_n) * whitened * noise.science_shape, side),
        _mean(_power(kernels.a_r) * whitened * noise.reference_shape, side),
    )


def _power(hat: ComplexHat) -> NDArray[np.float32]:
    power = np.square(hat.real, dtype=np.float32)
    power += np.square(hat.imag, dtype=np.float32)
    return power


def _mean(power: NDArray[np.floating], side: int) -> float:
    """Mean over all frequencies of what the rfft2 layout holds once."""
    doubled = power.sum(dtype=np.float64) * 2 - power[:, 0].sum(dtype=np.float64)
    if side % 2 == 0:
        doubled -= power[:, -1].sum(dtype=np.float64)
    return float(doubled / side**2)


def _squared(kernel: ComplexHat, shape: NDArray[np.float32], side: int) -> ComplexHat:
    """rfft2 of the kernel's square, scaled so that correlated noise of uniform variance comes out exactly."""
    square = fft.irfft2(kernel, s=(side, side))
    square *= square
    power = _power(kernel)
    return np.asarray(fft.rfft2(square) * np.float32(_mean(power * shape, side) / _mean(power, side)))
