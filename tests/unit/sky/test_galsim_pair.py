"""A pair drawn by GalSim, a simulator that is not ours, keeps the same bars: nothing was tuned on our own sky only."""

import io
from dataclasses import dataclass
from functools import lru_cache

import galsim
import numpy as np
import pytest
from astropy.io import fits

from astrid_workers.differencing.pair import PairResult, run_pair
from astrid_workers.preprocessing.calibrate import calibrate
from astrid_workers.sky.grid import tan_wcs
from astrid_workers.storage.fits import read_frame

SIDE = 1024
SKY_E, READ_NOISE_E, SATURATION_E = 400.0, 5.0, 90_000.0
FLUX_SCALE = 0.85
SHIFT = (2.3, -1.6)


def science_psf(x: float, y: float):
    """Kolmogorov, wider to the right, sheared more to the top."""
    return galsim.Kolmogorov(fwhm=3.2 * (1 + 0.08 * x / SIDE)).shear(g1=0.03 * y / SIDE, g2=0.01)


def reference_psf(x: float, y: float):
    """Moffat, wider to the top."""
    return galsim.Moffat(beta=3.2, fwhm=2.7 * (1 + 0.05 * y / SIDE)).shear(g1=-0.01, g2=0.02)


@dataclass(frozen=True)
class Drawn:
    """FITS files of both frames and the transients of the science frame."""

    science: bytes
    reference: bytes
    x: np.ndarray
    y: np.ndarray
    flux_e: np.ndarray


def as_fits(light: np.ndarray, rng: np.random.Generator, shift: tuple[float, float]) -> bytes:
    """Photon and read noise on `light` and a flat sky, clipped where the detector is full; gain 1."""
    drawn = rng.poisson(np.maximum(light + SKY_E, 0)) + rng.normal(0, READ_NOISE_E, light.shape)
    wcs = tan_wcs(light.shape, 150.0, 2.0, 0.5)
    wcs.wcs.crpix += np.array(shift)
    header = wcs.to_header()
    for card, value in (
        ("GAIN", 1.0),
        ("RDNOISE", READ_NOISE_E),
        ("SATURATE", SATURATION_E),
        ("EXPTIME", 60.0),
    ):
        header[card] = value
    buffer = io.BytesIO()
    fits.PrimaryHDU(np.minimum(drawn, SATURATION_E).astype(np.float32), header).writeto(buffer)
    return buffer.getvalue()


def paint(canvas, source, x: float, y: float, half: int) -> None:
    """Add a source at a 0-based place; what lies outside the canvas is lost."""
    bounds = galsim.BoundsI(
        round(x) + 1 - half, round(x) + 1 + half, round(y) + 1 - half, round(y) + 1 + half
    )
    inside = bounds & canvas.bounds
    if inside.isDefined():
        source.drawImage(image=canvas[inside], add_to_image=True, center=galsim.PositionD(x + 1, y + 1))


@lru_cache(maxsize=1)
def draw_pair() -> Drawn:
    """Stars, Sérsic hosts and transients on blank sky and on hosts."""
    rng = np.random.default_rng(20260)
    n_stars, n_hosts, n_transients = 700, 150, 80
    stars = rng.uniform(-10, SIDE + 10, (n_stars, 2))
    star_flux = 2e3 * rng.uniform(size=n_stars) ** (-1 / 0.6)
    star_flux = np.minimum(star_flux, 3e5)
    hosts = rng.uniform(0, SIDE, (n_hosts, 2))
    places = rng.uniform(60, SIDE - 60, (n_transients, 2))
    places[: n_transients // 2] = hosts[: n_transients // 2] + rng.normal(0, 1.0, (n_transients // 2, 2))
    flux = np.exp(rng.uniform(np.log(3e3), np.log(2e4), n_transients))
    frames = []
    for psf_at, scale, shift in ((science_psf, 1.0, (0.0, 0.0)), (reference_psf, 1 / FLUX_SCALE, SHIFT)):
        canvas = galsim.ImageD(SIDE, SIDE, scale=1.0)
        shapes = np.random.default_rng(7)
        for (x, y), f in zip(stars, star_flux, strict=True):
            half = 24 if f < 2e4 else 48
            paint(canvas, psf_at(x, y).withFlux(f * scale), x + shift[0], y + shift[1], half)
        for x, y in hosts:
            disc = galsim.Sersic(
                n=shapes.uniform(1, 2.5), half_light_radius=shapes.uniform(1.5, 4.0), trunc=25.0
            )
            disc = disc.shear(g1=shapes.uniform(-0.2, 0.2), g2=shapes.uniform(-0.2, 0.2))
            seen = galsim.Convolve(disc.withFlux(scale * shapes.uniform(4e3, 3e4)), psf_at(x, y))
            paint(canvas, seen, x + shift[0], y + shift[1], 40)
        if scale == 1.0:
            for (x, y), f in zip(places, flux, strict=True):
                paint(canvas, psf_at(x, y).withFlux(f), x, y, 24)
        frames.append(as_fits(canvas.array, rng, shift))
    return Drawn(frames[0], frames[1], places[:, 0], places[:, 1], flux)


@lru_cache(maxsize=1)
def subtracted() -> PairResult:
    """As a user runs it: files in, defaults, candidates out."""
    pair = draw_pair()
    science, reference = (
        calibrate(read_frame(data, name=name)).frame
        for data, name in ((pair.science, "science"), (pair.reference, "reference"))
    )
    return run_pair(science, reference)


def inside(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Away from the frame's edge."""
    return (x > 40) & (y > 40) & (x < SIDE - 40) & (y < SIDE - 40)


def test_the_noise_of_a_foreign_sky_is_what_is_said() -> None:
    """Scatter 1.00 ± 0.03 and median 0 of the score on empty sky, without any rescaling that is not reported."""
    checked = subtracted().validation
    assert checked.std == pytest.approx(1.0, abs=0.03)
    assert abs(checked.median) <= 0.1
    assert checked.tail_ratio <= 1.5


def test_a_foreign_sky_gives_hardly_a_false_candidate() -> None:
    """At most 2 per Mpix, of every cause: stars, hosts and the edge included."""
    pair, found = draw_pair(), subtracted().candidates.items
    x, y = np.array([c.x for c in found]), np.array([c.y for c in found])
    near = np.min(np.hypot(pair.x[:, None] - x, pair.y[:, None] - y), axis=0) < 3
    false = np.count_nonzero(~near & inside(x, y))
    assert false / ((SIDE - 80) ** 2 / 1e6) <= 2.0, [(c.x, c.y, c.score, c.flags) for c in found]


def test_fluxes_on_a_foreign_sky_are_unbiased() -> None:
    """Transients are found, and the median of measured over true flux is 1 within a per cent."""
    pair, found = draw_pair(), subtracted().candidates.items
    ratios = []
    for x, y, flux in zip(pair.x, pair.y, pair.flux_e, strict=True):
        close = [c for c in found if np.hypot(c.x - x, c.y - y) < 2.5]
        if close and inside(np.array(x), np.array(y)):
            ratios.append(close[0].flux / flux)
    assert len(ratios) >= 0.9 * np.count_nonzero(inside(pair.x, pair.y))
    assert np.median(ratios) == pytest.approx(1.0, abs=0.01)
