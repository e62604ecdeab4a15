"""Resampling keeps flux, places, noise and what is known of the pixels."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from astrid_workers.frame import Frame
from astrid_workers.imaging.lanczos import TAPS, interpolated, lanczos_weights, shifted, sum_of_squares
from astrid_workers.imaging.noise import correlation_factor
from astrid_workers.imaging.resample import resample_frame
from astrid_workers.mask import MaskBit
from astrid_workers.sky import make_sky
from astrid_workers.sky.grid import Grid

SIZE = 160


def grid(**turn: object) -> Grid:
    base = {"offset_px": (0.0, 0.0), "rotation_deg": 0.0, "scale": 1.0, "out_shape": None}
    return Grid.about((SIZE, SIZE), **{**base, **turn})


TURNS = {
    "whole shift": {"offset_px": (5.0, -3.0)},
    "half shift": {"offset_px": (2.5, -1.5)},
    "odd shift": {"offset_px": (-7.37, 4.61)},
    "rotation": {"rotation_deg": 3.0},
    "large rotation": {"rotation_deg": 75.0},
    "finer": {"scale": 1.3},
    "coarser": {"scale": 0.7},
    "twice as fine": {"scale": 2.0, "out_shape": (2 * SIZE, 2 * SIZE)},
    "three times as fine": {"scale": 3.1, "out_shape": (500, 500)},
}


def noiseless(turn: dict) -> tuple[Frame, object, Grid]:
    """A reference on its own grid without noise, with the grid."""
    sky = make_sky(
        seed=1, shape=(SIZE, SIZE), n_stars=25, n_transients=0, sky_e=0.0, read_noise_e=0.0, with_wcs=False,
        fwhm_reference_px=3.0 * turn.get("scale", 1.0), offset_px=turn.get("offset_px", (0.0, 0.0)),
        rotation_deg=turn.get("rotation_deg", 0.0), scale=turn.get("scale", 1.0), reference_shape=turn.get("out_shape"),
        star_flux_e=(1e5, 1e6), saturation_e=1e9,
    )  # fmt: skip
    return sky.reference, sky, sky.grid


@pytest.mark.parametrize("what", TURNS)
def test_flux_and_places_are_kept(what: str) -> None:
    """Stars land where the science frame has them, with their flux, whatever the map."""
    reference, sky, lies = noiseless(TURNS[what])
    moved = resample_frame(reference, lies.to_reference, (SIZE, SIZE)).frame
    good = (sky.star_x > 25) & (sky.star_x < SIZE - 26) & (sky.star_y > 25) & (sky.star_y < SIZE - 26)
    rx, ry = lies.to_reference(sky.star_x, sky.star_y)
    ny, nx = reference.shape
    margin = 25 * TURNS[what].get("scale", 1.0)
    good &= (rx > margin) & (rx < nx - margin) & (ry > margin) & (ry < ny - margin)
    assert good.sum() >= 3
    scale = TURNS[what].get("scale", 1.0)
    for x, y, u, v in zip(sky.star_x[good], sky.star_y[good], rx[good], ry[good], strict=True):
        ours = weighted(moved.science, x, y, 2.0)
        theirs = weighted(reference.science, u, v, 2.0 * scale)
        # binning integrates over its pixels, which broadens by half a per cent of the width
        assert ours[0] == pytest.approx(theirs[0], rel=0.01 if scale < 2 else 0.02)
        expected = np.array([theirs[1] - u, theirs[2] - v])
        back = np.linalg.inv(lies.matrix) @ expected
        assert ours[1] - x == pytest.approx(back[0], abs=0.02)
        assert ours[2] - y == pytest.approx(back[1], abs=0.02)


def weighted(image: np.ndarray, x: float, y: float, sigma: float) -> tuple[float, float, float]:
    """Flux in a Gaussian aperture and the centroid of the light in it."""
    yy, xx = np.mgrid[: image.shape[0], : image.shape[1]]
    weight = np.exp(-0.5 * ((xx - x) ** 2 + (yy - y) ** 2) / sigma**2)
    light = image * weight
    total = light.sum()
    return float(total), float((light * xx).sum() / total), float((light * yy).sum() / total)


@pytest.mark.parametrize("sign", [1, -1])
def test_the_shift_has_the_right_sign_and_size(sign: int) -> None:
    """A source at x + dx of the old grid comes to x of the new one: once, and not twice."""
    image = np.zeros((60, 60), np.float32)
    image[30, 30 + 4 * sign] = 100
    frame = Frame(image, np.ones_like(image), np.zeros(image.shape, np.uint32), None, "adu")
    moved = resample_frame(frame, lambda x, y: (x + 4.0 * sign, y), (60, 60)).frame
    assert np.unravel_index(np.argmax(moved.science), image.shape) == (30, 30)
    assert moved.science[30, 30] == pytest.approx(100)


def test_the_identity_changes_nothing() -> None:
    """A whole-pixel map copies pixels exactly."""
    frame = make_sky(seed=2, shape=(64, 64), n_stars=10).science
    same = resample_frame(frame, lambda x, y: (x, y), (64, 64))
    np.testing.assert_array_equal(same.frame.science, frame.science)
    np.testing.assert_allclose(same.frame.variance, frame.variance, rtol=1e-6)
    assert same.area_noise_factor == pytest.approx(1.0)
    assert same.footprint.all()


@pytest.mark.parametrize(
    "turn", [{"offset_px": (0.5, 0.5)}, {"offset_px": (3.3, 0.8)}, {"rotation_deg": 2.0}, {"scale": 0.7}]
)
def test_variance_is_that_of_the_pixels(turn: dict) -> None:
    """The scatter of resampled noise is the variance's; the noise of areas is larger by the factor that is told."""
    pulls, told, measured = zip(*(_resampled_noise(seed, turn) for seed in range(4)), strict=True)
    assert np.mean(pulls) == pytest.approx(1.0, abs=0.01)
    assert np.mean(measured) == pytest.approx(np.mean(told), rel=0.06)


def _resampled_noise(seed: int, turn: dict) -> tuple[float, float, float]:
    """Scatter of pulls, the factor that is told, and the one measured relative to the noise it was made of."""
    image = np.random.default_rng(seed).normal(0, 4, (400, 400)).astype(np.float32)
    frame = Frame(image, np.full_like(image, 16), np.zeros(image.shape, np.uint32), None, "electron")
    lies = Grid.about(
        (400, 400), **{"offset_px": (0.0, 0.0), "rotation_deg": 0.0, "scale": 1.0, "out_shape": None, **turn}
    )
    moved = resample_frame(frame, lies.to_reference, (400, 400))
    inside = (moved.frame.mask == 0) & moved.footprint
    pulls = moved.frame.science[inside] / np.sqrt(moved.frame.variance[inside])
    before = correlation_factor(image, np.ones(image.shape, bool), 8)
    after = correlation_factor(moved.frame.science, inside, 8)
    return float(pulls.std()), moved.area_noise_factor, after / before


def test_the_footprint_and_the_edge_are_told() -> None:
    """Outside the old frame: NO_DATA, 0, infinite variance; at its rim: EDGE; inside: clean."""
    frame = make_sky(seed=4, shape=(80, 80), n_stars=5).science
    moved = resample_frame(frame, lambda x, y: (x + 20.3, y - 10.2), (80, 80))
    inside = np.zeros((80, 80), bool)
    inside[10:, :60] = True
    assert np.count_nonzero(moved.footprint != inside) < 150
    lost = ~moved.footprint
    assert (moved.frame.mask[lost] == MaskBit.NO_DATA).all()
    assert (moved.frame.science[lost] == 0).all()
    assert np.isposinf(moved.frame.variance[lost]).all()
    assert (moved.frame.mask[40, 57:60] & MaskBit.EDGE).all()
    assert moved.frame.mask[40, 30] == 0


@pytest.mark.parametrize("turn", [{"offset_px": (1.4, -2.3)}, {"rotation_deg": 1.0}])
def test_masks_travel_and_bad_pixels_do_not_ring(turn: dict) -> None:
    """Every bit comes along, grown by a pixel, and a wild bad value leaves no trace outside its mask."""
    frame = make_sky(seed=5, shape=(SIZE, SIZE), n_stars=0, n_transients=0).science
    wild, mask = frame.science.copy(), frame.mask.copy()
    for (y, x), bit in {
        (40, 40): MaskBit.BAD_PIXEL,
        (80, 90): MaskBit.COSMIC_RAY,
        (120, 60): MaskBit.NO_DATA,
    }.items():
        wild[y : y + 2, x : x + 2] = 1e7
        mask[y : y + 2, x : x + 2] |= np.uint32(bit)
    spoilt = replace(frame, science=wild, mask=mask)
    lies = grid(**turn)
    moved = resample_frame(spoilt, lies.to_reference, (SIZE, SIZE)).frame
    for bit in (MaskBit.BAD_PIXEL, MaskBit.COSMIC_RAY):
        assert 9 <= np.count_nonzero(moved.mask & bit) <= 25
    good = moved.mask == 0
    assert np.abs(moved.science[good] - 400).max() < 6.5 * 21


def test_a_shift_agrees_with_the_general_map() -> None:
    """Two arrangements of one kernel: separable passes and 36 taps."""
    rng = np.random.default_rng(6)
    image = rng.normal(0, 1, (50, 60)).astype(np.float32)
    x, y = np.arange(60) + 3.37 - 6, np.arange(50) - 1.81
    inner = np.s_[8:-8, 8:-8]
    grid_x, grid_y = np.meshgrid(x, y)
    general, squares = interpolated(image, np.clip(grid_x, 0, 59), np.clip(grid_y, 0, 49))
    np.testing.assert_allclose(shifted(image, x, y)[inner], general[inner], atol=3e-3)
    assert squares[inner] == pytest.approx(sum_of_squares(3.37) * sum_of_squares(-1.81), rel=1e-3)


def test_interpolation_agrees_with_its_slow_twin() -> None:
    """Against the definition, pixel by pixel: Σ w(x) w(y) I."""
    rng = np.random.default_rng(7)
    image = rng.normal(0, 1, (30, 30)).astype(np.float32)
    scattered = rng.uniform(5, 24, (2, 1, 40))
    shifted_by_parts = np.stack(np.meshgrid(np.arange(8, 14) + 0.3, np.arange(7, 12) - 0.6))
    for places in (scattered, shifted_by_parts):
        fast, _ = interpolated(image, places[0], places[1])
        _agrees_with_the_definition(image, places, fast)


@pytest.mark.parametrize(
    ("scale", "turn"),
    [(0.9995, 0.003), (1.0005, -0.003), (1.0, 0.0001), (0.99, 0.02), (1.3, 0.5), (0.7, -0.4)],
)
def test_a_turned_grid_is_interpolated_alike_in_parts_and_gathered(scale: float, turn: float) -> None:
    """Blocks that lie on the image's grid are parts of it, also those through which one pixel's edge runs;
    others are gathered; every place is the same as alone.
    """
    rng = np.random.default_rng(8)
    image = rng.normal(0, 1, (700, 800)).astype(np.float32)
    columns, rows = np.meshgrid(np.arange(0, 500.0), np.arange(0, 14.0))
    x, y = columns * scale - turn * rows + 20, rows * scale + turn * columns + 250
    whole, squares = interpolated(image, x, y)
    for row, column in zip(rng.integers(0, 14, 60), rng.integers(0, 500, 60), strict=True):
        place = (slice(row, row + 1), slice(column, column + 1))
        one, square = interpolated(image, x[place], y[place])
        assert whole[row, column] == one[0, 0]
        assert squares[row, column] == square[0, 0]


def _agrees_with_the_definition(
    image: NDArray[np.float32], places: NDArray[np.float64], fast: NDArray[np.float32]
) -> None:
    """Σ w(x) w(y) I at each place."""
    for value, x, y in zip(fast.ravel(), places[0].ravel(), places[1].ravel(), strict=True):
        left, bottom = int(np.floor(x)), int(np.floor(y))
        wx, wy = (lanczos_weights(np.array([p - np.floor(p)]))[0] for p in (x, y))
        patch = image[bottom - 2 : bottom - 2 + TAPS, left - 2 : left - 2 + TAPS]
        assert value == pytest.approx(wy @ patch @ wx, abs=5e-3)


def test_surface_brightness_keeps_its_value() -> None:
    """MJy/sr does not change with the size of a pixel; counts do."""
    flat = np.full((100, 100), 5.0, np.float32)
    for unit, expected in (("MJy/sr", 5.0), ("electron", 5.0 * 4)):
        frame = Frame(flat, np.ones_like(flat), np.zeros(flat.shape, np.uint32), None, unit)
        moved = resample_frame(frame, lambda x, y: (2 * x + 0.5, 2 * y + 0.5), (50, 50)).frame
        assert moved.science[25, 25] == pytest.approx(expected, rel=1e-4)


def test_weights_sum_to_one_and_pick_whole_pixels() -> None:
    """A flat image stays flat; a whole shift picks one pixel."""
    fractions = np.linspace(0, 1, 33)
    weights = lanczos_weights(fractions)
    np.testing.assert_allclose(weights.sum(axis=1), 1.0)
    np.testing.assert_allclose(weights[0], [0, 0, 1, 0, 0, 0], atol=1e-12)
    np.testing.assert_allclose(weights[-1], [0, 0, 0, 1, 0, 0], atol=1e-12)


def test_a_map_without_places_gives_no_data() -> None:
    """Where the projection has no place (NaN), nothing was measured."""
    frame = make_sky(seed=8, shape=(40, 40), n_stars=0).science
    moved = resample_frame(frame, lambda x, y: (np.where(x < 20, x, np.nan), y), (40, 40))
    assert not moved.footprint[:, 32:].any()
    assert not np.isnan(moved.frame.science).any()
