"""Only what passes by itself is waited for: a wrong statement is a fault, also where SQLite calls it operational."""

import threading

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from astrid_workers.errors import ServiceUnavailable
from astrid_workers.storage.connection import Database

WRONG = {
    "a table that is not there": "SELECT * FROM no_such_table",
    "a column that is not there": "SELECT no_such_column FROM here",
    "words that are no SQL": "SELEKT 1",
    "a function that is not there": "SELECT no_such_function(1)",
    "too many values": "INSERT INTO here VALUES (1, 2, 3)",
}


def execute(database: Database, *statements: str) -> None:
    """All in one transaction."""
    with database.session() as session:
        for statement in statements:
            session.execute(text(statement))


@pytest.mark.parametrize("statement", WRONG.values(), ids=WRONG)
@pytest.mark.parametrize("way", ["session", "reading", "transaction"])
def test_a_wrong_statement_is_not_an_outage(database, way: str, statement: str) -> None:
    """Waiting would never end: the driver's error comes through, with the statement."""
    with database.transaction() as connection:
        connection.execute(text("CREATE TABLE here (x INTEGER)"))
    with pytest.raises(DBAPIError) as wrong, getattr(database, way)() as bound:
        bound.execute(text(statement))
    assert statement in str(wrong.value)


def test_a_folder_that_is_gone_is_an_outage(tmp_path) -> None:
    """The share is not mounted yet: SQLite cannot open the file."""
    database = Database(f"sqlite:///{tmp_path / 'not-mounted' / 'a.db'}")
    with (
        pytest.raises(ServiceUnavailable, match="unable to open database file"),
        database.session() as session,
    ):
        session.execute(text("SELECT 1"))


def test_a_writer_that_does_not_end_is_an_outage(tmp_path) -> None:
    """Locked for longer than we wait."""
    database = Database(f"sqlite:///{tmp_path / 'a.db'}")
    done, holds = threading.Event(), threading.Event()

    def hold() -> None:
        with database.session() as session:
            session.execute(text("CREATE TABLE one (x)"))
            holds.set()
            done.wait(30)

    writer = threading.Thread(target=hold)
    writer.start()
    assert holds.wait(10)
    try:
        with database.reading() as session:
            session.execute(text("PRAGMA busy_timeout = 50"))
            with pytest.raises(ServiceUnavailable, match="database is locked"), database._translated():
                session.connection().exec_driver_sql("CREATE TABLE two (x)")
    finally:
        done.set()
        writer.join(30)


def test_a_full_disk_is_an_outage(tmp_path) -> None:
    """A database at its greatest size says what a full disk says."""
    database = Database(f"sqlite:///{tmp_path / 'a.db'}")
    with pytest.raises(ServiceUnavailable, match="full"):
        execute(
            database,
            "PRAGMA max_page_count = 2",
            "CREATE TABLE one (x)",
            "INSERT INTO one VALUES (zeroblob(100000))",
        )


def test_a_file_that_may_not_be_written_is_an_outage(tmp_path) -> None:
    """A volume that came back read-only: SQLite's own word for it, whoever runs the test."""
    path = tmp_path / "a.db"
    with Database(f"sqlite:///{path}").transaction() as connection:
        connection.execute(text("CREATE TABLE one (x)"))
    database = Database(f"sqlite:///{path}")
    with pytest.raises(ServiceUnavailable, match="readonly"):
        execute(database, "PRAGMA query_only = ON", "INSERT INTO one VALUES (1)")
