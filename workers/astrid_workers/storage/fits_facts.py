"""What header cards mean, in fixed units.

Owns the one table of aliases; never reads a pixel, and never guesses what no card says.
"""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from astropy.io.fits import Header

from astrid_workers.frame import HeaderFacts

#: Fact → cards that say it, the most reliable first. Numbers are in the fact's own unit unless `_FACTORS`
#: says so.
ALIASES: dict[str, tuple[str, ...]] = {
    "exposure_s": ("EXPTIME", "EXPOSURE", "XPOSURE", "EXP_TIME", "EXPOSED", "ITIME", "TEXPTIME", "ELAPTIME"),
    "filter_name": ("FILTER", "FILTER1", "FILTERS", "FILTNAM", "FILTNAME", "FILTERID", "INSFILTE", "BAND"),
    # EGAIN first: amateur cameras write their amplifier *setting* (0 … 600) as GAIN and electrons per ADU as
    # EGAIN
    "gain_e_per_adu": (
        "EGAIN",
        "GAIN",
        "CCDGAIN",
        "GAINEFF",
        "ATODGAIN",
        "CCDSENS",
        "GAINA",
        "HIERARCH ESO DET OUT1 CONAD",
    ),
    "read_noise_e": (
        "RDNOISE",
        "READNOIS",
        "READNOISE",
        "RON",
        "ENOISE",
        "RDNOISEA",
        "CCDRON",
        "HIERARCH ESO DET OUT1 RON",
    ),
    "saturation": ("SATURATE", "SATLEVEL", "SATURATION", "SATURAT", "MAXLIN", "TSATUR", "SATURATA"),
    "zero_point_mag": ("MAGZP", "MAGZERO", "MAGZPT", "ZP", "ZPMAG", "PHOTZP", "ZEROPT", "ZEROPNT", "MAG_ZP"),
    "pixel_scale_arcsec": ("PIXSCALE", "PIXSCAL1", "PIXSCAL", "SECPIX", "SECPIX1", "PIXELSC"),
    "airmass": ("AIRMASS", "SECZ", "AIRMASS1", "AIRM"),
    "seeing_arcsec": ("SEEING", "SEEING1", "FWHMARC"),
    "object_name": ("OBJECT", "OBJNAME", "TARGNAME", "TARGET"),
    "telescope": ("TELESCOP", "TELESCOPE"),
    "instrument": ("INSTRUME", "INSTRUMENT", "CAMERA"),
    "image_type": ("IMAGETYP", "OBSTYPE", "IMTYPE", "FRAMETYP", "IMAGETYPE"),
}

#: Cards of single amplifiers: used as their mean, and said.
_SECOND_AMPLIFIER = {"GAINA": "GAINB", "RDNOISEA": "RDNOISEB", "SATURATA": "SATURATB"}

#: What a number must satisfy to be believed, and how the sentence calls it.
_BELIEVABLE: dict[str, tuple[Callable[[float], bool], str]] = {
    "exposure_s": (lambda v: 0 < v < 1e7, "a positive number of seconds"),
    "gain_e_per_adu": (lambda v: 0 < v < 1e6, "a positive number of electrons per ADU"),
    "read_noise_e": (lambda v: 0 < v < 1e4, "a positive number of electrons"),
    "saturation": (lambda v: 0 < v < 1e12, "a positive level"),
    "zero_point_mag": (lambda v: -50 < v < 60 and v != 0, "a magnitude"),
    "pixel_scale_arcsec": (lambda v: 0 < abs(v) < 1e4, "arcseconds per pixel"),
    "airmass": (lambda v: 1 <= v < 60, "1 or more"),
    "seeing_arcsec": (lambda v: 0 < v < 100, "a positive number of arcseconds"),
}

#: Spellings of one electron, and of one count, in BUNIT.
ELECTRON_UNITS = frozenset({"electron", "electrons", "e-", "e", "el", "photoelectron", "elec"})
COUNT_UNITS = frozenset({"", "adu", "count", "counts", "ct", "dn", "data number", "du"})

#: Where MJD and JD begin.
_MJD_ZERO = datetime(1858, 11, 17, tzinfo=UTC)


@dataclass(slots=True)
class Facts:
    """Header facts in the file's own unit, the unit, and what had to be assumed about them."""

    facts: HeaderFacts
    #: BUNIT as one of "adu", "adu / s", "electron", "electron / s", or as written.
    unit: str
    assumed: list[str] = field(default_factory=list)


def read_facts(header: Header, *, texts: dict[str, str] | None = None) -> Facts:
    """Facts of one header; a value that cannot be what its card claims is None and named in `assumed`.

    `texts` holds string cards decoded from their raw bytes, where the header's own decoding lost characters.
    """
    assumed: list[str] = []
    numbers = {name: _number(header, name, assumed) for name in _BELIEVABLE}
    scale = numbers["pixel_scale_arcsec"]
    if scale is None:
        numbers["pixel_scale_arcsec"] = _scale_from_optics(header, assumed)
    else:
        numbers["pixel_scale_arcsec"] = abs(scale)
    words = {
        name: _text(header, name, texts or {})
        for name in ("object_name", "telescope", "instrument", "image_type")
    }
    words["image_type"] = _image_type(words["image_type"])
    unit = _unit(header)
    if numbers["zero_point_mag"] is None:
        numbers["zero_point_mag"] = _zero_point_of_surface_brightness(header, unit, assumed)
    values: dict[str, Any] = {**numbers, **words}
    facts = HeaderFacts(filter_name=_filter_name(header), observed_at=_observed_at(header, assumed), **values)
    return Facts(facts, unit, assumed)


def _first(header: Header, name: str) -> tuple[str, Any] | None:
    for card in ALIASES[name]:
        value = header.get(card)
        if value is not None and not (isinstance(value, str) and not value.strip()) and _is_given(value):
            return card, value
    return None


def _is_given(value: object) -> bool:
    return type(value).__name__ != "Undefined"


def _number(header: Header, name: str, assumed: list[str]) -> float | None:
    """The first alias that holds a believable number."""
    is_believable, expected = _BELIEVABLE[name]
    for card in ALIASES[name]:
        value = header.get(card)
        if value is None or not _is_given(value) or (isinstance(value, str) and not value.strip()):
            continue
        number = _as_float(value)
        if number is None or not is_believable(number):
            assumed.append(f"{card} says {str(value)[:30]}, which is not {expected}: not believed")
            continue
        return _mean_of_amplifiers(header, card, number, assumed)
    return None


def _mean_of_amplifiers(header: Header, card: str, number: float, assumed: list[str]) -> float:
    other = _as_float(header.get(_SECOND_AMPLIFIER.get(card, "")))
    if other is None or other <= 0:
        return number
    value = min(number, other) if card == "SATURATA" else (number + other) / 2
    assumed.append(f"{card} and {_SECOND_AMPLIFIER[card]} are taken together as {value:.6g}")
    return value


def _as_float(value: object) -> float | None:
    if isinstance(value, bool) or value is None:
        return None
    try:
        number = float(str(value).strip().replace("D", "E").replace(",", "."))
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _text(header: Header, name: str, texts: dict[str, str]) -> str | None:
    found = _first(header, name)
    if found is None:
        return None
    text = texts.get(found[0], str(found[1]))
    clean = "".join(c for c in text if c.isprintable()).strip()
    return clean or None


def _filter_name(header: Header) -> str | None:
    """The first filter that is not an empty slot of a wheel."""
    names = []
    for card in (*ALIASES["filter_name"], "FILTER2", "FILTER3"):
        value = header.get(card)
        if value is not None and _is_given(value) and str(value).strip():
            names.append(" ".join("".join(c for c in str(value) if c.isprintable()).split()))
    if not names:
        return None
    empty = {"air", "clear", "none", "open", "empty", "c", "no filter", "--"}
    real = [name for name in names if name.lower() not in empty]
    return (real or names)[0][:64]


def _image_type(text: str | None) -> str | None:
    """object, bias, dark or flat where the card means one of these; as written otherwise."""
    if text is None:
        return None
    low = text.lower()
    for word, meaning in (
        ("bias", "bias"), ("zero", "bias"), ("dark", "dark"), ("flat", "flat"),
        ("light", "object"), ("object", "object"), ("science", "object"),
    ):  # fmt: skip
        if word in low:
            return meaning
    return text


def _unit(header: Header) -> str:
    raw = header.get("BUNIT")
    text = str(raw).strip() if raw is not None and _is_given(raw) else ""
    low = " ".join(text.lower().split())
    if low in COUNT_UNITS:
        return "adu"
    if low in ELECTRON_UNITS:
        return "electron"
    compact = low.replace(" ", "")
    per_second = re.fullmatch(r"(.+?)(/s|/sec|/second|s-1|\.s-1|s\*\*-1|s\^-1|/seconds)", compact)
    if per_second and per_second[1] in ELECTRON_UNITS:
        return "electron / s"
    if per_second and per_second[1] in {unit.replace(" ", "") for unit in COUNT_UNITS}:
        return "adu / s"
    return "".join(c for c in text if c.isprintable())[:40]


def _scale_from_optics(header: Header, assumed: list[str]) -> float | None:
    """206.265 × pixel size in µm / focal length in mm, when both cards are there."""
    size, focal = _as_float(header.get("XPIXSZ")), _as_float(header.get("FOCALLEN"))
    if not size or not focal or size <= 0 or focal <= 0:
        return None
    scale = 206.265 * size / focal
    assumed.append(f"pixel scale {scale:.4g} arcsec computed from XPIXSZ and FOCALLEN")
    return scale


def _zero_point_of_surface_brightness(header: Header, unit: str, assumed: list[str]) -> float | None:
    """AB zero point of an image in MJy/sr, from the solid angle of its pixels."""
    area = _as_float(header.get("PIXAR_SR"))
    if unit.replace(" ", "").lower() != "mjy/sr" or not area or area <= 0:
        return None
    zero_point = 8.90 - 2.5 * math.log10(1e6 * area)
    assumed.append(f"AB zero point {zero_point:.3f} computed from BUNIT and PIXAR_SR")
    return zero_point


def _observed_at(header: Header, assumed: list[str]) -> datetime | None:
    """Start of the exposure, UTC: DATE-OBS with its time or a card beside it, else MJD, else JD."""
    for card in ("DATE-OBS", "DATE-BEG", "DATE_OBS", "UTDATE"):
        value = header.get(card)
        if value is None or not str(value).strip():
            continue
        moment = _moment(str(value).strip(), header)
        if moment is not None:
            return moment
        assumed.append(f"{card} says {str(value)[:30]}, which is not a date: not believed")
    for card, zero in (("MJD-OBS", 0.0), ("MJD-BEG", 0.0), ("MJD_OBS", 0.0), ("MJD", 0.0), ("JD", 2400000.5)):
        number = _as_float(header.get(card))
        if number is not None and 15_000 < number - zero < 100_000:
            return _MJD_ZERO + timedelta(days=number - zero)
    return None


def _moment(text: str, header: Header) -> datetime | None:
    date, _, time = text.replace(" ", "T").partition("T")
    if not time:
        for card in ("TIME-OBS", "UT", "UTC-OBS", "UTSTART", "UTC", "TIME_OBS"):
            value = header.get(card)
            if isinstance(value, str) and re.fullmatch(r"\s*\d{1,2}:\d{2}:\d{2}(\.\d*)?\s*", value):
                time = value.strip()
                break
    return _joined(_iso_date(date), time)


def _iso_date(text: str) -> str | None:
    """`YYYY-MM-DD`, from itself, from `YYYY/MM/DD` or from the old `DD/MM/YY` of the last century."""
    if re.fullmatch(r"\d{4}[-/]\d{1,2}[-/]\d{1,2}", text):
        year, month, day = re.split(r"[-/]", text)
        return f"{year}-{int(month):02d}-{int(day):02d}"
    if re.fullmatch(r"\d{1,2}/\d{1,2}/\d{2}", text):
        day, month, year = text.split("/")
        return f"19{year}-{int(month):02d}-{int(day):02d}"
    return None


def _joined(date: str | None, time: str) -> datetime | None:
    if date is None:
        return None
    clock = re.fullmatch(r"(\d{1,2}):(\d{2})(?::(\d{2})(\.\d*)?)?(Z|[+-]\d{2}:?\d{2})?", time or "00:00:00")
    if clock is None:
        return None
    hour, minute, second, fraction, zone = clock.groups()
    try:
        start = datetime.fromisoformat(f"{date}T00:00:00{zone or 'Z'}")
        seconds = float(f"{second or 0}{fraction or ''}")
        leap_safe = timedelta(hours=int(hour), minutes=int(minute), seconds=seconds)
        return (start + leap_safe).astimezone(UTC)
    except (ValueError, OverflowError):
        return None
