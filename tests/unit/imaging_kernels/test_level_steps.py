"""Steps of the sky between amplifiers, on skies with known ones, and what is none."""

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from astrid_workers.imaging.level_steps import find_level_steps, without_level_steps
from astrid_workers.sky import make_sky

SHAPE = (512, 640)
Frame = NDArray[np.float32]
NONE = np.zeros(SHAPE, bool)


def sky(seed: int = 11) -> Frame:
    """Stars and galaxies over 400 electrons of sky, noise 20.6."""
    drawn = make_sky(seed=seed, shape=SHAPE, n_stars=300, n_galaxies=150, n_transients=0, gradient_e=40.0)
    return drawn.science.science


@pytest.mark.parametrize("height", [18.0, -30.0, 400.0])
@pytest.mark.parametrize("at", [128, 320])
def test_a_step_is_found_where_it_is_and_taken_off(at: int, height: float) -> None:
    """To the column; what is left is below a fifth of the noise."""
    image = sky()
    image[:, at:] += np.float32(height)
    (step,) = find_level_steps(image, NONE)
    assert (step.axis, step.at) == ("column", at)
    assert step.height == pytest.approx(height, abs=4.0)
    levelled, steps = without_level_steps(image, NONE)
    assert steps == (step,)
    np.testing.assert_allclose(levelled, sky(), atol=4.01)


def test_four_amplifiers() -> None:
    """A step each way; masked pixels say nothing."""
    image, unusable = sky(12), NONE.copy()
    image[:, 320:] += 25
    image[256:] -= 40
    image[100:140], unusable[100:140] = 1e6, True
    image[:, 270], unusable[:, 270] = 0, True
    steps = find_level_steps(image, unusable)
    assert [(step.axis, step.at) for step in steps] == [("column", 320), ("row", 256)]
    assert [step.height for step in steps] == pytest.approx([25.0, -40.0], abs=4.0)


def _gradient(image: Frame) -> None:
    image += np.linspace(0, 2000, SHAPE[1], dtype=np.float32)


def _vignetted(image: Frame) -> None:
    rows, columns = np.indices(SHAPE)
    image *= (1 - 0.4 * ((rows / 512 - 0.5) ** 2 + (columns / 640 - 0.5) ** 2)).astype(np.float32)


def _trail(image: Frame) -> None:
    image[:, 300:306] += 500


def _pattern(image: Frame) -> None:
    image += np.where(np.arange(SHAPE[1]) // 64 % 2, 30, 0).astype(np.float32)


def _end_of_a_chip(image: Frame) -> None:
    image[:200, 300:] += 100


@pytest.mark.parametrize("change", [lambda _: None, _gradient, _vignetted, _trail, _pattern, _end_of_a_chip])
def test_what_is_none(change: Callable[[Frame], None]) -> None:
    """Slopes, a trail along a column, a pattern of many steps, an edge that ends within the frame."""
    image = sky(13)
    change(image)
    assert find_level_steps(image, NONE) == ()


@pytest.mark.parametrize("seed", range(8631, 8637))
def test_crowds_have_none(seed: int) -> None:
    """8,000 stars per Mpix, of all fluxes, in either frame."""
    drawn = make_sky(seed=seed, shape=(384, 384), n_stars=1200, star_flux_e=(5e2, 2e5), n_transients=0)
    for frame in (drawn.science, drawn.reference):
        assert find_level_steps(frame.science, frame.mask != 0) == ()


@pytest.mark.parametrize("heights", [(40, -49, 78, 117, 143, 188, 18, 72), (0, 0, 60, 60, 60, 60, 60, 60)])
def test_sections_of_a_row_must_agree(heights: tuple[int, ...]) -> None:
    """Crowds of faint stars made the first ones beside a row of a real crowd: both halves rise, no sky does."""
    image = sky(14)
    for section, height in zip(np.array_split(np.arange(SHAPE[1]), 8), heights, strict=True):
        image[256:, section] += height
    assert not [step for step in find_level_steps(image, NONE) if step.axis == "row"]
