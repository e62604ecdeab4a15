"""The point-spread function of a frame and the stamps that it is made of.

Owns its value at a place, the Moffat profile and the width of a stamp; never looks at a star
(`measure_psf.py` does).

Arrays are `[y, x]`; a PSF stamp is square, of odd side, centred in its middle pixel, sums to 1 and is what
pixels record (the pixel's own width is in it).
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Stamp = NDArray[np.float32]
Stamps = NDArray[np.float64]

#: Half-side of a stamp in FWHM: light further out is below 0.3 % for a Moffat of exponent 3.
STAMP_HALF_FWHM = 4.5
#: Never smaller than this, pixels: an undersampled PSF has wings too.
MIN_HALF_PX = 8
MAX_HALF_PX = 60
#: Below this many clean stars the stack is noise: a Moffat of the measured width serves instead.
MIN_STARS_FOR_STACK = 8
#: Exponent of the fallback Moffat: atmospheric PSFs have 2.5 to 4.5.
FALLBACK_BETA = 3.0
#: Sigma of a Gaussian of FWHM 1.
SIGMA_PER_FWHM = 1 / 2.354820045


@dataclass(frozen=True, slots=True, eq=False)
class Psf:
    """A PSF that may vary over the frame as a polynomial in position."""

    #: float32 `(n_terms, size, size)`: images that multiply 1, u, v, u², uv, v², with u and v from -1 to 1.
    terms: Stamp
    #: `(ny, nx)` of the frame it belongs to.
    frame_shape: tuple[int, int]
    #: Full width at half maximum at the frame's centre, pixels.
    fwhm_px: float
    #: Stars that went into it.
    n_stars: int
    #: `stars`: measured pixel by pixel; `kernel`: those of a sharper frame, through the kernel that matches
    #: the two; `moffat`: the fallback; `given`: handed in.
    model: Literal["stars", "kernel", "moffat", "given"]
    #: How it was made, one sentence.
    why: str
    #: Share of a source's light that lies beyond the stamp, as its wing falls; fluxes are of all of it.
    light_beyond: float = 0.0

    @property
    def order(self) -> int:
        """Polynomial order over the frame: 0, 1 or 2."""
        return {1: 0, 3: 1, 6: 2}[len(self.terms)]

    @property
    def size_px(self) -> int:
        """Side of a stamp."""
        return int(self.terms.shape[-1])

    @property
    def light_within(self) -> float:
        """Share of a source's light that lies on the stamp."""
        return 1.0 - self.light_beyond

    @property
    def stamp(self) -> Stamp:
        """The PSF at the frame's centre."""
        ny, nx = self.frame_shape
        return self.at((nx - 1) / 2, (ny - 1) / 2)

    def at(self, x: float, y: float) -> Stamp:
        """The PSF at a pixel position: float32 `(size, size)`, sum 1."""
        weights = polynomial(np.array([x]), np.array([y]), self.frame_shape, self.order)[0]
        stamp = np.tensordot(weights, self.terms, axes=1)
        normal: Stamp = (stamp / stamp.sum()).astype(np.float32)
        return normal


def polynomial(
    x: NDArray[np.floating], y: NDArray[np.floating], frame_shape: tuple[int, int], order: int
) -> NDArray[np.float64]:
    """Terms 1, u, v, u², uv, v² up to `order` at positions: float64 `(n, n_terms)`; u and v are -1 to 1 in
    the frame.
    """
    ny, nx = frame_shape
    u = np.clip((np.asarray(x, float) - (nx - 1) / 2) / (nx / 2), -1.0, 1.0)
    v = np.clip((np.asarray(y, float) - (ny - 1) / 2) / (ny / 2), -1.0, 1.0)
    columns = [np.ones_like(u), u, v, u * u, u * v, v * v]
    return np.stack(columns[: (order + 1) * (order + 2) // 2], axis=1)


def given_psf(stamp: NDArray[np.floating], frame_shape: tuple[int, int]) -> Psf:
    """A constant PSF from a stamp that is known already; it is normalised to sum 1."""
    normal = np.asarray(stamp, np.float64) / np.sum(stamp, dtype=np.float64)
    return Psf(
        normal[None].astype(np.float32), frame_shape, measure_fwhm(normal), 0, "given", "PSF as it was given"
    )


def moffat_psf(
    fwhm: float,
    frame_shape: tuple[int, ...],
    n_stars: int,
    size_px: int | None = None,
    beta: float = FALLBACK_BETA,
) -> Psf:
    """The declared low-star fallback: a round Moffat of the given width, constant over the frame."""
    stamp = moffat_stamp(fwhm, size_px or 2 * half_side(fwhm, None) + 1, beta)
    why = (
        f"{n_stars} clean stars, {MIN_STARS_FOR_STACK} needed for a stack: "
        f"a Moffat of FWHM {fwhm:.2f} px and exponent {beta:g} serves instead"
    )
    beyond = moffat_light_beyond(fwhm, stamp.shape[0], beta)
    shape = (frame_shape[0], frame_shape[1])
    return Psf(stamp[None], shape, measure_fwhm(stamp), n_stars, "moffat", why, beyond)


def moffat_light_beyond(fwhm: float, size_px: int, beta: float = FALLBACK_BETA) -> float:
    """Share of a round Moffat's light beyond a circle of a stamp's width."""
    alpha = fwhm / (2 * np.sqrt(2 ** (1 / beta) - 1))
    return float((1 + (size_px / 2 / alpha) ** 2) ** (1 - beta))


def moffat_stamp(fwhm: float, size_px: int, beta: float = FALLBACK_BETA, oversample: int = 5) -> Stamp:
    """A round Moffat integrated over pixels: float32 `(size, size)`, sum 1."""
    fine = (np.arange(size_px * oversample) + 0.5) / oversample - size_px / 2
    alpha = fwhm / (2 * np.sqrt(2 ** (1 / beta) - 1))
    profile = (1 + (fine[:, None] ** 2 + fine[None, :] ** 2) / alpha**2) ** -beta
    stamp = profile.reshape(size_px, oversample, size_px, oversample).sum(axis=(1, 3))
    normal: Stamp = (stamp / stamp.sum()).astype(np.float32)
    return normal


def measure_fwhm(stamp: NDArray[np.floating]) -> float:
    """Diameter of the circle with the area that a stamp has above half its maximum, pixels."""
    half = stamp.shape[0] // 2
    reach = min(half, 15)
    core = np.asarray(stamp, np.float64)[half - reach : half + reach + 1, half - reach : half + reach + 1]
    fine_per_px = 8
    fine = ndimage.zoom(core, fine_per_px, order=3, mode="nearest", grid_mode=True)
    above, _ = ndimage.label(fine > fine.max() / 2)
    area = np.count_nonzero(above == above[np.unravel_index(fine.argmax(), fine.shape)]) / fine_per_px**2
    return float(2 * np.sqrt(area / np.pi))


def half_side(fwhm: float, size_px: int | None) -> int:
    """Half a stamp's side for a PSF of this width; that of `size_px` where it is given."""
    if size_px is not None:
        return size_px // 2
    return int(np.clip(np.ceil(STAMP_HALF_FWHM * fwhm), MIN_HALF_PX, MAX_HALF_PX))
