"""The process-wide database of `StorageSettings`, ready to be used.

Owns when a schema is upgraded, awaited or missed; `connection` has the transactions, `schema` the migrations.
"""

import os
import threading

from astrid_workers.errors import ServiceUnavailable
from astrid_workers.settings import StorageSettings
from astrid_workers.storage.connection import Database
from astrid_workers.storage.schema import (
    current_revision,
    head_revision,
    schema_obstacle,
    upgrade,
    wait_for_schema,
)

__all__ = [
    "Database",
    "configured_database",
    "current_revision",
    "get_database",
    "head_revision",
    "open_database",
    "upgrade",
    "wait_for_schema",
]

_databases: dict[str, Database] = {}
_ready: set[str] = set()
_lock = threading.Lock()
#: Held while a schema is awaited, so that the other threads of the process wait too and say it once.
_waiting = threading.Lock()


def get_database() -> Database:
    """The database for workers: SQLite upgrades itself, a server's schema is awaited, once per process."""
    database = configured_database()
    with _waiting:
        if database.key not in _ready:
            open_database(wait=True)
            _ready.add(database.key)
    return database


def open_database(*, wait: bool) -> Database:
    """The configured database with its schema ready.

    SQLite upgrades itself. A server's schema is migrated by `astrid db upgrade`: with `wait` this returns
    once that is done, without it raises ServiceUnavailable with what is missing.
    """
    database = configured_database()
    if database.is_sqlite:
        upgrade(database)
    elif wait:
        wait_for_schema(database)
    elif (obstacle := schema_obstacle(database)) is not None:
        raise ServiceUnavailable(obstacle, service="database")
    return database


def configured_database() -> Database:
    """The database as it is: nothing is connected, migrated or awaited."""
    url = StorageSettings().database_url.get_secret_value()
    with _lock:
        if url not in _databases:
            _databases[url] = Database(url)
        return _databases[url]


def _forget_connections_of_parent() -> None:
    for database in _databases.values():
        database.engine.dispose(close=False)


os.register_at_fork(after_in_child=_forget_connections_of_parent)
