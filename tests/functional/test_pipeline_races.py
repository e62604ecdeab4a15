"""The same message delivered to several workers at one moment, on SQLite and on PostgreSQL."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import func, select

from astrid_workers.curation.curation_workers import curate_detections
from astrid_workers.detection.detection_workers import detect_anomalies
from astrid_workers.differencing.differencing_workers import difference_observation
from astrid_workers.notification.notification_workers import deliver_notification
from astrid_workers.sky.make_sky import make_sky
from astrid_workers.storage.database import get_database, upgrade
from astrid_workers.storage.models import (
    Alert,
    Candidate,
    CurationRun,
    Delivery,
    Detection,
    DetectionRun,
    Difference,
    DifferenceRun,
    ValidationEvent,
)
from astrid_workers.storage.states import DeliveryStatus, RunStatus
from support.seeded_archive import capture_messages, seed_preprocessed

AT_ONCE = 4


@pytest.fixture
def archive(database_url, monkeypatch, tmp_path):
    """A database of each kind and a store, for this process."""
    monkeypatch.setenv("ASTRID_DATABASE_URL", database_url)
    monkeypatch.setenv("ASTRID_ARTIFACTS_URL", str(tmp_path / "artifacts"))
    capture_messages(monkeypatch)
    from astrid_workers.storage.database import configured_database

    upgrade(configured_database())
    return get_database()


def at_once(actor, *arguments):
    """The results of one message delivered to several workers at the same moment."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        running = [pool.submit(actor, *arguments) for _ in range(AT_ONCE)]
        return [one.result() for one in running]


def same(results, *volatile):
    """The one result that all have, but for what says who sent what when."""
    kept = [{key: value for key, value in one.items() if key not in volatile} for one in results]
    assert all(one == kept[0] for one in kept)
    return results[0]


def test_every_stage_ends_with_one_set_of_rows(archive):
    """Whoever comes second answers with what the first wrote, all the way from a pair of frames to a delivery."""
    sky = make_sky(seed=3, shape=(128, 128), n_stars=40, n_transients=4, transient_snr=(15, 40))
    seed_preprocessed(archive, "obs_1", sky.science)
    seed_preprocessed(archive, "ref_1", sky.reference, is_reference=True)

    made = same(at_once(difference_observation, "obs_1"), "next_message_id")
    found = same(at_once(detect_anomalies, made["difference_id"], "matched-filter"), "next_message_id")
    curated = same(at_once(curate_detections, found["detection_id"]), "notifications")
    for alert in curated["alerts"]["alerts"]:
        assert all(result["sent"] for result in at_once(deliver_notification, alert["alert_id"], "log"))

    counts = {
        table: count(archive, table) for table in (Candidate, Detection, ValidationEvent, Alert, Delivery)
    }
    for table in (DifferenceRun, Difference, DetectionRun, CurationRun):
        assert count(archive, table) == 1
    assert counts[Candidate] == made["extraction"]["source_count"]
    assert (
        counts[Detection]
        == counts[ValidationEvent]
        == found["inference"]["detection_results"]["n_detections"]
    )
    assert counts[Alert] == counts[Delivery] == curated["alerts"]["alerts_generated"] > 0
    with archive.reading() as session:
        assert set(session.scalars(select(DifferenceRun.status))) == {RunStatus.COMPLETED}
        assert set(session.scalars(select(Delivery.status))) == {DeliveryStatus.DELIVERED}


def count(database, table):
    with database.reading() as session:
        return session.scalar(select(func.count()).select_from(table))
