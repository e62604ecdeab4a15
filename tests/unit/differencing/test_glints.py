"""Glints through a whole subtraction: chains and short trails are flagged, transients are not."""

from functools import lru_cache

import numpy as np
import pytest

from astrid_workers.differencing.glints import flag_glints
from astrid_workers.differencing.products import Candidate
from astrid_workers.sky import Blemishes
from support.pairs import MadePair, make_pair


@lru_cache(maxsize=4)
def pair(**blemishes: float) -> MadePair:
    """Unequal seeing, hosts and transients; and glints of some 40 sigma."""
    return make_pair(
        "zogy", seed=8221, shape=(512, 512), n_stars=150, n_galaxies=60, n_transients=25, fwhm_science_px=3.6,
        fwhm_reference_px=2.8, shift_field_px=0.05, blemishes=Blemishes(**blemishes, glint_e=9000.0),
    )  # fmt: skip


def near(made: MadePair, x: float, y: float, within_px: float = 3.0) -> list[Candidate]:
    """Candidates about a place."""
    return [c for c in made.candidates.items if np.hypot(c.x - x, c.y - y) < within_px]


def test_dots_of_a_chain_are_flagged() -> None:
    """All five, and they are delivered; nothing else is flagged."""
    made = pair(n_glint_chains=1)
    dots = made.sky.blemished.glints.dots
    for x, y in zip(dots.x, dots.y, strict=True):
        assert ["glint" in c.flags for c in near(made, x, y)] == [True]
    assert sum("glint" in c.flags for c in made.candidates.items) == 5


def test_a_short_trail_is_flagged_wherever_it_became_candidates() -> None:
    """Trails of 10 to 40 px: each is delivered, and every candidate on it has the flag; but for one that lies
    along a source of the reference, where a galaxy's residual could look like it.
    """
    made = pair(n_glint_trails=4, glint_trail_px=(10.0, 40.0))
    told = 0
    for x0, y0, x1, y1, _ in made.sky.blemished.glints.trails:
        on = near(made, (x0 + x1) / 2, (y0 + y1) / 2, np.hypot(x1 - x0, y1 - y0) / 2 + 3)
        assert on
        told += all("glint" in c.flags for c in on)
    assert told == 3


@pytest.mark.parametrize(
    "kind", [{}, {"n_glint_chains": 1}, {"n_glint_trails": 4, "glint_trail_px": (10.0, 40.0)}]
)
def test_no_transient_is_flagged(kind: dict) -> None:
    """On hosts or not, beside glints or not."""
    made = pair(**kind)
    matched = [c for _, c in made.matched()]

    assert len(matched) > 15
    assert [c for c in matched if "glint" in c.flags] == []


def candidate(x: float, y: float, *flags: str, score: float = 12.0) -> Candidate:
    """One with the place error of its S/N."""
    return Candidate(
        0, x, y, 0.15, 0.15, None, None, 1.0, 0.1, abs(score), score, 3.0, 1.0, 1.0, score > 0, flags
    )


@pytest.mark.parametrize(
    ("flags", "signs", "is_told"),
    [((), (1, 1, 1, 1, 1, 1), True), ((), (1, -1, 1, -1), False), (("streak",), (1,) * 6, False)],
    ids=["one sign", "both signs", "on a streak"],
)
def test_a_row_is_of_one_sign_and_not_explained_otherwise(
    flags: tuple[str, ...], signs: tuple[int, ...], is_told: bool
) -> None:
    """A flash is in one frame; what a satellite's track leaves lies on a line anyway."""
    made = pair().difference
    row = [candidate(60 + 50.0 * k, 70 + 31.0 * k, *flags, score=12.0 * sign) for k, sign in enumerate(signs)]

    assert [("glint" in c.flags) for c in flag_glints(row, made)] == [is_told] * len(signs)


def test_a_glint_is_told_as_an_artefact() -> None:
    """It is counted among those, and nothing changes when there is no candidate."""
    assert candidate(5, 5, "glint").is_doubted
    assert flag_glints([], pair().difference) == []
