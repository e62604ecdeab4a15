"""Light far from a star: what falls as turbulence has it, and what lies beyond every stamp."""

from dataclasses import replace

import numpy as np
import pytest

from astrid_workers.differencing.alard_lupton import Unmatched
from astrid_workers.differencing.tiles import Prepared, plan_tiles, subtract
from astrid_workers.imaging.measure_psf import measure_psf
from astrid_workers.imaging.noise_model import white_noise
from astrid_workers.imaging.point_sources import fit_fluxes, render_points
from astrid_workers.imaging.psf import Psf, given_psf, moffat_light_beyond, moffat_psf, moffat_stamp
from astrid_workers.imaging.psf_wings import Winged, n_sources_of, pedestal_error, with_wings
from astrid_workers.imaging.stars import Stars

FWHM, HALF, WIDE = 3.2, 15, 400
#: What the sky under the stack may be wrong by, where few sources are.
SKY_ERROR = 1e-6
#: Parts of a star: (share, FWHM, exponent). The second has the wings that turbulence and optics leave.
TURBULENT = ((0.88, 3.1, 4.5), (0.12, 4.2, 1.85))
MOFFAT = ((1.0, FWHM, 3.0),)

Parts = tuple[tuple[float, float, float], ...]


def profile(parts: Parts, radius: np.ndarray) -> np.ndarray:
    """A star of unit light over all the sky."""
    total = np.zeros(radius.shape)
    for share, fwhm, beta in parts:
        alpha = fwhm / (2 * np.sqrt(2 ** (1 / beta) - 1))
        total += share * (beta - 1) / (np.pi * alpha**2) * (1 + (radius / alpha) ** 2) ** -beta
    return total


def radii(half: int) -> np.ndarray:
    """Distances from the middle of a square."""
    axis = np.arange(-half, half + 1.0)
    return np.hypot(axis[:, None], axis[None, :])


def beyond(parts: Parts) -> float:
    """Share of the light outside the stamp: by summing a square of 801 pixels, and by formula beyond it."""
    wide = profile(parts, radii(WIDE))
    edge = slice(WIDE - HALF, WIDE + HALF + 1)
    far = sum(share * moffat_light_beyond(fwhm, 2 * WIDE + 1, beta) for share, fwhm, beta in parts)
    return float(wide.sum() - wide[edge, edge].sum()) + far


def winged(parts: Parts, noise: float, pedestal: float = 0.0, sky_error: float = SKY_ERROR) -> Winged:
    """A stack of stars with that noise in each pixel, and its wings."""
    radius = radii(HALF)
    rng = np.random.default_rng(4)
    seen = profile(parts, radius) + pedestal + noise * rng.normal(size=radius.shape)
    return with_wings(seen, seen, radius, FWHM, sky_error)


def ring_light(image: np.ndarray, first: float, last: float) -> float:
    """Light between two radii, in FWHM."""
    radius = radii(HALF)
    return float(image[(radius > first * FWHM) & (radius < last * FWHM)].sum())


@pytest.mark.parametrize(
    ("parts", "noise", "least"),
    [(TURBULENT, 3e-6, 0.9), (TURBULENT, 2e-5, 0.7), (MOFFAT, 3e-6, 0.95), (MOFFAT, 2e-5, 0.9), (MOFFAT, 3e-4, 0.85)],
)  # fmt: skip
def test_outskirts_fall_as_the_stars_do(parts: Parts, noise: float, least: float) -> None:
    """From 3 FWHM outwards, as far as the noise lets them be seen: a Moffat that goes on from the core's
    shoulder has 0.71 and 0.63 of what turbulence leaves there.
    """
    true = ring_light(profile(parts, radii(HALF)), 3.0, 4.5)
    assert least < ring_light(winged(parts, noise).stack, 3.0, 4.5) / true < 1.1


def test_a_pedestal_is_no_wing() -> None:
    """What a sky is off by under all stars, a third of the light at 4 FWHM, is told from it."""
    stack = winged(MOFFAT, 1e-5, pedestal=3e-6, sky_error=3e-6).stack
    true = profile(MOFFAT, radii(HALF))
    assert ring_light(stack, 3.0, 4.5) == pytest.approx(ring_light(true, 3.0, 4.5), abs=1e-3)


@pytest.mark.parametrize(("parts", "least"), [(TURBULENT, 0.4), (MOFFAT, 0.9)])
def test_the_light_beyond_the_stamp_is_foretold(parts: Parts, least: float) -> None:
    """Of 0.64 % of a turbulent star nearly a half, of a Moffat's 0.11 % all; never more than there is."""
    found = winged(parts, 3e-6)
    share = found.beyond / (found.beyond + found.stack.sum())
    assert least < share / beyond(parts) < 1.1


def test_a_stack_without_signal_out_there_keeps_a_plain_wing() -> None:
    """Noise is no wing: of a Moffat of exponent 3 no more than 0.5 % is said to lie beyond."""
    found = winged(MOFFAT, 3e-4)
    assert 0 <= found.beyond / found.stack.sum() < 5e-3


def test_the_sky_under_stars_is_less_known_in_a_crowd() -> None:
    """1.5 % of a pixel's noise where one source lies within 4 FWHM of any place; in proportion elsewhere, and
    never nothing.
    """
    one_each = round(1000**2 / (np.pi * (4 * 3.0) ** 2))
    assert pedestal_error(5.0, one_each, 1000**2, 3.0) == pytest.approx(0.075, rel=1e-3)
    assert pedestal_error(5.0, 3 * one_each, 1000**2, 3.0) == pytest.approx(0.225, rel=1e-3)
    assert pedestal_error(5.0, 4, 1000**2, 3.0) == pytest.approx(0.0075)


@pytest.mark.parametrize("listed", [3000, 500, 100])
def test_a_list_that_ends_at_bright_sources_tells_how_many_there_are(listed: int) -> None:
    """Of 3000 sources whose numbers fall as flux^-0.6, within a quarter, however many are listed."""
    snr = np.sort(8.0 * np.random.default_rng(3).uniform(size=3000) ** (-1 / 0.6))[::-1]
    assert n_sources_of(snr[:listed]) == pytest.approx(3000, rel=0.25)


def psf_of_forty(parts: Parts, seed: int) -> Psf:
    """What forty stars tell, four of them bright, each alone in a cell of a sky of sigma 10."""
    rng = np.random.default_rng(seed)
    image = rng.normal(0, 10, (640, 640)).astype(np.float32)
    cell = rng.permutation(64)[:40]
    x, y = (80 * part + 40 + rng.uniform(-5, 5, 40) for part in (cell % 8, cell // 8))
    flux = np.where(np.arange(40) < 4, 4e5, rng.uniform(5e3, 2e4, 40))
    axis = np.arange(-30, 31.0)
    for at_x, at_y, light in zip(x, y, flux, strict=True):
        column, row = round(at_x), round(at_y)
        radius = np.hypot(axis[:, None] + row - at_y, axis + column - at_x)
        image[row - 30 : row + 31, column - 30 : column + 31] += light * profile(parts, radius)
    snr = flux / (10 * np.sqrt(4 * np.pi) * FWHM / 2.355)
    stars = Stars(x, y, flux, np.full(40, FWHM), np.zeros(40), flux, snr, np.ones(40, bool))
    variance = np.full(image.shape, 100.0, np.float32)
    return measure_psf(image, variance, np.zeros(image.shape, bool), stars, size_px=2 * HALF + 1)


@pytest.mark.parametrize(("parts", "least"), [(TURBULENT, 0.62), (MOFFAT, 0.9)])
@pytest.mark.parametrize("seed", [8, 9, 10])
def test_a_few_bright_stars_tell_the_wings_of_all(parts: Parts, least: float, seed: int) -> None:
    """Where stars are few, each counts alike for the core; the noise of faint ones would hide the wing: 0.47 to
    0.55 of it, where all count as much as those of S/N 80.
    """
    psf = psf_of_forty(parts, seed)
    light = ring_light(psf.stamp * (1 - psf.light_beyond), 3.0, 4.5)
    assert least < light / ring_light(profile(parts, radii(HALF)), 3.0, 4.5) < 1.1


@pytest.mark.parametrize("beta", [2.3, 3.0, 4.5])
def test_light_of_a_moffat_beyond_a_stamp(beta: float) -> None:
    """By the formula what a sum over a wide square says, corners apart."""
    inside = profile(((1.0, FWHM, beta),), radii(HALF))[radii(HALF) < HALF + 0.5].sum()
    assert moffat_light_beyond(FWHM, 2 * HALF + 1, beta) == pytest.approx(1 - inside, abs=2e-3)
    assert moffat_psf(FWHM, (64, 64), 3, 2 * HALF + 1, beta).light_beyond == moffat_light_beyond(
        FWHM, 2 * HALF + 1, beta
    )


def test_fluxes_at_given_places_are_of_all_the_light() -> None:
    """A source drawn with its flux is measured with it, and only the stamp's share of it is on the stamp."""
    psf = replace(given_psf(moffat_stamp(FWHM, 2 * HALF + 1), (80, 80)), light_beyond=0.02)
    place = np.array([40.3]), np.array([38.8])
    image = render_points((80, 80), psf, *place, np.array([1000.0]))
    assert image.sum() == pytest.approx(980.0, rel=1e-3)
    one = np.ones((80, 80), np.float32)
    found = fit_fluxes(image, one, one > 0, psf, *place)
    assert found.flux[0] == pytest.approx(1000.0, rel=1e-3)


def test_fluxes_of_a_difference_are_of_all_the_light() -> None:
    """A star with 2 % of its light beyond the stamp: statistic over response is all of it, and the PSF of the
    difference times that is what lies on the stamp.
    """
    shape = (120, 120)
    stamp = moffat_stamp(FWHM, 2 * HALF + 1)
    psf = replace(given_psf(stamp, shape), light_beyond=0.02)
    science = np.zeros(shape, np.float32)
    science[60 - HALF : 61 + HALF, 60 - HALF : 61 + HALF] = 980.0 * stamp
    one, none = np.ones(shape, np.float32), np.zeros(shape, np.float32)
    pair = Prepared(science, none, one, one, one > 0, white_noise(), white_noise(), psf, psf)
    parts = subtract(pair, Unmatched(1.0), plan_tiles(shape, HALF, 64))
    assert float((parts.statistic / parts.response)[60, 60]) == pytest.approx(1000.0, rel=2e-3)
    light, _ = parts.kernels.at(60.0, 60.0)
    assert float(light.sum()) == pytest.approx(0.98, abs=1e-3)
