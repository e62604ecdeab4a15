"""The schema of the database: where it stands, and how it gets to where this code needs it.

Owns migrations and the wait for them. Never decides what a table is (`models`).
"""

import fcntl
import functools
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import structlog
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text

from astrid_workers.errors import ServiceUnavailable
from astrid_workers.storage.connection import Database

MIGRATIONS = Path(__file__).parent / "migrations"
#: Any number, the same in every process: the advisory lock of those who migrate.
ADVISORY_LOCK = 7_242_118_053
#: Between two looks at a schema that is not there yet, in seconds.
LOOK_EVERY_S = 2.0
#: Between two log lines about the same wait, in seconds.
SAY_EVERY_S = 30.0

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Revision:
    """One migration."""

    name: str
    line: str
    is_applied: bool


def head_revision() -> str:
    """The revision that this code needs."""
    head = _scripts().get_current_head()
    assert head is not None, "migrations are part of the package"
    return head


def current_revision(database: Database) -> str | None:
    """The revision that the database is at; None before the first migration."""
    with database.transaction() as connection:
        return MigrationContext.configure(connection).get_current_revision()


def history(current: str | None) -> list[Revision]:
    """All migrations that this code knows, oldest first, as a database at revision `current` has them."""
    scripts = list(_scripts().walk_revisions())[::-1]
    names = [script.revision for script in scripts]
    n_applied = names.index(current) + 1 if current in names else (len(names) if current else 0)
    return [Revision(s.revision, s.doc or "", i < n_applied) for i, s in enumerate(scripts)]


def is_ready(found: str | None) -> bool:
    """Whether this code can work with a database at revision `found`.

    A revision that it does not know is a newer one: migrations only add until no older code is left.
    """
    return found == head_revision() or (found is not None and found not in _known_revisions())


def upgrade(database: Database) -> str:
    """Bring the schema to `head_revision` in one transaction, and return it; of several at once, one does it.

    A schema that is newer than this code is left alone. Raises ServiceUnavailable where the database does not
    answer.
    """
    with _alone(database), database.transaction() as connection:
        if not database.is_sqlite:
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": ADVISORY_LOCK})
        found = MigrationContext.configure(connection).get_current_revision()
        if not is_ready(found):
            command.upgrade(_config(connection), "head")
        return head_revision() if found is None or found in _known_revisions() else found


def wait_for_schema(
    database: Database,
    *,
    pause: Callable[[float], None] = time.sleep,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> None:
    """Return once the database answers and its schema is ready; until then say what is awaited since when."""
    since = now()
    said_at: datetime | None = None
    while (obstacle := schema_obstacle(database)) is not None:
        at = now()
        if said_at is None or (at - said_at).total_seconds() >= SAY_EVERY_S:
            _log.warning("Waiting for the database schema", waiting_for=obstacle, since=since.isoformat())
            said_at = at
        pause(LOOK_EVERY_S)
    if said_at is not None:
        _log.info("Database schema is ready", waited_seconds=round((now() - since).total_seconds(), 1))


def schema_obstacle(database: Database) -> str | None:
    """What keeps this code from working with the database, in one sentence; None once nothing does."""
    try:
        found = current_revision(database)
    except ServiceUnavailable as error:
        return str(error)
    if is_ready(found):
        return None
    at = "has no schema yet" if found is None else f"has its schema at revision {found}"
    return f"the database {database} {at}, this version needs {head_revision()}: run `astrid db upgrade`"


@contextmanager
def _alone(database: Database) -> Iterator[None]:
    """Alone among the processes of this machine, for a SQLite file; a server has its advisory lock."""
    path = database.path
    if path is None:
        yield
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(
            path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600
        )
    except OSError as error:
        msg = f"the database {database} does not answer: {error}"
        raise ServiceUnavailable(msg, service="database") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        _use_write_ahead_log(database)
        yield
    finally:
        os.close(descriptor)


def _use_write_ahead_log(database: Database) -> None:
    """Readers and one writer side by side; a property of the file, set where nobody else is at it."""
    with database.engine.connect() as connection:
        raw = connection.connection.driver_connection
        assert raw is not None
        raw.execute("PRAGMA journal_mode = WAL")


def _config(connection: Connection | None = None) -> Config:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


@functools.cache
def _scripts() -> ScriptDirectory:
    return ScriptDirectory.from_config(_config())


@functools.cache
def _known_revisions() -> frozenset[str]:
    return frozenset(script.revision for script in _scripts().walk_revisions())
