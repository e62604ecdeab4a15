"""Pixels arrive as native float32 with what was not measured in the mask, whatever the file's format."""

import bz2
import gzip
import io
import lzma
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from astrid_workers.errors import FrameRejected
from astrid_workers.mask import MaskBit
from astrid_workers.sky import frame_to_user_fits, make_sky
from astrid_workers.storage.fits import read_frame, read_header
from support.fits_cards import card, image
from support.real_frames import real_frame


def written(*units: object) -> bytes:
    buffer = io.BytesIO()
    fits.HDUList(list(units)).writeto(buffer)
    return buffer.getvalue()


def sky_pixels(seed: int = 1, size: int = 96, level: float = 1000.0, sigma: float = 10.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(level, sigma, (size, size)).round()


@pytest.mark.parametrize("dtype", ["u1", ">i2", ">u2", ">i4", ">u4", ">i8", ">f4", ">f8", "<f4", "<i2"])
def test_every_number_format_gives_the_same_pixels(dtype: str) -> None:
    """uint8, BZERO integers, big-endian and 64-bit values are exact in native float32."""
    pixels = sky_pixels(level=120.0, sigma=10.0).clip(0, 250)
    header = fits.Header([("BUNIT", "MJy/sr")])
    frame = read_frame(written(fits.PrimaryHDU(pixels.astype(dtype), header)), name="x.fits")
    assert frame.science.dtype == np.float32
    assert frame.science.dtype.isnative
    np.testing.assert_array_equal(frame.science, pixels.astype(np.float32))


def test_scaled_integers_and_blank_are_applied() -> None:
    """value = BSCALE × stored + BZERO, and BLANK is not a measurement."""
    stored = np.arange(400, dtype=">i2").reshape(20, 20)
    more = (card("BSCALE", 0.5), card("BZERO", 100.0), card("BLANK", 7), card("BUNIT", "Jy"))
    frame = read_frame(image(stored.tobytes(), 20, 20, more=more), name="x.fits")
    assert frame.science[0, 8] == 104.0
    assert frame.mask[0, 7] == MaskBit.NO_DATA
    assert frame.science[0, 7] == 0
    assert np.isinf(frame.variance[0, 7])


def test_nan_never_leaves_the_door() -> None:
    """NaN, infinities and absurd values become NO_DATA with 0 and infinite variance."""
    pixels = sky_pixels().astype(np.float32)
    pixels[3, 4], pixels[5, 6], pixels[7, 8], pixels[9, 10] = np.nan, np.inf, -np.inf, 3e38
    frame = read_frame(written(fits.PrimaryHDU(pixels)), name="x.fits")
    for y, x in ((3, 4), (5, 6), (7, 8), (9, 10)):
        assert frame.mask[y, x] & MaskBit.NO_DATA
        assert frame.science[y, x] == 0
        assert np.isposinf(frame.variance[y, x])
    assert np.isfinite(frame.science).all()
    assert np.count_nonzero(frame.mask & MaskBit.NO_DATA) == 4


@pytest.mark.parametrize("pixels", [np.full((40, 40), np.nan, np.float32), np.zeros((40, 40), np.float32)])
def test_a_frame_without_information_is_still_a_frame(pixels: np.ndarray) -> None:
    """All NaN and all equal are read; what they are good for is decided later."""
    frame = read_frame(written(fits.PrimaryHDU(pixels)), name="x.fits")
    assert frame.shape == (40, 40)
    assert not np.isnan(frame.variance).any()
    assert (frame.variance > 0).all()


@pytest.mark.parametrize("kind", ["RICE_1", "GZIP_1", "GZIP_2", "PLIO_1", "NOCOMPRESS"])
def test_tile_compressed_images_are_read(kind: str) -> None:
    """An .fz file holds the same pixels."""
    pixels = sky_pixels(level=500).astype(np.int32)
    frame = read_frame(
        written(
            fits.PrimaryHDU(), fits.CompImageHDU(pixels, fits.Header([("GAIN", 1.0)]), compression_type=kind)
        ),
        name="x.fits.fz",
    )
    np.testing.assert_array_equal(frame.science, pixels)


def test_a_compression_without_a_safe_decoder_is_refused() -> None:
    """HCOMPRESS decoding writes out of bounds on damaged data: not read, and what is read is listed."""
    units = fits.PrimaryHDU(), fits.CompImageHDU(sky_pixels().astype("i4"), compression_type="HCOMPRESS_1")
    with pytest.raises(FrameRejected, match=r"ZCMPTYPE of HDU 1 .* is HCOMPRESS_1, expected one of RICE_1, "):
        read_frame(written(*units), name="x.fz")


@pytest.mark.parametrize("kind", ["RICE_1", "GZIP_1", "GZIP_2", "PLIO_1"])
@pytest.mark.parametrize("seed", range(12))
def test_damaged_tiles_are_read_or_refused(kind: str, seed: int) -> None:
    """Whatever stands in the tiles, the decoder's own errors do not come through."""
    rng = np.random.default_rng(seed)
    compressed = fits.CompImageHDU(sky_pixels(size=64).astype("i4"), compression_type=kind)
    data = bytearray(written(fits.PrimaryHDU(), compressed))
    for place in rng.integers(3 * 2880, len(data), 8):
        data[place] = int(rng.integers(0, 256))
    try:
        frame = read_frame(bytes(data), name="x.fz")
    except FrameRejected as refused:
        assert str(refused).startswith("x.fz: ")  # noqa: PT017 - either ending is right
        return
    assert np.isfinite(frame.science).all()


def test_a_bomb_in_a_tile_is_refused() -> None:
    """A tile that inflates beyond its pixels is stopped there, not in memory."""
    compressed = fits.CompImageHDU(
        sky_pixels(size=64).astype("i4"), compression_type="GZIP_1", tile_shape=(64, 64)
    )
    data = bytearray(written(fits.PrimaryHDU(), compressed))
    bomb = gzip.compress(b"\0" * 8_000_000)
    start = data.index(b"\x1f\x8b")
    with fits.open(io.BytesIO(bytes(data)), disable_image_compression=True) as units:
        room = int(units[1].header["PCOUNT"])
    data[start : start + len(bomb)] = bomb
    if len(bomb) > room:  # the heap grows: its cards and descriptor must say so
        data = bytearray(_with_heap(bytes(data), len(bomb)))
    with pytest.raises(FrameRejected, match=r"a tile of HDU 1 .* becomes larger than its limit, 32768 bytes"):
        read_frame(bytes(data), name="x.fz")


def _with_heap(data: bytes, size: int) -> bytes:
    """The same table with one tile of `size` bytes."""
    text = data.decode("latin-1")
    place = text.index("PCOUNT  =", 2880)
    text = text[:place] + f"PCOUNT  = {size:>20}".ljust(80) + text[place + 80 :]
    table = text.index("END".ljust(80), 2880)
    start = (table // 2880 + 1) * 2880
    raw = bytearray(text.encode("latin-1"))
    raw[start : start + 4] = size.to_bytes(4, "big")
    return bytes(raw) + b"\0" * (-len(raw) % 2880)


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_packed_files_hold_the_same_frame(pack, tmp_path: Path) -> None:
    """gzip, bzip2 and xz, from bytes and from a path; concatenated streams as well."""
    data = written(fits.PrimaryHDU(sky_pixels()))
    plain = read_frame(data, name="x")
    (tmp_path / "x.fits.gz").write_bytes(pack(data[:4000]) + pack(data[4000:]))
    for packed in (pack(data), tmp_path / "x.fits.gz"):
        np.testing.assert_array_equal(read_frame(packed, name="x").science, plain.science)


def test_the_science_extension_is_chosen() -> None:
    """SCI by name, else the first plane, else the one that was asked for; facts of the primary header hold too."""
    first, second = sky_pixels(1).astype("f4"), sky_pixels(2).astype("f4")
    primary = fits.PrimaryHDU(header=fits.Header([("EXPTIME", 33.0), ("FILTER", "g")]))
    units = (primary, fits.ImageHDU(first, name="DQ"), fits.ImageHDU(second, name="SCI"))
    frame = read_frame(written(*units), name="x.fits")
    np.testing.assert_array_equal(frame.science > 0, second > 0)
    assert abs(frame.science / second - 1).std() < 1e-6
    assert (frame.facts.exposure_s, frame.facts.filter_name) == (33.0, "g")
    assert "DQ of the file not used: masks and noise maps are files of their own" in frame.assumed
    assert not any("not used" in said for said in read_frame(written(*units[:2]), name="x").assumed)
    assert read_header(written(*units), extension="dq").extension == "DQ"
    assert read_header(written(*units[:2])).extension == "DQ"
    with pytest.raises(FrameRejected, match="no image 'WHT', it has: 1 DQ, 2 SCI"):
        read_frame(written(*units), name="x.fits", extension="WHT")


@pytest.mark.parametrize(
    ("own", "in_primary", "unit"),
    [(None, False, "electron"), ("Jy", False, "Jy"), (None, True, "adu"), ("Jy", True, "Jy")],
)
def test_the_unit_of_an_empty_primary_header_holds_for_its_images(
    own: str | None, in_primary: bool, unit: str
) -> None:
    """Unless the image has a unit of its own, or the primary has pixels that the unit belongs to."""
    pixels = sky_pixels().astype("f4")
    extension = fits.ImageHDU(pixels, fits.Header([("BUNIT", own)] if own else []), name="SCI")
    primary = fits.PrimaryHDU(pixels if in_primary else None, fits.Header([("BUNIT", "electron")]))
    assert read_header(written(primary, extension), name="x").unit == unit


def test_an_axis_of_length_one_is_ignored() -> None:
    """A cube of one plane is an image; a cube of several is not."""
    plane = sky_pixels().astype("f4")
    assert read_frame(written(fits.PrimaryHDU(plane[None])), name="x").shape == plane.shape
    with pytest.raises(FrameRejected, match=r"no image HDU with two axes \(HDU 0: 96 x 96 x 2\)"):
        read_frame(written(fits.PrimaryHDU(np.stack([plane, plane]))), name="x")


def test_gain_makes_electrons_and_the_facts_follow() -> None:
    """ADU × GAIN; saturation and zero point are in the frame's unit."""
    header = fits.Header([("GAIN", 2.0), ("RDNOISE", 5.0), ("SATURATE", 3000.0), ("MAGZP", 25.0)])
    pixels = sky_pixels(sigma=22.5)
    pixels[10, 10] = 3000
    frame = read_frame(written(fits.PrimaryHDU(pixels.astype("u2"), header)), name="x.fits")
    assert frame.unit == "electron"
    np.testing.assert_allclose(np.median(frame.science), 2000, rtol=0.003)
    assert frame.facts.saturation == 6000.0
    assert frame.facts.zero_point_mag == pytest.approx(25.0 + 2.5 * np.log10(2.0))
    assert frame.mask[10, 10] & MaskBit.SATURATED
    assert np.median(frame.variance) == pytest.approx(2025.0, rel=0.05)
    assert not frame.assumed


@pytest.mark.parametrize("gain", [0.7, 1.5, 4.0])
def test_a_missing_gain_is_estimated_from_the_noise_and_said(gain: float) -> None:
    """Sky of Poisson noise gives its gain away; the report says that it was estimated."""
    electrons = np.random.default_rng(3).poisson(3000.0, (256, 256))
    adu = (electrons / gain).round()
    frame = read_frame(written(fits.PrimaryHDU(adu.astype("u2"))), name="x.fits")
    assert frame.unit == "electron"
    assert frame.facts.gain_e_per_adu == pytest.approx(gain, rel=0.03)
    assert any("estimated from the sky's level and noise" in sentence for sentence in frame.assumed)


def test_an_implausible_gain_is_not_invented() -> None:
    """Sky-subtracted pixels hold no gain: native unit, measured variance, and said."""
    pixels = np.random.default_rng(4).normal(0.0, 7.0, (200, 200)).astype("f4")
    frame = read_frame(written(fits.PrimaryHDU(pixels)), name="x.fits")
    assert frame.unit == "adu"
    assert frame.facts.gain_e_per_adu is None
    assert np.median(frame.variance) == pytest.approx(49.0, rel=0.05)
    assert any("cannot be read off" in sentence for sentence in frame.assumed)


def test_a_cameras_gain_setting_is_not_electrons_per_adu() -> None:
    """GAIN = 139 beside integers is an amplifier's setting; EGAIN is what counts."""
    pixels = np.random.default_rng(5).poisson(2000.0, (128, 128)).astype("u2")
    setting = fits.Header([("GAIN", 139)])
    assert read_frame(
        written(fits.PrimaryHDU(pixels, setting)), name="x"
    ).facts.gain_e_per_adu == pytest.approx(1.0, rel=0.05)
    both = fits.Header([("GAIN", 139), ("EGAIN", 0.8)])
    assert read_frame(written(fits.PrimaryHDU(pixels, both)), name="x").facts.gain_e_per_adu == 0.8


def test_rates_become_electrons() -> None:
    """electron/s times the exposure."""
    header = fits.Header([("BUNIT", "ELECTRONS/S"), ("EXPTIME", 50.0)])
    frame = read_frame(written(fits.PrimaryHDU(sky_pixels(level=10, sigma=1).astype("f4"), header)), name="x")
    assert frame.unit == "electron"
    assert np.median(frame.science) == pytest.approx(500.0, rel=0.01)


def test_tiny_physical_units_stay_in_range() -> None:
    """A frame in 1e-29 has a variance that float32 cannot hold: its unit changes by a power of ten, and says so."""
    pixels = np.random.default_rng(6).normal(0, 3e-29, (64, 64))
    frame = read_frame(written(fits.PrimaryHDU(pixels, fits.Header([("BUNIT", "erg/s/cm2/Hz")]))), name="x")
    assert frame.unit == "1e-29 erg/s/cm2/Hz"
    assert np.median(frame.variance) == pytest.approx(9.0, rel=0.1)


def test_noise_and_mask_companions_travel_along() -> None:
    """A noise map gives the variance; 0, NaN or less in it means not measured; any flag is a bad pixel."""
    header = fits.Header([("BUNIT", "MJy/sr")])
    sigma, flags = np.full((96, 96), 3.0, "f4"), np.zeros((96, 96), "i2")
    sigma[1, 1], sigma[2, 2], sigma[3, 3], flags[4, 4] = 0, np.nan, -1, 8
    frame = read_frame(
        written(fits.PrimaryHDU(sky_pixels().astype("f4"), header)),
        name="x",
        noise=written(fits.PrimaryHDU(sigma)),
        mask=written(fits.PrimaryHDU(flags)),
    )
    assert frame.variance[50, 50] == 9.0
    assert all(frame.mask[i, i] & MaskBit.NO_DATA for i in (1, 2, 3))
    assert frame.mask[4, 4] == MaskBit.BAD_PIXEL
    with pytest.raises(
        FrameRejected, match="noise map of x: the noise map is 90 x 96 pixels, the frame x is 96 x 96"
    ):
        read_frame(
            written(fits.PrimaryHDU(sky_pixels().astype("f4"))),
            name="x",
            noise=written(fits.PrimaryHDU(sigma[:, :90])),
        )


def test_measured_variance_agrees_with_the_truth() -> None:
    """Sky scatter plus source photons: within 3 % on blank sky, within 15 % on the brightest stars."""
    sky = make_sky(seed=7, shape=(256, 256), n_stars=60, n_transients=0)
    frame = read_frame(frame_to_user_fits(sky.science), name="x")
    ratio = frame.variance / sky.science.variance
    blank = sky.science.variance < 1.01 * sky.science.variance.min()
    assert np.median(ratio[blank]) == pytest.approx(1.0, abs=0.03)
    bright = sky.science.variance > 20 * np.median(sky.science.variance)
    assert np.median(ratio[bright]) == pytest.approx(1.0, abs=0.15)


def test_saturation_without_a_level_is_the_files_ceiling() -> None:
    """SATURATE missing: 65535 of a 16-bit file is saturated, and said; no level is invented."""
    pixels = np.random.default_rng(8).poisson(2000, (64, 64)).astype("u2")
    pixels[20, 20] = 65535
    frame = read_frame(written(fits.PrimaryHDU(pixels, fits.Header([("GAIN", 1.0)]))), name="x")
    assert frame.mask[20, 20] & MaskBit.SATURATED
    assert frame.mask[20, 22] & MaskBit.SATURATED
    assert frame.facts.saturation is None
    assert any("SATURATE is missing: 1 pixels at 65535" in sentence for sentence in frame.assumed)


def _sky_with_stars(clip: float) -> np.ndarray:
    """Float sky of 1,000 counts with 30 wide stars, cut at `clip`."""
    rng = np.random.default_rng(9)
    rows, columns = np.indices((160, 160))
    image = rng.normal(1000.0, 30.0, rows.shape)
    for x, y, peak in rng.uniform((8, 8, 1e3), (152, 152, 9e4), (30, 3)):
        image += peak * np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / 8)
    return np.minimum(image, clip).astype(np.float32)


@pytest.mark.parametrize(
    ("card", "clip", "level", "says"),
    [
        (None, 50_000.0, 50_000.0, "SATURATE is missing: "),
        (65_535.0, 50_000.0, 50_000.0, "SATURATE says 65535: "),
        (50_000.0, 50_000.0, 50_000.0, None),
        (45_000.0, 50_000.0, 45_000.0, None),
        (1_300.0, 50_000.0, 50_000.0, "SATURATE says 1300: "),
        (1_300.0, np.inf, None, "times as far above it: not believed, taken as missing"),
        (None, np.inf, None, None),
        (65_535.0, np.inf, 65_535.0, None),
    ],
)
def test_a_saturation_level_is_held_against_the_pixels(
    card: float | None, clip: float, level: float | None, says: str | None
) -> None:
    """The brightest value that several pixels share is the level; one that light passes by far is none."""
    header = fits.Header([("GAIN", 1.0), *([] if card is None else [("SATURATE", card)])])
    frame = read_frame(written(fits.PrimaryHDU(_sky_with_stars(clip), header)), name="x")
    assert frame.facts.saturation == level
    assert [says in sentence for sentence in frame.assumed if "SATURATE" in sentence] == (
        [True] if says else []
    )
    clipped = frame.science >= clip
    assert ((frame.mask[clipped] & np.uint32(MaskBit.SATURATED)) != 0).all()


def test_areas_of_one_value_are_not_exposed() -> None:
    """A border of zeros, as stacks have it, is no data; the sky's noise does not know of it."""
    pixels = _sky_with_stars(np.inf)
    whole = read_frame(written(fits.PrimaryHDU(pixels, fits.Header([("GAIN", 1.0)]))), name="x")
    pixels[:40], pixels[:, 140:] = 0, 0
    frame = read_frame(written(fits.PrimaryHDU(pixels, fits.Header([("GAIN", 1.0)]))), name="x")
    blank = pixels == 0
    np.testing.assert_array_equal((frame.mask & np.uint32(MaskBit.NO_DATA)) != 0, blank)
    assert any("8800 pixels lie in areas of one value (0): taken as not exposed" in s for s in frame.assumed)
    noise = [np.median(of.variance[60:130, 20:120]) for of in (frame, whole)]
    assert noise[0] == pytest.approx(noise[1], rel=0.1)


@pytest.mark.parametrize(("factor", "unit"), [(1e-17, "1e-16 adu"), (1e12, "1e13 adu")])
def test_values_beyond_float32s_squares_change_their_unit(factor: float, unit: str) -> None:
    """Tiny and huge units come in by a power of ten, said, and with a noise of that order."""
    header = fits.Header([("BUNIT", "adu")])
    pixels = ((_sky_with_stars(np.inf) - 1000) * factor).astype(np.float64)
    frame = read_frame(written(fits.PrimaryHDU(pixels, header)), name="x")
    assert frame.unit == unit
    assert any("values multiplied by 1e" in sentence for sentence in frame.assumed)
    assert 1 < np.sqrt(np.median(frame.variance)) < 100


def test_the_eso_pair_is_read() -> None:
    """uint16, no GAIN, no WCS: electrons by an estimated gain, and everything assumed is said."""
    frame = read_frame(real_frame("eso085_pair/eso085_004.fit"))
    assert (frame.shape, frame.unit, frame.wcs) == ((682, 1024), "electron", None)
    assert 0.5 < (frame.facts.gain_e_per_adu or 0) < 4
    assert frame.facts.observed_at is not None
    assert any("GAIN is missing" in sentence for sentence in frame.assumed)


def test_the_nircam_pair_is_read_with_its_noise() -> None:
    """MJy/sr stays, the noise map is the variance, and the zero point comes from the pixel area."""
    folder = "jwst_nircam_a2744"
    frame = read_frame(real_frame(f"{folder}/sci.fits"), noise=real_frame(f"{folder}/sci.noise.fits"))
    assert frame.unit == "MJy/sr"
    assert frame.wcs is not None
    assert frame.facts.zero_point_mag == pytest.approx(28.02, abs=0.01)
    measured = np.isfinite(frame.variance)
    assert 0.9 < np.median(np.sqrt(frame.variance[measured])) / 0.00425 < 1.1
