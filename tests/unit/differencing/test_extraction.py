"""Peaks become candidates once each, with flags that say what speaks against them."""

from dataclasses import replace

import numpy as np
import pytest

from astrid_workers.candidate_flags import flags_from
from astrid_workers.differencing.extract_sources import extract_sources
from astrid_workers.differencing.forced_photometry import difference_fluxes
from astrid_workers.differencing.neighbours import PointLight, error_factors
from astrid_workers.differencing.products import Difference, TileKernels
from astrid_workers.differencing.shape import Shape, measure_shape
from astrid_workers.differencing.validate import sky_samples, tail_ratio, validate_difference
from astrid_workers.imaging.psf import given_psf, moffat_stamp
from astrid_workers.mask import MaskBit
from support.pairs import make_pair

SIDE = 121
FWHM = 3.0


def drawn(*sources: tuple[float, float, float], noise: float = 0.0, seed: int = 1) -> Difference:
    """A difference that holds point sources (x, y, score at the peak) on a sky of unit variance."""
    psf = moffat_stamp(FWHM, 33)
    profile = np.real(np.fft.ifft2(np.abs(np.fft.fft2(np.pad(psf, 16))) ** 2))
    profile = np.fft.fftshift(profile)[16:-16, 16:-16]
    norm = float(np.sqrt((psf.astype(float) ** 2).sum()))
    profile = (profile / profile.max()).astype(np.float32)
    image = np.random.default_rng(seed).normal(0, noise, (SIDE, SIDE)) if noise else np.zeros((SIDE, SIDE))
    score = np.zeros((SIDE, SIDE))
    for x, y, strength in sources:
        image += shifted(psf, x, y) * strength / norm
        score += shifted(profile, x, y) * strength
    plane = np.ones((SIDE, SIDE), np.float32)
    zero = np.zeros((SIDE, SIDE), np.float32)
    known = given_psf(psf, (SIDE, SIDE))
    return Difference(
        difference=image.astype(np.float32), score=score.astype(np.float32), variance=plane,
        flux_error=plane / np.float32(norm), mask=np.zeros((SIDE, SIDE), np.uint32),
        unmasked_score=score.astype(np.float32), subtracted_light=zero,
        kernels=TileKernels(SIDE, psf[None, None], profile[None, None]), psf_science=known, psf_reference=known,
        psf=psf, flux_scale=1.0, noise_scale=1.0, fwhm_science_px=FWHM, fwhm_reference_px=FWHM,
        algorithm="zogy", why="drawn", unit="electron",
    )  # fmt: skip


def shifted(stamp: np.ndarray, x: float, y: float) -> np.ndarray:
    """A stamp laid with its centre at a sub-pixel place of the frame."""
    frame = np.zeros((SIDE, SIDE))
    half = stamp.shape[0] // 2
    ix, iy = round(x), round(y)
    frame[iy - half : iy + half + 1, ix - half : ix + half + 1] = stamp
    omega = 2j * np.pi * np.fft.fftfreq(SIDE)
    phase = np.exp(-omega[:, None] * (y - iy) - omega[None, :] * (x - ix))
    return np.real(np.fft.ifft2(np.fft.fft2(frame) * phase))


def test_place_flux_and_sign_of_one_source() -> None:
    """A noiseless source comes back at its sub-pixel place with its flux, either way up."""
    for strength in (30.0, -30.0):
        (found,) = extract_sources(drawn((60.3, 50.8, strength))).items
        assert (found.x, found.y) == pytest.approx((60.3, 50.8), abs=0.05)
        assert found.score == pytest.approx(strength, rel=0.03)
        assert found.flux == pytest.approx(found.score * found.flux_err)
        assert found.is_positive == (strength > 0)
        assert found.flags == ()
        assert found.fwhm_px == pytest.approx(FWHM, rel=0.2)


def test_flank_of_a_masked_star_is_no_peak() -> None:
    """Cutting the score at a mask makes peaks on its edge; only extrema of the unmasked map count."""
    made = drawn((60, 60, 400.0))
    hidden = np.hypot(*(np.indices((SIDE, SIDE)) - 60)) < 5
    score = np.where(hidden, np.float32(np.nan), made.score)
    mask = np.where(hidden, np.uint32(MaskBit.SATURATED), np.uint32(0)).astype(np.uint32)
    found = extract_sources(replace(made, score=score, mask=mask))
    assert np.nanmax(score) > 20  # the edge of the mask is far above the threshold
    assert len(found) == 0
    assert found.rejected["masked"] >= 1


@pytest.mark.parametrize(
    ("strength", "columns", "at_edge", "is_delivered"),
    [
        (15.0, 1, False, True),  # a cosmic ray beside it took a seventh of its light
        (5.2, 1, False, False),  # the pixels that were measured do not reach the threshold
        (15.0, 3, False, False),  # a third of it was not measured, whatever the rest says
        (15.0, 1, True, False),  # the kernels reach over the frame's edge besides
    ],
)
def test_a_partly_masked_source_is_delivered_on_its_measured_pixels(
    strength: float, columns: int, at_edge: bool, is_delivered: bool
) -> None:
    """Its peak was measured, so it is weighed by the pixels that were; the flag stays on it."""
    made = drawn((60, 60, strength))
    lost = np.zeros((SIDE, SIDE), bool)
    lost[55:66, 61 : 61 + columns] = True
    bits = np.uint32(MaskBit.COSMIC_RAY) * lost.astype(np.uint32)
    if at_edge:
        bits |= np.uint32(MaskBit.EDGE)
    image, score = (np.where(lost, np.float32(np.nan), plane) for plane in (made.difference, made.score))
    found = extract_sources(replace(made, difference=image, score=score, mask=bits))
    assert len(found) == is_delivered
    if is_delivered:
        assert found.items[0].flags == ("masked",)
        assert found.items[0].score == pytest.approx(strength, rel=0.05)
    else:
        assert found.rejected == {"masked": 1}


def test_rings_of_a_bright_source_are_not_candidates() -> None:
    """Side lobes of the difference's PSF belong to their source."""
    made = drawn((60, 60, 500.0))
    ringed = made.unmasked_score.copy()
    profile = made.kernels.score_profile.copy()
    ring = np.abs(np.hypot(*(np.indices(profile.shape[2:]) - 16)) - 8) < 1
    profile[0, 0][ring] = -0.03
    ringed[60 - 16 : 60 + 17, 60 - 16 : 60 + 17] = 500 * profile[0, 0]
    kernels = replace(made.kernels, score_profile=profile)
    found = extract_sources(replace(made, unmasked_score=ringed, score=ringed, kernels=kernels))
    assert [round(c.score) for c in found.items] == [500]
    assert found.rejected["ring"] >= 1


def test_two_sources_side_by_side_are_two() -> None:
    """A fainter neighbour two widths away is its own candidate, not part of the profile."""
    found = extract_sources(drawn((50, 60, 60.0), (58, 60, 20.0)))
    assert sorted(round(c.x) for c in found.items) == [50, 58]


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize(("apart_px", "strengths"), [(4.3, (40, 40)), (4.8, (60, 50)), (6.0, (50, 30))])
def test_blended_sources_are_fitted_together(apart_px: float, strengths: tuple[int, int], sign: int) -> None:
    """Each has its own flux and place, not its neighbour's light; nothing of that makes them extended."""
    one, other = (sign * each for each in strengths)
    made = drawn((55.2, 60.4, one), (55.2 + apart_px, 60.9, other))
    found = sorted(extract_sources(made).items, key=lambda c: c.x)
    assert [c.flags for c in found] == [("blended",)] * 2
    for c, x, y, strength in zip(found, (55.2, 55.2 + apart_px), (60.4, 60.9), (one, other), strict=True):
        assert (c.x, c.y) == pytest.approx((x, y), abs=0.06)
        assert c.flux / made.flux_error[60, 60] == pytest.approx(strength, rel=0.02)
        assert c.snr == pytest.approx(abs(c.flux) / c.flux_err)
        assert c.flux_err >= made.flux_error[60, 60]


def test_a_blend_beside_masked_pixels_is_no_reason_to_fail() -> None:
    """A peak that its neighbour had pulled over from where nothing was measured stays a candidate."""
    made = drawn((55.2, 60.4, 40.0), (59.5, 60.9, 40.0))
    lost = np.zeros((SIDE, SIDE), bool)
    lost[58:64, 60] = lost[58:64, 55] = True
    planes = {
        name: np.where(lost, np.float32(np.nan), getattr(made, name))
        for name in ("difference", "score", "variance", "flux_error")
    }
    mask = np.uint32(MaskBit.COSMIC_RAY) * lost.astype(np.uint32)
    for c in extract_sources(replace(made, mask=mask, **planes)).items:
        assert np.isfinite([c.x, c.y, c.flux, c.flux_err, c.score]).all()


def test_who_stands_alone_is_measured_as_before() -> None:
    """Neighbours far away take nothing and flag nothing, and a neighbour of the other sign is no blend."""
    (alone,) = extract_sources(drawn((40.3, 60.2, 30.0))).items
    far = extract_sources(drawn((40.3, 60.2, 30.0), (90.0, 60.0, 30.0), (40.0, 75.0, -30.0))).items
    same = min(far, key=lambda c: abs(c.x - 40.3) + abs(c.y - 60.2))
    assert same.flags == alone.flags == ()
    assert same.flux == pytest.approx(alone.flux, rel=1e-3)
    assert same.flux_err == alone.flux_err


def test_errors_of_a_blend_are_those_of_the_common_fit() -> None:
    """Against plain fits of both sources to many draws of white noise."""
    made = drawn()
    places = [PointLight(58.0, 60.0, 1.0), PointLight(61.5, 60.5, 1.0), PointLight(75.0, 60.0, 1.0)]
    models = np.stack([shifted(made.psf, each.x, each.y).ravel() for each in places])
    noise = np.random.default_rng(5).normal(size=(SIDE * SIDE, 1500))
    together = np.linalg.lstsq(models @ models.T, models @ noise, rcond=None)[0].std(axis=1)
    alone = (models @ noise / (models**2).sum(axis=1)[:, None]).std(axis=1)
    factors = error_factors(made.kernels, places)
    assert factors == pytest.approx(together / alone, rel=0.02)
    assert factors[0] > 1.02
    assert factors[2] == pytest.approx(1.0, abs=1e-3)


def test_dipole_is_one_flagged_candidate() -> None:
    """Positive and negative of like strength within a width and a half are a residual of registration."""
    found = extract_sources(drawn((58.5, 60, 20.0), (62.5, 60, -18.0)))
    assert [c.flags for c in found.items] == [("dipole",)]
    assert found.rejected["dipole partner"] == 1


def test_cosmic_ray_is_set_aside_as_too_sharp() -> None:
    """One bright pixel is narrower than any light that came through the telescope."""
    made = drawn((60, 60, 20.0))
    image = np.zeros_like(made.difference)
    image[60, 60] = 25
    found = extract_sources(replace(made, difference=image))
    assert len(found) == 0
    assert found.rejected == {"sharp": 1}


def test_threshold_counts_in_sigma_and_both_ways() -> None:
    """Below the threshold nothing is a candidate; the list is sorted by |score| and numbered."""
    made = drawn((30, 30, 4.5), (60, 60, -8.0), (90, 90, 6.0))
    assert [round(c.score, 1) for c in extract_sources(made, threshold_sigma=5.0).items] == [-8.0, 6.0]
    assert [c.index for c in extract_sources(made, threshold_sigma=4.0).items] == [0, 1, 2]
    assert len(extract_sources(made, threshold_sigma=10.0)) == 0


def test_every_flag_has_a_bit() -> None:
    """What extraction says can be stored."""
    assert flags_from(("edge", "masked", "saturated", "sharp", "extended", "dipole")) > 0


def test_positions_have_errors_that_hold() -> None:
    """Offsets of injections over their errors scatter by about 1, and by no less than the photon limit allows."""
    made = make_pair(
        "zogy", seed=2, shape=(512, 512), n_stars=60, n_transients=49, transient_snr=(9.0, 11.0), transparency=0.7,
        fwhm_science_px=3.6, fwhm_reference_px=2.6,
    )  # fmt: skip
    pulls = [((c.x - t["x"]) / c.x_err, (c.y - t["y"]) / c.y_err) for t, c in made.matched()]
    assert 0.7 < np.std(np.clip(pulls, -4, 4)) < 1.2


def test_peaks_are_brighter_than_their_true_places_by_what_fitting_a_place_costs() -> None:
    """Forced photometry at the true place gives less than the peak, by 1 / S/N² on average: no other offset."""
    made = make_pair(
        "zogy", seed=2, shape=(512, 512), n_stars=60, n_transients=49, transient_snr=(9.0, 11.0), transparency=0.7,
        fwhm_science_px=3.6, fwhm_reference_px=2.6,
    )  # fmt: skip
    found = made.matched()
    x, y = (np.array([t[axis] for t, _ in found]) for axis in ("x", "y"))
    forced, _ = difference_fluxes(made.difference, x, y)
    excess = np.mean([abs(c.flux) for _, c in found] / np.abs(forced)) - 1
    expected = np.mean([1 / c.snr**2 for _, c in found])
    assert 0.5 * expected < excess < 1.6 * expected


def test_a_bright_source_is_placed_as_well_as_its_photons_allow() -> None:
    """Its own photons flatten the score at its centre: placed there, pulls would scatter by 1.4."""
    made = make_pair(
        "zogy", seed=7007, shape=(512, 512), n_stars=300, n_transients=60, transient_snr=(20.0, 40.0),
        transparency=0.7, fwhm_science_px=3.6, fwhm_reference_px=2.6,
    )  # fmt: skip
    pulls = [((c.x - t["x"]) / c.x_err, (c.y - t["y"]) / c.y_err) for t, c in made.matched()]
    assert len(pulls) > 45
    assert 0.8 < np.std(np.clip(pulls, -4, 4)) < 1.2


def test_sky_positions_follow_the_wcs() -> None:
    """RA and Dec are those of the science frame's WCS; without one they are None."""
    settings = {"seed": 6, "n_transients": 12, "transient_snr": (20.0, 40.0)}
    made = make_pair("zogy", **settings)
    row, found = made.matched()[0]
    assert found.ra_deg == pytest.approx(row["ra_deg"], abs=0.5 / 3600)
    assert found.dec_deg == pytest.approx(row["dec_deg"], abs=0.5 / 3600)
    bare = extract_sources(made.difference)
    assert bare.items[0].ra_deg is None
    assert bare.items[0].dec_deg is None


def test_shape_of_a_point_source_is_that_of_the_psf() -> None:
    """Moment 1, round, chi² 0."""
    psf = moffat_stamp(FWHM, 33).astype(float)
    ones, good = np.ones_like(psf), np.ones_like(psf, bool)
    shape = measure_shape(50 * psf, ones, good, psf, 50.0, FWHM)
    assert shape.moment == pytest.approx(1.0)
    assert shape.elongation == pytest.approx(1.0, abs=1e-3)
    assert shape.chi2 == pytest.approx(0.0)
    assert not shape.is_narrower_than_psf(100)
    assert not shape.is_wider_than_psf(100)


def looks_narrow(light: np.ndarray, psf: np.ndarray, snr: float, fwhm: float) -> bool:
    """Whether such light, as bright as a fit of `psf` says `snr`, is called narrower, without noise."""
    power, seen = float((psf**2).sum()), float((psf * light).sum())
    stamp = light * snr * np.sqrt(power) / seen
    good = np.ones_like(psf, bool)
    return measure_shape(
        stamp, np.ones_like(psf), good, psf, snr / np.sqrt(power), fwhm
    ).is_narrower_than_psf(snr)


@pytest.mark.parametrize("snr", [12.0, 25.0, 60.0])
def test_in_a_wide_psf_that_is_taken_for_wider_sources_are_no_rays(snr: float) -> None:
    """A fifth too wide; of a cosmic ray there is far less light around."""
    psf = moffat_stamp(6.6, 61).astype(float)
    assert not looks_narrow(moffat_stamp(5.5, 61).astype(float), psf, snr, 6.6)
    assert looks_narrow(moffat_stamp(1.5, 61).astype(float), psf, snr, 6.6)


@pytest.mark.parametrize("snr", [10.0, 20.0])
def test_what_faded_beside_a_source_does_not_make_it_a_ray(snr: float) -> None:
    """Two and a half times as bright, 2.3 FWHM away: under the PSF's weight its dark light counts many times."""
    psf = moffat_stamp(FWHM, 41).astype(float)
    faded = 2.5 * np.roll(psf, 7, axis=1)
    ones, good = np.ones_like(psf), np.ones_like(psf, bool)
    flux = snr / np.sqrt(float((psf**2).sum()))
    shape = measure_shape(flux * (psf - faded), ones, good, psf, flux, FWHM)
    assert (1 - shape.moment) * snr > 4.5
    assert not shape.is_narrower_than_psf(snr)
    assert looks_narrow(moffat_stamp(1.2, 41).astype(float), psf, snr, FWHM)


def test_galaxy_residual_is_extended() -> None:
    """Three times the width is no point source; where all is faint, a width alone says nothing."""
    psf, wide = moffat_stamp(FWHM, 41).astype(float), moffat_stamp(3.5 * FWHM, 41).astype(float)
    shape = measure_shape(500 * wide, np.full_like(psf, 1e4), np.ones_like(psf, bool), psf, 300.0, FWHM)
    assert shape.is_wider_than_psf(20)
    assert not shape.is_wider_than_psf(4)


def noisy_shapes(width: float, strength: float, n: int = 300) -> list[Shape]:
    """Shapes of `n` peaks of so wide a profile on noise of unit variance, with the PSF fitted to each."""
    psf, truth = moffat_stamp(FWHM, 41).astype(float), moffat_stamp(width, 41).astype(float)
    ones, good = np.ones_like(psf), np.ones_like(psf, bool)
    power, seen = float((psf**2).sum()), float((psf * truth).sum())
    draws = np.random.default_rng(5).normal(size=(n, *psf.shape))
    stamps = [noise + strength * np.sqrt(power) / seen * truth for noise in draws]
    return [measure_shape(s, ones, good, psf, float((s * psf).sum()) / power, FWHM) for s in stamps]


@pytest.mark.parametrize("strength", [5.5, 12.0, 60.0])
def test_light_beyond_the_psf_is_a_standard_normal_number_for_point_sources(strength: float) -> None:
    """So its threshold counts in sigma, at any S/N, and takes no point source."""
    shapes = noisy_shapes(FWHM, strength)
    broad = np.array([shape.broad_sigma for shape in shapes])
    assert abs(broad.mean()) < 0.2
    assert broad.std() == pytest.approx(1.0, abs=0.12)
    assert not any(shape.is_wider_than_psf(strength) for shape in shapes)


def test_faint_diffuse_light_is_extended_although_its_width_cannot_be_measured() -> None:
    """What is four PSFs wide has most of its light where the PSF has none, also at 5.5 sigma."""
    shapes = noisy_shapes(4 * FWHM, 5.5)
    assert np.mean([shape.is_wider_than_psf(5.5) for shape in shapes]) > 0.95


def test_validation_measures_what_it_says() -> None:
    """Statistics of a Gaussian score are those of a Gaussian; a score that is shifted does not pass, and says why."""
    made = drawn(noise=1.0)
    values = np.random.default_rng(2).normal(0, 1, (SIDE, SIDE)).astype(np.float32)
    checked = validate_difference(replace(made, score=values))
    assert checked.passed, checked.reasons
    assert checked.std == pytest.approx(1.0, abs=0.03)
    assert checked.noise_level == pytest.approx(1.0, abs=0.03)
    assert abs(checked.spatial_correlation) < 0.03
    shifted_score = validate_difference(replace(made, score=values + np.float32(0.4)))
    assert not shifted_score.passed
    assert "median" in shifted_score.reasons[0]


def test_sky_samples_keep_away_from_sources_and_edges() -> None:
    """A bright peak and its surroundings are not empty sky."""
    made = drawn((60, 60, 50.0))
    sky = sky_samples(made)
    assert not sky[55:66, 55:66].any()
    assert sky[20, 20]


def test_tail_ratio_of_a_gaussian_is_one() -> None:
    """And of one with twice the scatter far more."""
    values = np.random.default_rng(3).normal(0, 1, 400_000)
    assert tail_ratio(values) == pytest.approx(1.0, abs=0.1)
    assert tail_ratio(2 * values) > 20
