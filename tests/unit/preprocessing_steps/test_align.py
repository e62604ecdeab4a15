"""A reference is registered where it is: right sign, right size, once; or refused with numbers."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial import cKDTree

from astrid_workers.errors import NothingToDo, SubtractionRefused
from astrid_workers.frame import Frame
from astrid_workers.imaging.align import align, measure_registration, stars_of
from astrid_workers.imaging.star_match import Affine, match_stars, vote_on_shift
from astrid_workers.mask import MaskBit
from astrid_workers.sky import Sky, make_sky
from astrid_workers.storage.fits import read_frame
from support.real_frames import real_frame


def map_error_px(sky: Sky, registration) -> float:
    """Largest distance between the measured map and the true one, over the frame."""
    ny, nx = sky.science.shape
    x, y = (a.ravel() for a in np.meshgrid(np.linspace(0, nx - 1, 9), np.linspace(0, ny - 1, 9)))
    return float(np.max(np.hypot(*np.subtract(registration.to_reference(x, y), sky.grid.to_reference(x, y)))))


@pytest.mark.parametrize("with_wcs", [True, False])
@pytest.mark.parametrize("offset", [(0.0, 0.0), (6.3, -4.6), (-6.3, 4.6), (-17.0, -9.5), (0.4, 0.3)])
def test_known_shifts_are_recovered_with_their_sign(offset: tuple[float, float], with_wcs: bool) -> None:
    """Stars at x of the science frame stand at x + dx of the reference; the WCS explains it, or the stars do."""
    sky = make_sky(seed=1, shape=(320, 320), n_stars=70, offset_px=offset, with_wcs=with_wcs)
    found = measure_registration(sky.science, sky.reference)
    assert map_error_px(sky, found) < 0.03
    dx, dy = (0.0, 0.0) if with_wcs else offset
    assert found.dx == pytest.approx(dx, abs=0.03)
    assert found.dy == pytest.approx(dy, abs=0.03)
    assert found.method == ("wcs+stars" if with_wcs else "stars")
    assert (found.ra_offset_arcsec is None) == (not with_wcs)
    assert found.n_matched >= 20
    assert found.correlation > 0.95


@pytest.mark.parametrize("with_wcs", [True, False])
@pytest.mark.parametrize(
    ("offset", "rotation", "scale"),
    [((30.0, -20.0), 1.5, 1.005), ((-12.0, 3.0), -1.0, 0.99), ((2.0, 5.0), 0.2, 1.0)],
)
def test_rotation_and_scale_are_recovered(
    offset: tuple[float, float], rotation: float, scale: float, with_wcs: bool
) -> None:
    """Misaligned by 30 px, 1.5 degrees and half a per cent: as good as aligned, with and without a WCS."""
    sky = make_sky(
        seed=2,
        shape=(400, 400),
        n_stars=120,
        offset_px=offset,
        rotation_deg=rotation,
        scale=scale,
        with_wcs=with_wcs,
    )
    found = measure_registration(sky.science, sky.reference)
    assert map_error_px(sky, found) < 0.06
    if not with_wcs:
        assert found.rotation_deg == pytest.approx(rotation, abs=0.01)
        assert found.scale == pytest.approx(scale, abs=2e-4)


@pytest.mark.parametrize(
    "turn", [{"rotation_deg": 180.0}, {"rotation_deg": 90.0}, {"scale": 2.0, "reference_shape": (640, 640)}]
)
def test_a_wcs_explains_any_grid(turn: dict) -> None:
    """Turned detectors and other plate scales need no guess."""
    sky = make_sky(seed=3, shape=(320, 320), n_stars=80, **turn)
    assert map_error_px(sky, measure_registration(sky.science, sky.reference)) < 0.05


@pytest.mark.parametrize("error", [(3.0, -2.0), (-3.0, 2.0), (15.0, 11.0)])
def test_what_a_wcs_gets_wrong_is_measured(error: tuple[float, float]) -> None:
    """A lying header is corrected, and its error told in pixels and on the sky with the right signs."""
    sky = make_sky(seed=4, shape=(320, 320), n_stars=80, wcs_error_px=error)
    found = measure_registration(sky.science, sky.reference)
    assert map_error_px(sky, found) < 0.03
    assert (found.dx, found.dy) == pytest.approx((-error[0], -error[1]), abs=0.03)
    # east is left: a header that is 3 px too far right puts stars 1.5 arcsec too far east
    assert found.ra_offset_arcsec == pytest.approx(0.5 * error[0], abs=0.02)
    assert found.dec_offset_arcsec == pytest.approx(-0.5 * error[1], abs=0.02)


@pytest.mark.parametrize("offset", [(7.3, -4.6), (-7.3, 4.6)])
def test_the_aligned_reference_lies_on_the_science_frame(offset: tuple[float, float]) -> None:
    """After alignment stars coincide: the shift is applied once, with its sign (the earlier system doubled it)."""
    sky = make_sky(
        seed=5,
        shape=(256, 256),
        n_stars=60,
        offset_px=offset,
        with_wcs=False,
        fwhm_reference_px=3.2,
        n_transients=0,
    )
    aligned = align(sky.science, sky.reference)
    assert aligned.reference.shape == sky.science.shape
    good = aligned.reference.mask == 0
    before = (sky.science.science - sky.reference.science)[good]
    after = (sky.science.science - aligned.reference.science)[good]
    noise = np.sqrt(sky.science.variance + aligned.reference.variance)[good]
    assert np.std(after / noise) < 1.25
    assert np.std(before / noise) > 3
    again = measure_registration(sky.science, aligned.reference)
    assert (again.dx, again.dy) == pytest.approx((0.0, 0.0), abs=0.03)
    assert any("registered by its stars" in sentence for sentence in aligned.reference.assumed)


def test_the_aligned_reference_carries_mask_footprint_and_wcs() -> None:
    """Outside the reference: NO_DATA; saturated and bad pixels travel; the WCS is the science frame's."""
    sky = make_sky(
        seed=6, shape=(256, 256), n_stars=60, offset_px=(-40.0, 0.0), n_saturated=2, nan_block_px=10
    )
    saturated = np.count_nonzero(sky.reference.mask & MaskBit.SATURATED)
    aligned = align(sky.science, sky.reference)
    frame = aligned.reference
    assert (frame.mask[:, :35] & MaskBit.NO_DATA).all()
    assert np.count_nonzero(frame.mask & MaskBit.SATURATED) > 0.8 * saturated
    assert frame.wcs is sky.science.wcs
    assert aligned.registration.overlap_fraction == pytest.approx(216 / 256, abs=0.02)
    assert aligned.area_noise_factor == pytest.approx(1.0, abs=0.1)


def test_frames_that_do_not_overlap_are_nothing_to_do() -> None:
    """With the numbers: overlap and what is needed."""
    sky = make_sky(seed=7, shape=(256, 256), n_stars=60, offset_px=(225.0, 0.0))
    with pytest.raises(NothingToDo, match="overlap 12 %, need 60 %") as nothing:
        measure_registration(sky.science, sky.reference)
    assert nothing.value.numbers["overlap_fraction"] == pytest.approx(0.125, abs=0.01)
    assert nothing.value.numbers["required_overlap_fraction"] == 0.6


def test_a_field_elsewhere_does_not_overlap() -> None:
    """The other side of the sky is 0 %, not an exception from a projection."""
    here, there = (
        make_sky(seed=8, shape=(128, 128)),
        make_sky(seed=9, shape=(128, 128), ra_deg=330.0, dec_deg=-60.0),
    )
    with pytest.raises(NothingToDo, match="overlap 0 %"):
        measure_registration(here.science, there.reference)


@pytest.mark.parametrize("seed", range(20, 32, 2))
def test_without_a_wcs_unrelated_fields_are_refused(seed: int) -> None:
    """Stars of two different skies agree by chance only: refused, with counts."""
    one, other = (make_sky(seed=s, shape=(256, 256), n_stars=50, with_wcs=False) for s in (seed, seed + 1))
    with pytest.raises(SubtractionRefused, match="the stars show no significant registration") as refused:
        measure_registration(one.science, other.reference)
    numbers = refused.value.numbers
    assert numbers["matched"] < numbers["required"] or numbers["by_chance"] > numbers["matched"] / 2


@pytest.mark.parametrize("n_stars", [0, 2])
def test_without_stars_a_wcs_stands_and_nothing_else_does(n_stars: int) -> None:
    """Too few stars: the header is believed and it is said; without a header the pair is refused."""
    sky = make_sky(seed=11, shape=(256, 256), n_stars=n_stars, n_transients=0, offset_px=(5.0, 2.0))
    aligned = align(sky.science, sky.reference)
    assert aligned.registration.method == "wcs"
    assert aligned.registration.rms_px is None
    assert map_error_px(sky, aligned.registration) < 1e-3
    assert any("registered by the WCS alone" in sentence for sentence in aligned.reference.assumed)
    bare = make_sky(seed=11, shape=(256, 256), n_stars=n_stars, n_transients=0, with_wcs=False)
    with pytest.raises(SubtractionRefused, match="need 5"):
        measure_registration(bare.science, bare.reference)


def test_twenty_stars_are_enough_without_a_wcs() -> None:
    """Few stars, but they agree."""
    sky = make_sky(seed=12, shape=(400, 400), n_stars=22, offset_px=(9.0, 4.0), with_wcs=False)
    found = measure_registration(sky.science, sky.reference)
    assert map_error_px(sky, found) < 0.1


def test_a_masked_frame_is_nothing_to_do() -> None:
    """All masked: how many pixels are usable, and how many are needed."""
    sky = make_sky(seed=13, shape=(64, 64), n_stars=5)
    dead = replace(sky.reference, mask=np.full((64, 64), np.uint32(MaskBit.BAD_PIXEL)))
    with pytest.raises(NothingToDo, match="0 of 4096 pixels are usable, need 64"):
        measure_registration(sky.science, dead)


def test_one_frame_without_a_wcs_is_registered_by_stars() -> None:
    """A WCS on one of the frames alone says nothing about the other."""
    sky = make_sky(seed=14, shape=(320, 320), n_stars=80, offset_px=(3.0, 1.0))
    bare = Frame(
        sky.reference.science,
        sky.reference.variance,
        sky.reference.mask,
        None,
        "electron",
        sky.reference.facts,
    )
    found = measure_registration(sky.science, bare)
    assert (found.method, found.ra_offset_arcsec) == ("stars", None)
    assert map_error_px(sky, found) < 0.03


def test_cosmic_rays_and_transients_do_not_shift_the_frames() -> None:
    """Outliers lose the vote and are clipped from the fit."""
    sky = make_sky(
        seed=15, shape=(400, 400), n_stars=60, n_cosmic_rays=80, n_transients=30, transient_snr=(20.0, 200.0),
        with_wcs=False, offset_px=(4.0, -3.0),
    )  # fmt: skip
    assert map_error_px(sky, measure_registration(sky.science, sky.reference)) < 0.05


@pytest.mark.parametrize("with_wcs", [True, False])
def test_stars_that_are_clean_in_one_frame_alone_do_not_hide_the_map(with_wcs: bool) -> None:
    """In a crowd of another seeing others stand alone: with no clean star in common all sources are asked."""
    sky = make_sky(
        seed=16, shape=(512, 512), n_stars=400, star_flux_e=(5e3, 2e5), with_wcs=with_wcs, wcs_error_px=(3.0, -2.0),
        offset_px=(5.0, 2.0),
    )  # fmt: skip
    lists = stars_of(sky.science), stars_of(sky.reference)
    x, y = sky.grid.to_reference(lists[0].x, lists[0].y)
    chosen = [(np.arange(len(stars)) % 2 == 0) & (stars.snr > 8) for stars in lists]
    near, index = cKDTree(np.column_stack([lists[1].x, lists[1].y])).query(np.column_stack([x, y]))
    chosen[1][index[chosen[0] & (near < 2)]] = False
    assert min(np.count_nonzero(clean) for clean in chosen) >= 60
    first, second = (stars.with_clean(clean) for stars, clean in zip(lists, chosen, strict=True))
    found = measure_registration(sky.science, sky.reference, science_stars=first, reference_stars=second)
    assert found.method == ("wcs+stars" if with_wcs else "stars")
    assert found.n_matched > 100
    assert map_error_px(sky, found) < 0.05


def test_the_eso_pair_registers_to_a_tenth_of_a_pixel() -> None:
    """Two exposures of one field without a WCS: residual about 0.08 px."""
    science, reference = (read_frame(real_frame(f"eso085_pair/eso085_00{i}.fit")) for i in (4, 5))
    found = measure_registration(science, reference)
    assert found.method == "stars"
    assert found.n_matched > 100
    assert found.rms_px < 0.12
    assert abs(found.dx) < 0.3
    assert abs(found.dy) < 0.3


def test_the_nircam_pair_registers_through_its_wcs() -> None:
    """Same grid by header: the stars confirm it to 0.2 px."""
    folder = "jwst_nircam_a2744"
    science, reference = (
        read_frame(real_frame(f"{folder}/{n}.fits"), noise=real_frame(f"{folder}/{n}.noise.fits"))
        for n in ("sci", "ref")
    )
    found = measure_registration(science, reference)
    assert found.method == "wcs+stars"
    assert np.hypot(found.dx, found.dy) < 0.2
    assert found.overlap_fraction > 0.99


def test_votes_tell_a_shift_from_chance() -> None:
    """Half the stars in common are plenty; none in common are not significant."""
    rng = np.random.default_rng(16)
    x, y = rng.uniform(0, 1000, (2, 80))
    common = (
        np.concatenate([x[:40] + 12.0, rng.uniform(0, 1000, 40)]),
        np.concatenate([y[:40] - 7.0, rng.uniform(0, 1000, 40)]),
    )
    vote = vote_on_shift(x, y, *common, 500.0)
    assert vote.is_significant
    assert (vote.dx, vote.dy) == pytest.approx((12.0, -7.0), abs=1.0)
    assert not vote_on_shift(x, y, *rng.uniform(0, 1000, (2, 80)), 500.0).is_significant
    assert vote_on_shift(x, y, np.empty(0), np.empty(0), 500.0).votes == 0


@pytest.mark.parametrize(
    ("matrix", "model"),
    [(np.eye(2), "shift"), (1.01 * np.eye(2), "similarity"), (np.array([[1, 0.004], [0, 1]]), "affine")],
)
def test_the_simplest_map_that_the_stars_ask_for_is_taken(matrix: np.ndarray, model: str) -> None:
    """A shift is not dressed up as more, and a shear is not missed."""
    rng = np.random.default_rng(17)
    x, y = rng.uniform(0, 500, (2, 60))
    u, v = matrix @ np.stack([x, y]) + np.array([[3.0], [4.0]]) + rng.normal(0, 0.03, (2, 60))
    match = match_stars(x, y, u, v, Affine.of_shift(3.0, 4.0), 10.0)
    assert match is not None
    assert match.model == model
    assert match.rms_px == pytest.approx(0.03, rel=0.25)
    assert match_stars(x[:2], y[:2], u[:2], v[:2], Affine.of_shift(3.0, 4.0), 10.0) is None
