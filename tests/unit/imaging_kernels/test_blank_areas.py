"""Areas that were never exposed: borders, corners and gaps against sky, and against a slow twin."""

import numpy as np
import pytest
from numpy.typing import NDArray

from astrid_workers.imaging import blank_areas
from astrid_workers.imaging.blank_areas import SQUARE_PX, find_blank_areas

SHAPE = (200, 260)


def sky(sigma: float = 10.0) -> NDArray[np.float32]:
    """Blank sky with a star that clips."""
    image = np.random.default_rng(4).normal(200.0, sigma, SHAPE).astype(np.float32)
    image[90:102, 90:102] = 60_000
    return image


def _border() -> NDArray[np.bool_]:
    rows, columns = np.indices(SHAPE)
    return (rows < 20) | (columns > 240)


def _corner() -> NDArray[np.bool_]:
    rows, columns = np.indices(SHAPE)
    return columns + 0.3 * rows < 60


@pytest.mark.parametrize("value", [0.0, -99.0, 200.0])
@pytest.mark.parametrize("area", [_border(), _corner()], ids=["border", "corner of a turned frame"])
def test_an_area_of_one_value(area: NDArray[np.bool_], value: float) -> None:
    """Found to the last pixels, whatever its value; the light that clips is not."""
    image = sky()
    image[area] = value
    found = find_blank_areas(image)
    assert not found[~area].any()
    assert np.count_nonzero(area & ~found) <= 0.001 * np.count_nonzero(area)


@pytest.mark.parametrize(
    "image",
    [
        pytest.param(sky(), id="sky and a star that clips"),
        pytest.param(np.round(sky(0.5)), id="noise of half a unit, rounded"),
        pytest.param(np.round(sky(0.15)), id="noise far below the unit"),
        pytest.param(np.full(SHAPE, 7, np.float32), id="one value everywhere"),
        pytest.param(np.full(SHAPE, np.nan, np.float32), id="nothing measured"),
        pytest.param(np.zeros((4, 4), np.float32), id="smaller than a square"),
    ],
)
def test_sky_is_not_blank(image: NDArray[np.float32]) -> None:
    """What may be sky is left to others to judge."""
    assert not find_blank_areas(image.astype(np.float32)).any()


def test_squares_against_a_slow_twin() -> None:
    """Every square of one value, and no pixel more."""
    image = np.random.default_rng(5).integers(0, 2, (90, 80)).astype(np.float32)
    image[10:30, 20:28], image[40:48, 60:80], image[70:77, 10:40] = 1, 0, 0
    side = SQUARE_PX
    twin = np.zeros(image.shape, bool)
    for row in range(image.shape[0] - side + 1):
        for column in range(image.shape[1] - side + 1):
            square = image[row : row + side, column : column + side]
            if (square == square[0, 0]).all():
                twin[row : row + side, column : column + side] = True
    assert twin.any()
    np.testing.assert_array_equal(blank_areas._squares(image), twin)
