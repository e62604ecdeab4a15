"""Loading and saving for detection: candidates of one difference in, detections of one model out.

Owns the rows of a detection run; never judges a candidate (`classify` does) and never reads a pixel.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from astrid_workers import broker
from astrid_workers.candidate_flags import flag_names
from astrid_workers.detection import results
from astrid_workers.detection.classify import CandidateFacts, Verdict, installed_model
from astrid_workers.errors import ObservationNotThereYet
from astrid_workers.found_detections import DetectionSet
from astrid_workers.identity import STAGE_VERSION, derived_uuid
from astrid_workers.metering import Cost, metered
from astrid_workers.names import checked_name
from astrid_workers.pipeline import Stage
from astrid_workers.run_records import (
    Ending,
    Result,
    RunTicket,
    conclude,
    failures_recorded,
    settled_result,
    take_up,
)
from astrid_workers.settings import ModelSettings
from astrid_workers.significance import priority_of
from astrid_workers.storage.database import get_database
from astrid_workers.storage.detection_records import detections_named, difference_named
from astrid_workers.storage.models import Candidate, Detection, DetectionRun, Difference
from astrid_workers.storage.records import find_observation


@dataclass(frozen=True, slots=True)
class DetectionWork:
    """One model over one difference: what it needs, or the result that is there already."""

    ticket: RunTicket
    difference_id: UUID
    model_id: str
    candidates: tuple[CandidateFacts, ...]
    load_s: float | None
    settled: Result | None = None


@dataclass(frozen=True, slots=True)
class Classified:
    """The verdicts, in the order of the candidates, and what they cost."""

    verdicts: tuple[Verdict, ...]
    model_version: str
    cost: Cost


def load(difference_id: str, model_id: str) -> DetectionWork:
    """Read the candidates and take the run up; raises UnknownModel, UnknownRecord, ServiceUnavailable."""
    version = installed_model(model_id).version
    database = get_database()
    with metered() as cost, database.reading() as session:
        difference = difference_named(session, difference_id)
        run_id = derived_uuid(
            "detection_run", str(difference.id), model_id, version, STAGE_VERSION[Stage.DETECTION]
        )
        ticket = RunTicket(DetectionRun, run_id, Stage.DETECTION, difference.observation_id)
        settled = settled_result(session, ticket)
        candidates = () if settled else _candidates(session, difference.id)
        named = difference.id
    if settled is None:
        take_up(database, ticket, _fresh(ticket, named, model_id, version))
    return DetectionWork(ticket, named, model_id, candidates, cost.seconds, settled)


def run(work: DetectionWork) -> Classified | None:
    """The model's verdicts; None when the run has ended already."""
    if work.settled is not None:
        return None
    with failures_recorded(get_database(), work.ticket), metered() as cost:
        model = installed_model(work.model_id)
        verdicts = tuple(model.classify(work.candidates))
    return Classified(verdicts, model.version, cost)


def save(work: DetectionWork, classified: Classified | None) -> Result:
    """Write detections and ending in one transaction; the result that stands in the row then."""
    if classified is None:
        assert work.settled is not None
        return work.settled
    database = get_database()
    with failures_recorded(database, work.ticket):
        return conclude(database, work.ticket, lambda session: _written(session, work, classified))


def send(result: Result) -> Result:
    """Send the run on to curation, also when it found nothing: that is worth knowing too."""
    message_id = broker.send_next(Stage.DETECTION, result["detection_id"])
    return {**result, "processing_triggered": True, "next_message_id": message_id}


def find(detection_id: str) -> DetectionSet:
    """What a `detection_id` argument names; raises UnknownRecord."""
    with get_database().reading() as session:
        return detections_named(session, detection_id)


def section_of(result: Result, name: str) -> Result:
    """One section of the stage's result, as the smaller actors answer with it."""
    section: Result = result[name]
    return section


def validation_of(found: DetectionSet) -> Result:
    """The validation section, measured now from the rows."""
    return results.validation_section(found, _now())


def metrics_of(found: DetectionSet) -> Result:
    """The metrics section, from the run's own numbers and the rows."""
    return results.metrics_section(found, _now())


def storage_of(found: DetectionSet) -> Result:
    """The storage section, counted now in the rows."""
    return results.storage_section(found, found.numbers.get("storage_s"), _now())


def queue_one(difference_id: str, model_id: str) -> str:
    """Send one difference to detection; raises UnknownModel or UnknownRecord before anything is sent."""
    installed_model(model_id)
    with get_database().reading() as session:
        difference_named(session, difference_id)
    return broker.send("detect_anomalies", Stage.DETECTION, difference_id, model_id)


def forward_newest(observation_id: str) -> Result:
    """Send the newest difference of an observation to the configured model.

    Raises ObservationNotThereYet where there is no difference yet, and UnknownObservation.
    """
    with get_database().reading() as session:
        observation = find_observation(session, checked_name(observation_id, "observation_id"))
        difference = session.scalars(
            select(Difference)
            .where(Difference.observation_id == observation.id)
            .order_by(Difference.created_at.desc(), Difference.id)
            .limit(1)
        ).first()
        if difference is None:
            message = f"the observation {observation_id!r} has not been differenced yet"
            raise ObservationNotThereYet(message)
        difference_id = str(difference.id)
    message_id = queue_one(difference_id, ModelSettings().model_id)
    return {"observation_id": observation_id, "difference_id": difference_id, "message_id": message_id}


def _fresh(ticket: RunTicket, difference_id: UUID, model_id: str, version: str) -> DetectionRun:
    return DetectionRun(
        id=ticket.run_id,
        version=STAGE_VERSION[Stage.DETECTION],
        difference_id=difference_id,
        observation_id=ticket.observation_id,
        model_id=model_id,
        model_version=version,
    )


def _candidates(session: Session, difference_id: UUID) -> tuple[CandidateFacts, ...]:
    rows = session.scalars(
        select(Candidate).where(Candidate.difference_id == difference_id).order_by(Candidate.index)
    )
    return tuple(_facts(row) for row in rows)


def _facts(row: Candidate) -> CandidateFacts:
    return CandidateFacts(
        candidate_id=row.id,
        x=row.x,
        y=row.y,
        score=row.score,
        snr=row.snr,
        flags=frozenset(flag_names(row.flags)),
        is_positive=row.is_positive,
    )


def _written(session: Session, work: DetectionWork, classified: Classified) -> Ending:
    judged = zip(work.candidates, classified.verdicts, strict=True)
    kept = [(facts, verdict) for facts, verdict in judged if verdict.is_kept]
    with metered() as storing:
        session.add_all(_detection(work, *each, index=index) for index, each in enumerate(kept))
        session.flush()
    found = detections_named(session, str(work.ticket.run_id))
    found = replace(found, numbers=_numbers(work, classified, len(kept), storing))
    return _ending(found)


def _ending(found: DetectionSet) -> Ending:
    at = _now()
    with metered() as validating:
        validation = results.validation_section(found, at)
    found = replace(found, numbers=with_total(found.numbers | {"validation_s": validating.seconds}))
    result = {
        "ending": "done",
        "observation_id": str(found.observation_id),
        "difference_id": str(found.difference_id),
        "model_id": found.model_id,
        "detection_id": str(found.run_id),
        "status": "detected",
        "inference": results.inference_section(found, at),
        "validation": validation,
        "metrics": results.metrics_section(found, at),
        "storage": results.storage_section(found, found.numbers["storage_s"], at),
    }
    return Ending(result, numbers=found.numbers)


def _detection(work: DetectionWork, facts: CandidateFacts, verdict: Verdict, *, index: int) -> Detection:
    return Detection(
        id=derived_uuid("detection", str(work.ticket.run_id), str(facts.candidate_id)),
        detection_run_id=work.ticket.run_id,
        candidate_id=facts.candidate_id,
        observation_id=work.ticket.observation_id,
        index=index,
        confidence=verdict.confidence,
        detection_type=verdict.label,
        severity=priority_of(facts.score),
    )


def _numbers(work: DetectionWork, classified: Classified, kept: int, storing: Cost) -> dict[str, Any]:
    return {
        "candidates_judged": len(work.candidates),
        "candidates_kept": kept,
        "removed_because": removal_counts(classified.verdicts),
        "load_s": work.load_s,
        "inference_s": classified.cost.seconds,
        "inference_cpu_percent": classified.cost.cpu_percent,
        "storage_s": storing.seconds,
        "peak_rss_mb": classified.cost.peak_rss_mb,
    }


def removal_counts(verdicts: Sequence[Verdict]) -> dict[str, int]:
    """How many candidates each reason spoke against, most frequent first; one candidate may have several."""
    counted = Counter(reason for verdict in verdicts for reason in verdict.reasons)
    return dict(counted.most_common())


def with_total(numbers: dict[str, Any]) -> dict[str, Any]:
    """`numbers` with `total_s`, the sum of the parts that were measured."""
    parts = ("load_s", "inference_s", "validation_s", "storage_s")
    return {**numbers, "total_s": sum(numbers[part] for part in parts if numbers[part] is not None)}


def _now() -> datetime:
    return datetime.now(UTC)
