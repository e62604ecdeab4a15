"""Injected sources tell the depth of a frame, and disturb nothing while they do."""

from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest

from astrid_workers.differencing import injection
from astrid_workers.differencing.completeness import Limit, fit_limit, injection_numbers, wilson_interval
from astrid_workers.differencing.injection import (
    APART_FWHM,
    Injected,
    InjectionOptions,
    choose_places,
    inject_and_recover,
    with_sources,
)
from astrid_workers.differencing.pair import PairResult, run_pair
from astrid_workers.frame import Frame
from astrid_workers.mask import MaskBit
from astrid_workers.sky import make_sky

OPTIONS = InjectionOptions(count=90, seed=5)


@lru_cache(maxsize=1)
def _pair() -> PairResult:
    sky = make_sky(
        seed=31, shape=(400, 400), n_stars=90, n_galaxies=60, n_transients=4, transient_snr=(20.0, 40.0),
        transparency=0.8, n_saturated=1,
    )  # fmt: skip
    facts = replace(sky.science.facts, zero_point_mag=27.0)
    return run_pair(replace(sky.science, facts=facts), sky.reference)


@lru_cache(maxsize=1)
def _injected() -> Injected:
    return inject_and_recover(_pair(), injection=OPTIONS)


def test_depth_is_that_of_the_threshold() -> None:
    """A matched filter finds half of the sources whose S/N is the threshold's 5, and nearly all beyond 10."""
    numbers = injection_numbers(_injected(), OPTIONS, 5.0, "electron", 27.0)
    depth = numbers["all"]
    assert depth["snr_50"] == pytest.approx(5.0, abs=3 * depth["snr_50_err"])
    assert depth["snr_50_err"] < 0.7
    assert depth["snr_50"] < depth["snr_90"]
    assert depth["completeness_above_snr_10"] >= 0.95
    assert depth["mag_50"] == pytest.approx(27.0 - 2.5 * np.log10(depth["flux_50"]))


def test_blank_sky_and_sources_are_both_tried() -> None:
    """Depth is told apart for blank sky and for places on sources, with enough of each."""
    injected = _injected()
    assert len(injected) == OPTIONS.count
    assert 20 <= np.count_nonzero(injected.on_source) <= 45
    numbers = injection_numbers(injected, OPTIONS, 5.0, "electron", 27.0)
    assert numbers["blank"]["n"] + numbers["on_source"]["n"] == OPTIONS.count
    assert numbers["blank"]["snr_50"] is not None


def test_flux_and_place_of_injections_come_back() -> None:
    """The difference shows the light that was put in within 3 % and its error (1 %), and sources within a third
    of a pixel.
    """
    numbers = injection_numbers(_injected(), OPTIONS, 5.0, "electron", 27.0)
    assert numbers["flux_bias_err"] < 0.01
    assert abs(numbers["flux_bias"]) < 0.03 + numbers["flux_bias_err"]
    assert numbers["position_scatter_px"] < 0.33
    assert 0.6 < numbers["flux_pull_scatter"] < 1.5


def test_what_would_be_set_aside_as_a_ray_is_not_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Depth is that of the list that is delivered: with a look at the frame that takes all, nothing is found."""
    few = InjectionOptions(count=4, seed=2, least_snr=15.0)
    assert inject_and_recover(_pair(), injection=few).found.any()
    monkeypatch.setattr(injection, "without_hits", lambda found, *_: replace(found, items=()))
    assert not inject_and_recover(_pair(), injection=few).found.any()


def test_same_seed_gives_the_same_sources() -> None:
    """Two runs with one seed place and draw alike; another seed does not."""
    few = InjectionOptions(count=4, seed=2)
    one, same, other = (inject_and_recover(_pair(), injection=o) for o in (few, few, replace(few, seed=3)))
    for name in ("x", "y", "flux", "found", "gained_flux"):
        np.testing.assert_array_equal(getattr(one, name), getattr(same, name))
    assert not np.array_equal(one.x, other.x)


def test_injections_keep_clear_of_candidates_and_masks() -> None:
    """What is there already neither hides an injection nor answers for one."""
    pair, injected = _pair(), _injected()
    for c in pair.candidates.items:
        assert np.hypot(injected.x - c.x, injected.y - c.y).min() > 3 * pair.difference.fwhm_science_px
    nearest = np.rint(injected.y).astype(int), np.rint(injected.x).astype(int)
    assert np.isfinite(pair.difference.score[nearest]).all()


def test_places_keep_apart_and_stay_where_they_may() -> None:
    """Sources of one pass lie 4 FWHM apart (on one axis at least), blank ones off sources, none where not allowed."""
    rng = np.random.default_rng(1)
    allowed = np.ones((300, 300), bool)
    allowed[:, :60] = False
    sources = np.zeros((300, 300), bool)
    sources[100:120, 100:120] = True
    stars = np.array([110.0, 30.0, 200.0]), np.array([110.0, 200.0, 250.0])
    places = choose_places(allowed, sources, stars, 3.0, (3, 40), rng)
    assert np.count_nonzero(places.on_source) == 2
    assert 25 <= np.count_nonzero(~places.on_source) <= 40
    column, row = np.rint(places.x).astype(int), np.rint(places.y).astype(int)
    assert allowed[row, column].all()
    assert not sources[row, column][~places.on_source].any()
    apart = np.maximum(np.abs(column[:, None] - column), np.abs(row[:, None] - row))
    assert apart[~np.eye(column.size, dtype=bool)].min() > APART_FWHM * 3.0


def test_injection_adds_its_photons_to_image_and_variance() -> None:
    """A source brings its light, its shot noise and nothing else; the frame that was given is not touched."""
    pair = _pair()
    psf, frame = pair.difference.psf_science, pair.science
    before = frame.science.copy()
    x, y, flux = np.array([200.25]), np.array([150.5]), np.array([40_000.0])
    drawn = [with_sources(frame, psf, x, y, flux, np.random.default_rng(seed)) for seed in range(12)]
    light = np.array([(one.science - frame.science).sum() for one in drawn])
    assert light.mean() == pytest.approx(40_000, abs=4 * 200 / np.sqrt(12))
    assert 0.4 * 200 < light.std() < 1.8 * 200
    assert float((drawn[0].variance - frame.variance)[np.isfinite(frame.variance)].sum()) == pytest.approx(
        40_000, rel=0.01
    )
    np.testing.assert_array_equal(frame.science, before)


def test_a_source_that_saturates_or_looks_like_a_ray_is_masked() -> None:
    """What would happen to a real source happens to an injected one: saturation, and the cosmic-ray finder."""
    pair = _pair()
    bright = with_sources(
        pair.science, pair.difference.psf_science, np.array([200.0]), np.array([150.0]), np.array([3e6]),
        np.random.default_rng(1),
    )  # fmt: skip
    assert bright.mask[150, 200] & np.uint32(MaskBit.SATURATED)
    narrow = _needle(pair)
    assert narrow.mask[150, 200] & np.uint32(MaskBit.COSMIC_RAY)


def _needle(pair: PairResult) -> Frame:
    """A source of one pixel, injected as if it were the PSF of a frame with broad stars."""
    psf = pair.difference.psf_science
    terms = np.zeros_like(psf.terms[:1])
    terms[0, terms.shape[1] // 2, terms.shape[2] // 2] = 1.0
    place = np.array([200.0]), np.array([150.0]), np.array([5_000.0])
    return with_sources(pair.science, replace(psf, terms=terms), *place, np.random.default_rng(1))


def test_fit_finds_the_limit_that_drew_the_sources() -> None:
    """The fitted 50 and 90 % points lie within 3 of their own errors of the truth, for a full and a low plateau."""
    rng = np.random.default_rng(8)
    value = rng.uniform(2, 20, 600)
    found = rng.normal(value - 6.0, 1.0) > 0
    limit = fit_limit(value, found, (0.3, 5.0))
    assert limit.at_50 is not None
    assert limit.at_50_err is not None
    assert limit.at_50 == pytest.approx(6.0, abs=3 * limit.at_50_err)
    assert limit.at_50_err < 0.3
    assert limit.at_90 is not None
    assert limit.at_90 == pytest.approx(7.3, abs=0.6)
    lossy = fit_limit(value, found & (rng.uniform(size=600) < 0.75), (0.3, 5.0))
    assert lossy.at_50 is not None
    assert lossy.at_90 is None


@pytest.mark.parametrize("found", [np.zeros(50, bool), np.ones(50, bool)])
def test_no_limit_is_claimed_where_all_or_none_were_found(found: np.ndarray) -> None:
    """Sources that are all found, or all lost, bound no depth: null, not a number."""
    assert fit_limit(np.linspace(2, 20, 50), found, (0.3, 5.0)) == Limit()


def test_binomial_intervals_cover_as_often_as_they_say() -> None:
    """The 68 % interval holds the true share in 55 to 85 % of draws, also near 0 and 1, and stays within 0 … 1."""
    rng = np.random.default_rng(3)
    for share in (0.05, 0.5, 0.95):
        drawn = rng.binomial(30, share, 400)
        inside = [low <= share <= high for low, high in (wilson_interval(int(k), 30) for k in drawn)]
        assert 0.55 <= np.mean(inside) <= 0.85
    assert wilson_interval(0, 10)[0] == 0.0
    assert wilson_interval(10, 10)[1] == 1.0
