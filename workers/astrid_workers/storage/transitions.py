"""The one place that says which state an observation goes to.

Owns the rules of an observation's states; never reads or writes a row. Stages are level-triggered, so that a
repeat may carry an observation along but never takes it back from where it already is.
"""

from collections.abc import Iterable

from astrid_workers.pipeline import Stage
from astrid_workers.storage.states import ObservationState as State

#: How far along each state is. `failed` and `archived` stand beside the path, not on it.
_RANK: dict[State, int] = {
    State.INGESTED: 0,
    State.PREPROCESSING: 1,
    State.PREPROCESSED: 2,
    State.DIFFERENCING: 3,
    State.DIFFERENCED: 4,
    State.DETECTED: 5,
    State.CURATED: 6,
}

#: The state while a stage works; the quick stages have none.
_WORKING: dict[Stage, State] = {
    Stage.PREPROCESSING: State.PREPROCESSING,
    Stage.DIFFERENCING: State.DIFFERENCING,
}

#: The state that a stage's result is.
_RESULT: dict[Stage, State] = {
    Stage.OBSERVATION_INGESTION: State.INGESTED,
    Stage.PREPROCESSING: State.PREPROCESSED,
    Stage.DIFFERENCING: State.DIFFERENCED,
    Stage.DETECTION: State.DETECTED,
    Stage.CURATION: State.CURATED,
}

#: Where an observation stays when a stage finds nothing to do.
_BEFORE: dict[Stage, State] = {
    Stage.PREPROCESSING: State.INGESTED,
    Stage.DIFFERENCING: State.PREPROCESSED,
    Stage.DETECTION: State.DIFFERENCED,
    Stage.CURATION: State.DETECTED,
}


def state_begun(current: State, stage: Stage) -> State:
    """The state once `stage` has taken the observation up."""
    return _along(current, _WORKING.get(stage, current))


def state_completed(current: State, stage: Stage) -> State:
    """The state once `stage` is done; notification leaves it where it is."""
    return _along(current, _RESULT.get(stage, current))


def state_nothing_to_do(current: State, stage: Stage) -> State:
    """The state once `stage` has found nothing to do: what it was before the stage took it up."""
    is_waiting_for_stage = current in (State.FAILED, _WORKING.get(stage))
    return _BEFORE.get(stage, current) if is_waiting_for_stage else current


def state_failed(current: State, stage: Stage) -> State:
    """The state once `stage` has failed for good: `failed`, unless the observation is past that stage."""
    if current == State.ARCHIVED or _is_past(current, stage):
        return current
    return State.FAILED


def state_archived(current: State) -> State:
    """The state once the observation is put away: `archived`, unless a stage is at work on it."""
    return current if current in _WORKING.values() else State.ARCHIVED


def state_of_mosaic(current: State, parts: Iterable[State]) -> State:
    """How far a mosaic has come: as far as all of its parts that did not fail; `failed` once all have.

    One that was put away stays so; parts that were put away by themselves do not count.
    """
    if current == State.ARCHIVED:
        return current
    states = [state for state in parts if state != State.ARCHIVED]
    alive = [state for state in states if state != State.FAILED]
    if alive:
        return min(alive, key=_RANK.__getitem__)
    return State.FAILED if states else current


def _along(current: State, wanted: State) -> State:
    if current == State.FAILED:
        return wanted
    if current == State.ARCHIVED:
        return current
    return wanted if _RANK.get(wanted, -1) > _RANK[current] else current


def _is_past(current: State, stage: Stage) -> bool:
    result = _RESULT.get(stage)
    return result is None or (current in _RANK and _RANK[current] >= _RANK[result])
