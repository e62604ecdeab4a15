"""Point sources of known place: drawn into an image, and measured in one.

Owns the PSF moved to sub-pixel places and the flux of its fit at a place that is given; never looks for a
source.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from astrid_workers.frame import Float32Image
from astrid_workers.imaging.psf import Psf

Floats = NDArray[np.float64]
BoolImage = NDArray[np.bool_]

#: Share of a source's light (as the fit weighs it) that must lie on good pixels before a flux is given.
LEAST_LIGHT_SEEN = 0.5


@dataclass(frozen=True, slots=True, eq=False)
class PointFluxes:
    """Fluxes at given places, float64 arrays of one length; NaN where too little of the source was seen."""

    flux: Floats
    #: 1-sigma, from the variance plane, of noise that is independent from pixel to pixel.
    flux_err: Floats
    #: Share of Σ PSF² on good pixels, 0 … 1: 0 outside the image.
    light_seen: Floats


def moved_stamp(stamp: NDArray[np.floating], dx: float, dy: float) -> Floats:
    """A PSF stamp moved by a fraction of a pixel towards larger x and y, by Fourier; the sum is kept."""
    omega = 2j * np.pi * np.fft.fftfreq(stamp.shape[0])
    phase = np.exp(-omega[:, None] * dy) * np.exp(-omega[None, :] * dx)
    return np.asarray(np.fft.ifft2(np.fft.fft2(stamp) * phase).real)


def render_points(shape: tuple[int, int], psf: Psf, x: Floats, y: Floats, flux: Floats) -> Float32Image:
    """The light of point sources alone: float32 `shape`, each with the PSF of its place.

    A flux is all of a source's light, of which the PSF's stamp holds its share. Places are 0-based pixels;
    what falls outside the frame is lost.
    """
    light = np.zeros(shape, np.float32)
    for xi, yi, fi in zip(x, y, flux, strict=True):
        window = _Window.about(float(xi), float(yi), psf, shape)
        light[window.image] += (fi * psf.light_within * window.model[window.stamp]).astype(np.float32)
    return light


def fit_fluxes(
    image: Float32Image, variance: Float32Image, good: BoolImage, psf: Psf, x: Floats, y: Floats
) -> PointFluxes:
    """Flux of a point source at each place of a background-subtracted `image`: Σ P I / Σ P² over good pixels,
    with P of the light on the PSF's stamp, so that the flux is of all of it.

    All pixels weigh alike, so that the flux is unbiased whatever the variance plane believes;
    `flux_err² = Σ P² variance / (Σ P²)²`. Neighbours within the PSF are not told apart. Places are 0-based.
    """
    rows = [_fit_one(image, variance, good, psf, float(xi), float(yi)) for xi, yi in zip(x, y, strict=True)]
    columns = np.array(rows, float).reshape(-1, 3).T
    return PointFluxes(columns[0], columns[1], columns[2])


def _fit_one(
    image: Float32Image, variance: Float32Image, good: BoolImage, psf: Psf, x: float, y: float
) -> tuple[float, float, float]:
    window = _Window.about(x, y, psf, image.shape)
    model, usable = window.model[window.stamp], good[window.image]
    squares = np.where(usable, model**2, 0.0)
    power = float(squares.sum())
    seen = power / float((window.model**2).sum())
    if seen < LEAST_LIGHT_SEEN:
        return np.nan, np.nan, seen
    flux = float(np.sum(np.where(usable, model * image[window.image], 0.0))) / power
    noise = float(np.sum(squares * np.where(usable, variance[window.image], 0.0)))
    return flux / psf.light_within, float(np.sqrt(noise)) / power / psf.light_within, seen


@dataclass(frozen=True, slots=True, eq=False)
class _Window:
    """Where a stamp about a place meets the image, in both, and the PSF there."""

    image: tuple[slice, slice]
    stamp: tuple[slice, slice]
    model: Floats

    @classmethod
    def about(cls, x: float, y: float, psf: Psf, shape: tuple[int, ...]) -> "_Window":
        column, row, half = round(x), round(y), psf.size_px // 2
        rows, stamp_rows = _overlap(row - half, psf.size_px, shape[0])
        columns, stamp_columns = _overlap(column - half, psf.size_px, shape[1])
        model = moved_stamp(psf.at(x, y), x - column, y - row)
        return cls((rows, columns), (stamp_rows, stamp_columns), model)


def _overlap(start: int, size: int, length: int) -> tuple[slice, slice]:
    """Where `size` pixels from `start` lie within `length`: there, and counted from `start`."""
    low, high = min(max(start, 0), length), min(max(start + size, 0), length)
    return slice(low, high), slice(low - start, high - start)
