"""How wrong models are at bright sources: read off stars, and smaller where light is broad."""

import numpy as np
import pytest
from scipy import ndimage

from astrid_workers.differencing.model_error import light_around, measure_model_error, sharp_light
from astrid_workers.imaging.photometric_match import constant_sources

FWHM = 4.0
SIGMA = FWHM / 2.3548
SIDE = 400


def blobs(places: np.ndarray, sigma: float, peak: float) -> np.ndarray:
    """Gaussians at places `(n, 2)` of x and y."""
    rows, columns = np.indices((SIDE, SIDE))
    image = np.zeros((SIDE, SIDE))
    for x, y in places:
        image += peak * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * sigma**2))
    return image


def profile() -> np.ndarray:
    """What a point source looks like in the statistic, 1 at its centre."""
    axis = np.arange(-15, 16)
    return np.exp(-(axis[:, None] ** 2 + axis[None, :] ** 2) / (2 * SIGMA**2))


def grid(step: int = 40) -> np.ndarray:
    """Places well apart."""
    axis = np.arange(step, SIDE - step + 1, step)
    return np.array([(x, y) for x in axis for y in axis])


def test_sharp_light_of_a_star_is_its_light() -> None:
    """At its centre and as far as a wrong profile shows."""
    light = sharp_light(blobs(np.array([(200, 150)]), SIGMA, 300.0).astype(np.float32), profile(), FWHM)
    assert light[150, 200] == pytest.approx(300.0, rel=1e-4)
    assert light[152, 198] == pytest.approx(300.0, rel=1e-4)
    assert light.max() == pytest.approx(300.0, rel=1e-4)
    assert light[150, 230] == 0


@pytest.mark.parametrize("broader", [1.5, 2.0, 3.0])
def test_sharp_light_of_a_galaxy_falls_with_the_square_of_its_width(broader: float) -> None:
    """A PSF that is too wide leaves of each source the change of its second moment."""
    image = blobs(np.array([(200, 150)]), broader * SIGMA, 300.0).astype(np.float32)
    found = sharp_light(image, profile(), FWHM)[150, 200]
    assert found == pytest.approx(300 / broader**2, rel=0.1)  # differences of pixels see a star 8 % too blunt


def test_error_read_off_stars_is_what_a_wrong_width_leaves_at_galaxies() -> None:
    """The truth: both blurred 1.5 % too much. Noise that stars ask for covers galaxies and is not far above."""
    rng = np.random.default_rng(2)
    places = grid()
    stars, galaxies = places[::2], places[1::2]
    true = blobs(stars, SIGMA, 900.0) + blobs(galaxies, 2 * SIGMA, 900.0)
    wrong = ndimage.gaussian_filter(true, 0.25 * SIGMA) - true
    noise = ndimage.gaussian_filter(rng.normal(size=true.shape), SIGMA / np.sqrt(2))
    statistic = (wrong + noise / noise.std()).astype(np.float32)
    photons = np.ones_like(statistic)
    light = sharp_light(true.astype(np.float32), profile(), FWHM)
    bad = np.zeros(true.shape, bool)
    x, y = stars.T.astype(float)
    broad = light_around(true.astype(np.float32), FWHM)
    others = (galaxies[:, 0].astype(float), galaxies[:, 1].astype(float))
    error = measure_model_error(
        statistic, photons, light, (x, y), bad, FWHM, subtracted=true.astype(np.float32), others=others
    )
    at = galaxies[:, 1], galaxies[:, 0]
    sigma = np.hypot(1.0, error.at(light, light, broad) * light)[at]
    left = np.abs(wrong[at])
    share = np.abs(wrong[stars[:, 1], stars[:, 0]]).mean() / 900
    assert 0.5 * share < error.typical < share  # one sigma, of which the largest of nine places is 1.4
    assert np.all(left < 2 * sigma)
    assert np.median(sigma) < 2.5 * np.median(np.hypot(1.0, left))


@pytest.mark.parametrize("hosts", [0, 8], ids=["quiet", "a sixth hold a transient"])
def test_what_is_wrong_at_points_alone_is_no_noise_at_galaxies(hosts: int) -> None:
    """Pixels alias a point and no galaxy: stars keep their error, galaxies have half of it at most, transients or not."""
    rng = np.random.default_rng(5)
    places = rng.permutation(grid())
    stars, galaxies = places[: len(places) // 2], places[len(places) // 2 :]
    true = (blobs(stars, SIGMA, 900.0) + blobs(galaxies, 2 * SIGMA, 900.0)).astype(np.float32)
    wrong = sum(
        blobs(star[None], SIGMA, 900.0 * share)
        for star, share in zip(stars, rng.normal(0, 0.01, len(stars)), strict=True)
    )
    wrong += blobs(galaxies[:hosts], SIGMA, 12.0)
    noise = ndimage.gaussian_filter(rng.normal(size=true.shape), SIGMA / np.sqrt(2))
    statistic = (wrong + noise / noise.std()).astype(np.float32)
    light, broad = sharp_light(true, profile(), FWHM), light_around(true, FWHM)
    places_of = [tuple(each.T.astype(float)) for each in (stars, galaxies)]
    bad = np.zeros(true.shape, bool)
    error = measure_model_error(
        statistic,
        np.ones_like(statistic),
        light,
        places_of[0],
        bad,
        FWHM,
        subtracted=true,
        others=places_of[1],
    )
    found = error.at(light, light, broad)
    assert np.all(found[galaxies[:, 1], galaxies[:, 0]] < 0.6 * error.typical)
    np.testing.assert_allclose(found[stars[:, 1], stars[:, 0]], error.typical, rtol=0.05)


@pytest.mark.parametrize(
    ("stars", "others", "told_by"),
    [(12, 300, "stars"), (8, 80, "stars"), (8, 300, "all"), (3, 20, "all"), (0, 5, "all")],
)
def test_who_tells_how_wrong_models_are(stars: int, others: int, told_by: str) -> None:
    """Stars, though they be few, where sources are few too; a handful does not stand for hundreds."""
    is_star = np.arange(stars + others) < stars
    assert np.count_nonzero(constant_sources(is_star)) == (stars if told_by == "stars" else stars + others)


@pytest.mark.parametrize(
    ("sources", "changed", "are_constant", "most"),
    [(10, 1, True, 0.0), (80, 13, False, 0.2 * 25 / 900)],
    ids=["one of few stars", "a sixth of all"],
)
def test_what_changed_is_no_error_of_models(
    sources: int, changed: int, are_constant: bool, most: float
) -> None:
    """A transient on a star among ten, or on many of those that stand in for stars: the others tell."""
    rng = np.random.default_rng(6)
    places = rng.permutation(grid())[:sources]
    true = blobs(places, SIGMA, 900.0).astype(np.float32)
    noise = ndimage.gaussian_filter(rng.normal(size=true.shape), SIGMA / np.sqrt(2))
    risen = places[:: sources // changed]
    statistic = (blobs(risen, SIGMA, 25.0) + noise / noise.std()).astype(np.float32)
    light = sharp_light(true, profile(), FWHM)
    x, y = places.T.astype(float)
    nobody = (np.empty(0), np.empty(0))
    bad = np.zeros(true.shape, bool)
    error = measure_model_error(
        statistic,
        np.ones_like(statistic),
        light,
        (x, y),
        bad,
        FWHM,
        subtracted=true,
        others=nobody,
        are_constant=are_constant,
    )
    assert error.error.max() <= most
