"""The PSF: its width the right way up, its wings, its normalisation, its variation, its fallback."""

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import pytest
from scipy import ndimage

from astrid_workers.differencing.measure import Measured, measure_frame
from astrid_workers.differencing.products import DifferenceOptions
from astrid_workers.errors import SubtractionRefused
from astrid_workers.imaging.measure_psf import (
    WIDTH_ERROR,
    allowed_order,
    as_wide_as_others_there,
    measure_psf,
)
from astrid_workers.imaging.psf import given_psf, measure_fwhm, moffat_psf, moffat_stamp, polynomial
from astrid_workers.imaging.psf_variation import shape_images, varying_terms, with_varying_wings
from astrid_workers.imaging.psf_wings import light_under_stars
from astrid_workers.imaging.star_stack import STARS_FOR_FREE_PIXELS, near_neighbours, solve_each
from astrid_workers.imaging.stars import Stars
from astrid_workers.sky import Sky, make_sky
from astrid_workers.sky.light import Galaxies, Points, PsfModel, render


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """A sky and what was measured of its science frame."""

    sky: Sky
    measured: Measured


@lru_cache(maxsize=8)
def seen(fwhm: float = 3.4, n_stars: int = 120, gradient: float = 0.0, beta: float = 3.0) -> Seen:
    """A star field of 512 × 512."""
    sky = make_sky(
        seed=5, shape=(512, 512), n_stars=n_stars, n_transients=0, fwhm_science_px=fwhm, psf_gradient=gradient,
        moffat_beta=beta,
    )  # fmt: skip
    return Seen(sky, measure_frame(sky.science, DifferenceOptions()))


def truth(sky: Sky, x: float, size: int) -> np.ndarray:
    """The true PSF at a column, of unit light over all the sky, cut to a stamp."""
    wide = 301
    model = sky.psf_science
    parts = zip(model.weights(np.array(float(x))), model.basis(), strict=True)
    whole = sum(float(w) * part.stamp(wide) for w, part in parts)
    margin = (wide - size) // 2
    return np.asarray(whole)[margin:-margin, margin:-margin]


@pytest.mark.parametrize("fwhm", [2.2, 3.4, 5.0])
def test_width_is_that_of_the_stars_not_its_inverse(fwhm: float) -> None:
    """A wider PSF measures wider, within 3 %: an earlier system had the estimate upside down."""
    assert seen(fwhm).measured.psf.fwhm_px == pytest.approx(fwhm, rel=0.03)


@pytest.mark.parametrize("beta", [2.5, 3.0, 4.5])
def test_light_within_one_width_is_right_whatever_the_wings(beta: float) -> None:
    """Fluxes lean on the share of light in the core: within 2 % for shallow and steep wings."""
    case = seen(beta=beta)
    stamp = case.measured.psf.stamp
    true = truth(case.sky, 256, stamp.shape[0])
    core = np.hypot(*np.indices(stamp.shape) - stamp.shape[0] // 2) < 3.4
    assert stamp[core].sum() == pytest.approx(true[core].sum(), rel=0.02)


def test_stamp_reaches_four_widths_and_sums_to_one() -> None:
    """Wing flux that a stamp misses comes back as a ring around every star."""
    psf = seen().measured.psf
    assert psf.size_px >= 2 * 4 * 3.4
    assert psf.size_px % 2 == 1
    assert psf.stamp.sum() == pytest.approx(1.0, abs=1e-4)
    assert psf.stamp.dtype == np.float32


def test_psf_follows_its_variation_over_the_frame() -> None:
    """Evaluated left and right, a PSF that widens by 20 % does so."""
    psf = seen(n_stars=200, gradient=0.2).measured.psf
    left, right = measure_fwhm(psf.at(60, 256)), measure_fwhm(psf.at(450, 256))
    assert psf.order >= 1
    assert right / left == pytest.approx(1.15, abs=0.05)


@pytest.mark.parametrize("cause", ["seeing", "optics"])
def test_wings_vary_with_the_core_as_far_as_stars_show_it(cause: str) -> None:
    """Of a PSF whose core is wider on one side, fluxes are right within 0.6 % there and here.

    Seeing widens the wings too: kept as they are, fluxes are 2 % wrong. Optics blur the core alone: widened wings
    make as much of a mistake.
    """
    fwhm, radius = 3.4, np.hypot(*np.indices((35, 35)) - 17)
    wide, narrow = (_stretched(fwhm, cause, side) for side in (1.0, -1.0))
    true = np.stack([(narrow + wide) / 2, (wide - narrow) / 2])
    rng = np.random.default_rng(2)
    basis = np.stack([np.ones(120), rng.uniform(-1, 1, 120)], axis=1)
    sigma = 10 ** rng.uniform(-5, -3.5, 120)[:, None, None]
    stamps = np.tensordot(basis, true, axes=1) + sigma * rng.normal(size=(120, 35, 35))
    stamps[3] += 0.02 * np.roll(true[0], 9, axis=1)  # a galaxy that was not told apart
    measured = np.stack([true[0], true[1] + 1e-5 * rng.normal(size=(35, 35))])
    terms = with_varying_wings(measured, stamps, 0 * stamps + sigma**-2, basis, radius, fwhm)
    assert terms[0] == pytest.approx(true[0])
    for side in (-1, 1):
        assert _flux_by(terms[0] + side * terms[1], true[0] + side * true[1]) == pytest.approx(1.0, abs=0.006)


def test_wings_that_stay_the_same_are_wrong_where_the_seeing_varies() -> None:
    """What the test above would miss if it were to miss it."""
    radius = np.hypot(*np.indices((35, 35)) - 17)
    for side in (-1.0, 1.0):
        star = _stretched(3.4, "seeing", side)
        middle = (_stretched(3.4, "seeing", 1.0) + _stretched(3.4, "seeing", -1.0)) / 2
        kept = np.where(radius < 1.65 * 3.4, star, middle)
        assert abs(_flux_by(kept, star) - 1) > 0.012


def _stretched(fwhm: float, cause: str, side: float) -> np.ndarray:
    """A star's profile at one side of the frame, its core wider or narrower by a tenth."""
    if cause == "seeing":
        return PsfModel(fwhm * (1 + 0.1 * side)).stamp(301)[133:-133, 133:-133]
    sharp = PsfModel(0.85 * fwhm).stamp(301)
    return ndimage.gaussian_filter(sharp, 0.5 + 0.25 * side, truncate=12.0)[133:-133, 133:-133]


def _flux_by(psf: np.ndarray, star: np.ndarray) -> float:
    """Of a star of unit light over all the sky, by a PSF that is normalised as those of frames are."""
    unit = psf / psf.sum() * star.sum()
    return float((unit * star).sum() / (unit * unit).sum())


@pytest.mark.parametrize("fwhm", [1.6, 1.8, 2.2, 2.8, 3.6])
def test_widening_a_psf_adds_what_a_wider_one_has(fwhm: float) -> None:
    """Within 6 % of the largest change, for undersampled PSFs too, whose Fourier derivative rings."""
    size = 2 * int(np.ceil(4.8 * fwhm)) + 1
    wider, narrower = (PsfModel(fwhm * factor).stamp(size) for factor in (1.001, 0.999))
    change = (wider - narrower) / 0.002
    added = shape_images(PsfModel(fwhm).stamp(size))[0]
    assert np.abs(added - change).max() < 0.06 * np.abs(change).max()
    far = np.hypot(*np.indices(added.shape) - size // 2) > 2 * fwhm
    assert np.abs(added - change)[far].sum() < 0.1 * np.abs(change)[far].sum()


def test_what_lies_under_bright_and_faint_stars_is_told_from_their_wings() -> None:
    """Rings of stars of many fluxes: what they have in common, and the star with a galaxy beside it."""
    rng = np.random.default_rng(8)
    flux = 10 ** rng.uniform(3.5, 5.2, 250)
    level = 3e-5 * flux * rng.uniform(0.8, 1.2, 250) + 0.25 + rng.normal(0, 1.0, 250)
    level[17] += 20.0
    light, alone = light_under_stars(level, np.ones(250), flux, 20.0)
    assert light == pytest.approx(0.25, abs=0.2)
    assert not alone[17]
    assert np.count_nonzero(~alone) <= 3


def test_nothing_is_taken_off_where_little_is_known() -> None:
    """Five stars of one brightness cannot tell a wing from what lies under it; a ring without pixels is no
    evidence.
    """
    error = np.array([3.0, 3.0, 3.0, 3.0, np.inf])
    light, alone = light_under_stars(np.full(5, 2.0), error, np.full(5, 1e4), 20.0)
    assert abs(light) < 0.2
    assert alone.all()


def test_neighbours_are_left_out_as_far_as_they_count_beside_the_star() -> None:
    """One of a hundredth of the star's light its own core, one as bright as the star far more."""
    stars = replace(
        seen().measured.stars.only(np.arange(2)), x=np.array([50.0, 60.0]), y=np.array([50.0, 50.0]),
        fwhm_px=np.array([3.4, 3.4]),
    )  # fmt: skip
    faint, bright = (
        near_neighbours(replace(stars, flux=np.array([1e4, flux])), np.array([0]), 16)[0]
        for flux in (1e2, 1e4)
    )
    assert faint[16, 16 + 10]
    assert not faint[16, 16 + 7]
    assert bright[16, 16 + 5]
    assert not bright[16, 16 + 2]


def test_few_stars_give_a_psf_that_varies_without_following_their_noise() -> None:
    """The width of 28 stars changes by 10 %, fluxes fitted with one PSF by 9 %: theirs agree within 2 % rms."""
    case = seen(n_stars=40, gradient=0.1)
    psf = case.measured.psf
    ratios = []
    for x in (60, 256, 450):
        for y in (60, 256, 450):
            stamp = psf.at(x, y).astype(float)
            ratios.append((stamp * truth(case.sky, x, stamp.shape[0])).sum() / (stamp**2).sum())
    assert psf.n_stars < STARS_FOR_FREE_PIXELS
    assert psf.order >= 1
    assert np.std(ratios) < 0.02
    assert np.mean(ratios) == pytest.approx(1.0, abs=0.03)


def test_shapes_that_vary_are_found_and_carry_no_light() -> None:
    """From noiseless stars, their moments' slopes come back; a blend among them changes nothing."""
    rng = np.random.default_rng(4)
    centre = moffat_stamp(3.0, 31).astype(float)
    basis = polynomial(rng.uniform(0, 500, 30), rng.uniform(0, 500, 30), (500, 500), 1)
    shapes = shape_images(centre)
    slopes = np.array([[0.05, 0.02, -0.03], [-0.02, 0.04, 0.01]])
    stamps = centre + np.einsum("nt,ts,sij->nij", basis[:, 1:], slopes, shapes)
    stamps *= rng.uniform(0.9, 1.1, 30)[:, None, None]  # fluxes that were fitted a little wrong
    stamps[7] += np.roll(0.5 * centre, 3, axis=1)
    weights = np.full_like(stamps, 1e8)
    terms = varying_terms(centre, stamps, weights, basis)
    assert terms.sum(axis=(1, 2)) == pytest.approx(np.zeros(2), abs=1e-12)
    assert terms == pytest.approx(np.tensordot(slopes, shapes, axes=1), abs=2e-4)


def test_few_stars_give_a_declared_fallback() -> None:
    """Fewer than eight clean stars are no stack: a Moffat of the measured width, and the sentence says so."""
    psf = seen(n_stars=5).measured.psf
    assert psf.model == "moffat"
    assert psf.fwhm_px == pytest.approx(3.4, rel=0.1)
    assert "8 needed" in psf.why


def test_no_star_at_all_is_refused_with_numbers() -> None:
    """Without a width nothing can be assumed."""
    case = seen()
    none = case.measured.stars.only(np.zeros(len(case.measured.stars.x), bool))
    with pytest.raises(SubtractionRefused, match="0 detections"):
        measure_psf(case.measured.image, case.measured.variance, case.measured.unusable, none)


def test_neighbours_and_bad_pixels_do_not_enter_the_stack() -> None:
    """Bad pixels beside every star change nothing visible."""
    case = seen()
    bad = case.measured.unusable.copy()
    image = case.measured.image.copy()
    columns = np.clip(np.rint(case.measured.stars.x).astype(int) + 4, 0, 511)
    rows = np.clip(np.rint(case.measured.stars.y).astype(int), 0, 511)
    bad[rows[::2], columns[::2]], image[rows[::2], columns[::2]] = True, 60_000
    spoilt = measure_psf(image, case.measured.variance, bad, case.measured.stars)
    assert np.abs(spoilt.stamp - case.measured.psf.stamp).max() < 0.03 * case.measured.psf.stamp.max()


@pytest.mark.parametrize("corner", [(1, 1), (-1, -1)], ids=["low x and y", "high x and y"])
def test_a_star_whose_core_is_covered_bends_no_psf(corner: tuple[int, int]) -> None:
    """What a neighbour covers shows no flux: scaled by next to none, its wings would be any shape at all."""
    case = seen(n_stars=200)
    stars, bad = case.measured.stars, case.measured.unusable.copy()
    clean = np.flatnonzero(stars.clean)
    outmost = clean[np.argmax(-(stars.x[clean] * corner[0] + stars.y[clean] * corner[1]))]
    rows, columns = np.indices(bad.shape)
    bad |= np.hypot(columns - stars.x[outmost], rows - stars.y[outmost]) < 1.5 * 3.4
    psf = measure_psf(case.measured.image, case.measured.variance, bad, stars)
    whole = case.measured.psf
    assert psf.n_stars < whole.n_stars
    assert np.abs(psf.at(stars.x[outmost], stars.y[outmost]) - whole.stamp).max() < 0.1 * whole.stamp.max()


@pytest.mark.parametrize("fwhm", [1.6, 2.5, 4.0, 7.0])
def test_width_of_a_known_stamp(fwhm: float) -> None:
    """The half-maximum area of a Moffat integrated over pixels is its width, with the pixel's own in it."""
    assert measure_fwhm(moffat_stamp(fwhm, 61)) == pytest.approx(np.hypot(fwhm, 0.75), rel=0.06)


def test_orders_need_stars() -> None:
    """A variation is fitted only when stars can carry it."""
    assert [allowed_order(n, 2) for n in (10, 24, 25, 59, 60, 500)] == [0, 0, 1, 1, 2, 2]
    assert allowed_order(500, 0) == 0


def test_polynomials_have_their_origin_in_the_middle() -> None:
    """At the frame's centre only the constant counts, so the first term is the PSF there."""
    terms = polynomial(np.array([49.5, 99.5]), np.array([24.5, 24.5]), (50, 100), 2)
    assert terms[0] == pytest.approx([1, 0, 0, 0, 0, 0])
    assert terms[1] == pytest.approx([1, 1, 0, 1, 0, 0])


def test_given_psf_is_normalised_and_constant() -> None:
    """A library PSF is used as it is, but for its sum."""
    psf = given_psf(5 * moffat_stamp(3.0, 31), (100, 100))
    assert psf.at(0, 0).sum() == pytest.approx(1.0, abs=1e-5)
    assert psf.model == "given"


def test_fallback_keeps_the_frame_it_was_made_for() -> None:
    """The Moffat stands for every place of the frame."""
    psf = moffat_psf(3.0, (40, 60), 2)
    assert psf.frame_shape == (40, 60)
    assert np.array_equal(psf.at(0, 0), psf.at(59, 39))
    assert replace(psf, n_stars=3).order == 0


def test_all_stars_are_fitted_as_their_slow_twin_fits_one() -> None:
    """Flux, centre and pedestal by the normal equations of each star, with weights of 0 and a prior."""
    random = np.random.default_rng(4)
    design, data = random.normal(size=(4, 9, 9)), random.normal(size=(20, 9, 9))
    weight = np.where(random.random((20, 9, 9)) < 0.3, 0.0, random.random((20, 9, 9)))
    held = random.random((20, 4))
    for solution, values, weights, prior in zip(
        solve_each(design, data, weight, held), data, weight, held, strict=True
    ):
        root = np.sqrt(weights.ravel())
        rows = np.vstack([design.reshape(4, -1).T * root[:, None], np.diag(np.sqrt(prior))])
        wanted = np.append(values.ravel() * root, np.zeros(4))
        np.testing.assert_allclose(solution, np.linalg.lstsq(rows, wanted, rcond=None)[0], rtol=1e-6)


def test_one_bright_star_in_a_corner_is_not_the_psf_of_the_whole_frame() -> None:
    """Of 30 stars one is fifty times as bright, where the PSF is a tenth wider: the middle stays as it is."""
    rng = np.random.default_rng(5)
    places = rng.uniform(60, 452, (30, 2))
    places[0] = (450, 256)
    image, table = _field_that_widens(places, np.append(3e5, np.full(29, 6e3)), rng)
    psf = measure_psf(image, np.full(image.shape, 25.0, np.float32), np.zeros(image.shape, bool), table)
    assert psf.order == 1
    assert measure_fwhm(psf.at(256, 256)) == pytest.approx(3.4, rel=0.015)
    assert measure_fwhm(psf.at(450, 256)) == pytest.approx(3.4 * 1.075, rel=0.03)


def _field_that_widens(
    places: np.ndarray, flux: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, Stars]:
    """Stars at `(n, 2)` places whose width grows by a tenth from the middle to the right edge."""
    image = rng.normal(0, 5, (512, 512))
    widths = 3.4 * (1 + 0.1 * (places[:, 0] - 255.5) / 256)
    for (x, y), light, width in zip(np.rint(places), flux, widths, strict=True):
        stamp = PsfModel(float(width)).stamp(101)
        top, left = max(int(y) - 50, 0), max(int(x) - 50, 0)
        part = stamp[top - int(y) + 50 :, left - int(x) + 50 :][: 512 - top, : 512 - left]
        image[top : top + part.shape[0], left : left + part.shape[1]] += light * part
    even = np.ones(len(flux))
    whole = np.rint(places)
    table = Stars(
        whole[:, 0], whole[:, 1], flux, widths, 0 * even, flux / 13, flux / 50, np.ones(len(flux), bool)
    )
    return image.astype(np.float32), table


@pytest.mark.parametrize(
    ("said", "n_stars", "change", "snr", "is_kept"),
    [
        ("a bright star with a host on its wing, no wider than stars are elsewhere", 150, 0.07, 500.0, False),
        ("a bright one that is too narrow", 150, -0.07, 500.0, False),
        ("what a PSF may vary by besides is allowed", 150, 0.012, 500.0, True),
        ("of a faint one nothing is known", 150, 0.07, 25.0, True),
        ("too few stars for a map: all are kept", 50, 0.07, 500.0, True),
    ],
)
def test_a_star_is_as_wide_as_those_about_it(
    said: str, n_stars: int, change: float, snr: float, is_kept: bool
) -> None:
    """Widths that vary over the frame by 20 %, each known as well as its S/N allows."""
    rng = np.random.default_rng(4)
    x, y = rng.uniform(0, 1000, (2, n_stars))
    known = np.exp(rng.uniform(np.log(25), np.log(600), n_stars))
    x[0], y[0], known[0] = 100.0 if change > 0 else 900.0, 100.0, snr
    widths = 3.5 * (1 + 0.2 * x / 1000) * (1 + rng.normal(0, WIDTH_ERROR, n_stars) / known)
    widths[0] = 3.5 * (1 + 0.2 * x[0] / 1000) * (1 + change)
    assert widths.min() < widths[0] < widths.max(), said
    kept = as_wide_as_others_there(x, y, widths, known, (1000, 1000))
    assert kept[0] == is_kept, said
    assert np.mean(kept) > 0.95


def test_hosts_on_the_wings_of_bright_stars_do_not_shape_a_psf() -> None:
    """Five of the brightest stars have a tenth of their light again 1.2 FWHM away, in a frame whose seeing
    varies by a tenth: the light within 1.6 px stays right, within 0.4 % in the mean over the frame.
    """
    sky = make_sky(
        seed=6, shape=(640, 640), n_stars=300, n_transients=0, fwhm_science_px=3.4, psf_gradient=0.1,
        star_flux_e=(3e3, 3e5),
    )  # fmt: skip
    stars = measure_frame(sky.science, DifferenceOptions()).stars
    hosted = np.flatnonzero(stars.clean)[1:40:8]
    turn = np.arange(hosted.size)
    hosts = Points(
        stars.x[hosted] + 4 * np.cos(turn), stars.y[hosted] + 4 * np.sin(turn), 0.1 * stars.flux[hosted]
    )
    light = render(sky.science.shape, hosts, Galaxies(*[np.empty(0)] * 6), sky.psf_science)
    spoilt = replace(sky.science, science=sky.science.science + light.astype(np.float32))
    psf = measure_frame(spoilt, DifferenceOptions()).psf
    core = np.hypot(*np.indices(psf.stamp.shape) - psf.size_px // 2) < 1.6
    excess = [
        psf.at(x, y)[core].sum() / truth(sky, x, psf.size_px)[core].sum() - 1
        for x in (100.0, 320.0, 540.0)
        for y in (100.0, 320.0, 540.0)
    ]
    assert np.mean(excess) == pytest.approx(0.0, abs=0.004)


@pytest.mark.parametrize("beta", [2.4, 3.0, 3.6, 4.6])
def test_a_few_stars_tell_the_exponent_of_the_fallback(beta: float) -> None:
    """A star fitted with it has its flux within 2 %; with an exponent of 3 for all, 8 % were lost or gained."""
    sky = make_sky(
        seed=2, shape=(512, 512), n_stars=7, n_galaxies=10, n_transients=0, fwhm_science_px=3.2,
        moffat_beta=beta, star_flux_e=(1e4, 2e5),
    )  # fmt: skip
    psf = measure_frame(sky.science, DifferenceOptions()).psf
    assert psf.model == "moffat"
    assert f"exponent {beta:g} " in psf.why
    true, model = moffat_stamp(3.2, psf.size_px, beta).astype(float), psf.stamp.astype(float)
    assert (true * model).sum() / (model**2).sum() == pytest.approx(1.0, abs=0.02)
