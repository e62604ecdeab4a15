"""First tables.

Frozen once released: migrations never import the models, which go on changing.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0001"
down_revision: str | Sequence[str] | None = None
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "dead_letters",
        sa.Column("message_id", sa.String(length=200), nullable=False),
        sa.Column("queue", sa.String(length=200), nullable=False),
        sa.Column("actor", sa.String(length=200), nullable=False),
        sa.Column("args", sa.JSON(), nullable=False),
        sa.Column("kwargs", sa.JSON(), nullable=False),
        sa.Column("message", sa.JSON(), nullable=True),
        sa.Column("sentence", sa.Text(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=True),
        sa.Column("died_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("requeued_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("message_id", name="pk_dead_letters"),
    )
    op.create_index("ix_dead_letters_died_at", "dead_letters", ["died_at"])
    op.create_index("ix_dead_letters_queue", "dead_letters", ["queue"])

    op.create_table(
        "surveys",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("description", sa.Text(), nullable=True),
        sa.Column("is_active", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_surveys"),
        sa.UniqueConstraint("name", name="uq_surveys_name"),
    )
    op.create_table(
        "observations",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("survey_id", sa.Uuid(), nullable=False),
        sa.Column("external_id", sa.String(length=200), nullable=False),
        sa.Column("ra_deg", sa.Double(), nullable=False),
        sa.Column("dec_deg", sa.Double(), nullable=False),
        sa.Column("sky_cell", sa.Integer(), nullable=False),
        sa.Column("observation_time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("filter_band", sa.String(length=64), nullable=True),
        sa.Column("exposure_time_s", sa.Double(), nullable=True),
        sa.Column("fits_url", sa.Text(), nullable=True),
        sa.Column("is_reference", sa.Boolean(), nullable=False),
        sa.Column("status", sa.String(length=32), nullable=False),
        sa.Column("frame_key", sa.String(length=500), nullable=True),
        sa.Column("frame_sha256", sa.String(length=64), nullable=True),
        sa.Column("frame_bytes", sa.BigInteger(), nullable=True),
        sa.Column("companions", sa.JSON(), nullable=False),
        sa.Column("width_px", sa.Integer(), nullable=True),
        sa.Column("height_px", sa.Integer(), nullable=True),
        sa.Column("pixel_scale_arcsec", sa.Double(), nullable=True),
        sa.Column("footprint", sa.JSON(), nullable=True),
        sa.Column("radius_deg", sa.Double(), nullable=True),
        sa.Column("airmass", sa.Double(), nullable=True),
        sa.Column("seeing_arcsec", sa.Double(), nullable=True),
        sa.Column("payload", sa.JSON(), nullable=True),
        sa.Column("quality", sa.JSON(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["survey_id"], ["surveys.id"], name="fk_observations_survey_id_surveys"),
        sa.PrimaryKeyConstraint("id", name="pk_observations"),
        sa.UniqueConstraint("survey_id", "external_id", name="uq_observations_survey_id_external_id"),
    )
    op.create_index("ix_observations_external_id", "observations", ["external_id"])
    op.create_index("ix_observations_is_reference_sky_cell", "observations", ["is_reference", "sky_cell"])
    op.create_index("ix_observations_status", "observations", ["status"])

    op.create_table(
        "difference_runs",
        sa.Column("observation_id", sa.Uuid(), nullable=False),
        sa.Column("reference_id", sa.Uuid(), nullable=True),
        sa.Column("algorithm", sa.String(length=32), nullable=True),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("version", sa.String(length=32), nullable=False),
        sa.Column("inputs_sha256", sa.String(length=64), nullable=False),
        sa.Column("status", sa.String(length=32), nullable=False),
        sa.Column("ending_reason", sa.Text(), nullable=True),
        sa.Column("is_retryable", sa.Boolean(), nullable=True),
        sa.Column("result", sa.JSON(), nullable=True),
        sa.Column("numbers", sa.JSON(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("completed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["observation_id"], ["observations.id"], name="fk_difference_runs_observation_id_observations"
        ),
        sa.ForeignKeyConstraint(
            ["reference_id"], ["observations.id"], name="fk_difference_runs_reference_id_observations"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_difference_runs"),
    )
    op.create_index("ix_difference_runs_observation_id", "difference_runs", ["observation_id"])

    op.create_table(
        "preprocess_runs",
        sa.Column("observation_id", sa.Uuid(), nullable=False),
        sa.Column("frame_key", sa.String(length=500), nullable=True),
        sa.Column("frame_sha256", sa.String(length=64), nullable=True),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("version", sa.String(length=32), nullable=False),
        sa.Column("inputs_sha256", sa.String(length=64), nullable=False),
        sa.Column("status", sa.String(length=32), nullable=False),
        sa.Column("ending_reason", sa.Text(), nullable=True),
        sa.Column("is_retryable", sa.Boolean(), nullable=True),
        sa.Column("result", sa.JSON(), nullable=True),
        sa.Column("numbers", sa.JSON(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("completed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["observation_id"], ["observations.id"], name="fk_preprocess_runs_observation_id_observations"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_preprocess_runs"),
    )
    op.create_index("ix_preprocess_runs_observation_id", "preprocess_runs", ["observation_id"])

    op.create_table(
        "differences",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("run_id", sa.Uuid(), nullable=False),
        sa.Column("observation_id", sa.Uuid(), nullable=False),
        sa.Column("reference_id", sa.Uuid(), nullable=False),
        sa.Column("algorithm", sa.String(length=32), nullable=False),
        sa.Column("difference_key", sa.String(length=500), nullable=False),
        sa.Column("difference_sha256", sa.String(length=64), nullable=False),
        sa.Column("score_key", sa.String(length=500), nullable=False),
        sa.Column("score_sha256", sa.String(length=64), nullable=False),
        sa.Column("psf_key", sa.String(length=500), nullable=True),
        sa.Column("psf_sha256", sa.String(length=64), nullable=True),
        sa.Column("threshold_sigma", sa.Double(), nullable=True),
        sa.Column("flux_scale", sa.Double(), nullable=True),
        sa.Column("noise_scale", sa.Double(), nullable=True),
        sa.Column("fwhm_science_px", sa.Double(), nullable=True),
        sa.Column("fwhm_reference_px", sa.Double(), nullable=True),
        sa.Column("n_candidates", sa.Integer(), nullable=True),
        sa.Column("validation", sa.JSON(), nullable=True),
        sa.Column("numbers", sa.JSON(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["observation_id"], ["observations.id"], name="fk_differences_observation_id_observations"
        ),
        sa.ForeignKeyConstraint(
            ["reference_id"], ["observations.id"], name="fk_differences_reference_id_observations"
        ),
        sa.ForeignKeyConstraint(
            ["run_id"], ["difference_runs.id"], name="fk_differences_run_id_difference_runs"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_differences"),
        sa.UniqueConstraint("run_id", name="uq_differences_run_id"),
    )
    op.create_index("ix_differences_observation_id", "differences", ["observation_id"])

    op.create_table(
        "candidates",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("difference_id", sa.Uuid(), nullable=False),
        sa.Column("observation_id", sa.Uuid(), nullable=False),
        sa.Column("index", sa.Integer(), nullable=False),
        sa.Column("x", sa.Double(), nullable=False),
        sa.Column("y", sa.Double(), nullable=False),
        sa.Column("ra_deg", sa.Double(), nullable=True),
        sa.Column("dec_deg", sa.Double(), nullable=True),
        sa.Column("sky_cell", sa.Integer(), nullable=True),
        sa.Column("flux", sa.Double(), nullable=False),
        sa.Column("flux_err", sa.Double(), nullable=True),
        sa.Column("unit", sa.String(length=64), nullable=True),
        sa.Column("snr", sa.Double(), nullable=False),
        sa.Column("score", sa.Double(), nullable=False),
        sa.Column("fwhm_px", sa.Double(), nullable=True),
        sa.Column("elongation", sa.Double(), nullable=True),
        sa.Column("flags", sa.Integer(), nullable=False),
        sa.Column("is_positive", sa.Boolean(), nullable=False),
        sa.Column("numbers", sa.JSON(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["difference_id"], ["differences.id"], name="fk_candidates_difference_id_differences"
        ),
        sa.ForeignKeyConstraint(
            ["observation_id"], ["observations.id"], name="fk_candidates_observation_id_observations"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_candidates"),
        sa.UniqueConstraint("difference_id", "index", name="uq_candidates_difference_id_index"),
    )
    op.create_index("ix_candidates_observation_id", "candidates", ["observation_id"])
    op.create_index("ix_candidates_sky_cell", "candidates", ["sky_cell"])

    op.create_table(
        "detection_runs",
        sa.Column("difference_id", sa.Uuid(), nullable=False),
        sa.Column("observation_id", sa.Uuid(), nullable=False),
        sa.Column("model_id", sa.String(length=200), nullable=False),
        sa.Column("model_version", sa.String(length=64), nullable=True),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("version", sa.String(length=32), nullable=False),
        sa.Column("inputs_sha256", sa.String(length=64), nullable=False),
        sa.Column("status", sa.String(length=32), nullable=False),
        sa.Column("ending_reason", sa.Text(), nullable=True),
        sa.Column("is_retryable", sa.Boolean(), nullable=True),
        sa.Column("result", sa.JSON(), nullable=True),
        sa.Column("numbers", sa.JSON(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("completed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["difference_id"], ["differences.id"], name="fk_detection_runs_difference_id_differences"
        ),
        sa.ForeignKeyConstraint(
            ["observation_id"], ["observations.id"], name="fk_detection_runs_observation_id_observations"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_detection_runs"),
    )
    op.create_index("ix_detection_runs_difference_id", "detection_runs", ["difference_id"])
    op.create_index("ix_detection_runs_observation_id", "detection_runs", ["observation_id"])

    op.create_table(
        "curation_runs",
        sa.Column("detection_run_id", sa.Uuid(), nullable=False),
        sa.Column("observation_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("version", sa.String(length=32), nullable=False),
        sa.Column("inputs_sha256", sa.String(length=64), nullable=False),
        sa.Column("status", sa.String(length=32), nullable=False),
        sa.Column("ending_reason", sa.Text(), nullable=True),
        sa.Column("is_retryable", sa.Boolean(), nullable=True),
        sa.Column("result", sa.JSON(), nullable=True),
        sa.Column("numbers", sa.JSON(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("completed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["detection_run_id"],
            ["detection_runs.id"],
            name="fk_curation_runs_detection_run_id_detection_runs",
        ),
        sa.ForeignKeyConstraint(
            ["observation_id"], ["observations.id"], name="fk_curation_runs_observation_id_observations"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_curation_runs"),
    )
    op.create_index("ix_curation_runs_detection_run_id", "curation_runs", ["detection_run_id"])
    op.create_index("ix_curation_runs_observation_id", "curation_runs", ["observation_id"])

    op.create_table(
        "detections",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("detection_run_id", sa.Uuid(), nullable=False),
        sa.Column("candidate_id", sa.Uuid(), nullable=False),
        sa.Column("observation_id", sa.Uuid(), nullable=False),
        sa.Column("index", sa.Integer(), nullable=False),
        sa.Column("confidence", sa.Double(), nullable=True),
        sa.Column("detection_type", sa.String(length=32), nullable=True),
        sa.Column("severity", sa.String(length=32), nullable=True),
        sa.Column("status", sa.String(length=32), nullable=False),
        sa.Column("triplet_key", sa.String(length=500), nullable=True),
        sa.Column("triplet_sha256", sa.String(length=64), nullable=True),
        sa.Column("numbers", sa.JSON(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["candidate_id"], ["candidates.id"], name="fk_detections_candidate_id_candidates"
        ),
        sa.ForeignKeyConstraint(
            ["detection_run_id"], ["detection_runs.id"], name="fk_detections_detection_run_id_detection_runs"
        ),
        sa.ForeignKeyConstraint(
            ["observation_id"], ["observations.id"], name="fk_detections_observation_id_observations"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_detections"),
        sa.UniqueConstraint(
            "detection_run_id", "candidate_id", name="uq_detections_detection_run_id_candidate_id"
        ),
    )
    op.create_index("ix_detections_candidate_id", "detections", ["candidate_id"])
    op.create_index("ix_detections_observation_id", "detections", ["observation_id"])

    op.create_table(
        "alerts",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("detection_id", sa.Uuid(), nullable=True),
        sa.Column("detection_run_id", sa.Uuid(), nullable=False),
        sa.Column("alert_type", sa.String(length=64), nullable=False),
        sa.Column("severity", sa.String(length=32), nullable=True),
        sa.Column("title", sa.Text(), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("channels", sa.JSON(), nullable=False),
        sa.Column("numbers", sa.JSON(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["detection_id"], ["detections.id"], name="fk_alerts_detection_id_detections"
        ),
        sa.ForeignKeyConstraint(
            ["detection_run_id"], ["detection_runs.id"], name="fk_alerts_detection_run_id_detection_runs"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_alerts"),
    )
    op.create_index("ix_alerts_detection_id", "alerts", ["detection_id"])
    op.create_index("ix_alerts_detection_run_id", "alerts", ["detection_run_id"])

    op.create_table(
        "validation_events",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("detection_id", sa.Uuid(), nullable=False),
        sa.Column("detection_run_id", sa.Uuid(), nullable=False),
        sa.Column("priority", sa.String(length=32), nullable=False),
        sa.Column("status", sa.String(length=32), nullable=False),
        sa.Column("assigned_to", sa.String(length=200), nullable=True),
        sa.Column("is_valid", sa.Boolean(), nullable=True),
        sa.Column("label", sa.String(length=64), nullable=True),
        sa.Column("notes", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["detection_id"], ["detections.id"], name="fk_validation_events_detection_id_detections"
        ),
        sa.ForeignKeyConstraint(
            ["detection_run_id"],
            ["detection_runs.id"],
            name="fk_validation_events_detection_run_id_detection_runs",
        ),
        sa.PrimaryKeyConstraint("id", name="pk_validation_events"),
    )
    op.create_index("ix_validation_events_detection_id", "validation_events", ["detection_id"])
    op.create_index("ix_validation_events_detection_run_id", "validation_events", ["detection_run_id"])

    op.create_table(
        "deliveries",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("alert_id", sa.Uuid(), nullable=False),
        sa.Column("channel", sa.String(length=200), nullable=False),
        sa.Column("status", sa.String(length=32), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("sent_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["alert_id"], ["alerts.id"], name="fk_deliveries_alert_id_alerts"),
        sa.PrimaryKeyConstraint("id", name="pk_deliveries"),
        sa.UniqueConstraint("alert_id", "channel", name="uq_deliveries_alert_id_channel"),
    )


def downgrade() -> None:
    """Take back."""
    op.drop_table("deliveries")
    op.drop_table("validation_events")
    op.drop_table("alerts")
    op.drop_table("detections")
    op.drop_table("curation_runs")
    op.drop_table("detection_runs")
    op.drop_table("candidates")
    op.drop_table("differences")
    op.drop_table("preprocess_runs")
    op.drop_table("difference_runs")
    op.drop_table("observations")
    op.drop_table("surveys")
    op.drop_table("dead_letters")
