"""The chain of stages as data.

Owns which actor follows which, on which queue; never sends a message (`broker.send_next` does).
A contract test compares this table with the actors that are declared.
"""

from dataclasses import dataclass
from enum import StrEnum


class Stage(StrEnum):
    """A stage of the pipeline: also the name of its worker type, its queue and its metric label."""

    OBSERVATION_INGESTION = "observation_ingestion"
    PREPROCESSING = "preprocessing"
    DIFFERENCING = "differencing"
    DETECTION = "detection"
    CURATION = "curation"
    NOTIFICATION = "notification"


@dataclass(frozen=True, slots=True)
class ChainLink:
    """One stage: the module with its actors, the actor that carries the chain, and the stage that follows."""

    stage: Stage
    module: str
    actor: str
    next_stage: Stage | None


CHAIN: tuple[ChainLink, ...] = (
    ChainLink(
        Stage.OBSERVATION_INGESTION,
        "astrid_workers.ingestion.observation_workers",
        "ingest_observation",
        Stage.PREPROCESSING,
    ),
    ChainLink(
        Stage.PREPROCESSING,
        "astrid_workers.preprocessing.preprocessing_workers",
        "preprocess_observation",
        Stage.DIFFERENCING,
    ),
    ChainLink(
        Stage.DIFFERENCING,
        "astrid_workers.differencing.differencing_workers",
        "difference_observation",
        Stage.DETECTION,
    ),
    ChainLink(
        Stage.DETECTION, "astrid_workers.detection.detection_workers", "detect_anomalies", Stage.CURATION
    ),
    ChainLink(
        Stage.CURATION, "astrid_workers.curation.curation_workers", "curate_detections", Stage.NOTIFICATION
    ),
    ChainLink(
        Stage.NOTIFICATION, "astrid_workers.notification.notification_workers", "deliver_notification", None
    ),
)

LINK_OF: dict[Stage, ChainLink] = {link.stage: link for link in CHAIN}


def following(stage: Stage) -> ChainLink | None:
    """The link that runs after `stage`, or None after the last."""
    next_stage = LINK_OF[stage].next_stage
    return None if next_stage is None else LINK_OF[next_stage]
