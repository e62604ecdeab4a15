"""Bringing the files of an observation into the artifact store.

Owns which files there are and under which key each one is kept; what may be read is `storage.sources`. A file
is looked at before it is kept: what is not FITS within the limits never enters the store.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from astrid_workers.ingestion.frame_summary import FrameSummary, summary_of
from astrid_workers.ingestion.validate import CALIBRATION_KEYS, ObservationPayload
from astrid_workers.storage.artifacts import Artifact, ArtifactStore
from astrid_workers.storage.fits import FitsLimits


@dataclass(frozen=True, slots=True)
class StoredFiles:
    """What came into the store for one observation."""

    frame: Artifact | None = None
    #: What the frame's header says; None without a frame.
    summary: FrameSummary | None = None
    #: Role → address it came from and artifact, as `Observation.companions` holds them.
    companions: dict[str, dict[str, Any]] = field(default_factory=dict)


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
    data = intake.read(payload.fits_url)
    summary = summary_of(data, name=shown_name(payload.fits_url), limits=intake.limits)
    frame = intake.store.put(f"observations/{observation_id}/raw.fits", data)
    return StoredFiles(frame, summary, companions)


def shown_name(url: str) -> str:
    """The last part of an address, for sentences: without a query, which may hold a key."""
    return url.split("?", 1)[0].split("#", 1)[0].rstrip("/").rsplit("/", 1)[-1] or "frame"


def _stored_companion(role: str, url: str, observation_id: UUID, intake: Intake) -> dict[str, Any]:
    data = intake.read(url)
    summary_of(data, name=shown_name(url), limits=intake.limits)
    artifact = intake.store.put(_companion_key(role, data, observation_id), data)
    return {"url": url, "key": artifact.key, "sha256": artifact.sha256, "size_bytes": artifact.size_bytes}


def _companion_key(role: str, data: bytes, observation_id: UUID) -> str:
    """Masters serve many observations and are kept once, by content; the others belong to theirs."""
    if role in CALIBRATION_KEYS:
        sha256 = hashlib.sha256(data).hexdigest()
        return f"calibration/{sha256[:2]}/{sha256}.fits"
    return f"observations/{observation_id}/{role}.fits"
