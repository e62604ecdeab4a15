"""`astrid submit` and `astrid show`: as a person uses them, up to the row and the message."""

import csv
import json
from datetime import UTC, datetime

import pytest
from sqlalchemy import select

from astrid_workers.__main__ import main
from astrid_workers.cli import submit
from astrid_workers.identity import derived_uuid, observation_uuid, survey_uuid
from astrid_workers.ingestion import observation_workers as workers
from astrid_workers.pipeline import Stage
from astrid_workers.storage.database import configured_database
from astrid_workers.storage.models import (
    Candidate,
    Detection,
    DetectionRun,
    Difference,
    DifferenceRun,
    Observation,
    PreprocessRun,
)
from astrid_workers.storage.states import RunStatus
from support.fits_files import fits_bytes


@pytest.fixture
def night(tmp_path):
    """A folder with two frames, one that has no WCS, and one that is no FITS."""
    folder = tmp_path / "night"
    (folder / "deep").mkdir(parents=True)
    (folder / "a.fits").write_bytes(fits_bytes())
    (folder / "deep/ref_b.fits").write_bytes(fits_bytes(OBJECT="b"))
    (folder / "notes.txt").write_text("not an image")
    return folder


@pytest.fixture(autouse=True)
def configured(monkeypatch, tmp_path, redis_url):
    """A fresh embedded database and store; no folder may be read by workers."""
    monkeypatch.setenv("ASTRID_DATABASE_URL", f"sqlite:///{tmp_path}/astrid.sqlite3")
    monkeypatch.setenv("ASTRID_ARTIFACTS_URL", str(tmp_path / "artifacts"))
    monkeypatch.chdir(tmp_path)
    yield
    configured_database().engine.dispose()


@pytest.fixture
def astrid(capsys):
    """Runs one verb with words; returns status, what was printed, and the JSON of it."""

    def run(verb, *words):
        status = main([verb, *map(str, words)])
        captured = capsys.readouterr()
        parsed = json.loads(captured.out) if "--json" in words else captured.out + captured.err
        return status, parsed

    return run


def waiting(redis_client):
    """Payloads that wait to be ingested."""
    texts = redis_client.hgetall("dramatiq:observation_ingestion.msgs").values()
    return {(payload := json.loads(text)["args"][0])["observation_id"]: payload for text in texts}


def ingest_all(redis_client):
    """What a worker would do."""
    for payload in waiting(redis_client).values():
        workers.ingest_observation(payload)


def test_a_folder_is_sent_with_what_its_headers_say(astrid, night, redis_client):
    """Position, time, filter and exposure; ids are the paths within the folder."""
    status, said = astrid("submit", night, "--survey", "s", "--json")
    assert (status, said["sent"], said["refused"]) == (0, 2, 0)
    payloads = waiting(redis_client)
    assert set(payloads) == {"a", "deep/ref_b"}
    sent = payloads["a"]
    assert (sent["survey_id"], sent["filter_band"], sent["exposure_time"]) == ("s", "r", 60.0)
    assert (sent["ra"], sent["dec"]) == (pytest.approx(180.0, abs=1e-6), pytest.approx(30.0, abs=1e-6))
    assert sent["observation_time"].startswith("2026-01-02T03:04:05")
    ingest_all(redis_client)
    with configured_database().reading() as session:
        rows = {row.external_id: row.is_reference for row in session.scalars(select(Observation))}
    assert rows == {"a": False, "deep/ref_b": True}, "a file called ref_ is a reference in any folder"


def test_files_that_workers_may_read_stay_and_others_go_into_the_store(
    astrid, night, redis_client, monkeypatch
):
    """Either way a worker can read what it is sent."""
    astrid("submit", night / "a.fits")
    assert waiting(redis_client)["a"]["fits_url"].startswith("file:///")
    assert "/artifacts/incoming/" in waiting(redis_client)["a"]["fits_url"]
    monkeypatch.setenv("ASTRID_INPUT_ROOTS", str(night))
    astrid("submit", night / "deep/ref_b.fits")
    assert waiting(redis_client)["ref_b"]["fits_url"] == str(night / "deep/ref_b.fits")
    ingest_all(redis_client)


def test_a_second_run_skips_what_was_sent_and_what_is_there(astrid, night, redis_client):
    """Interrupted in the middle, it goes on where it stopped."""
    astrid("submit", night / "a.fits")
    status, said = astrid("submit", night / "a.fits", night / "deep/ref_b.fits", "--json")
    assert [(item["observation_id"], item["outcome"]) for item in said["items"]] == [
        ("ref_b", "sent"),
        ("a", "skipped"),
    ]
    assert said["items"][1]["why"] == "it was sent before"
    ingest_all(redis_client)
    (night.parent / "out/astrid/submitted.jsonl").unlink()
    status, said = astrid("submit", night / "a.fits", "--json")
    assert (status, said["items"][0]["why"]) == (3, "it is in the database already")
    assert astrid("submit", night / "a.fits", "--again", "--json")[1]["sent"] == 1


def test_a_journal_that_was_cut_off_in_the_middle_of_a_line_still_counts(astrid, night, redis_client):
    """The machine went down while it was written."""
    astrid("submit", night / "a.fits")
    journal = night.parent / "out/astrid/submitted.jsonl"
    journal.write_text(journal.read_text().strip() + '\n{"uuid": "12')
    assert astrid("submit", night / "a.fits", night / "deep/ref_b.fits", "--json")[1]["skipped"] == 1
    assert astrid("submit", night / "a.fits", night / "deep/ref_b.fits", "--json")[1]["skipped"] == 2


def test_a_file_that_changed_is_sent_again(astrid, night, redis_client):
    """The journal knows files, not only names."""
    astrid("submit", night / "a.fits")
    (night / "a.fits").write_bytes(fits_bytes(OBJECT="new"))
    assert astrid("submit", night / "a.fits", "--json")[1]["sent"] == 1


def test_one_bad_file_does_not_stop_the_rest(astrid, night, redis_client):
    """What is wrong with each is said, and the exit status says that something was refused."""
    (night / "broken.fits").write_text("no image")
    (night / "nowhere.fits").write_bytes(fits_bytes(wcs=False))
    status, said = astrid("submit", night, night / "missing.fits", "--json")
    assert (status, said["sent"], said["refused"]) == (2, 2, 3)
    why = {
        item["name"].rsplit("/", 1)[-1]: item["why"] for item in said["items"] if item["outcome"] == "refused"
    }
    assert "broken.fits" in why["broken.fits"]
    assert why["nowhere.fits"] == "Missing required field: ra; Missing required field: dec"
    assert "missing.fits" in why["missing.fits"]
    assert set(waiting(redis_client)) == {"a", "deep/ref_b"}


def test_options_win_over_the_header(astrid, night, redis_client):
    """Also for a file without a WCS."""
    (night / "nowhere.fits").write_bytes(fits_bytes(wcs=False))
    words = [
        "--id",
        "mine",
        "--ra",
        10,
        "--dec",
        -5,
        "--time",
        "2026-05-05T00:00:00Z",
        "--filter",
        "z",
        "--exposure",
        7,
    ]
    assert astrid("submit", night / "nowhere.fits", *words, "--reference")[0] == 0
    sent = waiting(redis_client)["mine"]
    assert (sent["ra"], sent["dec"], sent["filter_band"], sent["exposure_time"], sent["is_reference"]) == (
        10,
        -5,
        "z",
        7,
        True,
    )


def test_a_table_names_files_addresses_and_facts(astrid, night, redis_client):
    """Paths are beside the table; empty cells say nothing; the table wins over the header."""
    table = night / "night.csv"
    columns = [
        "path",
        "fits_url",
        "observation_id",
        "ra",
        "dec",
        "observation_time",
        "is_reference",
        "filter_band",
    ]
    rows = [
        ["a.fits", "", "one", "", "", "", "", "g"],
        ["", "https://archive.example.org/x.fits", "two", "1.5", "2.5", "2026-01-01", "yes", ""],
        ["", "", "three", "east", "2.5", "2026-01-01", "", ""],
    ]
    with table.open("w", newline="", encoding="utf-8-sig") as file:
        csv.writer(file).writerows([columns, *rows])
    status, said = astrid("submit", table, "--json")
    assert status == 2
    assert [item["outcome"] for item in said["items"]] == ["refused", "sent", "sent"]
    assert said["items"][0]["why"] == "RA must be a number, not str"
    assert said["items"][1]["observation_id"] == "two", "references go first"
    sent = waiting(redis_client)
    assert (sent["one"]["filter_band"], sent["one"]["exposure_time"]) == ("g", 60.0)
    assert (sent["two"]["ra"], sent["two"]["is_reference"]) == (1.5, True)
    assert sent["two"]["fits_url"] == "https://archive.example.org/x.fits"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("path,colour\na,b\n", "has columns colour; expected some of"),
        ("", "no header row"),
        ("path,ra\na.fits\n", "as many cells"),
        ("\xff\xfe", "cannot be read"),
    ],
)
def test_a_table_that_is_none_is_refused_whole(astrid, night, text, sentence):
    """Before anything of it is sent."""
    (night / "bad.csv").write_bytes(text.encode("latin-1"))
    status, said = astrid("submit", night / "bad.csv")
    assert (status, sentence in said) == (2, True), said


def test_a_dry_run_sends_and_stores_nothing(astrid, night, redis_client):
    """And says what it would send."""
    status, said = astrid("submit", night, "--dry-run", "--json")
    assert (status, said["would_send"]) == (0, 2)
    assert said["items"][0]["payload"]["fits_url"] == str(night / "deep/ref_b.fits")
    assert waiting(redis_client) == {}
    assert not (night.parent / "artifacts").exists()
    assert not (night.parent / "out").exists()


def test_nothing_found_is_nothing_to_do(astrid, tmp_path):
    """Exit status 3."""
    (tmp_path / "empty").mkdir()
    assert astrid("submit", tmp_path / "empty") == (3, "nothing found\n")


def test_a_broker_that_is_gone_stops_the_submission_and_says_how_to_go_on(astrid, night, monkeypatch):
    """What is not sent is not in the journal."""

    def gone(*_):
        from astrid_workers.errors import ServiceUnavailable

        raise ServiceUnavailable("the broker does not answer")

    monkeypatch.setattr(submit, "send", gone)
    status, said = astrid("submit", night)
    assert status == 1
    assert "run it again to go on" in said
    monkeypatch.undo()


def test_show_tells_the_story_of_an_observation(astrid, night):
    """Runs with endings and reasons, candidates, detections; the same in JSON."""
    workers.ingest_observation(
        {"survey_id": "s", "observation_id": "o", "ra": 1, "dec": 2, "observation_time": "2026-01-01"}
    )
    with configured_database().session() as session:
        for row in finished_rows(observation_uuid(survey_uuid("s"), "o")):
            session.add(row)
            session.flush()
    status, said = astrid("show", "o")
    assert status == 0
    for word in (
        "preprocessing",
        "no image",
        "nothing to do",
        "a retry cannot help",
        "Candidates: 2",
        "12.5",
        "Detections: 1",
    ):
        assert word in said, said
    status, story = astrid("show", "o", "--json", "--most", 1)
    assert [run["status"] for run in story["runs"]] == ["nothing_to_do", "failed", "completed"]
    assert (story["candidates"]["count"], len(story["candidates"]["best"])) == (2, 1)
    assert story["detections"]["best"][0]["confidence"] is None
    assert story["observation"]["status"] == "ingested"


def test_show_of_nothing_is_said(astrid):
    """Exit status 2 and a sentence."""
    assert astrid("show", "none") == (2, "astrid show: there is no observation none yet\n")


def test_show_without_a_database_is_said(astrid, monkeypatch):
    """Exit status 1 and a sentence."""
    monkeypatch.setenv("ASTRID_DATABASE_URL", "postgresql://127.0.0.1:1/x")
    status, said = astrid("show", "o")
    assert (status, "does not answer" in said) == (1, True)


def finished_rows(observation_id):
    """Rows of every kind that `show` tells of."""
    run = {"observation_id": observation_id, "version": "1", "attempts": 1}
    at = [datetime(2026, 1, 1, 0, i, tzinfo=UTC) for i in range(4)]
    ids = {name: derived_uuid("test", name) for name in ("p", "d", "f", "r", "c0", "c1", "t")}
    keys = {"difference_key": "d", "difference_sha256": "0", "score_key": "s", "score_sha256": "0"}
    place = {
        "difference_id": ids["f"],
        "observation_id": observation_id,
        "y": 1.0,
        "flux": 5.0,
        "is_positive": True,
    }
    return [
        PreprocessRun(
            id=ids["p"], status=RunStatus.NOTHING_TO_DO, ending_reason="no image", created_at=at[0], **run
        ),
        DifferenceRun(
            id=ids["d"],
            status=RunStatus.FAILED,
            ending_reason="overlap 12 %, need 60 %",
            is_retryable=False,
            created_at=at[1],
            **run,
        ),
        Difference(
            id=ids["f"],
            run_id=ids["d"],
            observation_id=observation_id,
            reference_id=observation_id,
            algorithm="zogy",
            **keys,
        ),
        Candidate(id=ids["c0"], index=0, x=12.5, snr=9.0, score=9.5, **place),
        Candidate(id=ids["c1"], index=1, x=13.5, snr=8.0, score=-8.5, **place),
        DetectionRun(
            id=ids["r"],
            difference_id=ids["f"],
            model_id="matched-filter",
            status=RunStatus.COMPLETED,
            created_at=at[2],
            **run,
        ),
        Detection(
            id=ids["t"],
            detection_run_id=ids["r"],
            candidate_id=ids["c0"],
            observation_id=observation_id,
            index=0,
        ),
    ]


def test_the_queue_that_is_used_is_the_stages(astrid, night, redis_client):
    """The wire that workers listen to."""
    astrid("submit", night)
    assert redis_client.llen(f"dramatiq:{Stage.OBSERVATION_INGESTION}") == 2
