"""What a FITS file says it holds, checked against limits and against itself before any pixel is touched.

Owns the walk over headers; never decodes pixels and never interprets a card that is not about structure.
"""

import math
from dataclasses import dataclass
from typing import Protocol

from astrid_workers.errors import FrameRejected
from astrid_workers.storage.fits_bytes import CappedBytes

BLOCK_BYTES = 2880
CARD_BYTES = 80
#: Bytes per value by BITPIX.
BYTES_OF_BITPIX = {8: 1, 16: 2, 32: 4, 64: 8, -32: 4, -64: 8}
#: The standard allows 999 axes; images of the sky have two, cubes three.
MOST_AXES = 6


class _Allowed(Protocol):
    """What `settings.StorageSettings` says of files: reading that module takes a tenth of a short run."""

    @property
    def max_input_bytes(self) -> int: ...
    @property
    def max_pixels(self) -> int: ...


@dataclass(frozen=True, slots=True)
class FitsLimits:
    """The largest file that is read."""

    #: Bytes of the file, and of what it becomes when decompressed.
    max_bytes: int = 2_000_000_000
    #: Pixels of one image, packed in tiles or not.
    max_pixels: int = 400_000_000
    #: Header and data units; mosaics have about 70.
    max_hdus: int = 256
    #: Cards of all headers together; a DECam mosaic has about 15 000.
    max_cards: int = 50_000

    @classmethod
    def from_settings(cls, settings: _Allowed) -> "FitsLimits":
        """What the environment allows."""
        return cls(max_bytes=settings.max_input_bytes, max_pixels=settings.max_pixels)


@dataclass(frozen=True, slots=True)
class Hdu:
    """One header and data unit: where it stands in the file and what it claims to be."""

    index: int
    #: EXTNAME, upper case, or "".
    name: str
    #: "image", "packed" (a tile-compressed image) or "other".
    kind: str
    bitpix: int
    #: Axes of the image in numpy's order, slowest first; () without data.
    shape: tuple[int, ...]
    header_start: int
    data_start: int
    data_bytes: int

    @property
    def plane(self) -> tuple[int, int] | None:
        """`(ny, nx)` when it holds one plane, ignoring axes of length one; None otherwise."""
        axes = [n for n in self.shape[:-2] if n != 1]
        if len(self.shape) < 2 or axes or 0 in self.shape:
            return None
        return self.shape[-2], self.shape[-1]

    @property
    def label(self) -> str:
        """For sentences."""
        return f"HDU {self.index} ({self.name})" if self.name else f"HDU {self.index}"


class Cards:
    """The structural cards of one header: raw values by keyword, with sentences that name file and card."""

    def __init__(self, raw: memoryview, name: str, where: str) -> None:
        self._name, self._where = name, where
        self._values: dict[str, str] = {}
        for start in range(0, len(raw), CARD_BYTES):
            card = bytes(raw[start : start + CARD_BYTES])
            if card[8:10] == b"= ":
                keyword = card[:8].decode("ascii", "replace").strip()
                self._values.setdefault(keyword, _value(card))

    def text(self, keyword: str) -> str:
        """A string card without quotes and trailing blanks; "" when absent."""
        return self._values.get(keyword, "").strip("'").rstrip()

    def is_true(self, keyword: str) -> bool:
        """A logical card that says T."""
        return self._values.get(keyword) == "T"

    def whole(self, keyword: str, *, default: int | None = None, least: int = 0) -> int:
        """A whole number of at least `least`; FrameRejected otherwise."""
        value = self._values.get(keyword)
        if value is None and default is not None:
            return default
        try:
            number = int(value or "")
        except ValueError:
            number = least - 1
        if number < least or len(value or "") > 20:
            said = "is missing" if value is None else f"is {value[:30]}"
            msg = f"{self._name}: {keyword} of {self._where} {said}, expected a whole number from {least}"
            raise FrameRejected(msg, hdu=self._where)
        return number


def read_structure(source: CappedBytes, *, name: str, limits: FitsLimits) -> list[Hdu]:
    """All units of a file, or FrameRejected with one sentence: file, card, value and limit."""
    if bytes(source.view(0, 9)) != b"SIMPLE  =":
        seen = bytes(source.view(0, 9))
        said = "an empty file" if not seen else f"begins with {seen!r}"
        msg = f"{name}: not FITS ({said}, expected 'SIMPLE  =')"
        raise FrameRejected(msg)
    units: list[Hdu] = []
    start = cards = 0
    while _begins_a_unit(source, start, first=not units):
        if len(units) >= limits.max_hdus:
            msg = f"{name}: more than {limits.max_hdus} HDUs, which is the limit"
            raise FrameRejected(msg, limit=limits.max_hdus)
        raw = _header(source, start, name, len(units), cards, limits)
        cards += len(raw) // CARD_BYTES
        unit = _unit(raw, start, len(units), name, limits)
        if not source.has(unit.data_start + unit.data_bytes):
            msg = (
                f"{name}: truncated, {unit.label} needs {unit.data_start + unit.data_bytes} bytes"
                f" and the file ends at {source.known_size()}"
            )
            raise FrameRejected(msg, needed=unit.data_start + unit.data_bytes, found=source.known_size())
        units.append(unit)
        start = unit.data_start + _padded(unit.data_bytes)
    return units


def _value(card: bytes) -> str:
    """The value of a card as text: a quoted string with its quotes, or what stands before the comment."""
    body = card[10:].decode("latin-1")
    if not body.lstrip().startswith("'"):
        return body.split("/", 1)[0].strip()
    inner = body.lstrip()[1:]
    end = 0
    while (end := inner.find("'", end)) >= 0 and inner[end : end + 2] == "''":
        end += 2
    return "'" + (inner if end < 0 else inner[:end]).replace("''", "'") + "'"


def _padded(size: int) -> int:
    return (size + BLOCK_BYTES - 1) // BLOCK_BYTES * BLOCK_BYTES


def _begins_a_unit(source: CappedBytes, start: int, *, first: bool) -> bool:
    """Whether another unit follows; padding or special records behind the last one end the walk."""
    return first or bytes(source.view(start, start + 9)) == b"XTENSION="


def _header(
    source: CappedBytes, start: int, name: str, index: int, cards_before: int, limits: FitsLimits
) -> memoryview:
    """The cards up to END, that one not included."""
    stop = start
    while True:
        block = source.view(stop, stop + BLOCK_BYTES)
        if len(block) < BLOCK_BYTES and not _has_end(block):
            ends = stop + len(block)
            msg = f"{name}: truncated inside the header of HDU {index}, at byte {ends}: no END card"
            raise FrameRejected(msg, hdu=index, found=ends)
        end = _end(block)
        here = len(block) // CARD_BYTES if end is None else end
        cards = cards_before + (stop - start) // CARD_BYTES + here
        if cards > limits.max_cards:
            msg = f"{name}: more than {limits.max_cards} header cards by HDU {index}, which is the limit"
            raise FrameRejected(msg, hdu=index, limit=limits.max_cards)
        if end is not None:
            return source.view(start, stop + end * CARD_BYTES)
        stop += BLOCK_BYTES


def _end(block: memoryview) -> int | None:
    """Which card of a block is END."""
    for index in range(len(block) // CARD_BYTES):
        if bytes(block[index * CARD_BYTES : index * CARD_BYTES + 8]) == b"END     ":
            return index
    return None


def _has_end(block: memoryview) -> bool:
    return _end(block) is not None


def _unit(raw: memoryview, start: int, index: int, name: str, limits: FitsLimits) -> Hdu:
    where = f"HDU {index}"
    cards = Cards(raw, name, where)
    data_start = start + _padded(len(raw) + CARD_BYTES)
    bitpix = _bitpix(cards, "BITPIX", name, where)
    axes = _axes(cards, "NAXIS", name, where)
    is_image = index == 0 or cards.text("XTENSION").strip() in {"IMAGE", "IUEIMAGE"}
    packed = not is_image and cards.is_true("ZIMAGE")
    if is_image:
        _refuse_pixels(axes, "NAXIS", name, where, limits)
    groups = cards.is_true("GROUPS") and index == 0
    values = math.prod(axes[1:] if groups else axes) if axes else 0
    extra, count = cards.whole("PCOUNT", default=0), cards.whole("GCOUNT", default=1)
    data_bytes = BYTES_OF_BITPIX[bitpix] * count * (extra + values)
    if packed:
        bitpix = _bitpix(cards, "ZBITPIX", name, where)
        axes = _axes(cards, "ZNAXIS", name, where)
        _refuse_pixels(axes, "ZNAXIS", name, where, limits)
        sides = [n if i == 0 else 1 for i, n in enumerate(axes)]
        tile = [cards.whole(f"ZTILE{i + 1}", default=n, least=1) for i, n in enumerate(sides)]
        _refuse_pixels(tile, "ZTILE", name, where, limits)
    kind = "packed" if packed else "image" if is_image and not groups else "other"
    shape = tuple(reversed(axes)) if kind != "other" else ()
    return Hdu(index, cards.text("EXTNAME").upper(), kind, bitpix, shape, start, data_start, data_bytes)


def _bitpix(cards: Cards, keyword: str, name: str, where: str) -> int:
    value = cards.whole(keyword, least=-64)
    if value not in BYTES_OF_BITPIX:
        msg = f"{name}: {keyword} of {where} is {value}, expected one of 8, 16, 32, 64, -32, -64"
        raise FrameRejected(msg, hdu=where, value=value)
    return value


def _axes(cards: Cards, keyword: str, name: str, where: str) -> list[int]:
    count = cards.whole(keyword)
    if count > MOST_AXES:
        msg = f"{name}: {keyword} of {where} is {count}, the limit is {MOST_AXES}"
        raise FrameRejected(msg, hdu=where, value=count, limit=MOST_AXES)
    return [cards.whole(f"{keyword}{i + 1}") for i in range(count)]


def _refuse_pixels(axes: list[int], keyword: str, name: str, where: str, limits: FitsLimits) -> None:
    pixels = math.prod(axes) if axes else 0
    if pixels > limits.max_pixels:
        product = " x ".join(str(n) for n in axes)
        names = "·".join(f"{keyword}{i + 1}" for i in range(len(axes)))
        msg = f"{name}: {names} of {where} is {product} = {pixels} pixels, the limit is {limits.max_pixels}"
        raise FrameRejected(msg, hdu=where, pixels=pixels, limit=limits.max_pixels)
