"""Names come out the same however often, and never the same for two things."""

from uuid import UUID

import pytest

from astrid_workers.identity import STAGE_VERSION, derived_uuid, observation_uuid, survey_uuid
from astrid_workers.pipeline import Stage


def test_ids_never_change_between_versions():
    """Ids stand in databases: a change of the rule would orphan every row."""
    survey = survey_uuid("survey_456")
    assert survey == UUID("b037e18f-8d5e-53f8-83fc-c349003ca9d8")
    assert observation_uuid(survey, "obs_123") == UUID("080973ee-ace7-51e1-ae19-1cc028eb45ac")
    assert derived_uuid("candidate", "a", "1") == UUID("5c8ad97d-7319-5e5b-97a3-90a032c291ca")


def test_a_uuid_given_for_a_survey_is_used_as_it_is():
    """Old clients name surveys by UUID."""
    given = "0e7e5a63-90a6-4d5e-8f14-6d3de1a43a75"
    assert survey_uuid(given) == UUID(given)
    assert survey_uuid(given.upper()) == UUID(given)


@pytest.mark.parametrize(
    "name", ["0e7e5a6390a64d5e8f146d3de1a43a75", "{0e7e5a63-90a6-4d5e-8f14-6d3de1a43a75}", "urn:uuid:x", "α"]
)
def test_only_the_usual_spelling_is_a_uuid(name):
    """A survey may be called by 32 hexadecimal digits without being taken for another's id."""
    assert survey_uuid(name) == derived_uuid("survey", name)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("run", "ab", "c"), ("run", "a", "bc")),
        (("run", "a"), ("run", "a", "")),
        (("run", "a,b"), ("run", "a", "b")),
        (("run", 'a","b'), ("run", "a", "b")),
        (("run", "a"), ("candidate", "a")),
        (("run", "é"), ("run", "e\u0301")),
    ],
)
def test_different_parts_give_different_ids(one, other):
    """Two results must never share a row because their inputs look alike when joined."""
    assert derived_uuid(*one) != derived_uuid(*other)


def test_one_external_id_in_two_surveys_is_two_observations():
    """Surveys count for themselves."""
    assert observation_uuid(survey_uuid("a"), "1") != observation_uuid(survey_uuid("b"), "1")


def test_every_stage_has_a_version():
    """Derived ids of each stage contain it."""
    assert set(STAGE_VERSION) == set(Stage)
