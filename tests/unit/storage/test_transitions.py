"""Where an observation goes from each state, as a table."""

import itertools

import pytest

from astrid_workers.pipeline import Stage
from astrid_workers.storage.states import ObservationState as State
from astrid_workers.storage.transitions import (
    state_archived,
    state_begun,
    state_completed,
    state_failed,
    state_nothing_to_do,
    state_of_mosaic,
)

PATH = [
    State.INGESTED,
    State.PREPROCESSING,
    State.PREPROCESSED,
    State.DIFFERENCING,
    State.DIFFERENCED,
    State.DETECTED,
    State.CURATED,
]


def test_the_whole_path_is_walked_stage_by_stage():
    """An observation that meets no trouble passes every state once, in order."""
    state, seen = State.INGESTED, [State.INGESTED]
    for stage in list(Stage)[1:]:
        for step in (state_begun, state_completed):
            state = step(state, stage)
            seen += [state] if state != seen[-1] else []
    assert seen == PATH


@pytest.mark.parametrize(("current", "stage"), list(itertools.product(PATH, Stage)))
def test_a_repeat_never_takes_an_observation_back(current, stage):
    """Messages come twice and late; what is there already stays."""
    for step in (state_begun, state_completed):
        assert PATH.index(step(current, stage)) >= PATH.index(current)


@pytest.mark.parametrize(
    ("current", "stage", "expected"),
    [
        (State.DIFFERENCING, Stage.DIFFERENCING, State.PREPROCESSED),
        (State.PREPROCESSING, Stage.PREPROCESSING, State.INGESTED),
        (State.DIFFERENCED, Stage.DIFFERENCING, State.DIFFERENCED),
        (State.CURATED, Stage.DIFFERENCING, State.CURATED),
        (State.FAILED, Stage.DIFFERENCING, State.PREPROCESSED),
        (State.FAILED, Stage.DETECTION, State.DIFFERENCED),
        (State.DETECTED, Stage.NOTIFICATION, State.DETECTED),
    ],
)
def test_nothing_to_do_leaves_it_where_it_was_before_the_stage(current, stage, expected):
    """No reference covers the field: the observation is as preprocessed as it was."""
    assert state_nothing_to_do(current, stage) == expected


@pytest.mark.parametrize(
    ("current", "stage", "expected"),
    [
        (State.DIFFERENCING, Stage.DIFFERENCING, State.FAILED),
        (State.PREPROCESSED, Stage.DIFFERENCING, State.FAILED),
        (State.DIFFERENCED, Stage.DIFFERENCING, State.DIFFERENCED),
        (State.CURATED, Stage.PREPROCESSING, State.CURATED),
        (State.CURATED, Stage.NOTIFICATION, State.CURATED),
        (State.FAILED, Stage.PREPROCESSING, State.FAILED),
        (State.ARCHIVED, Stage.PREPROCESSING, State.ARCHIVED),
    ],
)
def test_a_failure_counts_only_where_the_stage_had_not_succeeded(current, stage, expected):
    """A second difference that fails does not unmake the first."""
    assert state_failed(current, stage) == expected


@pytest.mark.parametrize("stage", list(Stage)[1:5])
def test_a_failed_observation_may_be_tried_again(stage):
    """Failed is not final: the next success carries it along."""
    assert state_completed(State.FAILED, stage) in PATH


@pytest.mark.parametrize("state", State)
def test_archived_is_final_and_nothing_is_archived_under_a_stage_at_work(state):
    """Archiving waits for running work, and is never undone."""
    is_at_work = state in (State.PREPROCESSING, State.DIFFERENCING)
    assert state_archived(state) == (state if is_at_work else State.ARCHIVED)
    for stage in Stage:
        for step in (state_begun, state_completed, state_failed, state_nothing_to_do):
            assert step(State.ARCHIVED, stage) == State.ARCHIVED


@pytest.mark.parametrize(
    ("current", "parts", "expected"),
    [
        (State.INGESTED, [State.PREPROCESSED, State.INGESTED], State.INGESTED),
        (State.INGESTED, [State.CURATED, State.PREPROCESSED], State.PREPROCESSED),
        (State.PREPROCESSED, [State.CURATED, State.FAILED], State.CURATED),
        (State.PREPROCESSED, [State.FAILED, State.FAILED], State.FAILED),
        (State.FAILED, [State.FAILED, State.PREPROCESSING], State.PREPROCESSING),
        (State.CURATED, [State.ARCHIVED, State.CURATED], State.CURATED),
        (State.CURATED, [State.ARCHIVED], State.CURATED),
        (State.ARCHIVED, [State.CURATED], State.ARCHIVED),
    ],
)
def test_a_mosaic_stands_where_its_slowest_living_part_does(current, parts, expected):
    """Parts that failed hold nobody up, and are told by their own rows."""
    assert state_of_mosaic(current, parts) == expected
