"""Columns and rows that do not see the sky, on frames with known ones, and what is none of them."""

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from astrid_workers.imaging.bad_lines import PIECE_PX, find_bad_lines
from astrid_workers.mask import UNUSABLE, MaskBit
from astrid_workers.sky import make_sky

SHAPE, LEVEL, SIGMA = (320, 420), 200.0, 10.0
Frame = NDArray[np.float32]
Change = Callable[[Frame], None]


def sky(seed: int = 1) -> Frame:
    """Blank sky."""
    return np.random.default_rng(seed).normal(LEVEL, SIGMA, SHAPE).astype(np.float32)


def bad(image: Frame, unusable: NDArray[np.bool_] | None = None) -> NDArray[np.bool_]:
    """Lines of a frame of the noise above."""
    lost = np.zeros(SHAPE, bool) if unusable is None else unusable
    return find_bad_lines(image, np.full(SHAPE, SIGMA**2, np.float32), lost)


def light(image: Frame, x: float, fwhm_px: float, peak: float, rows: slice = slice(None)) -> None:
    """A vertical line of light as wide as the PSF, exactly along a column: a trail, a spike, a galaxy."""
    columns = np.arange(SHAPE[1])
    image[rows] += (peak * np.exp(-4 * np.log(2) * (columns - x) ** 2 / fwhm_px**2)).astype(np.float32)


def _set(where: tuple[slice | int, slice | int], value: float) -> Change:
    def change(image: Frame) -> None:
        image[where] = value

    return change


def _add(where: tuple[slice | int, slice | int], value: float) -> Change:
    def change(image: Frame) -> None:
        image[where] += np.float32(value)

    return change


ALL = slice(None)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        pytest.param(_set((ALL, 100), 0), (ALL, 100), id="a dead column"),
        pytest.param(_set((ALL, 100), LEVEL), (ALL, 100), id="a column stuck at the level of the sky"),
        pytest.param(_set((200, ALL), 5 * LEVEL), (200, ALL), id="a hot row"),
        pytest.param(_add((ALL, 100), 2.5 * SIGMA), (ALL, 100), id="a column 2.5 sigma high, with noise"),
        pytest.param(_add((ALL, 100), -3 * SIGMA), (ALL, 100), id="a column 3 sigma low"),
        pytest.param(_add((ALL, slice(100, 102)), 4 * SIGMA), (ALL, slice(100, 102)), id="two together"),
        pytest.param(
            _add((slice(128, 320), 100), 5 * SIGMA), (slice(128, 320), 100), id="the end of a column"
        ),
        pytest.param(_set((ALL, 0), 0), (ALL, 0), id="a dead column at the edge"),
    ],
)
def test_what_is_bad(change: Change, expected: tuple[slice | int, slice | int]) -> None:
    """The line, all of it, and nothing else."""
    image = sky()
    change(image)
    truth = np.zeros(SHAPE, bool)
    truth[expected] = True
    np.testing.assert_array_equal(bad(image), truth)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda _: None, id="blank sky"),
        pytest.param(_add((ALL, 100), 0.8 * SIGMA), id="a response that a flat did not level"),
        pytest.param(lambda image: light(image, 100.0, 1.6, 5 * SIGMA), id="a trail under the narrowest PSF"),
        pytest.param(lambda image: light(image, 100.0, 3.0, 80 * SIGMA), id="a bright trail along a column"),
        pytest.param(lambda image: light(image, 100.5, 3.0, 20 * SIGMA), id="a trail between two columns"),
        pytest.param(
            lambda image: light(image, 100.0, 2.0, 30 * SIGMA, slice(40, 150)), id="a galaxy seen edge-on"
        ),
        pytest.param(_add((ALL, slice(100, 400, 8)), 4 * SIGMA), id="a pattern of the detector"),
        pytest.param(_set((100, 100), 1e5), id="one hot pixel"),
    ],
)
def test_what_is_not(change: Change) -> None:
    """Light is wider than a line, and a pattern is not made of bad lines."""
    image = sky(2)
    change(image)
    assert not bad(image).any()


def test_what_is_masked_says_nothing() -> None:
    """A line of masked pixels is not found again, nor does it hide the one beside it."""
    image = sky(3)
    image[:, 100], image[:, 101] = 0, 4 * LEVEL
    unusable = np.zeros(SHAPE, bool)
    unusable[:, 200] = True
    image[:, 200] = 0
    unusable[:, 250:], image[:, 250:] = True, 0  # half of the frame was never exposed
    found = bad(image, unusable)
    assert found[:, 100:102].all()
    assert np.count_nonzero(found) == 2 * SHAPE[0]


def test_a_frame_smaller_than_a_piece() -> None:
    """Nothing can be said of it."""
    image = np.zeros((PIECE_PX - 1, 200), np.float32)
    assert not find_bad_lines(image, np.ones_like(image), np.zeros(image.shape, bool)).any()


@pytest.mark.parametrize("seed", [8611, 8612])
def test_among_stars(seed: int) -> None:
    """Drawn bad columns of a crowded frame are found whole; of good ones nothing is lost."""
    drawn = make_sky(
        seed=seed, shape=(512, 512), n_stars=2000, n_galaxies=300, n_bad_columns=3, saturation_e=60_000
    )
    for frame, columns in ((drawn.science, 3), (drawn.reference, 0)):
        truth = (frame.mask & np.uint32(MaskBit.BAD_PIXEL)) != 0
        assert np.count_nonzero(truth.all(axis=0)) == columns
        others = (frame.mask & np.uint32(UNUSABLE & ~MaskBit.BAD_PIXEL)) != 0
        found = find_bad_lines(frame.science, frame.variance, others)
        assert np.count_nonzero(found & truth) >= 0.95 * np.count_nonzero(truth & ~others)
        assert not found[~truth].any()
