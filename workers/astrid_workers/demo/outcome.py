"""What the pipeline made of one field, read back from the database and the artifact store.

Owns the reading; never judges it (`recovery` does) and never draws it (`pictures` does).
"""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

import numpy as np
from sqlalchemy import select
from sqlalchemy.orm import Session

from astrid_workers.demo.night import Field, observation_id
from astrid_workers.demo.recovery import Found, Recovery, match
from astrid_workers.frame import Float32Image
from astrid_workers.mask import MaskBit
from astrid_workers.storage.artifacts import ArtifactStore
from astrid_workers.storage.database import Database
from astrid_workers.storage.detection_records import detections_named
from astrid_workers.storage.fits import frame_from_fits
from astrid_workers.storage.fits_images import image_from_fits
from astrid_workers.storage.models import DetectionRun, DifferenceRun, Observation
from astrid_workers.storage.states import ObservationState, RunStatus


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """One field after the night."""

    field: Field
    #: None: the observation never got a row.
    state: ObservationState | None
    #: Detections, strongest first.
    found: tuple[Found, ...]
    #: Artifacts of the subtraction by name, each `{key, sha256}`; empty where there was none.
    images: dict[str, dict[str, str]]
    #: None where the observation did not come to the end.
    recovery: Recovery | None


def outcome_of(database: Database, field: Field) -> Outcome:
    """Read what became of `field` and match it with the truth, within one FWHM of the science frame."""
    with database.session() as session:
        row = session.get(Observation, observation_id(field))
        state = None if row is None else row.status
        found = _found(session, observation_id(field))
        images = _images(session, observation_id(field))
    recovery = None
    if state == ObservationState.CURATED:
        recovery = match(field.truth, found, radius_px=field.fwhm_science_px, area_mpix=field.area_mpix)
    return Outcome(field, state, found, images, recovery)


def read_image(store: ArtifactStore, images: dict[str, dict[str, str]], name: str) -> Float32Image:
    """One image of the subtraction on the science grid, float32 `[y, x]`, NaN where not measured."""
    artifact = images[name]
    data = store.get(artifact["key"], artifact["sha256"])
    if name != "science":
        return image_from_fits(data, name)
    frame = frame_from_fits(data, name)
    return np.where((frame.mask & np.uint32(MaskBit.NO_DATA)) != 0, np.float32(np.nan), frame.science)


def _found(session: Session, observation: UUID) -> tuple[Found, ...]:
    query = select(DetectionRun.id).where(
        DetectionRun.observation_id == observation, DetectionRun.status == RunStatus.COMPLETED
    )
    run = session.scalars(query.order_by(DetectionRun.created_at.desc()).limit(1)).first()
    if run is None:
        return ()
    return tuple(
        Found(each.x, each.y, each.is_positive, each.score)
        for each in detections_named(session, str(run)).detections
    )


def _images(session: Session, observation: UUID) -> dict[str, dict[str, str]]:
    query = select(DifferenceRun.result).where(
        DifferenceRun.observation_id == observation, DifferenceRun.status == RunStatus.COMPLETED
    )
    result: dict[str, Any] | None = session.scalars(query.limit(1)).first()
    return dict((result or {}).get("artifacts") or {})
