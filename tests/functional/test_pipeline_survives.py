"""Workers die at any moment; nothing is lost and nothing is done twice."""

from collections import Counter

import numpy as np
import pytest

from astrid_workers.ingestion.observation_workers import ingest_observation
from astrid_workers.storage.models import (
    Alert,
    CurationRun,
    Delivery,
    Detection,
    DetectionRun,
    Difference,
    DifferenceRun,
    Observation,
    PreprocessRun,
    ValidationEvent,
)
from astrid_workers.storage.states import DeliveryStatus, RunStatus
from support.pipeline import Pipeline, recovered
from support.waiting import wait_until

FIELDS = (11, 12, 13)
#: Messages that three fields take: six ingestions and preprocessings, then three of each, and the deliveries.
FEWEST_MESSAGES = 6 + 6 + 3 + 3 + 3


@pytest.fixture
def pipeline(tmp_path, redis_url, worker_processes, monkeypatch):
    return Pipeline(tmp_path, redis_url, worker_processes, monkeypatch)


@pytest.mark.parametrize("seed", [1, 2])
def test_nothing_is_lost_when_workers_are_killed_at_random_points(pipeline, seed):
    """SIGKILL after a random number of finished messages, three times over; then one worker finishes all."""
    rng = np.random.default_rng(seed)
    fields = [pipeline.field(number) for number in FIELDS]
    for field in fields:
        ingest_observation.send(field.reference)
        ingest_observation.send(field.science)

    for _ in range(3):
        worker = pipeline.start("--threads", "2", wait=False)
        goal = pipeline.finished() + int(rng.integers(0, FEWEST_MESSAGES // 3))
        wait_until(
            lambda goal=goal: (pipeline.finished() >= goal and pipeline.running()) or done(pipeline),
            120,
            "a message to be running",
        )
        worker.kill()
        pipeline.recover()
    last = pipeline.start("--threads", "2")
    # A fetch that was on its way when its sender died is in the server's hands by now.
    pipeline.recover(last)

    wait_until(
        lambda: nobody_died(pipeline) and done(pipeline) and pipeline.outstanding() == 0,
        240,
        "all observations to be curated",
    )
    assert nobody_died(pipeline)
    assert all(all(recovered(pipeline, field)) for field in fields)
    assert_single_rows(pipeline)


def nobody_died(pipeline):
    """True, or at once the end of the test with the sentence of a message that died."""
    assert [message["options"].get("dead_sentence") for message in pipeline.dead()] == []
    return True


def done(pipeline):
    return all(pipeline.state(f"obs_{number}") == "curated" for number in FIELDS)


def assert_single_rows(pipeline):
    """One row of everything, and every delivery done."""
    assert pipeline.count(Observation) == 2 * len(FIELDS)
    assert pipeline.count(PreprocessRun) == 2 * len(FIELDS)
    for table in (Difference, DetectionRun, CurationRun):
        assert Counter(row.observation_id for row in pipeline.rows(table)).most_common(1)[0][1] == 1
        assert pipeline.count(table) == len(FIELDS)
    completed = [row for row in pipeline.rows(DifferenceRun) if row.status == RunStatus.COMPLETED]
    assert len(completed) == len(FIELDS)
    assert pipeline.count(ValidationEvent) == pipeline.count(Detection)
    assert {row.status for row in pipeline.rows(Delivery)} == {DeliveryStatus.DELIVERED}
    assert pipeline.count(Delivery) == pipeline.count(Alert)
