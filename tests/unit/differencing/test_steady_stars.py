"""Stars that the other frame bears out: what shapes a PSF where stars are few."""

from dataclasses import dataclass, replace

import numpy as np
import pytest

from astrid_workers.differencing.match_frames import with_steady_stars
from astrid_workers.differencing.measure import Measured, measure_frame
from astrid_workers.differencing.products import DifferenceOptions
from astrid_workers.differencing.steady_stars import MIN_PAIRS, steady_stars
from astrid_workers.imaging.psf import measure_fwhm
from astrid_workers.imaging.stars import Stars
from astrid_workers.sky import make_sky

N_STARS, FLUX, FWHM_PX = 20, 1e4, 3.0


def field(n: int = N_STARS, scale: float = 1.0, fwhm_px: float = FWHM_PX) -> Stars:
    """Stars of S/N 100 on a line, alike but for `scale` of their fluxes."""
    even = np.ones(n)
    x = 50.0 * np.arange(n)
    return Stars(
        x, 100 * even, scale * FLUX * even, fwhm_px * even, 0.02 * even, 500 * even, 100 * even, even > 0
    )


@dataclass(frozen=True, slots=True)
class Case:
    """What the other frame has where the fourth star of one frame stands."""

    #: In units of what the other frame's stars have.
    flux: float = 1.0
    width: float = 1.0
    offset_px: float = 0.0
    there: bool = True
    clean: bool = True
    snr: float = 100.0


CASES = {
    "the same star": (Case(), True),
    "the same star, blended there": (Case(clean=False), True),
    "a star that was 5 % fainter: flat fields and PSFs do as much": (Case(flux=0.95), True),
    "a star that was half as bright": (Case(flux=0.5), False),
    "a star that was twice as bright": (Case(flux=2.0), False),
    "a source half as bright, of which noise says as little": (Case(flux=0.5, snr=4.0), True),
    "a galaxy: a transient shines on it here": (Case(width=1.4), False),
    "a galaxy that was not clean there either": (Case(width=1.4, clean=False), False),
    "a source 5 % wider": (Case(width=1.05), True),
    "a source that is too faint to have a width": (Case(width=1.4, snr=5.0), True),
    "a source whose width could not be measured": (Case(width=np.nan), True),
    "nothing: it is a point all the same": (Case(there=False), True),
    "a galaxy next to it": (Case(width=1.4, offset_px=2.5), True),
}


@pytest.mark.parametrize("sentence", CASES)
def test_a_star_is_steady_when_the_other_frame_has(sentence: str) -> None:
    """One star of twenty is what the sentence says; all others are as bright and as wide there."""
    case, expected = CASES[sentence]
    other = field(scale=0.7, fwhm_px=2.4)
    at = np.arange(N_STARS) == 3
    other = replace(
        other,
        x=other.x + case.offset_px * at,
        flux=np.where(at, case.flux * other.flux, other.flux),
        fwhm_px=np.where(at, case.width * other.fwhm_px, other.fwhm_px),
        snr=np.where(at, case.snr, other.snr),
        clean=other.clean & (case.clean | ~at),
    ).only(case.there | ~at)
    kept = steady_stars(field(), other).clean
    assert kept[3] == expected
    assert kept[~at].all()


@pytest.mark.parametrize("other", [field(0), field(MIN_PAIRS - 1, scale=0.2)])
def test_too_few_of_the_other_frame_say_nothing(other: Stars) -> None:
    """Of four stars nobody knows which one changed."""
    assert steady_stars(field(), other).clean.all()


def test_galaxies_that_were_taken_for_stars_give_way_to_the_other_frames_stars() -> None:
    """Six stars and thirty galaxies: the galaxies crowd here; there the stars stand apart."""
    n, is_star = 36, np.arange(36) < 6
    here = field(n).with_clean(~is_star)
    here = replace(here, fwhm_px=np.where(is_star, 3.0, 3.6))
    there = replace(field(n), fwhm_px=np.where(is_star, 2.2, 3.0), clean=is_star)
    assert np.array_equal(steady_stars(here, there).clean, is_star)
    assert np.array_equal(steady_stars(there, here).clean, is_star)


def test_one_galaxy_among_stars_that_the_other_frame_lacks_changes_nothing() -> None:
    """The other frame is undersampled: it lost its stars as too sharp, and took 21 galaxies for them."""
    n = 45
    index = np.arange(n)
    here = replace(field(n), fwhm_px=np.where(index < 24, 2.1, 4.0)).with_clean(index < 24)
    there = replace(field(n), fwhm_px=np.where(index < 24, 4.6, 3.4), clean=index >= 24).only(index >= 23)
    assert steady_stars(here, there).clean[:23].all()
    assert not steady_stars(here, there).clean[24:].any()


def test_a_majority_that_is_broad_there_stays_where_nobody_says_what_is_a_star() -> None:
    """Two clean stars of the other frame are too few to say."""
    n, is_star = 32, np.arange(32) < 2
    here = field(n).with_clean(~is_star)
    there = replace(field(n), fwhm_px=np.where(is_star, 2.2, 3.0), clean=is_star)
    assert np.array_equal(steady_stars(here, there).clean, here.clean)


def test_stars_that_were_not_clean_stay_so() -> None:
    """Nothing is promoted where most stars are stars."""
    stars = field()
    stars = stars.with_clean(np.arange(N_STARS) > 4)
    assert np.array_equal(steady_stars(stars, field()).clean, stars.clean)


def test_hosts_of_transients_do_not_shape_a_psf_of_few_stars() -> None:
    """One of 38 is a blend with its host: it is left out, and the PSF is less wrong without it."""
    sky = make_sky(
        seed=68, shape=(1024, 1024), n_stars=26, n_galaxies=120, n_transients=160, host_fraction=0.6,
        transient_snr=(2.0, 40.0), fwhm_science_px=3.6, fwhm_reference_px=2.8,
    )  # fmt: skip
    science, reference = (measure_frame(f, DifferenceOptions()) for f in (sky.science, sky.reference))
    mended, _ = with_steady_stars((science, reference), DifferenceOptions())
    true = measure_fwhm(sky.psf_science.stamp(41))

    def wrong(measured: Measured) -> float:
        return abs(measure_fwhm(measured.psf.at(512, 512)) / true - 1)

    assert mended.psf.n_stars < science.psf.n_stars
    assert "left out" in mended.psf.why
    assert wrong(mended) < 0.01
    assert wrong(mended) < 0.7 * wrong(science)


def test_many_stars_outvote_blends() -> None:
    """Nothing is measured again where a PSF stands on a hundred stars."""
    sky = make_sky(seed=62, shape=(512, 512), n_stars=220, n_transients=0)
    seen = tuple(measure_frame(f, DifferenceOptions()) for f in (sky.science, sky.reference))
    assert seen[0].psf.n_stars >= 100
    assert with_steady_stars((seen[0], seen[1]), DifferenceOptions())[0] is seen[0]


def test_more_than_a_hundred_galaxies_do_not_outvote_the_other_frames_stars() -> None:
    """A large frame with few stars: 150 galaxies were taken for stars, and the other frame knows better."""
    sky = make_sky(seed=62, shape=(512, 512), n_stars=220, n_transients=0)
    seen = [measure_frame(f, DifferenceOptions()) for f in (sky.science, sky.reference)]
    assert seen[0].psf.n_stars >= 100
    stars, other = seen[0].stars, seen[1].stars
    # as if most of what is clean here were broad there, and a dozen others stars
    few = other.clean & (np.cumsum(other.clean) <= 12)
    near = np.hypot(stars.x[:, None] - other.x[few], stars.y[:, None] - other.y[few]).min(axis=1) < 1
    here = replace(seen[0], stars=stars.with_clean(stars.clean & ~near))
    width = np.where(few, other.fwhm_px, 1.5 * other.fwhm_px)
    there = replace(seen[1], stars=replace(other, fwhm_px=width, clean=few))
    mended, _ = with_steady_stars((here, there), DifferenceOptions())
    assert np.array_equal(np.flatnonzero(mended.stars.clean), np.flatnonzero(near))
    assert "taken because they are stars there" in mended.psf.why
