"""What an alert looks like when it leaves Astrid.

Owns the JSON of an alert packet and its one-line form; never reads a row and never sends anything.
"""

import math
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

#: Bumped when a field is removed or changes meaning; new fields may appear without a bump.
PACKET_SCHEMA = "astrid.alert/1"


@dataclass(frozen=True, slots=True)
class AlertFacts:
    """All that a packet says, read once from the rows behind an alert."""

    alert_id: UUID
    detection_id: UUID
    observation_id: UUID
    external_observation_id: str
    #: Name of the part of a mosaic; None for a whole frame.
    part: str | None
    survey: str
    alert_type: str
    severity: str | None
    message: str
    #: UTC and aware.
    created_at: datetime
    observed_at: datetime | None
    filter_band: str | None
    ra_deg: float | None
    dec_deg: float | None
    x: float
    y: float
    flux: float | None
    flux_err: float | None
    #: Of the flux: electron, or the frame's own.
    unit: str | None
    #: Magnitude of a positive flux, its error, and the 5-sigma limit there; None without a zero point.
    mag: float | None
    mag_err: float | None
    limit_mag: float | None
    snr: float | None
    score: float
    confidence: float | None
    model_id: str


def alert_packet(facts: AlertFacts) -> dict[str, Any]:
    """The packet as strict JSON: ids as text, times in ISO 8601 with zone, numbers finite or null."""
    return {
        "schema": PACKET_SCHEMA,
        "alert_id": str(facts.alert_id),
        "alert_type": facts.alert_type,
        "severity": facts.severity,
        "message": facts.message,
        "created_at": facts.created_at.isoformat(),
        "observation": {
            "observation_id": str(facts.observation_id),
            "external_observation_id": facts.external_observation_id,
            "survey": facts.survey,
            "observation_time": None if facts.observed_at is None else facts.observed_at.isoformat(),
            "filter_band": facts.filter_band,
            **({} if facts.part is None else {"part": facts.part}),
        },
        "detection": {
            "detection_id": str(facts.detection_id),
            "ra_deg": _finite(facts.ra_deg),
            "dec_deg": _finite(facts.dec_deg),
            "x": _finite(facts.x),
            "y": _finite(facts.y),
            "flux": _finite(facts.flux),
            "flux_err": _finite(facts.flux_err),
            "unit": facts.unit,
            "mag": _finite(facts.mag),
            "mag_err": _finite(facts.mag_err),
            "limit_mag": _finite(facts.limit_mag),
            "snr": _finite(facts.snr),
            "score": _finite(facts.score),
            "confidence": _finite(facts.confidence),
            "model_id": facts.model_id,
        },
    }


def _finite(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)
