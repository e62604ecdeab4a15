"""All that is remembered of one observation, as plain values.

Owns which rows belong to the story and in which order; never formats it and never writes.
"""

from typing import Any
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from astrid_workers.pipeline import Stage
from astrid_workers.storage.column_types import plain_json
from astrid_workers.storage.models import (
    Alert,
    Candidate,
    CurationRun,
    Delivery,
    Detection,
    DetectionRun,
    Difference,
    DifferenceRun,
    Observation,
    PreprocessRun,
    RunColumns,
)
from astrid_workers.storage.records import parts_of_mosaic

Story = dict[str, Any]

_RUNS: tuple[tuple[Stage, type[Any]], ...] = (
    (Stage.PREPROCESSING, PreprocessRun),
    (Stage.DIFFERENCING, DifferenceRun),
    (Stage.DETECTION, DetectionRun),
    (Stage.CURATION, CurationRun),
)


def story_of(session: Session, observation: Observation, *, most_candidates: int) -> Story:
    """The observation, its runs in the order they were made, and what the newest of them found.

    Candidates and detections stand best first, at most `most_candidates` of each, their counts beside them;
    of a mosaic, `parts` says how each of them stands, and candidates are those of all, each with its part.
    """
    if observation.n_parts:
        return _story_of_mosaic(session, observation, most_candidates)
    difference = _newest(session, Difference, observation.id)
    detection_run = _newest(session, DetectionRun, observation.id)
    story = {
        "observation": _observation(observation),
        "runs": _runs(session, observation.id),
        "candidates": _candidates(session, difference, most_candidates),
        "detections": _detections(session, detection_run, most_candidates),
        "alerts": _alerts(session, detection_run),
    }
    return dict(plain_json(story))


def _story_of_mosaic(session: Session, mosaic: Observation, most: int) -> Story:
    parts = parts_of_mosaic(session, mosaic.id)
    differences = {row.id: _newest(session, Difference, row.id) for row in parts}
    found = {row.id: _candidates(session, differences[row.id], most) for row in parts}
    best = [
        {"part": row.part, **candidate}
        for row in parts
        for candidate in (found[row.id] or {"best": []})["best"]
    ]
    best.sort(key=lambda candidate: -abs(candidate["score"]))
    counts = [one["count"] for one in found.values() if one is not None]
    algorithms = sorted({one["algorithm"] for one in found.values() if one is not None})
    story = {
        "observation": _observation(mosaic),
        "parts": [_part(session, row, found[row.id]) for row in parts],
        "runs": [],
        "candidates": {"algorithm": ", ".join(algorithms), "count": sum(counts), "best": best[:most]}
        if counts
        else None,
        "detections": None,
        "alerts": [
            alert for row in parts for alert in _alerts(session, _newest(session, DetectionRun, row.id))
        ],
    }
    return dict(plain_json(story))


def _part(session: Session, row: Observation, candidates: Story | None) -> Story:
    """How a part stands: its state, and why the last of its runs that did not complete ended so."""
    ended = [run for run in _runs(session, row.id) if run["status"] in ("failed", "nothing_to_do")]
    return {
        "part": row.part,
        "id": str(row.id),
        "external_id": row.external_id,
        "status": row.status.value,
        "reason": ended[-1]["ending_reason"] if ended else None,
        "n_candidates": None if candidates is None else candidates["count"],
    }


def _newest(session: Session, model: type[Any], observation_id: UUID) -> Any:
    query = select(model).where(model.observation_id == observation_id)
    return session.scalars(query.order_by(model.created_at.desc(), model.id).limit(1)).first()


def _observation(row: Observation) -> Story:
    return {
        "id": str(row.id),
        "external_id": row.external_id,
        "survey": row.survey.name,
        "status": row.status.value,
        "is_reference": row.is_reference,
        "ra_deg": row.ra_deg,
        "dec_deg": row.dec_deg,
        "observation_time": row.observation_time,
        "filter_band": row.filter_band,
        "exposure_time_s": row.exposure_time_s,
        "fits_url": row.fits_url,
        "frame_key": row.frame_key,
        "frame_bytes": row.frame_bytes,
        "width_px": row.width_px,
        "height_px": row.height_px,
        "pixel_scale_arcsec": row.pixel_scale_arcsec,
        "airmass": row.airmass,
        "seeing_arcsec": row.seeing_arcsec,
        "n_parts": row.n_parts,
        "part": row.part,
        "stack": row.stack,
        "companions": {role: facts.get("key") for role, facts in row.companions.items()},
        "ingested_at": row.created_at,
        "changed_at": row.updated_at,
    }


def _runs(session: Session, observation_id: UUID) -> list[Story]:
    found = [
        (stage, run)
        for stage, model in _RUNS
        for run in session.scalars(select(model).where(model.observation_id == observation_id))
    ]
    return [_run(stage, run) for stage, run in sorted(found, key=lambda pair: pair[1].created_at)]


def _run(stage: Stage, run: RunColumns) -> Story:
    return {
        "stage": stage.value,
        "id": str(run.id),
        "version": run.version,
        "status": run.status.value,
        "ending_reason": run.ending_reason,
        "is_retryable": run.is_retryable,
        "attempts": run.attempts,
        "started_at": run.started_at,
        "completed_at": run.completed_at,
        "seconds": run.seconds,
        "numbers": run.numbers,
        "error": run.error,
    }


def _candidates(session: Session, difference: Difference | None, most: int) -> Story | None:
    if difference is None:
        return None
    query = select(Candidate).where(Candidate.difference_id == difference.id)
    rows = session.scalars(query.order_by(Candidate.index).limit(most))
    return {
        "difference_id": str(difference.id),
        "reference_id": str(difference.reference_id),
        **_reference(session, difference),
        "algorithm": difference.algorithm,
        "count": session.scalar(select(func.count()).select_from(query.subquery())),
        "best": [_candidate(row) for row in rows],
    }


def _reference(session: Session, difference: Difference) -> Story:
    """The reference's name, and why it was taken where nobody named it."""
    run = session.get_one(DifferenceRun, difference.run_id)
    choice = (run.result or {}).get("reference_choice") or {}
    row = session.get_one(Observation, difference.reference_id)
    return {"reference": row.external_id, "reference_why": choice.get("reason")}


def _candidate(row: Candidate) -> Story:
    names = ("index", "x", "y", "ra_deg", "dec_deg", "flux", "flux_err", "unit", "snr", "score", "flags")
    told = {name: getattr(row, name) for name in names}
    return {"id": str(row.id), **told, **row.magnitudes, "is_positive": row.is_positive}


def _detections(session: Session, run: DetectionRun | None, most: int) -> Story | None:
    if run is None:
        return None
    query = select(Detection).where(Detection.detection_run_id == run.id)
    rows = session.scalars(query.order_by(Detection.index).limit(most))
    return {
        "detection_run_id": str(run.id),
        "model_id": run.model_id,
        "count": session.scalar(select(func.count()).select_from(query.subquery())),
        "best": [_detection(row) for row in rows],
    }


def _detection(row: Detection) -> Story:
    return {
        "id": str(row.id),
        "candidate_id": str(row.candidate_id),
        "candidate_index": row.candidate.index,
        "confidence": row.confidence,
        "detection_type": row.detection_type,
        "severity": row.severity,
        "status": row.status.value,
        "triplet_key": row.triplet_key,
    }


def _alerts(session: Session, run: DetectionRun | None) -> list[Story]:
    if run is None:
        return []
    alerts = session.scalars(
        select(Alert).where(Alert.detection_run_id == run.id).order_by(Alert.created_at, Alert.id)
    )
    return [{**_alert(row), "deliveries": _deliveries(session, row.id)} for row in alerts]


def _alert(row: Alert) -> Story:
    names = ("alert_type", "severity", "title", "channels", "created_at")
    return {"id": str(row.id), **{name: getattr(row, name) for name in names}}


def _deliveries(session: Session, alert_id: UUID) -> list[Story]:
    rows = session.scalars(select(Delivery).where(Delivery.alert_id == alert_id).order_by(Delivery.channel))
    return [
        {"channel": row.channel, "status": row.status.value, "attempts": row.attempts, "error": row.error}
        for row in rows
    ]
