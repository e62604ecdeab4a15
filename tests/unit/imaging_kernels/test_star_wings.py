"""A saturated star's wings against drawn stars of known light, and against a slow, plain fit."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import optimize
from scipy.interpolate import BSpline

from astrid_workers.imaging.saturated_stars import put_back, saturated_stars, without_wings
from astrid_workers.imaging.star_wings import (
    BEND_SIGMA,
    FINE,
    KNOT_STEP,
    LEVEL_SIGMA,
    START_BETA,
    TOLERANCES,
    Wings,
    _splines,
    fit_wings,
)
from astrid_workers.sky.light import PsfModel

Floats = NDArray[np.float64]
SHAPE, SKY_SIGMA, CLIPS = (141, 151), 20.0, 9e4
FWHM = 3.6


def light(x: float, y: float, flux: float, *parts: tuple[float, PsfModel]) -> Floats:
    """A star as a sum of profiles, electrons per pixel."""
    rows, columns = np.indices(SHAPE, dtype=float)
    return sum(share * flux * psf.value(columns - x, rows - y) for share, psf in parts)


def observed(true: Floats, seed: int = 1) -> tuple[NDArray, NDArray, NDArray]:
    """Image with noise, its variance, and what may be asked: nothing within 2 px of what clips."""
    variance = SKY_SIGMA**2 + true
    image = true + np.random.default_rng(seed).normal(0, np.sqrt(variance))
    clipped = image > CLIPS
    for axis in (0, 1):
        for step in (1, 1):
            clipped = clipped | np.roll(clipped, step, axis) | np.roll(clipped, -step, axis)
    return np.minimum(image, CLIPS).astype(np.float32), variance.astype(np.float32), ~clipped


PROFILES = {
    "a round Moffat": ((1.0, PsfModel(FWHM, 3.0)),),
    "an ellipse": ((1.0, PsfModel(FWHM, 3.0, 0.12, 30.0)),),
    "steep wings": ((1.0, PsfModel(FWHM, 4.5)),),
    "an aureole that no stamp of the PSF holds": ((0.98, PsfModel(FWHM, 3.5)), (0.02, PsfModel(14.0, 1.6))),
}


@pytest.mark.parametrize("parts", PROFILES.values(), ids=PROFILES)
def test_what_is_left_of_a_star_is_far_below_the_noise(parts: tuple) -> None:
    """Whatever its profile: the error averaged over a PSF's width is below a third of a sigma of a pixel's noise."""
    true = light(75.3, 68.8, 2e7, *parts)
    image, variance, usable = observed(true)
    fit = fit_wings(image, variance, usable, (75.0, 69.0), 7.0, FWHM, SKY_SIGMA)
    assert fit is not None
    assert np.hypot(fit.x - 75.3, fit.y - 68.8) < 0.03
    window = fit.window(SHAPE)
    error = (fit.image(window) - true[window]) / np.sqrt(variance[window])
    assert np.sqrt(np.mean(error[usable[window]] ** 2)) < 0.15
    assert np.percentile(np.abs(error[usable[window]]), 99) < 0.6


def test_the_fit_is_that_of_plain_least_squares() -> None:
    """The twin: the same model without derivatives, without clipping, all pixels."""
    true = light(75.3, 68.8, 1.2e7, *PROFILES["an ellipse"])
    image, variance, usable = observed(true)
    fast = fit_wings(image, variance, usable, (75.3, 68.8), 6.0, FWHM, SKY_SIGMA)
    assert fast is not None
    window = fast.window(SHAPE)
    rows, columns = np.mgrid[window].astype(float)
    good = usable[window]
    data, noise2 = image[window][good].astype(float), variance[window][good].astype(float)
    n = len(fast.spline)

    def model(p: Floats) -> Floats:
        return Wings(
            p[0],
            p[1],
            fast.peak,
            fast.alpha_px,
            p[2],
            p[3],
            fast.first_knot,
            p[4:],
            fast.reach_px,
            np.zeros(1),
        ).value(columns[good] - p[0], rows[good] - p[1])

    def misfit(p: Floats) -> Floats:
        light = model(p)
        held = np.concatenate([np.diff(p[4:], 2) / BEND_SIGMA, p[4:] / LEVEL_SIGMA, p[2:4] / 0.1])
        return np.concatenate([(light - data) / np.sqrt(noise2 + (TOLERANCES[-1] * light) ** 2), held])

    slow = optimize.least_squares(misfit, np.concatenate([[75.3, 68.8, 0.0, 0.0], np.zeros(n)]), x_scale=0.1)
    found = np.concatenate([[fast.x, fast.y, fast.e1, fast.e2], fast.spline])
    apart = (model(found) - model(slow.x)) / np.sqrt(noise2)
    assert np.sqrt(np.mean(apart**2)) < 0.1


def test_the_tabled_splines_are_scipys() -> None:
    """Values and slopes on the fine grid."""
    n = 7
    values, slopes = _splines(n)
    u = np.arange((n - 2) * FINE + 1) / FINE + 0.5
    for k in range(n):
        spline = BSpline.basis_element(np.arange(k - 2, k + 3), extrapolate=False)
        np.testing.assert_allclose(values[:, k], np.nan_to_num(spline(u)), atol=1e-12)
        np.testing.assert_allclose(slopes[:, k] * KNOT_STEP, np.nan_to_num(spline.derivative()(u)), atol=1e-9)


@pytest.mark.parametrize("radius_px", [12.0, 16.0, 22.0])
def test_a_transient_on_the_wing_keeps_its_light(radius_px: float) -> None:
    """Its flux in what is left, by its own PSF, is what was put there: within a tenth, and its error."""
    star = light(75.3, 68.8, 2e7, *PROFILES["an ellipse"])
    psf = PsfModel(FWHM, 3.0)
    x, y = 75.3 + radius_px * 0.8, 68.8 + radius_px * 0.6
    shape = light(x, y, 1.0, (1.0, psf))
    sigma = 1 / np.sqrt(np.sum(shape**2 / (SKY_SIGMA**2 + star)))
    flux = 8 * sigma
    ratios = []
    for seed in range(6):
        image, variance, usable = observed(star + flux * shape, seed)
        fit = fit_wings(image, variance, usable, (75.0, 69.0), 7.0, FWHM, SKY_SIGMA)
        assert fit is not None
        window = fit.window(SHAPE)
        left = image[window] - fit.image(window)
        weight = np.where(usable[window], shape[window] / variance[window], 0.0)
        ratios.append(float(np.sum(weight * left) / np.sum(weight * shape[window]) / flux))
    assert np.mean(ratios) == pytest.approx(1.0, abs=0.1 + 1 / 8 / np.sqrt(6))


def test_nothing_is_fitted_where_there_is_no_wing() -> None:
    """Blank sky, and a hole that leaves next to nothing to see."""
    blank, variance, usable = observed(np.zeros(SHAPE))
    assert fit_wings(blank, variance, usable, (75.0, 69.0), 6.0, FWHM, SKY_SIGMA) is None
    image, variance, usable = observed(light(75.0, 69.0, 2e7, (1.0, PsfModel(FWHM, 3.0))))
    usable[:, :] = False
    assert fit_wings(image, variance, usable, (75.0, 69.0), 6.0, FWHM, SKY_SIGMA) is None


def test_overlapping_stars_are_told_apart() -> None:
    """Two wings on each other: what is left is noise; put back, the image is what it was."""
    psf = PsfModel(FWHM, 3.0)
    true = light(55.2, 68.0, 2.5e7, (1.0, psf)) + light(92.7, 75.4, 1e7, (1.0, psf))
    image, variance, usable = observed(true)
    _, stars = saturated_stars(~usable)
    assert len(stars) == 2
    left, fits = without_wings(image, variance, usable, stars, FWHM, SKY_SIGMA)
    pulls = (left / np.sqrt(variance))[usable]
    assert np.std(pulls) == pytest.approx(1.0, abs=0.05)
    for fit in fits:
        put_back(left, fit)
    np.testing.assert_allclose(left, image, rtol=1e-3, atol=0.1)


def test_a_star_that_bled_stands_at_its_widest_place() -> None:
    """A disc with a column through it; a cosmic ray of four pixels beside is no star."""
    rows, columns = np.indices((120, 90))
    saturated = np.hypot(rows - 70, columns - 40) < 7
    saturated[10:110, 40] = True
    saturated[20:22, 10:12] = True
    labels, stars = saturated_stars(saturated)
    assert labels.max() == 2
    assert len(stars) == 1
    assert stars[0].x == pytest.approx(40, abs=0.6)
    assert stars[0].y == pytest.approx(70, abs=0.6)
    assert stars[0].radius_px == pytest.approx(7, abs=1)


def test_the_start_is_a_moffat() -> None:
    """Without a spline's help the value is the closed form."""
    star = Wings(0.0, 0.0, 100.0, 3.0, 0.0, 0.0, 0.0, np.zeros(8), 30, np.zeros(1))
    radius = np.array([5.0, 10.0, 20.0])
    np.testing.assert_allclose(star.value(radius, 0 * radius), 100 * (1 + (radius / 3) ** 2) ** -START_BETA)


def test_a_halo_with_an_edge_is_seen_in_rings_and_taken_off() -> None:
    """A disc of 40 px about the star, six sigma of the sky high: within 2 px of its edge, and hardly a trace beside it."""
    true = light(75.3, 68.8, 2e7, *PROFILES["a round Moffat"])
    rows, columns = np.indices(SHAPE)
    radius = np.hypot(columns - 75.3, rows - 68.8)
    disc = 6 * SKY_SIGMA * (radius < 40)
    image, variance, usable = observed(true + disc)
    fit = fit_wings(image, variance, usable, (75.0, 69.0), 7.0, FWHM, SKY_SIGMA)
    assert fit is not None
    assert fit.halo_px == pytest.approx(40, abs=2)
    window = fit.window(SHAPE)
    left = (image[window] - fit.image(window))[usable[window]]
    off = radius[window][usable[window]]
    within = left[(off > 12) & (off < 38)]
    assert abs(np.median(within)) < 0.1 * SKY_SIGMA
    assert np.std(within) < 1.25 * np.median(np.sqrt(variance[window][usable[window]]))


@pytest.mark.parametrize("seed", range(4))
def test_a_star_without_a_halo_has_none(seed: int) -> None:
    """Not even with neighbours on its wing."""
    rng = np.random.default_rng(seed)
    true = light(75.3, 68.8, 2e7, *PROFILES["an ellipse"])
    for x, y in rng.uniform(40, 110, (6, 2)):
        true = true + light(x, y, 3e4, (1.0, PsfModel(FWHM, 3.0)))
    image, variance, usable = observed(true, seed)
    fit = fit_wings(image, variance, usable, (75.0, 69.0), 7.0, FWHM, SKY_SIGMA)
    assert fit is not None
    assert fit.halo_px == 0
    assert not fit.rings.any()


@pytest.mark.parametrize("seed", range(3))
def test_a_crowd_about_a_star_is_no_halo(seed: int) -> None:
    """Eight thousand stars per Mpix raise the rings of every star as far as one looks; a halo ends."""
    rng = np.random.default_rng(100 + seed)
    true = light(75.3, 68.8, 2e7, *PROFILES["a round Moffat"])
    fluxes = np.exp(rng.uniform(np.log(5e2), np.log(2e5), 170))
    for x, y, flux in zip(rng.uniform(0, SHAPE[1], 170), rng.uniform(0, SHAPE[0], 170), fluxes, strict=True):
        true = true + light(x, y, flux, (1.0, PsfModel(FWHM, 3.0)))
    image, variance, usable = observed(true, seed)
    fit = fit_wings(image, variance, usable, (75.0, 69.0), 7.0, FWHM, SKY_SIGMA)
    assert fit is not None
    assert fit.halo_px == 0
