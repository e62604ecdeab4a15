"""How long members take to start, learned by watching them."""

from astrid_operator.fleet import Member, MemberPhase
from astrid_operator.start_times import KEPT, LONGEST_SECONDS, StartTimes


def member(name: str, phase: MemberPhase, since: float) -> Member:
    return Member(name, phase, since)


def started(*seconds: float) -> StartTimes:
    """What was learned from members that took so long."""
    times = StartTimes()
    for number, each in enumerate(seconds):
        times.saw([member(f"m{number}", MemberPhase.STARTING, 100.0)])
        times.saw([member(f"m{number}", MemberPhase.READY, 100.0 + each)])
    return times


def test_a_start_counts_from_being_asked_for_to_being_ready() -> None:
    """Waiting for a place is part of it."""
    times = StartTimes()
    times.saw([member("a", MemberPhase.UNSCHEDULED, 10.0)])
    times.saw([member("a", MemberPhase.STARTING, 40.0)])
    assert times.usual_seconds() is None
    times.saw([member("a", MemberPhase.READY, 52.0)])
    assert times.usual_seconds() == 42.0


def test_who_was_ready_when_first_seen_tells_nothing() -> None:
    """An operator that has just started has watched nobody start."""
    times = StartTimes()
    times.saw([member("a", MemberPhase.READY, 10.0)])
    assert times.usual_seconds() is None


def test_a_start_lasts_until_the_first_word_where_members_speak() -> None:
    """A member that is ready and silent may still import what it needs: when it fetches is not known yet."""
    times = StartTimes()
    times.saw([member("a", MemberPhase.STARTING, 10.0)])
    times.saw([Member("a", MemberPhase.STARTING, 11.0, is_silent=True)])
    times.saw([Member("a", MemberPhase.READY, 12.0, is_silent=True)])
    assert times.usual_seconds() is None
    times.saw([member("a", MemberPhase.READY, 100.0)])
    assert times.usual_seconds() == 90.0


def test_who_was_ready_before_tells_nothing() -> None:
    """A container that starts anew after hours, or a node that was lost for a while, is no start of hours."""
    times = started(5)
    times.saw([member("m0", MemberPhase.STARTING, 100.0)])
    times.saw([member("m0", MemberPhase.READY, 10_000.0)])
    assert times.usual_seconds() == 5


def test_three_of_four_starts_are_no_longer_than_usual() -> None:
    """One slow node does not make every wake early."""
    assert started(1, 2, 3, 100).usual_seconds() == 3


def test_the_newest_starts_count_and_none_for_ever() -> None:
    """A smaller image is noticed; a start that once took an hour is not planned for."""
    assert started(*[50] * KEPT, *[5] * KEPT).usual_seconds() == 5
    assert started(3600).usual_seconds() == LONGEST_SECONDS
