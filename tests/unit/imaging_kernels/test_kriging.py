"""Smooth fields from scattered measurements: against drawn fields, a slow twin, and noise alone."""

from dataclasses import replace

import numpy as np
import pytest

from astrid_workers.imaging import kriging
from astrid_workers.imaging.kriging import Field, measure_field
from astrid_workers.imaging.residual_map import excess_scatter, likeliest_scatter, measure_residual_map

SHAPE = (1000, 1200)


def wave(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """A field of 0.06 px rms whose waves are a third of the frame long."""
    return 0.06 * (np.sin(0.015 * x + 0.5) + np.sin(0.012 * y - 0.007 * x))


def drawn(n: int, error: float, seed: int = 1) -> tuple[np.ndarray, ...]:
    """Places, values and errors of `n` measurements of the wave."""
    rng = np.random.default_rng(seed)
    x, y = rng.uniform(0, SHAPE[1], n), rng.uniform(0, SHAPE[0], n)
    errors = error * rng.uniform(0.5, 1.5, n)
    return x, y, wave(x, y) + rng.normal(0, errors), errors


def measured(n: int, error: float, seed: int = 1) -> Field:
    x, y, values, errors = drawn(n, error, seed)
    return measure_field(x, y, values, errors, excess_scatter(values, errors), SHAPE)


def test_a_field_is_foretold_between_its_measurements() -> None:
    """Measurements of a third of the field's size: an eighth of it is left, and the errors tell so."""
    field = measured(300, 0.02)
    rng = np.random.default_rng(9)
    x, y = rng.uniform(50, SHAPE[1] - 50, 2000), rng.uniform(50, SHAPE[0] - 50, 2000)
    left = float(np.sqrt(np.mean((field.at(x, y) - wave(x, y)) ** 2)))
    assert left < 0.011
    assert left == pytest.approx(float(np.sqrt(np.mean(field.error**2))), rel=0.4)


def test_what_the_others_foretell_is_a_fit_without_the_measurement() -> None:
    """Leaving each out in closed form is leaving it out."""
    field = measured(60, 0.02)
    x, y, values, errors = drawn(60, 0.02)
    scatter = excess_scatter(values, errors)
    spacing = float(np.sqrt(SHAPE[0] * SHAPE[1] / 60))
    _, _, own = kriging._likeliest(x, y, values, errors, spacing, scatter)
    for one in (0, 17, 59):
        rest = np.arange(60) != one

        def covariance(of_x: np.ndarray, of_y: np.ndarray, rest: np.ndarray = rest) -> np.ndarray:
            square = (of_x[:, None] - x[rest]) ** 2 + (of_y[:, None] - y[rest]) ** 2
            return field.amplitude**2 * np.exp(-0.5 * square / field.scale_px**2)

        full = covariance(x[rest], y[rest]) + np.diag(errors[rest] ** 2 + own**2)
        to_one = covariance(x[[one]], y[[one]])
        assert field.left_out[one] == pytest.approx(float((to_one @ np.linalg.solve(full, values[rest]))[0]))
        variance = field.amplitude**2 - float((to_one @ np.linalg.solve(full, to_one.T))[0, 0])
        assert field.error[one] ** 2 == pytest.approx(variance, rel=1e-3)


@pytest.mark.parametrize("n", [200, 900], ids=["together", "in cells"])
def test_a_grid_is_what_its_places_are(n: int) -> None:
    """A product of two exponentials, across cells too, and beyond the frame's edge."""
    field = measured(n, 0.02)
    x, y = np.arange(-20.0, SHAPE[1] + 40, 37), np.arange(0.0, SHAPE[0] + 30, 29)
    columns, rows = np.meshgrid(x, y)
    found = field.at(columns.ravel(), rows.ravel()).reshape(columns.shape)
    np.testing.assert_allclose(field.on_grid(x, y), found, atol=1e-10)


def test_many_measurements_in_cells_foretell_as_all_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond half a cell others hardly say more."""
    rng = np.random.default_rng(4)
    x, y = rng.uniform(0, SHAPE[1], 500), rng.uniform(0, SHAPE[0], 500)
    apart = measured(1200, 0.02)
    monkeypatch.setattr(kriging, "MOST_TOGETHER", 10_000)
    together = measured(1200, 0.02)
    assert apart.counts != (1, 1)
    assert together.counts == (1, 1)
    assert np.std(apart.at(x, y) - together.at(x, y)) < 0.3 * np.std(together.at(x, y) - wave(x, y))


def test_an_outlier_bends_nothing() -> None:
    """A transient on one of the galaxies moves it by twenty sigma: of its 0.4 px the map takes 5 %."""
    x, y, values, errors = drawn(300, 0.02)
    plain = measure_field(x, y, values, errors, excess_scatter(values, errors), SHAPE)
    wrong = values.copy()
    wrong[40] += 0.4
    field = measure_field(x, y, wrong, errors, excess_scatter(wrong, errors), SHAPE)
    assert abs(field.at(x[40:41], y[40:41]) - plain.at(x[40:41], y[40:41]))[0] < 0.02


def test_noise_alone_is_no_map() -> None:
    """Sources that do not foretell one another leave the map zero, or next to it in a few of sixty draws."""
    kept = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        x, y = rng.uniform(0, SHAPE[1], 150), rng.uniform(0, SHAPE[0], 150)
        steps = rng.normal(0, 0.03, (150, 3))
        found = measure_residual_map(x, y, steps, np.full((150, 3), 0.02), SHAPE)
        kept += sum(field.amplitude > 0 for field in found.fields)
        assert np.std(found.at(x, y)) < 0.01
    assert kept <= 15


def test_a_field_without_amplitude_is_zero() -> None:
    flat = replace(measured(40, 0.02), amplitude=0.0)
    assert not flat.at(np.array([3.0]), np.array([4.0])).any()
    assert not flat.on_grid(np.arange(3.0), np.arange(4.0)).any()


def test_likeliest_scatter_is_surer_than_a_median() -> None:
    """Of 18 values, over 300 draws; a tenth of values off by a lot changes it little."""
    rng = np.random.default_rng(3)
    values, errors = rng.normal(0, 0.05, (300, 18)), np.full(18, 0.03)
    values = values + rng.normal(0, errors, values.shape)
    likeliest = np.array([likeliest_scatter(v, errors) for v in values])
    medians = np.array([excess_scatter(v, errors) for v in values])
    assert np.median(likeliest) == pytest.approx(0.05, rel=0.1)
    assert likeliest.std() < 0.75 * medians.std()
    values[:, ::9] += 0.6
    assert np.median([likeliest_scatter(v, errors) for v in values]) < 0.08
    assert likeliest_scatter(np.zeros(5), np.ones(5)) == 0.0
