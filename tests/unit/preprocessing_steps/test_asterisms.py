"""Frames that nothing is known of are registered by their stars alone: right, or refused with numbers."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from astrid_workers.differencing.pair import run_pair
from astrid_workers.errors import NothingToDo, SubtractionRefused
from astrid_workers.frame import Frame
from astrid_workers.imaging.align import align, measure_registration, registration_sentence
from astrid_workers.imaging.asterisms import match_asterisms
from astrid_workers.imaging.star_match import Affine
from astrid_workers.sky import Sky, make_sky

SIZE = 2000.0


def turned(rotation_deg: float, scale: float, mirrored: bool, shift: tuple[float, float]) -> Affine:
    """Turned about the middle of the frame, then shifted."""
    angle = np.radians(rotation_deg)
    matrix = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    if mirrored:
        matrix = matrix @ np.diag([-1.0, 1.0])
    middle = np.full(2, SIZE / 2)
    return Affine(matrix, middle - matrix @ middle + np.array(shift))


def star_lists(rng: np.random.Generator, per_frame: int, true: Affine) -> tuple[np.ndarray, ...]:
    """Two frames of one sky: a fifth of the stars missing in each, brightness off by a fifth, places by 0.1 px."""
    x, y = rng.uniform(-SIZE / 2, 1.5 * SIZE, (2, 4 * per_frame))
    flux = rng.pareto(1.2, x.size)
    u, v = true(x, y) + rng.normal(0, 0.1, (2, x.size))

    def seen(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        inside = (a > 0) & (a < SIZE) & (b > 0) & (b < SIZE) & (rng.random(a.size) > 0.2)
        index = np.flatnonzero(inside)
        return index[np.argsort(-flux[index] * np.exp(rng.normal(0, 0.2, index.size)))]

    first, second = seen(x, y), seen(u, v)
    return x[first], y[first], u[second], v[second]


def error_px(found: Affine, true: Affine) -> float:
    """Largest distance of the two maps over the frame."""
    x, y = (a.ravel() for a in np.meshgrid([0.0, SIZE / 2, SIZE], [0.0, SIZE / 2, SIZE]))
    return float(np.max(np.hypot(*np.subtract(found(x, y), true(x, y)))))


@pytest.mark.parametrize("per_frame", [20, 60, 400])
@pytest.mark.parametrize("overlap", [1.0, 0.6])
@pytest.mark.parametrize("mirrored", [False, True])
def test_lists_that_lie_anyhow_are_matched(per_frame: int, overlap: float, mirrored: bool) -> None:
    """Any turn, a tenth of scale, either parity, 60 % in common: 14 of 15 found at least, and none wrong.

    Twenty stars of which 60 % and four fifths twice are in common are eight: some of those go unfound.
    """
    found = 0
    for number, (rotation, scale) in enumerate(product((0.0, 37.0, 90.0, 180.0, 271.0), (0.9, 1.0, 1.1))):
        true = turned(rotation, scale, mirrored, ((1 - overlap) * SIZE, 0.0))
        best = match_asterisms(*star_lists(np.random.default_rng(number), per_frame, true))
        if not best.is_significant:
            continue
        assert best.match is not None
        assert error_px(best.match.map, true) < 1.0
        assert best.is_mirrored == best.match.map.is_mirrored == mirrored
        assert best.match.map.scale == pytest.approx(scale, abs=1e-3)
        found += 1
    assert found >= (14 if per_frame * overlap > 12 else 9)


@pytest.mark.parametrize("per_frame", [6, 20, 100, 400])
def test_unrelated_fields_are_never_matched(per_frame: int) -> None:
    """0 of 50, whatever their number of stars."""
    identity = Affine.of_shift(0, 0)
    for seed in range(50):
        rng = np.random.default_rng(1000 + seed)
        one, other = (star_lists(rng, per_frame, identity) for _ in range(2))
        assert not match_asterisms(*one[:2], *other[2:]).is_significant


@pytest.mark.parametrize("n", [0, 1, 3, 4])
def test_too_few_stars_for_a_quad_and_one_more_are_no_match(n: int) -> None:
    """Four stars fit a quad by construction: they prove nothing."""
    rng = np.random.default_rng(3)
    x, y = rng.uniform(0, SIZE, (2, n))
    assert not match_asterisms(x, y, x, y).is_significant


def test_stars_on_one_spot_or_on_one_line_break_nothing() -> None:
    """Degenerate lists: a hot column, or twice the same list of one place."""
    line = np.arange(30.0) * 20
    for x, y in ((np.full(30, 5.0), line), (np.full(30, 5.0), np.full(30, 5.0))):
        match_asterisms(x, y, x, y)


def without_wcs(frame: Frame) -> Frame:
    """Its header says nothing of the sky."""
    return replace(frame, wcs=None)


def mirror_image(frame: Frame) -> Frame:
    """Read out from the other side; its header is silent."""
    science, variance, mask = (a[:, ::-1].copy() for a in (frame.science, frame.variance, frame.mask))
    return replace(frame, science=science, variance=variance, mask=mask, wcs=None)


def map_error_px(sky: Sky, registration, *, mirrored: bool = False) -> float:
    """Largest distance between the measured map and the true one, over the science frame."""
    ny, nx = sky.science.shape
    x, y = (a.ravel() for a in np.meshgrid(np.linspace(0, nx - 1, 9), np.linspace(0, ny - 1, 9)))
    u, v = sky.grid.to_reference(x, y)
    if mirrored:
        u = sky.reference.shape[1] - 1 - u
    return float(np.max(np.hypot(*np.subtract(registration.to_reference(x, y), (u, v)))))


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize(
    ("rotation", "scale"), [(33.0, 1.0), (90.0, 1.1), (180.0, 1.0), (-120.0, 0.9), (0.0, 1.1)]
)
def test_frames_without_a_wcs_are_registered_however_they_lie(
    rotation: float, scale: float, mirrored: bool
) -> None:
    """Turned, scaled and mirrored: found to a few hundredths of a pixel, and the way that was taken is said."""
    sky = make_sky(
        seed=31, shape=(400, 400), n_stars=90, rotation_deg=rotation, scale=scale, offset_px=(8.0, -5.0),
        reference_shape=(520, 520), with_wcs=False,
    )  # fmt: skip
    reference = mirror_image(sky.reference) if mirrored else sky.reference
    found = measure_registration(sky.science, reference)
    assert map_error_px(sky, found, mirrored=mirrored) < 0.08
    # a tenth of scale alone is within the reach of the vote on a shift
    assert (found.method, found.is_mirrored) == (
        ("asterisms", mirrored) if rotation or mirrored else ("stars", False)
    )
    assert found.scale == pytest.approx(scale, abs=5e-4)
    assert found.n_matched >= 20
    assert (found.ra_offset_arcsec, found.dec_offset_arcsec) == (None, None)
    sentence = registration_sentence(found)
    assert sentence is not None
    assert ("mirrored" in sentence) == mirrored
    assert sentence in align(sky.science, reference, found).reference.assumed


@pytest.mark.parametrize("error", [(150.0, -90.0), (360.0, 240.0), (-2000.0, 900.0)])
def test_a_wcs_that_is_wrong_by_arcminutes_is_overruled(error: tuple[float, float]) -> None:
    """Beyond the reach of a shift, or so wrong that the frames seem apart: found, and the error told in arcsec."""
    sky = make_sky(seed=32, shape=(400, 400), n_stars=90, wcs_error_px=error)
    found = measure_registration(sky.science, sky.reference)
    assert found.method == "asterisms"
    assert map_error_px(sky, found) < 0.05
    assert found.ra_offset_arcsec == pytest.approx(0.5 * error[0], rel=0.02)
    assert found.dec_offset_arcsec == pytest.approx(-0.5 * error[1], rel=0.02)
    assert "disagree with the stars" in (registration_sentence(found) or "")
    assert found.overlap_fraction > 0.99


@pytest.mark.parametrize(
    ("what", "change"),
    [
        ("a header that is turned by 90 degrees", lambda cd: cd @ np.array([[0.0, -1.0], [1.0, 0.0]])),
        ("a header of the wrong parity", lambda cd: cd @ np.diag([-1.0, 1.0])),
        ("a header whose pixels are 10 % too large", lambda cd: 1.1 * cd),
    ],
)
def test_a_wcs_of_the_wrong_shape_is_overruled(what: str, change) -> None:
    """Not only shifted: the rest of the header's error is measured as well."""
    sky = make_sky(seed=33, shape=(400, 400), n_stars=90, offset_px=(4.0, 3.0))
    wcs = sky.reference.wcs.deepcopy()
    wcs.wcs.cd = change(wcs.wcs.cd)
    wcs.wcs.set()
    found = measure_registration(sky.science, replace(sky.reference, wcs=wcs))
    assert map_error_px(sky, found) < 0.06, what
    assert found.method == ("wcs+stars" if "10 %" in what else "asterisms")


def test_stars_that_contradict_a_wcs_are_a_refusal() -> None:
    """Two skies under one header: 60 stars each that do not coincide cannot be subtracted, and it says how few do."""
    one, other = (make_sky(seed=s, shape=(400, 400), n_stars=90) for s in (34, 35))
    with pytest.raises(SubtractionRefused, match="the stars contradict the headers' WCS") as refused:
        measure_registration(one.science, other.reference)
    numbers = refused.value.numbers
    assert min(numbers["science_stars"], numbers["reference_stars"]) >= 40
    assert numbers["matched_by_asterisms"] < numbers["required"]
    assert f"{numbers['asterism_votes']} of {numbers['asterism_hits']} alike ones agree" in str(refused.value)


def test_fields_that_are_apart_stay_apart() -> None:
    """A correct header that says "little overlap" is not overruled by chance."""
    for seed in range(5):
        one = make_sky(seed=40 + seed, shape=(256, 256), n_stars=60)
        other = make_sky(seed=60 + seed, shape=(256, 256), n_stars=60, ra_deg=150.2)
        with pytest.raises(NothingToDo, match="overlap 0 %, need 60 %"):
            measure_registration(one.science, other.reference)


@pytest.mark.parametrize("mirrored", [False, True])
def test_a_turned_pair_is_subtracted_as_an_aligned_one(mirrored: bool) -> None:
    """The map is used as it was found: transients come back where they are, and nothing else does.

    Their places on the sky are unknown, as no header knows them: null, never invented.
    """
    sky = make_sky(
        seed=36, shape=(512, 512), n_stars=150, n_transients=12, transient_snr=(15.0, 60.0),
        rotation_deg=64.0, scale=1.05, reference_shape=(760, 760),
    )  # fmt: skip
    reference = mirror_image(sky.reference) if mirrored else without_wcs(sky.reference)
    pair = run_pair(without_wcs(sky.science), reference)
    assert pair.registration.method == "asterisms"
    assert any("matched by asterisms" in sentence for sentence in pair.difference.assumed)
    places = np.array([(c.x, c.y) for c in pair.candidates.items])
    truth = np.column_stack([sky.truth["x"], sky.truth["y"]])
    distance = np.hypot(*(truth[:, None, :] - places[None, :, :]).transpose(2, 0, 1))
    assert (distance.min(axis=1) < 1.0).sum() >= 11
    assert (distance.min(axis=0) > 3.0).sum() <= 1
    assert all(c.ra_deg is None and c.dec_deg is None for c in pair.candidates.items)
    with_header = run_pair(sky.science, reference)
    assert all(c.ra_deg is not None for c in with_header.candidates.items)
