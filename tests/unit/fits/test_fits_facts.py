"""Header cards mean the same fact under every name they have; what is not believable is None, and said."""

from datetime import UTC, datetime

import numpy as np
import pytest
from astropy.io import fits

from astrid_workers.storage.fits import read_header
from astrid_workers.storage.fits_facts import read_facts
from astrid_workers.storage.fits_wcs import celestial_wcs
from support.fits_cards import card, image
from support.real_frames import real_frame


def header_of(**cards: object) -> fits.Header:
    header = fits.Header()
    for keyword, value in cards.items():
        header[keyword.replace("_", "-")] = value
    return header


@pytest.mark.parametrize(
    ("cards", "fact", "value"),
    [
        ({"EXPTIME": 30.0}, "exposure_s", 30.0),
        ({"EXPOSURE": "45.5"}, "exposure_s", 45.5),
        ({"EXPTIME": 0.0, "XPOSURE": 12.0}, "exposure_s", 12.0),
        ({"FILTER": " r' "}, "filter_name", "r'"),
        ({"FILTER1": "Clear", "FILTER2": "Halpha"}, "filter_name", "Halpha"),
        ({"FILTER": "Clear"}, "filter_name", "Clear"),
        ({"GAIN": 1.7}, "gain_e_per_adu", 1.7),
        ({"EGAIN": 0.25, "GAIN": 200}, "gain_e_per_adu", 0.25),
        ({"GAIN": 0}, "gain_e_per_adu", None),
        ({"GAIN": "unknown"}, "gain_e_per_adu", None),
        ({"GAINA": 4.0, "GAINB": 5.0}, "gain_e_per_adu", 4.5),
        ({"RDNOISE": 7.2}, "read_noise_e", 7.2),
        ({"READNOIS": 3}, "read_noise_e", 3.0),
        ({"SATURATE": 60000}, "saturation", 60000.0),
        ({"SATURATE": -1}, "saturation", None),
        ({"MAGZP": 26.3}, "zero_point_mag", 26.3),
        ({"ZP": 0.0, "PHOTZP": 22.1}, "zero_point_mag", 22.1),
        ({"AIRMASS": 1.31}, "airmass", 1.31),
        ({"AIRMASS": 0.0}, "airmass", None),
        ({"AIRMASS": True}, "airmass", None),
        ({"SEEING": 1.1}, "seeing_arcsec", 1.1),
        ({"SECPIX": -0.4}, "pixel_scale_arcsec", 0.4),
        ({"XPIXSZ": 9.0, "FOCALLEN": 1000.0}, "pixel_scale_arcsec", pytest.approx(1.856, abs=1e-3)),
        ({"IMAGETYP": "Light Frame"}, "image_type", "object"),
        ({"OBSTYPE": "zero"}, "image_type", "bias"),
        ({"IMAGETYP": "Dark Frame"}, "image_type", "dark"),
        ({"IMAGETYP": "SKYFLAT"}, "image_type", "flat"),
    ],
)
def test_aliases_mean_one_fact(cards: dict, fact: str, value: object) -> None:
    """The table of aliases, its order, and what is not believed."""
    read = read_facts(header_of(**cards))
    assert getattr(read.facts, fact) == value
    if value is None:
        assert any("not believed" in sentence for sentence in read.assumed)


@pytest.mark.parametrize(
    ("written", "unit"),
    [
        ("", "adu"), ("DN", "adu"), ("ADU/s", "adu / s"), ("counts/sec", "adu / s"), ("DN s-1", "adu / s"),
        ("ct / s", "adu / s"), ("data number/s", "adu / s"), ("ELECTRONS/S", "electron / s"), ("e-", "electron"),
        ("MJy/sr", "MJy/sr"), ("photon/s", "photon/s"),
    ],
)  # fmt: skip
def test_units_have_one_spelling(written: str, unit: str) -> None:
    """Counts and electrons, and both per second; all else stays as it was written."""
    assert read_facts(header_of(BUNIT=written)).unit == unit


@pytest.mark.parametrize(
    ("cards", "moment"),
    [
        ({"DATE_OBS": "2024-02-29T23:59:59.5"}, datetime(2024, 2, 29, 23, 59, 59, 500_000, UTC)),
        ({"DATE_OBS": "2024-02-29 01:02:03"}, datetime(2024, 2, 29, 1, 2, 3, 0, UTC)),
        ({"DATE_OBS": "2024-02-29", "TIME_OBS": "04:05:06.25"}, datetime(2024, 2, 29, 4, 5, 6, 250_000, UTC)),
        ({"DATE_OBS": "2024/2/9", "UT": "04:05:06"}, datetime(2024, 2, 9, 4, 5, 6, 0, UTC)),
        ({"DATE_OBS": "31/12/98"}, datetime(1998, 12, 31, 0, 0, 0, 0, UTC)),
        ({"DATE_OBS": "2024-01-01T02:00:00+02:00"}, datetime(2024, 1, 1, 0, 0, 0, 0, UTC)),
        ({"DATE_OBS": "2016-12-31T23:59:60"}, datetime(2017, 1, 1, 0, 0, 0, 0, UTC)),
        ({"MJD_OBS": 60000.25}, datetime(2023, 2, 25, 6, 0, 0, 0, UTC)),
        ({"JD": 2460000.75}, datetime(2023, 2, 25, 6, 0, 0, 0, UTC)),
        ({"DATE_OBS": "yesterday", "MJD_OBS": 60000.0}, datetime(2023, 2, 25, 0, 0, 0, 0, UTC)),
        ({"DATE_OBS": "2024-13-45"}, None),
        ({}, None),
    ],
)
def test_times_are_utc_and_aware(cards: dict, moment: datetime | None) -> None:
    """Every way in which headers write a time; a leap second does not fail."""
    assert read_facts(header_of(**cards)).facts.observed_at == moment


@pytest.mark.parametrize(
    ("raw", "name"),
    [("M 31 – Köln".encode(), "M 31 – Köln"), ("étoile".encode("cp1252"), "étoile"), (b"a\x01b\x7fc", "abc")],
)
def test_object_names_in_odd_code_pages_are_read(raw: bytes, name: str) -> None:
    """UTF-8 and the old western code page; control characters vanish; nothing raises."""
    odd = (b"OBJECT  = '" + raw + b"'").ljust(80)
    read = read_header(image(b"\0" * 800, 20, 20, more=(odd, card("EXPTIME", 5.0))), name="x")
    found = read.facts.object_name or ""
    assert found.replace("?", "") == name.replace("?", "")
    assert read.facts.exposure_s == 5.0


def test_a_broken_card_does_not_hide_the_others() -> None:
    """A value that cannot be parsed says nothing; the rest of the header stands."""
    broken = b"SEEING  = 1.2.3.4 arcsec 'what".ljust(80)
    read = read_header(image(b"\0" * 800, 20, 20, more=(broken, card("EXPTIME", 5.0))), name="x")
    assert read.facts.exposure_s == 5.0
    assert read.facts.seeing_arcsec is None


def test_a_celestial_wcs_is_kept() -> None:
    """TAN, and TAN-SIP with its distortion acting."""
    plain, trouble = celestial_wcs(fits.Header(_wcs_cards()), (100, 100))
    assert trouble is None
    assert plain is not None
    bent = fits.Header(_wcs_cards())
    bent["CTYPE1"], bent["CTYPE2"] = "RA---TAN-SIP", "DEC--TAN-SIP"
    bent["A_ORDER"], bent["A_2_0"], bent["B_ORDER"], bent["B_0_2"] = 2, 1e-5, 2, 1e-5
    sip, trouble = celestial_wcs(bent, (100, 100))
    assert trouble is None
    assert sip is not None
    moved = np.hypot(*np.subtract(plain.all_pix2world(99, 99, 0), sip.all_pix2world(99, 99, 0))) * 3600
    assert moved == pytest.approx(0.025 * 0.36 * np.hypot(1, 1 / np.cos(np.radians(20))), rel=0.02)


def _wcs_cards() -> list[tuple[str, object]]:
    return [
        ("CTYPE1", "RA---TAN"), ("CTYPE2", "DEC--TAN"), ("CRVAL1", 30.0), ("CRVAL2", -20.0),
        ("CRPIX1", 50.0), ("CRPIX2", 50.0), ("CD1_1", -1e-4), ("CD1_2", 0.0), ("CD2_1", 0.0), ("CD2_2", 1e-4),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"CTYPE1": "LINEAR", "CTYPE2": "LINEAR"}, "not celestial"),
        ({"CD1_1": 0.0, "CD2_2": 0.0}, "taken as no WCS"),
        ({"CRVAL2": 1e9}, "taken as no WCS"),
        ({"CTYPE2": "RA---TAN"}, "taken as no WCS"),
        ({"CD1_1": -40.0, "CD2_2": 40.0}, "taken as no WCS"),
    ],
)
def test_a_wcs_that_is_none_is_said(changes: dict, says: str) -> None:
    """Cards that do not describe the sky give no WCS and a sentence, never an exception."""
    header = fits.Header(_wcs_cards())
    header.update(changes)
    wcs, trouble = celestial_wcs(header, (100, 100))
    assert wcs is None
    assert says in (trouble or "")


def test_no_cards_is_no_trouble() -> None:
    """A header without coordinates has no WCS and nothing to say about it."""
    assert celestial_wcs(fits.Header(), (100, 100)) == (None, None)


def test_tpv_distortion_acts() -> None:
    """A DECam stamp: its TPV terms move positions by what the polynomial says, computed by hand."""
    path = real_frame("decam_decorrelation/DEC-OBS18a.mini.fits")
    header = fits.getheader(path)
    wcs, trouble = celestial_wcs(header, (256, 256))
    assert trouble is None
    assert wcs is not None
    ra, dec = wcs.all_pix2world(10.0, 200.0, 0)
    by_hand = _tpv_by_hand(header, 10.0, 200.0)
    assert np.hypot((ra - by_hand[0]) * np.cos(np.radians(dec)), dec - by_hand[1]) * 3600 < 1e-4


def _tpv_by_hand(h: fits.Header, x: float, y: float) -> tuple[float, float]:
    """The slow twin: linear part, polynomial of third degree, gnomonic deprojection."""
    u, v = x + 1 - h["CRPIX1"], y + 1 - h["CRPIX2"]
    xi = h["CD1_1"] * u + h["CD1_2"] * v
    eta = h["CD2_1"] * u + h["CD2_2"] * v

    def distorted(axis: int, a: float, b: float) -> float:
        r = np.hypot(a, b)
        terms = [1, a, b, r, a * a, a * b, b * b, a**3, a * a * b, a * b * b, b**3]
        default = {1: 1.0}
        return sum(float(h.get(f"PV{axis}_{k}", default.get(k, 0.0))) * term for k, term in enumerate(terms))

    a, b = np.radians(distorted(1, xi, eta)), np.radians(distorted(2, eta, xi))
    ra0, dec0 = np.radians(h["CRVAL1"]), np.radians(h["CRVAL2"])
    ra = ra0 + np.arctan2(a, np.cos(dec0) - b * np.sin(dec0))
    dec = np.arctan2((np.sin(dec0) + b * np.cos(dec0)) * np.cos(ra - ra0), np.cos(dec0) - b * np.sin(dec0))
    return float(np.degrees(ra)), float(np.degrees(dec))
