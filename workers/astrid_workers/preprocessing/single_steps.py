"""The steps of preprocessing one by one, for clients that ask for a single one.

Owns reading what a step needs and answering with its section; changes no row.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

from sqlalchemy.orm import Session

from astrid_workers.errors import NothingToDo, SourceRefused
from astrid_workers.frame import Frame
from astrid_workers.names import checked_name
from astrid_workers.preprocessing import results
from astrid_workers.preprocessing.assess_quality import assess_quality
from astrid_workers.preprocessing.raw_files import (
    CALIBRATION_KEYS,
    RawFiles,
    calibrate_files,
    for_part,
    raw_files,
)
from astrid_workers.preprocessing.stage import Aligned, best_reference, registered
from astrid_workers.run_records import Result
from astrid_workers.settings import StorageSettings
from astrid_workers.storage.artifacts import get_store
from astrid_workers.storage.database import get_database
from astrid_workers.storage.fits import frame_from_fits, frame_to_fits
from astrid_workers.storage.frame_records import NO_IMAGE, StoredFrame, preprocessed_frame
from astrid_workers.storage.models import Observation
from astrid_workers.storage.records import find_observation, refuse_mosaic
from astrid_workers.storage.sources import configured_sources


@dataclass(frozen=True, slots=True)
class RawWork:
    """One raw frame, and the bytes of the calibration frames that a message names, by their keys."""

    observation_id: UUID
    files: RawFiles
    calibration: Mapping[str, bytes]


@dataclass(frozen=True, slots=True, eq=False)
class FrameWork:
    """One calibrated frame."""

    observation_id: UUID
    frame: Frame


@dataclass(frozen=True, slots=True, eq=False)
class PairWork:
    """A calibrated frame and the reference it is to be laid on; None where none covers it."""

    observation_id: UUID
    frame: Frame
    reference: Frame | None
    reference_id: UUID | None


def answered(observation_id: str, step: Callable[[], Result]) -> Result:
    """What `step` answers; where it finds nothing to do, that and why."""
    try:
        return step()
    except NothingToDo as nothing:
        return {"ending": "nothing_to_do", "reason": str(nothing), "observation_id": observation_id}


def load_raw(observation_id: str, calibration_frames: Mapping[str, str]) -> RawWork:
    """The raw files of an observation, with the calibration frames that are named.

    A frame is named by an address that ingestion would read, or by an observation with an image. Raises
    SourceRefused, UnknownObservation and ObservationNotThereYet as they do.
    """
    with get_database().reading() as session:
        observation = find_observation(session, checked_name(observation_id, "observation_id"))
        refuse_mosaic(observation)
        files = raw_files(session, observation)
    if files.image is None:
        raise NothingToDo(NO_IMAGE)
    named = {key: calibration_frames[key] for key in CALIBRATION_KEYS if calibration_frames.get(key)}
    frames = {key: for_part(_bytes_of(name, key), files, key) for key, name in named.items()}
    return RawWork(observation.id, files, frames)


def calibrated(work: RawWork) -> Result:
    """Calibrate, keep the frame beside the usual one, and answer with the calibration section."""
    made = calibrate_files(work.files, work.calibration)
    data = frame_to_fits(made.frame)
    name = hashlib.sha256(data).hexdigest()
    artifact = get_store().put(f"observations/{work.observation_id}/calibrated/{name}.fits", data)
    section = results.calibration_section(work.observation_id, made, datetime.now(UTC))
    return {
        **section,
        "frame": {"key": artifact.key, "sha256": artifact.sha256},
        "assumed": list(made.frame.assumed),
    }


def load_frame(observation_id: str) -> FrameWork:
    """The calibrated frame; raises ObservationNotThereYet while there is none."""
    with get_database().reading() as session:
        observation = find_observation(session, checked_name(observation_id, "observation_id"))
        stored = preprocessed_frame(session, observation)
    return FrameWork(observation.id, _read(stored))


def assessed(work: FrameWork) -> Result:
    """The quality section, measured now."""
    measured = assess_quality(work.frame)
    return results.quality_section(work.observation_id, measured, work.frame.unit, datetime.now(UTC))


def load_pair(observation_id: str, reference_id: str | None) -> PairWork:
    """The calibrated frame with the reference that is named, or the best there is."""
    with get_database().reading() as session:
        observation = find_observation(session, checked_name(observation_id, "observation_id"))
        science = preprocessed_frame(session, observation)
        reference = _reference(session, observation, reference_id)
    if reference is None:
        return PairWork(observation.id, _read(science), None, None)
    return PairWork(observation.id, _read(science), _read(reference), reference.observation_id)


def aligned(work: PairWork) -> Result:
    """The alignment section, measured now; a registration that cannot be measured is its reason."""
    if work.reference is None or work.reference_id is None:
        found = Aligned(reason="no reference covers this field")
    else:
        found = registered(work.frame, work.reference, work.reference_id)
    return results.alignment_section(
        work.observation_id,
        work.reference_id,
        found.registration,
        work.frame.facts.pixel_scale_arcsec,
        found.reason,
        datetime.now(UTC),
    )


def _reference(session: Session, observation: Observation, reference_id: str | None) -> StoredFrame | None:
    if reference_id is None:
        return best_reference(session, observation)
    named = find_observation(session, checked_name(reference_id, "reference_id"))
    return preprocessed_frame(session, named)


def _bytes_of(name: str, key: str) -> bytes:
    """The file behind an address, or the image of the observation with that id."""
    if "/" in checked_name(name, key):
        return configured_sources(StorageSettings(), get_store()).read(name)
    with get_database().reading() as session:
        image = raw_files(session, find_observation(session, name)).image
    if image is None:
        message = f"{key}: observation {name} has no image"
        raise SourceRefused(message)
    return get_store().get(*image)


def _read(stored: StoredFrame) -> Frame:
    return frame_from_fits(get_store().get(stored.key, stored.sha256), stored.external_id)
