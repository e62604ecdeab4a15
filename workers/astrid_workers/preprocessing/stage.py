"""Loading and saving for preprocessing: a raw frame in, a calibrated one out.

Owns which files are read, the rows and artifact of a run, and who is told; never touches a pixel
(`calibrate`, `align` and `assess_quality` do).
"""

from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from uuid import UUID

from sqlalchemy.orm import Session

from astrid_workers import broker
from astrid_workers.errors import NothingToDo, ObservationNotThereYet, SubtractionRefused
from astrid_workers.frame import Frame
from astrid_workers.identity import STAGE_VERSION, derived_uuid
from astrid_workers.imaging.align import Registration, measure_registration
from astrid_workers.metering import Cost, metered
from astrid_workers.names import checked_name
from astrid_workers.pipeline import Stage
from astrid_workers.preprocessing import results
from astrid_workers.preprocessing.assess_quality import Quality, assess_quality
from astrid_workers.preprocessing.calibrate import Calibrated
from astrid_workers.preprocessing.raw_files import RawFiles, StoredFile, calibrate_files, raw_files
from astrid_workers.run_records import (
    Ending,
    Result,
    RunTicket,
    conclude,
    failures_recorded,
    settled_result,
    take_up,
)
from astrid_workers.storage.artifacts import get_store
from astrid_workers.storage.database import get_database
from astrid_workers.storage.fits import frame_from_fits, frame_to_fits
from astrid_workers.storage.frame_records import NO_IMAGE, StoredFrame, preprocessed_frame
from astrid_workers.storage.models import Observation, PreprocessRun
from astrid_workers.storage.records import find_observation, references_for
from astrid_workers.storage.waiting_observations import waiting_for

IS_REFERENCE = "is a reference: it is not differenced against itself"


@dataclass(frozen=True, slots=True)
class PreprocessWork:
    """One observation to preprocess: its files, or the result that is there already."""

    ticket: RunTicket
    files: RawFiles
    is_reference: bool
    #: What it will be differenced against, as far as that is known now.
    reference: StoredFrame | None
    settled: Result | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Aligned:
    """How the frame lies on the reference; where that cannot be measured, the reason: it is no failure."""

    reference_id: UUID | None = None
    registration: Registration | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Preprocessed:
    """What a run made; no frame means that there was nothing to do."""

    calibrated: Calibrated
    quality: Quality
    aligned: Aligned
    cost: Cost


def load(observation_id: str) -> PreprocessWork:
    """Find the observation and take its preprocessing up.

    Raises ObservationNotThereYet and UnknownObservation.
    """
    database = get_database()
    with database.reading() as session:
        work = _work(session, find_observation(session, checked_name(observation_id, "observation_id")))
    if work.settled is None:
        fresh = PreprocessRun(
            id=work.ticket.run_id,
            version=STAGE_VERSION[Stage.PREPROCESSING],
            inputs_sha256=work.files.sha256,
            observation_id=work.ticket.observation_id,
        )
        take_up(database, work.ticket, fresh, has_work=work.files.image is not None)
    return work


def run(work: PreprocessWork) -> Preprocessed | None:
    """Calibrate, assess and register the frame; None where there is nothing to do or all is done already."""
    if work.settled is not None or work.files.image is None:
        return None
    with failures_recorded(get_database(), work.ticket), metered() as cost:
        calibrated = calibrate_files(work.files)
        quality = assess_quality(calibrated.frame)
        aligned = _registered(calibrated.frame, work.reference)
    return Preprocessed(calibrated, quality, aligned, cost)


def save(work: PreprocessWork, made: Preprocessed | None) -> Result:
    """Store the calibrated frame, then write the ending; the result that stands in the row then."""
    if work.settled is not None:
        return work.settled
    database = get_database()
    if made is None:
        return conclude(database, work.ticket, lambda session: _no_image(session, work))
    with failures_recorded(database, work.ticket):
        key = f"observations/{work.ticket.observation_id}/preprocessed/{work.ticket.run_id}.fits"
        artifact = get_store().put(key, frame_to_fits(made.calibrated.frame))
        stored = (artifact.key, artifact.sha256)
        return conclude(database, work.ticket, lambda session: _written(session, work, made, stored))


def send(work: PreprocessWork, result: Result) -> Result:
    """Send a science frame on to differencing; a reference sets those going that waited for one."""
    if result["ending"] != "done":
        return {**result, "processing_triggered": False}
    if not work.is_reference:
        message_id = broker.send_next(Stage.PREPROCESSING, str(work.ticket.observation_id))
        return {**result, "processing_triggered": True, "next_message_id": message_id}
    waiting = _waiting(work.ticket.observation_id)
    for observation_id in waiting:
        broker.send_next(Stage.PREPROCESSING, str(observation_id))
    return {
        **result,
        "processing_triggered": False,
        "reason": IS_REFERENCE,
        "waiting_observations_triggered": len(waiting),
    }


def _work(session: Session, observation: Observation) -> PreprocessWork:
    files = raw_files(session, observation)
    run_id = derived_uuid(
        "preprocess_run", str(observation.id), files.sha256, STAGE_VERSION[Stage.PREPROCESSING]
    )
    ticket = RunTicket(PreprocessRun, run_id, Stage.PREPROCESSING, observation.id)
    return PreprocessWork(
        ticket=ticket,
        files=files,
        is_reference=observation.is_reference,
        reference=None if observation.is_reference else best_reference(session, observation),
        settled=settled_result(session, ticket),
    )


def best_reference(session: Session, observation: Observation) -> StoredFrame | None:
    """The frame of the reference that suits the observation best, or None."""
    references = references_for(session, observation)
    return preprocessed_frame(session, references[0]) if references else None


def _registered(frame: Frame, reference: StoredFrame | None) -> Aligned:
    if reference is None:
        return Aligned(reason="no reference covers this field")
    stored = frame_from_fits(get_store().get(reference.key, reference.sha256), reference.external_id)
    return registered(frame, stored, reference.observation_id)


def registered(frame: Frame, reference: Frame, reference_id: UUID) -> Aligned:
    """How the frame lies on the reference;

    a registration that cannot be measured is a reason, not a failure.
    """
    try:
        return Aligned(reference_id, measure_registration(frame, reference))
    except (NothingToDo, SubtractionRefused) as refusal:
        return Aligned(reference_id, reason=str(refusal))


def _no_image(session: Session, work: PreprocessWork) -> Ending:
    observation = session.get_one(Observation, work.ticket.observation_id)
    result = results.nothing_to_do(observation.id, work.ticket.run_id, observation.status, NO_IMAGE)
    return Ending(result, reason=NO_IMAGE)


def _written(session: Session, work: PreprocessWork, made: Preprocessed, stored: StoredFile) -> Ending:
    run = session.get_one(PreprocessRun, work.ticket.run_id)
    run.frame_key, run.frame_sha256 = stored
    observation = session.get_one(Observation, work.ticket.observation_id)
    observation.quality = asdict(made.quality)
    return Ending(_result(work, made, stored), numbers=results.run_numbers(made.quality, made.cost))


def _result(work: PreprocessWork, made: Preprocessed, stored: StoredFile) -> Result:
    observation_id, frame, aligned, at = (
        work.ticket.observation_id,
        made.calibrated.frame,
        made.aligned,
        _now(),
    )
    return {
        "ending": "done",
        "observation_id": str(observation_id),
        "preprocess_run_id": str(work.ticket.run_id),
        "status": "preprocessed",
        "calibration": results.calibration_section(observation_id, made.calibrated, at),
        "alignment": results.alignment_section(
            observation_id,
            aligned.reference_id,
            aligned.registration,
            frame.facts.pixel_scale_arcsec,
            aligned.reason,
            at,
        ),
        "quality": results.quality_section(observation_id, made.quality, frame.unit, at),
        "frame": {"key": stored[0], "sha256": stored[1]},
        "assumed": list(frame.assumed),
    }


def queue_one(observation_id: str) -> str:
    """Send one observation to preprocessing; UnknownObservation for an id that several surveys have."""
    with suppress(ObservationNotThereYet), get_database().reading() as session:
        find_observation(session, checked_name(observation_id, "observation_id"))
    return broker.send("preprocess_observation", Stage.PREPROCESSING, observation_id)


def forward(observation_id: str) -> Result:
    """`queue_one`, answered as the earlier actors are."""
    return {
        "observation_id": observation_id,
        "message_id": queue_one(observation_id),
        "status": "queued",
    }


def _waiting(reference_id: UUID) -> list[UUID]:
    with get_database().reading() as session:
        return waiting_for(session, session.get_one(Observation, reference_id))


def _now() -> datetime:
    return datetime.now(UTC)
