"""Streaks against frames of known lines, and sums along lines against a plain loop."""

import numpy as np
import pytest
from numpy.typing import NDArray

from astrid_workers.imaging.grouped_median import FEWEST_VALUES, grouped_median
from astrid_workers.imaging.line_sums import OCTANTS, line_sums
from astrid_workers.imaging.streak_light import streak_light
from astrid_workers.imaging.streaks import BIN_CLIP, BLOCK_BINS, STEPS_PER_SIGMA, Streak, find_streaks

SHAPE, SIGMA = (420, 500), 20.0


def noise(seed: int) -> NDArray:
    """Blank sky with sixty stars of FWHM 3 px."""
    rng = np.random.default_rng(seed)
    image = rng.normal(0, SIGMA, SHAPE)
    rows, columns = np.indices(SHAPE)
    for x, y, peak in zip(
        rng.uniform(0, 500, 60), rng.uniform(0, 420, 60), rng.uniform(100, 20_000, 60), strict=True
    ):
        image += peak * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * 1.3**2))
    return image.astype(np.float32)


def drawn(x0: float, y0: float, x1: float, y1: float, height: float, width_px: float = 1.5) -> NDArray:
    """A line of Gaussian profile from end to end."""
    rows, columns = np.indices(SHAPE)
    length = np.hypot(x1 - x0, y1 - y0)
    along = ((columns - x0) * (x1 - x0) + (rows - y0) * (y1 - y0)) / length
    across = ((rows - y0) * (x1 - x0) - (columns - x0) * (y1 - y0)) / length
    lit = (along >= 0) & (along <= length)
    return (height * SIGMA * np.exp(-0.5 * (across / width_px) ** 2) * lit).astype(np.float32)


def searched(image: NDArray) -> list[Streak]:
    """With nothing masked."""
    return find_streaks(image, SIGMA, np.zeros(SHAPE, bool))


LINES = {
    "flat": (0, 200, 499, 230),
    "steep": (250, 0, 290, 419),
    "falling": (0, 380, 499, 20),
    "leaning left": (480, 0, 130, 419),
    "along a row": (0, 111, 499, 111),
    "that begins within the frame": (160, 60, 499, 380),
}


@pytest.mark.parametrize("ends", LINES.values(), ids=LINES)
@pytest.mark.parametrize("height", [1.0, 15.0])
def test_a_line_is_found_at_its_place_from_end_to_end(ends: tuple, height: float) -> None:
    """Both faint (one sigma of a pixel) and bright; its middle within 1.5 px, nothing else beside it."""
    found = searched(noise(1) + drawn(*ends, height))
    assert len(found) == 1
    off = found[0].along_and_across(np.array(ends[0::2], float), np.array(ends[1::2], float))
    assert np.abs(off[1]).max() < 1.5
    assert off[0].min() == pytest.approx(0, abs=70)
    assert off[0].max() == pytest.approx(found[0].length_px, abs=70)
    assert 2 <= found[0].half_width_px <= 9


def test_two_lines_that_cross_are_two() -> None:
    """The second is found beneath the first."""
    found = searched(noise(2) + drawn(*LINES["flat"], 6.0) + drawn(*LINES["leaning left"], 3.0))
    assert len(found) == 2


@pytest.mark.parametrize("seed", range(10, 16))
def test_no_line_no_streak(seed: int) -> None:
    """Stars, a step of the level, a bright short spike: none of them is a streak."""
    image = noise(seed)
    image[:, 250:] += 0.5 * SIGMA
    image[200:203, 100:180] += 40 * SIGMA
    assert searched(image) == []


def test_the_same_pixels_give_the_same_streaks() -> None:
    """Nothing is drawn by chance."""
    image = noise(3) + drawn(*LINES["falling"], 2.0)
    assert searched(image) == searched(image.copy())


def test_what_is_masked_is_not_asked() -> None:
    """A bad column is no streak, and a line is found across a hole."""
    image = noise(4) + drawn(*LINES["flat"], 5.0)
    bad = np.zeros(SHAPE, bool)
    image[:, 333] = 5000
    bad[:, 333] = True
    image[190:240, 200:260] = np.nan
    bad[190:240, 200:260] = True
    found = find_streaks(np.nan_to_num(image), SIGMA, bad)
    assert len(found) == 1
    assert found[0].length_px > 480


def test_taken_off_a_streak_leaves_the_sky_and_the_star_on_it() -> None:
    """Mean and scatter beside stars are the sky's; a star on the streak keeps its light."""
    rows, columns = np.indices(SHAPE)
    star = 800 * np.exp(-((columns - 300) ** 2 + (rows - 218) ** 2) / (2 * 1.5**2))
    rng = np.random.default_rng(5)
    sky = rng.normal(0, SIGMA, SHAPE).astype(np.float32)
    image = sky + star.astype(np.float32) + drawn(*LINES["flat"], 12.0)
    found = searched(image)
    assert len(found) == 1
    y, x, light = streak_light(image, np.ones(SHAPE, bool), found[0])
    image[y, x] -= light
    away = np.hypot(x - 300, y - 218) > 8
    left = image[y, x][away]
    assert abs(left.mean()) < 0.1 * SIGMA
    assert left.std() == pytest.approx(SIGMA, rel=0.06)
    about = np.hypot(columns - 300, rows - 218) < 5
    assert image[about].sum() == pytest.approx(star[about].sum(), rel=0.08)


def test_the_sums_are_those_of_a_plain_walk() -> None:
    """The twin: Brady's lines, walked pixel by pixel."""
    side = 16
    image = np.random.default_rng(6).normal(size=(1, side, side)).astype(np.float32)
    fast = line_sums(image)[0]

    def row_at(column: int, rise: int, width: int) -> int:
        """How far a line of this rise over `width` columns has climbed at a column."""
        if width == 1:
            return 0
        half = width // 2
        if column < half:
            return row_at(column, rise // 2, half)
        return (rise + 1) // 2 + row_at(column - half, rise // 2, half)

    for rise in range(side):
        for start in range(-side, side):
            walk = [(start + row_at(c, rise, side), c) for c in range(side)]
            slow = sum(float(image[0, r, c]) for r, c in walk if 0 <= r < side)
            assert fast[rise, start + side] == pytest.approx(slow, abs=1e-4)
            assert all(abs(r - start - rise * c / (side - 1)) <= 1.5 for r, c in walk)


def test_integers_are_summed_as_floats_are() -> None:
    """At the largest value that a bin of a block may have, as many as a block may have: nothing overflows."""
    most = round(BIN_CLIP * STEPS_PER_SIGMA)
    side = 2 * BLOCK_BINS
    bins = np.random.default_rng(8).integers(-most, most, (1, side, side), endpoint=True).astype(np.int16)
    bins[0, 5] = most
    sums = line_sums(bins)
    assert sums.dtype == np.int16
    assert sums[0, 0, side + 5] == most * side
    np.testing.assert_array_equal(sums, line_sums(bins.astype(np.float32)))


@pytest.mark.parametrize("octant", OCTANTS)
def test_a_line_of_every_octant_comes_back_where_it_was(octant) -> None:
    """The largest sum's ends are the ends that were drawn."""
    side = 64
    x0, y0, x1, y1 = octant.line(12.0, 30.0, side)
    steps = np.linspace(0, 1, 400)
    image = np.zeros((1, side, side), np.float32)
    image[0, np.rint(y0 + steps * (y1 - y0)).astype(int), np.rint(x0 + steps * (x1 - x0)).astype(int)] = 1
    sums = line_sums(np.ascontiguousarray(octant.turned(image)))[0]
    rise, start = np.unravel_index(sums.argmax(), sums.shape)
    np.testing.assert_allclose(octant.line(start - side, rise, side), (x0, y0, x1, y1), atol=2)


def test_sums_need_a_square_of_a_power_of_two() -> None:
    """Anything else is refused."""
    with pytest.raises(ValueError, match="power of two"):
        line_sums(np.zeros((1, 12, 12), np.float32))


def test_medians_of_groups_are_numpys() -> None:
    """Few values give NaN."""
    rng = np.random.default_rng(7)
    group = rng.integers(0, 9, 300)
    group[group == 4] = 5
    values = rng.normal(size=300)
    found = grouped_median(values, group, 9)
    for number in range(9):
        members = values[group == number]
        if members.size < FEWEST_VALUES:
            assert np.isnan(found[number])
        else:
            assert found[number] == pytest.approx(np.median(members))
