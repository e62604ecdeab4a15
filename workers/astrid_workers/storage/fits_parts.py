"""The images of a mosaic: which extensions are parts of one observation, and files with one image each.

Owns the names of parts, the way they are matched between files and how one is cut out of a file; never
decodes a pixel.
"""

import io
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from astropy.io import fits
from astropy.wcs import WCS

from astrid_workers.errors import FrameRejected
from astrid_workers.frame import Float32Image
from astrid_workers.storage.fits_artifacts import image_to_fits
from astrid_workers.storage.fits_bytes import CappedBytes
from astrid_workers.storage.fits_structure import BLOCK_BYTES, FitsLimits, Hdu, read_structure

#: Extensions that accompany an image: no light of the sky is in them.
COMPANIONS = frozenset(
    {
        "VAR", "VARIANCE", "ERR", "ERROR", "UNCERT", "NOISE", "SIGMA", "STD", "RMS", "IVAR", "INVVAR", "WHT",
        "WEIGHT", "WT", "DQ", "MASK", "BPM", "FLAG", "FLAGS", "OOF", "QUALITY", "CON", "CTX", "COVERAGE",
        "EXP", "AREA", "BKG", "BACKGROUND", "PSF", "FACTS", "D2IMARR", "WCSDVARR", "GUIDE", "FOCUS",
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Part:
    """One image of a mosaic."""

    #: EXTNAME, with the number of the HDU where that is not unique; fit for a file's name.
    name: str
    #: Number of its HDU.
    index: int


def parts_of(
    data: bytes | Path, limits: FitsLimits | None = None, *, name: str | None = None
) -> tuple[Part, ...]:
    """The images of a mosaic in the order of the file; empty when the file holds one image.

    A mosaic has two or more extensions with one plane each that are not companions of an image (variance,
    flags, weights), and no image in its primary HDU. Raises FrameRejected as `read_header`.
    """
    _, units = _units_of(data, limits, name)
    images = [unit for unit in units if unit.kind != "other" and unit.plane is not None]
    images = [unit for unit in images if not _is_companion(unit.name)]
    if len(images) < 2 or images[0].index == 0:
        return ()
    often = Counter(_clean(unit.name) for unit in images)
    return tuple(Part(_label(u.name, u.index, unique=often[_clean(u.name)] == 1), u.index) for u in images)


def _is_companion(name: str) -> bool:
    words = set(re.split(r"[^A-Z0-9]+", name))
    return bool(words & COMPANIONS)


def _label(name: str, index: int, *, unique: bool) -> str:
    clean = _clean(name)
    return clean if clean and unique else f"{clean or 'HDU'}_{index}"


def _clean(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9.+-]", "_", name)[:40]


def cut_out(
    data: bytes | Path, indices: Iterable[int], limits: FitsLimits | None = None, *, name: str
) -> Iterator[bytes]:
    """For each HDU a plain FITS file of its own, behind the primary header, whose cards hold for it too.

    Headers and data are those of the file, byte by byte. Raises FrameRejected as `read_header`.
    """
    source, units = _units_of(data, limits, name)
    for index in indices:
        yield b"".join(_unit_bytes(source, unit) for unit in (units[0], units[index]))


def _unit_bytes(source: CappedBytes, unit: Hdu) -> bytes:
    end = unit.data_start + unit.data_bytes
    return bytes(source.view(unit.header_start, end)) + bytes(-end % BLOCK_BYTES)


def _units_of(
    data: bytes | Path, limits: FitsLimits | None, name: str | None
) -> tuple[CappedBytes, list[Hdu]]:
    limits, shown = limits or FitsLimits(), name or _shown(data)
    source = CappedBytes(data, name=shown, max_bytes=limits.max_bytes)
    return source, read_structure(source, name=shown, limits=limits)


def _shown(data: bytes | Path) -> str:
    return data.name if isinstance(data, Path) else "frame"


def matching_part(
    data: bytes | Path, part: Part, among: Sequence[Part], *, name: str | None = None
) -> int | None:
    """Number of the HDU of the file that belongs to `part`, one of the science frame's parts `among`.

    By name; else by order where both files have as many parts; None for a file with one image, which serves
    all. Raises FrameRejected where a mosaic has no such part.
    """
    others = parts_of(data, name=name)
    if not others:
        return None
    for other in others:
        if other.name == part.name:
            return other.index
    if len(others) == len(among) and not {p.name for p in others} & {p.name for p in among}:
        return others[among.index(part)].index
    msg = (
        f"{name or _shown(data)} has no part {part.name}, it has: {', '.join(other.name for other in others)}"
    )
    raise FrameRejected(msg)


class MosaicFile:
    """A FITS file with one image extension per part, written part by part: all of it, or nothing."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._partial = path.with_name(f".{path.name}.partial")
        self._n = 0

    def __enter__(self) -> "MosaicFile":
        buffer = io.BytesIO()
        fits.PrimaryHDU().writeto(buffer)
        self._partial.write_bytes(buffer.getvalue())
        return self

    def add(
        self,
        name: str,
        image: Float32Image,
        wcs: WCS | None,
        cards: Mapping[str, str | int | float | bool | None],
    ) -> None:
        """Append one part; only its pixels are in memory."""
        self.add_written(name, image_to_fits(image, wcs=wcs, cards=dict(cards)))

    def add_written(self, name: str, file: bytes) -> None:
        """Append the image of a FITS file of its own."""
        with fits.open(io.BytesIO(file)) as single:
            header = single[0].header
            for card in ("SIMPLE", "EXTEND"):
                header.remove(card, ignore_missing=True)
            header["EXTNAME"] = name
            fits.append(self._partial, single[0].data, header, verify=False)
        self._n += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None and self._n:
            self._partial.replace(self._path)
        else:
            self._partial.unlink(missing_ok=True)
            self._path.unlink(missing_ok=True)
