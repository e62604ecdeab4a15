"""What every algorithm must keep: flux, significance, sign, place."""

import re
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from astrid_workers.differencing.difference import DifferenceOptions, difference
from astrid_workers.differencing.extract_sources import extract_sources
from astrid_workers.differencing.match_frames import choose_algorithm
from astrid_workers.errors import SubtractionRefused
from astrid_workers.imaging.psf import moffat_psf
from astrid_workers.mask import MaskBit
from astrid_workers.sky import make_sky
from support.pairs import make_pair, sky_statistics

BOTH = ("zogy", "classic")
UNEQUAL = {"transparency": 0.7, "fwhm_science_px": 3.6, "fwhm_reference_px": 2.6}


@pytest.mark.parametrize("algorithm", BOTH)
def test_flux_is_recovered_at_low_transparency_and_unequal_seeing(algorithm: str) -> None:
    """Fluxes are those of the science frame within 3 %, whatever the transparency and the seeing."""
    found = make_pair(
        algorithm,
        seed=4,
        shape=(512, 512),
        n_stars=120,
        n_transients=36,
        transient_snr=(25.0, 80.0),
        **UNEQUAL,
    ).matched()
    ratios = [abs(c.flux) / row["flux_e"] for row, c in found]
    assert len(ratios) >= 34
    assert np.median(ratios) == pytest.approx(1.0, abs=0.03)


@pytest.mark.parametrize("algorithm", BOTH)
@pytest.mark.parametrize("settings", [UNEQUAL, {"fwhm_science_px": 2.5, "fwhm_reference_px": 3.5}, {}])
def test_score_is_a_standard_gaussian_on_empty_sky(algorithm: str, settings: dict[str, float]) -> None:
    """Scatter 1.00 ± 0.03, |median| ≤ 0.1, tails no more than 1.5 times a Gaussian's: significance means what it says."""
    checked = sky_statistics(make_pair(algorithm, seed=5, **settings).difference)
    assert checked.std == pytest.approx(1.0, abs=0.03)
    assert abs(checked.median) <= 0.1
    assert checked.tail_ratio <= 1.5
    assert checked.passed, checked.reasons


@pytest.mark.parametrize("algorithm", BOTH)
def test_noise_scale_is_one_because_noise_is_propagated(algorithm: str) -> None:
    """The score's scatter comes out of the frames' own noise; the correcting factor is there, and close to 1."""
    assert make_pair(algorithm, seed=5, **UNEQUAL).difference.noise_scale == pytest.approx(1.0, abs=0.04)


@pytest.mark.parametrize("algorithm", BOTH)
def test_blank_sky_gives_no_candidates_beyond_chance(algorithm: str) -> None:
    """Gaussian noise alone gives 0.4 per Mpix at 5 sigma: four skies of 0.15 Mpix, 0.24 expected, 3 in 0.2 % of runs."""
    found = [c for seed in range(10, 14) for c in make_pair(algorithm, seed=seed, **UNEQUAL).candidates.items]
    clean = [c for c in found if "edge" not in c.flags]
    assert len(clean) < 3, clean


@pytest.mark.parametrize("algorithm", BOTH)
def test_both_signs_come_back_at_their_place(algorithm: str) -> None:
    """A source that faded is as good as one that rose: right sign, within 0.3 px."""
    made = make_pair(
        algorithm, seed=6, shape=(512, 512), n_stars=120, n_transients=36, negative_fraction=0.5,
        transient_snr=(20.0, 60.0), **UNEQUAL,
    )  # fmt: skip
    found = made.matched()
    assert len(found) >= 34
    assert {row["sign"] for row, _ in found} == {-1, 1}
    offsets = np.array([np.hypot(c.x - row["x"], c.y - row["y"]) for row, c in found])
    assert np.percentile(offsets, 95) < 0.3  # one injection lies 5 px from a star of S/N 800
    assert np.median(offsets) < 0.1


def test_significance_is_what_a_matched_filter_can_reach() -> None:
    """The score of a faint injection is the theoretical signal-to-noise ratio of its place, within 8 %."""
    made = make_pair(
        "zogy", seed=2, shape=(512, 512), n_stars=60, n_transients=49, transient_snr=(9.0, 11.0), **UNEQUAL
    )
    ratios = [c.snr / row["snr_local"] for row, c in made.matched()]
    assert len(ratios) >= 45
    assert 0.92 < np.median(ratios) < 1.03


@pytest.mark.parametrize("algorithm", ["zogy", "classic", "auto"])
def test_science_sharper_than_reference_works(algorithm: str) -> None:
    """The sharper frame is convolved, never the broader one deconvolved: nothing rings, all comes back."""
    made = make_pair(
        algorithm,
        seed=7,
        n_transients=16,
        transient_snr=(15.0, 60.0),
        fwhm_science_px=2.4,
        fwhm_reference_px=3.8,
    )
    assert len(made.matched()) >= 15
    assert len([c for c in made.false_ones() if not c.is_doubted]) <= 1


@pytest.mark.parametrize("algorithm", BOTH)
def test_residual_shifts_and_varying_psfs_leave_no_stars(algorithm: str) -> None:
    """A bent registration of 0.08 px and a PSF that widens by 10 % over the frame leave hardly a false candidate."""
    made = make_pair(
        algorithm, seed=8, shape=(512, 512), n_stars=200, shift_field_px=0.08, psf_gradient=0.1,
        ellipticity_science=0.08, **UNEQUAL,
    )  # fmt: skip
    assert len([c for c in made.false_ones() if not c.is_doubted]) <= 2


def test_saturated_stars_and_nan_blocks_give_no_false_candidates() -> None:
    """The flank of a masked star and the rim of a hole are no sources; both are NaN in what is delivered."""
    made = make_pair("zogy", seed=9, n_saturated=4, nan_block_px=40, n_bad_columns=2, **UNEQUAL)
    assert [c for c in made.false_ones() if "edge" not in c.flags] == []
    lost = (made.sky.science.mask & np.uint32(MaskBit.NO_DATA | MaskBit.SATURATED)) != 0
    assert np.isnan(made.difference.score[lost]).all()
    assert np.isfinite(made.difference.score).mean() > 0.7


@pytest.mark.parametrize("algorithm", BOTH)
def test_gain_is_measured_within_three_per_cent(algorithm: str) -> None:
    """science = flux_scale × reference: the median-of-pixels gain of sky-subtracted images is nowhere near it."""
    made = make_pair(
        algorithm,
        seed=4,
        shape=(512, 512),
        n_stars=120,
        n_transients=36,
        transient_snr=(25.0, 80.0),
        **UNEQUAL,
    )
    assert made.difference.flux_scale == pytest.approx(0.7, rel=0.03)


def test_difference_is_linear_in_what_changed() -> None:
    """Adding a point source to the science frame adds flux × PSF to the difference and nothing elsewhere."""
    sky = make_sky(seed=3, shape=(300, 300), n_stars=60, n_transients=0, **UNEQUAL)
    stamp = 5000 * sky.psf_science.stamp(81)
    image = sky.science.science.copy()
    image[110:191, 120:201] += stamp.astype(np.float32)
    options = DifferenceOptions(algorithm="zogy")
    before = difference(sky.science, sky.reference, options=options)
    after = difference(replace(sky.science, science=image), sky.reference, options=options)
    change = after.difference - before.difference
    assert change[130:171, 140:181].sum() == pytest.approx(5000, rel=0.06)
    assert abs(np.median(change[:60])) < 0.05 * np.sqrt(np.median(before.variance))


def test_frames_without_common_light_are_refused_with_numbers() -> None:
    """Too few sources is a refusal that says how many there are and how many are needed."""
    sky = make_sky(seed=3, shape=(256, 256), n_stars=0, n_transients=0)
    with pytest.raises(SubtractionRefused, match="needed"):
        difference(sky.science, sky.reference)


def test_masked_frames_are_refused_with_numbers() -> None:
    """A frame that is all mask gives a sentence, never a frame of NaN."""
    sky = make_sky(seed=3, shape=(256, 256), n_stars=40, n_transients=0)
    gone = replace(sky.science, mask=np.full_like(sky.science.mask, MaskBit.NO_DATA))
    with pytest.raises(SubtractionRefused, match=r"0\.0 % of the pixels"):
        difference(gone, sky.reference)


def test_failed_match_is_refused_not_delivered() -> None:
    """A subtraction that leaves the stars where they were is refused, with the share of their power that is left."""
    sky = make_sky(seed=3, shape=(384, 384), n_stars=80, n_transients=0, **UNEQUAL)
    options = DifferenceOptions(algorithm="none", max_residual_power=0.05)
    with pytest.raises(SubtractionRefused, match="% of the power"):
        difference(sky.science, sky.reference, options=options)


def _fringes(shape: tuple[int, int]) -> np.ndarray:
    rows, columns = np.indices(shape)
    return 12 * np.sin(columns / 12 + rows / 40 + 3 * np.sin(rows / 200))


def _amplifiers(shape: tuple[int, int]) -> np.ndarray:
    return np.where(np.indices(shape)[1] < shape[1] // 2, 0.0, 40.0)


@pytest.mark.parametrize("pattern", [_fringes, _amplifiers])
def test_an_uneven_sky_costs_little_depth(pattern: Callable[[tuple[int, int]], np.ndarray]) -> None:
    """Fringes of half a sigma, or a step of two between amplifiers: noise that is told stays near the photons'."""
    sky = make_sky(seed=5, shape=(512, 512), n_stars=260, n_transients=20, **UNEQUAL)
    uneven = replace(sky.science, science=(sky.science.science + pattern((512, 512))).astype(np.float32))
    result = difference(uneven, sky.reference)
    assert result.noise_scale < 1.6
    found = extract_sources(result, threshold_sigma=5.0).items
    bright = sky.truth[sky.truth["snr_local"] > 12]
    clean = [c for c in found if not c.is_doubted]
    hit = [min(np.hypot(c.x - t["x"], c.y - t["y"]) for c in clean) < 2 for t in bright]
    assert np.mean(hit) > 0.9


@pytest.mark.parametrize("algorithm", BOTH)
def test_a_frame_against_itself_is_refused(algorithm: str) -> None:
    """Two files of one exposure have no noise of their own: nothing could be found, whatever is there."""
    sky = make_sky(seed=3, shape=(256, 256), n_stars=80, n_transients=0)
    copy = replace(
        sky.science, science=sky.science.science * np.float32(1.5), variance=sky.science.variance * 2.25
    )
    with pytest.raises(SubtractionRefused, match="the frames share it"):
        difference(sky.science, copy, options=DifferenceOptions(algorithm=algorithm))


def test_frames_of_unequal_shape_are_a_programming_error() -> None:
    """The reference must have been aligned; the sentence names both shapes."""
    one, other = (
        make_sky(seed=3, shape=shape, n_stars=20, n_transients=0) for shape in ((200, 200), (200, 210))
    )
    with pytest.raises(ValueError, match=r"\(200, 200\).*\(200, 210\)"):
        difference(one.science, other.reference)


def test_auto_says_why_with_numbers() -> None:
    """With stars enough for PSFs it is ZOGY; the reason names what was measured: star counts and widths."""
    made = make_pair("auto", seed=4, shape=(512, 512), n_stars=120, **UNEQUAL)
    assert made.difference.algorithm == "zogy"
    assert re.search(r"\d+ and \d+ stars; FWHM 3\.\d+ and 2\.\d+ px", made.difference.why)


def test_auto_takes_a_kernel_when_stars_are_too_few_for_psfs() -> None:
    """Where a PSF would be noise, the kernel that needs none is chosen, and the reason says how many stars there were."""
    good = make_pair("auto", seed=5, **UNEQUAL).difference.psf_science
    poor = moffat_psf(3.0, (384, 384), 4)
    algorithm, why = choose_algorithm("auto", good, poor, 30)
    assert algorithm == "classic"
    assert f"{good.n_stars} and 4 clean stars" in why


def test_inputs_are_not_changed() -> None:
    """Frames are immutable: a subtraction leaves their pixels as they were."""
    sky = make_sky(seed=3, shape=(256, 256), n_stars=60, n_transients=0)
    before = [plane.copy() for f in (sky.science, sky.reference) for plane in (f.science, f.variance, f.mask)]
    difference(sky.science, sky.reference)
    after = [plane for f in (sky.science, sky.reference) for plane in (f.science, f.variance, f.mask)]
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))


def test_variance_that_lies_is_noticed_and_said() -> None:
    """A variance plane half as large as the sky's scatter changes no significance, and the report says so."""
    sky = make_sky(seed=5, shape=(384, 384), n_stars=80, n_transients=0, **UNEQUAL)
    lying = replace(sky.science, variance=sky.science.variance * np.float32(0.5))
    made = difference(lying, sky.reference, options=DifferenceOptions(algorithm="zogy"))
    assert sky_statistics(made).std == pytest.approx(1.0, abs=0.03)
    assert any("times what its variance says" in sentence for sentence in made.assumed)
