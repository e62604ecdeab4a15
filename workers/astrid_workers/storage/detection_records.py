"""Reading what a detection run found, as plain values.

Owns the meaning of a `detection_id` argument (a whole run, or one detection of it); never writes a row and
never judges a detection.
"""

from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from astrid_workers.errors import UnknownRecord
from astrid_workers.found_detections import DetectionSet, FoundDetection
from astrid_workers.identity import uuid_given
from astrid_workers.names import checked_name
from astrid_workers.storage.models import Candidate, Detection, DetectionRun, Difference, Observation


def detections_named(session: Session, detection_id: str) -> DetectionSet:
    """What `detection_id` names: all of a run, or one detection; UnknownRecord when it names neither."""
    asked = uuid_given(checked_name(detection_id, "detection_id"))
    run = None if asked is None else session.get(DetectionRun, asked)
    one = None if asked is None or run is not None else session.get(Detection, asked)
    if one is not None:
        run = session.get_one(DetectionRun, one.detection_run_id)
    if asked is None or run is None:
        message = f"no detection run and no detection has the id {detection_id!r}"
        raise UnknownRecord(message)
    observation = session.get_one(Observation, run.observation_id)
    return DetectionSet(
        asked_id=asked,
        run_id=run.id,
        difference_id=run.difference_id,
        observation_id=run.observation_id,
        model_id=run.model_id,
        model_version=run.model_version,
        width_px=observation.width_px,
        height_px=observation.height_px,
        numbers=run.numbers or {},
        is_whole_run=one is None,
        detections=_read(session, run.id, None if one is None else one.id),
    )


def difference_named(session: Session, difference_id: str) -> Difference:
    """The difference with that id; UnknownRecord when there is none."""
    asked = uuid_given(checked_name(difference_id, "difference_id"))
    found = None if asked is None else session.get(Difference, asked)
    if found is None:
        message = f"no difference has the id {difference_id!r}"
        raise UnknownRecord(message)
    return found


def _read(session: Session, run_id: UUID, only: UUID | None) -> tuple[FoundDetection, ...]:
    query = (
        select(Detection, Candidate)
        .join(Candidate, Detection.candidate_id == Candidate.id)
        .where(Detection.detection_run_id == run_id)
        .order_by(Detection.index)
    )
    rows = session.execute(query if only is None else query.where(Detection.id == only))
    return tuple(_found(detection, candidate) for detection, candidate in rows)


def _found(detection: Detection, candidate: Candidate) -> FoundDetection:
    return FoundDetection(
        detection_id=detection.id,
        candidate_id=candidate.id,
        x=candidate.x,
        y=candidate.y,
        ra_deg=candidate.ra_deg,
        dec_deg=candidate.dec_deg,
        flux=candidate.flux,
        flux_err=candidate.flux_err,
        snr=candidate.snr,
        score=candidate.score,
        fwhm_px=candidate.fwhm_px,
        is_positive=candidate.is_positive,
        confidence=detection.confidence,
        label=detection.detection_type,
        severity=detection.severity,
        triplet_key=detection.triplet_key,
    )
