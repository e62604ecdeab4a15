"""Stars are found where they are, as wide as they are, and the clean ones are stars."""

from types import SimpleNamespace

import numpy as np
import pytest
from scipy.spatial import cKDTree

from astrid_workers.imaging import stars
from astrid_workers.imaging.background import Background, estimate_background
from astrid_workers.imaging.moments import adaptive_moments
from astrid_workers.imaging.star_widths import half_sample_mode, like_stars, narrowest_crowd
from astrid_workers.imaging.stars import find_stars, frame_fwhm_px, measure_fwhm_px
from astrid_workers.mask import MaskBit
from astrid_workers.sky import make_sky
from astrid_workers.sky.light import Galaxies, Points, PsfModel, render


def stars_of(frame):
    return find_stars(frame.science, estimate_background(frame.science, frame.mask != 0), frame.mask)


@pytest.mark.parametrize("fwhm", [1.8, 2.6, 3.6, 5.5])
@pytest.mark.parametrize("beta", [2.5, 3.0, 4.5])
def test_the_width_is_the_full_width_at_half_maximum(fwhm: float, beta: float) -> None:
    """Within 4 % for narrow and wide profiles with weak and strong wings; never upside down."""
    sky = make_sky(seed=1, shape=(384, 384), n_stars=80, fwhm_science_px=fwhm, moffat_beta=beta)
    assert frame_fwhm_px(stars_of(sky.science)) == pytest.approx(fwhm, rel=0.04)


@pytest.mark.parametrize(("n_stars", "flux"), [(80, (2e3, 2e5)), (12, (2e3, 8e3)), (0, (2e3, 8e3))])
def test_the_quick_width_agrees_with_the_full_one(n_stars: int, flux: tuple[float, float]) -> None:
    """From bright stars where there are enough, from all of them otherwise, and NaN where there are none."""
    frame = make_sky(seed=1, shape=(320, 320), n_stars=n_stars, star_flux_e=flux, n_transients=0).science
    sky = estimate_background(frame.science)
    quick, full = measure_fwhm_px(frame.science, sky), frame_fwhm_px(find_stars(frame.science, sky))
    assert quick == pytest.approx(full, rel=0.03, nan_ok=True)


def test_the_quick_width_is_not_that_of_galaxies_where_bright_stars_clip() -> None:
    """A deep frame whose 500 brightest sources are saturated stars and galaxies."""
    sky = make_sky(
        seed=5, shape=(640, 640), n_stars=2000, star_flux_e=(2e3, 2e6), n_galaxies=400, galaxy_sigma_px=(2.0, 3.0),
        n_transients=0, fwhm_science_px=1.8, saturation_e=4000.0,
    )  # fmt: skip
    frame = sky.science
    width = measure_fwhm_px(frame.science, estimate_background(frame.science), frame.mask)
    assert width == pytest.approx(1.8, rel=0.15)


def test_the_wider_frame_measures_wider() -> None:
    """The earlier system had it inverted."""
    widths = [
        frame_fwhm_px(stars_of(make_sky(seed=2, shape=(256, 256), n_stars=50, fwhm_science_px=f).science))
        for f in (2.0, 3.0, 4.0, 5.0)
    ]
    assert widths == sorted(widths)


def test_positions_are_unbiased_and_sharp() -> None:
    """Clean stars: no offset beyond 0.01 px, scatter near the photon limit."""
    sky = make_sky(seed=3, n_stars=250)
    found = stars_of(sky.science)
    clean = found.only(found.clean)
    distance, index = cKDTree(np.column_stack([sky.star_x, sky.star_y])).query(
        np.column_stack([clean.x, clean.y])
    )
    near = distance < 0.5
    assert near.mean() > 0.93
    dx, dy = (clean.x - sky.star_x[index])[near], (clean.y - sky.star_y[index])[near]
    assert abs(np.median(dx)) < 0.01
    assert abs(np.median(dy)) < 0.01
    assert 1.4826 * np.median(np.abs(dx)) < 0.05
    ratio = clean.flux[near] / sky.star_flux_e[index[near]]
    assert 1.4826 * np.median(np.abs(ratio - np.median(ratio))) < 0.05


def test_clean_stars_are_stars() -> None:
    """Galaxies, cosmic rays, saturated and masked stars, pairs and edges are found but not clean."""
    sky = make_sky(
        seed=4,
        n_stars=150,
        n_galaxies=150,
        n_saturated=6,
        n_cosmic_rays=60,
        n_bad_columns=3,
        galaxy_sigma_px=(1.5, 3.0),
    )
    found = stars_of(sky.science)
    clean = found.only(found.clean)
    assert len(clean) >= 30
    distance, _ = cKDTree(np.column_stack([sky.star_x, sky.star_y])).query(
        np.column_stack([clean.x, clean.y])
    )
    assert (distance < 1.0).mean() > 0.93
    saturated = (sky.science.mask & MaskBit.SATURATED) != 0
    assert not saturated[np.rint(clean.y).astype(int), np.rint(clean.x).astype(int)].any()
    assert clean.x.min() > 5
    assert clean.x.max() < 506


@pytest.mark.parametrize("seed", range(3))
def test_few_stars_among_many_galaxies_are_the_stars(seed: int) -> None:
    """Galaxies four times as many crowd at a larger width, beyond a gap that the stars' crowd ends at."""
    sky = make_sky(
        seed=seed, shape=(1024, 1024), n_stars=40, n_galaxies=160, n_transients=0, fwhm_science_px=3.8,
        galaxy_sigma_px=(1.2, 3.0), star_flux_e=(1e4, 2e5),
    )  # fmt: skip
    found = stars_of(sky.science)
    clean = found.only(found.clean)
    distance, _ = cKDTree(np.column_stack([sky.star_x, sky.star_y])).query(
        np.column_stack([clean.x, clean.y])
    )
    assert len(clean) >= 15
    assert (distance < 1.0).mean() > 0.8
    assert frame_fwhm_px(found) == pytest.approx(3.8, rel=0.06)


@pytest.mark.parametrize(
    ("stars", "galaxies", "chosen"),
    [
        pytest.param((4.2, 27), (5.4, 60), 4.2, id="galaxies crowd within a quarter of the stars' width"),
        pytest.param((4.2, 27), (5.4, 20), 4.2, id="galaxies are fewer"),
        pytest.param((4.2, 300), (5.4, 60), 4.2, id="many stars"),
        pytest.param((4.2, 3), (5.4, 60), 5.4, id="three are no crowd"),
        pytest.param((3.0, 9), (4.8, 50), 3.0, id="nine stand apart from five times as many"),
        pytest.param((2.5, 6), (6.0, 90), 2.5, id="six stand far apart"),
        pytest.param(
            (4.2, 9), (4.8, 90), 4.8, id="nine that do not stand apart may be the galaxies' own edge"
        ),
    ],
)
def test_the_crowd_of_stars_ends_before_that_of_galaxies(
    stars: tuple[float, int], galaxies: tuple[float, int], chosen: float
) -> None:
    """Widths of both scatter by 4 and 6 %."""
    draw = np.random.default_rng(3)
    (narrow, some), (wide, others) = stars, galaxies
    widths = np.concatenate(
        [draw.normal(narrow, 0.04 * narrow, some), draw.normal(wide, 0.06 * wide, others)]
    )
    assert np.median(narrowest_crowd(widths)) == pytest.approx(chosen, rel=0.05)


@pytest.mark.parametrize("seed", range(5))
def test_an_empty_sky_has_no_stars(seed: int) -> None:
    """Noise alone gives no clean star and next to no source."""
    found = stars_of(make_sky(seed=seed, n_stars=0, n_transients=0).science)
    assert len(found) <= 3
    assert not found.clean.any()
    assert np.isnan(frame_fwhm_px(found)) or found.clean.any()


def test_the_order_is_brightest_first_and_repeatable() -> None:
    """The same frame gives the same list."""
    frame = make_sky(seed=5, shape=(256, 256), n_stars=60).science
    one, two = stars_of(frame), stars_of(frame)
    np.testing.assert_array_equal(one.x, two.x)
    assert (np.diff(one.flux[np.isfinite(one.flux)]) <= 0).all()


def test_ellipticity_is_measured() -> None:
    """Round frames are round, stretched ones as stretched as they are."""
    for true in (0.0, 0.2, 0.35):
        found = stars_of(make_sky(seed=6, shape=(320, 320), n_stars=80, ellipticity_science=true).science)
        assert np.median(found.ellipticity[found.clean]) == pytest.approx(true, abs=0.06)


def test_moments_of_a_gaussian_are_exact() -> None:
    """The kernel against truth: place, width, shape and flux of noiseless Gaussians at any sub-pixel place."""
    yy, xx = np.mgrid[:41, :41]
    for x, y, sx, sy in ((20.0, 20.0, 1.5, 1.5), (20.4, 19.3, 2.0, 1.4), (19.5, 20.5, 1.1, 1.1)):
        image = np.exp(-0.5 * (((xx - x) / sx) ** 2 + ((yy - y) / sy) ** 2)).astype(np.float32)
        found = adaptive_moments(image, np.array([20.0]), np.array([20.0]), np.array([1.7]))
        assert found.converged[0]
        assert found.x[0] == pytest.approx(x, abs=2e-3)
        assert found.y[0] == pytest.approx(y, abs=2e-3)
        assert found.fwhm_px[0] == pytest.approx(2.3548 * np.sqrt(sx * sy), rel=0.01)
        assert found.ellipticity[0] == pytest.approx(1 - min(sx, sy) / max(sx, sy), abs=0.01)
        assert found.flux[0] == pytest.approx(2 * np.pi * sx * sy, rel=0.02)


@pytest.mark.parametrize("fwhm", [1.4, 1.6, 1.7, 2.2])
def test_stars_hardly_wider_than_a_pixel_have_moments(fwhm: float) -> None:
    """Wherever they stand in their pixel, all of them: under a weight of their own width most of the narrowest
    would shrink to one pixel.
    """
    rng, fine = np.random.default_rng(12), 9
    alpha2 = (fwhm / 2) ** 2 / (2 ** (1 / 3.5) - 1)
    steps = (np.arange(41 * fine) + 0.5) / fine - 0.5
    widths = []
    for cx, cy in rng.uniform(19.5, 20.5, (60, 2)):
        radius2 = (steps[None, :] - cx) ** 2 + (steps[:, None] - cy) ** 2
        light = ((1 + radius2 / alpha2) ** -3.5).reshape(41, fine, 41, fine).mean(axis=(1, 3))
        found = adaptive_moments(light.astype(np.float32), np.rint([cx]), np.rint([cy]), np.array([0.8]))
        assert found.converged[0]
        assert np.hypot(found.x[0] - cx, found.y[0] - cy) < 0.1
        widths.append(float(found.fwhm_px[0]))
    assert np.ptp(widths) < 0.25 * np.median(widths)
    # pixels add their own variance, a twelfth, and wings some
    assert fwhm < np.median(widths) < 1.25 * np.hypot(fwhm, 2.3548 / np.sqrt(12))


def test_moments_of_nothing_do_not_converge() -> None:
    """Noise and empty squares give NaN, not a shape."""
    found = adaptive_moments(
        np.zeros((30, 30), np.float32), np.array([15.0]), np.array([15.0]), np.array([1.5])
    )
    assert not found.converged[0]
    assert np.isnan(found.fwhm_px[0])


def test_the_mode_is_where_most_values_are() -> None:
    """Half of the sample may lie elsewhere."""
    rng = np.random.default_rng(7)
    values = np.concatenate([rng.normal(3.0, 0.05, 60), rng.uniform(1, 12, 60)])
    assert half_sample_mode(values) == pytest.approx(3.0, abs=0.1)


@pytest.mark.parametrize("hidden", [0.0, 0.02, 0.3])
def test_a_frame_full_of_light_does_not_overflow(hidden: float) -> None:
    """sep's stack of detected pixels holds all of them, however many, and masked ones between them."""
    shape, random = (300, 400), np.random.default_rng(5)
    image = random.normal(1.2, 1.0, shape).astype(np.float32)
    image[:150] += 30
    flat = np.ones(shape, np.float32)
    sky = Background(SimpleNamespace(level=0 * flat, rms=flat), 0.0, 1.0, np.zeros(shape, bool))
    mask = np.where(random.random(shape) < hidden, np.uint32(MaskBit.BAD_PIXEL), np.uint32(0))
    assert len(find_stars(image, sky, mask)) > 0


def test_neighbours_are_found_in_the_wings_of_stars() -> None:
    """What is not found spoils the PSF of the star beside it: a twentieth of its light 2.4 FWHM away, and half
    a hundredth of it farther off.
    """
    size, fwhm, flux = 400, 3.6, 4e5
    x, y = (axis.ravel() for axis in np.meshgrid(np.arange(40.0, 380, 80) + 0.3, np.arange(40.0, 380, 80)))
    turn = np.arange(x.size)
    offsets = ((0 * turn, 0 * turn, 1.0), (8.7 * np.cos(turn), 8.7 * np.sin(turn), 0.05))
    offsets += ((16 * np.sin(turn), -16 * np.cos(turn), 0.005),)
    every = Points(
        np.concatenate([x + dx for dx, _, _ in offsets]),
        np.concatenate([y + dy for _, dy, _ in offsets]),
        np.concatenate([np.full(x.size, share * flux) for _, _, share in offsets]),
    )
    light = render((size, size), every, Galaxies(*[np.empty(0)] * 6), PsfModel(fwhm_px=fwhm))
    image = (400 + light + np.random.default_rng(3).normal(0, np.sqrt(400 + light))).astype(np.float32)
    found = find_stars(image, estimate_background(image))
    away, _ = cKDTree(np.column_stack([found.x, found.y])).query(np.column_stack([every.x, every.y]))
    assert np.count_nonzero(away < 2.0) >= 0.95 * away.size


def test_pieces_find_what_the_whole_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every source once, at its place, with its flux; at seams too."""
    frame = make_sky(seed=4, shape=(700, 500), n_stars=300, n_saturated=2).science
    whole = stars_of(frame)
    monkeypatch.setattr(stars, "PIECE_PX", 128)
    pieces = stars_of(frame)
    assert len(pieces) == pytest.approx(len(whole), abs=3)
    tree = cKDTree(np.column_stack([pieces.x, pieces.y]))
    away, which = tree.query(np.column_stack([whole.x, whole.y]))
    same = away < 0.01
    assert np.count_nonzero(same) > 0.98 * len(whole)
    assert np.unique(which[same]).size == np.count_nonzero(same)
    fitted = same & np.isfinite(whole.fwhm_px)
    assert pieces.flux[which[fitted]] == pytest.approx(whole.flux[fitted], rel=2e-3)
    assert np.mean(pieces.clean[which[same]] == whole.clean[same]) > 0.98


@pytest.mark.parametrize("n_stars", [900, 2500])
def test_the_brightest_of_a_crowd_are_the_same_without_a_search_for_the_faint(
    n_stars: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hardly any other of the 300 sources, the same width, and thresholds were indeed higher."""
    frame = make_sky(seed=7, shape=(640, 640), n_stars=n_stars, star_flux_e=(2e3, 2e5)).science
    sky, asked = estimate_background(frame.science), []
    extracted = stars._extracted
    monkeypatch.setattr(stars, "_extracted", lambda *a: asked.append(a[2]) or extracted(*a))
    quick = find_stars(frame.science, sky, frame.mask, most=300)
    assert max(asked) > 5.0
    assert 5.0 not in asked
    monkeypatch.setattr(stars, "HIGHER", ())
    full = find_stars(frame.science, sky, frame.mask, most=300)
    assert asked[-1] == 5.0
    distance, _ = cKDTree(np.column_stack([full.x, full.y])).query(np.column_stack([quick.x, quick.y]))
    assert np.mean(distance < 0.5) > 0.95
    assert frame_fwhm_px(quick) == pytest.approx(frame_fwhm_px(full), rel=0.01)
    assert np.count_nonzero(quick.clean) >= 0.9 * np.count_nonzero(full.clean)


def test_wide_light_with_few_sources_does_not_hide_faint_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """A galaxy that fills half of the frame has pixels enough for a crowd: what it leaves is counted."""
    frame = make_sky(seed=8, shape=(320, 320), n_stars=60, n_galaxies=0, n_transients=0).science
    y, x = np.mgrid[:320, :320]
    level = np.full((320, 320), np.float32(frame.science.mean()))
    wide = frame.science + (400 * np.exp(-((x - 160) ** 2 + (y - 160) ** 2) / 2 / 70**2)).astype(np.float32)
    rms = np.full_like(level, 20)
    sky = Background(SimpleNamespace(level=level, rms=rms), float(level[0, 0]), 20.0, rms < 0)
    monkeypatch.setattr(stars, "CROWDED_PX", 5)
    found = find_stars(wide, sky, frame.mask)
    monkeypatch.setattr(stars, "HIGHER", ())
    full = find_stars(wide, sky, frame.mask)
    np.testing.assert_array_equal(found.x, full.x)


def _widths_of(
    rng: np.random.Generator, stars: int, galaxies: int, gradient: float
) -> tuple[np.ndarray, np.ndarray, tuple[np.ndarray, np.ndarray]]:
    """Widths, S/N and places; the stars first, 7 px wide and wider to the right, galaxies 9 to 32 % wider."""
    n = stars + galaxies
    x, y = rng.uniform(0, 1000, n), rng.uniform(0, 1000, n)
    snr = np.exp(rng.uniform(np.log(25), np.log(600), n))
    own = np.r_[np.zeros(stars), rng.uniform(3, 6, galaxies)]
    width = np.hypot(7 * (1 + gradient * (x / 1000 - 0.5)), own)
    return width * (1 + rng.normal(0, 1.0 / snr)), snr, (x, y)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("gradient", [0.0, 0.15])
def test_stars_among_many_more_galaxies_are_what_nothing_is_narrower_than(seed: int, gradient: float) -> None:
    """Twenty-five among a hundred whose widths begin next to theirs."""
    fwhm, snr, places = _widths_of(np.random.default_rng(seed), 25, 100, gradient)
    alike = like_stars(fwhm, np.zeros_like(fwhm), snr, np.ones(len(fwhm), bool), places)
    assert np.count_nonzero(alike[:25]) >= 10
    assert np.median(fwhm[alike]) == pytest.approx(np.median(fwhm[:25]), rel=0.04)


@pytest.mark.parametrize("seed", range(8))
def test_the_narrow_side_of_many_stars_is_no_plane(seed: int) -> None:
    """Two hundred stars and few galaxies: most of the stars are kept, and their width is the median's."""
    fwhm, snr, places = _widths_of(np.random.default_rng(100 + seed), 200, 30, 0.2)
    alike = like_stars(fwhm, np.zeros_like(fwhm), snr, np.ones(len(fwhm), bool), places)
    assert np.count_nonzero(alike[:200]) > 120
    assert np.median(fwhm[alike]) == pytest.approx(np.median(fwhm[:200]), rel=0.02)
