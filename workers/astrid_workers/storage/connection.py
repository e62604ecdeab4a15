"""The connection to the database, and its transactions.

Owns engines, sessions, what SQLite needs to be safe among processes, and the one translation of "does not
answer" into `ServiceUnavailable`. Never names a table (`models`), never migrates (`schema`).
"""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.orm import Session

from astrid_workers.errors import ServiceUnavailable, SettingRejected

#: How long a SQLite writer waits for another before it gives up, in milliseconds.
SQLITE_BUSY_TIMEOUT_MS = 30_000
#: How long a connection to a server may take, in seconds.
CONNECT_TIMEOUT_S = 10
#: Connections beyond the pool's own that a process with many threads may open.
MAX_OVERFLOW = 20
#: SQLite's primary result codes for what passes without anybody touching a statement: locked, out of
#: memory, read-only, a failing or full disk, a file that cannot be opened. Bad SQL is SQLITE_ERROR.
_SQLITE_OUTAGES = frozenset(
    {
        sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_INTERRUPT, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_FULL, sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_PROTOCOL,
    }
)  # fmt: skip
#: Marks a connection of `Database.reading`, which takes no write lock.
_READ_ONLY = "astrid_read_only"


class Database:
    """One database, by SQLAlchemy URL; `postgresql://` and `postgres://` mean psycopg's driver.

    Transactions are short: read what is needed, leave, compute, come back and write. On SQLite a `session`
    holds the only write lock from its first statement on.
    """

    def __init__(self, url: str) -> None:
        self.url = parsed_url(url)
        self.engine = _engine(self.url)

    @property
    def is_sqlite(self) -> bool:
        """Whether it is a file that this machine's processes share."""
        return self.url.get_backend_name() == "sqlite"

    @property
    def path(self) -> Path | None:
        """The file of a SQLite database; None for a server or for memory."""
        if not self.is_sqlite or self.url.database in (None, "", ":memory:"):
            return None
        return Path(str(self.url.database))

    @property
    def key(self) -> str:
        """Its address with the password: the same for the same database, and never for a log."""
        return self.url.render_as_string(hide_password=False)

    def __str__(self) -> str:
        """Where it is, without a password."""
        return self.url.render_as_string(hide_password=True)

    @contextmanager
    def session(self) -> Iterator[Session]:
        """A transaction that may write: committed on success, rolled back on error.

        Rows stay readable after it. Raises ServiceUnavailable where the database does not answer; what
        waiting cannot mend (`is_outage`) is raised as it is.
        """
        with self._translated(), Session(self.engine, expire_on_commit=False) as session, session.begin():
            yield session

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """A transaction that only reads, and on SQLite waits for no writer. Raises as `session` does."""
        with self._translated(), self.engine.connect() as connection:
            connection.execution_options(**{_READ_ONLY: True})
            with Session(connection, expire_on_commit=False, autoflush=False) as session:
                yield session

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """A transaction on the bare connection, for what has no rows. Raises as `session` does."""
        with self._translated(), self.engine.begin() as connection:
            yield connection

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (DBAPIError, PoolTimeoutError) as error:
            if not is_outage(error):
                raise
            raise self._unavailable(error) from error

    def _unavailable(self, error: Exception) -> ServiceUnavailable:
        cause = str(getattr(error, "orig", None) or error).strip().splitlines()
        said = cause[0] if cause else type(error).__name__
        return ServiceUnavailable(f"the database {self} does not answer: {said}", service="database")


def is_outage(error: DBAPIError | PoolTimeoutError) -> bool:
    """Whether waiting helps: the database does not answer, is locked or full.

    SQLite's driver calls a missing table and a wrong statement operational errors as well; those are faults
    of ours, or of a schema that somebody changed, and waiting for them would never end.
    """
    if isinstance(error, PoolTimeoutError) or error.connection_invalidated:
        return True
    if isinstance(error.orig, sqlite3.Error):
        # raised by the driver itself, an error has no code: it is about arguments or values
        code = getattr(error.orig, "sqlite_errorcode", None)
        return code is not None and code & 0xFF in _SQLITE_OUTAGES
    return isinstance(error, OperationalError | InterfaceError)


def parsed_url(url: str) -> URL:
    """`url` with the driver that Astrid installs. Raises SettingRejected for any other database."""
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError) as error:  # a port that is no number is a ValueError
        msg = "ASTRID_DATABASE_URL is not a database address; expected sqlite:///FILE or postgresql://…"
        raise SettingRejected(msg) from error
    if parsed.drivername in ("postgresql", "postgres"):
        return parsed.set(drivername="postgresql+psycopg")
    if parsed.get_backend_name() not in ("sqlite", "postgresql"):
        msg = f"ASTRID_DATABASE_URL names {parsed.drivername}; valid are sqlite and postgresql"
        raise SettingRejected(msg)
    return parsed


def _engine(url: URL) -> Engine:
    if url.get_backend_name() == "sqlite":
        return _sqlite_engine(url)
    return create_engine(
        url,
        pool_pre_ping=True,
        max_overflow=MAX_OVERFLOW,
        connect_args={"connect_timeout": CONNECT_TIMEOUT_S},
    )


def _sqlite_engine(url: URL) -> Engine:
    engine = create_engine(url)
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(connection: sqlite3.Connection, _record: Any) -> None:
    # Without this the driver starts transactions late, which turns a wait for a writer into an error.
    connection.isolation_level = None
    connection.execute(f"PRAGMA busy_timeout = {SQLITE_BUSY_TIMEOUT_MS}")
    connection.execute("PRAGMA foreign_keys = ON")


def _begin_sqlite(connection: Connection) -> None:
    is_read_only = connection.get_execution_options().get(_READ_ONLY, False)
    connection.exec_driver_sql("BEGIN" if is_read_only else "BEGIN IMMEDIATE")
