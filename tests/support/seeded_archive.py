"""A database and an artifact store of a test's own, with rows as the earlier stages would have left them.

Owns seeding; never runs a stage. Positions, scores and pixels are chosen by the caller or plain constants.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pytest

from astrid_workers.candidate_flags import flags_from
from astrid_workers.frame import Frame
from astrid_workers.identity import derived_uuid, observation_uuid, survey_uuid
from astrid_workers.storage.artifacts import get_store
from astrid_workers.storage.database import Database, get_database
from astrid_workers.storage.fits import frame_to_fits, image_to_fits
from astrid_workers.storage.models import (
    Candidate,
    Difference,
    DifferenceRun,
    Observation,
    PreprocessRun,
    Survey,
)
from astrid_workers.storage.sky_cells import cell_of
from astrid_workers.storage.states import ObservationState, RunStatus

SHAPE = (96, 128)
OBSERVED_AT = datetime(2024, 1, 1, 12, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Seed:
    """One candidate to be: where, how significant, and its flags."""

    x: float
    y: float
    score: float
    flags: Sequence[str] = ()


@dataclass(slots=True)
class Sent:
    """Messages that were sent instead of going to a broker: (actor, queue, arguments)."""

    messages: list[tuple[str, str, tuple[Any, ...]]] = field(default_factory=list)

    def send(self, actor_name: str, queue: str, *arguments: Any) -> str:
        """Keep the message."""
        self.messages.append((actor_name, str(queue), arguments))
        return f"message-{len(self.messages)}"

    def to(self, actor_name: str) -> list[tuple[Any, ...]]:
        """Arguments of the messages to one actor, in order."""
        return [arguments for actor, _, arguments in self.messages if actor == actor_name]


def use_own_archive(monkeypatch: pytest.MonkeyPatch, folder: Path) -> Database:
    """Point this process's settings at a fresh SQLite file and folder below `folder`."""
    monkeypatch.setenv("ASTRID_DATABASE_URL", f"sqlite:///{folder}/astrid.sqlite3")
    monkeypatch.setenv("ASTRID_ARTIFACTS_URL", str(folder / "artifacts"))
    return get_database()


def capture_messages(monkeypatch: pytest.MonkeyPatch) -> Sent:
    """Let every message that this process sends be kept instead."""
    sent = Sent()
    monkeypatch.setattr("astrid_workers.broker.send", sent.send)
    return sent


def seed_observation(database: Database, external_id: str, **columns: Any) -> UUID:
    """An observation of the survey `seeded`, without an image unless `columns` say so."""
    survey = survey_uuid("seeded")
    plain: dict[str, Any] = {
        "id": observation_uuid(survey, external_id),
        "survey_id": survey,
        "external_id": external_id,
        "ra_deg": 180.0,
        "dec_deg": 30.0,
        "sky_cell": cell_of(180.0, 30.0),
        "observation_time": OBSERVED_AT,
        "filter_band": "r",
        "exposure_time_s": 30.0,
        "companions": {},
    }
    with database.session() as session:
        if session.get(Survey, survey) is None:
            session.add(Survey(id=survey, name="seeded"))
            session.flush()
        session.add(Observation(**plain | columns))
    return plain["id"]


def seed_preprocessed(database: Database, external_id: str, frame: Frame, **columns: Any) -> UUID:
    """An observation with a calibrated frame in the store."""
    data = frame_to_fits(frame)
    artifact = get_store().put(f"observations/{external_id}/preprocessed.fits", data)
    ny, nx = frame.shape
    observation_id = seed_observation(
        database,
        external_id,
        **{
            "status": ObservationState.PREPROCESSED,
            "frame_key": artifact.key,
            "frame_sha256": artifact.sha256,
            "width_px": nx,
            "height_px": ny,
        }
        | columns,
    )
    with database.session() as session:
        session.add(
            PreprocessRun(
                id=derived_uuid("preprocess_run", external_id),
                version="seeded",
                observation_id=observation_id,
                status=RunStatus.COMPLETED,
                frame_key=artifact.key,
                frame_sha256=artifact.sha256,
                completed_at=OBSERVED_AT,
            )
        )
    return observation_id


def plain_frame(seed: int = 1) -> Frame:
    """Noise around 100 with variance 25, nothing masked, no WCS."""
    pixels = np.random.default_rng(seed).normal(100, 5, SHAPE).astype(np.float32)
    return Frame(pixels, np.full(SHAPE, 25, np.float32), np.zeros(SHAPE, np.uint32), None, "electron")


def seed_difference(
    database: Database, candidates: Sequence[Seed], external_id: str = "obs_123", *, passed: bool = True
) -> UUID:
    """An observation that was differenced against `ref_1`, with these candidates; the difference's id."""
    science = seed_preprocessed(database, external_id, plain_frame(1), status=ObservationState.DIFFERENCED)
    reference = seed_preprocessed(database, f"ref_of_{external_id}", plain_frame(2), is_reference=True)
    difference = derived_uuid("difference", external_id)
    run = derived_uuid("difference_run", external_id)
    with database.session() as session:
        session.add(_run(run, science, reference, _images(external_id)))
        session.flush()
        session.add(_difference(difference, run, science, reference, passed))
        session.flush()
        session.add_all(_candidate(difference, science, i, seed) for i, seed in enumerate(candidates))
    return difference


def _images(external_id: str) -> dict[str, dict[str, str]]:
    science = get_store().put(f"seeded/{external_id}/science.fits", frame_to_fits(plain_frame(1)))
    reference = get_store().put(f"seeded/{external_id}/reference.fits", image_to_fits(plain_frame(2).science))
    named = {"science": science, "reference": reference}
    return {name: {"key": one.key, "sha256": one.sha256} for name, one in named.items()}


def _run(run: UUID, science: UUID, reference: UUID, images: dict[str, dict[str, str]]) -> DifferenceRun:
    return DifferenceRun(
        id=run,
        version="seeded",
        observation_id=science,
        reference_id=reference,
        algorithm="auto",
        status=RunStatus.COMPLETED,
        completed_at=OBSERVED_AT,
        result={"ending": "done", "artifacts": images},
    )


def _difference(difference: UUID, run: UUID, science: UUID, reference: UUID, passed: bool) -> Difference:
    pixels = image_to_fits(plain_frame(3).science - np.float32(100))
    store = get_store()
    image = store.put(f"seeded/{difference}/difference.fits", pixels)
    return Difference(
        id=difference,
        run_id=run,
        observation_id=science,
        reference_id=reference,
        algorithm="zogy",
        difference_key=image.key,
        difference_sha256=image.sha256,
        score_key=image.key,
        score_sha256=hashlib.sha256(pixels).hexdigest(),
        threshold_sigma=5.0,
        validation={"validation_passed": passed},
    )


def _candidate(difference: UUID, observation: UUID, index: int, seed: Seed) -> Candidate:
    return Candidate(
        id=derived_uuid("candidate", str(difference), str(index)),
        difference_id=difference,
        observation_id=observation,
        index=index,
        x=seed.x,
        y=seed.y,
        flux=100 * seed.score,
        flux_err=100.0,
        unit="electron",
        snr=abs(seed.score),
        score=seed.score,
        fwhm_px=3.0,
        elongation=1.1,
        flags=flags_from(seed.flags),
        is_positive=seed.score > 0,
        numbers={"mag": 18.5, "mag_err": 0.04, "limit_mag": 20.2},
    )
