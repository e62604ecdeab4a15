"""Which detections raise an alert, and in what words.

Owns the rule: a detection whose |score| reaches `alert_min_score` raises one alert; of one run the
strongest `max_alerts_per_run` are raised and the rest counted. Both signs count: a star that vanished is
news too. Where the difference did not pass its own validation, alerts are of low severity and say so: a
bad subtraction must not hide what may be real, nor shout. Never reads or writes a row.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from astrid_workers.found_detections import FoundDetection
from astrid_workers.identity import derived_uuid
from astrid_workers.significance import Priority, priority_of

#: Confidence from which an alert is called a high-confidence transient, as clients know it.
HIGH_CONFIDENCE = 0.8


@dataclass(frozen=True, slots=True)
class AlertPolicy:
    """What may wake people; see `CurationSettings`."""

    min_score: float
    most_per_run: int


@dataclass(frozen=True, slots=True)
class SkyContext:
    """What an alert says of where its detection was seen."""

    external_observation_id: str
    filter_band: str | None
    #: Whether the difference passed its validation; None where that is not known.
    difference_passed: bool | None


@dataclass(frozen=True, slots=True)
class PlannedAlert:
    """One alert to raise."""

    alert_id: UUID
    detection_id: UUID
    alert_type: str
    severity: Priority
    title: str
    message: str


@dataclass(frozen=True, slots=True)
class AlertPlan:
    """What is raised, and how many detections that reached the score were held back and why."""

    raised: tuple[PlannedAlert, ...]
    withheld: int = 0
    withheld_because: str | None = None


def alerts_for(detections: Sequence[FoundDetection], context: SkyContext, policy: AlertPolicy) -> AlertPlan:
    """The alerts that these detections raise, strongest first."""
    strong = sorted((d for d in detections if abs(d.score) >= policy.min_score), key=lambda d: -abs(d.score))
    raised = tuple(_alert(detection, context) for detection in strong[: policy.most_per_run])
    withheld = len(strong) - len(raised)
    reason = f"more than {policy.most_per_run} detections of one run reached the score" if withheld else None
    return AlertPlan(raised, withheld, reason)


def _alert(detection: FoundDetection, context: SkyContext) -> PlannedAlert:
    is_doubtful = context.difference_passed is False
    return PlannedAlert(
        alert_id=derived_uuid("alert", str(detection.detection_id)),
        detection_id=detection.detection_id,
        alert_type=_alert_type(detection),
        severity="low" if is_doubtful else priority_of(detection.score),
        title=f"{detection.score:+.1f} sigma in {context.external_observation_id}",
        message=alert_message(detection, context),
    )


def _alert_type(detection: FoundDetection) -> str:
    is_confident = detection.confidence is not None and detection.confidence >= HIGH_CONFIDENCE
    return "high_confidence_transient" if is_confident else "significant_detection"


def alert_message(detection: FoundDetection, context: SkyContext) -> str:
    """One sentence for people: what, how sure, where, in which observation."""
    what = "A brightening" if detection.is_positive else "A fading"
    sure = "not calibrated" if detection.confidence is None else f"{detection.confidence:.2f}"
    band = "" if context.filter_band is None else f", band {context.filter_band}"
    doubt = " The difference did not pass its validation." if context.difference_passed is False else ""
    return (
        f"{what} of {detection.score:+.1f} sigma (confidence {sure}) at {_place(detection)} "
        f"in observation {context.external_observation_id}{band}.{doubt}"
    )


def _place(detection: FoundDetection) -> str:
    pixel = f"pixel x {detection.x:.1f}, y {detection.y:.1f}"
    if detection.ra_deg is None or detection.dec_deg is None:
        return pixel
    return f"RA {detection.ra_deg:.5f}°, Dec {detection.dec_deg:+.5f}° ({pixel})"
