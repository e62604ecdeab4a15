"""Names that come out the same however often a thing is sent or computed.

Owns the rule that turns inputs into UUIDs, and the version of each stage's results; never looks anything up.
"""

import json
import re
from uuid import UUID, uuid5

from astrid_workers.pipeline import Stage

#: Root of every id that Astrid makes; changing it would rename everything ever stored.
NAMESPACE = UUID("6f0c2f5e-2d0b-5c1c-9f0e-3a5d0f7e6a11")

#: Raised when a stage's result for the same inputs would change, so that old results are not taken for new.
STAGE_VERSION: dict[Stage, str] = {
    Stage.OBSERVATION_INGESTION: "1",
    Stage.PREPROCESSING: "1",
    Stage.DIFFERENCING: "2",
    Stage.DETECTION: "1",
    Stage.CURATION: "1",
    Stage.NOTIFICATION: "1",
}

_CANONICAL_UUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


def uuid_given(text: str) -> UUID | None:
    """The UUID that `text` spells in the usual form with four hyphens, or None: any other text is a name."""
    return UUID(text) if _CANONICAL_UUID.fullmatch(text) else None


def survey_uuid(name_or_uuid: str) -> UUID:
    """The id of a survey: a UUID given is used as it is, a name has exactly one."""
    return uuid_given(name_or_uuid) or derived_uuid("survey", name_or_uuid)


def observation_uuid(survey: UUID, external_id: str) -> UUID:
    """The id of the observation that `survey` calls `external_id`."""
    return uuid5(survey, external_id)


def derived_uuid(kind: str, *parts: str) -> UUID:
    """The id of something made from `parts`, in order; neither kinds nor parts run into each other.

    Kinds in use: survey, preprocess_run, difference_run, difference, candidate, detection_run, detection,
    curation_run, validation_event, alert, delivery.
    """
    return uuid5(NAMESPACE, json.dumps([kind, *parts], ensure_ascii=True, separators=(",", ":")))
