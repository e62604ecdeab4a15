"""The whole pipeline on this machine: a server, worker processes, a database and a store of a test's own.

Owns starting it, fields of a simulated sky as files, and reading how far observations have come. Never asserts.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import redis
from dramatiq.brokers.redis import RedisBroker
from numpy.typing import NDArray
from sqlalchemy import func, select

from astrid_workers.pipeline import Stage
from astrid_workers.sky.make_sky import make_sky
from astrid_workers.sky.sky_to_fits import sky_to_fits
from astrid_workers.storage.database import Database, get_database
from astrid_workers.storage.models import Observation
from support.worker_processes import WorkerProcess, WorkerProcesses

#: Quick retries, for tests that wait for them.
QUICK = {"WORKER_RETRY_DELAY": "200", "WORKER_MAX_RETRY_DELAY": "500"}

SIDE_PX = 128
SURVEY = "survey_456"


@dataclass(frozen=True, slots=True)
class Field:
    """One field of the sky as payloads, with its truth (`sky.TRUTH_DTYPE`)."""

    science: dict[str, Any]
    reference: dict[str, Any]
    truth: NDArray[Any]


class Pipeline:
    """One pipeline; `start` gives it a worker."""

    def __init__(
        self, folder: Path, redis_url: str, processes: WorkerProcesses, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self._processes = processes
        self._redis_url = redis_url
        self.incoming = folder / "incoming"
        self.incoming.mkdir()
        self.environment = {
            "ASTRID_DATABASE_URL": f"sqlite:///{folder}/astrid.sqlite3",
            "ASTRID_ARTIFACTS_URL": str(folder / "artifacts"),
            "ASTRID_INPUT_ROOTS": str(self.incoming),
        }
        for name, value in self.environment.items():
            monkeypatch.setenv(name, value)
        self.client: redis.Redis = redis.Redis.from_url(redis_url, decode_responses=True)
        self.database: Database = get_database()

    def start(self, *arguments: str, wait: bool = True, **environment: str) -> WorkerProcess:
        """A worker process for all queues, or for those that `arguments` name."""
        worker = self._processes.start(
            self._redis_url, arguments, environment={**self.environment, **QUICK, **environment}
        )
        if wait:
            worker.wait_present(*(arguments[1:] if arguments[:1] == ("--queues",) else list(Stage)))
        return worker

    def field(self, seed: int, *, n_transients: int = 3) -> Field:
        """Draw a field of its own place on the sky and write its two frames where workers may read."""
        ra_deg = 10.0 + 2.0 * seed
        sky = make_sky(
            seed=seed,
            shape=(SIDE_PX, SIDE_PX),
            n_stars=40,
            n_transients=n_transients,
            transient_snr=(20, 40),
            ra_deg=ra_deg,
            dec_deg=2.0,
        )
        payloads = [
            self._written(name, data, ra_deg)
            for name, data in zip((f"obs_{seed}", f"ref_{seed}"), sky_to_fits(sky), strict=True)
        ]
        return Field(payloads[0], payloads[1], sky.truth)

    def _written(self, name: str, data: bytes, ra_deg: float) -> dict[str, Any]:
        path = self.incoming / f"{name}.fits"
        path.write_bytes(data)
        return {
            "survey_id": SURVEY,
            "observation_id": name,
            "ra": ra_deg,
            "dec": 2.0,
            "observation_time": "2024-01-01T12:00:00Z",
            "filter_band": "r",
            "exposure_time": 60.0,
            "fits_url": path.as_uri(),
        }

    def state(self, external_id: str) -> str | None:
        """How far the observation has come; None while it is not there."""
        with self.database.reading() as session:
            found = session.scalar(select(Observation.status).where(Observation.external_id == external_id))
        return None if found is None else str(found)

    def count(self, table: type[Any]) -> int:
        """Rows of a table."""
        with self.database.reading() as session:
            return session.scalar(select(func.count()).select_from(table)) or 0

    def rows(self, table: type[Any]) -> list[Any]:
        """All rows of a table."""
        with self.database.reading() as session:
            return list(session.scalars(select(table)))

    def outstanding(self) -> int:
        """Messages that wait, run or are delayed, on all queues."""
        queues = [name for stage in Stage for name in (f"{stage}", f"{stage}.DQ")]
        return sum(int(self.client.hlen(f"dramatiq:{queue}.msgs")) for queue in queues)

    def dead(self) -> list[dict[str, Any]]:
        """Dead letters of all queues, as messages."""
        hashes = (self.client.hgetall(f"dramatiq:{stage}.XQ.msgs") for stage in Stage)
        return [json.loads(text) for held in hashes for text in held.values()]

    def finished(self) -> int:
        """Messages that all workers have finished so far."""
        counters = (self.client.hget(f"astrid:dramatiq:counters:{stage}", "finished") for stage in Stage)
        return sum(int(float(count or 0)) for count in counters)

    def running(self) -> int:
        """Messages that a process has fetched and not acknowledged, on all queues."""
        return sum(
            int(self.client.hlen(f"dramatiq:{stage}.msgs")) - int(self.client.llen(f"dramatiq:{stage}"))
            for stage in Stage
        )

    def recover(self, *alive: WorkerProcess) -> None:
        """Do at once what any worker does a minute after another has gone: return what those not `alive` held."""
        living = {str(said["broker_id"]) for one in alive for said in one.presences(Stage.CURATION).values()}
        gone = self._held_by() - living
        if not gone:
            return
        self.client.zadd("dramatiq:__heartbeats__", dict.fromkeys(gone, 0))
        with self._maintaining() as broker:
            for stage in Stage:
                for queue in (f"{stage}", f"{stage}.DQ"):
                    broker.do_qsize(queue)

    def _held_by(self) -> set[str]:
        """Ids of the brokers that hold messages."""
        keys = self.client.scan_iter("dramatiq:__acks__.*")
        return {str(key).removeprefix("dramatiq:__acks__.").split(".")[0] for key in keys}

    @contextmanager
    def _maintaining(self) -> Iterator[RedisBroker]:
        broker = RedisBroker(url=self._redis_url, middleware=[], maintenance_chance=1_000_000)
        yield broker
        broker.client.close()


def recovered(pipeline: Pipeline, field: Field) -> list[bool]:
    """For each transient of `field`, whether a detection lies within 1.5 pixels of it."""
    from astrid_workers.storage.models import Candidate, Detection

    with pipeline.database.reading() as session:
        found = session.execute(
            select(Candidate.x, Candidate.y)
            .join(Detection, Detection.candidate_id == Candidate.id)
            .join(Observation, Detection.observation_id == Observation.id)
            .where(Observation.external_id == field.science["observation_id"])
        ).all()
    return [any(np.hypot(x - t["x"], y - t["y"]) < 1.5 for x, y in found) for t in field.truth]
