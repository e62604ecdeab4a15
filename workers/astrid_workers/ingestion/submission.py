"""From an item of a list to the payload that is sent for it.

Owns which fact wins (option, table, header) and how a file of this machine becomes an address that workers
can read. Never sends.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from astrid_workers.defaults import SURVEY
from astrid_workers.errors import FrameRejected, ObservationRejected
from astrid_workers.identity import observation_uuid, survey_uuid
from astrid_workers.ingestion.frame_summary import filter_band_of
from astrid_workers.ingestion.listing import Item
from astrid_workers.ingestion.validate import REFERENCE_PREFIX, errors_in
from astrid_workers.storage.artifacts import ArtifactStore
from astrid_workers.storage.fits import FitsLimits, FrameHeader, read_header
from astrid_workers.storage.fits_parts import Part, parts_of
from astrid_workers.storage.sky_cells import centre_of

#: Payload fields that hold addresses; a file of this machine stands in them as an absolute path at first.
_ADDRESSES = ("fits_url", "mask_url", "noise_url", "bias_frame", "dark_frame", "flat_frame")


@dataclass(frozen=True, slots=True)
class Submission:
    """A payload that is ready but for the place of its files."""

    name: str
    payload: Mapping[str, Any]
    #: The observation's id.
    uuid: str
    #: Size and time of change of the file, to tell whether it is the one that was sent; "" without one.
    fingerprint: str

    @property
    def is_reference(self) -> bool:
        """Whether it should be there before the others."""
        return bool(self.payload.get("is_reference")) or self.payload["observation_id"].startswith(
            REFERENCE_PREFIX
        )


def prepared(item: Item, options: Mapping[str, Any], limits: FitsLimits) -> Submission:
    """The submission for an item. Options win over the table, the table over the header.

    Raises FrameRejected for a file that cannot be used, and ObservationRejected, with one sentence per fault,
    for facts that are missing or wrong.
    """
    headers = [] if item.path is None else _headers(item.path, limits)
    payload = {
        **_defaults_of(item),
        **_facts_of(headers),
        **item.given,
        **options,
    }
    if item.path is not None:
        payload["fits_url"] = str(item.path.absolute())
    payload = {name: value for name, value in payload.items() if value is not None}
    errors = errors_in(payload)
    if errors:
        raise ObservationRejected(errors)
    uuid = observation_uuid(survey_uuid(payload["survey_id"]), payload["observation_id"])
    return Submission(item.name, payload, str(uuid), _fingerprint(item.path))


def placed(submission: Submission, store: ArtifactStore, roots: tuple[Path, ...]) -> dict[str, Any]:
    """The payload with addresses that workers can read: files under `roots` stay, others go into the store.

    Raises FrameRejected for a file that cannot be read, ServiceUnavailable from the store.
    """
    payload = dict(submission.payload)
    for name in _ADDRESSES:
        address = payload.get(name)
        if isinstance(address, str) and address.startswith("/"):
            payload[name] = _placed_file(Path(address), store, roots)
    return payload


def _defaults_of(item: Item) -> dict[str, Any]:
    """What holds when nobody says otherwise; a file called `ref_…` is a reference in any folder."""
    is_reference = item.default_id.rsplit("/", 1)[-1].startswith(REFERENCE_PREFIX) or None
    return {"survey_id": SURVEY, "observation_id": item.default_id or None, "is_reference": is_reference}


def _headers(path: Path, limits: FitsLimits) -> list[FrameHeader]:
    """The header of a frame with one image; of a mosaic those of its parts that can be used."""
    try:
        parts = parts_of(path, limits)
        if not parts:
            return [read_header(path, name=path.name, limits=limits)]
        return list(_usable_headers(path, parts, limits))
    except OSError as error:
        msg = f"{path} cannot be read: {error.strerror or error}"
        raise FrameRejected(msg) from error


def _usable_headers(path: Path, parts: Iterable[Part], limits: FitsLimits) -> Iterator[FrameHeader]:
    """Raises the first refusal where the header of no part can be used."""
    first_refusal: FrameRejected | None = None
    n_usable = 0
    for part in parts:
        try:
            header = read_header(path, name=path.name, limits=limits, extension=part.index)
        except FrameRejected as refusal:
            first_refusal = first_refusal or refusal
        else:
            n_usable += 1
            yield header
    if n_usable == 0 and first_refusal is not None:
        raise first_refusal


def _facts_of(headers: Sequence[FrameHeader]) -> dict[str, Any]:
    """What the header says; of several parts what the first one says, at the middle of them all."""
    if not headers:
        return {}
    facts = headers[0].facts
    centres = [header.centre_deg for header in headers if header.centre_deg is not None]
    ra_deg, dec_deg = centre_of(centres) if centres else (None, None)
    return {
        "ra": None if ra_deg is None else ra_deg % 360.0,
        "dec": dec_deg,
        "observation_time": None if facts.observed_at is None else facts.observed_at.isoformat(),
        "filter_band": filter_band_of(facts),
        "exposure_time": facts.exposure_s,
        "airmass": facts.airmass,
        "seeing": facts.seeing_arcsec,
        "pixel_scale": facts.pixel_scale_arcsec,
    }


def _placed_file(path: Path, store: ArtifactStore, roots: tuple[Path, ...]) -> str:
    resolved = path.resolve()
    if any(resolved.is_relative_to(root) for root in roots):
        return str(resolved)
    try:
        data = path.read_bytes()
    except OSError as error:
        msg = f"{path} cannot be read: {error.strerror or error}"
        raise FrameRejected(msg) from error
    sha256 = hashlib.sha256(data).hexdigest()
    return store.url_of(store.put(f"incoming/{sha256[:2]}/{sha256}.fits", data).key)


def _fingerprint(path: Path | None) -> str:
    if path is None:
        return ""
    found = path.stat()
    return f"{found.st_size}:{found.st_mtime_ns}"
