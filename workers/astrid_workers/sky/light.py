"""Light of a simulated sky on a pixel grid, before any detector.

Owns profiles and how points and galaxies are painted with them; never draws a random number.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from astrid_workers.sky.grid import Bends, Grid

Float64Array = NDArray[np.float64]

#: Surface brightness in electrons per pixel below which the wing of a star is not painted any more.
FAINTEST_WING_E = 0.02


@dataclass(frozen=True, slots=True)
class PsfModel:
    """An elliptical Moffat profile: optics, air and pixel together, sampled at pixel centres.

    With `gradient`, the profile at column x is the blend (1-s) P(fwhm) + s P(fwhm (1 + gradient)), s = x /
    width: a blend, so that galaxies can be convolved with exactly the profile that stars have.
    """

    #: Full width at half maximum, geometric mean of the axes, pixels.
    fwhm_px: float
    beta: float = 3.0
    #: 1 - b/a.
    ellipticity: float = 0.0
    angle_deg: float = 0.0
    gradient: float = 0.0
    width_px: int = 1

    @property
    def alpha_px(self) -> float:
        """Scale of the Moffat profile."""
        return float(self.fwhm_px / (2 * np.sqrt(2 ** (1 / self.beta) - 1)))

    @property
    def peak(self) -> float:
        """Value at the centre for unit flux."""
        return float((self.beta - 1) / (np.pi * self.alpha_px**2))

    def value(self, dx: Float64Array, dy: Float64Array) -> Float64Array:
        """Profile of unit flux at offsets from the centre."""
        stretch = np.sqrt(1 - self.ellipticity)
        cos, sin = np.cos(np.radians(self.angle_deg)), np.sin(np.radians(self.angle_deg))
        u, v = (dx * cos + dy * sin) * stretch, (dy * cos - dx * sin) / stretch
        return _moffat(u * u + v * v, self.alpha_px, self.beta, self.peak)

    def stamp(self, size_px: int) -> Float64Array:
        """The profile at pixel centres of an odd square, normalised to sum 1."""
        offsets = np.arange(size_px, dtype=np.float64) - size_px // 2
        values = self.value(offsets[None, :], offsets[:, None])
        stamp: Float64Array = values / values.sum()
        return stamp

    def radius_for(self, flux: float) -> int:
        """Radius at which a star of `flux` electrons has faded below `FAINTEST_WING_E`."""
        ratio = max(abs(flux) * self.peak / FAINTEST_WING_E, 1.0)
        radius = self.alpha_px * np.sqrt(ratio ** (1 / self.beta)) / np.sqrt(1 - self.ellipticity)
        return int(np.ceil(max(radius, 4 * self.fwhm_px)))

    def basis(self) -> "tuple[PsfModel, ...]":
        """The constant profiles whose blend this is."""
        if self.gradient == 0:
            return (self,)
        narrow = PsfModel(self.fwhm_px, self.beta, self.ellipticity, self.angle_deg)
        wide = PsfModel(self.fwhm_px * (1 + self.gradient), self.beta, self.ellipticity, self.angle_deg)
        return narrow, wide

    def weights(self, x: Float64Array) -> tuple[Float64Array, ...]:
        """Share of each member of `basis` at columns `x`."""
        if self.gradient == 0:
            return (np.ones_like(x),)
        share = np.clip(x / max(self.width_px - 1, 1), 0.0, 1.0)
        return 1 - share, share


@dataclass(frozen=True, slots=True, eq=False)
class Points:
    """Point sources: places in pixels and fluxes in electrons."""

    x: Float64Array
    y: Float64Array
    flux: Float64Array

    def plus(self, other: "Points") -> "Points":
        """Both lists."""
        return Points(
            np.concatenate([self.x, other.x]),
            np.concatenate([self.y, other.y]),
            np.concatenate([self.flux, other.flux]),
        )

    def moved(self, grid: Grid, bends: Bends) -> "Points":
        """Where they stand on the reference's grid."""
        return Points(*grid.to_reference(*bends.bent(self.x, self.y)), self.flux)

    def scaled(self, factor: float) -> "Points":
        """All fluxes times `factor`."""
        return Points(self.x, self.y, self.flux * factor)


@dataclass(frozen=True, slots=True, eq=False)
class Galaxies:
    """Elliptical Gaussians before the profile: sigmas in pixels, angle of the long axis in radians."""

    x: Float64Array
    y: Float64Array
    flux: Float64Array
    sigma_a: Float64Array
    sigma_b: Float64Array
    angle: Float64Array

    def moved(self, grid: Grid, bends: Bends) -> "Galaxies":
        """Where they stand, and how large, on the reference's grid."""
        x, y = grid.to_reference(*bends.bent(self.x, self.y))
        return Galaxies(
            x,
            y,
            self.flux,
            self.sigma_a * grid.scale,
            self.sigma_b * grid.scale,
            self.angle + np.radians(grid.rotation_deg),
        )

    def scaled(self, factor: float) -> "Galaxies":
        """All fluxes times `factor`."""
        return Galaxies(self.x, self.y, self.flux * factor, self.sigma_a, self.sigma_b, self.angle)


def render(shape: tuple[int, int], points: Points, galaxies: Galaxies, psf: PsfModel) -> Float64Array:
    """Expected electrons per pixel of `points` and `galaxies` seen through `psf`; no sky, no noise."""
    image = np.zeros(shape, dtype=np.float64)
    for member, weight in zip(psf.basis(), psf.weights(points.x), strict=True):
        _paint_points(image, Points(points.x, points.y, points.flux * weight), member)
    if galaxies.x.size:
        bare = _paint_galaxies(shape, galaxies)
        columns = np.arange(shape[1], dtype=np.float64)
        for member, weight in zip(psf.basis(), psf.weights(columns), strict=True):
            image += _convolved(bare * weight[None, :], member)
    return image


def _moffat(r2: Float64Array, alpha: float, beta: float, peak: float) -> Float64Array:
    base = 1 + r2 / alpha**2
    if beta == 3.0:  # multiplications instead of a power: four times faster
        return peak / (base * base * base)
    values: Float64Array = peak * base**-beta
    return values


def _window(centre: float, radius: int, size: int) -> slice:
    low = int(np.rint(centre)) - radius
    return slice(max(low, 0), max(min(low + 2 * radius + 1, size), 0))


def _paint_points(image: Float64Array, points: Points, psf: PsfModel) -> None:
    """Add each source over a window that grows with its flux; `image` changes in place."""
    ny, nx = image.shape
    for x, y, flux in zip(points.x, points.y, points.flux, strict=True):
        radius = psf.radius_for(flux)
        rows, columns = _window(y, radius, ny), _window(x, radius, nx)
        if rows.start >= rows.stop or columns.start >= columns.stop or flux == 0:
            continue
        dx = np.arange(columns.start, columns.stop) - x
        dy = np.arange(rows.start, rows.stop) - y
        image[rows, columns] += flux * psf.value(dx[None, :], dy[:, None])


def _paint_galaxies(shape: tuple[int, int], galaxies: Galaxies) -> Float64Array:
    """Gaussians sampled at pixel centres, on a canvas with a margin that the profile may reach into."""
    image = np.zeros(shape, dtype=np.float64)
    for x, y, flux, a, b, angle in zip(
        galaxies.x, galaxies.y, galaxies.flux, galaxies.sigma_a, galaxies.sigma_b, galaxies.angle, strict=True
    ):
        radius = int(np.ceil(5.5 * a))
        rows, columns = _window(y, radius, shape[0]), _window(x, radius, shape[1])
        if rows.start >= rows.stop or columns.start >= columns.stop:
            continue
        dx = (np.arange(columns.start, columns.stop) - x)[None, :]
        dy = (np.arange(rows.start, rows.stop) - y)[:, None]
        u, v = dx * np.cos(angle) + dy * np.sin(angle), dy * np.cos(angle) - dx * np.sin(angle)
        image[rows, columns] += flux / (2 * np.pi * a * b) * np.exp(-0.5 * ((u / a) ** 2 + (v / b) ** 2))
    return image


def _convolved(image: Float64Array, psf: PsfModel) -> Float64Array:
    """`image` seen through `psf`, zero outside."""
    radius = int(np.ceil(12 * psf.fwhm_px))
    offsets = np.arange(-radius, radius + 1, dtype=np.float64)
    kernel = psf.value(offsets[None, :], offsets[:, None])
    size = tuple(fft.next_fast_len(n + 2 * radius, real=True) for n in image.shape)
    product = fft.irfft2(fft.rfft2(image, size) * fft.rfft2(kernel, size), size)
    ny, nx = image.shape
    seen: Float64Array = product[radius : radius + ny, radius : radius + nx]
    return seen
