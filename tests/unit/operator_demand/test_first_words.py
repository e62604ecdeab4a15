"""Who is ready where members speak: who has said its first word."""

from dataclasses import replace

import pytest

from astrid_operator.first_words import FIRST_WORD_SECONDS, FirstWords, Life
from astrid_operator.fleet import FleetState, Member, MemberPhase
from astrid_operator.presence import MemberSaid


def fleet(*names: str, since: float = 100.0) -> FleetState:
    """Pods that are ready for the API server."""
    members = tuple(Member(name, MemberPhase.READY, since, placed_since=since - 5) for name in names)
    return FleetState(exists=True, desired=len(names), current=len(names), ready=len(names), members=members)


def lives(*names: str, restarts: int = 0) -> dict[str, Life]:
    return {name: (name, restarts) for name in names}


def word(up_seconds: float | None = None) -> MemberSaid:
    return MemberSaid(0, 1.0, False, up_seconds=up_seconds)


@pytest.fixture
def words() -> FirstWords:
    """A fleet that speaks, of which `a` does."""
    words = FirstWords(are_expected=True)
    words.heard({"a": word(400.0)}, lives("a"), 500.0)
    return words


def test_who_is_ready_and_silent_is_starting_since_it_has_a_place(words: FirstWords) -> None:
    """It is capacity that was bought, and fetches nothing yet."""
    words.heard({"a": word()}, lives("a", "b"), 501.0)
    found = words.as_heard(fleet("a", "b", since=500.0), 501.0)
    assert (found.ready, found.starting, found.current, found.desired) == (1, 1, 2, 2)
    assert found.members[1] == Member("b", MemberPhase.STARTING, 495.0, placed_since=495.0, is_silent=True)


def test_a_word_that_is_heard_first_is_said_now_and_lasts(words: FirstWords) -> None:
    """Silence later on makes nobody start again, and no record moves the time."""
    words.heard({"a": word(), "b": word(30.0)}, lives("a", "b"), 530.0)
    words.heard({}, lives("a", "b"), 600.0)
    found = words.as_heard(fleet("a", "b", since=500.0), 600.0)
    assert (found.ready, [each.since for each in found.members]) == (2, [100.0, 530.0])


def test_who_speaks_already_when_hearing_begins_is_believed_for_how_long(words: FirstWords) -> None:
    """An operator that has just begun, or a Redis that is back."""
    words.deaf()
    words.heard({"b": word(60.0), "c": word()}, lives("b", "c"), 900.0)
    found = words.as_heard(fleet("b", "c", since=800.0), 900.0)
    assert [each.since for each in found.members] == [840.0, 900.0]


def test_the_word_of_a_container_before_is_not_that_of_its_successor(words: FirstWords) -> None:
    """What starts anew imports anew; a pod of the same name is another one too."""
    for life in (lives("a", restarts=1), {"a": ("another", 0)}):
        words.heard({}, life, 700.0)
        assert words.as_heard(fleet("a", since=699.0), 700.0).ready == 0
        words.heard({"a": word()}, life, 702.0)
        assert words.as_heard(fleet("a", since=699.0), 702.0).ready == 1


def test_who_is_silent_for_long_counts_as_ready(words: FirstWords) -> None:
    """A minute is given; since when it fetches is not known."""
    state = fleet("b", since=500.0)
    found = words.as_heard(state, 501.0 + FIRST_WORD_SECONDS)
    assert found == replace(state, members=(replace(state.members[0], is_silent=True),))


def test_members_that_do_not_speak_are_ready_when_the_api_server_says_so() -> None:
    """A plain image, beside a worker that somebody started by hand."""
    words, state = FirstWords(are_expected=False), fleet("a", since=500.0)
    words.heard({"somebodys-desktop": word()}, lives("a"), 500.0)
    assert words.as_heard(state, 501.0) is state


def test_members_that_speak_without_being_expected_to_are_waited_for_from_then_on() -> None:
    """A foreign application with the middleware; also after it was at zero."""
    words = FirstWords(are_expected=False)
    words.heard({"a": word()}, lives("a"), 500.0)
    words.heard({}, {}, 800.0)
    words.heard({}, lives("b"), 900.0)
    assert words.as_heard(fleet("b", since=900.0), 901.0).starting == 1


def test_members_that_had_time_to_speak_and_did_not_are_waited_for_no_more() -> None:
    """Workers of ours without the right to write in Redis; only time in which they could be heard counts."""
    words, later = FirstWords(are_expected=True), fleet("b", since=431.0)
    words.heard({}, lives("a"), 130.0)
    assert words.as_heard(fleet("a"), 429.0).members[0].is_silent
    assert not words.as_heard(fleet("a"), 431.0).members[0].is_silent
    assert words.as_heard(later, 431.0) is later


def test_where_presence_cannot_be_read_nobody_is_waited_for() -> None:
    """A user of Redis without the right to read it; a Redis that is away for a while is another matter."""
    words, state = FirstWords(are_expected=True), fleet("a", since=500.0)
    words.deaf()
    assert words.as_heard(state, 501.0) is state
    words.heard({}, lives("a"), 502.0)
    words.deaf()
    assert words.as_heard(state, 503.0).starting == 1
