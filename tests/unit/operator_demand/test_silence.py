"""For how long a process has been silent, by what was seen and not by what a clock says."""

from astrid_operator.silence import LONGEST_GAP_SECONDS, MOST_PROCESSES, Silence


def watched(*looks: dict[str, float], every: float = 5.0) -> tuple[Silence, float]:
    """A silence after so many looks, and the time of the last one."""
    silence = Silence()
    for number, beats in enumerate(looks):
        silence.look(beats, number * every)
    return silence, (len(looks) - 1) * every


def test_silence_is_counted_from_when_it_was_first_seen() -> None:
    """However old a heartbeat claims to be: its clock may be wrong."""
    silence, _at = watched({"a": 1.0}, {"a": 1.0}, {"a": 1.0})
    assert silence.seconds("a") == 10.0


def test_any_change_is_life_even_one_into_the_past() -> None:
    """A clock that is set back beats all the same."""
    silence, _at = watched({"a": 9e15}, {"a": 5.0}, {"a": 4.0})
    assert silence.seconds("a") == 0.0


def test_a_break_in_looking_begins_anew() -> None:
    """A failure, or a pause that is too long: nobody knows who beat meanwhile."""
    silence, at = watched({"a": 1.0}, {"a": 1.0})
    silence.broken()
    silence.look({"a": 1.0}, at + 5)
    assert silence.seconds("a") == 0.0
    silence.look({"a": 1.0}, at + 6 + LONGEST_GAP_SECONDS)
    assert silence.seconds("a") == 0.0


def test_who_was_seen_alive_comes_first_and_who_holds_nothing_not_at_all() -> None:
    """Names from the past are many; the one that has just died is what matters."""
    silence, _at = watched(
        {"old": 1.0, "dead": 1.0}, {"old": 1.0, "dead": 2.0}, *[{"old": 1.0, "dead": 2.0}] * 3
    )
    assert silence.silent_for(10, "q") == ["dead", "old"]
    silence.holds_nothing(["old"], "q")
    assert silence.silent_for(10, "q") == ["dead"]
    assert silence.silent_for(10, "other") == ["dead", "old"]


def test_a_new_beat_may_have_brought_new_messages() -> None:
    """Having held nothing counts until the next heartbeat only."""
    silence, at = watched({"a": 1.0})
    silence.holds_nothing(["a"], "q")
    silence.look({"a": 2.0}, at + 5)
    assert silence.silent_for(0, "q") == ["a"]


def test_what_is_remembered_is_bounded() -> None:
    """A hundred thousand heartbeats of short-lived producers do not pile up for ever."""
    silence = Silence()
    for start in range(0, 3 * MOST_PROCESSES, MOST_PROCESSES // 2):
        silence.look({str(start + n): 1.0 for n in range(MOST_PROCESSES // 2)}, 0.0)
    assert len(silence.silent_for(0, "q")) <= 1.5 * MOST_PROCESSES
