"""FITS files in and out: the door through which pixels enter.

Owns turning a file that nobody has vouched for into a `Frame`, and our own files into frames again.
Everything that can be checked is checked before a pixel is touched. Never fetches, never chooses where a file
may come from, and never lets NaN past itself: what was not measured becomes mask.
"""

import math
import warnings
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS
from numpy.typing import NDArray

from astrid_workers.celestial import sky_of
from astrid_workers.errors import FrameRejected
from astrid_workers.frame import Float32Image, Frame, HeaderFacts
from astrid_workers.imaging.blank_areas import without_blank_areas
from astrid_workers.imaging.measured_frame import frame_from_pixels
from astrid_workers.imaging.overscan import Layout, without_overscan
from astrid_workers.storage.fits_artifacts import frame_from_fits, frame_to_fits, image_to_fits
from astrid_workers.storage.fits_bytes import CappedBytes
from astrid_workers.storage.fits_facts import ALIASES, Facts, read_facts
from astrid_workers.storage.fits_saturation import believed_saturation
from astrid_workers.storage.fits_sections import detector_layout, mean_gain
from astrid_workers.storage.fits_structure import CARD_BYTES, FitsLimits, Hdu, read_structure
from astrid_workers.storage.fits_tiles import unpacked
from astrid_workers.storage.fits_wcs import celestial_wcs, pixel_scale_arcsec

__all__ = [
    "FitsLimits",
    "FrameHeader",
    "frame_from_fits",
    "frame_to_fits",
    "image_to_fits",
    "read_frame",
    "read_header",
]

#: Extensions that hold the science image where there are several.
SCIENCE_NAMES = ("SCI", "SCIENCE", "IMAGE")
#: Beyond this a value is not a measurement: its square must fit into float32.
LARGEST_VALUE = 1e15


@dataclass(frozen=True, slots=True, eq=False)
class FrameHeader:
    """What a file says of its image, without its pixels; facts are in the file's own unit."""

    name: str
    #: `(ny, nx)`.
    shape: tuple[int, int]
    #: EXTNAME of the image, or "".
    extension: str
    #: "adu", "adu / s", "electron", "electron / s", or BUNIT as written.
    unit: str
    facts: HeaderFacts
    wcs: WCS | None
    assumed: tuple[str, ...] = field(default=())

    @property
    def centre_deg(self) -> tuple[float, float] | None:
        """RA and Dec of the image's centre, ICRS degrees, or None without a WCS."""
        if self.wcs is None:
            return None
        ra, dec = sky_of(self.wcs, (self.shape[1] - 1) / 2, (self.shape[0] - 1) / 2)
        return float(ra), float(dec)


def read_header(
    data: bytes | Path,
    *,
    name: str | None = None,
    limits: FitsLimits | None = None,
    extension: str | int | None = None,
) -> FrameHeader:
    """Check the structure of a FITS file against `limits` and say what its image is; no pixel is decoded.

    Raises FrameRejected with one sentence (file, card, value, limit) exactly where `read_frame` would, except
    for faults that only the pixels show.
    """
    return _opened(data, name, limits or FitsLimits(), extension).described()


def read_frame(
    data: bytes | Path,
    *,
    name: str | None = None,
    limits: FitsLimits | None = None,
    extension: str | int | None = None,
    mask: bytes | Path | None = None,
    noise: bytes | Path | None = None,
) -> Frame:
    """The image of a FITS file as a `Frame`.

    `data` is the file's bytes or path; plain, or packed by gzip, bzip2 or xz; the image may be
    tile-compressed. The image is the extension named SCI, else the first with one plane; `extension` (EXTNAME
    or number) overrides that. `noise` is a companion file with one standard deviation per pixel in the
    image's unit; without it, variance is measured: the sky's scatter, plus the photons of sources where a
    gain is known. An overscan (BIASSEC) is taken off, amplifiers are brought to one gain, and the image is
    trimmed (TRIMSEC, DATASEC) where these cards fit it. `mask` is a companion in which anything but 0 is a
    bad pixel. Pixels that are NaN, infinite, BLANK, beyond 1e15 or in areas of one value become `NO_DATA`.
    The frame is in electrons when the unit is a count and a gain is known or can be estimated, else in its
    own unit. Raises FrameRejected with one sentence for everything that cannot be used.
    """
    limits = limits or FitsLimits()
    opened = _opened(data, name, limits, extension)
    header = opened.described()
    pixels, ceiling = opened.pixels()
    layout = opened.layout()
    bad = None if mask is None else _companion(mask, "mask", header, limits, opened)
    sigma = None if noise is None else _companion(noise, "noise map", header, limits, opened)
    facts = header.facts
    if layout is not None:
        pixels, level = without_overscan(pixels, layout)
        ceiling = None if ceiling is None else ceiling - level
        facts = replace(facts, saturation=None if facts.saturation is None else facts.saturation - level)
    pixels, said = without_blank_areas(pixels)
    facts, doubt = believed_saturation(facts, pixels)
    return frame_from_pixels(
        pixels,
        facts=facts,
        unit=header.unit,
        wcs=header.wcs,
        assumed=(
            *header.assumed,
            *(sentence for sentence in (said, doubt, opened.left_unread()) if sentence is not None),
        ),
        name=header.name,
        sigma=sigma,
        bad=None if bad is None else (bad != 0),
        ceiling=ceiling,
        is_integer=opened.hdu.bitpix > 0,
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Opened:
    """A file whose structure has been accepted, and the unit in it that holds the image."""

    source: CappedBytes
    hdu: Hdu
    units: list[Hdu]
    name: str

    def left_unread(self) -> str | None:
        """Of planes beside the image that other programs write and nobody reads; None: there are none."""
        beside = [
            unit.name
            for unit in self.units
            if unit is not self.hdu and unit.name in _PLANES_BESIDE and unit.plane == self.hdu.plane
        ]
        if not beside:
            return None
        return f"{', '.join(beside)} of the file not used: masks and noise maps are files of their own"

    @property
    def primary(self) -> Hdu:
        """Its cards hold for all extensions."""
        return self.units[0]

    def header(self) -> fits.Header:
        """The image's cards; where the extension is silent, the primary header's.

        BUNIT among them only where the primary has no pixels of its own, whose unit it would be.
        """
        own = _header_of(self.source, self.hdu)
        if self.hdu.index == 0:
            return own
        silent = _STRUCTURAL if self.primary.data_bytes == 0 else _STRUCTURAL | {"BUNIT"}
        for card in _header_of(self.source, self.primary).cards:
            if card.keyword and card.keyword not in silent and card.keyword not in own:
                own.append(card, end=True)
        return own

    def layout(self) -> Layout | None:
        """The amplifiers and their overscans, where the image is raw."""
        assert self.hdu.plane is not None
        return detector_layout(self.header(), self.hdu.plane)

    def described(self) -> FrameHeader:
        """Facts, WCS and shape; of a raw image, those that it has once trimmed."""
        plane = self.hdu.plane
        assert plane is not None
        header = self.header()
        read: Facts = read_facts(header, texts=_texts(self.source, (self.primary, self.hdu)))
        wcs, trouble = celestial_wcs(header, plane)
        facts, assumed = read.facts, [*read.assumed, *([trouble] if trouble else [])]
        if wcs is not None:
            facts = replace(facts, pixel_scale_arcsec=pixel_scale_arcsec(wcs))
        layout = detector_layout(header, plane)
        if layout is not None:
            wcs = _trimmed_wcs(wcs, layout, assumed)
            facts = replace(facts, gain_e_per_adu=mean_gain(header, layout) or facts.gain_e_per_adu)
            plane = layout.shape
        return FrameHeader(self.name, plane, self.hdu.name, read.unit, facts, wcs, tuple(assumed))

    def pixels(self) -> tuple[Float32Image, float | None]:
        """Native float32, NaN where not measured, and the largest value that the type can hold."""
        if self.hdu.kind == "packed":
            return self._unpacked()
        header = _header_of(self.source, self.hdu)
        dtype = {8: ">u1", 16: ">i2", 32: ">i4", 64: ">i8", -32: ">f4", -64: ">f8"}[self.hdu.bitpix]
        raw = np.frombuffer(
            self.source.view(self.hdu.data_start, self.hdu.data_start + self.hdu.data_bytes), dtype=dtype
        ).reshape(self.hdu.plane)
        return _scaled(raw, header, self.hdu, self.name)

    def _unpacked(self) -> tuple[Float32Image, float | None]:
        """A tile-compressed image: only this unit's bytes are shown to the decoder."""
        end = self.hdu.data_start + self.hdu.data_bytes
        unit = bytes(self.source.view(self.hdu.header_start, end))
        data = unpacked(unit, self.hdu, _header_of(self.source, self.hdu), self.name)
        ceiling = (
            float(np.iinfo(data.dtype).max) if data.dtype.kind in "iu" and self.hdu.bitpix <= 16 else None
        )
        return _cleaned(data.reshape(self.hdu.plane)), ceiling


def _trimmed_wcs(wcs: WCS | None, layout: Layout, assumed: list[str]) -> WCS | None:
    """The WCS of the trimmed image; none where strips between amplifiers closed up."""
    n = len(layout.amplifiers)
    assumed.append(
        f"overscan of {n} amplifier{'s' if n > 1 else ''} taken off and cut away (BIASSEC, TRIMSEC)"
    )
    if wcs is None:
        return None
    if layout.origin is None:
        assumed.append(
            "amplifiers lie apart in the raw image, so that its WCS does not hold: taken as no WCS"
        )
        return None
    y, x = layout.origin
    return wcs[y:, x:]


#: Cards of a primary header that do not describe the image in an extension.
#: Planes that other programs write beside an image: its mask, and its noise in one form or another.
_PLANES_BESIDE = frozenset(
    {"DQ", "MASK", "FLAGS", "ERR", "ERROR", "NOISE", "RMS", "VAR", "VARIANCE", "IVAR", "WHT", "WEIGHT"}
)
_STRUCTURAL = frozenset(
    {
        "SIMPLE", "XTENSION", "BITPIX", "NAXIS", "NAXIS1", "NAXIS2", "NAXIS3", "EXTEND", "PCOUNT", "GCOUNT",
        "BSCALE", "BZERO", "BLANK", "CHECKSUM", "DATASUM", "EXTNAME", "EXTVER", "COMMENT", "HISTORY",
        "CTYPE1", "CTYPE2",
    }
)  # fmt: skip

_DECODING_ERRORS = (
    OSError,
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    OverflowError,
    MemoryError,
    RuntimeError,
    AttributeError,
    ZeroDivisionError,
    fits.VerifyError,
)


def _opened(data: bytes | Path, name: str | None, limits: FitsLimits, extension: str | int | None) -> _Opened:
    shown = name or (data.name if isinstance(data, Path) else "frame")
    source = CappedBytes(data, name=shown, max_bytes=limits.max_bytes)
    units = read_structure(source, name=shown, limits=limits)
    return _Opened(source, _chosen(units, shown, extension), units, shown)


def _chosen(units: list[Hdu], name: str, extension: str | int | None) -> Hdu:
    images = [unit for unit in units if unit.kind != "other" and unit.plane is not None]
    if extension is not None:
        wanted = [u for u in images if extension in {u.index, u.name} or str(extension).upper() == u.name]
        if not wanted:
            found = ", ".join(f"{u.index} {u.name}".strip() for u in images) or "none"
            msg = f"{name}: no image {extension!r}, it has: {found}"
            raise FrameRejected(msg)
        return wanted[0]
    named = [unit for unit in images if unit.name in SCIENCE_NAMES]
    if not images:
        seen = "; ".join(f"{u.label}: {_shape_text(u)}" for u in units[:4])
        msg = f"{name}: no image HDU with two axes ({seen})"
        raise FrameRejected(msg, hdus=len(units))
    return (named or images)[0]


def _shape_text(unit: Hdu) -> str:
    return " x ".join(str(n) for n in reversed(unit.shape)) if unit.shape else "no image"


def _header_of(source: CappedBytes, hdu: Hdu) -> fits.Header:
    """Cards of one unit, with every byte that FITS does not allow replaced by "?"."""
    raw = bytes(source.view(hdu.header_start, hdu.data_start))
    clean = bytes(raw).translate(_PRINTABLE).decode("ascii")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            header = fits.Header.fromstring(clean)
            return _without_broken_cards(header)
    except _DECODING_ERRORS as error:
        msg = f"the header of {hdu.label} cannot be read ({_first_line(error)})"
        raise FrameRejected(msg, hdu=hdu.index) from None


def _without_broken_cards(header: fits.Header) -> fits.Header:
    """Cards whose value cannot be parsed say nothing; the rest do."""
    good = fits.Header()
    for card in header.cards:
        try:
            _ = card.value
            good.append(card, end=True)
        except (fits.VerifyError, ValueError):
            continue
    return good


_PRINTABLE = bytes(c if 32 <= c < 127 else ord("?") for c in range(256))


def _texts(source: CappedBytes, units: tuple[Hdu, ...]) -> dict[str, str]:
    """String cards with bytes beyond ASCII, read as UTF-8, else as the old western code page."""
    wanted = {card for name in ("object_name", "telescope", "instrument") for card in ALIASES[name]}
    texts: dict[str, str] = {}
    for unit in units:
        raw = bytes(source.view(unit.header_start, unit.data_start))
        for start in range(0, len(raw), CARD_BYTES):
            card = raw[start : start + CARD_BYTES]
            keyword = card[:8].decode("ascii", "replace").strip()
            if keyword in wanted and not card.isascii():
                text = _decoded(card[10:]).strip()
                texts[keyword] = text[1:].split("'")[0].strip() if text.startswith("'") else text
    return texts


def _decoded(raw: bytes) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw.decode("cp1252", "replace")


def _scaled(raw: NDArray[Any], header: fits.Header, hdu: Hdu, name: str) -> tuple[Float32Image, float | None]:
    """BSCALE, BZERO and BLANK applied; NaN where not measured."""
    scale = _finite_card(header, "BSCALE", 1.0, name)
    zero = _finite_card(header, "BZERO", 0.0, name)
    if hdu.bitpix < 0:
        values = raw if (scale, zero) == (1.0, 0.0) else raw.astype(np.float64) * scale + zero
        return _cleaned(values), None
    # int16 and its offsets are exact in float32; longer integers need float64 on the way
    wide = np.float32 if hdu.bitpix <= 16 else np.float64
    values = raw.astype(wide)
    blank = header.get("BLANK")
    if scale != 1.0:
        values *= wide(scale)
    if zero != 0.0:
        values += wide(zero)
    image = _cleaned(values)
    if isinstance(blank, int) and not isinstance(blank, bool):
        image[raw == blank] = np.nan
    top = float(np.iinfo(raw.dtype).max) * scale + zero
    return image, top if scale == 1.0 and hdu.bitpix <= 16 else None


def _finite_card(header: fits.Header, card: str, default: float, name: str) -> float:
    value = header.get(card, default)
    number = float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan
    if not math.isfinite(number) or (card == "BSCALE" and number == 0):
        msg = f"{name}: {card} is {value!s:.30}, expected a finite number"
        raise FrameRejected(msg)
    return number


def _cleaned(values: NDArray[Any]) -> Float32Image:
    """A native float32 copy, NaN where the value is no measurement."""
    with np.errstate(over="ignore", invalid="ignore"):
        image = values.astype(np.float32)
        image[~(np.abs(image) <= LARGEST_VALUE)] = np.nan
    return image


def _companion(
    data: bytes | Path, what: str, header: FrameHeader, limits: FitsLimits, frame: _Opened
) -> Float32Image:
    """The pixels of a companion file, which must have the frame's shape, before or after it was trimmed.

    Of several images, the one with the name of the frame's extension, else that with its number.
    """
    shown = data.name if isinstance(data, Path) else f"{what} of {header.name}"
    opened, layout = _like(_opened(data, shown, limits, None), frame.hdu), frame.layout()
    pixels = opened.pixels()[0] if opened.hdu.plane is not None else None
    if layout is not None and pixels is not None and layout.takes(pixels.shape):
        return np.asarray(layout.trim(pixels), np.float32)
    if opened.hdu.plane != header.shape or pixels is None:
        (ny, nx), (my, mx) = header.shape, opened.hdu.plane or (0, 0)
        msg = f"{shown}: the {what} is {mx} x {my} pixels, the frame {header.name} is {nx} x {ny}"
        raise FrameRejected(msg)
    return pixels


def _like(opened: _Opened, hdu: Hdu) -> _Opened:
    """The same file at the unit that belongs to the frame's, where it has several images."""
    images = [unit for unit in opened.units if unit.kind != "other" and unit.plane is not None]
    named = [unit for unit in images if unit.name and unit.name == hdu.name]
    numbered = [unit for unit in images if unit.index == hdu.index]
    found = named if len(named) == 1 else numbered
    return replace(opened, hdu=found[0]) if len(images) > 1 and found else opened


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:100]
