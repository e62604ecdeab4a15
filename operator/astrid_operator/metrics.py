"""What the operator tells Prometheus: names, labels and units, and how what the loop does is counted.

Owns one registry. Labels are bounded: a namespace and an AstridQueue, a word of a fixed list, or a broker's
address without credentials. What is not known has no sample; it is never 0.
"""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import (
    CounterMetricFamily,
    HistogramMetricFamily,
    Metric,
    SummaryMetricFamily,
)
from prometheus_client.registry import Collector

from astrid_operator.astrid_queue import QueueKey
from astrid_operator.reconcile import Gathered
from astrid_operator.scaling import Demand, ScalingDecision
from astrid_operator.waits import BOUNDS_SECONDS, waits_of

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

QUEUE = ("namespace", "queue")
STATES = ("ready", "unacked", "delayed", "dead")
WAIT_BOUNDS = (*(f"{float(bound)}" for bound in BOUNDS_SECONDS), "+Inf")
SECONDS = (0.001, 0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 15)


def installed_version() -> str:
    """Version of the package that runs; `unknown` from a bare tree."""
    try:
        return version("astrid")
    except PackageNotFoundError:
        return "unknown"


class TasksEnded(Collector):
    """What workers counted of tasks that began and ended, in their own counts: these outlive this process."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], tuple[int, int, float]] = {}
        self._waits: dict[tuple[str, str], bytes] = {}

    def saw(self, labels: tuple[str, str], demand: Demand | None) -> None:
        """Take what `demand` says; what is not known has no sample."""
        self.forgot(labels)
        if demand is not None and demand.waits:
            self._waits[labels] = demand.waits
        if demand is not None and demand.finished is not None and demand.task_seconds is not None:
            self._known[labels] = (demand.finished, demand.failed or 0, demand.task_seconds)

    def forgot(self, labels: tuple[str, str]) -> None:
        """An AstridQueue is gone."""
        self._known.pop(labels, None)
        self._waits.pop(labels, None)

    def collect(self) -> Iterator[Metric]:
        """All families, with a sample for each queue that is known."""
        ends = CounterMetricFamily(
            "astrid_messages", "Tasks that ended, by how; each retry counts", labels=(*QUEUE, "outcome")
        )
        took = SummaryMetricFamily("astrid_message_duration_seconds", "What they took together", labels=QUEUE)
        for labels, (ended, failed, seconds) in self._known.items():
            ends.add_metric((*labels, "finished"), ended - failed)
            ends.add_metric((*labels, "failed"), failed)
            took.add_metric(labels, count_value=ended, sum_value=seconds)
        waited = HistogramMetricFamily(
            "astrid_message_wait_seconds",
            "From being sent, or from the ETA, to the start of the task; each start counts",
            labels=QUEUE,
        )
        for labels, said in self._waits.items():
            if (waits := waits_of(said)) is not None:
                waited.add_metric(labels, [*zip(WAIT_BOUNDS, waits.up_to(), strict=True)], waits.seconds)
        yield from (ends, took, waited)


class Metrics:
    """Counts what the loop does; `text` is the scrape."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = registry = CollectorRegistry()

        def gauge(name: str, help_: str, labels: tuple[str, ...] = ()) -> Gauge:
            return Gauge(name, help_, labels, registry=registry)

        self._depth = gauge("astrid_queue_depth", "Messages, by where they are", (*QUEUE, "state"))
        self._oldest = gauge("astrid_queue_oldest_message_age_seconds", "Age of the head of the queue", QUEUE)
        self._desired = gauge("astrid_queue_desired_workers", "Members that were decided", QUEUE)
        self._current = gauge("astrid_queue_current_workers", "Members that are there", QUEUE)
        self._ready = gauge("astrid_queue_ready_workers", "Members that fetch messages", QUEUE)
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
        self._orphans = gauge("astrid_queue_orphans", "Messages held by processes that are gone", QUEUE)
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
        self._ended = TasksEnded()
        registry.register(self._ended)
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
        labels = _labels(gathered.queue.key)
        self._current.labels(*labels).set(gathered.fleet.current)
        self._ready.labels(*labels).set(gathered.fleet.ready)
        desired = gathered.fleet.desired if decision is None else decision.replicas
        self._desired.labels(*labels).set(desired)
        self._saw_demand(labels, gathered.reading.demand)

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
        for gauge in (self._oldest, self._orphans, self._desired, self._current, self._ready):
            _remove(gauge, *labels)
        for state in STATES:
            _remove(self._depth, *labels, state)
        self._ended.forgot(labels)
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

    def _saw_demand(self, labels: tuple[str, str], demand: Demand | None) -> None:
        self._ended.saw(labels, demand)
        if demand is None:
            for state in STATES:
                _remove(self._depth, *labels, state)
        else:
            depths = (demand.ready, demand.running, demand.delayed, demand.dead)
            for state, depth in zip(STATES, depths, strict=True):
                self._depth.labels(*labels, state).set(depth)
        if demand is None or demand.orphans is None:
            _remove(self._orphans, *labels)
        else:
            self._orphans.labels(*labels).set(demand.orphans)
        if demand is None or demand.oldest_seconds is None:
            _remove(self._oldest, *labels)
        else:
            self._oldest.labels(*labels).set(demand.oldest_seconds)


def _labels(key: QueueKey) -> tuple[str, str]:
    return key.namespace, key.name


def _remove(metric: Gauge, *labels: str) -> None:
    with suppress(KeyError):
        metric.remove(*labels)
