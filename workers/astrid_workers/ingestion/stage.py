"""Making a payload an observation: once, however often it is sent.

Owns the row and its repeats; what is right in a payload is `validate`, what comes into the store `fetch`.
Never sends a message.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from astrid_workers.errors import ObservationRejected
from astrid_workers.identity import observation_uuid, survey_uuid
from astrid_workers.ingestion.describe import metadata_of, storage_of
from astrid_workers.ingestion.fetch import Intake, StoredFiles, store_files
from astrid_workers.ingestion.frame_summary import FrameSummary, filter_band_of
from astrid_workers.ingestion.mosaic_files import StoredPart
from astrid_workers.ingestion.validate import ObservationPayload
from astrid_workers.storage.artifacts import Artifact
from astrid_workers.storage.connection import Database
from astrid_workers.storage.models import NAME_LENGTH, Observation, Survey
from astrid_workers.storage.records import parts_of_mosaic
from astrid_workers.storage.sky_cells import cell_of
from astrid_workers.storage.states import ObservationState


@dataclass(frozen=True, slots=True)
class Ingested:
    """An observation that stands in the database, and what this message added."""

    observation: Observation
    survey: Survey
    #: Whether it stood there before.
    is_repeat: bool
    #: Fields in which a repeat differs from what stands; the first message counts.
    differing: tuple[str, ...] = ()
    #: The parts of a mosaic in the order of its file; empty for a frame with one image.
    parts: tuple[Observation, ...] = ()

    @property
    def to_be_processed(self) -> tuple[Observation, ...]:
        """What the next stage has something to do for: the observation, or the parts of a mosaic."""
        if self.observation.frame_key is None or self.observation.status == ObservationState.ARCHIVED:
            return ()
        return self.parts or (self.observation,)


def ingest(
    payload: ObservationPayload, original: dict[str, Any], database: Database, intake: Intake
) -> Ingested:
    """The row of the observation, made with its files if it is not there or has no image yet.

    A repeat may add an image and declare a reference, and changes nothing else. Raises as `store_files` does.
    """
    with database.reading() as session:
        survey_id = _survey_id(session, payload.survey)
        observation_id = observation_uuid(survey_id, payload.external_id)
        existing = session.get(Observation, observation_id)
    is_complete = existing is not None and (existing.frame_key is not None or payload.fits_url is None)
    files = StoredFiles() if is_complete else store_files(payload, observation_id, intake)
    try:
        return _write(database, payload, original, survey_id, files)
    except IntegrityError:
        # Somebody else made the same survey or observation in the same moment: now it stands.
        return _write(database, payload, original, survey_id, files)


def ingest_result(
    ingested: Ingested, payload: ObservationPayload, original: dict[str, Any], now: datetime
) -> dict[str, Any]:
    """The result of `ingest_observation`."""
    row = ingested.observation
    return {
        "observation_id": str(row.id),
        "external_observation_id": row.external_id,
        "survey_id": str(row.survey_id),
        "survey_name": ingested.survey.name,
        "status": ObservationState.INGESTED.value,
        "metadata": metadata_of(payload, original, now),
        "storage": storage_of(row.fits_url, _frame_of(row), row.created_at),
        "processing_triggered": bool(ingested.to_be_processed),
        "is_repeat": ingested.is_repeat,
        "ignored_changes": list(ingested.differing),
        **parts_section(ingested.parts),
    }


def parts_section(parts: Sequence[Observation]) -> dict[str, Any]:
    """Which parts a mosaic has, in the order of its file; nothing for a frame with one image."""
    if not parts:
        return {}
    named = [
        {"part": row.part, "observation_id": str(row.id), "external_observation_id": row.external_id}
        for row in parts
    ]
    return {"parts": named}


def _survey_id(session: Session, given: str) -> UUID:
    """The id of the survey that is meant: by id, else by its present name, else the one that it will have."""
    expected = survey_uuid(given)
    if session.get(Survey, expected) is not None:
        return expected
    return session.scalar(select(Survey.id).where(Survey.name == given)) or expected


def _write(
    database: Database,
    payload: ObservationPayload,
    original: dict[str, Any],
    survey_id: UUID,
    files: StoredFiles,
) -> Ingested:
    observation_id = observation_uuid(survey_id, payload.external_id)
    with database.session() as session:
        survey = _survey(session, survey_id, payload.survey)
        row = session.get(Observation, observation_id, with_for_update=True)
        if row is None:
            row = _fresh(payload, original, survey_id, observation_id)
            _attach(row, payload, files)
            session.add(row)
            parts = _add_parts(session, row, payload, files)
            return Ingested(row, survey, is_repeat=False, parts=parts)
        differing = _differing(row, payload)
        parts = tuple(parts_of_mosaic(session, row.id)) if row.n_parts else ()
        if row.frame_key is None and files.frame is not None:
            _attach(row, payload, files)
            parts = _add_parts(session, row, payload, files)
        if payload.is_reference:
            for one in (row, *parts):
                one.is_reference = True
        return Ingested(row, survey, is_repeat=True, differing=differing, parts=parts)


def _add_parts(
    session: Session, mosaic: Observation, payload: ObservationPayload, files: StoredFiles
) -> tuple[Observation, ...]:
    """A row for each part, called `<external id>[<part>]`."""
    session.flush()
    parts = tuple(_part_row(session, mosaic, payload, stored) for stored in files.parts)
    session.add_all(parts)
    return parts


def _part_row(
    session: Session, mosaic: Observation, payload: ObservationPayload, stored: StoredPart
) -> Observation:
    external_id = f"{payload.external_id}[{stored.part.name}]"
    part_id = observation_uuid(mosaic.survey_id, external_id)
    if len(external_id) > NAME_LENGTH:
        msg = f"observation_id of a mosaic is followed by its parts' names: {external_id!r} is too long"
        raise ObservationRejected([f"{msg}, {len(external_id)} characters, at most {NAME_LENGTH} are kept"])
    if session.get(Observation, part_id) is not None:
        msg = f"part {stored.part.name} of the mosaic would be {external_id!r}, an observation of its own"
        raise ObservationRejected([msg])
    row = _fresh(payload, None, mosaic.survey_id, part_id)
    row.external_id, row.is_reference = external_id, mosaic.is_reference
    row.mosaic_id, row.part, row.part_hdu = mosaic.id, stored.part.name, stored.part.index
    row.fits_url, row.companions = payload.fits_url, stored.companions
    _attach_frame(row, stored.frame, stored.summary)
    if stored.summary is not None and stored.summary.centre is not None:
        row.ra_deg, row.dec_deg = stored.summary.centre
    return row


def _survey(session: Session, survey_id: UUID, name: str) -> Survey:
    survey = session.get(Survey, survey_id)
    if survey is None:
        survey = Survey(id=survey_id, name=name)
        session.add(survey)
        session.flush()
    return survey


def _fresh(
    payload: ObservationPayload, original: dict[str, Any] | None, survey_id: UUID, observation_id: UUID
) -> Observation:
    return Observation(
        id=observation_id,
        survey_id=survey_id,
        external_id=payload.external_id,
        ra_deg=payload.ra_deg,
        dec_deg=payload.dec_deg,
        sky_cell=cell_of(payload.ra_deg, payload.dec_deg),
        observation_time=payload.observation_time,
        filter_band=payload.filter_band,
        exposure_time_s=payload.exposure_time_s,
        is_reference=payload.is_reference,
        status=ObservationState.INGESTED,
        companions={},
        pixel_scale_arcsec=payload.pixel_scale_arcsec,
        airmass=payload.airmass,
        seeing_arcsec=payload.seeing_arcsec,
        payload=original,
    )


def _attach(row: Observation, payload: ObservationPayload, files: StoredFiles) -> None:
    """Write the files into the row; where the payload was silent, the header speaks."""
    row.fits_url = payload.fits_url
    row.companions = files.companions
    if files.frame is None:
        return
    _attach_frame(row, files.frame, files.summary)
    if files.parts:  # size and place are those of the parts
        row.n_parts = len(files.parts)
        row.width_px = row.height_px = row.footprint = row.radius_deg = None
        row.sky_cell = cell_of(row.ra_deg, row.dec_deg)


def _attach_frame(row: Observation, frame: Artifact, summary: FrameSummary | None) -> None:
    row.frame_key, row.frame_sha256 = frame.key, frame.sha256
    row.frame_bytes = frame.size_bytes
    if summary is None:
        return
    facts = summary.facts
    row.width_px, row.height_px = summary.width_px, summary.height_px
    row.filter_band = row.filter_band or filter_band_of(facts)
    row.exposure_time_s = _first(row.exposure_time_s, facts.exposure_s)
    row.pixel_scale_arcsec = _first(row.pixel_scale_arcsec, facts.pixel_scale_arcsec)
    row.airmass = _first(row.airmass, facts.airmass)
    row.seeing_arcsec = _first(row.seeing_arcsec, facts.seeing_arcsec)
    if summary.corners is not None and summary.centre is not None:
        row.footprint = [list(corner) for corner in summary.corners]
        row.radius_deg = summary.radius_deg
        row.sky_cell = cell_of(*summary.centre)


def _first(given: float | None, found: float | None) -> float | None:
    return found if given is None else given


def _differing(row: Observation, payload: ObservationPayload) -> tuple[str, ...]:
    pairs = {
        "ra": (payload.ra_deg, row.ra_deg),
        "dec": (payload.dec_deg, row.dec_deg),
        "observation_time": (payload.observation_time, row.observation_time),
        "filter_band": (payload.filter_band, row.filter_band),
        "exposure_time": (payload.exposure_time_s, row.exposure_time_s),
        "fits_url": (payload.fits_url, row.fits_url),
    }
    return tuple(
        name for name, (sent, stands) in pairs.items() if None not in (sent, stands) and sent != stands
    )


def _frame_of(row: Observation) -> Artifact | None:
    if row.frame_key is None or row.frame_sha256 is None:
        return None
    return Artifact(row.frame_key, row.frame_sha256, row.frame_bytes or 0)
