"""What `worker_monitor` and `astrid status` make of what workers publish."""

import argparse
import json

import pytest
import redis

from astrid_workers.cli import status
from astrid_workers.fleet_reading import parse_presence, read_fleet
from astrid_workers.monitoring import WorkerMonitor, WorkerStatus, judge


class Answers:
    """A pipeline that answers what it is given, as a server would."""

    def __init__(self, now, queues):
        self._answers = [(int(now), 0)]
        for ready, outstanding, delayed, dead, presence, counters, hours in queues:
            said = {name: json.dumps(record) for name, record in presence.items()}
            self._answers += [ready, outstanding, delayed, dead, said, counters, hours]

    def pipeline(self, **_):
        return self

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None

    def __getattr__(self, _name):
        return lambda *_args: None

    def execute(self):
        return self._answers


NOW = 1_000_000.0


def record(**other):
    return {
        "pod": "pod-1", "beat": NOW - 1, "started": NOW - 100, "threads": 2, "busy": 0, "idle_since": NOW - 5,
        "draining": False, "actors": 6, "finished": 8, "failed": 2, "seconds": 20.0, "rss_bytes": 250_000_000,
        "cpu_percent": 40.0, "version": "0.1.0", **other,
    }  # fmt: skip


def monitor(*queues):
    names = [f"q{number}" for number in range(len(queues))]
    watched = WorkerMonitor()
    watched.read = lambda: read_fleet(Answers(NOW, queues), "dramatiq", names)
    return watched


def queue(ready=0, outstanding=0, delayed=0, dead=0, presence=None, counters=None, hours=None):
    return ready, outstanding, delayed, dead, presence or {}, counters or {}, hours or {}


@pytest.mark.parametrize(
    ("ratio", "failures", "state"),
    [
        (1.0, 0.0, "healthy"),
        (0.9, 0.05, "healthy"),
        (0.89, 0.0, "degraded"),
        (1.0, 0.06, "degraded"),
        (0.7, 0.10, "degraded"),
        (0.69, 0.0, "unhealthy"),
        (1.0, 0.11, "unhealthy"),
    ],
)
def test_state_follows_the_known_thresholds(ratio, failures, state):
    """healthy from 0.9 and 5 %, degraded from 0.7 and 10 %, else unhealthy."""
    assert judge(ratio, failures) == state


def test_no_workers_is_said_not_invented():
    """An empty fleet is unhealthy and lists nobody."""
    watched = monitor(queue(ready=3, outstanding=3))
    assert watched.get_worker_health().items() >= {"status": "unhealthy", "message": "no workers"}.items()
    assert watched.get_all_worker_metrics() == {}
    assert watched.get_worker_metrics("worker_1") is None


def test_health_adds_up_what_all_workers_published():
    """A silent worker counts against the fleet; tasks are those of the counters, whoever worked on them."""
    presence = {"a:1": record(), "b:2": record(beat=NOW - 30)}
    watched = monitor(queue(presence=presence, counters={"finished": "95", "failed": "5"}))
    health = watched.get_worker_health()
    assert (health["total_workers"], health["healthy_workers"], health["health_ratio"]) == (2, 1, 0.5)
    assert (health["total_tasks_processed"], health["total_tasks_failed"], health["failure_rate"]) == (
        100,
        5,
        0.05,
    )
    assert health["status"] == "unhealthy"
    assert health["uptime_seconds"] == 100.0


def test_process_on_two_queues_is_one_worker():
    """Its tasks are the sum over its queues; it is busy where any of them is."""
    watched = monitor(
        queue(presence={"a:1": record(busy=0)}), queue(presence={"a:1": record(busy=1, idle_since=None)})
    )
    (metrics,) = watched.get_all_worker_metrics().values()
    assert metrics.status is WorkerStatus.BUSY
    assert (metrics.tasks_processed, metrics.tasks_failed, metrics.average_processing_time) == (20, 4, 2.0)
    assert (metrics.memory_usage, metrics.cpu_usage, metrics.worker_type) == (250.0, 40.0, "q0,q1")


def test_what_no_worker_measured_is_none():
    """A worker that publishes less (another version, another application) leaves gaps, not zeros."""
    watched = monitor(queue(presence={"a:1": {"beat": NOW, "pod": "p"}}))
    (metrics,) = watched.get_all_worker_metrics().values()
    assert metrics.tasks_processed is None
    assert metrics.average_processing_time is None
    assert metrics.memory_usage is None
    performance = watched.get_performance_metrics()
    assert performance["average_memory_usage_mb"] is None
    assert performance["average_processing_time"] is None


@pytest.mark.parametrize("text", ["", "null", "[]", "7", '{"beat": "soon"}', '{"busy": 1}', "\x00"])
def test_nonsense_in_presence_is_no_worker(text):
    """Wrong types in a record are left out; they never raise."""
    assert parse_presence("a:1", "q", text) is None


def test_window_counts_only_its_hours():
    """`time_window_hours` reaches back whole hours, no further."""
    hour = int(NOW // 3600)
    hours = {
        f"{hour}:finished": "5",
        f"{hour}:seconds": "10",
        f"{hour - 5}:finished": "70",
        f"{hour - 5}:failed": "30",
    }
    watched = monitor(queue(presence={"a:1": record()}, hours=hours))
    assert watched.get_performance_metrics(1)["total_tasks_processed"] == 5
    assert watched.get_performance_metrics(1)["average_processing_time"] == 2.0
    day = watched.get_performance_metrics(24)
    assert (day["total_tasks_processed"], day["total_tasks_failed"]) == (105, 30)
    with pytest.raises(ValueError, match="1 to 168"):
        watched.get_performance_metrics(0)


def test_queue_status_counts_and_rates():
    """Lengths are what waits; rates and shares of failures come from the hours just past."""
    hour = int(NOW // 3600)
    hours = {f"{hour}:finished": "30", f"{hour}:failed": "10"}
    answer = monitor(queue(4, 6, 2, 1, {"a:1": record()}, {}, hours), queue()).get_queue_status()
    assert answer["queue_lengths"] == {"q0": 4, "q1": 0}
    assert (answer["running"]["q0"], answer["delayed"]["q0"], answer["dead"]["q0"]) == (2, 2, 1)
    assert answer["total_actors"] == 6
    assert answer["error_rates"] == {"q0": 0.25, "q1": None}
    assert answer["processing_rates"]["q0"] == pytest.approx(40 / (3600 + NOW % 3600))


def test_broker_that_is_away_is_an_error_not_an_empty_fleet():
    """Nothing is claimed about a fleet that cannot be seen."""
    watched = WorkerMonitor()

    def away():
        raise redis.ConnectionError("refused")

    watched.read = away
    assert watched.get_worker_health()["status"] == "error"
    assert watched.get_queue_status()["broker_connected"] is False


def test_history_is_what_was_seen_and_can_be_forgotten():
    """The last looks at one worker, oldest first."""
    watched = monitor(queue(presence={"a:1": record()}))
    for _ in range(3):
        watched.get_all_worker_metrics()
    assert len(watched.get_worker_history("a:1", limit=2)) == 2
    assert watched.get_worker_history("nobody") == []
    assert watched.clear_old_metrics(days_to_keep=7) == 3
    assert watched.get_worker_history("a:1") == []


def test_status_shows_queues_workers_and_what_they_do():
    """`astrid status --json` has one object per queue, with silent workers left out."""
    presence = {"a:1": record(busy=2), "b:2": record(draining=True), "c:3": record(beat=NOW - 60)}
    reading = read_fleet(Answers(NOW, [queue(4, 6, 2, 1, presence)]), "dramatiq", ["q0"])
    (row,) = status.as_json(reading)["queues"]
    assert row == {
        "queue": "q0", "ready": 4, "running": 2, "delayed": 2, "dead": 1, "workers": 2, "busy": 2, "draining": 1,
    }  # fmt: skip
    assert status.as_table(reading).row_count == 1


def test_status_without_a_broker_is_one_sentence(capsys, monkeypatch):
    """Exit status 1 and why."""

    def away(*_):
        raise redis.ConnectionError("refused")

    monkeypatch.setattr(status, "read_fleet", away)
    options = argparse.Namespace(watch=False, every=1.0, json=True, queues=None)
    assert status.main(options) == 1
    assert "does not answer: refused" in capsys.readouterr().err
