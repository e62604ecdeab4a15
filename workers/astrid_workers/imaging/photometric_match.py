"""How the reference becomes the science frame: gain, smooth shift and small change of width, from matched
pixels.

Owns one robust least-squares fit on PSF-matched stamps (science convolved with the reference's PSF against
reference convolved with the science PSF), where the identity holds for any constant source, star or galaxy,
at any seeing. Never resamples a frame, and never uses apertures: on unequal PSFs they are wrong by per cents.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import fft
from scipy.spatial import cKDTree

from astrid_workers.errors import SubtractionRefused
from astrid_workers.frame import Float32Image
from astrid_workers.imaging.matched_stamps import WING_SIGMAS_FWHM, MatchedStamps, cut_stamps, inside_of
from astrid_workers.imaging.psf import Psf, polynomial
from astrid_workers.imaging.residual_map import (
    ResidualMap,
    excess_scatter,
    likeliest_scatter,
    measure_residual_map,
)
from astrid_workers.imaging.transfer import (
    N_VARYING,
    frequencies,
    transfer_function,
    transfer_functions,
    wing_shapes,
)

Floats = NDArray[np.float64]

#: Sources needed to measure a gain at all.
MIN_SOURCES = 3
#: Sources needed for gain, shift and width to vary over the frame with order 1 and 2.
MIN_SOURCES_FOR_ORDER = {1: 20, 2: 60}
#: Relative error that no source is trusted beyond: colours, flat fields, PSF models.
MODEL_ERROR = 0.005
#: What is known before of a change of width (second moments, px²) and of a residual shift (px).
WIDTH_PRIOR_PX2 = 0.3
#: Stars from which scatters and errors are read off them alone: so many, or fewer where they are at least
#: this share of the sources. A handful does not stand for hundreds of blends.
ENOUGH_STARS, MIN_STARS, MIN_STAR_SHARE = 10, 5, 0.05
#: Steps of the linearised fit, with the sources that disagree left out of the next one.
ITERATIONS = 3
#: Share of every source's own error below which a step of gain and shift changes nothing.
SETTLED = 0.01
#: Sources whose equations are set up together: as many as the processor's cache holds.
TOGETHER = 8
#: Columns of the local fit: those that vary over the frame, and light moved from the centre to wings, which
#: does not.
N_LOCAL = N_VARYING + len(WING_SIGMAS_FWHM)
#: Share of the light that may be moved to each.
WING_PRIOR = 0.03


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
    #: 1-sigma residual of registration per axis that is left after the smooth map, px: the map's own error,
    #: and what stars scatter beyond it and their photon noise.
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
    residual: ResidualMap

    def at(self, x: float, y: float) -> Floats:
        """Gain, shift x, shift y, xx, xy, yy and shares of wings at a position: float64 `(9,)`."""
        terms = polynomial(np.array([x]), np.array([y]), self.frame_shape, self.order)[0]
        local = np.asarray(terms @ self.coefficients)
        moved = self.moves(np.array([x]), np.array([y]))[0]
        local[0] *= moved[0]
        local[1:3] = moved[1:]
        return local

    def moves(self, x: Floats, y: Floats) -> Floats:
        """Relative gain beyond the polynomial, shift x and shift y (px) at positions: float64 `(n, 3)`."""
        beyond = self.residual.at(x, y)
        shifts = polynomial(x, y, self.frame_shape, self.order) @ self.coefficients[:, 1:3]
        return np.column_stack([1 + beyond[:, 0], shifts + beyond[:, 1:]])

    def moves_on_grid(self, x: Floats, y: Floats) -> Floats:
        """`moves` where columns `x` and rows `y` cross: float64 `(3, len(y), len(x))`."""
        moves = self.residual.on_grid(x, y)
        columns, rows = np.meshgrid(x, y)
        terms = polynomial(columns.ravel(), rows.ravel(), self.frame_shape, self.order)
        moves[0] += 1
        moves[1:] += (terms @ self.coefficients[:, 1:3]).T.reshape(2, len(y), len(x))
        return moves

    def transfer(self, x: float, y: float, size: tuple[int, int]) -> NDArray[np.complexfloating]:
        """κ at a position as rfft2 coefficients of a `(ny, nx)` grid, complex64."""
        return transfer_function(self.at(x, y), self.wing_sigmas_px, size)


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
    stamps = cut_stamps(science, reference, variance, bad, psfs, places)
    if len(stamps.x) < MIN_SOURCES:
        refuse_small_frame(
            bad.shape, places, stamps.half_px, len(stamps.x), f"{MIN_SOURCES} needed to match their fluxes"
        )
        msg = (
            f"{len(stamps.x)} of {len(places[0])} bright sources have no masked pixel within "
            f"{stamps.reach_px} px in either frame, {MIN_SOURCES} needed to match their fluxes; "
            f"{100 * float(bad.mean()):.1f} % of the pixels are masked"
        )
        raise SubtractionRefused(msg, sources=len(stamps.x), needed=MIN_SOURCES)
    order = max(
        (o for o, n in MIN_SOURCES_FOR_ORDER.items() if len(stamps.x) >= n and o <= max_order), default=0
    )
    return _fit(stamps, order, (science.shape[0], science.shape[1]), _are_stars(stamps, stars))


def refuse_small_frame(
    shape: tuple[int, ...], places: tuple[Floats, Floats], half_px: int, n_usable: int, needed: str
) -> None:
    """Raise SubtractionRefused where of enough sources the edges of the frame take as many as masks, or more.

    A source's stamp reaches `half_px` to each side. `n_usable` sources, too few, are left of those at
    `places`; `needed` says how many it takes, and for what.
    """
    ny, nx = shape
    n = len(places[0])
    n_outside = n - len(inside_of(shape, places, half_px)[0])
    n_masked = n - n_outside - n_usable
    if n < MIN_SOURCES or n_outside < n_masked:
        return
    msg = (
        f"the frame of {nx} x {ny} px is too small: of {n} sources {n_outside} lie within {half_px} px of "
        f"its edges and {n_masked} next to masked pixels, which leaves {n_usable}, {needed}"
    )
    raise SubtractionRefused(msg, sources=n_usable, needed=MIN_SOURCES, width_px=nx, height_px=ny)


def _are_stars(stamps: MatchedStamps, stars: tuple[Floats, Floats] | None) -> NDArray[np.bool_]:
    """Which sources lie within a pixel of a star."""
    if stars is None or len(stars[0]) == 0:
        return np.zeros(len(stamps.x), bool)
    near, _ = cKDTree(np.stack(stars, axis=1)).query(np.stack([stamps.x, stamps.y], axis=1))
    return np.asarray(near < 1.0)


def _fit(
    stamps: MatchedStamps, order: int, frame_shape: tuple[int, int], is_star: NDArray[np.bool_]
) -> PhotometricMatch:
    """Linearise about the last κ, drop sources that disagree, again; then measure what is left."""
    n = len(stamps.x)
    basis = polynomial(stamps.x, stamps.y, frame_shape, order)
    coefficients = np.zeros((basis.shape[1], N_LOCAL))
    coefficients[0, 0] = _first_gain(stamps)
    normal, right, misfit = _normal_equations(stamps, basis @ coefficients)
    steps, errors = _solve_each(normal, right, basis @ coefficients)
    errors *= stamps.error_factors
    alike = _agreeing(steps, errors, basis @ coefficients, misfit, is_star)
    kept = alike if np.count_nonzero(alike) >= max(MIN_SOURCES, n / 2) else np.ones(n, bool)
    for _ in range(ITERATIONS):
        step = _solve_global(normal[kept], right[kept], basis[kept], coefficients)
        coefficients = coefficients + step
        if np.all(np.abs(basis @ step[:, :3]) < SETTLED * errors):
            break
        local = basis @ coefficients
        normal, right, misfit = _normal_equations(stamps, local)
        steps, errors = _solve_each(normal, right, local)
        errors *= stamps.error_factors
        kept = _agreeing(steps, errors, local, misfit, is_star)
        if np.count_nonzero(kept) < MIN_SOURCES:
            kept = np.ones(n, bool)
    return _measured(stamps, basis, coefficients, kept, steps, errors, order, frame_shape, is_star)


def _first_gain(stamps: MatchedStamps) -> float:
    """Median ratio of matched central pixels: close enough to linearise about."""
    size = stamps.matched_science.shape[1]
    half = size // 2
    padded = stamps.matched_reference_hat.shape[1]
    reference = fft.irfft2(stamps.matched_reference_hat, s=(padded, padded))[:, half, half]
    positive = reference > 0
    if not positive.any():
        return 1.0
    return float(np.median(stamps.matched_science[positive, half, half] / reference[positive]))


def _normal_equations(stamps: MatchedStamps, local: Floats) -> tuple[Floats, Floats, Floats]:
    """Per source: normal matrix `(n, 9, 9)`, right side `(n, 9)` and reduced chi², pedestal projected out."""
    factors = _derivatives(stamps, local[0])
    parts = [
        _equations_of(stamps, local, factors, slice(start, start + TOGETHER))
        for start in range(0, len(local), TOGETHER)
    ]
    normal, right, chi2 = (np.concatenate(part) for part in zip(*parts, strict=True))
    return normal, right, chi2


def _derivatives(stamps: MatchedStamps, first: Floats) -> NDArray[np.complexfloating]:
    """What κ is multiplied with for its change by each local parameter: complex64 `(9, ny, nx // 2 + 1)`.

    The first is by the logarithm of the gain; the shares of the wings, which do not vary, are those of
    `first`.
    """
    padded = stamps.matched_reference_hat.shape[1]
    omega_y, omega_x = frequencies((padded, padded))
    wings = wing_shapes(tuple(stamps.wing_sigmas_px), (padded, padded))
    factors = np.empty((N_LOCAL, padded, padded // 2 + 1), np.complex64)
    core = (1.0, -1j * omega_x, -1j * omega_y, -(omega_x**2), -omega_x * omega_y, -(omega_y**2))
    for factor, shape in zip(factors, core, strict=False):
        factor[:] = shape
    factors[N_VARYING:] = wings / (1 + np.tensordot(first[N_VARYING:], wings, axes=1))
    return factors


def _equations_of(
    stamps: MatchedStamps, local: Floats, factors: NDArray[np.complexfloating], few: slice
) -> tuple[Floats, Floats, Floats]:
    """The equations of a few sources."""
    size, padded = stamps.matched_science.shape[1], stamps.matched_reference_hat.shape[1]
    local, inner = local[few], stamps.inner
    gain = local[:, :1]
    kernels = transfer_functions(local, stamps.wing_sigmas_px, (padded, padded))
    kernels *= stamps.matched_reference_hat[few]
    shapes = fft.irfft2(factors * kernels[:, None], s=(padded, padded), overwrite_x=True)[..., :size, :size]
    columns = np.ones((len(local), N_LOCAL + 1, int(np.count_nonzero(inner))))
    columns[:, :-1] = shapes[..., inner]
    model = columns[:, 0].copy()
    columns[:, 0] /= gain
    science, of_science, of_reference = (
        plane[few][:, inner].astype(np.float64)
        for plane in (stamps.matched_science, stamps.variance_science, stamps.variance_reference)
    )
    weight = 1 / (of_science + gain**2 * of_reference + (MODEL_ERROR * model) ** 2 + 1e-30)
    residual = science - model
    weighted = columns * weight[:, None]
    full = weighted @ columns.swapaxes(1, 2)
    full[:, -1, -1] += 1 / stamps.pedestal_sigma**2
    side = (weighted @ residual[:, :, None])[:, :, 0]
    to_pedestal = full[:, :-1, -1] / full[:, -1:, -1]
    normal = full[:, :-1, :-1] - to_pedestal[:, :, None] * full[:, -1:, :-1]
    right = side[:, :-1] - to_pedestal * side[:, -1:]
    residual -= side[:, -1:] / full[:, -1:, -1]
    return normal, right, np.sum(weight * residual**2, axis=1) / residual.shape[1]


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


def constant_sources(is_star: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Of matched sources those whose light is sure to be constant: stars, all where stars are too few.

    Galaxies hold what changes, and where hosts are many their residuals are those of the transients.
    """
    return is_star if are_told_by_stars(is_star) else np.ones_like(is_star)


def are_told_by_stars(is_star: NDArray[np.bool_]) -> bool:
    """Whether stars suffice to tell what constant sources do: many, or a share of all."""
    n = int(np.count_nonzero(is_star))
    return n >= ENOUGH_STARS or (n >= MIN_STARS and n >= MIN_STAR_SHARE * len(is_star))


def _agreeing(
    steps: Floats, errors: Floats, local: Floats, misfit: Floats, is_star: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Sources whose gain and shift lie within 4 sigma of the map, where sigma holds the sources' own scatter.

    What gains scatter constant sources say: where hosts are many and stars are few, most others changed.
    """
    kept = np.isfinite(misfit)
    constant = constant_sources(is_star)
    for column in range(3):
        scale = local[:, 0] if column == 0 else 1.0
        pull, error = steps[:, column] / scale, errors[:, column] / scale
        asked = constant if column == 0 else np.ones_like(constant)
        scatter = excess_scatter(pull[asked], error[asked])
        kept &= np.abs(pull - np.median(pull[asked])) < 4 * np.hypot(error, max(scatter, 1e-4))
    middle = np.median(misfit)
    return kept & (misfit < middle + 6 * max(1.4826 * float(np.median(np.abs(misfit - middle))), 0.3))


def _measured(
    stamps: MatchedStamps,
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
    residual = measure_residual_map(x, y, steps, errors, frame_shape)
    left = steps - residual.left_out()
    stars = is_star[used]
    asked = constant_sources(stars)
    gain_scatter = excess_scatter(left[asked, 0], errors[asked, 0])
    shifts = _registration_noise(left[asked, 1:], errors[asked, 1:], residual.errors()[asked, 1:])
    weights = 1 / (errors[:, 0] ** 2 + gain_scatter**2)
    moves = local[used, 1:3] + residual.at(x, y)[:, 1:]
    return PhotometricMatch(
        coefficients,
        stamps.wing_sigmas_px,
        order,
        frame_shape,
        float(coefficients[0, 0]),
        float(abs(coefficients[0, 0]) / np.sqrt(weights.sum())),
        shifts,
        gain_scatter,
        float(np.max(np.hypot(moves[:, 0], moves[:, 1]))),
        len(used),
        int(len(kept) - len(used)),
        x,
        y,
        stars,
        residual,
    )


def _registration_noise(left: Floats, errors: Floats, of_map: Floats) -> tuple[float, float]:
    """1-sigma residual of the registration along x and y, from what sources, `(n, 2)`, stand off the map.

    `errors` are their own, `of_map` the map's at their places: few sources say little, and the map is off by
    no less than that.
    """
    least = np.sqrt(np.mean(of_map**2, axis=0))
    noise = np.maximum(least, [likeliest_scatter(left[:, k], errors[:, k]) for k in range(2)])
    return float(noise[0]), float(noise[1])
