"""A satellite across a pair: marked, told, taken off; what stands on its track is flagged and not lost."""

from dataclasses import replace
from functools import lru_cache

import numpy as np

from astrid_workers.differencing.difference import difference
from astrid_workers.differencing.extract_sources import extract_sources
from astrid_workers.differencing.products import Candidates, Difference
from astrid_workers.mask import MaskBit
from astrid_workers.sky import Blemishes, Sky, make_sky


@lru_cache(maxsize=2)
def sky(n_satellites: int) -> Sky:
    """Unequal seeing, no transients."""
    return make_sky(
        seed=8105, shape=(448, 448), n_stars=120, n_transients=0, fwhm_science_px=3.6, fwhm_reference_px=2.8,
        blemishes=Blemishes(n_satellites=n_satellites, satellite_e=300.0),
    )  # fmt: skip


def on_streak(made: Difference) -> np.ndarray:
    """Pixels with the bit."""
    return (made.mask & np.uint32(MaskBit.STREAK)) != 0


@lru_cache(maxsize=2)
def subtracted(n_satellites: int) -> tuple[Difference, Candidates]:
    """Of the plain pair."""
    made = difference(sky(n_satellites).science, sky(n_satellites).reference)
    return made, extract_sources(made)


def test_a_trail_makes_no_candidate_that_is_not_flagged() -> None:
    """It was hundreds of peaks of 15 sigma; its track is marked, little more than itself, and told."""
    made, found = subtracted(1)
    trail = sky(1).blemished.satellites
    assert on_streak(made)[trail].mean() > 0.97
    assert on_streak(made).sum() < 6 * trail.sum()
    assert [c for c in found.items if "streak" not in c.flags] == []
    assert len(found.items) <= 2
    assert made.numbers["streaks_science"] == 1
    assert made.numbers["streaks_reference"] == 0
    assert sum("a streak from" in sentence for sentence in made.assumed) == 1


def test_the_score_on_the_track_is_no_wider_than_it_says() -> None:
    """What the model of the trail misses is in the noise there; beside it nothing changed."""
    made, _ = subtracted(1)
    score = made.score[on_streak(made) & np.isfinite(made.score)]
    assert 0.75 < 1.4826 * np.median(np.abs(score)) < 1.15
    plain, _ = subtracted(0)
    away = ~on_streak(made) & np.isfinite(made.score) & np.isfinite(plain.score)
    assert np.std(made.score[away]) < 1.05 * np.std(plain.score[away])


def test_a_transient_on_the_track_is_found_and_flagged() -> None:
    """At 30 times its own error there."""
    made, _ = subtracted(1)
    truth = sky(1)
    rows, columns = np.nonzero(truth.blemished.satellites & (np.indices(made.shape) > 60).all(axis=0))
    free = np.array(
        [np.min(np.hypot(truth.star_x - x, truth.star_y - y)) for x, y in zip(columns, rows, strict=True)]
    )
    inside = (rows < 380) & (columns < 380)
    best = np.argmax(np.where(inside, free, 0))
    y, x = int(rows[best]), int(columns[best])
    all_rows, all_columns = np.indices(made.shape, dtype=float)
    flux = 30 * float(made.flux_error[y, x])
    extra = flux * truth.psf_science.value(all_columns - x, all_rows - y)
    lit = replace(truth.science, science=(truth.science.science + extra).astype(np.float32))
    near = [
        c for c in extract_sources(difference(lit, truth.reference)).items if np.hypot(c.x - x, c.y - y) < 2
    ]
    assert len(near) == 1
    assert "streak" in near[0].flags
    assert abs(near[0].flux - flux) < 0.15 * flux


def test_without_a_trail_nothing_is_marked() -> None:
    """No bit, no flag, no sentence."""
    made, found = subtracted(0)
    assert not on_streak(made).any()
    assert made.numbers["streaks_science"] == made.numbers["streaks_reference"] == 0
    assert not any("streak" in sentence for sentence in made.assumed)
    assert all("streak" not in c.flags for c in found.items)
