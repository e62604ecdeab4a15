"""What an ingest payload must be.

Owns the sentences for what is wrong with one, and the value that it becomes. Never reads a clock, a setting,
a file or a row.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, TypeGuard

from astrid_workers.errors import ObservationRejected

REQUIRED = ("survey_id", "observation_id", "ra", "dec", "observation_time")
#: Keys of calibration frames, in the payload itself or under `calibration`.
CALIBRATION_KEYS = ("bias_frame", "dark_frame", "flat_frame")
#: External ids that start so are references, an old convention.
REFERENCE_PREFIX = "ref_"

_MAX_NAME = 200
_MAX_FILTER = 64
_MAX_URL = 2000

#: payload key → how its sentences call it
_NUMBERS = {
    "ra": "RA",
    "dec": "Dec",
    "exposure_time": "Exposure time",
    "pixel_scale": "Pixel scale",
    "airmass": "Airmass",
    "seeing": "Seeing",
}
_POSITIVE = ("exposure_time", "airmass", "pixel_scale", "seeing")
_URLS = ("fits_url", "mask_url", "noise_url", *CALIBRATION_KEYS)


@dataclass(frozen=True, slots=True)
class ObservationPayload:
    """An ingest payload that broke no rule; what it did not say is None."""

    survey: str
    external_id: str
    ra_deg: float
    dec_deg: float
    #: UTC, aware; a time without a zone is taken for UTC.
    observation_time: datetime
    filter_band: str | None = None
    exposure_time_s: float | None = None
    fits_url: str | None = None
    pixel_scale_arcsec: float | None = None
    airmass: float | None = None
    seeing_arcsec: float | None = None
    is_reference: bool = False
    #: Addresses of companions by role: mask, noise, bias_frame, dark_frame, flat_frame.
    companions: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))


def errors_in(data: object) -> list[str]:
    """One sentence for each rule that the payload breaks; empty for a good one."""
    if not isinstance(data, Mapping):
        return ["Observation data must be an object"]
    missing = [f"Missing required field: {name}" for name in REQUIRED if data.get(name) is None]
    return [*missing, *(error for rule in _RULES for error in rule(data))]


def parse_payload(data: object) -> ObservationPayload:
    """The payload as a value. Raises ObservationRejected with all sentences of `errors_in`."""
    errors = errors_in(data)
    if errors:
        raise ObservationRejected(errors)
    assert isinstance(data, Mapping)
    return ObservationPayload(
        survey=data["survey_id"],
        external_id=data["observation_id"],
        ra_deg=float(data["ra"]),
        dec_deg=float(data["dec"]),
        observation_time=parse_time(data["observation_time"]),
        filter_band=data.get("filter_band") or None,
        exposure_time_s=_optional_float(data, "exposure_time"),
        fits_url=data.get("fits_url") or None,
        pixel_scale_arcsec=_optional_float(data, "pixel_scale"),
        airmass=_optional_float(data, "airmass"),
        seeing_arcsec=_optional_float(data, "seeing"),
        is_reference=bool(data.get("is_reference")) or data["observation_id"].startswith(REFERENCE_PREFIX),
        companions=MappingProxyType(_companions(data)),
    )


def parse_time(text: str) -> datetime:
    """An ISO 8601 time in UTC; without a zone it is taken for UTC. Raises ValueError or OverflowError."""
    parsed = datetime.fromisoformat(text)
    return parsed.replace(tzinfo=UTC) if parsed.tzinfo is None else parsed.astimezone(UTC)


def _given(data: Mapping[str, Any], names: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    return ((name, data[name]) for name in names if data.get(name) is not None)


def _is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_finite(value: object) -> TypeGuard[int | float]:
    if not _is_number(value):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number beyond any float
        return False


def _name_errors(data: Mapping[str, Any]) -> Iterator[str]:
    for name, value in _given(data, ("survey_id", "observation_id")):
        if not isinstance(value, str) or not 1 <= len(value) <= _MAX_NAME:
            yield f"{name} must be a text of 1 to {_MAX_NAME} characters"
        elif not value.isprintable() or value != value.strip():
            yield f"{name} must have no control characters and no spaces around it"


def _number_errors(data: Mapping[str, Any]) -> Iterator[str]:
    for name, value in _given(data, tuple(_NUMBERS)):
        if not _is_number(value):
            yield f"{_NUMBERS[name]} must be a number, not {type(value).__name__}"
        elif not _is_finite(value):
            yield f"{_NUMBERS[name]} must be a finite number"


def _range_errors(data: Mapping[str, Any]) -> Iterator[str]:
    ra, dec = data.get("ra"), data.get("dec")
    if _is_finite(ra) and not 0 <= ra < 360:
        yield "RA must be between 0 and 360 degrees"
    if _is_finite(dec) and not -90 <= dec <= 90:
        yield "Dec must be between -90 and 90 degrees"
    for name, value in _given(data, _POSITIVE):
        if _is_finite(value) and value <= 0:
            yield f"{_NUMBERS[name]} must be positive"


def _time_errors(data: Mapping[str, Any]) -> Iterator[str]:
    for _, value in _given(data, ("observation_time",)):
        if not _is_time(value):
            yield "Observation time must be an ISO 8601 time such as 2024-01-01T12:00:00Z"


def _is_time(value: object) -> bool:
    try:
        return isinstance(value, str) and parse_time(value) is not None
    except (ValueError, OverflowError):
        return False


def _filter_errors(data: Mapping[str, Any]) -> Iterator[str]:
    for _, value in _given(data, ("filter_band",)):
        if not isinstance(value, str) or len(value) > _MAX_FILTER or not value.isprintable():
            yield f"filter_band must be a text of up to {_MAX_FILTER} characters"


def _flag_errors(data: Mapping[str, Any]) -> Iterator[str]:
    for name, value in _given(data, ("is_reference",)):
        if not isinstance(value, bool):
            yield f"{name} must be true or false"


def _calibration_errors(data: Mapping[str, Any]) -> Iterator[str]:
    for _, value in _given(data, ("calibration",)):
        if not isinstance(value, Mapping):
            yield "calibration must be an object"
            continue
        unknown = sorted(str(key) for key in value if key not in CALIBRATION_KEYS)
        if unknown:
            yield f"calibration has {', '.join(unknown)}; expected {', '.join(CALIBRATION_KEYS)}"
        yield from _url_errors(value)


def _url_errors(data: Mapping[str, Any]) -> Iterator[str]:
    for name, value in _given(data, _URLS):
        if not isinstance(value, str) or len(value) > _MAX_URL or not value.isprintable():
            yield f"{name} must be an address of up to {_MAX_URL} printable characters"


_RULES: tuple[Callable[[Mapping[str, Any]], Iterator[str]], ...] = (
    _name_errors,
    _number_errors,
    _range_errors,
    _time_errors,
    _filter_errors,
    _flag_errors,
    _url_errors,
    _calibration_errors,
)


def _optional_float(data: Mapping[str, Any], name: str) -> float | None:
    value = data.get(name)
    return None if value is None else float(value)


def _companions(data: Mapping[str, Any]) -> dict[str, str]:
    calibration = data.get("calibration") or {}
    named = {key: calibration.get(key) or data.get(key) for key in CALIBRATION_KEYS}
    beside = {"mask": data.get("mask_url"), "noise": data.get("noise_url")}
    return {role: url for role, url in {**beside, **named}.items() if url}
