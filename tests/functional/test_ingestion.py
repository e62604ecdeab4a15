"""From a payload to a row and the next message: with real files, a real server and both databases."""

import json
import threading
from datetime import UTC, datetime
from uuid import UUID

import pytest
from sqlalchemy import select

from astrid_workers.errors import (
    FrameRejected,
    ObservationNotThereYet,
    ObservationRejected,
    ServiceUnavailable,
    SourceRefused,
    UnknownObservation,
)
from astrid_workers.identity import derived_uuid, observation_uuid, survey_uuid
from astrid_workers.ingestion import observation_workers as workers
from astrid_workers.pipeline import Stage
from astrid_workers.storage.artifacts import get_store
from astrid_workers.storage.models import Observation, PreprocessRun, Survey
from astrid_workers.storage.records import (
    find_observation,
    observations_near,
    references_for,
    references_with_coverage,
)
from astrid_workers.storage.states import ObservationState, RunStatus
from support.fits_files import fits_bytes

#: For rules in which the kind of database has no part.
ON_ONE_DATABASE = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


@pytest.fixture
def night(tmp_path):
    folder = tmp_path / "night"
    folder.mkdir()
    (folder / "a.fits").write_bytes(fits_bytes())
    return folder


@pytest.fixture(autouse=True)
def configured(monkeypatch, tmp_path, database, night, redis_url):
    """The actors of this process work on this test's database, store, folder and server."""
    monkeypatch.setenv("ASTRID_DATABASE_URL", database.key)
    monkeypatch.setenv("ASTRID_ARTIFACTS_URL", str(tmp_path / "artifacts"))
    monkeypatch.setenv("ASTRID_INPUT_ROOTS", str(night))
    yield
    workers.get_database().engine.dispose()


@pytest.fixture
def payload(night):
    return {
        "observation_id": "obs_123",
        "survey_id": "survey_456",
        "ra": 180.0,
        "dec": 30.0,
        "observation_time": "2024-01-01T12:00:00Z",
        "fits_url": str(night / "a.fits"),
    }


def only_row(database):
    """The observation, which there is one of."""
    with database.reading() as session:
        return session.scalars(select(Observation)).one()


def sent(redis_client, queue="preprocessing"):
    """Arguments of the messages that wait in a queue."""
    return [json.loads(text)["args"] for text in redis_client.hgetall(f"dramatiq:{queue}.msgs").values()]


def test_a_payload_becomes_a_row_an_artifact_and_a_message(database, payload, redis_client):
    """The one thing that ingestion is for, with the result keys that clients know."""
    result = workers.ingest_observation(payload)
    row = only_row(database)
    expected = observation_uuid(survey_uuid("survey_456"), "obs_123")
    assert result["observation_id"] == str(row.id) == str(expected)
    assert set(result) >= {
        "observation_id", "external_observation_id", "survey_id", "status", "metadata", "storage", "processing_triggered",
    }  # fmt: skip
    assert (result["status"], result["processing_triggered"]) == ("ingested", True)
    assert get_store().get(row.frame_key, row.frame_sha256) == (fits_bytes())
    assert result["storage"]["fits_file_path"] == row.frame_key == f"observations/{expected}/raw.fits"
    assert (row.width_px, row.height_px, row.status) == (40, 40, ObservationState.INGESTED)
    assert (row.filter_band, row.exposure_time_s, row.airmass) == ("r", 60.0, 1.2)
    assert row.pixel_scale_arcsec == pytest.approx(9.0, rel=1e-4)
    assert row.radius_deg == pytest.approx(0.05 * 2**0.5, rel=1e-3)
    assert row.observation_time == datetime(2024, 1, 1, 12, tzinfo=UTC)
    assert sent(redis_client) == [[str(expected)]]


@ON_ONE_DATABASE
def test_the_payload_wins_over_the_header(database, payload):
    """What a person says counts; the header fills the gaps."""
    workers.ingest_observation({**payload, "filter_band": "g", "exposure_time": 10, "airmass": 2})
    row = only_row(database)
    assert (row.filter_band, row.exposure_time_s, row.airmass) == ("g", 10.0, 2.0)


def test_a_filter_that_a_header_spells_out_at_length_is_cut(database, payload, night):
    """PostgreSQL refuses what does not fit its column."""
    (night / "a.fits").write_bytes(fits_bytes(FILTER="i DECam SDSS " * 5))
    workers.ingest_observation(payload)
    assert only_row(database).filter_band == ("i DECam SDSS " * 5)[:64].strip()


def test_the_same_observation_twice_is_one_row_and_two_messages(database, payload, redis_client, night):
    """A crash between commit and send is healed by the repeat, which fetches nothing."""
    first = workers.ingest_observation(payload)
    (night / "a.fits").unlink()
    second = workers.ingest_observation(payload)
    assert (first["observation_id"], first["is_repeat"]) == (second["observation_id"], False)
    assert second["is_repeat"]
    assert second["storage"] == first["storage"]
    assert sent(redis_client) == [[first["observation_id"]]] * 2
    only_row(database)


def test_two_ingests_at_once_end_with_one_row(database, payload):
    """Two workers, one observation of one new survey, the same moment."""
    together = threading.Barrier(4)
    results, errors = [], []

    def ingest(changes):
        together.wait()
        try:
            results.append(workers.ingest_observation({**payload, **changes}))
        except Exception as error:  # noqa: BLE001 - every error of a thread is the test's
            errors.append(error)

    threads = [threading.Thread(target=ingest, args=({"airmass": 1 + i % 2},)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert len({result["observation_id"] for result in results}) == 1
    assert sorted(result["is_repeat"] for result in results) == [False, True, True, True]
    only_row(database)


def test_a_repeat_changes_nothing_but_says_what_differs(database, payload):
    """The first message counts."""
    workers.ingest_observation(payload)
    repeat = workers.ingest_observation({**payload, "ra": 10.0, "filter_band": "z"})
    assert repeat["ignored_changes"] == ["ra", "filter_band"]
    assert only_row(database).ra_deg == 180.0


def test_without_an_image_the_row_waits_and_a_repeat_brings_the_image(database, payload, redis_client):
    """`processing_triggered` is false until there is something to process."""
    bare = {key: value for key, value in payload.items() if key != "fits_url"}
    result = workers.ingest_observation(bare)
    assert (result["processing_triggered"], result["storage"]["fits_file_path"], sent(redis_client)) == (
        False,
        None,
        [],
    )
    result = workers.ingest_observation(payload)
    assert (result["processing_triggered"], result["is_repeat"]) == (True, True)
    assert only_row(database).frame_key is not None


def test_an_observation_can_be_declared_a_reference_later(database, payload):
    """And never undeclared by a repeat that does not say so."""
    workers.ingest_observation(payload)
    assert not only_row(database).is_reference
    workers.ingest_observation({**payload, "is_reference": True})
    workers.ingest_observation(payload)
    assert only_row(database).is_reference


@ON_ONE_DATABASE
def test_companions_are_stored_and_masters_only_once(database, payload, night):
    """Mask, noise and calibration frames come into the store with their checksums."""
    for name in ("mask", "bias"):
        (night / f"{name}.fits").write_bytes(fits_bytes(wcs=False, OBJECT=name))
    with_companions = {
        **payload, "mask_url": str(night / "mask.fits"), "calibration": {"bias_frame": str(night / "bias.fits")},
    }  # fmt: skip
    workers.ingest_observation(with_companions)
    workers.ingest_observation({**with_companions, "observation_id": "other"})
    with database.reading() as session:
        one, other = session.scalars(select(Observation)).all()
    assert one.companions["bias_frame"]["key"] == other.companions["bias_frame"]["key"]
    assert one.companions["mask"]["key"] != other.companions["mask"]["key"]
    for facts in one.companions.values():
        assert get_store().get(facts["key"], facts["sha256"])


def test_a_survey_that_is_known_by_uuid_or_by_name_is_not_made_twice(database, payload):
    """Old clients send UUIDs; a renamed survey is found by its name."""
    given = "0e7e5a63-90a6-4d5e-8f14-6d3de1a43a75"
    assert workers.ingest_observation({**payload, "survey_id": given})["survey_id"] == given
    with database.session() as session:
        session.get(Survey, UUID(given)).name = "renamed"
    assert workers.ingest_observation({**payload, "survey_id": "renamed"})["survey_id"] == given
    only_row(database)


@ON_ONE_DATABASE
@pytest.mark.parametrize(
    ("url", "error", "sentence"),
    [
        ("/etc/passwd", SourceRefused, "outside the folders"),
        ("file:///etc/passwd", SourceRefused, "outside the folders"),
        ("http://169.254.169.254/latest/meta-data/", SourceRefused, "http:// addresses are refused"),
        (
            "https://169.254.169.254/x.fits",
            SourceRefused,
            ": 169.254.169.254 is not an address of the public internet",
        ),
        ("https://localhost/x.fits", SourceRefused, "not an address of the public internet"),
        ("https://[::1]/x.fits", SourceRefused, "not an address of the public internet"),
        ("https://2130706433/x.fits", SourceRefused, "not an address of the public internet"),
        ("s3://somebody/x.fits", SourceRefused, "s3:// addresses are refused"),
        ("{night}/none.fits", SourceRefused, "no such file"),
        ("{night}/text.fits", FrameRejected, r"text\.fits"),
        ("{night}/short.fits", FrameRejected, r"short\.fits"),
        ("https://no-such-host.invalid/x.fits", ServiceUnavailable, "does not resolve"),
    ],
)
def test_what_may_not_or_cannot_be_read_leaves_nothing_behind(
    database, payload, night, redis_client, url, error, sentence
):
    """No row, no artifact, no message, one sentence."""
    (night / "text.fits").write_text("this is no image")
    (night / "short.fits").write_bytes(fits_bytes()[:3000])
    with pytest.raises(error, match=sentence):
        workers.ingest_observation({**payload, "fits_url": url.format(night=night)})
    with database.reading() as session:
        assert session.scalars(select(Observation)).all() == []
    assert sent(redis_client) == []
    assert list((night.parent / "artifacts").rglob("*.fits")) == []


@ON_ONE_DATABASE
def test_a_payload_with_faults_is_rejected_for_good(payload):
    """With all its sentences."""
    with pytest.raises(ObservationRejected, match="RA must be between 0 and 360 degrees"):
        workers.ingest_observation({**payload, "ra": 400})


@ON_ONE_DATABASE
def test_the_small_actors_answer_without_keeping_an_observation(database, payload):
    """Validate, describe, store: each as clients know it."""
    assert workers.validate_observation_data(payload) == {"valid": True, "errors": []}
    assert workers.validate_observation_data({})["errors"][0] == "Missing required field: survey_id"
    assert workers.process_observation_metadata(payload)["original_data"] == payload
    stored = workers.store_observation_files(payload)
    assert get_store().exists(stored["fits_file_path"])
    with database.reading() as session:
        assert session.scalars(select(Observation)).all() == []


@ON_ONE_DATABASE
def test_a_batch_becomes_messages_of_their_own(payload, redis_client):
    """What is refused is said, the rest is queued."""
    result = workers.batch_ingest_observations([payload, {**payload, "dec": 100}])
    assert (result["total_processed"], result["successful"], result["failed"]) == (2, 1, 1)
    assert sent(redis_client, Stage.OBSERVATION_INGESTION) == [[payload]]


def test_the_legacy_actor_sends_an_observation_on_again(payload, redis_client):
    """All that it has is an id."""
    with pytest.raises(ObservationNotThereYet):
        workers.legacy_ingest_observation("obs_123")
    result = workers.ingest_observation(payload)
    assert workers.legacy_ingest_observation("obs_123")["processing_triggered"]
    assert sent(redis_client) == [[result["observation_id"]]] * 2


def test_an_external_id_names_an_observation_where_one_survey_has_it(database, payload):
    """Two surveys: it fails for good and lists them; none: it may come yet."""
    first = workers.ingest_observation(payload)
    with database.reading() as session:
        assert str(find_observation(session, "obs_123").id) == first["observation_id"]
        assert find_observation(session, first["observation_id"]).external_id == "obs_123"
        for unknown in ("obs_124", "0e7e5a63-90a6-4d5e-8f14-6d3de1a43a75"):
            with pytest.raises(ObservationNotThereYet, match=unknown):
                find_observation(session, unknown)
    workers.ingest_observation({**payload, "survey_id": "another"})
    with database.reading() as session, pytest.raises(UnknownObservation, match=r"another \(.*survey_456 \("):
        find_observation(session, "obs_123")


def test_references_are_those_that_cover_the_field_in_its_filter_and_are_preprocessed(
    database, payload, night
):
    """Best first; an observation is never its own reference."""
    fields = {
        "obs": {},
        "ref_near": {"ra": 180.02},
        "ref_here": {},
        "ref_far": {"ra": 181.0},
        "ref_other_filter": {"FILTER": "g"},
        "ref_not_preprocessed": {},
        "plain": {},
    }
    ids = {}
    for name, changes in fields.items():
        (night / f"{name}.fits").write_bytes(fits_bytes(**changes))
        result = workers.ingest_observation(
            {
                **payload,
                "observation_id": name,
                "ra": changes.get("ra", 180.0),
                "fits_url": str(night / f"{name}.fits"),
            }
        )
        ids[name] = UUID(result["observation_id"])
    with database.session() as session:
        for name, key in ids.items():
            if name != "ref_not_preprocessed":
                run = PreprocessRun(id=derived_uuid("test", name), observation_id=key, version="1")
                run.status = RunStatus.COMPLETED
                session.add(run)
    with database.reading() as session:
        observation = find_observation(session, "obs")
        assert [row.external_id for row in references_for(session, observation)] == ["ref_here", "ref_near"]
        (_, here), (_, near) = references_with_coverage(session, observation)
        assert (here, 0.5 < near < 0.9) == (1.0, True)
        assert references_for(session, find_observation(session, "ref_far")) == []
        around = observations_near(session, 180.0, 30.0, 0.5)
        assert "ref_far" not in [row.external_id for row, _ in around]
        assert len(around) == 6
