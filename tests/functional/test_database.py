"""Transactions and the schema on SQLite and on PostgreSQL."""

import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import inspect, select, text

from astrid_workers.__main__ import main
from astrid_workers.errors import ServiceUnavailable, SettingRejected
from astrid_workers.identity import survey_uuid
from astrid_workers.storage import database as process_wide
from astrid_workers.storage import schema
from astrid_workers.storage.connection import Database
from astrid_workers.storage.models import Base, Observation, Survey
from support.waiting import wait_until


def survey(name):
    """A row to write."""
    return Survey(id=survey_uuid(name), name=name)


def test_migrations_make_exactly_the_models(database):
    """A model that was changed without a migration is found here."""
    with database.transaction() as connection:
        context = MigrationContext.configure(
            connection, opts={"compare_type": True, "compare_server_default": True}
        )
        assert compare_metadata(context, Base.metadata) == []


def test_a_migration_taken_back_leaves_nothing(database):
    """Downgrade is the inverse of upgrade."""
    with database.transaction() as connection:
        command.downgrade(schema._config(connection), "base")
    with database.transaction() as connection:
        assert inspect(connection).get_table_names() == ["alembic_version"]
    assert schema.upgrade(database) == schema.current_revision(database) == schema.head_revision()


def test_rows_of_the_first_schema_are_whole_frames_in_the_next(database_url):
    """An upgrade of a database in use keeps its observations; a part needs its mosaic."""
    from sqlalchemy.exc import IntegrityError

    database = Database(database_url)
    with database.transaction() as connection:
        command.upgrade(schema._config(connection), "0001")
    with database.transaction() as connection:
        now = {"now": datetime(2026, 1, 1, tzinfo=UTC).isoformat(sep=" "), "id": "0" * 32}
        connection.execute(
            text("INSERT INTO surveys (id, name, is_active, created_at, updated_at)"
                 " VALUES (:id, 's', true, :now, :now)"), now)  # fmt: skip
        connection.execute(
            text("INSERT INTO observations (id, survey_id, external_id, ra_deg, dec_deg, sky_cell, observation_time,"
                 " is_reference, status, companions, created_at, updated_at)"
                 " VALUES (:id, :id, 'old', 1, 2, 3, :now, false, 'curated', '{}', :now, :now)"), now)  # fmt: skip
    schema.upgrade(database)
    with database.session() as session:
        row = session.scalars(select(Observation)).one()
        assert (row.external_id, row.n_parts, row.mosaic_id, row.part) == ("old", None, None, None)
        session.add(observation("old[N1]", survey_id=row.survey_id, mosaic_id=row.id, part="N1"))
    with pytest.raises(IntegrityError), database.session() as session:
        session.add(
            observation("x[N1]", survey_id=row.survey_id, mosaic_id=survey_uuid("nothing"), part="N1")
        )
    database.engine.dispose()


def test_two_upgrades_at_once_end_with_one_schema(database_url, tmp_path):
    """Two processes start on an empty database in the same moment."""
    code = (
        "import sys; from astrid_workers.storage.connection import Database;"
        "from astrid_workers.storage.schema import upgrade, head_revision; head_revision(); print('ready', flush=True);"
        "sys.stdin.readline(); print(upgrade(Database(sys.argv[1])))"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "cwd": tmp_path}
    processes = [subprocess.Popen([sys.executable, "-c", code, database_url], **pipes) for _ in range(2)]
    assert [process.stdout.readline() for process in processes] == ["ready\n"] * 2
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()
    answers = [(process.communicate(timeout=60)[0].strip(), process.returncode) for process in processes]
    assert answers == [(schema.head_revision(), 0)] * 2


def test_an_upgrade_that_breaks_leaves_the_database_as_it_was(database_url, monkeypatch):
    """DDL is in one transaction on both."""
    database = Database(database_url)

    def half(config, _to):
        config.attributes["connection"].execute(text("CREATE TABLE half (id INTEGER)"))
        raise RuntimeError("broken in the middle")

    monkeypatch.setattr(schema.command, "upgrade", half)
    with pytest.raises(RuntimeError):
        schema.upgrade(database)
    with database.transaction() as connection:
        assert inspect(connection).get_table_names() == []
    database.engine.dispose()


def test_a_newer_schema_is_left_alone_and_used(database):
    """Workers of the version before go on while the new ones roll out."""
    with database.transaction() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    assert schema.upgrade(database) == "9999"
    assert schema.is_ready("9999")
    schema.wait_for_schema(database, pause=lambda _: pytest.fail("nothing to wait for"))


def test_a_worker_waits_for_the_schema_and_says_since_when(database_url, capsys):
    """It neither crashes nor works on tables that are not there."""
    database = Database(database_url)
    started = datetime(2026, 1, 1, tzinfo=UTC)
    times = iter(started + timedelta(seconds=20 * i) for i in range(100))
    looks = []

    def pause(_seconds):
        looks.append(1)
        if len(looks) == 4:
            schema.upgrade(database)

    schema.wait_for_schema(database, pause=pause, now=lambda: next(times))
    said = capsys.readouterr().out
    assert len(looks) == 4
    assert said.count("Waiting for the database schema") == 2
    assert "has no schema yet" in said
    assert "2026-01-01T00:00:00" in said
    assert "Database schema is ready" in said
    database.engine.dispose()


def test_a_session_commits_on_success_and_rolls_back_on_error(database):
    """Half of a result is never stored."""
    with database.session() as session:
        session.add(survey("kept"))

    def fails():
        with database.session() as session:
            session.add(survey("lost"))
            session.flush()
            raise KeyError("mistake")

    with pytest.raises(KeyError):
        fails()
    with database.reading() as session:
        assert session.scalars(select(Survey.name)).all() == ["kept"]


def test_rows_stay_readable_after_their_session(database):
    """Stages compute outside of transactions."""
    with database.session() as session:
        row = survey("s")
        session.add(row)
    assert (row.name, row.created_at.tzinfo) == ("s", UTC)


def test_times_and_json_come_back_as_they_went_in(database):
    """With their zone and without NaN, on both."""
    at = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
    with database.session() as session:
        session.add(survey("s"))
        session.flush()
        session.add(observation("o", observation_time=at, quality={"a": float("nan"), "b": [1.5]}))
    with database.reading() as session:
        row = session.scalars(select(Observation)).one()
        assert row.observation_time == at
        assert row.observation_time.tzinfo is not None
        assert (row.quality, row.payload) == ({"a": None, "b": [1.5]}, None)


def test_a_sentence_that_quotes_anything_can_be_written_down(database):
    """A failure is recorded whatever bytes it quotes."""
    with database.session() as session:
        session.add(Survey(id=survey_uuid("s"), name="s", description="a\0b \ud83d \U0001f600"))
    with database.reading() as session:
        assert session.scalars(select(Survey.description)).one() == "a\ufffdb ? \U0001f600"


def test_many_threads_write_without_an_error(database):
    """Writers wait for each other; on SQLite there is one at a time."""
    errors = []

    def write(i):
        try:
            for j in range(5):
                with database.session() as session:
                    assert session.get(Survey, survey_uuid(f"{i}-{j}")) is None
                    session.add(survey(f"{i}-{j}"))
        except Exception as error:  # noqa: BLE001 - every error of a thread is the test's
            errors.append(error)

    threads = [threading.Thread(target=write, args=(i,)) for i in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    with database.reading() as session:
        assert len(session.scalars(select(Survey)).all()) == 60


def test_readers_do_not_wait_for_a_writer(database):
    """`astrid show` answers while a worker writes."""
    with database.session() as session:
        session.add(survey("being written"))
        session.flush()
        with database.reading() as reader:
            assert reader.scalars(select(Survey)).all() == []


def test_foreign_keys_hold(database):
    """No candidate without its difference."""
    from sqlalchemy.exc import IntegrityError

    with pytest.raises(IntegrityError), database.session() as session:
        session.add(observation("o"))


def test_a_server_that_is_gone_is_a_service_that_a_retry_may_help(tmp_path):
    """With its name, without the password."""
    database = Database("postgresql://me:hidden@127.0.0.1:1/astrid")
    with pytest.raises(ServiceUnavailable, match="does not answer") as gone, database.session() as session:
        session.execute(text("SELECT 1"))
    assert "hidden" not in str(gone.value)
    assert "127.0.0.1:1/astrid" in str(gone.value)


def test_a_connection_that_breaks_in_the_middle_is_one_too(postgres_url):
    """The server was restarted; the next transaction works."""
    database = Database(postgres_url)
    schema.upgrade(database)
    with pytest.raises(ServiceUnavailable), database.session() as session:
        session.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))
    with database.reading() as session:
        assert session.scalars(select(Survey)).all() == []
    database.engine.dispose()


def test_a_sqlite_file_that_cannot_be_made_is_said(tmp_path):
    """A folder in its place."""
    (tmp_path / "db").mkdir()
    database = Database(f"sqlite:///{tmp_path}/db")
    with pytest.raises(ServiceUnavailable, match="unable to open"), database.session() as session:
        session.execute(text("SELECT 1"))


@pytest.mark.parametrize("url", ["mysql://x/y", "nonsense", "", "sqlite//x"])
def test_other_databases_are_refused_by_name(url):
    """And the sentence says what is valid."""
    with pytest.raises(SettingRejected, match=r"ASTRID_DATABASE_URL.*sqlite"):
        Database(url)


def test_the_embedded_default_upgrades_itself_and_survives_a_fork(tmp_path, monkeypatch):
    """Worker processes are forked; the child must not use the parent's connection."""
    monkeypatch.setenv("ASTRID_DATABASE_URL", f"sqlite:///{tmp_path}/new/astrid.sqlite3")
    database = process_wide.get_database()
    assert database is process_wide.get_database()
    code = (
        "import os; from astrid_workers.storage.database import get_database; from sqlalchemy import text\n"
        "d = get_database()\n"
        "with d.reading() as s: s.execute(text('SELECT 1'))\n"
        "pid = os.fork()\n"
        # one write each: the lines of two processes must not mix
        "with d.reading() as s: os.write(1, b'%d\\n' % s.execute(text('SELECT count(*) FROM surveys')).scalar())\n"
        "pid and os.waitpid(pid, 0)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.stdout.split(), done.returncode) == (["0", "0"], 0), done.stderr
    assert Path(f"{tmp_path}/new/astrid.sqlite3").exists()


def test_a_worker_of_a_server_waits_until_somebody_migrates(postgres_url, monkeypatch):
    """`get_database` blocks, and goes on when `astrid db upgrade` has run."""
    monkeypatch.setenv("ASTRID_DATABASE_URL", postgres_url)
    monkeypatch.setattr(schema, "LOOK_EVERY_S", 0.05)
    got = []
    waiting = threading.Thread(target=lambda: got.append(process_wide.get_database()), daemon=True)
    waiting.start()
    with pytest.raises(ServiceUnavailable, match="run `astrid db upgrade`"):
        process_wide.open_database(wait=False)
    assert not got
    schema.upgrade(process_wide.configured_database())
    wait_until(lambda: got, 10, "get_database returns once the schema is there")
    got[0].engine.dispose()


@pytest.mark.parametrize(
    ("action", "status_before", "said_before", "said_after"),
    [
        ("current", 1, "at nothing", f"at {schema.head_revision()}"),
        ("history", 0, f"· {schema.head_revision()}", f"✓ {schema.head_revision()}"),
    ],
)
def test_astrid_db_says_where_the_schema_is(
    database_url, monkeypatch, capsys, action, status_before, said_before, said_after
):
    """Before and after an upgrade, on both; looking makes no file."""
    monkeypatch.setenv("ASTRID_DATABASE_URL", database_url)

    def run(words):
        return main(["db", *words]), capsys.readouterr().out

    status, said = run([action])
    assert (status, said_before in said) == (status_before, True)
    assert run(["upgrade"])[0] == 0
    assert "already" in run(["upgrade"])[1]
    status, said = run([action])
    assert (status, said_after in said) == (0, True)
    process_wide.configured_database().engine.dispose()


def observation(external_id, **changes):
    """A row that is complete."""
    given = {
        "id": survey_uuid(f"observation {external_id}"),
        "survey_id": survey_uuid("s"),
        "external_id": external_id,
        "ra_deg": 1.0,
        "dec_deg": 2.0,
        "sky_cell": 1,
        "observation_time": datetime(2026, 1, 1, tzinfo=UTC),
    }
    return Observation(**{**given, **changes})
