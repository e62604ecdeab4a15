"""Our own FITS files: a frame without loss, and single images for people.

Owns one layout (SCI, VAR, MASK, FACTS) and its way back; never reads a file that others wrote. The same frame
always gives the same bytes, so that a store can tell equal artifacts by their checksum.
"""

import io
import json
import warnings
from dataclasses import asdict, fields
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS
from numpy.typing import NDArray

from astrid_workers.errors import FrameRejected
from astrid_workers.frame import Float32Image, Frame, HeaderFacts, Uint32Image
from astrid_workers.mask import MaskBit
from astrid_workers.storage.fits_bytes import CappedBytes
from astrid_workers.storage.fits_structure import FitsLimits, Hdu, read_structure

#: Version of the layout, in the card ASTRID.
LAYOUT = 1


def frame_to_fits(frame: Frame) -> bytes:
    """A frame as FITS: SCI and VAR float32, MASK uint32, and FACTS, bytes that hold the rest as JSON."""
    science = fits.ImageHDU(frame.science, _cards(frame), name="SCI")
    units = fits.HDUList(
        [
            fits.PrimaryHDU(header=fits.Header([("ASTRID", LAYOUT, "layout of this frame artifact")])),
            science,
            fits.ImageHDU(frame.variance, name="VAR"),
            fits.ImageHDU(frame.mask, name="MASK"),
            fits.ImageHDU(np.frombuffer(_told(frame), np.uint8), name="FACTS"),
        ]
    )
    return _written(units)


def frame_from_fits(data: bytes | Path, name: str | None = None) -> Frame:
    """The frame that `frame_to_fits` wrote; FrameRejected when `data` is anything else."""
    shown = name or (data.name if isinstance(data, Path) else "frame")
    limits = FitsLimits(max_bytes=1 << 40, max_pixels=1 << 40)
    source = CappedBytes(data, name=shown, max_bytes=limits.max_bytes)
    units = {unit.name: unit for unit in read_structure(source, name=shown, limits=limits)}
    if not {"SCI", "VAR", "MASK", "FACTS"} <= units.keys():
        msg = f"{shown}: not a frame artifact of Astrid, it holds {', '.join(units) or 'nothing'}"
        raise FrameRejected(msg)
    told: dict[str, Any] = json.loads(_raw(source, units["FACTS"], ">u1").tobytes())
    return Frame(
        science=_raw(source, units["SCI"], ">f4").astype(np.float32),
        variance=_raw(source, units["VAR"], ">f4").astype(np.float32),
        mask=_raw(source, units["MASK"], ">u4").astype(np.uint32) ^ np.uint32(1 << 31),
        wcs=_wcs_from(told["wcs"]),
        unit=told["unit"],
        facts=_facts_from(told["facts"]),
        assumed=tuple(told["assumed"]),
        name=name or told["name"],
    )


def image_to_fits(
    image: Float32Image,
    *,
    wcs: WCS | None = None,
    cards: dict[str, str | int | float | bool | None] | None = None,
) -> bytes:
    """One float32 image `[y, x]` as plain FITS; NaN stays NaN, cards that are None are left out."""
    header = _wcs_cards(wcs)
    for card, value in (cards or {}).items():
        if value is not None:
            header[card] = _ascii(value) if isinstance(value, str) else value
    return _written(fits.HDUList([fits.PrimaryHDU(np.asarray(image, np.float32), header)]))


def mask_to_fits(mask: Uint32Image, *, wcs: WCS | None = None) -> bytes:
    """One mask `[y, x]` of `MaskBit` as plain FITS of 8-bit integers; cards MASKBIT0 … name its bits."""
    header = _wcs_cards(wcs)
    for number, bit in enumerate(MaskBit):
        header[f"MASKBIT{number}"] = str(bit.name)
    return _written(fits.HDUList([fits.PrimaryHDU(mask.astype(np.uint8), header)]))


def _written(units: fits.HDUList) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        units.writeto(buffer, output_verify="silentfix")
    return buffer.getvalue()


def _raw(source: CappedBytes, unit: Hdu, dtype: str) -> NDArray[Any]:
    values = np.frombuffer(source.view(unit.data_start, unit.data_start + unit.data_bytes), dtype)
    return values.reshape(unit.shape)


def _told(frame: Frame) -> bytes:
    """Everything but the pixels, as JSON; numbers keep every digit."""
    told = {
        "unit": frame.unit,
        "name": frame.name,
        "assumed": list(frame.assumed),
        "facts": {key: _plain(value) for key, value in asdict(frame.facts).items()},
        "wcs": None if frame.wcs is None else frame.wcs.to_header_string(relax=True),
    }
    return json.dumps(told, sort_keys=True, ensure_ascii=False).encode()


def _plain(value: object) -> object:
    return value.isoformat() if isinstance(value, datetime) else value


def _facts_from(told: dict[str, Any]) -> HeaderFacts:
    known = {field.name for field in fields(HeaderFacts)}
    values = {key: value for key, value in told.items() if key in known}
    if values.get("observed_at") is not None:
        values["observed_at"] = datetime.fromisoformat(values["observed_at"])
    return HeaderFacts(**values)


def _wcs_from(text: str | None) -> WCS | None:
    if text is None:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return WCS(fits.Header.fromstring(text))


def _wcs_cards(wcs: WCS | None) -> fits.Header:
    if wcs is None:
        return fits.Header()
    header: fits.Header = wcs.to_header(relax=True)
    return header


def _cards(frame: Frame) -> fits.Header:
    """Cards for people and other programs; we ourselves read FACTS."""
    header = _wcs_cards(frame.wcs)
    facts = frame.facts
    told = {
        "BUNIT": frame.unit,
        "EXPTIME": facts.exposure_s,
        "FILTER": facts.filter_name,
        "DATE-OBS": None if facts.observed_at is None else facts.observed_at.replace(tzinfo=None).isoformat(),
        "RDNOISE": facts.read_noise_e,
        "SATURATE": facts.saturation,
        "MAGZP": facts.zero_point_mag,
        "AIRMASS": facts.airmass,
        "SEEING": facts.seeing_arcsec,
        "OBJECT": facts.object_name,
        "TELESCOP": facts.telescope,
        "INSTRUME": facts.instrument,
    }
    for card, value in told.items():
        if value is not None:
            header[card] = _ascii(value) if isinstance(value, str) else value
    return header


def _ascii(text: str) -> str:
    return "".join(c if " " <= c <= "~" else "?" for c in text)
