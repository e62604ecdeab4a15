"""The states that rows can be in.

Owns the words; which state follows which is `transitions`.
"""

from enum import StrEnum


class ObservationState(StrEnum):
    """How far an observation has come."""

    INGESTED = "ingested"
    PREPROCESSING = "preprocessing"
    PREPROCESSED = "preprocessed"
    DIFFERENCING = "differencing"
    DIFFERENCED = "differenced"
    DETECTED = "detected"
    CURATED = "curated"
    FAILED = "failed"
    ARCHIVED = "archived"


class RunStatus(StrEnum):
    """How a run of a stage stands; the last three are its endings."""

    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"
    NOTHING_TO_DO = "nothing_to_do"
    FAILED = "failed"


class DetectionStatus(StrEnum):
    """What has been said about a detection."""

    PENDING = "pending"
    VALIDATING = "validating"
    VALIDATED = "validated"
    REJECTED = "rejected"
    CONFIRMED = "confirmed"
    ARCHIVED = "archived"


class DeliveryStatus(StrEnum):
    """Where an alert, or its delivery to one channel, stands."""

    PENDING = "pending"
    SENT = "sent"
    DELIVERED = "delivered"
    FAILED = "failed"
    CANCELLED = "cancelled"
