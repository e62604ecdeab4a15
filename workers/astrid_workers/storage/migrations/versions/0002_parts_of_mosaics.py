"""Parts of mosaics."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0002"
down_revision: str | Sequence[str] | None = "0001"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_FOREIGN_KEY = "fk_observations_mosaic_id_observations"


def upgrade() -> None:
    """Apply; on SQLite the key is written with its column, since constraints cannot be added there."""
    op.add_column("observations", sa.Column("n_parts", sa.Integer(), nullable=True))
    op.add_column("observations", sa.Column("part", sa.String(length=64), nullable=True))
    op.add_column("observations", sa.Column("part_hdu", sa.Integer(), nullable=True))
    if op.get_bind().dialect.name == "sqlite":
        op.execute(
            f"ALTER TABLE observations ADD COLUMN mosaic_id CHAR(32)"
            f" CONSTRAINT {_FOREIGN_KEY} REFERENCES observations (id)"
        )
    else:
        op.add_column("observations", sa.Column("mosaic_id", sa.Uuid(), nullable=True))
        op.create_foreign_key(_FOREIGN_KEY, "observations", "observations", ["mosaic_id"], ["id"])
    op.create_index("ix_observations_mosaic_id", "observations", ["mosaic_id"])


def downgrade() -> None:
    """Take back: parts stay as observations, told apart by their external ids alone."""
    op.drop_index("ix_observations_mosaic_id", "observations")
    if op.get_bind().dialect.name != "sqlite":
        op.drop_constraint(_FOREIGN_KEY, "observations", type_="foreignkey")
    for column in ("mosaic_id", "part", "part_hdu", "n_parts"):
        # without a batch: SQLite drops the column with its key, and no table is written anew
        op.execute(f"ALTER TABLE observations DROP COLUMN {column}")
