"""Bringing the files of an observation into the artifact store.

Owns which files there are and under which key each one is kept; what may be read is `storage.sources`. A file
is looked at before it is kept: what is not FITS within the limits never enters the store. A mosaic is kept as
it came, and beside it each of its parts as a file of its own, which is all that a worker then has to read.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from astrid_workers.ingestion.frame_summary import FrameSummary, summary_of
from astrid_workers.ingestion.mosaic_files import StoredPart, named, share_companions, store_parts
from astrid_workers.ingestion.validate import CALIBRATION_KEYS, ObservationPayload
from astrid_workers.storage.artifacts import Artifact, ArtifactStore
from astrid_workers.storage.fits import FitsLimits
from astrid_workers.storage.fits_parts import parts_of


@dataclass(frozen=True, slots=True)
class StoredFiles:
    """What came into the store for one observation."""

    frame: Artifact | None = None
    #: What the frame's header says; None without a frame.
    summary: FrameSummary | None = None
    #: Role → address it came from and artifact, as `Observation.companions` holds them.
    companions: dict[str, dict[str, Any]] = field(default_factory=dict)
    #: The parts of a mosaic in the order of its file; empty for a frame with one image.
    parts: tuple[StoredPart, ...] = ()


@dataclass(frozen=True, slots=True)
class Intake:
    """Where files come from, where they go, and what is too large."""

    #: The bytes behind an address.
    read: Callable[[str], bytes]
    store: ArtifactStore
    limits: FitsLimits


def store_files(payload: ObservationPayload, observation_id: UUID, intake: Intake) -> StoredFiles:
    """Read, check and keep the frame and its companions.

    Raises SourceRefused, FrameRejected or ServiceUnavailable for the first file that does not come in.
    """
    companions = {
        role: _stored_companion(role, url, observation_id, intake) for role, url in payload.companions.items()
    }
    if payload.fits_url is None:
        return StoredFiles(companions=companions)
    data, name = intake.read(payload.fits_url), shown_name(payload.fits_url)
    parts = parts_of(data, intake.limits, name=name)
    if not parts:
        summary = summary_of(data, name=name, limits=intake.limits)
        frame = intake.store.put(f"observations/{observation_id}/raw.fits", data)
        return StoredFiles(frame, summary, companions)
    folder = f"observations/{observation_id}"
    stored = store_parts(data, parts, name, f"{folder}/parts", intake.store, intake.limits)
    frame = intake.store.put(f"{folder}/raw.fits", data)
    share_companions(
        companions,
        stored,
        lambda role, piece, part: intake.store.put(
            _companion_key(role, piece, f"{folder}/parts/{part.name}"), piece
        ),
        intake.store,
        intake.limits,
    )
    known = next(one.summary for one in stored if one.summary is not None)
    return StoredFiles(frame, known, companions, stored)


def shown_name(url: str) -> str:
    """The last part of an address, for sentences: without a query, which may hold a key."""
    return url.split("?", 1)[0].split("#", 1)[0].rstrip("/").rsplit("/", 1)[-1] or "frame"


def _stored_companion(role: str, url: str, observation_id: UUID, intake: Intake) -> dict[str, Any]:
    data = intake.read(url)
    summary_of(data, name=shown_name(url), limits=intake.limits)
    key = _companion_key(role, data, f"observations/{observation_id}")
    return named(url, intake.store.put(key, data))


def _companion_key(role: str, data: bytes, folder: str) -> str:
    """Masters serve many observations and are kept once, by content; the others belong to theirs."""
    if role in CALIBRATION_KEYS:
        sha256 = hashlib.sha256(data).hexdigest()
        return f"calibration/{sha256[:2]}/{sha256}.fits"
    return f"{folder}/{role}.fits"
