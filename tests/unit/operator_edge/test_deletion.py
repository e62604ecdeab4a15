"""An AstridQueue is held for its running tasks, and never for longer than one of them may take."""

from typing import Any

import pytest

from astrid_operator.astrid_queue import QueueKey, parse_astrid_queue
from astrid_operator.deletion import FINALIZER, finalizers, should_hold
from astrid_operator.fleet import FleetState
from astrid_operator.reconcile import Gathered, plan
from astrid_operator.records import Records
from astrid_operator.scaling import DemandReading, Reason, ScalingMemory, decide

KEY = QueueKey("sky", "detection")


def manifest(**spec: Any) -> dict[str, Any]:
    """An AstridQueue that drains, as a server has it."""
    metadata = {
        "name": KEY.name,
        "namespace": KEY.namespace,
        "uid": "u",
        "generation": 1,
        "finalizers": [FINALIZER],
    }
    spec = {"app": "sky.tasks", "deletionPolicy": "Drain", "timeoutSeconds": 100, **spec}
    return {"apiVersion": "astrid.dev/v1alpha1", "kind": "AstridQueue", "metadata": metadata, "spec": spec}


def leaving(document: dict[str, Any]) -> dict[str, Any]:
    """The same after its deletion was asked for."""
    metadata = {**document["metadata"], "deletionTimestamp": "2026-01-01T00:00:00Z", "generation": 2}
    return {**document, "metadata": metadata}


WORKING, EMPTY = FleetState(exists=True, desired=2, current=1, draining=1), FleetState(exists=True)

#: Sentence, policy, fleet, seconds since deletion was asked for, and whether it is held.
TABLE = [
    ("one that may be deleted is never held", "Delete", WORKING, None, False),
    ("one that drains is held before anybody deletes it", "Drain", EMPTY, None, True),
    ("one that leaves is held as long as somebody is there", "Drain", WORKING, 1, True),
    ("one that leaves is let go when nobody is there", "Drain", EMPTY, 1, False),
    ("a member that still ends counts", "Drain", FleetState(exists=True, draining=1), 1, True),
    ("the time of a task and a minute is enough", "Drain", WORKING, 160, False),
    ("a fleet that is not there any more holds nothing", "Drain", FleetState(), 1, False),
]


@pytest.mark.parametrize(
    ("policy", "fleet", "seconds", "held"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE]
)
def test_an_astrid_queue_is_held_as_the_table_says(policy, fleet, seconds, held) -> None:
    """Each row is a sentence about one AstridQueue."""
    assert should_hold(parse_astrid_queue(manifest(deletionPolicy=policy)), fleet, seconds) == held


def test_the_finalizers_of_others_are_left_alone() -> None:
    """Ours is added once and removed alone."""
    document = {"metadata": {"finalizers": ["theirs", FINALIZER]}}
    assert finalizers(document, hold=False) == ["theirs"]
    assert finalizers(document, hold=True) == ["theirs", FINALIZER]


def test_one_that_leaves_wants_nobody_and_is_looked_at_every_tick() -> None:
    """As if it were disabled, until it is let go."""
    records = Records(lambda: 0.0)
    records.update({KEY: manifest()})
    changed, gone = records.update({KEY: leaving(manifest())})
    assert (changed, gone) == ({KEY}, {})
    queue = records[KEY].queue
    assert queue is not None
    reading = DemandReading(0.0, None, "not read yet")
    decision, _ = decide(queue.spec, reading, WORKING, ScalingMemory(0.0), 1.0)
    assert (decision.replicas, decision.reason) == (0, Reason.DISABLED)
    assert plan(Gathered(queue, EMPTY, reading, None), decision, shape=False).shape


def test_one_that_is_not_held_is_gone_at_once() -> None:
    """Without our finalizer there is nothing to wait for."""
    document = manifest()
    records = Records(lambda: 0.0)
    records.update({KEY: document})
    unheld = leaving({**document, "metadata": {**document["metadata"], "finalizers": ["theirs"]}})
    _, gone = records.update({KEY: unheld})
    assert set(gone) == {KEY}


def test_nonsense_that_leaves_is_drained_by_its_last_good_spec_or_let_go() -> None:
    """An object that nobody understands must not stay for ever."""
    good, bad = manifest(), leaving(manifest(replicas="many"))
    known = Records(lambda: 0.0)
    known.update({KEY: good})
    known.update({KEY: bad})
    queue = known[KEY].queue
    assert queue is not None
    assert not queue.spec.enabled
    assert queue.deletion_requested_at is not None

    _, gone = Records(lambda: 0.0).update({KEY: bad})
    assert set(gone) == {KEY}
