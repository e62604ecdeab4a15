"""What the operator tells Prometheus: names, labels and units, and how what the loop does is counted.

Owns one registry. Labels are bounded: a namespace and an AstridQueue, a word of a fixed list, or a broker's
address without credentials. What is not known has no sample; it is never 0.
"""

from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)

from astrid_operator.astrid_queue import QueueKey
from astrid_operator.queue_metrics import QUEUE, QueueSeen, QueuesSeen
from astrid_operator.reconcile import Gathered
from astrid_operator.scaling import ScalingDecision

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

SECONDS = (0.001, 0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 15)


def installed_version() -> str:
    """Version of the package that runs; `unknown` from a bare tree."""
    try:
        return version("astrid")
    except PackageNotFoundError:
        return "unknown"


class Metrics:
    """Counts what the loop does; `text` is the scrape."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = registry = CollectorRegistry()

        def gauge(name: str, help_: str, labels: tuple[str, ...] = ()) -> Gauge:
            return Gauge(name, help_, labels, registry=registry)

        self._queues = QueuesSeen()
        registry.register(self._queues)
        self._decisions = Counter(
            "astrid_queue_scaling_decisions_total",
            "Changes of a fleet's size",
            (*QUEUE, "direction", "reason"),
            registry=registry,
        )
        self._retired = Counter(
            "astrid_queue_retired_workers_total",
            "Pods that left after a size was lowered: those that were chosen, or others",
            (*QUEUE, "which"),
            registry=registry,
        )
        self._reclaimed = Counter(
            "astrid_orphans_reclaimed_total",
            "Messages that went back to a queue from processes that are gone",
            QUEUE,
            registry=registry,
        )
        self._promoted = Counter(
            "astrid_due_messages_moved_total",
            "Delayed messages that were due and went to their queue without a worker",
            QUEUE,
            registry=registry,
        )
        self._reconciled = Counter(
            "astrid_reconcile_total",
            "Times a fleet was written to, by result",
            ("result",),
            registry=registry,
        )
        self._reconcile_seconds = Histogram(
            "astrid_reconcile_duration_seconds",
            "Time of writing to a fleet",
            buckets=SECONDS,
            registry=registry,
        )
        self._tick_seconds = Histogram(
            "astrid_tick_duration_seconds",
            "Time of one tick for all queues",
            buckets=SECONDS,
            registry=registry,
        )
        self._waiting = gauge("astrid_workqueue_depth", "AstridQueues that wait for attention or a next try")
        self._last_event = gauge(
            "astrid_watch_last_event_timestamp_seconds", "When a watch told something last", ("kind",)
        )
        self._leader = gauge("astrid_leader", "1 while this process may write")
        self._redis_up = gauge("astrid_redis_up", "1 while the broker answers", ("broker",))
        gauge("astrid_build_info", "Always 1", ("version",)).labels(installed_version()).set(1)

    def text(self) -> bytes:
        """The metrics in Prometheus' text form."""
        return generate_latest(self.registry)

    def saw(self, gathered: Gathered, decision: ScalingDecision | None) -> None:
        """What is known of one queue at this tick."""
        fleet, demand = gathered.fleet, gathered.reading.demand
        desired = fleet.desired if decision is None else decision.replicas
        self._queues.saw(_labels(gathered.queue.key), QueueSeen(fleet.current, fleet.ready, desired, demand))

    def scaled(self, key: QueueKey, decision: ScalingDecision, was: int) -> None:
        """A size was written."""
        direction = "up" if decision.replicas > was else "down"
        self._decisions.labels(*_labels(key), direction, decision.reason.value).inc()

    def retired(self, key: QueueKey, as_chosen: bool) -> None:
        """A pod left after the size of its fleet was lowered."""
        self._retired.labels(*_labels(key), "chosen" if as_chosen else "other").inc()

    def reclaimed(self, key: QueueKey, messages: int) -> None:
        """Messages of processes that are gone went back."""
        self._reclaimed.labels(*_labels(key)).inc(messages)

    def promoted(self, key: QueueKey, messages: int) -> None:
        """Delayed messages that were due went to their queue."""
        self._promoted.labels(*_labels(key)).inc(messages)

    def reconciled(self, result: str, seconds: float) -> None:
        """A fleet was written to."""
        self._reconciled.labels(result).inc()
        self._reconcile_seconds.observe(seconds)

    def ticked(self, seconds: float, waiting: int) -> None:
        """A tick is over; `waiting` keys are in the work queue."""
        self._tick_seconds.observe(seconds)
        self._waiting.set(waiting)

    def forgot(self, key: QueueKey) -> None:
        """An AstridQueue is gone, and all that was said of it."""
        labels = _labels(key)
        self._queues.forgot(labels)
        for counter in (self._decisions, self._retired, self._reclaimed, self._promoted):
            counter.remove_by_labels(dict(zip(QUEUE, labels, strict=True)))

    def watched(self, kind: str, at: float) -> None:
        """A watch told something; `at` is in seconds since the epoch."""
        self._last_event.labels(kind).set(at)

    def leads(self, is_leader: bool) -> None:
        """Whether this process may write."""
        self._leader.set(is_leader)

    def brokers(self, reachable: Mapping[str, bool]) -> None:
        """Which brokers answer."""
        self._redis_up.clear()
        for broker, answers in reachable.items():
            self._redis_up.labels(broker).set(answers)


def _labels(key: QueueKey) -> tuple[str, str]:
    return key.namespace, key.name
