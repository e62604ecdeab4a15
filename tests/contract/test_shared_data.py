"""What the two halves share besides the AstridQueue: the environment of a pod, and the names of keys in Redis."""

from pathlib import Path
from typing import Any

import pytest

from astrid_operator import presence
from astrid_operator import waits as operator_waits
from astrid_operator.desired import OperatorDefaults, worker_settings
from astrid_operator.dramatiq_keys import DramatiqQueue
from astrid_operator.spec_schema import OUR_APP, WORKER_TYPES
from astrid_workers.config import WorkerConfig, WorkerType, get_task_queues, queue_settings, variables
from astrid_workers.middleware import fleet_keys
from astrid_workers.middleware.waits import BOUNDS_S, counts_of
from support.queue_documents import policy

ROOT = Path(__file__).resolve().parents[2]
DEFAULTS = OperatorDefaults("worker:1")

#: What an AstridQueue says → the worker's setting that it must become, in the worker's unit.
TOLD: list[tuple[dict[str, Any], str, Any]] = [
    ({"maxRetries": 7}, "max_retries", 7),
    ({"retryDelaySeconds": 2}, "retry_delay", 2000),
    ({"maxRetryDelaySeconds": 40}, "max_retry_delay", 40_000),
    ({"timeoutSeconds": 77}, "worker_timeout", 77),
    ({"concurrency": 3}, "concurrency", 3),
    ({"processes": 2}, "processes", 2),
    ({"prefetch": 9}, "prefetch", 9),
    ({"workerType": "detection"}, "worker_type", "detection"),
    ({"queueName": "detection_gpu", "workerType": "detection"}, "queue_name", "detection_gpu"),
    ({"broker": {"namespace": "archive"}}, "namespace", "archive"),
    ({"resources": {"limits": {"memory": "2G"}}, "processes": 2}, "max_memory", 900),
]


@pytest.mark.parametrize(("spec", "setting", "value"), TOLD, ids=[setting for _, setting, _ in TOLD])
def test_a_pod_obeys_what_the_operator_tells_it(spec: dict[str, Any], setting: str, value: Any) -> None:
    """The operator's variables, read by the workers' own reader, are what the AstridQueue says, unit and all."""
    config = WorkerConfig(worker_settings(policy(**spec), DEFAULTS))

    assert getattr(config, setting) == value
    assert config.given(setting)


def test_no_variable_of_the_operator_is_unknown_to_workers() -> None:
    """A renamed variable would be set and read by nobody."""
    told = worker_settings(policy(resources={"limits": {"memory": "1G"}}), DEFAULTS)

    assert {name for name in told if name.startswith("WORKER_")} <= set(variables())


def test_what_is_told_wins_over_the_table() -> None:
    """A pod goes by its AstridQueue, whatever the built-in table says of its queue."""
    told = worker_settings(policy(name="detection", timeoutSeconds=11, maxRetries=0, concurrency=5), DEFAULTS)
    settings = queue_settings("detection", WorkerConfig(told))

    assert (settings.timeout_s, settings.max_retries, settings.concurrency, settings.prefetch) == (
        11,
        0,
        5,
        5,
    )


def test_both_know_the_same_stages() -> None:
    """The schema refuses a worker type that no worker has, and no other; our application's module is there."""
    assert set(WORKER_TYPES) == set(WorkerType) == {row.worker_type for row in get_task_queues()}
    assert (ROOT / "workers" / f"{OUR_APP.replace('.', '/')}.py").is_file()


@pytest.mark.parametrize("namespace", ["dramatiq", "archive"])
def test_keys_have_one_name_on_both_sides(namespace: str) -> None:
    """What workers write is where the operator looks, and the other way round."""
    queue = DramatiqQueue(namespace, "detection")

    assert queue.drain == fleet_keys.drain_key(namespace, "detection")
    assert queue.counters == fleet_keys.counters_key(namespace, "detection")
    assert queue.presence == fleet_keys.presence_key(namespace, "detection")


def test_waits_are_counted_within_the_same_bounds_on_both_sides() -> None:
    """Each field that a start adds to is read, and no other."""
    written = [counts_of(wait) for wait in (*operator_waits.BOUNDS_SECONDS, 1e9)]

    assert operator_waits.BOUNDS_SECONDS == BOUNDS_S
    assert ("wait_seconds", *(name for each in written for name in [*each][1:])) == operator_waits.FIELDS


def test_silence_is_as_long_on_both_sides() -> None:
    """A worker that the operator takes for gone must be one that others take for gone."""
    assert presence.STALE_SECONDS == fleet_keys.STALE_AFTER_S
    assert fleet_keys.BEAT_EVERY_S * 3 < fleet_keys.STALE_AFTER_S < fleet_keys.REMOVED_AFTER_S
