"""How long a message waited, from what stands on it."""

import pytest

from astrid_workers.middleware.waits import BOUNDS_S, DUE, counts_of, note_due, waited_seconds

NOW_MS = 1_000_000_000.0


@pytest.mark.parametrize(
    ("what", "sent", "options", "waited"),
    [
        ("sent 3 s ago", NOW_MS - 3000, {}, 3.0),
        ("sent by a clock that is ahead", NOW_MS + 5000, {}, 0.0),
        ("sent long ago, due 2 s ago", NOW_MS - 90_000, {DUE: NOW_MS - 2000}, 2.0),
        (
            "sent again from the dead letters 4 s ago",
            NOW_MS - 90_000,
            {"requeue_timestamp": NOW_MS - 4000},
            4.0,
        ),
        (
            "failed 9 s ago, its retry due 1 s ago",
            NOW_MS - 90_000,
            {"requeue_timestamp": NOW_MS - 9000, DUE: NOW_MS - 1000},
            1.0,
        ),
        ("with a time that is no number", "yesterday", {}, None),
        ("with a time that is no number, due 2 s ago", None, {DUE: NOW_MS - 2000}, 2.0),
        ("with an ETA that is no number", NOW_MS - 3000, {DUE: "soon", "requeue_timestamp": True}, 3.0),
        ("with a time that is not finite", float("nan"), {}, None),
        ("sent in seconds where ms are meant, longer ago than anything waits", NOW_MS - 4e13, {}, None),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_message_waits_from_the_last_time_that_it_could_have_run(
    what: str, sent: object, options: dict[str, object], waited: float | None
) -> None:
    """A message `what` has waited so long; None: that is not known, and not counted."""
    assert waited_seconds(sent, options, NOW_MS) == waited, what


@pytest.mark.parametrize(
    ("options", "noted"),
    [
        ({"eta": 5}, 5),
        ({"eta": 9, DUE: 5}, 9),
        ({DUE: 5}, 5),
        ({}, None),
        ({"eta": None}, None),
        ({"eta": "soon"}, None),
    ],
    ids=str,
)
def test_an_eta_is_kept_for_the_start(options: dict[str, object], noted: object) -> None:
    """Dramatiq takes the ETA off when the time has come; the newest stays noted."""
    note_due(options)
    assert options.get(DUE) == noted


def test_each_wait_counts_once_within_the_least_bound_that_it_kept() -> None:
    """On a bound, below it, and beyond all."""
    assert counts_of(0.0) == {"wait_seconds": 0.0, "waited_0.5": 1}
    assert counts_of(float(BOUNDS_S[1])) == {"wait_seconds": 2.0, "waited_2": 1}
    assert counts_of(2.001) == {"wait_seconds": 2.001, "waited_10": 1}
    assert counts_of(1e6) == {"wait_seconds": 1e6, "waited_longer": 1}
