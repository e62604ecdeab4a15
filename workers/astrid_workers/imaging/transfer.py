"""What gain, shift, width and wings are in Fourier space, and how a stamp gets there.

Owns the transfer functions that take one frame to another; never fits anything and never sees a frame.
"""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from astrid_workers.frame import Float32Image
from astrid_workers.imaging.psf import Psf, Stamp, polynomial

Floats = NDArray[np.float64]

#: Parameters of a transfer function before the shares of its wings: gain, shift x and y, moments xx, xy, yy.
N_VARYING = 6


def transfer_function(
    local: Floats, wing_sigmas_px: Floats, size: tuple[int, int]
) -> NDArray[np.complexfloating]:
    """Gain, shift, change of second moments and wings as rfft2 coefficients, complex64 `(ny, nx // 2 + 1)`.

    A negative moment sharpens; its boost is capped at 3, so that noise is never blown up.
    """
    return np.asarray(transfer_functions(local[None], wing_sigmas_px, size)[0])


def transfer_functions(
    local: Floats, wing_sigmas_px: Floats, size: tuple[int, int]
) -> NDArray[np.complexfloating]:
    """`transfer_function` of each row of `local` `(n, 9)`: complex64 `(n, ny, nx // 2 + 1)`."""
    omega_y, omega_x = frequencies(size)
    rows = local.astype(np.float32)
    gain, shift_x, shift_y, xx, xy, yy = (rows[:, k, None, None] for k in range(N_VARYING))
    exponents = -(xy * omega_y) * omega_x
    exponents -= xx * omega_x**2
    exponents -= yy * omega_y**2
    np.minimum(exponents, np.float32(np.log(3.0)), out=exponents)
    shape = np.exp(exponents, out=exponents)
    shape *= 1 + np.tensordot(rows[:, N_VARYING:], wing_shapes(tuple(wing_sigmas_px), size), axes=1)
    hats = np.exp(-1j * omega_y * shift_y) * gain * shape
    hats *= np.exp(-1j * omega_x * shift_x)
    return np.asarray(hats, np.complex64)


@lru_cache(maxsize=8)
def frequencies(size: tuple[int, int]) -> tuple[Float32Image, Float32Image]:
    """Angular frequencies of an rfft2 grid, radians per pixel: float32 `(ny, 1)` and `(1, nx // 2 + 1)`."""
    omega_y = (2 * np.pi * fft.fftfreq(size[0])[:, None]).astype(np.float32)
    omega_x = (2 * np.pi * fft.rfftfreq(size[1])[None, :]).astype(np.float32)
    return omega_y, omega_x


@lru_cache(maxsize=8)
def wing_shapes(sigmas_px: tuple[float, ...], size: tuple[int, int]) -> NDArray[np.float32]:
    """Transforms of Gaussians less a delta: light moved from the centre outwards, `(n, ny, nx // 2 + 1)`."""
    omega_y, omega_x = frequencies(size)
    square = omega_x**2 + omega_y**2
    widths = np.array(sigmas_px, np.float32)[:, None, None]
    return np.asarray(np.exp(-0.5 * widths**2 * square) - 1, np.float32)


def shift_hats(moves: Floats, size: tuple[int, int]) -> NDArray[np.complexfloating]:
    """Relative gain and shift x, y (px), `(n, 3)`, as rfft2 coefficients: complex64
    `(n, ny, nx // 2 + 1)`.
    """
    omega_y, omega_x = frequencies(size)
    gain, dx, dy = (moves[:, k].astype(np.float32)[:, None, None] for k in range(3))
    return np.asarray(gain * np.exp(-1j * omega_y * dy) * np.exp(-1j * omega_x * dx), np.complex64)


@lru_cache(maxsize=4)
def psf_hat(psf: Psf, x: float, y: float, size: tuple[int, int]) -> NDArray[np.complexfloating]:
    """`stamp_hat` of `psf.at(x, y)`, from the transforms of the PSF's terms; not to be written to."""
    hats, sums = _term_hats(psf, size)
    weights = polynomial(np.array([x]), np.array([y]), psf.frame_shape, psf.order)[0]
    weights /= weights @ sums
    # real numbers times complex ones: the parts are pairs of real columns
    parts = weights.astype(np.float32) @ hats.reshape(len(hats), -1).view(np.float32)
    hat = parts.view(np.complex64).reshape(hats.shape[1:])
    hat.flags.writeable = False
    return np.asarray(hat)


@lru_cache(maxsize=4)
def _term_hats(psf: Psf, size: tuple[int, int]) -> tuple[NDArray[np.complexfloating], Floats]:
    """Transforms of a PSF's terms, complex64 `(n_terms, ny, nx // 2 + 1)`, and their sums."""
    hats = np.stack([stamp_hat(term, size) for term in psf.terms])
    return hats, psf.terms.sum(axis=(1, 2), dtype=np.float64)


def stamp_hat(stamp: Stamp, size: tuple[int, int]) -> NDArray[np.complexfloating]:
    """rfft2 of a centred odd stamp laid on a `(ny, nx)` grid with its middle pixel at the origin.

    A stamp larger than the grid is cropped about its middle.
    """
    half = min(stamp.shape[0] // 2, (min(size) - 1) // 2)
    middle = stamp.shape[0] // 2
    core = stamp[middle - half : middle + half + 1, middle - half : middle + half + 1]
    grid = np.zeros(size, stamp.dtype)
    grid[: 2 * half + 1, : 2 * half + 1] = core
    return np.asarray(fft.rfft2(np.roll(grid, (-half, -half), axis=(0, 1))))
