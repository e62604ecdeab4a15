"""What stands about bad pixels, against twins that look at every pixel."""

import numpy as np
import pytest
from scipy import ndimage

from astrid_workers.imaging import bad_surroundings
from astrid_workers.imaging.bad_surroundings import filled, means_about

SHAPES = [(1, 1), (5, 40), (37, 50), (80, 81)]


def _scene(shape: tuple[int, int], seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Noise with single bad pixels, columns, blocks within and at the edges, one beside another."""
    rng = np.random.default_rng(seed)
    bad = rng.random(shape) < 0.02
    for _ in range(4):
        top, left = (int(rng.integers(-8, side)) for side in shape)
        height, width = rng.integers(1, 25, 2)
        bad[max(top, 0) : max(top + height, 0), max(left, 0) : max(left + width, 0)] = True
    bad[:, int(rng.integers(0, shape[1]))] = True
    return rng.normal(100, 10, shape).astype(np.float32), bad


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("seed", range(4))
def test_means_are_those_of_good_neighbours(
    shape: tuple[int, int], seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    image, bad = _scene(shape, seed)
    monkeypatch.setattr(bad_surroundings, "_BATCH", 17)
    total, count = (
        ndimage.uniform_filter(plane, 5, mode="nearest") * 25
        for plane in (np.where(bad, 0.0, image), (~bad).astype(float))
    )
    slow = np.where(count > 0.5, total / np.maximum(count, 1), np.nan)[bad]
    np.testing.assert_allclose(means_about(image, bad), slow, rtol=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("seed", range(12))
def test_what_has_no_good_neighbour_takes_the_nearest_good_value(shape: tuple[int, int], seed: int) -> None:
    image, bad = _scene(shape, seed)
    if bad.all():
        assert not filled(image, bad).any()
        return
    whole = filled(image, bad)
    assert np.array_equal(whole[~bad], image[~bad])
    good = np.argwhere(~bad)
    for (row, column), mean in zip(np.argwhere(bad), means_about(image, bad), strict=True):
        if np.isfinite(mean):
            assert whole[row, column] == mean
            continue
        squares = np.sum((good - (row, column)) ** 2, axis=1)
        nearest = good[squares == squares.min()]
        assert whole[row, column] in image[nearest[:, 0], nearest[:, 1]]


def test_without_bad_pixels_the_image_is_itself() -> None:
    image = np.ones((4, 5), np.float32)
    assert filled(image, np.zeros((4, 5), bool)) is image
