"""Robust centres and scatters: right for Gaussians, blind to outliers, rounding, gradients and masks."""

import numpy as np
import pytest

from astrid_workers.imaging.noise import (
    clipped_scatter,
    correlation_factor,
    photon_transfer,
    pixel_noise,
    robust_median_and_scatter,
)

RNG = np.random.default_rng(1)


@pytest.mark.parametrize("size", [1000, 100_000, 3_000_000])
def test_scatter_of_a_gaussian(size: int) -> None:
    """Median and scatter of normal numbers, small arrays and subsampled ones."""
    values = RNG.normal(5, 2, size).astype(np.float32)
    median, scatter = robust_median_and_scatter(values)
    assert median == pytest.approx(5, abs=0.2)
    assert scatter == pytest.approx(2, rel=0.08)
    assert clipped_scatter(values) == pytest.approx(2, rel=0.05)


def test_outliers_and_nan_do_not_count() -> None:
    """A tenth of wild values moves neither."""
    values = RNG.normal(0, 1, 10_000)
    values[:1000], values[1000:1100] = 1e9, np.nan
    median, scatter = robust_median_and_scatter(values)
    assert abs(median) < 0.2
    assert scatter == pytest.approx(1.15, abs=0.12)
    assert all(np.isnan(v) for v in robust_median_and_scatter(np.array([np.nan])))
    assert np.isnan(clipped_scatter(np.empty(0)))


@pytest.mark.parametrize("sigma", [1.3, 2.2, 7.4])
def test_rounding_to_integers_does_not_quantise_the_scatter(sigma: float) -> None:
    """A median of integers jumps by 1.48; the clipped scatter knows rounding's own 1/12 only."""
    values = RNG.normal(100, sigma, 100_000).round()
    assert clipped_scatter(values) == pytest.approx(np.sqrt(sigma**2 + 1 / 12), rel=0.02)


def test_pixel_noise_is_blind_to_gradients_and_masks() -> None:
    """Differences of neighbours see the noise alone."""
    image = RNG.normal(0, 3, (300, 300)) + np.arange(300) * 5.0
    usable = np.ones(image.shape, bool)
    image[100:150, 100:150], usable[100:150, 100:150] = 1e5, False
    assert pixel_noise(image, usable) == pytest.approx(3, rel=0.02)
    assert np.isnan(pixel_noise(image, np.zeros(image.shape, bool)))


def test_white_noise_has_no_correlation_and_smoothed_noise_has() -> None:
    """Sums over areas tell correlated noise: a 3 × 3 running mean multiplies it by nearly three."""
    image = RNG.normal(0, 1, (400, 400))
    usable = np.ones(image.shape, bool)
    assert correlation_factor(image, usable) == pytest.approx(1.0, abs=0.04)
    smooth = sum(np.roll(image, (i, j), (0, 1)) for i in (-1, 0, 1) for j in (-1, 0, 1)) / 9
    assert correlation_factor(smooth, usable, 16) == pytest.approx(3.0, rel=0.1)
    assert np.isnan(correlation_factor(image[:20, :20], usable[:20, :20]))


@pytest.mark.parametrize("read_noise", [None, 8.0])
def test_photon_transfer_recovers_the_gain(read_noise: float | None) -> None:
    """variance = signal / gain + (read noise / gain)²."""
    gain, level = 1.8, np.linspace(500, 600, 20)
    noise = np.sqrt(level / gain + ((read_noise or 0.0) / gain) ** 2)
    found = photon_transfer(level, noise, read_noise)
    assert found is not None
    assert found.gain_e_per_adu == pytest.approx(gain, rel=1e-3)


@pytest.mark.parametrize(
    ("level", "noise"),
    [(np.full(9, 5.0), np.full(9, 100.0)), (np.full(9, 1e5), np.full(9, 1.0)), (np.full(9, -3.0), np.full(9, 1.0)),
     (np.array([1e3, 1e3]), np.array([20.0, 20.0])), (np.full(8, 1e3), np.linspace(10, 90, 8))],
)  # fmt: skip
def test_an_implausible_gain_is_none(level: np.ndarray, noise: np.ndarray) -> None:
    """Too small, too large, no signal, too few cells, cells that disagree."""
    assert photon_transfer(level, noise, None) is None
