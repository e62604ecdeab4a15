"""Which candidates `matched-filter` keeps, and which models there are."""

import uuid

import pytest

from astrid_workers.candidate_flags import CandidateFlag, flag_names, flags_from
from astrid_workers.detection.classify import CandidateFacts, MatchedFilter, installed_model
from astrid_workers.errors import PermanentFailure, UnknownModel


def candidate(*flags, score=12.0):
    return CandidateFacts(uuid.uuid4(), 10.0, 20.0, score, abs(score), frozenset(flags), score > 0)


@pytest.mark.parametrize(
    ("flags", "is_kept"),
    [
        ((), True),
        (("blended",), True),
        (("on_source",), True),
        (("edge",), False),
        (("masked",), False),
        (("saturated",), False),
        (("dipole",), False),
        (("sharp",), False),
        (("extended",), False),
        (("streak",), False),
        (("stray_light",), False),
        (("glint",), False),
        (("on_source", "dipole"), False),
    ],
)
def test_flags_that_explain_a_candidate_away_remove_it(flags, is_kept):
    """A candidate is kept unless one of its flags says that it is not a point source of the sky."""
    (verdict,) = MatchedFilter().classify([candidate(*flags)])

    assert is_kept is verdict.is_kept
    assert bool(verdict.reasons) is not is_kept


def test_matched_filter_claims_no_confidence_and_no_label():
    """Nothing is calibrated and nothing is recognised, so both are None."""
    (verdict,) = MatchedFilter().classify([candidate()])

    assert (verdict.confidence, verdict.label) == (None, None)


def test_fading_sources_are_kept_like_brightening_ones():
    """The sign of the score does not matter."""
    verdicts = MatchedFilter().classify([candidate(score=9.0), candidate(score=-9.0)])

    assert [verdict.is_kept for verdict in verdicts] == [True, True]


def test_every_reason_is_said():
    """A candidate with two damning flags has two reasons."""
    (verdict,) = MatchedFilter().classify([candidate("edge", "saturated")])

    assert len(verdict.reasons) == 2


def test_every_flag_of_the_rule_is_a_flag_that_exists():
    """A misspelt flag would never match and silently keep what it should remove."""
    assert set(MatchedFilter.EXPLAINED_BY) <= {flag.name.lower() for flag in CandidateFlag}


def test_a_model_that_is_not_installed_is_refused_for_good_and_names_those_that_are():
    """An unknown model is a permanent failure whose sentence lists what could be asked for instead."""
    with pytest.raises(UnknownModel, match="'unet_v1' is not installed; installed: matched-filter"):
        installed_model("unet_v1")
    assert issubclass(UnknownModel, PermanentFailure)


def test_flags_survive_being_stored():
    """Names → bits → names gives the same set."""
    names = [flag.name.lower() for flag in CandidateFlag]

    assert tuple(names) == flag_names(flags_from(reversed(names)))
    assert flag_names(0) == ()


def test_stored_bits_never_change():
    """The numbers stand in databases."""
    assert [int(flag) for flag in CandidateFlag] == [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024]


def test_a_flag_without_a_bit_is_refused():
    """A new flag of the extraction needs a bit before it can be stored."""
    with pytest.raises(KeyError):
        flags_from(["haunted"])
