"""A message about a mosaic becomes a message for each of its parts.

Owns that step, which every stage that takes an observation does alike; a stage itself only ever sees frames
with one image. Never touches a row.
"""

from typing import Any

from astrid_workers import broker
from astrid_workers.names import checked_name
from astrid_workers.pipeline import Stage
from astrid_workers.storage.database import get_database
from astrid_workers.storage.records import find_observation, parts_of_mosaic


def passed_to_parts(
    actor_name: str, stage: Stage, observation_id: str, *arguments: str
) -> dict[str, Any] | None:
    """What was sent, if the id names a mosaic: `actor_name` with `arguments` for every part; else None."""
    with get_database().reading() as session:
        observation = find_observation(session, checked_name(observation_id, "observation_id"))
        parts = parts_of_mosaic(session, observation.id) if observation.n_parts else []
    if not parts:
        return None
    sent = [
        {
            "part": row.part,
            "observation_id": str(row.id),
            "external_observation_id": row.external_id,
            "message_id": broker.send(actor_name, stage, str(row.id), *arguments),
        }
        for row in parts
    ]
    return {
        "observation_id": str(observation.id),
        "status": "queued",
        "processing_triggered": True,
        "parts": sent,
    }
