"""A hostile file is refused before its pixels are touched, in one sentence with file, card, value and limit."""

import bz2
import gzip
import lzma
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from astrid_workers.errors import FrameRejected
from astrid_workers.storage.fits import FitsLimits, read_frame, read_header
from support.fits_cards import card, header, image, primary

SMALL = image(np.arange(100, dtype=">i2").tobytes(), 10, 10)

HOSTILE = {
    "empty": (b"", "not FITS (an empty file, expected 'SIMPLE  =')"),
    "text": (b"<html>" * 1000, "not FITS (begins with b'<html><ht', expected 'SIMPLE  =')"),
    "zip": (
        b"PK\x03\x04" + b"x" * 100,
        "a zip archive; FITS, or FITS packed by gzip, bzip2 or xz, is expected",
    ),
    "truncated header": (SMALL[:400], "truncated inside the header of HDU 0, at byte 400: no END card"),
    "truncated pixels": (SMALL[:2900], "truncated, HDU 0 needs 3080 bytes and the file ends at 2900"),
    "too many pixels": (
        primary(100_000, 100_000),
        "NAXIS1·NAXIS2 of HDU 0 is 100000 x 100000 = 10000000000 pixels, the limit is 400000000",
    ),
    "negative axis": (primary(-5, 10), "NAXIS1 of HDU 0 is -5, expected a whole number from 0"),
    "axis that is no number": (
        header(card("SIMPLE", True), card("BITPIX", 16), card("NAXIS", 1), card("NAXIS1", "ten")),
        "NAXIS1 of HDU 0 is 'ten     ', expected a whole number from 0",
    ),
    "missing axis": (
        header(card("SIMPLE", True), card("BITPIX", 16), card("NAXIS", 2), card("NAXIS1", 4)),
        "NAXIS2 of HDU 0 is missing, expected a whole number from 0",
    ),
    "bitpix": (primary(4, 4, bitpix=17), "BITPIX of HDU 0 is 17, expected one of 8, 16, 32, 64, -32, -64"),
    "axes": (
        header(card("SIMPLE", True), card("BITPIX", 16), card("NAXIS", 999)),
        "NAXIS of HDU 0 is 999, the limit is 6",
    ),
    "cards": (
        header(
            card("SIMPLE", True), card("BITPIX", 16), card("NAXIS", 0), *[b"HISTORY x".ljust(80)] * 1_000_000
        ),
        "more than 50000 header cards by HDU 0, which is the limit",
    ),
    "units": (
        primary() + header(b"XTENSION= 'IMAGE   '".ljust(80), card("BITPIX", 8), card("NAXIS", 0)) * 400,
        "more than 256 HDUs, which is the limit",
    ),
    "parameters": (
        primary(10, 10, more=(card("PCOUNT", 10**18),)),
        "truncated, HDU 0 needs 2000000000000003080 bytes and the file ends at 2880",
    ),
    "packed pixels": (
        primary()
        + header(
            b"XTENSION= 'BINTABLE'".ljust(80),
            *(
                card(k, v)
                for k, v in {"BITPIX": 8, "NAXIS": 2, "NAXIS1": 8, "NAXIS2": 1, "PCOUNT": 0}.items()
            ),
            *(card(k, v) for k, v in {"GCOUNT": 1, "ZIMAGE": True, "ZBITPIX": 16, "ZNAXIS": 2}.items()),
            card("ZNAXIS1", 50_000),
            card("ZNAXIS2", 50_000),
        )
        + b"\0" * 2880,
        "ZNAXIS1·ZNAXIS2 of HDU 1 is 50000 x 50000 = 2500000000 pixels, the limit is 400000000",
    ),
    "no image": (primary(), "no image HDU with two axes (HDU 0: no image)"),
    "spectrum": (image(b"\0" * 200, 100), "no image HDU with two axes (HDU 0: 100)"),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_file_is_refused_in_one_sentence(what: str) -> None:
    """Each fault names the file, the card, the value and what was expected; header and frame readers agree."""
    data, sentence = HOSTILE[what]
    for read in (read_header, read_frame):
        with pytest.raises(FrameRejected) as refused:
            read(data, name="bad.fits")
        assert str(refused.value) == f"bad.fits: {sentence}"


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_a_bomb_is_refused_without_being_unpacked(pack) -> None:
    """What a small file would become is never held: the header decides first."""
    bomb = pack(primary(60_000, 60_000) + b"\0" * 25_000_000)
    tracemalloc.start()
    with pytest.raises(FrameRejected, match=r"60000 x 60000 = 3600000000 pixels"):
        read_frame(bomb, name="bomb.fits.gz")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 12_000_000


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_unpacking_stops_at_the_limit(pack) -> None:
    """A file that is within the pixel limit may still not become larger than max_bytes."""
    data = pack(primary(3000, 3000) + b"\0" * 18_000_000)
    limits = FitsLimits(max_bytes=4_000_000)
    with pytest.raises(FrameRejected, match="more than 4000000 bytes once decompressed"):
        read_frame(data, name="large.fits", limits=limits)


def test_a_file_larger_than_the_limit_is_not_opened(tmp_path: Path) -> None:
    """The size on disk is compared before a byte is read."""
    path = tmp_path / "large.fits"
    path.write_bytes(SMALL)
    with pytest.raises(FrameRejected, match=r"large\.fits: 5760 bytes, the limit is 5000"):
        read_frame(path, limits=FitsLimits(max_bytes=5000))


@pytest.mark.parametrize("keep", [3, 40, 200])
def test_a_truncated_or_damaged_archive_is_refused(keep: int) -> None:
    """An archive that ends early says after how many bytes."""
    rng = np.random.default_rng(1)
    whole = gzip.compress(image(rng.integers(0, 1000, 10_000).astype(">i2").tobytes(), 100, 100))
    with pytest.raises(FrameRejected, match="data end early, after"):
        read_frame(whole[:keep], name="cut.fits.gz")
    with pytest.raises(FrameRejected, match=r"damaged gzip data|end early"):
        read_frame(whole[:200] + bytes(rng.integers(0, 256, 5000).astype(np.uint8)), name="cut.fits.gz")


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    """A path that is not there is a sentence, not a traceback."""
    with pytest.raises(FrameRejected, match=r"gone\.fits: cannot be read: No such file or directory"):
        read_frame(tmp_path / "gone.fits")


@pytest.mark.parametrize("seed", range(40))
def test_random_damage_is_either_read_or_refused(seed: int) -> None:
    """Whatever happens to the bytes of a file, the only error is FrameRejected."""
    rng = np.random.default_rng(seed)
    data = bytearray(
        image(rng.integers(0, 1000, 400).astype(">i2").tobytes(), 20, 20, more=(card("GAIN", 1.5),))
    )
    for place in rng.integers(0, 1200, 6):
        data[place] = int(rng.integers(0, 256))
    try:
        frame = read_frame(bytes(data), name="damaged.fits")
    except FrameRejected:
        return
    assert np.isfinite(frame.science).all()
