"""How one run of a stage stands in the database: taken up, and then one of three endings.

Owns the writing of run rows and of the observation's state beside them, so that every stage does it alike.
Never computes anything and never sends. A run's id is derived from its inputs: whoever finds it ended
reads the result, and of two that finish at once the first is kept.
"""

import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import structlog
from dramatiq.middleware import Interrupt
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from astrid_workers.errors import AstridError, NothingToDo, PermanentFailure, ServiceUnavailable
from astrid_workers.pipeline import Stage
from astrid_workers.storage.column_types import plain_json
from astrid_workers.storage.database import Database
from astrid_workers.storage.models import Observation, RunColumns
from astrid_workers.storage.states import ObservationState, RunStatus
from astrid_workers.storage.transitions import (
    state_begun,
    state_completed,
    state_failed,
    state_nothing_to_do,
    state_of_mosaic,
)

log = structlog.get_logger(__name__)

Result = dict[str, Any]

#: A run that stands in one of these is not done again.
ENDED = frozenset({RunStatus.COMPLETED, RunStatus.NOTHING_TO_DO})


@dataclass(frozen=True, slots=True)
class RunTicket:
    """Which run of which stage, for which observation."""

    model: type[RunColumns]
    run_id: UUID
    stage: Stage
    observation_id: UUID


@dataclass(frozen=True, slots=True)
class Ending:
    """What is written when a run ends well: completed, or nothing to do with a reason."""

    result: Result
    #: None when the run completed.
    reason: str | None = None
    #: Numbers behind it, by name with unit.
    numbers: dict[str, Any] | None = None


def settled_result(session: Session, ticket: RunTicket) -> Result | None:
    """The result of the run if it has ended well already, else None."""
    run = session.get(ticket.model, ticket.run_id)
    return run.result if run is not None and run.status in ENDED else None


def take_up(database: Database, ticket: RunTicket, fresh: RunColumns, *, has_work: bool = True) -> None:
    """Insert `fresh`, or take the row that is there up once more; the observation is then being worked on.

    A run that ended well in the meantime is left as it is. Without work (it is known already that there is
    nothing to do) the observation's state is left alone.
    """
    try:
        with database.session() as session:
            if session.get(ticket.model, ticket.run_id) is None:
                session.add(fresh)
    except IntegrityError:
        log.info("run was taken up elsewhere at the same moment", run_id=str(ticket.run_id))
    with database.session() as session:
        run = session.get_one(ticket.model, ticket.run_id, with_for_update=True)
        if run.status in ENDED:
            return
        run.status, run.attempts = RunStatus.RUNNING, run.attempts + 1
        run.started_at, run.completed_at = _now(), None
        if has_work:
            _move(session, ticket, state_begun)


def conclude(database: Database, ticket: RunTicket, write: Callable[[Session], Ending]) -> Result:
    """Let `write` add the run's rows and say how it ended, in one transaction; the result that then stands.

    A run that has ended already, or ends elsewhere at the same moment, keeps its first result and `write`
    leaves no trace.
    """
    try:
        with database.session() as session:
            return _conclude(session, ticket, write)
    except IntegrityError:
        with database.session() as session:
            earlier = settled_result(session, ticket)
        if earlier is None:
            raise
        return earlier


@contextmanager
def failures_recorded(database: Database, ticket: RunTicket) -> Iterator[None]:
    """Write a failure of the block into the run's row, with whether a retry may help, and let it go on up."""
    try:
        yield
    except NothingToDo:
        raise
    except (Exception, Interrupt) as failure:
        _record(database, ticket, failure)
        raise


def _conclude(session: Session, ticket: RunTicket, write: Callable[[Session], Ending]) -> Result:
    run = session.get_one(ticket.model, ticket.run_id, with_for_update=True)
    if run.status in ENDED:
        return run.result or {}
    ending = write(session)
    result: Result = plain_json({**ending.result, **_place(session, ticket)})
    is_done = ending.reason is None
    run.status = RunStatus.COMPLETED if is_done else RunStatus.NOTHING_TO_DO
    run.ending_reason, run.result, run.numbers = ending.reason, result, ending.numbers
    run.is_retryable, run.error, run.completed_at = None, None, _now()
    _move(session, ticket, state_completed if is_done else state_nothing_to_do)
    return result


def _place(session: Session, ticket: RunTicket) -> Result:
    """Which part of which mosaic a result is about; nothing for a whole frame."""
    observation = session.get_one(Observation, ticket.observation_id)
    if observation.mosaic_id is None:
        return {}
    return {"part": observation.part, "mosaic_observation_id": str(observation.mosaic_id)}


def _record(database: Database, ticket: RunTicket, failure: BaseException) -> None:
    try:
        with database.session() as session:
            _fail(session, ticket, failure)
    except ServiceUnavailable as unavailable:
        log.warning("failure was not recorded", run_id=str(ticket.run_id), reason=str(unavailable))


def _fail(session: Session, ticket: RunTicket, failure: BaseException) -> None:
    run = session.get(ticket.model, ticket.run_id, with_for_update=True)
    if run is None or run.status in ENDED:
        return
    run.status, run.completed_at = RunStatus.FAILED, _now()
    run.ending_reason = str(failure) or type(failure).__name__
    run.is_retryable = not isinstance(failure, PermanentFailure)
    if isinstance(failure, AstridError):
        run.numbers, run.error = dict(failure.numbers), None
    else:
        run.numbers, run.error = None, "".join(traceback.format_exception(failure))
    if not run.is_retryable:
        _move(session, ticket, state_failed)


def _move(
    session: Session, ticket: RunTicket, rule: Callable[[ObservationState, Stage], ObservationState]
) -> None:
    observation = session.get_one(Observation, ticket.observation_id, with_for_update=True)
    state = rule(observation.status, ticket.stage)
    if state != observation.status:
        observation.status = state
        if observation.mosaic_id is not None:
            _move_mosaic(session, observation.mosaic_id)


def _move_mosaic(session: Session, mosaic_id: UUID) -> None:
    """Take a mosaic along with its parts; its row is locked, so that the last part to come sees all."""
    session.flush()
    mosaic = session.get_one(Observation, mosaic_id, with_for_update=True)
    parts = session.scalars(select(Observation.status).where(Observation.mosaic_id == mosaic_id)).all()
    state = state_of_mosaic(mosaic.status, parts)
    if state != mosaic.status:
        mosaic.status = state


def _now() -> datetime:
    return datetime.now(UTC)
