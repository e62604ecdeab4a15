"""Cosmic rays in frames whose stars are hardly wider than a pixel, told from point sources."""

import numpy as np
import pytest
from scipy import fft

from astrid_workers.differencing.direct_hits import DirectFrame, without_hits
from astrid_workers.differencing.pair import run_pair
from astrid_workers.differencing.pixel_hits import hit_gain, hit_profile
from astrid_workers.differencing.products import Candidate, Candidates
from astrid_workers.frame import Frame, HeaderFacts
from astrid_workers.imaging.moved_stamp import moved_middles, moved_stamp
from astrid_workers.imaging.psf import moffat_stamp
from astrid_workers.preprocessing.calibrate import calibrate
from astrid_workers.sky import make_sky

SIDE = 25
PSF = moffat_stamp(1.7, SIDE).astype(float)
LONE = np.zeros((SIDE, SIDE))
LONE[SIDE // 2, SIDE // 2] = 1
GOOD = np.ones((SIDE, SIDE), bool)


def gain(image: np.ndarray, place: tuple[float, float] = (0.0, 0.0)) -> float:
    return hit_gain(image, np.ones_like(image), GOOD, PSF, LONE, place)


def wins(drawn: np.ndarray, snr: float, place: tuple[float, float]) -> float:
    """Share of images of unit noise with this S/N in which hits win by six."""
    rng = np.random.default_rng(1)
    strength = snr / np.sqrt(np.sum(drawn**2))
    return float(
        np.mean([gain(strength * drawn + rng.normal(size=PSF.shape), place) > 6 for _ in range(300)])
    )


@pytest.mark.parametrize(("snr", "hits", "stars"), [(5.0, 0.65, 0.03), (7.0, 0.9, 0.01), (12.0, 0.99, 0.0)])
def test_a_hit_is_told_from_a_point_source(snr: float, hits: float, stars: float) -> None:
    """At least so many hits of one pixel and of two, and at most so many stars wherever in their pixel."""
    for drawn in (LONE, LONE + 0.7 * np.roll(LONE, 1, axis=1)):
        assert wins(drawn, snr, (0.0, 0.0)) > hits
    for place in ((0.0, 0.0), (0.4, -0.3), (0.5, 0.5)):
        assert wins(moved_stamp(PSF, *place), snr, place) <= stars


def test_what_a_hit_becomes_is_the_psf_without_that_of_the_frame() -> None:
    """A difference whose PSF is the frame's convolved with a kernel: the kernel is left."""
    kernel = moffat_stamp(1.5, SIDE).astype(float)
    kernel = moved_stamp(kernel, 0.3, 0.0)
    through = fft.rfft2(fft.ifftshift(PSF)) * fft.rfft2(fft.ifftshift(kernel))
    seen = fft.fftshift(fft.irfft2(through, s=(SIDE, SIDE)))
    np.testing.assert_allclose(hit_profile(seen, PSF[4:-4, 4:-4]), kernel, atol=0.06 * kernel.max())


def test_middles_are_those_of_moved_stamps() -> None:
    """The slow twin: one at a time, cut out."""
    across, down = (-0.3, 0.0, 0.4), (0.1, -1.0)
    found = moved_middles(PSF, across, down, 4)
    twins = [moved_stamp(PSF, dx, dy)[8:17, 8:17] for dy in down for dx in across]
    np.testing.assert_allclose(found, twins, atol=1e-12)


def candidate(x: float, y: float, score: float, *flags: str) -> Candidate:
    return Candidate(
        0, x, y, 0.1, 0.1, None, None, score, 1.0, abs(score), score, None, None, None, score > 0, flags
    )


def direct(image: np.ndarray, fwhm_px: float = 1.7, *, is_science: bool = True) -> DirectFrame:
    none = np.zeros(image.shape, np.uint32)
    frame = Frame(
        image.astype(np.float32), np.ones(image.shape, np.float32), none, None, "adu", HeaderFacts()
    )
    return DirectFrame(frame, fwhm_px, lambda _x, _y: PSF, lambda x, y: (x, y), 4.0, is_science)


def test_hits_are_set_aside_and_counted() -> None:
    """A hit, a star, a hit on a host, one in the other frame, one at the edge: the first alone goes."""
    rng = np.random.default_rng(3)
    image = 100 + rng.normal(size=(120, 120))
    hits = [(30, 30), (90, 30), (30, 90), (4, 60)]
    for x, y in hits:
        image[y, x] += 9
    image[78:103, 78:103] += 9 / np.sqrt(np.sum(PSF**2)) * PSF
    found = Candidates(
        (
            candidate(30, 30, 9),
            candidate(90, 90, 9),
            candidate(90, 30, 9, "on_source"),
            candidate(30, 90, -9),
            candidate(4, 60, 9),
        ),
        5.0,
        {"sharp": 2},
    )
    blank = direct(np.full((120, 120), 100.0) + rng.normal(size=(120, 120)), is_science=False)
    left = without_hits(found, direct(image), blank)
    assert [(c.x, c.y) for c in left.items] == [(90, 90), (90, 30), (30, 90), (4, 60)]
    assert [c.index for c in left.items] == [0, 1, 2, 3]
    assert left.rejected == {"sharp": 3}
    assert without_hits(found, direct(image, 3.0), blank) is found
    assert without_hits(found, direct(image, float("nan")), blank) is found


@pytest.mark.parametrize(
    ("reference_px", "n_stars", "masked", "most"),
    [(1.6, 300, True, 2), (1.6, 300, False, 9), (2.8, 60, False, 20)],
    ids=[
        "calibrated",
        "raw",
        "raw, with a broader reference, in which the difference has lost what rays fill",
    ],
)
def test_rays_of_an_undersampled_frame_are_not_delivered_and_its_transients_are(
    reference_px: float, n_stars: int, masked: bool, most: int
) -> None:
    """FWHM 1.6 px, 90 rays in each frame, those that stand out masked in calibration, or none."""
    sky = make_sky(
        seed=8801, shape=(768, 768), n_stars=n_stars, n_galaxies=100, n_transients=90, n_cosmic_rays=90,
        transient_snr=(6.0, 40.0), fwhm_science_px=1.6, fwhm_reference_px=reference_px,
    )  # fmt: skip
    frames = [calibrate(each).frame if masked else each for each in (sky.science, sky.reference)]
    found = run_pair(*frames).candidates.items
    x, y = (np.array([getattr(c, axis) for c in found]) for axis in "xy")
    near = np.hypot(x[:, None] - sky.truth["x"], y[:, None] - sky.truth["y"]) < 2
    assert np.count_nonzero(~near.any(axis=1)) <= most
    assert near.any(axis=0)[sky.truth["snr_local"] > 10].mean() > 0.95
