"""What a scrape says of queues."""

import pytest

from astrid_operator.astrid_queue import QueueKey, parse_astrid_queue
from astrid_operator.fleet import FleetState
from astrid_operator.metrics import Metrics
from astrid_operator.reconcile import Gathered
from astrid_operator.scaling import Demand, DemandReading

QUEUE = parse_astrid_queue(
    {
        "apiVersion": "astrid.dev/v1alpha1",
        "kind": "AstridQueue",
        "metadata": {"name": "q", "namespace": "sky", "uid": "1", "generation": 1},
        "spec": {"app": "sky.tasks"},
    }
)
LABELS = 'namespace="sky",queue="q"'


def saw(metrics: Metrics, demand: Demand | None) -> str:
    reading = DemandReading(0.0, demand, "", 0.0)
    metrics.saw(Gathered(QUEUE, FleetState(exists=True), reading, None), None)
    return metrics.text().decode()


def test_tasks_that_ended_are_told_in_seconds_and_by_outcome() -> None:
    """The workers' own counts, which outlive the operator: tasks by outcome, and what all took together."""
    text = saw(Metrics(), Demand(finished=7, failed=2, task_seconds=12.5))

    assert 'astrid_messages_total{namespace="sky",outcome="finished",queue="q"} 5.0' in text
    assert 'astrid_messages_total{namespace="sky",outcome="failed",queue="q"} 2.0' in text
    assert f"astrid_message_duration_seconds_count{{{LABELS}}} 7.0" in text
    assert f"astrid_message_duration_seconds_sum{{{LABELS}}} 12.5" in text


def test_waits_are_told_as_a_histogram_in_seconds() -> None:
    """Starts up to each bound, all of them, and the seconds that all waited together."""
    text = saw(Metrics(), Demand(waits=b"321.5 5 - 2 - 1 - - - 3"))

    def up_to(bound: str) -> str:
        return f'astrid_message_wait_seconds_bucket{{le="{bound}",{LABELS}}}'

    assert f"{up_to('0.5')} 5.0" in text
    assert f"{up_to('10.0')} 7.0" in text
    assert f"{up_to('3600.0')} 8.0" in text
    assert f"{up_to('+Inf')} 11.0" in text
    assert f"astrid_message_wait_seconds_count{{{LABELS}}} 11.0" in text
    assert f"astrid_message_wait_seconds_sum{{{LABELS}}} 321.5" in text


@pytest.mark.parametrize(
    "said",
    [
        "nan 1 1 1 1 1 1 1 1 1",
        "1 -1 1 1 1 1 1 1 1 1",
        "many 1 1 1 1 1 1 1 1 1",
        "1e400 1 1 1 1 1 1 1 1 1",
        "1 1 1",
        "",
    ],
    ids=repr,
)
def test_waits_that_make_no_sense_are_not_told(said: str) -> None:
    """Wrong types, liars, another version: no sample, whatever else was counted."""
    assert "astrid_message_wait_seconds_count{" not in saw(Metrics(), Demand(ready=1, waits=said.encode()))


def test_what_is_not_known_has_no_sample() -> None:
    """Without a reading, or where nobody counts, there is no sample, not 0; a queue that is gone leaves none."""
    metrics = Metrics()
    known = Demand(ready=1, finished=7, failed=2, task_seconds=12.5, waits=b"0 0 0 0 0 0 0 0 0 1")
    for unknown in (None, Demand()):
        for sample in ("astrid_messages_total{", "astrid_message_wait_seconds_count{"):
            assert sample in saw(metrics, known)
            assert sample not in saw(metrics, unknown)
    saw(metrics, known)
    metrics.forgot(QueueKey("sky", "q"))
    assert 'queue="q"' not in metrics.text().decode()
