"""How the reference becomes the science frame: gain, smooth shift and small change of width, from matched
pixels.

Owns one robust least-squares fit on PSF-matched stamps (science convolved with the reference's PSF against
reference convolved with the science PSF), where the identity holds for any constant source, star or galaxy,
at any seeing. Never resamples a frame, and never uses apertures: on unequal PSFs they are wrong by per cents.
"""

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import fft
from scipy.spatial import cKDTree

from astrid_workers.errors import SubtractionRefused
from astrid_workers.frame import Float32Image
from astrid_workers.imaging.psf import Psf, Stamp, polynomial

Floats = NDArray[np.float64]

#: Sources needed to measure a gain at all.
MIN_SOURCES = 3
#: Sources needed for gain, shift and width to vary over the frame with order 1 and 2.
MIN_SOURCES_FOR_ORDER = {1: 20, 2: 60}
#: More sources than this, or than this per megapixel of a large frame, only cost time.
MAX_SOURCES, MAX_PER_MPIX = 300, 90
#: Relative error that no source is trusted beyond: colours, flat fields, PSF models.
MODEL_ERROR = 0.005
#: What is known before of a change of width (second moments, px²) and of a residual shift (px).
WIDTH_PRIOR_PX2 = 0.3
#: Sources needed for a map of what the polynomial leaves, its bandwidths in mean distances of sources, and
#: the share of the scatter that it must fall below to be used.
MIN_SOURCES_FOR_MAP = 30
BANDWIDTHS = (0.8, 1.2, 2.0, 3.5)
WORTHWHILE = 0.9
#: Stars from which scatters are read off them alone.
MIN_STARS_FOR_SCATTER = 10
#: Steps of the linearised fit, with the sources that disagree left out of the next one.
ITERATIONS = 3
#: Columns of the local fit that vary over the frame: gain, shift x and y, second moments xx, xy, yy…
N_VARYING = 6
#: …and those that do not: light moved from the centre to Gaussians of these sigmas (FWHM), which mends the
#: wings.
WING_SIGMAS_FWHM = (0.75, 1.5)
N_LOCAL = N_VARYING + len(WING_SIGMAS_FWHM)
#: Share of the light that may be moved to each.
WING_PRIOR = 0.03
#: What background meshes may be wrong by, in sigma of a pixel.
PEDESTAL_SIGMA = 0.05
#: Pixels within this radius count, FWHM: wings are matched too.
REACH_FWHM = 2.7


@dataclass(frozen=True, slots=True, eq=False)
class PhotometricMatch:
    """science ⊗ P_reference = κ ⊗ reference ⊗ P_science, with κ of gain, shift and width that vary
    smoothly.
    """

    #: float64 `(n_terms, 9)`: polynomial coefficients of gain, shift x, shift y (px), moments xx, xy, yy
    #: (px²), and of shares of light in the wings, which are constant.
    coefficients: Floats
    #: Sigmas of the wings' Gaussians.
    wing_sigmas_px: Floats
    order: int
    frame_shape: tuple[int, int]
    #: science = flux_scale × reference, at the frame's centre.
    flux_scale: float
    flux_scale_error: float
    #: 1-sigma residual of registration per axis that is left after the smooth map, px; photon noise taken
    #: off.
    astrometric_noise_px: tuple[float, float]
    #: Relative scatter of the sources' gains about the map; photon noise taken off.
    gain_scatter: float
    #: Largest shift of the map within the frame, px.
    largest_shift_px: float
    n_sources: int
    n_rejected: int
    #: Places of the sources that were used, pixels.
    x: Floats
    y: Floats
    #: Which of them are stars.
    is_star: NDArray[np.bool_]
    #: What neighbouring sources agree on beyond the polynomial.
    residual: "ResidualMap"

    def at(self, x: float, y: float) -> Floats:
        """Gain, shift x, shift y, xx, xy, yy and shares of wings at a position: float64 `(9,)`."""
        terms = polynomial(np.array([x]), np.array([y]), self.frame_shape, self.order)[0]
        local = np.asarray(terms @ self.coefficients)
        beyond = self.residual.at(np.array([x]), np.array([y]))[0]
        local[0] *= 1 + beyond[0]
        local[1:3] += beyond[1:]
        return local

    def transfer(self, x: float, y: float, size: tuple[int, int]) -> NDArray[np.complexfloating]:
        """κ at a position as rfft2 coefficients of a `(ny, nx)` grid, complex64."""
        return transfer_function(self.at(x, y), self.wing_sigmas_px, size)


def transfer_function(
    local: Floats, wing_sigmas_px: Floats, size: tuple[int, int]
) -> NDArray[np.complexfloating]:
    """Gain, shift, change of second moments and wings as rfft2 coefficients, complex64 `(ny, nx // 2 + 1)`.

    A negative moment sharpens; its boost is capped at 3, so that noise is never blown up.
    """
    omega_y, omega_x = _frequencies(size)
    gain, shift_x, shift_y, xx, xy, yy = (np.float32(value) for value in local[:N_VARYING])
    moments = xx * omega_x**2 + xy * omega_x * omega_y + yy * omega_y**2
    shape = gain * np.exp(np.minimum(-moments, np.float32(np.log(3.0))))
    shares = local[N_VARYING:].astype(np.float32)
    shape *= 1 + np.tensordot(shares, _wing_shapes(tuple(wing_sigmas_px), size), axes=1)
    return np.asarray(
        shape * (np.exp(-1j * omega_y * shift_y) * np.exp(-1j * omega_x * shift_x)), np.complex64
    )


@lru_cache(maxsize=8)
def _frequencies(size: tuple[int, int]) -> tuple[Float32Image, Float32Image]:
    """Angular frequencies of an rfft2 grid, radians per pixel: float32 `(ny, 1)` and `(1, nx // 2 + 1)`."""
    omega_y = (2 * np.pi * fft.fftfreq(size[0])[:, None]).astype(np.float32)
    omega_x = (2 * np.pi * fft.rfftfreq(size[1])[None, :]).astype(np.float32)
    return omega_y, omega_x


@lru_cache(maxsize=8)
def _wing_shapes(sigmas_px: tuple[float, ...], size: tuple[int, int]) -> NDArray[np.float32]:
    """Transforms of Gaussians less a delta: light moved from the centre outwards, `(n, ny, nx // 2 + 1)`."""
    omega_y, omega_x = _frequencies(size)
    square = omega_x**2 + omega_y**2
    widths = np.array(sigmas_px, np.float32)[:, None, None]
    return np.asarray(np.exp(-0.5 * widths**2 * square) - 1, np.float32)


def measure_match(
    science: Float32Image,
    reference: Float32Image,
    variance: tuple[Float32Image, Float32Image],
    bad: NDArray[np.bool_],
    psfs: tuple[Psf, Psf],
    places: tuple[Floats, Floats],
    *,
    stars: tuple[Floats, Floats] | None = None,
    max_order: int = 2,
) -> PhotometricMatch:
    """Fit κ on stamps around `places` (x, y of bright sources, brightest first, zero-based pixels).

    Images are background-subtracted on one grid; `variance` and `psfs` are (science, reference); `bad` marks
    pixels unusable in either. Scatters are read off those that are among `stars` (x, y), where there are
    enough: galaxies may hold what changed. Raises `SubtractionRefused` with fewer than `MIN_SOURCES` usable
    sources.
    """
    stamps = _cut(science, reference, variance, bad, psfs, places)
    if len(stamps.x) < MIN_SOURCES:
        msg = (
            f"{len(stamps.x)} sources are bright and unsaturated in both frames, "
            f"{MIN_SOURCES} needed to match their fluxes"
        )
        raise SubtractionRefused(msg, sources=len(stamps.x), needed=MIN_SOURCES)
    order = max(
        (o for o, n in MIN_SOURCES_FOR_ORDER.items() if len(stamps.x) >= n and o <= max_order), default=0
    )
    return _fit(stamps, order, (science.shape[0], science.shape[1]), _are_stars(stamps, stars))


@dataclass(frozen=True, slots=True, eq=False)
class ResidualMap:
    """Local means of what sources want beyond the polynomial: relative gain, shift x, shift y.

    Gaussian-weighted, shrunk towards zero by the sources' own errors; a bandwidth of 0 switches a column off.
    """

    x: Floats
    y: Floats
    #: float64 `(n, 3)`.
    steps: Floats
    errors: Floats
    #: Scatter of the field itself, per column, and the sigma of the weights, pixels.
    scatter: Floats
    bandwidth_px: Floats

    def at(self, x: Floats, y: Floats) -> Floats:
        """The field at positions: float64 `(m, 3)`."""
        distance2 = (x[:, None] - self.x[None, :]) ** 2 + (y[:, None] - self.y[None, :]) ** 2
        return self._field(distance2, leave_out=False)

    def left_out(self) -> Floats:
        """The field at each source as all others see it: float64 `(n, 3)`."""
        distance2 = (self.x[:, None] - self.x[None, :]) ** 2 + (self.y[:, None] - self.y[None, :]) ** 2
        return self._field(distance2, leave_out=True)

    def _field(self, distance2: Floats, *, leave_out: bool) -> Floats:
        field = np.zeros((len(distance2), self.steps.shape[1]))
        for column, (bandwidth, scatter) in enumerate(zip(self.bandwidth_px, self.scatter, strict=True)):
            if bandwidth <= 0 or scatter <= 0:
                continue
            near = np.exp(-0.5 * distance2 / bandwidth**2)
            if leave_out:
                np.fill_diagonal(near, 0.0)
            weight = near / (self.errors[:, column] ** 2 + 0.25 * scatter**2)
            field[:, column] = (weight @ self.steps[:, column]) / (weight.sum(axis=1) + 1 / scatter**2)
        return field


@dataclass(frozen=True, slots=True, eq=False)
class _Stamps:
    """Cross-convolved stamps, `(n, size, size)` float64, and where they lie."""

    x: Floats
    y: Floats
    matched_science: Floats
    #: rfft2 of the reference ⊗ science PSF, so that shifts and widths are exact.
    matched_reference_hat: NDArray[np.complexfloating]
    #: Variance of a pixel of the matched difference at unit gain, per frame.
    variance_science: Floats
    variance_reference: Floats
    #: Pixels that count.
    inner: NDArray[np.bool_]
    #: By how much errors of gain, shift x and shift y exceed those of white noise: the matching correlates
    #: pixels.
    error_factors: Floats
    wing_sigmas_px: Floats
    #: What is known of a stamp's pedestal: the background meshes are that good.
    pedestal_sigma: float


def _cut(
    science: Float32Image,
    reference: Float32Image,
    variance: tuple[Float32Image, Float32Image],
    bad: NDArray[np.bool_],
    psfs: tuple[Psf, Psf],
    places: tuple[Floats, Floats],
) -> _Stamps:
    fwhm = max(psfs[0].fwhm_px, psfs[1].fwhm_px)
    reach = int(np.ceil(max(REACH_FWHM * fwhm, 5)))
    half = reach + int(np.ceil(max(2.0 * fwhm, 4)))
    x, y = _usable(places, bad, reach, half)
    size = 2 * half + 1
    rows = np.rint(y).astype(int)[:, None, None] + np.arange(-half, half + 1)[None, :, None]
    columns = np.rint(x).astype(int)[:, None, None] + np.arange(-half, half + 1)[None, None, :]
    padded = fft.next_fast_len(size + half, real=True)
    good = ~bad[rows, columns]
    pn, pr = (_psf_hats(p, x, y, padded) for p in psfs)
    n_hat, r_hat = (
        fft.rfft2(np.where(good, image[rows, columns], 0.0), s=(padded, padded))
        for image in (science, reference)
    )
    vn, vr = (np.where(good, plane[rows, columns], 0.0) for plane in variance)
    matched_n = fft.irfft2(n_hat * pr, s=(padded, padded))[:, :size, :size]
    noise_n = vn * np.mean(np.abs(pr) ** 2, axis=(1, 2))[:, None, None]
    noise_r = vr * np.mean(np.abs(pn) ** 2, axis=(1, 2))[:, None, None]
    axis = np.arange(-half, half + 1.0)
    inner = np.hypot(axis[:, None], axis[None, :]) <= reach
    factors = _error_factors(psfs, variance, bad, padded)
    wing_sigmas = np.array(WING_SIGMAS_FWHM) * fwhm
    pedestal = PEDESTAL_SIGMA * float(np.sqrt(np.median(vn) + np.median(vr))) if len(x) else 1.0
    return _Stamps(x, y, matched_n, r_hat * pn, noise_n, noise_r, inner, factors, wing_sigmas, pedestal)


def _error_factors(
    psfs: tuple[Psf, Psf], variance: tuple[Float32Image, Float32Image], bad: NDArray[np.bool_], padded: int
) -> Floats:
    """Square roots of noise power where a star's gain and shifts are measured, over its mean over
    frequency.
    """
    pn, pr = (np.abs(stamp_hat(psf.stamp, (padded, padded))) ** 2 for psf in psfs)
    vn, vr = (
        float(np.median(plane[::7, ::7][~bad[::7, ::7]])) if not bad.all() else 1.0 for plane in variance
    )
    noise = vn * pr + vr * pn
    counts = np.full_like(noise, 2.0)
    counts[:, 0] = 1.0
    omega_y, omega_x = fft.fftfreq(padded)[:, None], fft.rfftfreq(padded)[None, :]
    mean = float((noise * counts).sum() / counts.sum())
    star = pn * pr * counts
    profiles = (star, star * omega_x**2, star * omega_y**2)
    return np.sqrt([float((profile * noise).sum() / profile.sum()) / mean for profile in profiles])


def _usable(
    places: tuple[Floats, Floats], bad: NDArray[np.bool_], reach: int, half: int
) -> tuple[Floats, Floats]:
    """Places whole within the frame, without a bad pixel within reach, the first ones if they are many."""
    x, y = (np.asarray(axis, float) for axis in places)
    inside = (np.rint(x) >= half) & (np.rint(x) < bad.shape[1] - half)
    inside &= (np.rint(y) >= half) & (np.rint(y) < bad.shape[0] - half)
    x, y = x[inside], y[inside]
    offsets = np.arange(-reach, reach + 1)
    rows = np.rint(y).astype(int)[:, None, None] + offsets[None, :, None]
    columns = np.rint(x).astype(int)[:, None, None] + offsets[None, None, :]
    whole = ~bad[rows, columns].any(axis=(1, 2))
    most = max(MAX_SOURCES, round(MAX_PER_MPIX * bad.size / 1e6))
    return x[whole][:most], y[whole][:most]


def _psf_hats(psf: Psf, x: Floats, y: Floats, padded: int) -> NDArray[np.complexfloating]:
    """rfft2 of the PSF at each place, centred on pixel (0, 0): complex `(n, padded, padded // 2 + 1)`."""
    if psf.order == 0:
        return np.broadcast_to(stamp_hat(psf.stamp, (padded, padded)), (len(x), padded, padded // 2 + 1))
    weights = polynomial(x, y, psf.frame_shape, psf.order)
    hats = np.stack([stamp_hat(term, (padded, padded)) for term in psf.terms])
    mixed = np.tensordot(weights, hats, axes=1)
    return np.asarray(mixed / mixed[:, :1, :1].real)


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


def _are_stars(stamps: _Stamps, stars: tuple[Floats, Floats] | None) -> NDArray[np.bool_]:
    """Which sources lie within a pixel of a star."""
    if stars is None or len(stars[0]) == 0:
        return np.zeros(len(stamps.x), bool)
    near, _ = cKDTree(np.stack(stars, axis=1)).query(np.stack([stamps.x, stamps.y], axis=1))
    return np.asarray(near < 1.0)


def _fit(
    stamps: _Stamps, order: int, frame_shape: tuple[int, int], is_star: NDArray[np.bool_]
) -> PhotometricMatch:
    """Linearise about the last κ, drop sources that disagree, again; then measure what is left."""
    n = len(stamps.x)
    basis = polynomial(stamps.x, stamps.y, frame_shape, order)
    coefficients = np.zeros((basis.shape[1], N_LOCAL))
    coefficients[0, 0] = _first_gain(stamps)
    normal, right, misfit = _normal_equations(stamps, basis @ coefficients)
    steps, errors = _solve_each(normal, right, basis @ coefficients)
    alike = _agreeing(steps, errors * stamps.error_factors, basis @ coefficients, misfit)
    kept = alike if np.count_nonzero(alike) >= max(MIN_SOURCES, n / 2) else np.ones(n, bool)
    for _ in range(ITERATIONS):
        coefficients = coefficients + _solve_global(normal[kept], right[kept], basis[kept], coefficients)
        local = basis @ coefficients
        normal, right, misfit = _normal_equations(stamps, local)
        steps, errors = _solve_each(normal, right, local)
        errors *= stamps.error_factors
        kept = _agreeing(steps, errors, local, misfit)
        if np.count_nonzero(kept) < MIN_SOURCES:
            kept = np.ones(n, bool)
    return _measured(stamps, basis, coefficients, kept, steps, errors, order, frame_shape, is_star)


def _first_gain(stamps: _Stamps) -> float:
    """Median ratio of matched central pixels: close enough to linearise about."""
    size = stamps.matched_science.shape[1]
    half = size // 2
    padded = stamps.matched_reference_hat.shape[1]
    reference = fft.irfft2(stamps.matched_reference_hat, s=(padded, padded))[:, half, half]
    positive = reference > 0
    if not positive.any():
        return 1.0
    return float(np.median(stamps.matched_science[positive, half, half] / reference[positive]))


def _normal_equations(stamps: _Stamps, local: Floats) -> tuple[Floats, Floats, Floats]:
    """Per source: normal matrix `(n, 9, 9)`, right side `(n, 9)` and reduced chi², pedestal projected out."""
    size = stamps.matched_science.shape[1]
    padded = stamps.matched_reference_hat.shape[1]
    omega_y, omega_x = _frequencies((padded, padded))
    normal, right = np.zeros((len(local), N_LOCAL, N_LOCAL)), np.zeros((len(local), N_LOCAL))
    chi2 = np.zeros(len(local))
    wings = _wing_shapes(tuple(stamps.wing_sigmas_px), (padded, padded))
    factors = np.empty((N_LOCAL, padded, padded // 2 + 1), np.complex64)
    core = (1.0, -1j * omega_x, -1j * omega_y, -(omega_x**2), -omega_x * omega_y, -(omega_y**2))
    for factor, shape in zip(factors, core, strict=False):
        factor[:] = shape
    factors[N_VARYING:] = wings / (1 + np.tensordot(local[0, N_VARYING:], wings, axes=1))
    inner = stamps.inner.ravel()
    for i, row in enumerate(local):
        kernel = (
            transfer_function(row, stamps.wing_sigmas_px, (padded, padded)) * stamps.matched_reference_hat[i]
        )
        shapes = fft.irfft2(factors * kernel, s=(padded, padded))[:, :size, :size]
        design = shapes.reshape(N_LOCAL, -1)[:, inner].astype(np.float64)
        model = design[0].copy()
        design[0] /= row[0]
        variance = (stamps.variance_science[i] + row[0] ** 2 * stamps.variance_reference[i]).ravel()[inner]
        weight = 1 / (variance + (MODEL_ERROR * model) ** 2 + 1e-30)
        residual = stamps.matched_science[i].ravel()[inner] - model
        columns = np.vstack([design, np.ones(design.shape[1])])
        full = (columns * weight) @ columns.T
        full[-1, -1] += 1 / stamps.pedestal_sigma**2
        side = (columns * weight) @ residual
        normal[i] = full[:-1, :-1] - np.outer(full[:-1, -1], full[-1, :-1]) / full[-1, -1]
        right[i] = side[:-1] - full[:-1, -1] * side[-1] / full[-1, -1]
        chi2[i] = np.sum(weight * (residual - side[-1] / full[-1, -1]) ** 2) / len(residual)
    return normal, right, chi2


def _solve_global(normal: Floats, right: Floats, basis: Floats, coefficients: Floats) -> Floats:
    """The step of the polynomial coefficients `(n_terms, 9)`; wings have a constant term only."""
    terms = basis.shape[1]
    big = np.einsum("np,nq,nij->piqj", basis, basis, normal).reshape(terms * N_LOCAL, -1)
    side = np.einsum("np,ni->pi", basis, right).ravel()
    gain = max(abs(float(coefficients[0, 0])), 1e-12)
    held = np.array([0.0] * 3 + [1 / WIDTH_PRIOR_PX2**2] * 3 + [1 / WING_PRIOR**2] * len(WING_SIGMAS_FWHM))
    free = np.array([1e-6 / gain**2, 1e-4, 1e-4] + [0.0] * (N_LOCAL - 3))
    side -= np.tile(held, terms) * coefficients.ravel()
    big[np.diag_indices(len(big))] += np.tile(held + free, terms)
    unknown = np.ones((terms, N_LOCAL), bool)
    unknown[1:, N_VARYING:] = False
    index = np.flatnonzero(unknown)
    step = np.zeros(terms * N_LOCAL)
    step[index] = np.linalg.solve(big[np.ix_(index, index)], side[index])
    return step.reshape(terms, N_LOCAL)


def _solve_each(normal: Floats, right: Floats, local: Floats) -> tuple[Floats, Floats]:
    """Gain and shift that each source wants beyond the map, with errors: `(n, 3)` each."""
    small = normal[:, :3, :3].copy()
    small[:, range(3), range(3)] *= 1 + 1e-9
    small[:, range(3), range(3)] += np.array([1e-12 / max(abs(local[0, 0]), 1e-12) ** 2, 1e-6, 1e-6])
    inverse = np.linalg.inv(small)
    steps = np.einsum("nij,nj->ni", inverse, right[:, :3])
    return steps, np.sqrt(np.einsum("nii->ni", inverse))


def _agreeing(steps: Floats, errors: Floats, local: Floats, misfit: Floats) -> NDArray[np.bool_]:
    """Sources whose gain and shift lie within 4 sigma of the map, where sigma holds the sources' own
    scatter.
    """
    kept = np.isfinite(misfit)
    for column in range(3):
        scale = local[:, 0] if column == 0 else 1.0
        pull, error = steps[:, column] / scale, errors[:, column] / scale
        scatter = excess_scatter(pull, error)
        kept &= np.abs(pull - np.median(pull)) < 4 * np.hypot(error, max(scatter, 1e-4))
    middle = np.median(misfit)
    return kept & (misfit < middle + 6 * max(1.4826 * float(np.median(np.abs(misfit - middle))), 0.3))


def excess_scatter(values: Floats, errors: Floats) -> float:
    """Robust scatter of `values` beyond their `errors`, 0 when the errors explain it.

    Iterates sigma so that the median of |values| / sqrt(errors² + sigma²) is that of a Gaussian.
    """
    deviation = np.abs(values - np.median(values))
    low, high = 0.0, float(1.4826 * np.median(deviation) * 2 + 1e-12)
    if np.median(deviation / np.maximum(errors, 1e-30)) < 0.6745:
        return 0.0
    for _ in range(30):
        middle = (low + high) / 2
        if np.median(deviation / np.hypot(errors, middle)) > 0.6745:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def _measured(
    stamps: _Stamps,
    basis: Floats,
    coefficients: Floats,
    kept: NDArray[np.bool_],
    steps: Floats,
    errors: Floats,
    order: int,
    frame_shape: tuple[int, int],
    is_star: NDArray[np.bool_],
) -> PhotometricMatch:
    local = basis @ coefficients
    used = np.flatnonzero(kept)
    x, y = stamps.x[used], stamps.y[used]
    scale = np.stack([local[used, 0], np.ones(len(used)), np.ones(len(used))], axis=1)
    steps, errors = steps[used] / scale, np.maximum(errors[used] / np.abs(scale), 1e-6)
    residual = _residual_map(x, y, steps, errors, frame_shape)
    left = steps - residual.left_out()
    stars = is_star[used]
    asked = stars if np.count_nonzero(stars) >= MIN_STARS_FOR_SCATTER else np.ones(len(used), bool)
    gain_scatter, *shifts = (excess_scatter(left[asked, k], errors[asked, k]) for k in range(3))
    weights = 1 / (errors[:, 0] ** 2 + gain_scatter**2)
    moves = local[used, 1:3] + residual.at(x, y)[:, 1:]
    return PhotometricMatch(
        coefficients,
        stamps.wing_sigmas_px,
        order,
        frame_shape,
        float(coefficients[0, 0]),
        float(abs(coefficients[0, 0]) / np.sqrt(weights.sum())),
        (shifts[0], shifts[1]),
        gain_scatter,
        float(np.max(np.hypot(moves[:, 0], moves[:, 1]))),
        len(used),
        int(len(kept) - len(used)),
        x,
        y,
        stars,
        residual,
    )


def _residual_map(
    x: Floats, y: Floats, steps: Floats, errors: Floats, frame_shape: tuple[int, int]
) -> ResidualMap:
    """The bandwidth per column at which each source is best foretold by the others; 0 where none helps."""
    scatter = np.array([excess_scatter(steps[:, k], errors[:, k]) for k in range(3)])
    off = ResidualMap(x, y, steps, errors, scatter, np.zeros(3))
    if len(x) < MIN_SOURCES_FOR_MAP:
        return off
    spacing = float(np.sqrt(frame_shape[0] * frame_shape[1] / len(x)))
    best, least = np.zeros(3), scatter * WORTHWHILE
    for factor in BANDWIDTHS:
        trial = replace(off, bandwidth_px=np.full(3, factor * spacing))
        left = steps - trial.left_out()
        for k in range(3):
            remaining = excess_scatter(left[:, k], errors[:, k])
            if remaining < least[k]:
                best[k], least[k] = factor * spacing, remaining
    return replace(off, bandwidth_px=best)
