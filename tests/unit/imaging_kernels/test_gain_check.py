"""A gain that makes the sky less noisy than its own photons is not believed; one that does not, is."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pytest
from scipy import ndimage

from astrid_workers.frame import Frame, HeaderFacts
from astrid_workers.imaging.measured_frame import frame_from_pixels, gain_was_estimated
from astrid_workers.sky import make_sky

GAIN, READ_NOISE_E, EXPOSURE_S = 1.5, 5.0, 60.0
FACTS = HeaderFacts(gain_e_per_adu=GAIN, read_noise_e=READ_NOISE_E, exposure_s=EXPOSURE_S)


def counts(sky_e: float = 400.0, *, rise_e: float = 0.0, size: int = 320) -> np.ndarray:
    """Sky and read-out in ADU, whole numbers, as a detector without a bias would write them."""
    rng = np.random.default_rng(41)
    level = sky_e + rise_e * np.linspace(0, 1, size) * np.ones((size, size))
    return np.rint((rng.poisson(level) + rng.normal(0, READ_NOISE_E, level.shape)) / GAIN)


def read(pixels: np.ndarray, facts: HeaderFacts = FACTS, unit: str = "adu") -> Frame:
    return frame_from_pixels(pixels.astype(np.float32), facts=facts, unit=unit)


def moved(pixels: np.ndarray) -> np.ndarray:
    """By half a pixel each way, with Lanczos' kernel of three lobes."""
    away = np.arange(-2, 4) - 0.5
    kernel = np.sinc(away) * np.sinc(away / 3)
    once = ndimage.correlate1d(pixels, kernel / kernel.sum(), axis=1, mode="wrap")
    return ndimage.correlate1d(once, kernel / kernel.sum(), axis=0, mode="wrap")


def bordered(pixels: np.ndarray) -> np.ndarray:
    edged = pixels.astype(np.float32)
    edged[:60], edged[:, -50:] = np.nan, np.nan
    return edged


@dataclass(frozen=True)
class Case:
    name: str
    pixels: Callable[[], np.ndarray]
    gain: float | None = GAIN
    says: str = ""
    facts: HeaderFacts = FACTS


BELIEVED = (
    Case("as it was read", counts),
    Case("faint sky", lambda: counts(40.0)),
    Case("a slope", lambda: counts(rise_e=400.0)),
    Case("moved by half a pixel", lambda: moved(counts())),
    Case("smoothed by 0.8 px", lambda: ndimage.gaussian_filter(counts(), 0.8)),
    Case("sky subtracted", lambda: counts() - 266.6),
    Case("a border without values", lambda: bordered(counts())),
    Case("cut at 0", lambda: counts(3.0).clip(0)),
    Case("too few pixels", lambda: counts(size=48) / 60),
    Case("a mean of ten", lambda: counts() / 10, 15.0, facts=replace(FACTS, gain_e_per_adu=15.0)),
    Case("a flat", lambda: counts() / 266.0, facts=replace(FACTS, image_type="flat")),
)
CONTRADICTED = (
    Case("counts per second", lambda: counts() / 60, 90.0, "EXPTIME = 60 s, as of counts per second"),
    Case("and moved", lambda: moved(counts()) / 60, 90.0, "EXPTIME = 60 s, as of counts per second"),
    Case("and bordered", lambda: bordered(counts()) / 60, 90.0, "EXPTIME = 60 s, as of counts per second"),
    Case("and subtracted", lambda: (counts() - 266.6) / 60, 90.0, "EXPTIME = 60 s, as of counts per second"),
    Case("a mean of ten", lambda: counts() / 10, 15.0, "not believed: 15.1 e-/ADU estimated"),
    Case("a mean of two", lambda: counts() / 2, 3.0, "not believed: 3.02 e-/ADU estimated"),
    Case(
        "no EXPTIME",
        lambda: counts() / 60,
        None,
        "cannot be read off the sky's noise: kept in ADU",
        replace(FACTS, exposure_s=None),
    ),
    Case("a bias in whole numbers", lambda: counts() + 1000, GAIN, "and is believed: a pedestal"),
    Case("a bias under a slope", lambda: counts(rise_e=200.0) + 999.5, GAIN, "and is believed: a pedestal"),
    Case(
        "RDNOISE of more than there is",
        lambda: counts(20.0) + 0.25,
        GAIN,
        "and is believed: a pedestal, or RDNOISE",
        replace(FACTS, read_noise_e=15.0),
    ),
    Case("subtracted mean of 100", lambda: (counts() - 266.6) / 100, GAIN, "or RDNOISE", replace(FACTS, exposure_s=None)),
)  # fmt: skip


@pytest.mark.parametrize("case", BELIEVED, ids=[case.name for case in BELIEVED])
def test_a_gain_that_the_sky_allows_is_believed_without_a_word(case: Case) -> None:
    frame = read(case.pixels(), case.facts)
    assert (frame.unit, frame.facts.gain_e_per_adu) == ("electron", case.gain)
    assert not frame.assumed


@pytest.mark.parametrize("case", CONTRADICTED, ids=[case.name for case in CONTRADICTED])
def test_a_gain_that_the_sky_contradicts_is_replaced_where_something_explains_it(case: Case) -> None:
    frame = read(case.pixels(), case.facts)
    assert frame.unit == ("adu" if case.gain is None else "electron")
    assert frame.facts.gain_e_per_adu == (None if case.gain is None else pytest.approx(case.gain, rel=0.04))
    said = [sentence for sentence in frame.assumed if sentence.startswith("GAIN = 1.5 is contradicted")]
    assert len(said) == 1
    assert case.says in said[0]
    assert gain_was_estimated(frame) == ("estimated" in case.says)


def test_a_sky_far_noisier_than_its_photons_is_said_and_no_more() -> None:
    frame = read(counts(), replace(FACTS, gain_e_per_adu=4 * GAIN))
    assert frame.facts.gain_e_per_adu == 4 * GAIN
    assert frame.assumed == (
        "GAIN = 6 is believed, though the sky's variance is 4.16 times that of its own photons and RDNOISE",
    )


def test_a_noise_map_is_not_held_against_the_gain() -> None:
    sigma = np.full((320, 320), 0.2, np.float32)
    frame = frame_from_pixels((counts() / 60).astype(np.float32), facts=FACTS, unit="adu", sigma=sigma)
    assert frame.facts.gain_e_per_adu == GAIN


@pytest.mark.parametrize("n_stars", [60, 600])
def test_photons_of_sources_are_those_of_the_counts_whatever_they_were_divided_by(n_stars: int) -> None:
    """With stars, and with a crowd of them: variance follows the counts that were seen, not the unit."""
    science = make_sky(seed=4107, n_stars=n_stars, shape=(320, 320)).science
    facts = replace(science.facts, saturation=None, zero_point_mag=None, image_type=None)
    adu = np.rint(science.science / np.float32(GAIN))
    whole, rates = read(adu, facts), read(adu / np.float32(60), facts)
    assert not whole.assumed
    assert rates.facts.gain_e_per_adu == pytest.approx(60 * GAIN)
    np.testing.assert_allclose(rates.variance, whole.variance, rtol=1e-3)


@pytest.mark.parametrize(
    ("facts", "factor", "gain", "says"),
    [
        (FACTS, 90.0, GAIN, "counts per second times GAIN = 1.5 e-/ADU and EXPTIME = 60 s"),
        (replace(FACTS, gain_e_per_adu=90.0), 90.0, 1.5, "GAIN = 90 holds EXPTIME = 60 s already"),
        (replace(FACTS, gain_e_per_adu=0.1), 6.0, 0.1, "GAIN times EXPTIME = 6 is contradicted"),
    ],
    ids=["GAIN of a count", "GAIN of a rate", "GAIN of neither"],
)
def test_counts_per_second_become_electrons(
    facts: HeaderFacts, factor: float, gain: float, says: str
) -> None:
    rates = counts() / 60
    facts = replace(facts, saturation=500.0, zero_point_mag=20.0)
    frame = read(rates, facts, "adu / s")
    assert frame.unit == "electron"
    np.testing.assert_allclose(frame.science, rates * factor, rtol=1e-5)
    assert frame.facts.gain_e_per_adu == pytest.approx(gain)
    assert frame.facts.saturation == pytest.approx(500 * factor)
    assert frame.facts.zero_point_mag == pytest.approx(20 + 2.5 * np.log10(factor))
    assert any(says in sentence for sentence in frame.assumed)


@pytest.mark.parametrize("lacking", ["gain_e_per_adu", "exposure_s"])
def test_counts_per_second_stay_so_without_a_gain_or_an_exposure(lacking: str) -> None:
    frame = read(counts() / 60, replace(FACTS, **{lacking: None}), "adu / s")
    assert frame.unit == "adu / s"
    assert frame.facts.gain_e_per_adu is None
