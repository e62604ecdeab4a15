"""What workers say of themselves is believed only as far as it makes sense."""

import json

from astrid_operator.dramatiq_keys import DramatiqQueue
from astrid_operator.presence import MemberSaid, members_said

NOW = 1000.0


def record(
    pod: str = "m-1", busy: int = 0, idle_since: float | None = 990.0, beat: float = 999.0, **more: object
) -> bytes:
    """One process's record as the workers' middleware writes it."""
    return json.dumps({"pod": pod, "busy": busy, "idle_since": idle_since, "beat": beat, **more}).encode()


def test_the_processes_of_a_member_speak_together() -> None:
    """A member is as idle as its least idle process."""
    records = {
        b"m-1:a": record(idle_since=940.0),
        b"m-1:b": record(idle_since=970.0),
        b"m-2:c": record("m-2", 1, None),
    }
    assert members_said(records, NOW) == {
        "m-1": MemberSaid(0, 30.0, False),
        "m-2": MemberSaid(1, None, False),
    }


def test_a_member_has_been_at_work_for_as_long_as_its_newest_task() -> None:
    """What began last ends last, as far as can be told."""
    records = {
        b"a": record(busy=1, idle_since=None, task_since=900.0),
        b"b": record(busy=1, idle_since=None, task_since=980.0),
        b"c": record("idle", task_since=980.0),
        b"d": record("mute", 1, None),
    }
    said = members_said(records, NOW)
    assert {name: each.task_seconds for name, each in said.items()} == {
        "m-1": 20.0,
        "idle": None,
        "mute": None,
    }


def test_a_member_has_fetched_for_as_long_as_its_first_process() -> None:
    """By the server's clock, and never since a time to come."""
    records = {
        b"a": record(started=900.0),
        b"b": record(started=980.0),
        b"c": record("ahead", started=1007.0),
        b"d": record("mute"),
    }
    said = members_said(records, NOW)
    assert {name: each.up_seconds for name, each in said.items()} == {
        "m-1": 100.0,
        "ahead": 0.0,
        "mute": None,
    }


def test_a_busy_process_keeps_its_member_from_being_idle() -> None:
    """One idle process says nothing about the other."""
    records = {b"a": record(idle_since=940.0), b"b": record(busy=2, idle_since=None)}
    assert members_said(records, NOW) == {"m-1": MemberSaid(2, None, False)}


def test_a_stale_record_is_as_good_as_none() -> None:
    """Ten seconds without a beat, and nobody is there."""
    assert members_said({b"a": record(beat=989.0)}, NOW) == {}


def test_nonsense_is_passed_over() -> None:
    """Another version, a liar or a stranger in the hash must not break the reader."""
    nonsense = [b"", b"{", b"[]", b"7", b'{"pod": "x"}', record(busy="many"), record(beat=None), b"\xff\xfe"]  # type: ignore[arg-type]
    records = {str(number).encode(): text for number, text in enumerate(nonsense)}
    assert members_said(records | {b"good": record("m-9", 1)}, NOW) == {"m-9": MemberSaid(1, None, False)}


def test_the_key_is_the_workers_own() -> None:
    """The name stands once on each side; a functional test runs a real worker against this reader."""
    assert DramatiqQueue("dramatiq", "detection").presence == "astrid:dramatiq:presence:detection"
