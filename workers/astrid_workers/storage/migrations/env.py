"""How Alembic runs these migrations: on the connection that `schema.upgrade` hands over.

Started by hand (`alembic -c alembic.ini revision --autogenerate -m …` in this folder) it opens the configured
database itself. Never decides what a table is.
"""

from alembic import context
from sqlalchemy import Connection

from astrid_workers.storage.database import configured_database
from astrid_workers.storage.models import Base


def run(connection: Connection) -> None:
    """Migrate on `connection`, in its transaction."""
    context.configure(connection=connection, target_metadata=Base.metadata, render_as_batch=True)
    with context.begin_transaction():
        context.run_migrations()


given = context.config.attributes.get("connection")
if given is not None:
    run(given)
else:
    with configured_database().transaction() as opened:
        run(opened)
