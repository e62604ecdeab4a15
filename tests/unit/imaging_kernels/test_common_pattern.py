"""Light that stands at the same place beside most bright stars: told from sources, which stand beside one."""

import warnings

import numpy as np
import pytest
from scipy import ndimage

from astrid_workers.imaging.common_pattern import FEWEST_STARS, common_pattern

SIDE, REACH = 400, 18
#: Stars far from one another and from the edge.
PLACES = np.array([(60 + 70 * (n % 5), 60 + 70 * (n // 5)) for n in range(25)], float)


def noise(seed: int) -> np.ndarray:
    """A score of scatter one, correlated as a matched filter leaves it."""
    smooth = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(SIDE, SIDE)), 1.2)
    return np.asarray(smooth / smooth.std(), np.float32)


def with_spots(score: np.ndarray, places: np.ndarray, dx: int, dy: int, height: float) -> np.ndarray:
    """The score with a spot of that height at an offset from each place."""
    spots = np.zeros(score.shape)
    for x, y in places:
        spots[round(y) + dy, round(x) + dx] = 1.0
    spots = ndimage.gaussian_filter(spots, 1.4)
    return np.asarray(score + height * spots / spots.max(), np.float32)


def found(score: np.ndarray, places: np.ndarray, usable: np.ndarray | None = None) -> set[tuple[int, int]]:
    """Offsets (dx, dy) that stand out."""
    everywhere = np.ones(score.shape, bool) if usable is None else usable
    pattern = common_pattern(score, everywhere, places[:, 0], places[:, 1], REACH)
    assert pattern.shape == (2 * REACH + 1, 2 * REACH + 1)
    return {(int(x) - REACH, int(y) - REACH) for y, x in np.argwhere(pattern)}


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize(("stars", "height"), [(4, 6.0), (9, 4.5), (25, 3.0)])
def test_what_stands_beside_all_stars_is_a_pattern(stars: int, height: float, sign: float) -> None:
    """The more stars, the fainter; and little more than the spot itself is named."""
    places = PLACES[:stars]
    told = found(with_spots(noise(1), places, 11, -7, sign * height), places)
    assert (11, -7) in told
    assert all(np.hypot(dx - 11, dy + 7) < 4 for dx, dy in told)


def test_sources_beside_single_stars_are_none() -> None:
    """However bright, beside a third of the stars, each at the same offset."""
    score = with_spots(noise(2), PLACES[:8], 11, -7, 60.0)
    assert not found(score, PLACES)


def test_noise_is_none() -> None:
    """Of twenty frames, by four stars and by twenty-five."""
    for seed in range(20):
        score = noise(100 + seed)
        assert not found(score, PLACES)
        assert not found(score, PLACES[:FEWEST_STARS])


def test_too_few_stars_tell_nothing() -> None:
    """Neither where there are too few nor where too few are seen: masks and the frame's edge take them away."""
    score = with_spots(noise(3), PLACES, 11, -7, 30.0)
    usable = np.ones(score.shape, bool)
    for x, y in PLACES[: len(PLACES) - FEWEST_STARS + 1]:
        usable[round(y) - 12 : round(y) - 2, round(x) + 6 : round(x) + 16] = False
    edge = np.array([(200.0, 3.0), (100.0, 2.0), (300.0, 4.0), (250.0, 1.0), (350.0, 399.0)])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not found(score, PLACES[: FEWEST_STARS - 1])
        assert not found(score, PLACES, usable)
        assert not found(noise(4), edge)
        assert not found(score, np.zeros((0, 2)))


def test_the_median_is_that_of_a_plain_loop() -> None:
    """The twin: one offset after the other."""
    score = with_spots(noise(5), PLACES[:9], 5, 9, 5.0)
    usable = np.random.default_rng(6).uniform(size=score.shape) > 0.3
    plain = set()
    for dy in range(-REACH, REACH + 1):
        for dx in range(-REACH, REACH + 1):
            values = [
                float(score[round(y) + dy, round(x) + dx])
                for x, y in PLACES[:9]
                if usable[round(y) + dy, round(x) + dx]
            ]
            if len(values) >= FEWEST_STARS:
                limit = max(5 * 1.2533 / np.sqrt(len(values)), 1.5)
                if abs(np.median(values)) > limit:
                    plain.add((dx, dy))
    assert plain
    assert found(score, PLACES[:9], usable) == plain
