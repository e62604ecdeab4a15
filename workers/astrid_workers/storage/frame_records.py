"""Which stored frame stands for an observation.

Owns the choice (the newest completed preprocessing) and the sentences for when there is none; never
writes a row.
"""

from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from astrid_workers.errors import NothingToDo, ObservationNotThereYet
from astrid_workers.storage.models import Observation, PreprocessRun
from astrid_workers.storage.records import refuse_mosaic
from astrid_workers.storage.states import RunStatus

#: Why an observation without a frame is left alone.
NO_IMAGE = "no image"


@dataclass(frozen=True, slots=True)
class StoredFrame:
    """A calibrated frame in the artifact store, for `fits.frame_from_fits`."""

    observation_id: UUID
    external_id: str
    key: str
    sha256: str


def preprocessed_frame(session: Session, observation: Observation) -> StoredFrame:
    """The newest calibrated frame of an observation.

    Raises NothingToDo for an observation without an image, ObservationNotThereYet while it is not
    preprocessed, UnknownObservation for a mosaic, whose parts have frames.
    """
    refuse_mosaic(observation)
    run = session.scalars(
        select(PreprocessRun)
        .where(
            PreprocessRun.observation_id == observation.id,
            PreprocessRun.status == RunStatus.COMPLETED,
            PreprocessRun.frame_key.is_not(None),
        )
        .order_by(PreprocessRun.completed_at.desc(), PreprocessRun.id)
        .limit(1)
    ).first()
    if run is not None and run.frame_key is not None and run.frame_sha256 is not None:
        return StoredFrame(observation.id, observation.external_id, run.frame_key, run.frame_sha256)
    if observation.frame_key is None:
        raise NothingToDo(NO_IMAGE)
    message = f"observation {observation.external_id} has not been preprocessed yet"
    raise ObservationNotThereYet(message)
