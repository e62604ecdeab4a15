"""A mosaic through a real server and real worker processes: one observation, every part to its end."""

import numpy as np
import pytest
from sqlalchemy import select

from astrid_workers.broker import get_broker
from astrid_workers.ingestion.observation_workers import ingest_observation
from astrid_workers.sky.sky_to_fits import sky_to_fits
from astrid_workers.storage.models import (
    Alert,
    Candidate,
    DetectionRun,
    Difference,
    DifferenceRun,
    Observation,
    PreprocessRun,
)
from astrid_workers.storage.records import parts_of_mosaic
from astrid_workers.storage.states import RunStatus
from support.mosaics import chip, mosaic
from support.pipeline import SURVEY, Pipeline
from support.waiting import wait_until

SKIES = {"N1": chip(71, 150.0), "S2": chip(72, 150.2), "S3": chip(73, 150.4)}


@pytest.fixture
def pipeline(tmp_path, redis_url, worker_processes, monkeypatch):
    return Pipeline(tmp_path, redis_url, worker_processes, monkeypatch)


def payload(pipeline, name, data):
    path = pipeline.incoming / f"{name}.fits"
    path.write_bytes(data)
    return {
        "survey_id": SURVEY,
        "observation_id": name,
        "ra": 150.2,
        "dec": 2.0,
        "observation_time": "2024-01-01T12:00:00Z",
        "filter_band": "r",
        "exposure_time": 60.0,
        "fits_url": path.as_uri(),
    }


def test_every_part_comes_to_its_end_and_a_dead_one_is_told(pipeline):
    """Two chips are curated, each with its own transients; the third is dead, says so, and holds up nobody."""
    pipeline.start()
    pairs = {name: sky_to_fits(sky) for name, sky in SKIES.items()}
    reference = mosaic({name: pairs[name][1] for name in ("S3", "S2", "N1")})
    science = mosaic({name: pair[0] for name, pair in pairs.items()}, dead="S3")
    ingest_observation.send(payload(pipeline, "ref_night", reference))
    messages = [ingest_observation.send(payload(pipeline, "night", science)) for _ in range(2)]

    def is_over():
        states = [pipeline.state(f"night[{name}]") for name in SKIES]
        return states == ["curated", "curated", "failed"] and pipeline.outstanding() == 0

    wait_until(is_over, 120, "all parts to come to their end")

    assert pipeline.state("night") == "curated"
    assert pipeline.state("ref_night") == "preprocessed"
    with pipeline.database.reading() as session:
        whole = session.scalars(select(Observation).where(Observation.external_id == "night")).one()
        parts = parts_of_mosaic(session, whole.id)
        assert [row.part for row in parts] == list(SKIES)
        assert len({row.frame_key for row in parts}) == 3
        for row in parts[:2]:
            against = session.get_one(
                Observation,
                session.scalars(
                    select(Difference.reference_id).where(Difference.observation_id == row.id)
                ).one(),
            )
            assert against.external_id == f"ref_night[{row.part}]"
            found = session.scalars(select(Candidate).where(Candidate.observation_id == row.id)).all()
            for source in SKIES[row.part].truth:
                assert min(np.hypot(c.x - source["x"], c.y - source["y"]) for c in found) < 1
        run = session.scalars(select(DifferenceRun).where(DifferenceRun.observation_id == parts[2].id)).all()
        broken = [
            *run,
            *session.scalars(select(PreprocessRun).where(PreprocessRun.observation_id == parts[2].id)),
        ]
        assert any(one.status == RunStatus.FAILED and one.ending_reason for one in broken)
        difference = session.scalars(
            select(DifferenceRun.result).where(
                DifferenceRun.observation_id == parts[0].id, DifferenceRun.status == RunStatus.COMPLETED
            )
        ).one()
    assert (difference["part"], difference["mosaic_observation_id"]) == ("N1", str(whole.id))
    assert {row.title.split(" in ")[1] for row in pipeline.rows(Alert)} == {"night[N1]", "night[S2]"}
    assert pipeline.count(Observation) == 8
    assert pipeline.count(Difference) == pipeline.count(DetectionRun) == 2
    assert {tuple(letter["args"]) for letter in pipeline.dead()} == {(str(parts[2].id),)}
    result = messages[0].get_result(backend=get_broker().get_results_backend(), block=True, timeout=5000)
    assert [part["part"] for part in result["parts"]] == list(SKIES)
