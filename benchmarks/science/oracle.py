"""The contender that is told everything: the bar that the others are measured against.

Owns one matched filter with the true PSFs, the true noise, the true registration, sky, gain and flux scale,
and with cosmic rays pointed out. Never estimates anything. It takes the noiseless constant sky off each frame
before it filters, so that not even interpolation or the change of the PSF across a star costs it anything.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from astrid_workers.mask import MaskBit
from astrid_workers.sky import Sky
from astrid_workers.sky.light import Galaxies, Points, PsfModel, render

Floats = NDArray[np.float64]

#: Columns that are filtered with one PSF, and their margin on each side.
STRIP_PX, MARGIN_PX = 128, 48
UNUSABLE = np.uint32(MaskBit.BAD_PIXEL | MaskBit.SATURATED | MaskBit.NO_DATA)


def oracle_answer(sky: Sky) -> dict[str, Any]:
    """`score`, `valid`, `flux` and `flux_error` on the science grid, as a contender would deliver them."""
    shape = sky.science.shape
    stars = Points(sky.star_x, sky.star_y, sky.star_flux_e)
    lost_n = ((sky.science.mask & UNUSABLE) != 0) | sky.cosmic_rays_science
    left_n = (
        sky.science.science - sky.background_science - render(shape, stars, sky.galaxies, sky.psf_science)
    )
    left_n = np.where(lost_n, 0.0, left_n)
    variance_n = np.where(lost_n, 0.0, sky.science.variance)
    left_r, variance_r, lost_r = _reference_on_science_grid(sky, stars)
    score, flux, flux_error = _filtered(sky, left_n, left_r, variance_n, variance_r)
    return {"score": score, "flux": flux, "flux_error": flux_error, "valid": ~(lost_n | lost_r)}


def _reference_on_science_grid(sky: Sky, stars: Points) -> tuple[Floats, Floats, NDArray[np.bool_]]:
    """What the reference holds beyond the constant sky, its variance and what is lost, as science electrons.

    Its noise is taken from the nearest pixel, so that it stays white; light that is there and not in the
    science frame (negative transients) is painted at its true place.
    """
    shape = sky.science.shape
    beta = sky.flux_scale
    moved = stars.plus(_negative(sky)).moved(sky.grid, sky.bends).scaled(1 / beta)
    light = render(
        sky.grid.out_shape, moved, sky.galaxies.moved(sky.grid, sky.bends).scaled(1 / beta), sky.psf_reference
    )
    noise = sky.reference.science - sky.background_reference - light
    y, x = np.indices(shape, dtype=np.float64)
    x_r, y_r = sky.grid.to_reference(*sky.bends.bent(x, y))
    columns, rows = np.rint(x_r).astype(int), np.rint(y_r).astype(int)
    ny, nx = sky.grid.out_shape
    inside = (columns >= 0) & (columns < nx) & (rows >= 0) & (rows < ny)
    at = np.clip(rows, 0, ny - 1), np.clip(columns, 0, nx - 1)
    lost = ((((sky.reference.mask & UNUSABLE) != 0) | sky.cosmic_rays_reference)[at]) | ~inside
    seen = PsfModel(
        sky.psf_reference.fwhm_px / sky.grid.scale,
        sky.psf_reference.beta,
        sky.psf_reference.ellipticity,
        sky.psf_reference.angle_deg - sky.grid.rotation_deg,
    )
    own = render(shape, _negative(sky), _no_galaxies(), seen)
    left = beta * noise[at] + own
    variance = beta**2 * sky.reference.variance.astype(np.float64)[at]
    return np.where(lost, 0.0, left), np.where(lost, 0.0, variance), lost


def _negative(sky: Sky) -> Points:
    rows = sky.truth[sky.truth["sign"] < 0]
    return Points(rows["x"].copy(), rows["y"].copy(), rows["flux_e"].copy())


def _no_galaxies() -> Galaxies:
    return Galaxies(*[np.empty(0)] * 6)


def _filtered(
    sky: Sky, left_n: Floats, left_r: Floats, variance_n: Floats, variance_r: Floats
) -> tuple[Floats, Floats, Floats]:
    """The proper statistic with a PSF per strip of columns; noise as the true variance maps propagate."""
    shape = left_n.shape
    vn = float(np.median(sky.science.variance))
    vr = float(np.median(sky.reference.variance)) * sky.flux_scale**2
    answers = [np.zeros(shape) for _ in range(3)]
    for start in range(0, shape[1], STRIP_PX):
        stop = min(start + STRIP_PX, shape[1])
        low, high = max(start - MARGIN_PX, 0), min(stop + MARGIN_PX, shape[1])
        size = (
            fft.next_fast_len(shape[0] + 2 * MARGIN_PX, real=True),
            fft.next_fast_len(high - low, real=True),
        )
        pn = _transform(sky.psf_science, size, (start + stop) / 2)
        pr = _transform(sky.psf_reference, size, (start + stop) / 2)
        power = vr * np.abs(pn) ** 2 + vn * np.abs(pr) ** 2
        kn = np.abs(pr) ** 2 * np.conj(pn) / power
        kr = np.abs(pn) ** 2 * np.conj(pr) / power
        n, r, wn, wr = (fft.rfft2(a[:, low:high], size) for a in (left_n, left_r, variance_n, variance_r))
        statistic = fft.irfft2(kn * n - kr * r, size)
        noise = fft.irfft2(wn * _squared(kn, size) + wr * _squared(kr, size), size)
        response = float(fft.irfft2(kn * pn, size)[0, 0])
        inner = np.s_[: shape[0], start - low : stop - low]
        sigma = np.sqrt(np.maximum(noise[inner], 1e-12 * np.max(noise)))
        answers[0][:, start:stop] = statistic[inner] / sigma
        answers[1][:, start:stop] = statistic[inner] / response
        answers[2][:, start:stop] = sigma / response
    return answers[0], answers[1], answers[2]


def _squared(kernel: Any, size: tuple[int, int]) -> Any:
    return fft.rfft2(fft.irfft2(kernel, size) ** 2)


def _transform(psf: PsfModel, size: tuple[int, int], column: float) -> Any:
    """Of the profile at a column, centred on the first pixel."""
    half = MARGIN_PX - 1
    plane = np.zeros(size)
    stamp = sum(
        float(weight[0]) * member.stamp(2 * half + 1)
        for member, weight in zip(psf.basis(), psf.weights(np.array([column])), strict=True)
    )
    plane[: 2 * half + 1, : 2 * half + 1] = stamp
    return fft.rfft2(np.roll(plane, (-half, -half), (0, 1)))
