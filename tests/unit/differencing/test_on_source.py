"""Candidates on sources of the reference are told, and nothing is held against them."""

from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest

from astrid_workers.differencing.products import ON_SOURCE_SIGMA
from astrid_workers.sky.light import Points, render
from support.pairs import MadePair, make_pair


@lru_cache(maxsize=2)
def pair(algorithm: str) -> MadePair:
    """Half of the transients on galaxies, some fading."""
    return make_pair(
        algorithm, seed=8411, shape=(448, 448), n_stars=120, n_galaxies=80, n_transients=60, host_fraction=0.5,
        negative_fraction=0.2, transient_snr=(9.0, 60.0), fwhm_science_px=3.6, fwhm_reference_px=2.8,
        transparency=0.85,
    )  # fmt: skip


def light(made: MadePair) -> np.ndarray:
    """True light of stars and galaxies, electrons per pixel of the science frame."""
    sky = made.sky
    stars = Points(sky.star_x, sky.star_y, sky.star_flux_e)
    return render(made.difference.shape, stars, sky.galaxies, sky.psf_science)


@pytest.mark.parametrize("algorithm", ["zogy", "classic"])
def test_hosts_are_sources_and_blank_sky_is_none(algorithm: str) -> None:
    """Of empty pixels no more than a Gaussian's share of the same scatter are; nearly all stars are."""
    made = pair(algorithm)
    seen = made.difference.subtracted_light
    fading = made.sky.truth[made.sky.truth["sign"] < 0]
    rows, columns = np.indices(seen.shape)
    away = np.ones(seen.shape, bool)
    for each in fading:
        away &= np.hypot(columns - each["x"], rows - each["y"]) > 20
    blank = seen[away & (light(made) < 0.3)]
    assert blank.size > 40_000
    scatter = 1.4826 * np.median(np.abs(blank - np.median(blank)))
    assert 0.3 < scatter < 1.0
    assert abs(np.median(blank)) < 0.1
    assert np.mean(blank > 3 * scatter) < 3 * 0.00135
    assert np.count_nonzero(blank > ON_SOURCE_SIGMA) == 0
    x, y = (np.rint(each).astype(int) for each in (made.sky.star_x, made.sky.star_y))
    inside = (x >= 15) & (y >= 15) & (x < 433) & (y < 433)
    assert (seen[y[inside], x[inside]] > ON_SOURCE_SIGMA).mean() > 0.95


@pytest.mark.parametrize("algorithm", ["zogy", "classic"])
def test_a_transient_on_a_host_has_the_flag_and_one_on_blank_sky_has_not(algorithm: str) -> None:
    """By the true light at its place: bright hosts always, blank sky never; a fading one is on itself."""
    made = pair(algorithm)
    true = light(made)
    bright, faint, fading = [], [], []
    for row, c in made.matched():
        under = true[round(row["y"]), round(row["x"])]
        if row["sign"] < 0:
            fading.append(c)
        elif under > 60:
            bright.append(c)
        elif under < 2:
            faint.append(c)
    assert min(len(bright), len(faint), len(fading)) >= 5
    assert all("on_source" in c.flags for c in bright + fading)
    assert not any("on_source" in c.flags for c in faint)
    assert not any(replace(c, flags=("on_source", "blended")).is_doubted for c in bright)
