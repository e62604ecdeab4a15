"""RA and Dec are ICRS in whatever coordinates, order and equinox the header has them."""

import numpy as np
import pytest
from astropy.coordinates import FK4, FK5, ICRS, BarycentricMeanEcliptic, SkyCoord, Supergalactic
from astropy.io import fits

from astrid_workers.celestial import pixel_of, sky_of
from astrid_workers.differencing.extract_sources import _place
from astrid_workers.differencing.products import Candidate
from astrid_workers.frame import HeaderFacts
from astrid_workers.imaging.registration_search import ThroughSky
from astrid_workers.imaging.star_match import Affine
from astrid_workers.ingestion.frame_summary import corners_of
from astrid_workers.positions import read_positions
from astrid_workers.storage.fits import FrameHeader
from astrid_workers.storage.fits_wcs import celestial_wcs

SHAPE = (100, 100)
#: Where the tangent point of every header below lies.
CENTRE = SkyCoord(150.0, 2.2, unit="deg")
#: One at the middle of the frame.
CANDIDATE = Candidate(
    index=0, x=49.5, y=49.5, x_err=0.1, y_err=0.1, ra_deg=None, dec_deg=None, flux=100.0, flux_err=10.0, snr=10.0,
    score=10.0, fwhm_px=None, elongation=None, chi2=None, is_positive=True, flags=(),
)  # fmt: skip


def cards_of(
    lon_deg: float, lat_deg: float, kind: tuple[str, str] = ("RA--", "DEC-"), **more: object
) -> dict:
    """A TAN header, longitude to the left, with the tangent point at the middle."""
    return {
        "CTYPE1": f"{kind[0]}-TAN", "CTYPE2": f"{kind[1]}-TAN", "CRVAL1": lon_deg, "CRVAL2": lat_deg,
        "CRPIX1": 50.5, "CRPIX2": 50.5, "CD1_1": -1e-4, "CD1_2": 0.0, "CD2_1": 0.0, "CD2_2": 1e-4, **more,
    }  # fmt: skip


def wcs_of(cards: dict):
    wcs, trouble = celestial_wcs(fits.Header(cards), SHAPE)
    assert trouble is None
    return wcs


def frames() -> dict[str, tuple[dict, object]]:
    """Headers in many coordinates around one place, and what astropy calls these."""
    fk4, fk5 = FK4(equinox="B1950"), FK5(equinox="J1975")
    galactic = CENTRE.galactic
    ecliptic, supergalactic = (
        CENTRE.transform_to(BarycentricMeanEcliptic()),
        CENTRE.transform_to(Supergalactic()),
    )
    old, older = CENTRE.transform_to(fk5), CENTRE.transform_to(fk4)
    return {
        "ICRS": (cards_of(150.0, 2.2), ICRS()),
        "icrs": (cards_of(150.0, 2.2, RADESYS="icrs"), ICRS()),
        "J2000": (cards_of(150.0, 2.2, RADESYS="J2000"), ICRS()),
        "FK5": (cards_of(150.0, 2.2, EQUINOX=2000.0), ICRS()),
        "FK5 J1975": (cards_of(old.ra.deg, old.dec.deg, RADESYS="FK5", EQUINOX=1975.0), fk5),
        "FK4": (cards_of(older.ra.deg, older.dec.deg, RADESYS="FK4", EQUINOX=1950.0), fk4),
        "B1950": (cards_of(older.ra.deg, older.dec.deg, EQUINOX=1950.0), fk4),
        "galactic": (
            cards_of(galactic.l.deg, galactic.b.deg, ("GLON", "GLAT"), RADESYS="ICRS"),
            galactic.frame,
        ),
        "supergalactic": (
            cards_of(supergalactic.sgl.deg, supergalactic.sgb.deg, ("SLON", "SLAT")),
            supergalactic.frame,
        ),
        "ecliptic": (
            cards_of(ecliptic.lon.deg, ecliptic.lat.deg, ("ELON", "ELAT"), EQUINOX=2000.0),
            ecliptic.frame,
        ),
    }


@pytest.mark.parametrize("name", frames())
def test_positions_are_icrs(name: str) -> None:
    """As astropy turns the header's own coordinates, to a milliarcsecond, and back to the pixel."""
    cards, frame = frames()[name]
    wcs = wcs_of(cards)
    x, y = np.array([10.0, 90.0, np.nan]), np.array([20.0, 55.0, np.nan])
    lon, lat = wcs.all_pix2world(x[:2], y[:2], 0)
    expected = SkyCoord(lon, lat, unit="deg", frame=frame.replicate_without_data()).icrs
    ra, dec = sky_of(wcs, x, y)
    np.testing.assert_allclose(ra[:2], expected.ra.deg, rtol=0, atol=3e-7)
    np.testing.assert_allclose(dec[:2], expected.dec.deg, rtol=0, atol=3e-7)
    assert np.isnan([ra[2], dec[2]]).all()
    np.testing.assert_allclose(pixel_of(wcs, ra, dec), [x, y], atol=1e-4)


def swapped(cards: dict) -> dict:
    """The same image with its world axes in the other order."""
    other = {"1": "2", "2": "1"}
    turned = {f"{key}{other[n]}": cards[f"{key}{n}"] for key in ("CTYPE", "CRVAL") for n in other}
    turned |= {f"CD{other[i]}_{j}": cards[f"CD{i}_{j}"] for i in other for j in other}
    return cards | turned


@pytest.mark.parametrize("more", [{}, {"CTYPE3": "FREQ", "CRVAL3": 1e9, "CDELT3": 1.0, "CRPIX3": 1.0}])
def test_declination_may_come_first(more: dict) -> None:
    """With and without a third axis: world axes change places, pixels do not."""
    cards = cards_of(150.0, 2.2) | {"CD1_2": 3e-5}
    plain, turned = wcs_of(cards | more), wcs_of(swapped(cards) | more)
    x, y = np.array([10.0, 90.0]), np.array([20.0, 55.0])
    np.testing.assert_allclose(sky_of(turned, x, y), sky_of(plain, x, y), rtol=0, atol=1e-10)
    np.testing.assert_allclose(pixel_of(turned, *sky_of(plain, x, y)), [x, y], atol=1e-4)


@pytest.mark.parametrize(
    "cards", [swapped(cards_of(150.0, 2.2)), frames()["galactic"][0], frames()["FK4"][0]]
)
def test_every_position_that_is_told_is_icrs(cards: dict) -> None:
    """Centre and corners of a header, positions of users, candidates, and the way through two headers."""
    wcs = wcs_of(cards)
    header = FrameHeader("x", SHAPE, "", "adu", HeaderFacts(), wcs)
    assert header.centre_deg == pytest.approx((150.0, 2.2), abs=1e-6)
    assert np.mean(corners_of(wcs, SHAPE), axis=0) == pytest.approx((150.0, 2.2), abs=1e-5)
    by_pixel = read_positions("x,y\n49.5,49.5", "p.csv").on(wcs)
    assert (by_pixel.ra_deg[0], by_pixel.dec_deg[0]) == pytest.approx((150.0, 2.2), abs=1e-6)
    by_sky = read_positions("ra,dec\n150,2.2", "p.csv").on(wcs)
    assert (by_sky.x[0], by_sky.y[0]) == pytest.approx((49.5, 49.5), abs=1e-3)
    through = ThroughSky(wcs, wcs_of(cards_of(150.0, 2.2)), Affine.of_shift(0, 0))
    x, y = through(np.array([49.5]), np.array([49.5]))
    assert (x[0], y[0]) == pytest.approx((49.5, 49.5), abs=1e-3)
    (candidate,) = _place([CANDIDATE], wcs)
    assert (candidate.ra_deg, candidate.dec_deg) == pytest.approx((150.0, 2.2), abs=1e-6)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"CTYPE1": "MALN-TAN", "CTYPE2": "MALT-TAN"}, "CTYPE1 is MALN-TAN: coordinates that cannot be"),
        ({"CTYPE1": "TLON-TAN", "CTYPE2": "TLAT-TAN"}, "CTYPE1 is TLON-TAN: coordinates that cannot be"),
        ({"RADESYS": "GAPPT"}, "CTYPE1 is RA---TAN and RADESYS is GAPPT: coordinates that cannot be"),
        ({"EQUINOX": 0.0}, "EQUINOX is 0, expected 1800 to 2100"),
        ({"CTYPE1": "FREQ", "CTYPE2": "RA---TAN", "CTYPE3": "DEC--TAN"}, "CTYPE1, CTYPE2 are FREQ, RA---TAN"),
    ],
)
def test_coordinates_that_icrs_does_not_follow_from_are_no_wcs(changes: dict, sentence: str) -> None:
    """Taken as no WCS, with the card that says so."""
    wcs, trouble = celestial_wcs(fits.Header(cards_of(150.0, 2.2) | changes), SHAPE)
    assert wcs is None
    assert trouble is not None
    assert trouble.startswith(sentence)
    assert trouble.endswith("taken as no WCS")


@pytest.mark.parametrize(
    "terms",
    [
        {"PV1_1": 1.0, "PV2_1": 1.0},
        {"PV1_0": 1e-4, "PV1_1": 1.001, "PV1_2": 2e-3, "PV2_0": 0.0, "PV2_1": 0.999, "PV2_2": 0.0},
        {"PV2_0": 1e-4},
        {"PV1_1": 1.0, "PV1_4": 0.05, "PV2_1": 1.0, "PV2_4": 0.03},
        {"PV1_1": 1.0, "PV1_7": 0.5, "PV2_1": 1.0, "PV2_10": 0.5},
    ],
)
def test_the_polynomial_of_scamp_acts_at_every_degree(terms: dict) -> None:
    """TAN with PV cards is TPV: the plane's coordinates are what the terms make of them, by hand."""
    wcs = wcs_of(cards_of(150.0, 2.2, **terms))
    xi, eta = -1e-4 * 30, 1e-4 * 20

    def distorted(axis: int, a: float, b: float) -> float:
        powers = {0: 1.0, 1: a, 2: b, 4: a * a, 7: a**3, 10: b**3}
        linear = {f"PV{axis}_1": 1.0}
        return sum((linear | terms).get(f"PV{axis}_{k}", 0.0) * power for k, power in powers.items())

    by_hand = wcs_of(cards_of(150.0, 2.2))
    place = (distorted(1, xi, eta) / -1e-4 + 49.5, distorted(2, eta, xi) / 1e-4 + 49.5)
    np.testing.assert_allclose(sky_of(wcs, 79.5, 69.5), sky_of(by_hand, *place), rtol=0, atol=1e-9)


def test_parameters_that_tan_has_itself_are_left_alone() -> None:
    """PV of the right ascension alone says where the pole is."""
    terms = {"PV1_1": 0.0, "PV1_2": 90.0, "PV2_1": 0.0}
    plain, told = wcs_of(cards_of(150.0, 2.2)), wcs_of(cards_of(150.0, 2.2, **terms))
    np.testing.assert_allclose(sky_of(told, 9.0, 80.0), sky_of(plain, 9.0, 80.0), rtol=0, atol=1e-12)
