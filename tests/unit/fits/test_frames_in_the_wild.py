"""One simulated pair written in the ways that observatories write: the same candidates come out of each."""

import bz2
import gzip
import io
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
from astropy.io import fits

from astrid_workers.differencing.pair import run_pair
from astrid_workers.differencing.products import Candidate
from astrid_workers.errors import FrameRejected
from astrid_workers.frame import Frame
from astrid_workers.imaging.overscan import Amplifier, Section, layout_of, without_overscan
from astrid_workers.preprocessing.calibrate import calibrate
from astrid_workers.sky import Sky, make_sky
from astrid_workers.sky.sky_to_fits import frame_to_user_fits
from astrid_workers.storage.fits import read_frame, read_header

SHAPE = (256, 256)
Header = fits.Header
Pixels = np.ndarray[Any, Any]


@lru_cache(maxsize=1)
def _sky() -> Sky:
    return make_sky(seed=61, shape=SHAPE, n_stars=60, n_transients=5, transient_snr=(15.0, 50.0), gain=1.5)


def _plain(frame: Frame) -> tuple[Pixels, Header]:
    """uint16 counts and the cards of a well-kept header."""
    with fits.open(io.BytesIO(frame_to_user_fits(frame))) as units:
        return units[0].data.astype(np.uint16), units[0].header.copy()


def _written(units: fits.HDUList) -> bytes:
    buffer = io.BytesIO()
    units.writeto(buffer, output_verify="silentfix")
    return buffer.getvalue()


def _with_cards(header: Header) -> Header:
    """Cards without those that describe the array."""
    kept = header.copy()
    for card in ("BSCALE", "BZERO", "BITPIX", "NAXIS", "NAXIS1", "NAXIS2", "SIMPLE", "EXTEND"):
        kept.remove(card, ignore_missing=True)
    return kept


def _primary(pixels: Pixels, header: Header) -> bytes:
    return _written(fits.HDUList([fits.PrimaryHDU(pixels, _with_cards(header))]))


def _tiles(kind: str) -> Callable[[Frame], bytes]:
    def write(frame: Frame) -> bytes:
        pixels, header = _plain(frame)
        packed = fits.CompImageHDU(pixels, _with_cards(header), compression_type=kind)
        return _written(fits.HDUList([fits.PrimaryHDU(), packed]))

    return write


def _as_type(dtype: str) -> Callable[[Frame], bytes]:
    return lambda frame: _primary(_plain(frame)[0].astype(dtype), _plain(frame)[1])


def _scaled(frame: Frame) -> bytes:
    """int16 with a BSCALE that is not 1."""
    pixels, header = _plain(frame)
    unit = fits.PrimaryHDU(pixels.astype(np.float32), _with_cards(header))
    unit.scale("int16", bscale=0.5, bzero=12_000)
    return _written(fits.HDUList([unit]))


def _extensions(frame: Frame) -> bytes:
    """The image in SCI with its facts in the primary header, a guide camera before it and flags behind."""
    pixels, header = _plain(frame)
    facts, place = _with_cards(header), Header()
    for card in list(facts):
        if card.startswith(
            ("CRPIX", "CRVAL", "CTYPE", "CUNIT", "CD", "PC", "CDELT", "LON", "LAT", "RADESYS")
        ):
            place[card] = facts.pop(card)
    return _written(
        fits.HDUList(
            [
                fits.PrimaryHDU(header=facts),
                fits.ImageHDU(np.zeros((20, 20), np.int16), name="GUIDE"),
                fits.ImageHDU(pixels, place, name="SCI"),
                fits.ImageHDU(np.zeros(SHAPE, np.uint8), name="DQ"),
            ]
        )
    )


def _cube(frame: Frame) -> bytes:
    pixels, header = _plain(frame)
    return _primary(pixels[None], header)


def _cards(**changes: object) -> Callable[[Frame], bytes]:
    """The plain file with cards changed; None takes one out."""

    def write(frame: Frame) -> bytes:
        pixels, header = _plain(frame)
        for card, value in changes.items():
            name = card.replace("_", "-")
            header.remove(name, ignore_missing=True)
            if value is not None:
                header[name] = value
        return _primary(pixels, header)

    return write


def _object_in(page: str) -> Callable[[Frame], bytes]:
    def write(frame: Frame) -> bytes:
        name = {"cp1252": "Köln é9", "shift_jis": "銀河 9"}.get(page, "Köln Ω9")
        text = name.encode(page)
        data = _cards(OBJECT="#" * len(text))(frame)
        return data.replace(b"#" * len(text), text)

    return write


def _nan_block(frame: Frame) -> bytes:
    pixels, header = _plain(frame)
    holed = pixels.astype(np.float32)
    holed[:60, :14] = np.nan
    return _primary(holed, header)


def _rice_floats(frame: Frame) -> bytes:
    """Quantized floats in Rice tiles, with a block that was not measured."""
    pixels, header = _plain(frame)
    holed = pixels.astype(np.float32)
    holed[:60, :14] = np.nan
    packed = fits.CompImageHDU(holed, _with_cards(header), compression_type="RICE_1", quantize_level=16)
    return _written(fits.HDUList([fits.PrimaryHDU(), packed]))


def _plio(frame: Frame) -> bytes:
    pixels, header = _plain(frame)
    packed = fits.CompImageHDU(pixels.astype(np.int32), _with_cards(header), compression_type="PLIO_1")
    return _written(fits.HDUList([fits.PrimaryHDU(), packed]))


def _blank(frame: Frame) -> bytes:
    """int16 with BZERO, and BLANK where nothing was measured."""
    pixels, header = _plain(frame)
    unit = fits.PrimaryHDU(pixels.astype(np.float32), _with_cards(header))
    unit.scale("int16", bscale=1, bzero=32768)
    unit.data[:60, :14] = -32768
    unit.header["BLANK"] = -32768
    return _written(fits.HDUList([unit]))


def _placed(**cards: float) -> Callable[[Frame], bytes]:
    """The plain file with these WCS cards in place of a matrix."""

    def write(frame: Frame) -> bytes:
        pixels, header = _plain(frame)
        for card in list(header):
            if card.startswith(("CD", "PC")) and not set(cards) <= {"CRVAL1", "CRVAL2"}:
                header.remove(card)
        header.update(cards)
        return _primary(pixels, header)

    return write


def _overscan(frame: Frame) -> bytes:
    """Raw: 24 columns of overscan on the right and 8 dark rows below, on a pedestal that drifts by 30 ADU."""
    pixels, header = _plain(frame)
    ny, nx = SHAPE
    raw = np.zeros((ny + 8, nx + 24))
    raw[8:, :nx] = pixels
    raw += 500 + 30 * np.arange(ny + 8)[:, None] / ny
    raw[:, nx:] += np.random.default_rng(1).normal(0, 3, (ny + 8, 24))
    header["BIASSEC"], header["TRIMSEC"] = f"[{nx + 1}:{nx + 24},1:{ny + 8}]", f"[1:{nx},9:{ny + 8}]"
    header["SATURATE"] += 500
    header["CRPIX2"] += 8
    return _primary(np.rint(raw).astype(np.uint16), header)


def _dead_lines(frame: Frame) -> bytes:
    """A dead column and a row stuck at the level of the sky, and no map that names them."""
    pixels, header = _plain(frame)
    pixels[:, 31], pixels[240] = 0, np.median(pixels)
    return _primary(pixels, header)


def _border_of_zeros(frame: Frame) -> bytes:
    """As a stack has it: its outermost 14 rows and a tapering corner hold 0."""
    pixels, header = _plain(frame)
    rows, columns = np.indices(SHAPE)
    pixels[(rows < 14) | (3 * columns + rows < 60)] = 0
    return _primary(pixels.astype(np.float32), header)


def _two_amplifiers(frame: Frame) -> bytes:
    """Raw: two halves with gains of 1.2 and 1.8, pedestals of 900 and 1300, overscans outside."""
    pixels, header = _plain(frame)
    ny, nx = SHAPE
    half, strip = nx // 2, 20
    raw = np.zeros((ny, nx + 2 * strip))
    electrons = pixels * 1.5
    raw[:, strip : strip + half] = electrons[:, :half] / 1.2
    raw[:, strip + half : strip + nx] = electrons[:, half:] / 1.8
    noise = np.random.default_rng(2).normal(0, 3, (ny, strip))
    raw[:, :strip] += noise
    raw[:, -strip:] += noise
    raw[:, : strip + half] += 900
    raw[:, strip + half :] += 1300
    header["BIASSECA"], header["DATASECA"] = f"[1:{strip},1:{ny}]", f"[{strip + 1}:{strip + half},1:{ny}]"
    header["BIASSECB"] = f"[{strip + nx + 1}:{nx + 2 * strip},1:{ny}]"
    header["DATASECB"] = f"[{strip + half + 1}:{strip + nx},1:{ny}]"
    header.remove("GAIN")
    header["GAINA"], header["GAINB"], header["SATURATE"] = 1.2, 1.8, 50_000
    header["CRPIX1"] += strip
    return _primary(np.rint(raw).astype(np.uint16), header)


def _stale_sections(frame: Frame) -> bytes:
    """Trimmed long ago; the cards of the raw image are still there."""
    nx, ny = SHAPE[1], SHAPE[0]
    return _cards(BIASSEC=f"[{nx + 1}:{nx + 24},1:{ny}]", TRIMSEC=f"[1:{nx},1:{ny}]")(frame)


@dataclass(frozen=True, slots=True)
class Way:
    """How a frame is written, and how close its candidates come to those of the plain file."""

    name: str
    write: Callable[[Frame], bytes]
    #: Relative tolerance of flux (None: the unit is another) and of S/N.
    flux: float | None = 0.02
    snr: float = 0.05
    #: Whether its candidates have a place on the sky.
    has_sky: bool = True
    #: What the frame says of it.
    says: str = ""


PLAIN = Way("uint16 with BZERO", lambda frame: _primary(*_plain(frame)))
WAYS = (
    Way("int32", _as_type("int32")),
    Way("float64, big-endian", _as_type(">f8")),
    Way("float32", _as_type("float32")),
    Way("int16 with BSCALE", _scaled),
    Way("Rice tiles", _tiles("RICE_1")),
    Way("gzip tiles", _tiles("GZIP_2")),
    Way("gzip file", lambda frame: gzip.compress(PLAIN.write(frame))),
    Way("bzip2 file", lambda frame: bz2.compress(PLAIN.write(frame))),
    Way("SCI extension", _extensions),
    Way("cube of one plane", _cube),
    Way("no GAIN", _cards(GAIN=None, RDNOISE=None), None, 0.15),
    Way("GAIN of a camera's setting", _cards(GAIN=139), None, 0.15),
    Way("no SATURATE", _cards(SATURATE=None)),
    Way("SATURATE of 0", _cards(SATURATE=0)),
    Way("SATURATE beyond all pixels", _cards(SATURATE=9e9)),
    Way("SATURATE in words", _cards(SATURATE="unknown")),
    Way("no DATE-OBS, EXPTIME, FILTER", _cards(DATE_OBS=None, EXPTIME=None, FILTER=None)),
    Way("OBJECT in cp1252", _object_in("cp1252")),
    Way("OBJECT in UTF-8", _object_in("utf-8")),
    Way("OBJECT in Shift-JIS", _object_in("shift_jis")),
    Way("NaN block", _nan_block),
    Way("NaN block in Rice tiles of floats", _rice_floats),
    Way("PLIO tiles", _plio),
    Way("BZERO with BLANK", _blank),
    Way("SATURATE of 1", _cards(SATURATE=1), says="SATURATE says 1, and the sky is at "),
    Way("SATURATE within the noise of the sky", _cards(SATURATE=320), says="not believed, taken as missing"),
    Way("GAIN below 0", _cards(GAIN=-1.5), None, 0.15, says="GAIN says -1.5, which is not a positive number"),
    Way("EXPTIME below 0", _cards(EXPTIME=-5), says="EXPTIME says -5, which is not a positive number"),
    Way("DATE-OBS that is none", _cards(DATE_OBS="31/13/2024"), says="which is not a date: not believed"),
    Way(
        "CD of zeros",
        _placed(CD1_1=0.0, CD1_2=0.0, CD2_1=0.0, CD2_2=0.0),
        has_sky=False,
        says="CD1_1, CD1_2, CD2_1, CD2_2 are all 0, expected degrees per pixel: taken as no WCS",
    ),
    Way("CD of one row", _placed(CD1_1=1e-4, CD1_2=1e-4), has_sky=False, says="taken as no WCS"),
    Way("CRVAL beyond the pole", _placed(CRVAL2=120.0), has_sky=False, says="taken as no WCS"),
    Way("CRVAL beyond numbers", _placed(CRVAL1=1e30), has_sky=False, says="taken as no WCS"),
    # the overscan's own noise decides whether the last of 30 stars counts, and with it the PSF in the corners
    Way("overscan", _overscan, 0.05, 0.1),
    Way("two amplifiers", _two_amplifiers, 0.05, 0.1),
    Way("stale BIASSEC", _stale_sections),
    Way("dead column and row", _dead_lines, 0.05, 0.1),
    Way(
        "border of zeros", _border_of_zeros, 0.05, 0.1, says="pixels lie in areas of one value (0): taken as"
    ),
)


@lru_cache(maxsize=2)
def _candidates(way: Way) -> tuple[Candidate, ...]:
    frames = [calibrate(read_frame(way.write(frame), name=way.name)).frame for frame in _pair()]
    return tuple(c for c in run_pair(*frames).candidates.items if abs(c.score) > 8)


def _pair() -> tuple[Frame, Frame]:
    sky = _sky()
    return sky.science, sky.reference


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.name)
def test_every_way_to_write_a_pair_gives_the_same_candidates(way: Way) -> None:
    """Number, place, flux and significance of the candidates do not depend on how the file was written."""
    expected, found = _candidates(PLAIN), _candidates(way)
    assert len(expected) >= 5
    assert len(found) == len(expected)
    for one in expected:
        same = min(found, key=lambda c, one=one: np.hypot(c.x - one.x, c.y - one.y))  # type: ignore[misc]
        assert np.hypot(same.x - one.x, same.y - one.y) < 0.15
        if way.has_sky:
            assert same.ra_deg == pytest.approx(one.ra_deg, abs=0.15 * 0.5 / 3600)
        else:
            assert same.ra_deg is None
        assert same.snr == pytest.approx(one.snr, rel=way.snr)
        if way.flux is not None:
            assert same.flux == pytest.approx(one.flux, rel=way.flux)


@pytest.mark.parametrize("way", [way for way in WAYS if way.says], ids=lambda way: way.name)
def test_what_a_header_gets_wrong_is_said(way: Way) -> None:
    """A card that is not believed stands among what was assumed, with its value."""
    assert way.says in "; ".join(read_frame(way.write(_sky().science), name=way.name).assumed)


def test_frames_of_other_sizes_meet_where_they_overlap() -> None:
    """A reference that is a part of the field, and one that is larger than the science frame, by WCS and by stars."""
    science, reference = _pair()
    expected = _candidates(PLAIN)

    def cut(frame: Frame, rows: int, columns: int, *, is_blind: bool) -> Frame:
        pixels, header = _plain(frame)
        if is_blind:
            header.remove("CTYPE1")
            header.remove("CTYPE2")
        return calibrate(read_frame(_primary(pixels[:rows, :columns], header))).frame

    for is_blind in (False, True):
        whole = [cut(frame, *SHAPE, is_blind=is_blind) for frame in (science, reference)]
        parts = [cut(frame, 220, 200, is_blind=is_blind) for frame in (science, reference)]
        inside = [c for c in expected if c.x < 190 and c.y < 210]
        for pair in ((whole[0], parts[1]), (parts[0], whole[1])):
            found = [c for c in run_pair(*pair).candidates.items if abs(c.score) > 8]
            for one in inside:
                assert min(np.hypot(c.x - one.x, c.y - one.y) for c in found) < 0.3


#: What is no picture of the sky, and how it is refused: the name is `bad.fits`.
HOPELESS: dict[str, tuple[Callable[[Frame], bytes], str]] = {
    "zero-length": (lambda _: b"", "not FITS (an empty file, expected 'SIMPLE  =')"),
    "not FITS at all": (lambda _: b"\xff\xd8\xff\xe0 JFIF" * 99, "not FITS (begins with b'\\xff\\xd8"),
    "truncated": (
        lambda frame: PLAIN.write(frame)[:60_000],
        "truncated, HDU 0 needs ",
    ),
    "NAXIS of 1": (
        lambda frame: PLAIN.write(frame).replace(
            b"NAXIS   =                    2", b"NAXIS   =                    1"
        ),
        "no image HDU with two axes (HDU 0: 256)",
    ),
    "NAXIS of 0": (
        lambda frame: PLAIN.write(frame).replace(
            b"NAXIS   =                    2", b"NAXIS   =                    0"
        ),
        "no image HDU with two axes (HDU 0: no image)",
    ),
    "NAXIS1 too large": (
        lambda frame: PLAIN.write(frame).replace(
            b"NAXIS1  =                  256", b"NAXIS1  =                 2560"
        ),
        "truncated, HDU 0 needs ",
    ),
    "HCOMPRESS tiles": (
        _tiles("HCOMPRESS_1"),
        "ZCMPTYPE of HDU 1 (COMPRESSED_IMAGE) is HCOMPRESS_1, expected one of",
    ),
    "constant": (
        lambda frame: _primary(np.full(SHAPE, 1000, np.uint16), _plain(frame)[1]),
        "all 65536 usable pixels are 1500, expected sky with noise",
    ),
    "zeros": (
        lambda frame: _primary(np.zeros(SHAPE, np.float32), _plain(frame)[1]),
        "all 65536 usable pixels are 0, expected sky with noise",
    ),
    "all NaN": (
        lambda frame: _primary(np.full(SHAPE, np.nan, np.float32), _plain(frame)[1]),
        "none of its 65536 pixels can be used: 65536 without a value",
    ),
    "all at the ceiling": (
        lambda frame: _primary(np.full(SHAPE, 65535, np.uint16), _plain(frame)[1]),
        "none of its 65536 pixels can be used: 65536 saturated",
    ),
    "BSCALE of 0": (
        lambda frame: PLAIN.write(frame).replace(
            b"BSCALE  =                    1", b"BSCALE  =                    0"
        ),
        "BSCALE is 0, expected a finite number",
    ),
}


@pytest.mark.parametrize("what", HOPELESS)
def test_what_is_no_picture_of_the_sky_is_refused_in_one_sentence(what: str) -> None:
    """With what was found and what was expected, before anything is measured."""
    write, sentence = HOPELESS[what]
    with pytest.raises(FrameRejected) as refused:
        calibrate(read_frame(write(_sky().science), name="bad.fits"))
    assert str(refused.value).startswith("bad.fits: ")
    assert sentence in str(refused.value)


def test_raw_headers_describe_the_trimmed_image() -> None:
    """Size, place and gain that a header tells are those of the frame that is read; companions come in both sizes."""
    science = _sky().science
    for write in (_overscan, _two_amplifiers):
        data = write(science)
        header, frame = read_header(data), read_frame(data)
        assert header.shape == frame.shape == SHAPE
        assert frame.facts.gain_e_per_adu == pytest.approx(1.5)
        assert header.centre_deg == pytest.approx(read_header(PLAIN.write(science)).centre_deg, abs=1e-6)
    raw_mask = _written(fits.HDUList([fits.PrimaryHDU(np.ones((264, 280), np.uint8))]))
    trimmed_mask = _written(fits.HDUList([fits.PrimaryHDU(np.ones(SHAPE, np.uint8))]))
    for mask in (raw_mask, trimmed_mask):
        assert (read_frame(_overscan(science), mask=mask).mask & np.uint32(1)).all()


def test_amplifiers_that_lie_apart_close_up() -> None:
    """Overscans between the halves are cut out and the halves abut; the WCS of the raw grid is not kept."""
    raw = np.zeros((40, 60), np.float32)
    raw[:, :20], raw[:, 20:30], raw[:, 30:40], raw[:, 40:] = 5, 1, 2, 7
    left = Amplifier(Section(0, 40, 0, 20), Section(0, 40, 20, 30), 1.1)
    right = Amplifier(Section(0, 40, 40, 60), Section(0, 40, 30, 40), 0.9)
    layout = layout_of([left, right], (40, 60))
    trimmed, level = without_overscan(raw, layout)
    assert layout.shape == (40, 40)
    assert layout.origin is None
    np.testing.assert_allclose(trimmed[:, :20], 4 * 1.1, rtol=1e-6)
    np.testing.assert_allclose(trimmed[:, 20:], 5 * 0.9, rtol=1e-6)
    assert level == pytest.approx(1.5)


def test_the_frame_that_is_given_stays_as_it_is() -> None:
    """Overscan correction returns a new image."""
    raw = np.ones((30, 30), np.float32)
    one = Amplifier(Section(0, 30, 0, 20), Section(0, 30, 20, 30))
    before = raw.copy()
    without_overscan(raw, layout_of([replace(one)], (30, 30)))
    np.testing.assert_array_equal(raw, before)
