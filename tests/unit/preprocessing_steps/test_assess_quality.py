"""Quality numbers are measured, or None; never a constant."""

from dataclasses import fields, replace

import numpy as np
import pytest

from astrid_workers.frame import Frame, HeaderFacts
from astrid_workers.mask import MaskBit
from astrid_workers.preprocessing.assess_quality import Quality, assess_quality
from astrid_workers.preprocessing.calibrate import calibrate
from astrid_workers.sky import make_sky


def sky_frame(**options: object) -> Frame:
    return make_sky(**{"seed": 1, "shape": (320, 320), "n_stars": 80, "n_transients": 0, **options}).science


def test_numbers_agree_with_the_truth() -> None:
    """Sky, noise, width and shape of a simulated frame."""
    found = assess_quality(sky_frame())
    assert found.mean_background == pytest.approx(400, abs=2)
    assert found.background_rms == pytest.approx(np.sqrt(425), rel=0.02)
    assert found.total_noise == pytest.approx(np.sqrt(425), rel=0.03)
    assert found.read_noise == 5.0
    assert found.photon_noise == pytest.approx(20, rel=0.03)
    assert found.fwhm_px == pytest.approx(3.2, rel=0.04)
    assert found.fwhm_arcsec == pytest.approx(1.6, rel=0.04)
    assert found.background_uniformity > 0.98
    assert found.n_stars > 20


@pytest.mark.parametrize(
    ("number", "worse"),
    [
        ("background_rms", {"sky_e": 900.0}),
        ("total_noise", {"read_noise_e": 30.0}),
        ("fwhm_px", {"fwhm_science_px": 4.5}),
        ("ellipticity", {"ellipticity_science": 0.3}),
        ("flatness_rms", {"gradient_e": 80.0}),
        ("n_cosmic_rays", {"n_cosmic_rays": 40}),
        ("saturated_pixels", {"n_saturated": 3}),
    ],
)
def test_every_number_moves_with_what_it_measures(number: str, worse: dict) -> None:
    """A frame made worse in one respect says so: no constants."""
    assert getattr(assess_quality(sky_frame(**worse)), number) > 1.15 * getattr(
        assess_quality(sky_frame()), number
    )


@pytest.mark.parametrize(
    "worse", [{"ellipticity_science": 0.3}, {"gradient_e": 150.0}, {"nan_block_px": 150}]
)
def test_the_score_falls_with_each_of_its_parts(worse: dict) -> None:
    """usable fraction × roundness × uniformity."""
    good, bad = assess_quality(sky_frame()), assess_quality(sky_frame(**worse))
    assert bad.overall_quality_score < 0.95 * good.overall_quality_score
    expected = bad.usable_fraction * (1 - bad.ellipticity) * bad.background_uniformity
    assert bad.overall_quality_score == pytest.approx(expected)


def test_saturation_is_against_the_headers_level_only() -> None:
    """The brightest pixel of an unsaturated frame is not saturated; without a level nothing is known."""
    frame = sky_frame(n_saturated=2)
    level = frame.facts.saturation
    assert assess_quality(frame).saturated_pixels == np.count_nonzero(frame.science >= level)
    assert assess_quality(sky_frame()).saturated_pixels == 0
    unknown = replace(frame, facts=replace(frame.facts, saturation=None))
    assert assess_quality(unknown).saturated_pixels is None
    assert assess_quality(unknown).saturation_fraction is None


def test_cosmic_rays_are_cleaned_when_they_are_masked() -> None:
    """Before calibration they are counted and not cleaned; afterwards counted and cleaned."""
    raw = sky_frame(n_cosmic_rays=30)
    before, after = assess_quality(raw), assess_quality(calibrate(raw).frame)
    assert 25 <= before.n_cosmic_rays <= 36
    assert before.cosmic_rays_cleaned is False
    assert after.cosmic_rays_cleaned is True
    assert after.n_cosmic_rays == pytest.approx(before.n_cosmic_rays, abs=2)


def test_a_zero_point_gives_a_limiting_magnitude() -> None:
    """Five sigma of a matched Gaussian: known noise and width give a known limit; without a zero point, None."""
    frame = sky_frame()
    assert assess_quality(frame).limiting_magnitude is None
    found = assess_quality(replace(frame, facts=replace(frame.facts, zero_point_mag=27.0)))
    flux = 5 * np.sqrt(425) * np.sqrt(4 * np.pi) * 3.2 / 2.3548
    assert found.limiting_magnitude == pytest.approx(27 - 2.5 * np.log10(flux), abs=0.08)


def test_a_subtracted_sky_has_no_evenness() -> None:
    """Relative to nothing, unevenness means nothing: None, and the score does without it."""
    frame = sky_frame()
    flat = replace(frame, science=frame.science - np.float32(400))
    found = assess_quality(flat)
    assert found.background_uniformity is None
    assert found.flatness_rms is None
    assert found.overall_quality_score == pytest.approx(found.usable_fraction * (1 - found.ellipticity))


def test_an_empty_sky_knows_no_shape() -> None:
    """No stars: no width, no ellipticity, no S/N, no score, no count of rays."""
    found = assess_quality(sky_frame(n_stars=0))
    assert found.n_stars == 0
    for number in (
        "fwhm_px",
        "ellipticity",
        "snr_estimate",
        "overall_quality_score",
        "n_cosmic_rays",
        "limiting_magnitude",
    ):
        assert getattr(found, number) is None


def test_a_dead_frame_is_none_everywhere() -> None:
    """All masked: what is left is the count of usable pixels and what the header said."""
    zeros = np.zeros((64, 64), np.float32)
    dead = Frame(
        zeros, zeros + np.inf, np.full((64, 64), np.uint32(MaskBit.NO_DATA)), None, "adu", HeaderFacts()
    )
    found = assess_quality(dead)
    measured = {f.name: getattr(found, f.name) for f in fields(Quality)}
    assert measured.pop("usable_fraction") == 0
    assert measured.pop("n_stars") == 0
    assert set(measured.values()) == {None}


def test_numbers_are_plain() -> None:
    """Python numbers that JSON can hold."""
    found = assess_quality(sky_frame(n_saturated=1))
    assert all(type(getattr(found, f.name)) in (int, float, bool, type(None)) for f in fields(Quality))
