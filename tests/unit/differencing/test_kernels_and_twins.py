"""Fast kernels against slow twins: tiles, dilation, noise correlation, filling."""

import numpy as np
import pytest
from scipy import fft, ndimage

from astrid_workers.differencing.alard_lupton import Unmatched
from astrid_workers.differencing.tiles import Prepared, plan_tiles, subtract
from astrid_workers.imaging import inpaint
from astrid_workers.imaging.grow import grow
from astrid_workers.imaging.inpaint import fill_pair, fill_smoothly
from astrid_workers.imaging.moved_stamp import moved_stamp
from astrid_workers.imaging.noise_model import measure_noise, shared_light, white_noise
from astrid_workers.imaging.psf import Psf, given_psf, moffat_stamp
from astrid_workers.imaging.transfer import psf_hat, stamp_hat

SHAPE = (180, 200)


class PlainZogy:
    """a_n = P_r and a_r = gain × P_n, constant over the frame."""

    varies = False

    def __init__(self, psf_n: np.ndarray, psf_r: np.ndarray, gain: float) -> None:
        self.psf_n, self.psf_r, self.gain = psf_n, psf_r, gain

    def transfer(self, x: float, y: float, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        """The same everywhere."""
        return stamp_hat(self.psf_r, size), self.gain * stamp_hat(self.psf_n, size)


def prepared(
    seed: int = 1, noise_n: float = 2.0, noise_r: float = 1.0
) -> tuple[Prepared, np.ndarray, np.ndarray]:
    """White noise with one new source of flux 400, and the two PSFs."""
    rng = np.random.default_rng(seed)
    psf_n, psf_r = moffat_stamp(3.0, 27), moffat_stamp(2.4, 27)
    science = rng.normal(0, noise_n, SHAPE).astype(np.float32)
    reference = rng.normal(0, noise_r, SHAPE).astype(np.float32)
    science[80:107, 90:117] += 400 * psf_n
    planes = [np.full(SHAPE, level**2, np.float32) for level in (noise_n, noise_r)]
    pair = Prepared(
        science, reference, planes[0], planes[1], np.ones(SHAPE, bool), white_noise(), white_noise(),
        given_psf(psf_n, SHAPE), given_psf(psf_r, SHAPE),
    )  # fmt: skip
    return pair, psf_n, psf_r


def zogy_of_the_paper(
    pair: Prepared, psf_n: np.ndarray, psf_r: np.ndarray, gain: float
) -> tuple[np.ndarray, ...]:
    """Equations 13 and 17 of Zackay, Ofek & Gal-Yam (2016) on the whole, zero-padded frame, double precision."""
    ny, nx = SHAPE
    size = (ny + 60, nx + 60)
    pn, pr = (fft.fft2(np.roll(np.pad(p.astype(float), ((0, size[0] - 27), (0, size[1] - 27))), (-13, -13), (0, 1)))
              for p in (psf_n, psf_r))  # fmt: skip
    n, r = (fft.fft2(np.pad(i.astype(float), ((0, 60), (0, 60)))) for i in (pair.science, pair.reference))
    vn, vr = float(pair.variance_science[0, 0]), float(pair.variance_reference[0, 0]) * gain**2
    den = vr * np.abs(pn) ** 2 + vn * np.abs(pr) ** 2
    difference = fft.ifft2((pr * n - gain * pn * r) / np.sqrt(den) * np.sqrt(vn + vr)).real
    score = fft.ifft2(np.conj(pn * pr) * (pr * n - gain * pn * r) / den).real
    response = np.mean(np.abs(pn * pr) ** 2 / den)
    return difference[:ny, :nx], score[:ny, :nx], response


@pytest.mark.parametrize("size", [(54, 60), (81, 81), (16, 20)])
def test_a_psf_is_transformed_as_its_stamp_is(size: tuple[int, int]) -> None:
    """From the transforms of its terms, at any place, on grids of both parities and smaller than the stamp."""
    stamps = [moffat_stamp(width, 27) for width in (3.0, 2.7, 3.3)]
    terms = np.stack([stamps[0], 0.1 * (stamps[1] - stamps[0]), 0.1 * (stamps[2] - 1.02 * stamps[0])])
    psf = Psf(terms, SHAPE, 3.0, 50, "stars", "made up")
    for x, y in ((0.0, 0.0), (99.5, 89.5), (170.0, 20.0)):
        np.testing.assert_allclose(psf_hat(psf, x, y, size), stamp_hat(psf.at(x, y), size), atol=1e-6)


def test_tiles_add_up_to_the_formula_of_the_paper() -> None:
    """Difference, statistic and flux response of the tiled transform equal ZOGY on the whole frame."""
    pair, psf_n, psf_r = prepared()
    whole_d, whole_s, response = zogy_of_the_paper(pair, psf_n, psf_r, 0.8)
    parts = subtract(pair, PlainZogy(psf_n, psf_r, 0.8), plan_tiles(SHAPE, 13, 64))
    assert parts.kernels.difference_psf.shape[:2] != (1, 1)
    assert np.abs(parts.difference - whole_d).max() < 0.01 * whole_d.std()
    assert np.abs(parts.statistic - whole_s).max() < 0.01 * whole_s.std()
    assert parts.response == pytest.approx(response, rel=1e-3)


def test_difference_is_white_and_its_variance_known() -> None:
    """Far from sources neighbours are uncorrelated and the scatter is what the variance says."""
    pair, psf_n, psf_r = prepared(seed=2)
    parts = subtract(pair, PlainZogy(psf_n, psf_r, 0.8), plan_tiles(SHAPE, 13, 64))
    empty = parts.difference[:60, :]
    assert empty.std() == pytest.approx(np.sqrt(parts.variance[:60].mean()), rel=0.03)
    assert abs(np.corrcoef(empty[:, :-1].ravel(), empty[:, 1:].ravel())[0, 1]) < 0.03


def test_statistic_has_the_variance_that_is_propagated() -> None:
    """Statistic over the root of its variance scatters by 1, with no factor anywhere."""
    pair, psf_n, psf_r = prepared(seed=3)
    parts = subtract(pair, PlainZogy(psf_n, psf_r, 0.8), plan_tiles(SHAPE, 13, 64))
    pulls = (parts.statistic / np.sqrt(parts.score_variance))[20:70, 20:-20]
    assert pulls.std() == pytest.approx(1.0, abs=0.08)


def test_flux_is_statistic_over_response() -> None:
    """The peak of the statistic over the response is the flux of the new source."""
    pair, psf_n, psf_r = prepared(seed=4, noise_n=0.2, noise_r=0.1)
    parts = subtract(pair, PlainZogy(psf_n, psf_r, 0.8), plan_tiles(SHAPE, 13, 64))
    assert (parts.statistic / parts.response)[93, 103] == pytest.approx(400, rel=0.01)
    assert parts.difference[80:107, 90:117].sum() == pytest.approx(400, rel=0.05)


def test_brighter_pixels_have_more_variance() -> None:
    """Photons of a source raise the variance of the statistic around it, and only there."""
    pair, psf_n, psf_r = prepared(seed=5)
    variance = pair.variance_science.copy()
    variance[90:97, 100:107] += 100
    parts = subtract(
        Prepared(pair.science, pair.reference, variance, *(getattr(pair, n) for n in pair.__slots__[3:])),
        PlainZogy(psf_n, psf_r, 0.8), plan_tiles(SHAPE, 13, 64),
    )  # fmt: skip
    assert parts.score_variance[93, 103] > 5 * parts.score_variance[20, 20]
    assert parts.score_variance[20, 20] == pytest.approx(float(np.median(parts.score_variance)), rel=0.01)


def test_plain_subtraction_is_science_minus_gain_times_reference() -> None:
    """Without matching the difference is exactly that."""
    pair, _, _ = prepared(seed=6)
    parts = subtract(pair, Unmatched(0.8), plan_tiles(SHAPE, 13, 64))
    expected = pair.science - np.float32(0.8) * pair.reference
    assert np.abs(parts.difference - expected).max() < 1e-3


@pytest.mark.parametrize("pixels", [0, 1, 2, 3, 5, 9])
def test_grow_is_a_square_dilation(pixels: int) -> None:
    """Doubling shifts give what a dilation by every pixel gives."""
    mask = np.random.default_rng(pixels).random((70, 90)) > 0.99
    square = np.ones((2 * pixels + 1, 2 * pixels + 1), bool)
    expected = ndimage.binary_dilation(mask, square) if pixels else mask
    assert np.array_equal(grow(mask, pixels), expected)


def test_noise_correlation_is_found_and_its_power_integrates_to_one() -> None:
    """Noise smoothed by a known kernel has that kernel's autocorrelation; a wrong variance plane is a ratio."""
    rng = np.random.default_rng(8)
    kernel = np.array([[0.05, 0.1, 0.05], [0.1, 0.4, 0.1], [0.05, 0.1, 0.05]])
    image = ndimage.convolve(rng.normal(0, 3, (500, 500)), kernel, mode="wrap").astype(np.float32)
    model = measure_noise(image, np.full((500, 500), 4.0, np.float32), np.ones((500, 500), bool))
    expected = float((kernel[:, :-1] * kernel[:, 1:]).sum() / (kernel**2).sum())
    lag = model.correlation.shape[0] // 2
    assert model.correlation[lag, lag + 1] == pytest.approx(expected, abs=0.02)
    assert model.correlation[lag + 1, lag] == pytest.approx(expected, abs=0.02)
    assert model.variance_ratio == pytest.approx(9 * (kernel**2).sum() / 4.0, rel=0.03)
    full = np.concatenate([model.power((64, 64)), model.power((64, 64))[:, 1:-1]], axis=1)
    assert full.mean() == pytest.approx(1.0, abs=0.03)


def test_white_noise_is_called_white() -> None:
    """No correlation is invented where there is none."""
    image = np.random.default_rng(9).normal(0, 2, (400, 400)).astype(np.float32)
    model = measure_noise(image, np.full((400, 400), 4.0, np.float32), np.ones((400, 400), bool))
    assert model.is_white
    assert model.variance_ratio == pytest.approx(1.0, abs=0.02)


def _crowd(fwhm_px: float, flux: float, seed: int) -> np.ndarray:
    """Stars too faint to be found, three for a hundred pixels, through a Gaussian PSF."""
    drawn = np.random.default_rng(seed).poisson(0.03, (500, 500)) * flux
    return ndimage.gaussian_filter(drawn, fwhm_px / 2.3548, mode="wrap")


@pytest.mark.parametrize(("flux", "noisier", "off"), [(180.0, 1.05, 0.05), (800.0, 2.2, 0.25)])
def test_light_that_two_frames_share_is_no_noise(flux: float, noisier: float, off: float) -> None:
    """Stars below the noise make a frame's own sky look a tenth noisier, or more than twice as variable where they
    are most of what is seen, and correlated over a PSF.
    """
    rng, white = np.random.default_rng(10), np.full((500, 500), 400.0, np.float32)
    sharp, broad = _crowd(2.8, flux, 11), _crowd(3.6, flux, 11)
    frames = [
        (light - np.median(light) + rng.normal(0, 20, white.shape)).astype(np.float32)
        for light in (sharp, broad)
    ]
    sky = np.ones(white.shape, bool)
    shapes = shared_light(frames, (white, white), sky, (2.8, 3.6))
    for frame, shape in zip(frames, shapes, strict=True):
        alone, known = measure_noise(frame, white, sky), measure_noise(frame, white, sky, shape)
        assert alone.variance_ratio > noisier
        assert known.variance_ratio == pytest.approx(1.0, abs=off)
        off_centre = known.correlation.copy()
        off_centre[4, 4] = 0.0
        assert np.abs(off_centre).max() < off < np.abs(alone.correlation[4, 5])


def test_light_that_claims_more_than_there_is_leaves_the_noise_as_it_was() -> None:
    """A wrong estimate must not make a variance negative, and all scores with it."""
    image = np.random.default_rng(12).normal(0, 2, (400, 400)).astype(np.float32)
    plane, sky = np.full(image.shape, 4.0, np.float32), np.ones(image.shape, bool)
    model = measure_noise(image, plane, sky, np.full((9, 9), 1.5))
    assert model.variance_ratio == measure_noise(image, plane, sky).variance_ratio


@pytest.mark.parametrize("seed", range(3))
def test_frames_that_share_nothing_are_said_to_share_nothing(seed: int) -> None:
    """Neither independent noise nor independent crowds count as light of both."""
    white = np.full((500, 500), 400.0, np.float32)
    rng = np.random.default_rng(seed)
    frames = [
        (_crowd(3.0, 200.0, seed + 50 * number) + rng.normal(0, 20, white.shape)).astype(np.float32)
        for number in (1, 2)
    ]
    assert shared_light(frames, (white, white), np.ones(white.shape, bool), (3.0, 3.0)) == (None, None)


def test_holes_are_filled_from_their_rim_and_nothing_else_is_touched() -> None:
    """A hole in a slope is filled to about the slope; measured pixels keep their bits."""
    image = np.fromfunction(lambda y, x: 50 + 0.2 * x + 0 * y, (60, 60), dtype=np.float32).astype(np.float32)
    hole = np.zeros((60, 60), bool)
    hole[25:32, 25:32] = True
    filled = fill_smoothly(np.where(hole, np.float32(1e6), image), hole)
    assert np.array_equal(filled[~hole], image[~hole])
    assert np.abs(filled[hole] - image[hole]).max() < 0.25 * 55


def test_a_hole_in_one_frame_is_filled_from_the_other() -> None:
    """A cosmic ray on a star leaves the star, since the other frame saw it."""
    star = 1000 * moffat_stamp(3.0, 41).astype(np.float32)
    hole = np.zeros((41, 41), bool)
    hole[19:22, 20] = True
    science = np.where(hole, np.float32(5e4), 0.7 * star).astype(np.float32)
    filled, other = fill_pair(science, star, (hole, np.zeros_like(hole)), 0.7, 0.0)
    assert np.abs(filled - 0.7 * star).max() < 1.0
    assert np.array_equal(other, star)


@pytest.mark.parametrize("blur_px", [-1.7, 0.0, 2.3])
def test_bands_fill_as_the_whole_frame_does(monkeypatch: pytest.MonkeyPatch, blur_px: float) -> None:
    """Bit by bit, also where a hole lies across the border of two bands."""
    rng = np.random.default_rng(4)
    images = rng.normal(0, 5, (2, 700, 90)).astype(np.float32)
    holes = rng.random((2, 700, 90)) < 0.02
    holes[:, 180:260, 30:60] = True
    holes[0, 395:405, 10:80] = True
    whole = fill_pair(images[0], images[1], (holes[0], holes[1]), 0.7, blur_px)
    monkeypatch.setattr(inpaint, "BAND_ROWS", 200)
    bands = fill_pair(images[0], images[1], (holes[0], holes[1]), 0.7, blur_px)
    for one, other in zip(whole, bands, strict=True):
        np.testing.assert_array_equal(one, other)


class SlopingGain:
    """No PSF matching, a gain that rises along x and falls along y."""

    varies = True

    def transfer(self, x: float, y: float, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        """`(1, gain(x, y))`."""
        one = np.ones((size[0], size[1] // 2 + 1), np.complex64)
        return one, one * np.float32(1 + 0.002 * x - 0.001 * y)

    def moves_on_grid(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """A plane, which slopes follow."""
        moves = np.zeros((3, len(y), len(x)))
        moves[0] = 1 + 0.002 * x - 0.001 * y[:, None]
        return moves


def test_kernels_slope_within_a_tile() -> None:
    """A kernel that varies linearly over the frame is exact at every pixel, with no step between tiles."""
    pair, _, _ = prepared(seed=7)
    parts = subtract(pair, SlopingGain(), plan_tiles(SHAPE, 13, 64))
    y, x = np.indices(SHAPE)
    expected = pair.science - (1 + 0.002 * x - 0.001 * y) * pair.reference
    assert np.abs(parts.difference - expected).max() < 1e-3 * expected.std()


@pytest.mark.parametrize("step", [(0.0, 0.0), (0.3, -0.45), (1.0, -1.0), (-0.999, 0.5)])
def test_a_psf_moves_as_its_fourier_series_does(step: tuple[float, float]) -> None:
    psf = np.random.default_rng(4).normal(size=(21, 21)).astype(np.float32)
    waves = -2j * np.pi * np.fft.fftfreq(21)
    phase = np.exp(waves[:, None] * step[1] + waves * step[0])
    slow = np.fft.ifft2(np.fft.fft2(psf) * phase).real
    np.testing.assert_allclose(moved_stamp(psf, *step), slow, atol=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_holes_are_filled_as_the_slow_twin_fills_them(seed: int) -> None:
    """Round by round, every hole pixel looks at its four neighbours, whichever was filled last."""
    rng = np.random.default_rng(seed)
    image, hole = rng.normal(size=(70, 60)).astype(np.float32), rng.random((70, 60)) < 0.03
    hole[5:68, 2:56] = True  # deeper than all rounds reach
    hole[30:34, 20:60] = False
    filled, known, fade = np.pad(np.where(hole, 0, image), 3).astype(float), np.pad(~hole, 3), 1.0
    axis = np.arange(-3, 4)
    kernel = np.exp(-0.5 * (axis[:, None] ** 2 + axis**2) / 1.5**2)
    kernel /= kernel.sum()
    for _ in range(24):
        rim = [
            (y, x)
            for y, x in np.argwhere(np.pad(hole, 3) & ~known)
            if known[y - 1, x] or known[y + 1, x] or known[y, x - 1] or known[y, x + 1]
        ]
        found = {}
        for y, x in rim:
            share = known[y - 3 : y + 4, x - 3 : x + 4] * kernel
            if share.sum() > 0.2:
                found[y, x] = fade * (share * filled[y - 3 : y + 4, x - 3 : x + 4]).sum() / share.sum()
        for place, value in found.items():
            filled[place], known[place] = value, True
        fade = 0.95
    np.testing.assert_allclose(fill_smoothly(image, hole), filled[3:-3, 3:-3], atol=1e-5)
