"""Which two frames are differenced, with what options, and under which id.

Owns the choice of the reference and the reasons for which there is no pair; reads rows, and never writes
one or touches a pixel.
"""

import hashlib
from dataclasses import dataclass, replace
from typing import Any, cast, get_args
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from astrid_workers.differencing.products import DifferenceOptions
from astrid_workers.errors import NothingToDo, SettingRejected
from astrid_workers.identity import STAGE_VERSION, derived_uuid
from astrid_workers.names import checked_name
from astrid_workers.pipeline import Stage
from astrid_workers.run_records import Result, RunTicket, settled_result
from astrid_workers.settings import AlgorithmName, DifferencingSettings
from astrid_workers.storage.frame_records import StoredFrame, preprocessed_frame
from astrid_workers.storage.models import DifferenceRun, Observation
from astrid_workers.storage.records import find_observation, part_for, reference_choice
from astrid_workers.storage.states import RunStatus

NO_REFERENCE = "no reference covers this field"
IS_REFERENCE = "is a reference: it is not differenced against itself"


@dataclass(frozen=True, slots=True)
class DifferenceWork:
    """Two stored frames to difference, or why there is no pair, or the result that is there already."""

    ticket: RunTicket
    difference_id: UUID
    science: StoredFrame | None
    reference: StoredFrame | None
    options: DifferenceOptions
    inputs_sha256: str
    #: Why there is nothing to do; None for a pair.
    nothing: str | None = None
    #: Why this reference, with the others that there were; None where it was named or taken before.
    choice: dict[str, Any] | None = None
    settled: Result | None = None


def chosen_options(algorithm: str | None) -> DifferenceOptions:
    """The configured options, with another algorithm where one is asked for.

    SettingRejected lists the valid ones.
    """
    settings = DifferencingSettings()
    valid = get_args(AlgorithmName)
    if algorithm is not None and algorithm not in valid:
        message = f"there is no algorithm {algorithm!r}; valid are: {', '.join(valid)}"
        raise SettingRejected(message)
    chosen = settings.algorithm if algorithm is None else cast("AlgorithmName", algorithm)
    return DifferenceOptions(algorithm=chosen, threshold_sigma=settings.threshold_sigma)


def named_observation(session: Session, name: str, argument: str) -> Observation:
    """The observation that an argument names.

    Raises UnknownRecord for what is no name, and as `find_observation` does.
    """
    return find_observation(session, checked_name(name, argument))


def planned_work(
    session: Session, observation: Observation, reference: Observation | None, options: DifferenceOptions
) -> DifferenceWork:
    """The pair for `observation`: with the named reference, else as before, else with the best there is.

    Raises ObservationNotThereYet while one of the frames is not preprocessed.
    """
    if observation.is_reference and reference in (None, observation):
        return _without_pair(session, observation, options, IS_REFERENCE)
    try:
        science = preprocessed_frame(session, observation)
        if reference is not None:
            against = preprocessed_frame(session, part_for(session, observation, reference))
            return _pair(session, observation, science, against, options)
    except NothingToDo as nothing:
        return _without_pair(session, observation, options, str(nothing))
    earlier = _done_before(session, observation, science, options)
    if earlier is not None:
        return earlier
    chosen = reference_choice(session, observation)
    if chosen is None:
        return _without_pair(session, observation, options, NO_REFERENCE)
    best, choice = chosen
    work = _pair(session, observation, science, preprocessed_frame(session, best), options)
    return replace(work, choice=choice)


def _done_before(
    session: Session, observation: Observation, science: StoredFrame, options: DifferenceOptions
) -> DifferenceWork | None:
    """The newest completed run of the same frame: a repeat keeps its reference, also once a better one
    came.
    """
    runs = session.scalars(
        select(DifferenceRun)
        .where(DifferenceRun.observation_id == observation.id, DifferenceRun.status == RunStatus.COMPLETED)
        .order_by(DifferenceRun.completed_at.desc(), DifferenceRun.id)
    )
    for earlier in runs:
        reference = session.get_one(Observation, earlier.reference_id)
        work = _pair(session, observation, science, preprocessed_frame(session, reference), options)
        if work.ticket.run_id == earlier.id:
            return work
    return None


def _pair(
    session: Session,
    observation: Observation,
    science: StoredFrame,
    reference: StoredFrame,
    options: DifferenceOptions,
) -> DifferenceWork:
    inputs = (
        str(observation.id),
        str(reference.observation_id),
        science.sha256,
        reference.sha256,
        options.algorithm,
        repr(options.threshold_sigma),
    )
    return _planned(session, observation, inputs, options, science, reference, None)


def _without_pair(
    session: Session, observation: Observation, options: DifferenceOptions, reason: str
) -> DifferenceWork:
    inputs = (str(observation.id), observation.frame_sha256 or "", reason)
    return _planned(session, observation, inputs, options, None, None, reason)


def _planned(
    session: Session,
    observation: Observation,
    inputs: tuple[str, ...],
    options: DifferenceOptions,
    science: StoredFrame | None,
    reference: StoredFrame | None,
    nothing: str | None,
) -> DifferenceWork:
    run_id = derived_uuid("difference_run", *inputs, STAGE_VERSION[Stage.DIFFERENCING])
    ticket = RunTicket(DifferenceRun, run_id, Stage.DIFFERENCING, observation.id)
    return DifferenceWork(
        ticket=ticket,
        difference_id=derived_uuid("difference", str(run_id)),
        science=science,
        reference=reference,
        options=options,
        inputs_sha256=hashlib.sha256("\n".join(inputs).encode()).hexdigest(),
        nothing=nothing,
        settled=settled_result(session, ticket),
    )


def fresh_run(work: DifferenceWork) -> DifferenceRun:
    """The row of a run that is about to be taken up."""
    return DifferenceRun(
        id=work.ticket.run_id,
        version=STAGE_VERSION[Stage.DIFFERENCING],
        inputs_sha256=work.inputs_sha256,
        observation_id=work.ticket.observation_id,
        reference_id=None if work.reference is None else work.reference.observation_id,
        algorithm=work.options.algorithm,
    )
