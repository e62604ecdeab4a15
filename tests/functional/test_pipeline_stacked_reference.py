"""A reference that the pipeline builds of what it has seen, through a real server and real worker processes."""

import pytest

from astrid_workers.differencing.differencing_workers import build_reference
from astrid_workers.ingestion.observation_workers import ingest_observation
from astrid_workers.sky.make_exposures import ExposureSettings, make_exposures
from astrid_workers.sky.sky_to_fits import frame_to_user_fits
from astrid_workers.storage.fits import read_header
from astrid_workers.storage.models import Candidate, DifferenceRun, Observation
from astrid_workers.storage.states import RunStatus
from support.pipeline import SURVEY, Pipeline
from support.waiting import wait_until

SETTINGS = (
    ExposureSettings(),
    ExposureSettings((3.5, 1.3)),
    ExposureSettings((-2.4, 4.6)),
    ExposureSettings((1.1, -2.2), passing_e=9_000),
)


@pytest.fixture
def pipeline(tmp_path, redis_url, worker_processes, monkeypatch):
    return Pipeline(tmp_path, redis_url, worker_processes, monkeypatch)


def test_a_stack_of_earlier_nights_sets_a_waiting_one_going(pipeline):
    """Four nights end for want of a reference; one message stacks three of them, and the fourth is curated."""
    pipeline.start()
    frames = make_exposures(SETTINGS, seed=9, shape=(256, 256), n_stars=80).frames
    nights = [frame_to_user_fits(frame) for frame in frames]
    ra, dec = read_header(nights[0]).centre_deg
    for number, data in enumerate(nights):
        path = pipeline.incoming / f"night_{number}.fits"
        path.write_bytes(data)
        ingest_observation.send(
            {
                "survey_id": SURVEY if number < 3 else "tonight",
                "observation_id": f"night_{number}",
                "ra": ra,
                "dec": dec,
                "observation_time": f"2024-01-0{number + 1}T12:00:00Z",
                "filter_band": "r",
                "fits_url": path.as_uri(),
            }
        )
    wait_until(
        lambda: pipeline.count(DifferenceRun) == 4 and pipeline.outstanding() == 0,
        120,
        "all nights to end without a reference",
    )

    for _ in range(2):
        build_reference.send({"survey_id": SURVEY, "ra": ra, "dec": dec, "filter_band": "r"})

    wait_until(lambda: pipeline.state("night_3") == "curated", 120, "night_3 to be curated")
    wait_until(lambda: pipeline.outstanding() == 0, 60, "all messages to be done")
    (stack,) = [row for row in pipeline.rows(Observation) if row.is_reference]
    assert stack.stack["grade"]["n_frames"] == 3
    (run,) = [run for run in pipeline.rows(DifferenceRun) if run.status == RunStatus.COMPLETED]
    assert run.reference_id == stack.id
    assert len(pipeline.rows(Candidate)) == 1
    assert pipeline.dead() == []
