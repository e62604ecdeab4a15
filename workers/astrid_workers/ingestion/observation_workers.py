"""The actors of the first stage.

Owns their names and signatures; each loads, runs, saves and sends, and decides nothing itself.
"""

from datetime import UTC, datetime
from typing import Any

from astrid_workers.broker import actor, send, send_next
from astrid_workers.identity import observation_uuid, survey_uuid
from astrid_workers.ingestion.batch import queue_payloads
from astrid_workers.ingestion.describe import metadata_of, storage_of
from astrid_workers.ingestion.fetch import Intake, store_files
from astrid_workers.ingestion.stage import ingest, ingest_result, parts_section
from astrid_workers.ingestion.validate import errors_in, parse_payload
from astrid_workers.pipeline import Stage
from astrid_workers.settings import StorageSettings
from astrid_workers.storage.artifacts import get_store
from astrid_workers.storage.database import get_database
from astrid_workers.storage.fits import FitsLimits
from astrid_workers.storage.records import find_observation, parts_of_mosaic
from astrid_workers.storage.sources import configured_sources

STAGE = Stage.OBSERVATION_INGESTION


@actor(STAGE)
def ingest_observation(observation_data: dict[str, Any]) -> dict[str, Any]:
    """Make the payload an observation with its files in the store, and send it on if it has an image."""
    payload = parse_payload(observation_data)
    ingested = ingest(payload, observation_data, get_database(), _intake())
    for observation in ingested.to_be_processed:
        send_next(STAGE, str(observation.id))
    return ingest_result(ingested, payload, observation_data, _now())


@actor(STAGE)
def batch_ingest_observations(observation_data_list: list[dict[str, Any]]) -> dict[str, Any]:
    """Queue every payload as a message of its own; what is refused does not stop the others."""
    return queue_payloads(observation_data_list, lambda data: send("ingest_observation", STAGE, data))


@actor(STAGE)
def validate_observation_data(observation_data: dict[str, Any]) -> dict[str, Any]:
    """Say what is wrong with a payload, without keeping anything."""
    errors = errors_in(observation_data)
    return {"valid": not errors, "errors": errors}


@actor(STAGE)
def process_observation_metadata(observation_data: dict[str, Any]) -> dict[str, Any]:
    """Describe a payload, without keeping anything."""
    return metadata_of(parse_payload(observation_data), observation_data, _now())


@actor(STAGE)
def store_observation_files(observation_data: dict[str, Any]) -> dict[str, Any]:
    """Bring the payload's files into the store, without making an observation of it."""
    payload = parse_payload(observation_data)
    observation_id = observation_uuid(survey_uuid(payload.survey), payload.external_id)
    files = store_files(payload, observation_id, _intake())
    return storage_of(payload.fits_url, files.frame, _now())


@actor(STAGE)
def legacy_ingest_observation(observation_id: str) -> dict[str, Any]:
    """Send an observation that is there on its way again, as an id alone is all that this message has."""
    with get_database().reading() as session:
        observation = find_observation(session, observation_id)
        parts = parts_of_mosaic(session, observation.id) if observation.n_parts else []
    is_sent = observation.frame_key is not None
    for one in (parts or [observation]) if is_sent else []:
        send_next(STAGE, str(one.id))
    return {
        "observation_id": str(observation.id),
        "status": observation.status,
        "processing_triggered": is_sent,
        **parts_section(parts),
    }


def _intake() -> Intake:
    settings, store = StorageSettings(), get_store()
    return Intake(configured_sources(settings, store).read, store, FitsLimits.from_settings(settings))


def _now() -> datetime:
    return datetime.now(UTC)
