"""The values in which detections travel from rows to rules and results.

Owns their fields and units; never reads a row and never judges.
"""

from dataclasses import dataclass
from typing import Any
from uuid import UUID


@dataclass(frozen=True, slots=True)
class FoundDetection:
    """One kept candidate: position in 0-based pixels of the science frame, degrees, sigma."""

    detection_id: UUID
    candidate_id: UUID
    x: float
    y: float
    ra_deg: float | None
    dec_deg: float | None
    flux: float
    flux_err: float | None
    snr: float
    #: Signed significance, sigma.
    score: float
    fwhm_px: float | None
    is_positive: bool
    confidence: float | None
    label: str | None
    severity: str | None
    triplet_key: str | None


@dataclass(frozen=True, slots=True)
class DetectionSet:
    """The detections that one `detection_id` names, strongest first, with where they come from."""

    #: The id as it was asked for, in canonical form.
    asked_id: UUID
    run_id: UUID
    difference_id: UUID
    observation_id: UUID
    model_id: str
    model_version: str | None
    #: Shape of the science frame; None where it is not known.
    width_px: int | None
    height_px: int | None
    #: The whole run's numbers, as its row holds them.
    numbers: dict[str, Any]
    is_whole_run: bool
    detections: tuple[FoundDetection, ...]
