"""The picture of a detection."""

import io

import numpy as np
from PIL import Image

from astrid_workers.curation.triplets import (
    GAP_PX,
    NOT_MEASURED,
    ZOOM,
    difference_stretch,
    gray_png,
    sky_stretch,
    triplet_png,
)


def sky(seed=1, peak=0.0, at=(40, 30)):
    image = np.random.default_rng(seed).normal(100, 5, (80, 70)).astype(np.float32)
    image[at] += peak
    return image


def opened(png):
    return np.asarray(Image.open(io.BytesIO(png)))


def test_a_png_holds_the_pixels_it_was_given():
    """An independent reader gets the same array, first row on top."""
    image = np.arange(12, dtype=np.uint8).reshape(3, 4)

    assert np.array_equal(image, opened(gray_png(image)))


def test_the_detection_stands_in_the_middle_of_each_panel():
    """Three panels side by side; the brightest pixel of the science panel is its centre."""
    picture = opened(triplet_png(sky(peak=500), sky(2), sky(3, peak=500) - 100, 30.0, 40.0, 21))

    side = 21 * ZOOM
    assert (side, 3 * side + 2 * GAP_PX) == picture.shape
    panel = picture[:, :side]
    rows, columns = np.nonzero(panel == panel.max())
    assert (side // 2, side // 2) == (int(rows.mean()), int(columns.mean()))


def test_the_first_row_of_the_frame_is_at_the_bottom():
    """As every viewer of FITS shows it."""
    science = sky(peak=500, at=(45, 30))
    panel = opened(triplet_png(science, sky(2), sky(3), 30.0, 40.0, 21))[:, : 21 * ZOOM]

    rows, _ = np.nonzero(panel == panel.max())
    assert rows.mean() < 21 * ZOOM / 2


def test_the_same_pixels_give_the_same_bytes():
    """A picture made twice is stored once."""
    again = [triplet_png(sky(peak=500), sky(2), sky(3), 30.0, 40.0, 21) for _ in range(2)]

    assert again[0] == again[1]


def test_beyond_the_edge_is_shown_as_not_measured():
    """A detection in a corner has a picture, with the missing part in one gray."""
    picture = opened(triplet_png(sky(), sky(2), sky(3), 0.0, 0.0, 21))

    assert (picture[-1, :ZOOM] == NOT_MEASURED).all()


def test_all_stretches_survive_panels_without_a_value_or_a_scatter():
    """A masked hole or a constant does not divide by zero."""
    hole, flat = np.full((5, 5), np.nan, np.float32), np.ones((5, 5), np.float32)

    for stretch in (sky_stretch, difference_stretch):
        assert (stretch(hole) == NOT_MEASURED).all()
        assert stretch(flat).dtype == np.uint8


def test_zero_difference_is_the_middle_gray():
    """Brightening is brighter than the middle, fading darker."""
    panel = np.random.default_rng(0).normal(0, 1, (41, 41)).astype(np.float32)
    panel[20, 19:22] = (-50, 0, 50)

    assert difference_stretch(panel)[20, 19:22].tolist() == [0, 128, 255]
