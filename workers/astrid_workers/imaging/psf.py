"""The point-spread function of a frame, measured from its stars.

Owns which stars are fit for it, how they are recentred and stacked, the model of the wings, the variation
over the frame and the declared fallback when stars are few. Never detects a star and never subtracts a
background.

Arrays are `[y, x]`; a PSF stamp is square, of odd side, centred in its middle pixel, sums to 1 and is what
pixels record (the pixel's own width is in it).
"""

from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage, optimize
from scipy.spatial import cKDTree

from astrid_workers.errors import SubtractionRefused
from astrid_workers.frame import Float32Image

Stamp = NDArray[np.float32]
Stamps = NDArray[np.float64]

#: Half-side of a stamp in FWHM: light further out is below 0.3 % for a Moffat of exponent 3.
STAMP_HALF_FWHM = 4.5
#: Never smaller than this, pixels: an undersampled PSF has wings too.
MIN_HALF_PX = 8
MAX_HALF_PX = 60
#: Pedestal and wing are fitted within this radius in FWHM: further out, clean stars have neighbours and the
#: sky has more faint light than around them, and the wing would be fitted to that.
FIT_RADIUS_FWHM = 4.0
#: Below this many clean stars the stack is noise: a Moffat of the measured width serves instead.
MIN_STARS_FOR_STACK = 8
#: Stars needed for a variation over the frame of order 1 and 2: five per unknown.
MIN_STARS_FOR_ORDER = {1: 25, 2: 60}
#: More stars than this only cost time.
MAX_STARS = 300
#: A star's weight saturates at this signal-to-noise ratio, so that a few bright ones do not decide alone.
WEIGHT_SNR = 600.0
#: What a background mesh may be wrong by at a star, in sigma of a pixel: holds the star's pedestal.
PEDESTAL_PRIOR_SIGMA = 0.005
#: What is left of it in the stack, in noise of a pixel of the stack's outer ring.
PEDESTAL_IN_STACK_NOISE = 0.1
#: Width of the rings in which neighbours are told from wings, pixels, and the stars that are asked.
RING_PX, RING_STARS = 1.0, 100
#: What is known of a Moffat's exponent before it is fitted: mean and sigma.
BETA_PRIOR = (3.2, 0.7)
#: How many residuals of the wing's pixels that outweighs, as its square root.
PRIOR_WEIGHT = 6.0
#: Exponent of the fallback Moffat: atmospheric PSFs have 2.5 to 4.5.
FALLBACK_BETA = 3.0
#: Sigma of a Gaussian of FWHM 1.
SIGMA_PER_FWHM = 1 / 2.354820045


class StarTable(Protocol):
    """The columns of `imaging.stars.Stars` that a PSF needs; arrays of one length."""

    @property
    def x(self) -> NDArray[np.floating]: ...
    @property
    def y(self) -> NDArray[np.floating]: ...
    @property
    def flux(self) -> NDArray[np.floating]: ...
    @property
    def fwhm_px(self) -> NDArray[np.floating]: ...
    @property
    def snr(self) -> NDArray[np.floating]: ...
    @property
    def clean(self) -> NDArray[np.bool_]: ...


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
    #: `stars`: measured pixel by pixel; `moffat`: the fallback; `given`: handed in.
    model: Literal["stars", "moffat", "given"]
    #: How it was made, one sentence.
    why: str

    @property
    def order(self) -> int:
        """Polynomial order over the frame: 0, 1 or 2."""
        return {1: 0, 3: 1, 6: 2}[len(self.terms)]

    @property
    def size_px(self) -> int:
        """Side of a stamp."""
        return int(self.terms.shape[-1])

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


def measure_psf(
    image: Float32Image,
    variance: Float32Image,
    bad: NDArray[np.bool_],
    stars: StarTable,
    *,
    max_order: int = 2,
    size_px: int | None = None,
) -> Psf:
    """The PSF of a background-subtracted image.

    `image`, `variance` and `bad` share one shape; `bad` marks pixels that must not be used. `stars` are
    detections with `clean` set for those that are isolated, round, unsaturated and whole. Raises
    `SubtractionRefused` when not one detection has a width.
    """
    fwhm, chosen = _choose(stars, image.shape)
    half = _half_side(fwhm, size_px)
    if len(chosen) < MIN_STARS_FOR_STACK:
        width = _profile_width(image, variance, bad, stars, chosen, fwhm)
        return moffat_psf(width, image.shape, len(chosen), 2 * half + 1)
    stack = _Stack.cut(image, variance, bad, stars, chosen, half)
    stack.refine(fwhm)
    if len(stack) < MIN_STARS_FOR_STACK:
        return moffat_psf(fwhm, image.shape, len(stack), 2 * half + 1)
    order = allowed_order(len(stack), max_order)
    terms = stack.combine(order, image.shape, fwhm)
    return Psf(
        terms.astype(np.float32),
        (image.shape[0], image.shape[1]),
        measure_fwhm(terms[0]),
        len(stack),
        "stars",
        f"stacked from {len(stack)} clean stars, varying with order {order}",
    )


def allowed_order(n_stars: int, max_order: int) -> int:
    """The polynomial order that so many stars can carry."""
    return max(
        (o for o, need in MIN_STARS_FOR_ORDER.items() if n_stars >= need and o <= max_order), default=0
    )


def moffat_psf(fwhm: float, frame_shape: tuple[int, ...], n_stars: int, size_px: int | None = None) -> Psf:
    """The declared low-star fallback: a round Moffat of the given width, constant over the frame."""
    stamp = moffat_stamp(fwhm, size_px or 2 * _half_side(fwhm, None) + 1)
    why = (
        f"{n_stars} clean stars, {MIN_STARS_FOR_STACK} needed for a stack: "
        f"a Moffat of FWHM {fwhm:.2f} px and exponent {FALLBACK_BETA:g} serves instead"
    )
    return Psf(stamp[None], (frame_shape[0], frame_shape[1]), measure_fwhm(stamp), n_stars, "moffat", why)


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


def _half_side(fwhm: float, size_px: int | None) -> int:
    if size_px is not None:
        return size_px // 2
    return int(np.clip(np.ceil(STAMP_HALF_FWHM * fwhm), MIN_HALF_PX, MAX_HALF_PX))


def _choose(stars: StarTable, shape: tuple[int, ...]) -> tuple[float, NDArray[np.intp]]:
    """The typical width, and the indices of the stars to stack: of that width, bright, whole."""
    widths = np.asarray(stars.fwhm_px, float)
    clean = np.asarray(stars.clean, bool) & np.isfinite(widths) & (widths > 0.5)
    known = widths[clean] if clean.any() else widths[np.isfinite(widths) & (widths > 0.5)]
    if known.size == 0:
        msg = f"no star with a measurable width among {len(widths)} detections, 1 needed for a PSF"
        raise SubtractionRefused(msg, detections=len(widths), needed=1)
    fwhm = float(np.median(known))
    scatter = max(1.4826 * float(np.median(np.abs(known - fwhm))), 0.04 * fwhm)
    margin = fwhm * 2
    inside = (
        (stars.x > margin)
        & (stars.x < shape[1] - 1 - margin)
        & (stars.y > margin)
        & (stars.y < shape[0] - 1 - margin)
    )
    fit = clean & inside & (np.abs(widths - fwhm) < 4 * scatter) & (np.asarray(stars.snr) > 20)
    index = np.flatnonzero(fit)
    return fwhm, index[np.argsort(-np.asarray(stars.snr)[index])][:MAX_STARS]


def _near_neighbours(stars: StarTable, index: NDArray[np.intp], half: int) -> NDArray[np.bool_]:
    """Pixels of each star's stamp that another detection reaches: `(n, size, size)`.

    A neighbour reaches as far as a Moffat of exponent 3 has more than 0.1 % of the star's peak.
    """
    x, y, flux = (np.nan_to_num(np.asarray(column, float)) for column in (stars.x, stars.y, stars.flux))
    width = float(np.median(np.asarray(stars.fwhm_px)[index])) if index.size else 1.0
    tree = cKDTree(np.column_stack([x, y]))
    axis = np.arange(-half, half + 1.0)
    near = np.zeros((len(index), 2 * half + 1, 2 * half + 1), bool)
    for row, star in enumerate(index):
        for other in tree.query_ball_point((x[star], y[star]), 1.5 * half):
            distance = np.hypot(x[other] - x[star], y[other] - y[star])
            if other == star or distance < 0.5:
                continue
            ratio = max(flux[other] / max(flux[star], 1e-30), 2e-3) / 1e-3
            reach = width * np.sqrt(max(ratio ** (1 / 3) - 1, 0.5))
            dx, dy = (
                axis[None, :] - (x[other] - np.rint(x[star])),
                axis[:, None] - (y[other] - np.rint(y[star])),
            )
            near[row] |= dx * dx + dy * dy < reach * reach
    return near


def _profile_width(
    image: Float32Image,
    variance: Float32Image,
    bad: NDArray[np.bool_],
    stars: StarTable,
    chosen: NDArray[np.intp],
    guess: float,
) -> float:
    """FWHM of the fallback's Moffat as the few stars' profiles want it: the median of fits to the brightest.

    Gaussian moments say 15 % more for the same star. Without clean stars the brightest detections stand in.
    """
    brightest = np.argsort(-np.nan_to_num(np.asarray(stars.snr)))[:MIN_STARS_FOR_STACK]
    stack = _Stack.cut(
        image, variance, bad, stars, chosen if len(chosen) else brightest, int(np.ceil(2 * guess))
    )
    widths = [_moffat_width(stack, i, guess) for i in range(len(stack))]
    known = [width for width in widths if 0.4 * guess < width < 2.5 * guess]
    return float(np.median(known)) if known else guess


def _moffat_width(stack: "_Stack", i: int, guess: float) -> float:
    """Width of one star by least squares of flux, centre, width and pedestal of a Moffat of the fallback's
    exponent.
    """
    axis = np.arange(-stack.half, stack.half + 1.0)
    good = stack.good[i]
    data, noise = stack.raw[i][good], stack.noise[i][good] + 0.02 * np.abs(stack.raw[i][good])
    unit = 2 * np.sqrt(2 ** (1 / FALLBACK_BETA) - 1)

    def misfit(p: NDArray[np.float64]) -> NDArray[np.float64]:
        radius2 = (axis[None, :] - p[1]) ** 2 + (axis[:, None] - p[2]) ** 2
        model = p[0] * (1 + radius2[good] * (unit / p[3]) ** 2) ** -FALLBACK_BETA
        return np.asarray((model + p[4] - data) / noise)

    offset = (stack.x[i] - stack.ix[i], stack.y[i] - stack.iy[i])
    start = [max(float(data.max(initial=0.0)), 1e-9), *offset, guess, 0.0]
    bounds = ([0, -2, -2, 0.3 * guess, -np.inf], [np.inf, 2, 2, 3 * guess, np.inf])
    if data.size < 20:
        return float("nan")
    return float(optimize.least_squares(misfit, start, bounds=bounds, loss="soft_l1", max_nfev=60).x[3])


class _Stack:
    """Star stamps that are recentred, scaled and combined; private to this module and changed in place."""

    def __init__(
        self, data: Stamps, noise: Stamps, good: NDArray[np.bool_], x: Stamps, y: Stamps, snr: Stamps
    ) -> None:
        self.raw, self.noise, self.good, self.snr = data, noise, good, snr
        self.ix, self.iy = np.rint(x), np.rint(y)
        self.x, self.y = x.astype(float), y.astype(float)
        self.sky_noise = np.median(noise, axis=(1, 2))
        self.half = data.shape[1] // 2
        axis = np.arange(-self.half, self.half + 1.0)
        self.radius = np.hypot(axis[:, None], axis[None, :])
        self.flux = np.ones(len(data))
        self.pedestal = np.zeros(len(data))
        self.centred = np.zeros_like(data)

    def __len__(self) -> int:
        return len(self.raw)

    @classmethod
    def cut(
        cls,
        image: Float32Image,
        variance: Float32Image,
        bad: NDArray[np.bool_],
        stars: StarTable,
        index: NDArray[np.intp],
        half: int,
    ) -> "_Stack":
        """Stamps around the stars; pixels outside the frame and bad ones have no weight."""
        x, y = np.asarray(stars.x, float)[index], np.asarray(stars.y, float)[index]
        rows = np.rint(y).astype(int)[:, None, None] + np.arange(-half, half + 1)[None, :, None]
        columns = np.rint(x).astype(int)[:, None, None] + np.arange(-half, half + 1)[None, None, :]
        inside = (rows >= 0) & (rows < image.shape[0]) & (columns >= 0) & (columns < image.shape[1])
        rows, columns = np.clip(rows, 0, image.shape[0] - 1), np.clip(columns, 0, image.shape[1] - 1)
        good = inside & ~bad[rows, columns] & ~_near_neighbours(stars, index, half)
        data = np.where(good, image[rows, columns], 0.0).astype(float)
        noise = np.sqrt(np.where(good, variance[rows, columns], 1.0)).astype(float)
        return cls(data, noise, good, x, y, np.asarray(stars.snr, float)[index])

    def keep(self, which: NDArray[np.bool_]) -> None:
        for name in (
            "raw",
            "noise",
            "good",
            "snr",
            "ix",
            "iy",
            "x",
            "y",
            "flux",
            "pedestal",
            "centred",
            "sky_noise",
        ):
            setattr(self, name, getattr(self, name)[which])

    def refine(self, fwhm: float) -> None:
        """Recentre on the stack's own mean PSF until positions stand still; drop stars that do not fit it."""
        model = np.asarray(moffat_stamp(fwhm, 2 * self.half + 1), float)
        for _ in range(4):
            self._recentre(model, fwhm)
            if len(self) < MIN_STARS_FOR_STACK:
                return
            self._drop_extended(fwhm)
            mean = self._mean(*self._normalised(), fwhm)
            model = _with_wings(mean, mean, self.radius, fwhm)
            model /= model.sum()
        self._recentre(model, fwhm)

    def _recentre(self, model: Stamps, fwhm: float) -> None:
        """Fit flux, centre and pedestal of each star with `model`, shift it to the middle, drop misfits."""
        core, near = self.radius < 1.5 * fwhm, self.radius < FIT_RADIUS_FWHM * fwhm
        dy, dx = np.gradient(model)
        design = np.stack([model, -dx, -dy, np.ones_like(model)])
        misfit = np.zeros(len(self))
        self.centred = self._shifted()
        for i in range(len(self)):
            weight = (self.good[i] & near) / self.noise[i] ** 2
            held = np.array([0, 0, 0, 1 / (PEDESTAL_PRIOR_SIGMA * self.sky_noise[i]) ** 2])
            for _ in range(2):
                solution = _solve(design, self.centred[i], weight, held)
                residual = self.centred[i] - np.tensordot(solution, design, axes=1)
                tolerance = 5 * self.noise[i] + 0.05 * np.abs(solution[0]) * model
                weight = np.where(np.abs(residual) < tolerance, weight, 0.0)
            self.flux[i], self.pedestal[i] = max(solution[0], 1e-9), solution[3]
            step = np.clip(solution[1:3] / self.flux[i], -0.5, 0.5)
            self.x[i], self.y[i] = self.x[i] + step[0], self.y[i] + step[1]
            misfit[i] = np.sum(np.abs(residual[core & self.good[i]])) / self.flux[i]
        middle = float(np.median(misfit))
        limit = middle + 4 * max(1.4826 * float(np.median(np.abs(misfit - middle))), 0.01)
        self.keep((misfit < limit) & (self.flux > 1e-9))

    def _drop_extended(self, fwhm: float) -> None:
        """Leave out what has more light around its core than the point sources among the stars: compact
        galaxies.

        The sharper half tells what a point source looks like, and how much that scatters.
        """
        ring = (self.radius > 0.6 * fwhm) & (self.radius < 1.6 * fwhm)
        light = (self.centred - self.pedestal[:, None, None]) / self.flux[:, None, None]
        around = np.where(self.good, light, 0.0)[:, ring].sum(axis=1) / np.maximum(
            self.good[:, ring].mean(axis=1), 0.2
        )
        noise = self.sky_noise * np.sqrt(np.count_nonzero(ring)) / self.flux
        low, middle = np.percentile(around, (10, 40))
        limit = middle + 3 * np.hypot(max(middle - low, 0.005), noise)
        if np.count_nonzero(around < limit) >= MIN_STARS_FOR_STACK:
            self.keep(around < limit)

    def _shifted(self) -> Stamps:
        """All stars moved so that their centres fall on the middle pixel.

        A Fourier shift has no transfer function of its own, and over random sub-pixel places the aliases of
        an undersampled star average out, where any interpolation would blunt the PSF.
        """
        size = self.raw.shape[-1]
        dx, dy = self.x - self.ix, self.y - self.iy
        omega_y, omega_x = 2 * np.pi * fft.fftfreq(size), 2 * np.pi * fft.rfftfreq(size)
        phase = np.exp(
            1j * (omega_y[None, :, None] * dy[:, None, None] + omega_x[None, None, :] * dx[:, None, None])
        )
        return np.asarray(fft.irfft2(fft.rfft2(self.raw) * phase, s=(size, size)))

    def _normalised(self) -> tuple[Stamps, Stamps]:
        """Stamps of unit flux and their weights, with pixels that neighbours spoil left out."""
        stamps = (self.centred - self.pedestal[:, None, None]) / self.flux[:, None, None]
        relative = self.noise / self.flux[:, None, None]
        middle = np.median(np.where(self.good, stamps, 0.0), axis=0)
        spread = 1.4826 * np.median(np.abs(stamps - middle), axis=0)
        tolerance = 4 * np.sqrt(
            relative**2 + np.minimum(spread, 4 * np.median(relative, axis=0)) ** 2
        ) + 0.1 * np.abs(middle)
        weight = 1 / (1 / self.snr**2 + 1 / WEIGHT_SNR**2)
        usable = self.good & (np.abs(stamps - middle) < tolerance)
        return stamps, np.where(usable, weight[:, None, None], 0.0)

    def _agreeing(self, stamps: Stamps, weights: Stamps, model: Stamps) -> Stamps:
        """Weights without the pixels in which a star differs from the model of it: a faint neighbour of a
        bright star.

        A pixel may differ by its own noise, by a tenth of the model, and by what the model's own noise may
        be.
        """
        relative = self.noise / self.flux[:, None, None]
        own = np.median(relative, axis=0) / np.sqrt(len(self))
        tolerance = 4 * np.hypot(relative, own) + 0.1 * np.abs(model)
        return np.where(np.abs(stamps - model) < tolerance, weights, 0.0)

    def _mean(self, stamps: Stamps, weights: Stamps, fwhm: float) -> Stamps:
        """Weighted mean of the stars without what faint neighbours add."""
        mean = (stamps * weights).sum(axis=0) / np.maximum(weights.sum(axis=0), 1e-12)
        return np.asarray(mean - _skew(mean, stamps, weights, self.radius, fwhm))

    def combine(self, order: int, frame_shape: tuple[int, ...], fwhm: float) -> Stamps:
        """Polynomial images by weighted least squares per pixel; wings modelled; their sum over pixels 1,
        0, 0, …
        """
        self.centred = self._shifted()
        stamps, weights = self._normalised()
        basis = polynomial(self.x, self.y, (frame_shape[0], frame_shape[1]), order)
        terms = _polynomial_images(stamps, weights, basis)
        for _ in range(2):
            weights = self._agreeing(stamps, weights, np.tensordot(basis, terms, axes=1))
            terms = _polynomial_images(stamps, weights, basis)
        centre = terms[0] - _skew(terms[0], stamps, weights, self.radius, fwhm)
        terms[0] = _with_wings(centre, self._mean(stamps, weights, fwhm), self.radius, fwhm)
        fade = np.clip((2.0 * fwhm - self.radius) / (0.7 * fwhm), 0.0, 1.0)
        terms[1:] *= fade
        terms /= terms[0].sum()
        return terms


def _polynomial_images(stamps: Stamps, weights: Stamps, basis: Stamps) -> Stamps:
    """Weighted least squares per pixel: `(n_terms, size, size)` from `(n, size, size)` and `(n, n_terms)`."""
    normal = np.einsum("nij,nk,nl->ijkl", weights, basis, basis, optimize=True)
    right = np.einsum("nij,nij,nk->ijk", weights, stamps, basis, optimize=True)
    ridge = 1e-6 * np.maximum(normal[..., 0, 0], 1e-12)
    normal += ridge[..., None, None] * np.eye(basis.shape[1])
    return np.moveaxis(np.linalg.solve(normal, right[..., None])[..., 0], -1, 0)


def _solve(design: Stamps, data: Stamps, weight: Stamps, held: NDArray[np.float64]) -> NDArray[np.float64]:
    """Weighted least squares: `(k,)` for a design `(k, size, size)`; `held` is the precision of a prior
    about 0.
    """
    flat = design.reshape(len(design), -1)
    weighted = flat * weight.ravel()
    normal = weighted @ flat.T
    normal[np.diag_indices(len(design))] *= 1 + 1e-9
    normal[np.diag_indices(len(design))] += held + 1e-30
    return np.asarray(np.linalg.solve(normal, weighted @ data.ravel()))


def _skew(stack: Stamps, stamps: Stamps, weights: Stamps, radius: Stamps, fwhm: float) -> Stamps:
    """By how much faint neighbours raise the rings of a stack: its pixels less those of the median star.

    Zero inside one FWHM, where neighbours would have been seen.
    """
    ring = np.rint(radius / RING_PX).astype(int)
    raised = np.zeros_like(stack)
    best = np.argsort(-weights.sum(axis=(1, 2)))[:RING_STARS]
    for number in range(int(np.ceil(fwhm / RING_PX)), int(ring.max()) + 1):
        pixels = ring == number
        values, share = (stamps[best][:, pixels] - stack[pixels]).ravel(), weights[best][:, pixels].ravel()
        if np.count_nonzero(share) < 50:
            continue
        raised[pixels] = -_weighted_median(values, share)
    return raised


def _weighted_median(values: Stamps, weights: Stamps) -> float:
    order = np.argsort(values)
    total = np.cumsum(weights[order])
    return float(values[order[np.searchsorted(total, total[-1] / 2)]])


def _with_wings(stack: Stamps, mean: Stamps, radius: Stamps, fwhm: float) -> Stamps:
    """The stack where it has signal, the wing of the stars' `mean` beyond, and no pedestal.

    The wing A (1 + r²/α²)^-β + c is fitted from 0.8 to 3 FWHM with errors of 10 % of the wing plus the noise
    of the outermost ring; c is what the background left and is taken off.
    """
    outer = FIT_RADIUS_FWHM * fwhm
    ring = (radius < outer) & (radius > outer - max(2.0, 0.7 * fwhm))
    noise = max(1.4826 * float(np.median(np.abs(mean[ring] - np.median(mean[ring])))), 1e-7)
    fitted = (radius > 0.8 * fwhm) & (radius < outer)
    parameters = _fit_wing(radius[fitted], mean[fitted], noise, fwhm)
    if parameters is None:
        return np.asarray(np.maximum(stack, 0.0) * (radius < radius.max() / np.sqrt(2)))
    amplitude, alpha, beta, pedestal = parameters
    wing = amplitude * (1 + (radius / alpha) ** 2) ** -beta
    reach = _reach(amplitude, alpha, beta, 3 * noise, 1.5 * fwhm, 3.0 * fwhm)
    blend = np.clip((radius - reach) / (0.5 * fwhm), 0.0, 1.0)
    joined: Stamps = (1 - blend) * (stack - pedestal) + blend * wing
    return joined


def _fit_wing(
    r: Stamps, values: Stamps, noise: float, fwhm: float
) -> tuple[float, float, float, float] | None:
    def residuals(p: NDArray[np.float64]) -> NDArray[np.float64]:
        model = np.exp(p[0]) * (1 + (r / np.exp(p[1])) ** 2) ** -p[2]
        misfit = (model + p[3] * noise - values) / (0.1 * model + noise)
        return np.append(
            misfit, [PRIOR_WEIGHT * (p[2] - BETA_PRIOR[0]) / BETA_PRIOR[1], p[3] / PEDESTAL_IN_STACK_NOISE]
        )

    start = [np.log(max(float(np.max(values)), noise) * 2), np.log(fwhm), 3.0, 0.0]
    lower, upper = [-np.inf, np.log(0.3 * fwhm), 2.2, -5.0], [np.inf, np.log(4 * fwhm), 8.0, 5.0]
    try:
        found = optimize.least_squares(residuals, start, bounds=(lower, upper), loss="soft_l1", max_nfev=60)
    except (ValueError, np.linalg.LinAlgError):
        return None
    return float(np.exp(found.x[0])), float(np.exp(found.x[1])), float(found.x[2]), float(found.x[3] * noise)


def _reach(amplitude: float, alpha: float, beta: float, level: float, low: float, high: float) -> float:
    """Radius at which the wing falls to `level`, within limits."""
    ratio = max(amplitude / level, 1.0) ** (1 / beta) - 1
    return float(np.clip(alpha * np.sqrt(ratio), low, high))
