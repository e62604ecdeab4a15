"""Forced photometry: the fast kernels against plain ones, and against a sky with truth."""

from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from astrid_workers.differencing.forced_photometry import difference_fluxes, forced_photometry, magnitudes
from astrid_workers.differencing.pair import PairResult, run_pair
from astrid_workers.frame import Frame
from astrid_workers.imaging.noise_model import measure_noise, white_noise
from astrid_workers.imaging.point_sources import fit_fluxes, moved_stamp, render_points
from astrid_workers.imaging.psf import given_psf, moffat_stamp
from astrid_workers.sky import Sky, make_sky


@lru_cache(maxsize=1)
def _made() -> tuple[Sky, PairResult]:
    sky = make_sky(
        seed=41, shape=(400, 400), n_stars=70, n_transients=25, transient_snr=(8.0, 60.0), negative_fraction=0.3,
        transparency=0.7, nan_block_px=24,
    )  # fmt: skip
    facts = replace(sky.science.facts, zero_point_mag=28.0)
    return sky, run_pair(replace(sky.science, facts=facts), sky.reference)


def test_difference_fluxes_are_those_of_the_truth() -> None:
    """At the true places, of either sign: unbiased within 3 %, and scattered by the quoted errors."""
    sky, pair = _made()
    truth = sky.truth["flux_e"] * sky.truth["sign"]
    forced = forced_photometry(pair, sky.truth["x"], sky.truth["y"])
    seen = np.isfinite(forced.difference_flux)
    assert seen.sum() >= 23
    ratio = (forced.difference_flux / truth)[seen]
    assert np.median(ratio) == pytest.approx(1.0, abs=0.03)
    pulls = ((forced.difference_flux - truth) / forced.difference_flux_err)[seen]
    assert 0.6 < 1.4826 * np.median(np.abs(pulls)) < 1.6


def test_empty_places_have_no_flux() -> None:
    """Forced fluxes of blank sky scatter about 0 by their errors, on the difference and on the direct frame."""
    sky, pair = _made()
    rng = np.random.default_rng(1)
    x, y = rng.uniform(30, 370, (2, 800))
    bright = np.concatenate([sky.star_x, sky.truth["x"]]), np.concatenate([sky.star_y, sky.truth["y"]])
    alone = np.hypot(x[:, None] - bright[0], y[:, None] - bright[1]).min(axis=1) > 16
    forced = forced_photometry(pair, x[alone], y[alone])
    for flux, error in (
        (forced.difference_flux, forced.difference_flux_err),
        (forced.science_flux, forced.science_flux_err),
    ):
        pulls = (flux / error)[np.isfinite(flux)]
        assert abs(np.median(pulls)) < 0.3
        assert 0.85 < 1.4826 * np.median(np.abs(pulls - np.median(pulls))) < 1.2


def _smoothed(frame: Frame) -> Frame:
    """As a resampled coadd is: its neighbouring pixels share noise, and its variance plane is what they scatter."""
    axis = np.arange(-8, 9)
    kernel = gaussian_filter((axis[:, None] ** 2 + axis**2 == 0).astype(float), 0.8)
    variance = frame.variance * np.float32(np.sum(kernel**2))
    return replace(frame, science=gaussian_filter(frame.science, 0.8), variance=variance)


@pytest.mark.parametrize(
    ("settings", "is_smoothed"),
    [
        ({}, False),
        ({"offset_px": (0.5, 0.5)}, False),
        ({"scale": 0.6, "fwhm_reference_px": 2.2, "reference_shape": (300, 300)}, False),
        ({}, True),
    ],
    ids=["white", "reference moved by half a pixel", "reference of coarser pixels", "smoothed science frame"],
)
def test_direct_errors_are_those_of_the_noise_as_it_is(settings: dict[str, Any], is_smoothed: bool) -> None:
    """Fluxes of hundreds of blank places scatter by their errors on both frames, however pixels are correlated."""
    sky = make_sky(
        seed=43, shape=(460, 460), n_stars=80, n_transients=0, fwhm_science_px=3.4,
        **{"fwhm_reference_px": 2.8, "reference_depth": 4.0, **settings},
    )  # fmt: skip
    science = _smoothed(sky.science) if is_smoothed else sky.science
    x, y = np.random.default_rng(3).uniform(25, 435, (2, 1200))
    alone = np.hypot(x[:, None] - sky.star_x, y[:, None] - sky.star_y).min(axis=1) > 20
    assert alone.sum() > 500
    forced = forced_photometry(run_pair(science, sky.reference), x[alone], y[alone])
    for flux, error in (
        (forced.science_flux, forced.science_flux_err),
        (forced.reference_flux, forced.reference_flux_err),
    ):
        pulls = (flux / error)[np.isfinite(flux)]
        assert 0.9 < 1.4826 * np.median(np.abs(pulls - np.median(pulls))) < 1.15


def test_correlated_noise_adds_to_the_error_of_a_psf_fit() -> None:
    """White noise by nothing; smoothed noise by what fits to simulated frames of it scatter more."""
    psf = moffat_stamp(3.0, 21)
    assert white_noise().point_source_factor(psf) == pytest.approx(1.0)
    image = gaussian_filter(np.random.default_rng(5).normal(0, 1, (600, 600)), 1.0).astype(np.float32)
    variance = np.full(image.shape, image.var(), np.float32)
    everywhere = np.ones(image.shape, bool)
    x, y = (axis.ravel().astype(float) for axis in np.mgrid[20:580:16, 20:580:16])
    found = fit_fluxes(image, variance, everywhere, given_psf(psf, (600, 600)), x, y)
    factor = measure_noise(image, variance, everywhere).point_source_factor(psf)
    assert factor == pytest.approx(np.std(found.flux / found.flux_err), rel=0.06)
    assert factor > 2


def test_direct_fluxes_are_those_of_isolated_stars() -> None:
    """Both direct fluxes of a constant star are its flux on the science frame's scale, within 3 %."""
    sky, pair = _made()
    places = np.stack([sky.star_x, sky.star_y])
    apart = np.hypot(*(places[:, :, None] - places[:, None, :])) + 1e3 * np.eye(places.shape[1])
    inside = ((places > 25) & (places < 375)).all(axis=0)
    good = (apart.min(axis=1) > 20) & inside & (sky.star_flux_e > 1e4)
    forced = forced_photometry(pair, sky.star_x[good], sky.star_y[good])
    for flux in (forced.science_flux, forced.reference_flux):
        # `transparency` dims the science frame: stars are drawn in its electrons
        ratio = (flux / sky.star_flux_e[good])[np.isfinite(flux)]
        assert len(ratio) >= 5
        assert np.median(ratio) == pytest.approx(1.0, abs=0.03)


def test_unmeasured_places_are_nan() -> None:
    """Off the frame, on masked pixels and where no place was given, nothing is made up."""
    _sky, pair = _made()
    rows, columns = np.nonzero(~np.isfinite(pair.difference.score))
    masked = float(np.median(columns)), float(np.median(rows))
    assert np.isnan(pair.difference.score[round(masked[1]), round(masked[0])])
    forced = forced_photometry(
        pair, np.array([-40.0, np.nan, masked[0]]), np.array([10.0, np.nan, masked[1]])
    )
    for values in (forced.difference_flux, forced.science_flux, forced.difference_limit_mag):
        assert np.isnan(values).all()


def test_difference_fluxes_agree_with_the_slow_twin() -> None:
    """Interpolation in one expression equals a sum over pixels written out for each place."""
    _, pair = _made()
    rng = np.random.default_rng(2)
    x, y = rng.uniform(5, 394, (2, 40))
    fast, error = difference_fluxes(pair.difference, x, y)
    for i in range(x.size):
        if np.isfinite(error[i]):
            assert fast[i] == pytest.approx(_slow_flux(pair, x[i], y[i]), rel=1e-4, abs=1e-3)


def _slow_flux(pair: PairResult, x: float, y: float) -> float:
    made = pair.difference
    here = float(made.flux_error[round(y), round(x)])
    total, weights = 0.0, 0.0
    for row in range(int(np.floor(y)) - 2, int(np.floor(y)) + 4):
        for column in range(int(np.floor(x)) - 2, int(np.floor(x)) + 4):
            weight = 1.0
            for distance in (y - row, x - column):
                weight *= np.sinc(distance) * np.sinc(distance / 3)
            error = float(made.flux_error[row, column])
            total += (
                weight * float(made.unmasked_score[row, column]) * (error if np.isfinite(error) else here)
            )
            weights += weight
    return total / weights


def test_point_fluxes_agree_with_least_squares() -> None:
    """Σ P I / Σ P² and its error are those of a linear least-squares fit, masked pixels and edges included."""
    rng = np.random.default_rng(4)
    psf = given_psf(moffat_stamp(3.0, 21), (60, 70))
    variance = rng.uniform(4, 9, (60, 70)).astype(np.float32)
    image = rng.normal(0, 2, (60, 70)).astype(np.float32)
    image += render_points(
        (60, 70), psf, np.array([30.3, 1.2]), np.array([20.8, 58.0]), np.array([900.0, 500.0])
    )
    good = rng.uniform(size=(60, 70)) > 0.1
    for x, y in ((30.3, 20.8), (1.2, 58.0)):
        fast = fit_fluxes(image, variance, good, psf, np.array([x]), np.array([y]))
        model = render_points((60, 70), psf, np.array([x]), np.array([y]), np.array([1.0])).astype(float)
        design, data = model[good][:, None], image[good].astype(float)
        slow = np.linalg.lstsq(design, data, rcond=None)[0][0]
        assert fast.flux[0] == pytest.approx(slow, rel=1e-4)
        expected = np.sqrt(np.sum(model[good] ** 2 * variance[good])) / np.sum(model[good] ** 2)
        assert fast.flux_err[0] == pytest.approx(expected, rel=1e-4)


def test_too_little_of_a_source_gives_no_flux() -> None:
    """A source whose core is masked or off the frame has no flux; the share that was seen is told."""
    psf = given_psf(moffat_stamp(3.0, 21), (50, 50))
    good = np.ones((50, 50), bool)
    good[18:23, 18:23] = False
    flat = np.ones((50, 50), np.float32)
    found = fit_fluxes(flat, flat, good, psf, np.array([20.0, -30.0, 35.0]), np.array([20.0, 20.0, 35.0]))
    assert np.isnan(found.flux[:2]).all()
    assert found.light_seen[0] < 0.5
    assert found.light_seen[1] == 0.0
    assert found.light_seen[2] == pytest.approx(1.0)


def test_moved_stamps_keep_flux_and_move_towards_larger_x_and_y() -> None:
    """A stamp moved by a fraction of a pixel keeps its sum; its centroid moves by as much."""
    stamp = moffat_stamp(3.0, 41, beta=5.0)
    moved = moved_stamp(stamp, 0.3, -0.2)
    axis = np.arange(41) - 20
    assert moved.sum() == pytest.approx(1.0)
    assert (moved * axis[None, :]).sum() == pytest.approx(0.3, abs=0.01)
    assert (moved * axis[:, None]).sum() == pytest.approx(-0.2, abs=0.01)


def test_magnitudes_need_a_zero_point_and_significance() -> None:
    """Below 3 sigma only the 5-sigma limit is given; without a zero point nothing is."""
    mag, mag_err, limit = magnitudes(np.array([1000.0, 20.0]), np.array([10.0, 10.0]), 25.0)
    assert mag[0] == pytest.approx(17.5)
    assert np.isnan(mag[1])
    assert mag_err[0] == pytest.approx(0.010857, rel=1e-3)
    np.testing.assert_allclose(limit, 25 - 2.5 * np.log10(50))
    assert np.isnan(magnitudes(np.array([1000.0]), np.array([10.0]), None)).all()
    each, _, _ = magnitudes(np.array([1000.0, 1000.0]), np.array([10.0, 10.0]), np.array([np.nan, 25.0]))
    np.testing.assert_allclose(each, [np.nan, 17.5])
