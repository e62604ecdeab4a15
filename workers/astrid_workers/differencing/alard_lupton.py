"""Alard–Lupton: a kernel that turns the sharper frame into the broader one, by least squares on the pixels of
sources.

Owns the basis (Gaussians times polynomials, Alard & Lupton 1998; zero-sum but the first, Alard 2000), the fit
with its variation over the frame, and which frame is convolved: always the sharper. Needs no PSF, so it holds
where stars are too few for one. Registration is not the kernel's business: a shift field bends on scales that
no polynomial of kernels follows, so the shifts that `photometric_match.py` measured go into the transfer. The
noise that a kernel correlates is undone by `tiles.py`. Never convolves a whole frame itself.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from astrid_workers.differencing.kernel_freedom import KernelEquations, choose_freedom
from astrid_workers.errors import SubtractionRefused
from astrid_workers.frame import Float32Image
from astrid_workers.imaging.matched_stamps import inside_of
from astrid_workers.imaging.photometric_match import MODEL_ERROR, PhotometricMatch, refuse_small_frame
from astrid_workers.imaging.psf import SIGMA_PER_FWHM, polynomial
from astrid_workers.imaging.transfer import shift_hats, stamp_hat

Floats = NDArray[np.float64]

#: Sigmas of the basis Gaussians in units of the difference of seeing, and the degree of their polynomials.
BASIS = ((0.7, 4), (1.4, 2), (2.8, 1))
#: Sigmas of round Gaussians that match the wings, in FWHM of the broader frame, and the reach of kernel and
#: stamp.
WINGS_FWHM = (0.5, 1.0)
KERNEL_HALF_FWHM, REACH_FWHM = 2.2, 2.5
#: Share of the light that may be moved to each, and what background meshes may be wrong by, in sigma of a
#: pixel.
WING_PRIOR, PEDESTAL_SIGMA = 0.03, 0.05
MIN_SOURCES = 3
MAX_SOURCES = 150
#: The difference of seeing counts as no less than this, pixels (sigma): equal seeing still needs freedom.
MIN_SIGMA_PX = 0.7


@dataclass(frozen=True, slots=True, eq=False)
class AlardLupton:
    """The fitted kernel; `convolved` says which frame it is for."""

    #: float64 `(n_terms, size, size)`: kernel images that multiply 1, u, v, u², uv, v².
    terms: Floats
    order: int
    frame_shape: tuple[int, int]
    convolved: Literal["reference", "science"]
    n_sources: int
    n_rejected: int
    #: Median reduced chi² of the sources that were used.
    chi2: float
    #: Residual of sources that the fit does not know over that of those it knows; at least 1.
    overfit: float
    #: Where the reference's sources stand beside the science frame's; the kernel is for what they share.
    match: PhotometricMatch

    @property
    def flux_scale(self) -> float:
        """science = flux_scale × reference, at the frame's centre."""
        total = float(self.terms[0].sum())
        return total if self.convolved == "reference" else 1 / total

    def kernel(self, x: float, y: float) -> Floats:
        """The kernel at a position: `(size, size)`."""
        weights = polynomial(np.array([x]), np.array([y]), self.frame_shape, self.order)[0]
        return np.asarray(np.tensordot(weights, self.terms, axes=1))

    @property
    def varies(self) -> bool:
        """Whether the kernel or the shift depends on the position."""
        return max(self.order, self.match.order) > 0

    def transfer(
        self, x: float, y: float, size: tuple[int, int]
    ) -> tuple[NDArray[np.complexfloating], NDArray[np.complexfloating]]:
        """`(a_n, a_r)` at a position, rfft2 coefficients on a `(ny, nx)` grid, complex."""
        kernel = stamp_hat(self.kernel(x, y).astype(np.float32), size)
        moved = shift_hats(self.match.moves(np.array([x]), np.array([y])), size)[0]
        return (np.ones_like(kernel), kernel * moved) if self.convolved == "reference" else (kernel, moved)

    def moves_on_grid(self, x: Floats, y: Floats) -> Floats:
        """Relative gain, shift x and shift y in `a_r` where columns `x` and rows `y` cross: `(3, ny, nx)`."""
        return self.match.moves_on_grid(x, y)


@dataclass(frozen=True, slots=True, eq=False)
class Unmatched:
    """No PSF matching at all: a gain, for comparison only."""

    flux_scale: float

    @property
    def varies(self) -> bool:
        """Never."""
        return False

    def transfer(
        self,
        x: float,  # noqa: ARG002 - the same everywhere
        y: float,  # noqa: ARG002 - the same everywhere
        size: tuple[int, int],
    ) -> tuple[NDArray[np.complexfloating], NDArray[np.complexfloating]]:
        """`(1, flux_scale)`."""
        one = np.ones((size[0], size[1] // 2 + 1), np.complex64)
        return one, one * np.float32(self.flux_scale)

    def moves_on_grid(self, x: Floats, y: Floats) -> Floats:
        """Nothing moves."""
        moves = np.zeros((3, len(y), len(x)))
        moves[0] = 1
        return moves


def fit_kernel(
    science: Float32Image,
    reference: Float32Image,
    variance: tuple[Float32Image, Float32Image],
    bad: NDArray[np.bool_],
    fwhm: tuple[float, float],
    places: tuple[Floats, Floats],
    match: PhotometricMatch,
    *,
    max_order: int = 2,
) -> AlardLupton:
    """Fit the kernel on stamps around `places` (x, y of bright sources, brightest first).

    Images are background-subtracted on one grid; `variance` and `fwhm` are (science, reference); `bad` marks
    pixels unusable in either; `match` has the shifts between them. Raises `SubtractionRefused` with
    fewer than `MIN_SOURCES` whole sources.
    """
    backwards = fwhm[0] < fwhm[1]
    images = (reference, science) if backwards else (science, reference)
    variances = variance[::-1] if backwards else variance
    broad, sharp = max(fwhm), min(fwhm)
    base = max(np.sqrt(broad**2 - sharp**2) * SIGMA_PER_FWHM, MIN_SIGMA_PX)
    reach = int(np.ceil(max(REACH_FWHM * broad, 6)))
    half_kernel = int(np.ceil(max(KERNEL_HALF_FWHM * broad, 6)))
    x, y = _whole(places, bad, reach, half_kernel)
    if len(x) < MIN_SOURCES:
        refuse_small_frame(
            bad.shape, places, reach + half_kernel, len(x), f"{MIN_SOURCES} needed to fit a kernel"
        )
        msg = (
            f"{len(x)} of {len(places[0])} sources that matched have no masked pixel within {reach + 2} px "
            f"in either frame, {MIN_SOURCES} needed to fit a kernel; {100 * float(bad.mean()):.1f} % of the "
            "pixels are masked"
        )
        raise SubtractionRefused(msg, sources=len(x), needed=MIN_SOURCES)
    wings = tuple(factor * broad for factor in WINGS_FWHM)
    basis, degrees = kernel_basis(base, half_kernel, BASIS, wings)
    pedestal = PEDESTAL_SIGMA * float(np.sqrt(sum(np.median(v[::7, ::7][~bad[::7, ::7]]) for v in variances)))
    moves = match.moves(x, y)
    moves = np.stack([1 / moves[:, 0], -moves[:, 1], -moves[:, 2]], axis=1) if backwards else moves
    equations = _equations(*_stamps(images, variances, x, y, moves, basis, reach), pedestal)
    frame_shape = (science.shape[0], science.shape[1])
    held = np.zeros(len(basis))
    held[-len(wings) :] = 1 / (WING_PRIOR * equations.gain) ** 2
    choice = choose_freedom(equations, x, y, frame_shape, degrees, held, max_order)
    coefficients = np.zeros((choice.coefficients.shape[0], len(basis)))
    coefficients[:, choice.members] = choice.coefficients
    return AlardLupton(
        np.tensordot(coefficients, basis, axes=1),
        choice.order,
        frame_shape,
        "science" if backwards else "reference",
        int(np.count_nonzero(choice.kept)),
        int(np.count_nonzero(~choice.kept)),
        choice.chi2,
        choice.overfit,
        match,
    )


def kernel_basis(
    base_sigma: float, half: int, parts: tuple[tuple[float, int], ...], wings: tuple[float, ...] = ()
) -> tuple[Floats, NDArray[np.intp]]:
    """Basis kernels `(n, size, size)` and the degree of each one's polynomial, 0 for delta and wings.

    The first is a delta of sum 1, the others are Gaussians × polynomials of sum 0.
    """
    axis = np.arange(-half, half + 1.0)
    delta = np.zeros((2 * half + 1, 2 * half + 1))
    delta[half, half] = 1.0
    kernels, degrees = [delta], [0]
    shapes = [(max(factor * base_sigma, 0.5), degree) for factor, degree in parts]
    for sigma, degree in [*shapes, *((sigma, 0) for sigma in wings)]:
        gauss = np.exp(-0.5 * (axis / sigma) ** 2)
        for i in range(degree + 1):
            for j in range(degree + 1 - i):
                kernel = np.outer((axis / sigma) ** j * gauss, (axis / sigma) ** i * gauss)
                kernel /= np.abs(kernel).sum()
                kernels.append(kernel - kernel.sum() * delta)
                degrees.append(i + j)
    return np.stack(kernels), np.array(degrees)


def _whole(
    places: tuple[Floats, Floats], bad: NDArray[np.bool_], reach: int, half_kernel: int
) -> tuple[Floats, Floats]:
    """Places whose stamp and what the kernel adds to it are whole."""
    x, y = inside_of(bad.shape, places, reach + half_kernel)
    offsets = np.arange(-reach - 2, reach + 3)
    rows = np.rint(y).astype(int)[:, None, None] + offsets[None, :, None]
    columns = np.rint(x).astype(int)[:, None, None] + offsets[None, None, :]
    whole = ~bad[rows, columns].any(axis=(1, 2))
    return x[whole][:MAX_SOURCES], y[whole][:MAX_SOURCES]


def _stamps(
    images: tuple[Float32Image, Float32Image],
    variances: tuple[Float32Image, Float32Image],
    x: Floats,
    y: Floats,
    moves: Floats,
    basis: Floats,
    reach: int,
) -> tuple[Floats, Floats, Floats]:
    """Target `(n, p)`, design `(n, n_basis, p)` and weights `(n, p)` of the pixels within reach of each
    source; `moves` bring the sharp frame's sources to the broad one's.
    """
    broad, sharp = images
    half_kernel = basis.shape[-1] // 2
    half = reach + half_kernel
    size = 2 * half + 1
    rows = np.rint(y).astype(int)[:, None, None] + np.arange(-half, half + 1)[None, :, None]
    columns = np.rint(x).astype(int)[:, None, None] + np.arange(-half, half + 1)[None, None, :]
    padded = fft.next_fast_len(size + half_kernel, real=True)
    sharp_hat = fft.rfft2(sharp[rows, columns].astype(np.float64), s=(padded, padded))
    sharp_hat *= shift_hats(moves, (padded, padded))
    axis = np.arange(-half, half + 1.0)
    inner = np.hypot(axis[:, None], axis[None, :]) <= reach
    design = np.empty((len(x), len(basis), int(inner.sum())))
    for k, kernel in enumerate(basis):
        convolved = fft.irfft2(sharp_hat * stamp_hat(kernel, (padded, padded)), s=(padded, padded))
        design[:, k] = convolved[:, :size, :size][:, inner]
    target = broad[rows, columns].astype(np.float64)[:, inner]
    noise = (
        variances[0][rows, columns][:, inner]
        + _gain(target, design) ** 2 * variances[1][rows, columns][:, inner]
    )
    return target, design, 1 / (noise + (MODEL_ERROR * target) ** 2)


def _gain(target: Floats, design: Floats) -> float:
    """Median ratio of the light within reach: what the priors are scaled by, no more."""
    light = design[:, 0].sum(axis=1)
    return max(float(np.median(target.sum(axis=1) / np.where(light > 0, light, np.inf))), 1e-12)


def _equations(target: Floats, design: Floats, weight: Floats, pedestal_sigma: float) -> KernelEquations:
    """Normal equations per source, with a pedestal of its own projected out under its prior."""
    n, n_basis = design.shape[:2]
    normal, right, total = np.empty((n, n_basis, n_basis)), np.empty((n, n_basis)), np.empty(n)
    for i in range(n):
        columns = np.vstack([design[i], np.ones(design.shape[2])])
        full = (columns * weight[i]) @ columns.T
        full[-1, -1] += 1 / pedestal_sigma**2
        side = (columns * weight[i]) @ target[i]
        normal[i] = full[:-1, :-1] - np.outer(full[:-1, -1], full[-1, :-1]) / full[-1, -1]
        right[i] = side[:-1] - full[:-1, -1] * side[-1] / full[-1, -1]
        total[i] = np.sum(weight[i] * target[i] ** 2) - side[-1] ** 2 / full[-1, -1]
    return KernelEquations(normal, right, total, target.shape[1], _gain(target, design))
