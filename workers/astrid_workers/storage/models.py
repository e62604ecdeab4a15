"""The tables.

Owns what is remembered about surveys, observations, the runs of each stage and what they found. Never queries
(`records` and the stages do), never decides a state (`transitions` does). Angles are degrees, pixels are
zero-based with centres at integers, times are UTC; what was not measured is null.
"""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    Boolean,
    Double,
    Enum,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    UniqueConstraint,
    Uuid,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from astrid_workers.storage.column_types import PlainJson, PlainText, UtcDateTime
from astrid_workers.storage.states import DeliveryStatus, DetectionStatus, ObservationState, RunStatus

#: Longest external id, survey name, model id and channel name.
NAME_LENGTH = 200
#: Longest filter name.
FILTER_LENGTH = 64
#: Hexadecimal digits of a SHA-256.
SHA256_LENGTH = 64
#: Longest artifact key.
KEY_LENGTH = 500
#: Longest name of a mosaic's part (`fits_parts` makes them).
PART_LENGTH = 64
#: Numbers of a candidate: magnitude of its flux, 1-sigma error, 5-sigma limit at its place.
MAGNITUDES = ("mag", "mag_err", "limit_mag")


def _now() -> datetime:
    return datetime.now(UTC)


def _values(states: type[Any]) -> list[str]:
    return [state.value for state in states]


def _state(states: type[Any], name: str) -> Enum:
    return Enum(states, name=name, native_enum=False, length=32, values_callable=_values)


class Base(DeclarativeBase):
    """Root of the tables; constraint names are fixed so that migrations can name them."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {  # noqa: RUF012 - SQLAlchemy reads it from the class
        UUID: Uuid(),
        datetime: UtcDateTime(),
        float: Double(),
        dict[str, Any]: PlainJson(),
        list[Any]: PlainJson(),
    }


class Timestamps:
    """When a row was written first and last."""

    created_at: Mapped[datetime] = mapped_column(default=_now)
    updated_at: Mapped[datetime] = mapped_column(default=_now, onupdate=_now)


class RunColumns(Timestamps):
    """What every run of a stage says of itself; its id is derived from inputs and version."""

    id: Mapped[UUID] = mapped_column(primary_key=True)
    #: `identity.STAGE_VERSION` of the stage when it ran.
    version: Mapped[str] = mapped_column(String(32))
    #: SHA-256 over the inputs; empty when the run had none to hash.
    inputs_sha256: Mapped[str] = mapped_column(String(SHA256_LENGTH), default="")
    status: Mapped[RunStatus] = mapped_column(_state(RunStatus, "run_status"), default=RunStatus.PENDING)
    #: One sentence: why there was nothing to do, or what failed.
    ending_reason: Mapped[str | None] = mapped_column(PlainText)
    #: After a failure: whether a retry may help.
    is_retryable: Mapped[bool | None] = mapped_column(Boolean)
    #: The result as clients know it (contract keys).
    result: Mapped[dict[str, Any] | None]
    #: Numbers behind the ending, by name with unit.
    numbers: Mapped[dict[str, Any] | None]
    #: Traceback or driver message of an unexpected failure.
    error: Mapped[str | None] = mapped_column(PlainText)
    #: Times the run was taken up.
    attempts: Mapped[int] = mapped_column(Integer, default=0)
    started_at: Mapped[datetime | None]
    completed_at: Mapped[datetime | None]

    @property
    def seconds(self) -> float | None:
        """Wall time of the last attempt, once it has ended."""
        if self.started_at is None or self.completed_at is None:
            return None
        return (self.completed_at - self.started_at).total_seconds()


class Survey(Timestamps, Base):
    """Who observes; a name that is not known makes one."""

    __tablename__ = "surveys"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(NAME_LENGTH), unique=True)
    description: Mapped[str | None] = mapped_column(PlainText)
    is_active: Mapped[bool] = mapped_column(Boolean, default=True)


class Observation(Timestamps, Base):
    """One exposure (or reference) of a survey, found by id or by place on the sky."""

    __tablename__ = "observations"
    __table_args__ = (
        UniqueConstraint("survey_id", "external_id"),
        Index(None, "external_id"),
        Index(None, "status"),
        Index(None, "is_reference", "sky_cell"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    survey_id: Mapped[UUID] = mapped_column(ForeignKey("surveys.id"))
    external_id: Mapped[str] = mapped_column(String(NAME_LENGTH))
    ra_deg: Mapped[float]
    dec_deg: Mapped[float]
    #: `sky_cells.cell_of(ra_deg, dec_deg)`: what a cone search looks up.
    sky_cell: Mapped[int] = mapped_column(Integer)
    #: Start of the exposure.
    observation_time: Mapped[datetime]
    filter_band: Mapped[str | None] = mapped_column(String(FILTER_LENGTH))
    exposure_time_s: Mapped[float | None]
    fits_url: Mapped[str | None] = mapped_column(PlainText)
    is_reference: Mapped[bool] = mapped_column(Boolean, default=False)
    status: Mapped[ObservationState] = mapped_column(
        _state(ObservationState, "observation_state"), default=ObservationState.INGESTED
    )
    #: The raw frame in the artifact store; null without an image.
    frame_key: Mapped[str | None] = mapped_column(String(KEY_LENGTH))
    frame_sha256: Mapped[str | None] = mapped_column(String(SHA256_LENGTH))
    frame_bytes: Mapped[int | None] = mapped_column(BigInteger)
    #: Companions of the frame by role (mask, noise, bias_frame, dark_frame, flat_frame), each
    #: `{url, key, sha256, size_bytes}`.
    companions: Mapped[dict[str, Any]] = mapped_column(default=dict)
    width_px: Mapped[int | None] = mapped_column(Integer)
    height_px: Mapped[int | None] = mapped_column(Integer)
    pixel_scale_arcsec: Mapped[float | None]
    #: Sky corners of the frame in order around it, `[[ra_deg, dec_deg] × 4]`; null without a WCS.
    footprint: Mapped[list[Any] | None]
    #: Angle from (ra_deg, dec_deg) to the farthest corner; null without a WCS.
    radius_deg: Mapped[float | None]
    airmass: Mapped[float | None]
    seeing_arcsec: Mapped[float | None]
    #: The payload as it was sent.
    payload: Mapped[dict[str, Any] | None]
    #: What the first step measured of the frame (`assess_quality`), for ranking references.
    quality: Mapped[dict[str, Any] | None]
    #: Of a reference that was stacked from observations: `{members: [id, …], grade: {…}}` (`Grade`).
    stack: Mapped[dict[str, Any] | None]
    #: Parts that a mosaic was cut into, each a row of its own; null for a frame with one image.
    n_parts: Mapped[int | None] = mapped_column(Integer)
    #: The mosaic that this row is a part of, and the part's name (EXTNAME); null for a whole frame.
    mosaic_id: Mapped[UUID | None] = mapped_column(ForeignKey("observations.id"), index=True)
    part: Mapped[str | None] = mapped_column(String(PART_LENGTH))
    #: Number of the part's HDU in the mosaic's file.
    part_hdu: Mapped[int | None] = mapped_column(Integer)

    survey: Mapped[Survey] = relationship()


class PreprocessRun(RunColumns, Base):
    """Calibration and quality of one observation's frame."""

    __tablename__ = "preprocess_runs"

    observation_id: Mapped[UUID] = mapped_column(ForeignKey("observations.id"), index=True)
    #: The calibrated frame (`fits.frame_to_fits`).
    frame_key: Mapped[str | None] = mapped_column(String(KEY_LENGTH))
    frame_sha256: Mapped[str | None] = mapped_column(String(SHA256_LENGTH))


class DifferenceRun(RunColumns, Base):
    """One observation against one reference; without a reference when none covers the field."""

    __tablename__ = "difference_runs"

    observation_id: Mapped[UUID] = mapped_column(ForeignKey("observations.id"), index=True)
    reference_id: Mapped[UUID | None] = mapped_column(ForeignKey("observations.id"))
    algorithm: Mapped[str | None] = mapped_column(String(32))


class Difference(Timestamps, Base):
    """A difference image and its score, on the science grid."""

    __tablename__ = "differences"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    run_id: Mapped[UUID] = mapped_column(ForeignKey("difference_runs.id"), unique=True)
    observation_id: Mapped[UUID] = mapped_column(ForeignKey("observations.id"), index=True)
    reference_id: Mapped[UUID] = mapped_column(ForeignKey("observations.id"))
    algorithm: Mapped[str] = mapped_column(String(32))
    difference_key: Mapped[str] = mapped_column(String(KEY_LENGTH))
    difference_sha256: Mapped[str] = mapped_column(String(SHA256_LENGTH))
    score_key: Mapped[str] = mapped_column(String(KEY_LENGTH))
    score_sha256: Mapped[str] = mapped_column(String(SHA256_LENGTH))
    psf_key: Mapped[str | None] = mapped_column(String(KEY_LENGTH))
    psf_sha256: Mapped[str | None] = mapped_column(String(SHA256_LENGTH))
    threshold_sigma: Mapped[float | None]
    flux_scale: Mapped[float | None]
    noise_scale: Mapped[float | None]
    fwhm_science_px: Mapped[float | None]
    fwhm_reference_px: Mapped[float | None]
    n_candidates: Mapped[int | None] = mapped_column(Integer)
    #: `validate_difference` in contract keys.
    validation: Mapped[dict[str, Any] | None]
    numbers: Mapped[dict[str, Any] | None]


class Candidate(Timestamps, Base):
    """A source extracted from a difference."""

    __tablename__ = "candidates"
    __table_args__ = (UniqueConstraint("difference_id", "index"), Index(None, "sky_cell"))

    id: Mapped[UUID] = mapped_column(primary_key=True)
    difference_id: Mapped[UUID] = mapped_column(ForeignKey("differences.id"))
    observation_id: Mapped[UUID] = mapped_column(ForeignKey("observations.id"), index=True)
    #: Position in the extraction's list, from 0, best first.
    index: Mapped[int] = mapped_column(Integer)
    x: Mapped[float]
    y: Mapped[float]
    ra_deg: Mapped[float | None]
    dec_deg: Mapped[float | None]
    sky_cell: Mapped[int | None] = mapped_column(Integer)
    flux: Mapped[float]
    flux_err: Mapped[float | None]
    #: Of `flux` and `flux_err`: electron, or the frame's own.
    unit: Mapped[str | None] = mapped_column(String(64))
    snr: Mapped[float]
    #: Signed matched-filter significance, sigma.
    score: Mapped[float]
    fwhm_px: Mapped[float | None]
    elongation: Mapped[float | None]
    flags: Mapped[int] = mapped_column(Integer, default=0)
    is_positive: Mapped[bool] = mapped_column(Boolean)
    #: `x_err, y_err` (pixels), `chi2`, and `MAGNITUDES`.
    numbers: Mapped[dict[str, Any] | None]

    @property
    def magnitudes(self) -> dict[str, float | None]:
        """`MAGNITUDES` by name; None without a zero point, and of a negative flux all but the limit."""
        known = self.numbers or {}
        return {name: known.get(name) for name in MAGNITUDES}


class DetectionRun(RunColumns, Base):
    """One model over the candidates of one difference."""

    __tablename__ = "detection_runs"

    difference_id: Mapped[UUID] = mapped_column(ForeignKey("differences.id"), index=True)
    observation_id: Mapped[UUID] = mapped_column(ForeignKey("observations.id"), index=True)
    model_id: Mapped[str] = mapped_column(String(NAME_LENGTH))
    model_version: Mapped[str | None] = mapped_column(String(64))


class Detection(Timestamps, Base):
    """A candidate that a model kept."""

    __tablename__ = "detections"
    __table_args__ = (UniqueConstraint("detection_run_id", "candidate_id"),)

    id: Mapped[UUID] = mapped_column(primary_key=True)
    detection_run_id: Mapped[UUID] = mapped_column(ForeignKey("detection_runs.id"))
    candidate_id: Mapped[UUID] = mapped_column(ForeignKey("candidates.id"), index=True)
    observation_id: Mapped[UUID] = mapped_column(ForeignKey("observations.id"), index=True)
    #: Position within the run, from 0, best first.
    index: Mapped[int] = mapped_column(Integer)
    #: Calibrated probability that it is real; null where the model has none.
    confidence: Mapped[float | None]
    #: supernova, variable, transient, unknown, artifact; null where the model does not say.
    detection_type: Mapped[str | None] = mapped_column(String(32))
    severity: Mapped[str | None] = mapped_column(String(32))
    status: Mapped[DetectionStatus] = mapped_column(
        _state(DetectionStatus, "detection_status"), default=DetectionStatus.PENDING
    )
    #: Picture of science, reference and difference around it.
    triplet_key: Mapped[str | None] = mapped_column(String(KEY_LENGTH))
    triplet_sha256: Mapped[str | None] = mapped_column(String(SHA256_LENGTH))
    numbers: Mapped[dict[str, Any] | None]

    candidate: Mapped[Candidate] = relationship()


class CurationRun(RunColumns, Base):
    """What curation made of one detection run."""

    __tablename__ = "curation_runs"

    detection_run_id: Mapped[UUID] = mapped_column(ForeignKey("detection_runs.id"), index=True)
    observation_id: Mapped[UUID] = mapped_column(ForeignKey("observations.id"), index=True)


class ValidationEvent(Timestamps, Base):
    """One detection put before a person, and what the person said."""

    __tablename__ = "validation_events"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    detection_id: Mapped[UUID] = mapped_column(ForeignKey("detections.id"), index=True)
    detection_run_id: Mapped[UUID] = mapped_column(ForeignKey("detection_runs.id"), index=True)
    priority: Mapped[str] = mapped_column(String(32))
    status: Mapped[str] = mapped_column(String(32), default="pending")
    assigned_to: Mapped[str | None] = mapped_column(String(NAME_LENGTH))
    is_valid: Mapped[bool | None] = mapped_column(Boolean)
    label: Mapped[str | None] = mapped_column(String(64))
    notes: Mapped[str | None] = mapped_column(PlainText)


class Alert(Timestamps, Base):
    """Something that people should hear of."""

    __tablename__ = "alerts"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    detection_id: Mapped[UUID | None] = mapped_column(ForeignKey("detections.id"), index=True)
    detection_run_id: Mapped[UUID] = mapped_column(ForeignKey("detection_runs.id"), index=True)
    alert_type: Mapped[str] = mapped_column(String(64))
    severity: Mapped[str | None] = mapped_column(String(32))
    title: Mapped[str] = mapped_column(PlainText)
    message: Mapped[str] = mapped_column(PlainText)
    #: Names of the channels it goes to.
    channels: Mapped[list[Any]] = mapped_column(default=list)
    numbers: Mapped[dict[str, Any] | None]


class Delivery(Timestamps, Base):
    """One alert to one channel."""

    __tablename__ = "deliveries"
    __table_args__ = (UniqueConstraint("alert_id", "channel"),)

    id: Mapped[UUID] = mapped_column(primary_key=True)
    alert_id: Mapped[UUID] = mapped_column(ForeignKey("alerts.id"))
    channel: Mapped[str] = mapped_column(String(NAME_LENGTH))
    status: Mapped[DeliveryStatus] = mapped_column(
        _state(DeliveryStatus, "delivery_status"), default=DeliveryStatus.PENDING
    )
    attempts: Mapped[int] = mapped_column(Integer, default=0)
    sent_at: Mapped[datetime | None]
    error: Mapped[str | None] = mapped_column(PlainText)


class DeadLetter(Timestamps, Base):
    """A message that nobody will retry by itself, kept so that a person can."""

    __tablename__ = "dead_letters"

    message_id: Mapped[str] = mapped_column(String(NAME_LENGTH), primary_key=True)
    queue: Mapped[str] = mapped_column(String(NAME_LENGTH), index=True)
    actor: Mapped[str] = mapped_column(String(NAME_LENGTH))
    args: Mapped[list[Any]]
    kwargs: Mapped[dict[str, Any]] = mapped_column(default=dict)
    #: The whole message, to requeue it as it was.
    message: Mapped[dict[str, Any] | None]
    sentence: Mapped[str] = mapped_column(PlainText)
    attempts: Mapped[int | None] = mapped_column(Integer)
    died_at: Mapped[datetime] = mapped_column(index=True)
    requeued_at: Mapped[datetime | None]
