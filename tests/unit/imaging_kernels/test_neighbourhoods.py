"""Fast filters and growths against the slow twins that visit every pixel."""

import numpy as np
import pytest
from scipy import ndimage

from astrid_workers.imaging.box_maximum import box_maximum
from astrid_workers.imaging.box_mean import box_mean
from astrid_workers.imaging.cosmic_rays import _opened
from astrid_workers.imaging.grow import grow, grow_diamond
from astrid_workers.imaging.noise_model import MAX_LAG_PX, _covariance
from astrid_workers.imaging.resample import _rim

SHAPES = [(1, 1), (3, 200), (64, 5), (65, 66), (130, 131)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("side", [1, 3, 5, 9])
def test_a_box_mean_agrees_with_its_slow_twin(shape: tuple[int, int], side: int) -> None:
    image = np.random.default_rng(side).normal(100, 30, shape).astype(np.float32)
    slow = ndimage.uniform_filter(image.astype(np.float64), side, mode="nearest")
    np.testing.assert_allclose(box_mean(image, side), slow, rtol=3e-6)


def test_a_square_about_a_pixel_has_an_odd_side() -> None:
    with pytest.raises(ValueError, match="odd side, got 4"):
        box_mean(np.zeros((8, 8), np.float32), 4)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("reach_px", [0, 1, 2, 3, 5, 9])
def test_a_box_maximum_agrees_with_its_slow_twin(shape: tuple[int, int], reach_px: int) -> None:
    image = np.random.default_rng(reach_px).normal(size=shape).astype(np.float32)
    before = image.copy()
    slow = ndimage.maximum_filter(image, 2 * reach_px + 1, mode="nearest")
    assert np.array_equal(box_maximum(image, reach_px), slow)
    assert np.array_equal(image, before)


@pytest.mark.parametrize("shape", [(9, 9), (30, 17), (40, 61)])
@pytest.mark.parametrize("same", [True, False])
def test_covariances_of_lags_agree_with_their_slow_twin(shape: tuple[int, int], same: bool) -> None:
    rng = np.random.default_rng(11)
    usable = rng.random(shape) < 0.8
    one, other = (np.where(usable, rng.normal(size=shape), 0).astype(np.float32) for _ in range(2))
    other = one if same else other
    found, counts = _covariance(one, other, usable)
    for dy in range(MAX_LAG_PX + 1):
        for dx in range(-MAX_LAG_PX, MAX_LAG_PX + 1):
            pairs = [
                (float(one[y, x]) * float(other[y + sy, x + sx]))
                for sy, sx in ((dy, dx), (-dy, -dx))
                for y, x in np.argwhere(usable)
                if 0 <= y + sy < shape[0] and 0 <= x + sx < shape[1] and usable[y + sy, x + sx]
            ]
            place = (MAX_LAG_PX + dy, MAX_LAG_PX + dx)
            assert counts[place] == len(pairs) / 2
            assert found[place] == pytest.approx(np.mean(pairs), rel=1e-4, abs=1e-6)
            assert found[MAX_LAG_PX - dy, MAX_LAG_PX - dx] == found[place]


@pytest.mark.parametrize("pixels", [1, 6, 20])
def test_growths_reach_over_the_seams_of_bands(pixels: int) -> None:
    mask = np.zeros((300, 9), bool)
    mask[[63, 64, 127, 240], [0, 8, 4, 4]] = True
    square = ndimage.maximum_filter(mask, 2 * pixels + 1, mode="constant")
    assert np.array_equal(grow(mask, pixels), square)
    assert np.array_equal(grow_diamond(mask, pixels), ndimage.binary_dilation(mask, iterations=pixels))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("pixels", [0, 1, 4, 7])
def test_growths_agree_with_their_slow_twins(shape: tuple[int, int], pixels: int) -> None:
    mask = np.random.default_rng(pixels).random(shape) < 0.02
    before = mask.copy()
    square = ndimage.maximum_filter(mask, 2 * pixels + 1, mode="constant")
    diamond = mask if pixels == 0 else ndimage.binary_dilation(mask, iterations=pixels)
    assert np.array_equal(grow(mask, pixels), square)
    assert np.array_equal(grow_diamond(mask, pixels), diamond)
    assert np.array_equal(mask, before)


@pytest.mark.parametrize("shape", SHAPES)
def test_what_squares_fit_into_agrees_with_its_slow_twin(shape: tuple[int, int]) -> None:
    mask = np.random.default_rng(3).random(shape) < 0.8
    assert np.array_equal(_opened(mask), ndimage.binary_opening(mask, np.ones((3, 3), bool)))


@pytest.mark.parametrize("shape", SHAPES)
def test_the_rim_of_a_footprint_agrees_with_its_slow_twin(shape: tuple[int, int]) -> None:
    footprint = np.random.default_rng(4).random(shape) < 0.99
    inner = ndimage.minimum_filter(footprint.view(np.uint8), 7, mode="constant", cval=0) > 0
    assert np.array_equal(_rim(footprint, 3), footprint & ~inner)
