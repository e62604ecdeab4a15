"""Around saturated stars: what is left, what is hidden, and what is still found there."""

from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from astrid_workers.differencing.difference import difference
from astrid_workers.differencing.extract_sources import extract_sources
from astrid_workers.differencing.products import Candidates, Difference, DifferenceOptions
from astrid_workers.differencing.saturated import GAUSSIAN_MEDIAN, RING_FWHM, ring_scatter
from astrid_workers.frame import Frame
from astrid_workers.mask import MaskBit
from astrid_workers.sky import Blemishes, Sky, make_sky

FWHM = 3.6
PLACES = ((0.3, 0.35), (0.7, 0.6))


@lru_cache(maxsize=4)
def sky() -> Sky:
    """Five saturated stars among eighty others; the reference is sharper."""
    return make_sky(
        seed=8001, shape=(448, 448), n_stars=110, n_transients=0, n_saturated=5, fwhm_science_px=FWHM,
        fwhm_reference_px=2.8, ellipticity_science=0.06, transparency=0.85, shift_field_px=0.06, psf_gradient=0.1,
    )  # fmt: skip


def zones(made: Difference) -> NDArray[np.bool_]:
    """What saturation hides."""
    return (made.mask & np.uint32(MaskBit.SATURATED)) != 0


@lru_cache(maxsize=4)
def subtracted(algorithm: str) -> tuple[Difference, Candidates]:
    """The plain pair."""
    made = difference(sky().science, sky().reference, options=DifferenceOptions(algorithm=algorithm))  # type: ignore[arg-type]
    return made, extract_sources(made)


@pytest.mark.parametrize("algorithm", ["zogy", "classic"])
def test_nothing_is_left_around_saturated_stars(algorithm: str) -> None:
    """From the edge of what is hidden outwards no pixel of the bare score exceeds chance: it was 40 sigma."""
    made, found = subtracted(algorithm)
    stars = [
        (x, y) for x, y, flux in zip(sky().star_x, sky().star_y, sky().star_flux_e, strict=True) if flux > 3e6
    ]
    assert len(stars) == 5
    assert made.numbers["saturated_stars_taken_off"] == made.numbers["saturated_stars"] >= 4
    rows, columns = np.indices(made.shape)
    near = np.zeros(made.shape, bool)
    for x, y in stars:
        near |= np.hypot(columns - x, rows - y) < 12 * FWHM
    beyond = ndimage.distance_transform_edt(~zones(made)) > 2
    assert np.abs(made.unmasked_score[near & beyond]).max() < 5.5
    assert len(found) == 0


def test_hidden_zones_are_little_more_than_what_clips() -> None:
    """About 200 pixels a star; two FWHM of growth were 600."""
    made, _ = subtracted("zogy")
    clipped = (sky().science.mask & np.uint32(MaskBit.SATURATED)) != 0
    assert zones(made).sum() < 2.2 * clipped.sum()


def lit_beside_stars(angle: float, turn: float) -> tuple[Frame, list[tuple[float, float, float]]]:
    """The science frame with a source of S/N 12 for its place three FWHM off each star's edge, and where (x, y,
    flux): each at an angle that differs by `turn` from the one before.
    """
    made, _ = subtracted("zogy")
    truth, placed = sky(), []
    extra = np.zeros(made.shape)
    rows, columns = np.indices(made.shape, dtype=float)
    labels, n = ndimage.label(zones(made))
    for number in range(1, n + 1):
        y0, x0 = ndimage.center_of_mass(labels == number)
        radius = np.sqrt(np.count_nonzero(labels == number) / np.pi) + 3 * FWHM
        towards = angle + turn * number
        x, y = x0 + radius * np.cos(towards), y0 + radius * np.sin(towards)
        if not (40 < x < 408 and 40 < y < 408) or truth.star_x.size == 0:
            continue
        if np.min(np.hypot(truth.star_x - x, truth.star_y - y)) < 3 * FWHM:
            continue
        if ndimage.distance_transform_edt(~zones(made))[round(y), round(x)] < 2.7 * FWHM:
            continue
        flux = 12 * float(made.flux_error[round(y), round(x)])
        extra += flux * truth.psf_science.value(columns - x, rows - y)
        placed.append((x, y, flux))
    return replace(truth.science, science=(truth.science.science + extra).astype(np.float32)), placed


@pytest.mark.parametrize("angle", [0.4, 2.5, 4.6])
def test_a_transient_three_fwhm_off_the_edge_is_found_without_a_flag(angle: float) -> None:
    """At S/N 12 for its place, beside each star; its flux within its error and a tenth."""
    science, placed = lit_beside_stars(angle, 1.1)
    assert placed
    found = extract_sources(difference(science, sky().reference)).items
    for x, y, flux in placed:
        near = [c for c in found if np.hypot(c.x - x, c.y - y) < 1.5]
        assert len(near) == 1
        assert near[0].flags == ()
        assert near[0].flux == pytest.approx(flux, abs=0.1 * flux + 2.5 * near[0].flux_err)


def test_what_stands_beside_each_star_alike_is_flagged() -> None:
    """The telescope's own pattern: found as before, and told from transients."""
    science, placed = lit_beside_stars(0.4, 0.0)
    assert len(placed) >= 4
    made = difference(science, sky().reference)
    found = extract_sources(made).items
    for x, y, _ in placed:
        near = [c for c in found if np.hypot(c.x - x, c.y - y) < 1.5]
        assert len(near) == 1
        assert near[0].flags == ("stray_light",)
    assert made.numbers["pattern_of_saturated_px"] > 0
    plain, _ = subtracted("zogy")
    assert plain.numbers["pattern_of_saturated_px"] == 0


def test_a_star_that_clips_in_one_frame_only_keeps_its_zone() -> None:
    """A nova: nothing to fit in the reference. Its light stays, and hides what its brightness asks for."""
    clean = make_sky(seed=8002, shape=(320, 320), n_stars=60, n_transients=0)
    rows, columns = np.indices(clean.science.shape, dtype=float)
    nova = 2e7 * clean.psf_science.value(columns - 150.0, rows - 160.0)
    lit = np.minimum(clean.science.science + nova, 9e4).astype(np.float32)
    mask = np.where(lit >= 9e4, clean.science.mask | np.uint32(MaskBit.SATURATED), clean.science.mask)
    variance = (clean.science.variance + nova).astype(np.float32)
    made = difference(replace(clean.science, science=lit, mask=mask, variance=variance), clean.reference)
    assert made.numbers["saturated_stars"] == 1
    assert made.numbers["saturated_stars_taken_off"] == 0
    assert zones(made).sum() > 2.5 * (mask & np.uint32(MaskBit.SATURATED) != 0).sum()


def test_the_scatter_of_rings_is_read_as_it_was_put_there() -> None:
    """Noise of scatter 2.5 from 20 to 26 px, 1 elsewhere; a strong source in a ring changes nothing."""
    rng = np.random.default_rng(3)
    rows, columns = np.indices((121, 121))
    radius = np.hypot(columns - 60.0, rows - 60.0)
    score = rng.normal(size=radius.shape).astype(np.float32)
    score[(radius > 20) & (radius < 26)] *= 2.5
    score[38:43, 58:63] = 40.0
    radii, scatter = ring_scatter(score, radius, radius > 8, 8.0, 50.0, FWHM)
    inside = (radii > 21.5) & (radii < 24.5)
    outside = (radii < 18) | (radii > 28)
    assert np.all(np.abs(scatter[inside] - 2.2) < 0.35)
    assert np.all(scatter[outside] < 1.05)


def test_the_rings_are_those_of_a_plain_loop() -> None:
    """The twin: one pixel after the other."""
    rng = np.random.default_rng(4)
    rows, columns = np.indices((61, 61))
    radius = np.hypot(columns - 31.2, rows - 29.7)
    score = (3 * rng.normal(size=radius.shape)).astype(np.float32)
    good = rng.uniform(size=radius.shape) > 0.2
    radii, scatter = ring_scatter(score, radius, good, 6.0, 25.0, FWHM)
    width = RING_FWHM * FWHM
    for middle, found in zip(radii, scatter, strict=True):
        values = [
            abs(float(score[j, i]))
            for j in range(61)
            for i in range(61)
            if good[j, i] and middle - width / 2 <= radius[j, i] < middle + width / 2
        ]
        n = len(values) / (1.13 * FWHM**2)
        assert found == pytest.approx(np.median(values) / GAUSSIAN_MEDIAN / (1 + 1.2 / np.sqrt(n)), rel=1e-5)


def test_what_stands_in_a_halo_is_flagged_and_hardly_anything_does() -> None:
    """Stars with a disc of 40 px in the science frame only: the zone is marked and told; its edge made dozens of peaks."""
    haloed = make_sky(
        seed=8003, shape=(448, 448), n_stars=110, n_transients=0, n_saturated=2, fwhm_science_px=FWHM,
        fwhm_reference_px=2.8, blemishes=Blemishes(halo_share=0.03),
    )  # fmt: skip
    made = difference(haloed.science, haloed.reference)
    assert made.numbers["saturated_stars_with_halo"] == 2
    marked = (made.mask & np.uint32(MaskBit.STRAY_LIGHT)) != 0
    rows, columns = np.indices(made.shape)
    for x, y, flux in zip(haloed.star_x, haloed.star_y, haloed.star_flux_e, strict=True):
        if flux > 3e6:
            radius = np.hypot(columns - x, rows - y)
            assert marked[(radius > 12) & (radius < 38)].all()
    found = extract_sources(made).items
    assert all("stray_light" in c.flags for c in found if marked[round(c.y), round(c.x)])
    assert len(found) < 12
    plain, _ = subtracted("zogy")
    assert plain.numbers["saturated_stars_with_halo"] == 0
    assert not (plain.mask & np.uint32(MaskBit.STRAY_LIGHT)).any()


def test_what_stands_on_a_spike_is_flagged() -> None:
    """Four rays of a hundredth of each star's light in the science frame only: all are found, nothing on them is clean."""
    spiked = make_sky(
        seed=8121, shape=(448, 448), n_stars=110, n_transients=0, n_saturated=3, fwhm_science_px=FWHM,
        fwhm_reference_px=2.8, blemishes=Blemishes(spike_share=0.01),
    )  # fmt: skip
    made = difference(spiked.science, spiked.reference)
    assert made.numbers["spikes"] == 4 * 3
    found = extract_sources(made).items
    assert len(found) > 10
    assert [c for c in found if not c.is_doubted] == []
    marked = (made.mask & np.uint32(MaskBit.STRAY_LIGHT)) != 0
    assert marked.mean() < 0.04
    plain, _ = subtracted("zogy")
    assert plain.numbers["spikes"] == 0
