"""References that are stacked from observations."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0003"
down_revision: str | Sequence[str] | None = "0002"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    """Apply."""
    op.add_column("observations", sa.Column("stack", sa.JSON(), nullable=True))


def downgrade() -> None:
    """Take back."""
    op.execute("ALTER TABLE observations DROP COLUMN stack")
