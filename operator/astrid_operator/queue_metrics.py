"""What Prometheus is told of each queue as it was seen at the last tick.

Owns the families that are made of what is kept when somebody scrapes: a tick keeps one value for each queue,
which costs nothing beside setting a dozen gauges for each of a thousand. What is not known has no sample.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
    SummaryMetricFamily,
)
from prometheus_client.registry import Collector

from astrid_operator.scaling import Demand
from astrid_operator.waits import BOUNDS_SECONDS, waits_of

QUEUE = ("namespace", "queue")
WAIT_BOUNDS = (*(f"{float(bound)}" for bound in BOUNDS_SECONDS), "+Inf")

#: Values of the labels of `QUEUE`.
Labels = tuple[str, str]


@dataclass(frozen=True, slots=True)
class QueueSeen:
    """One queue at one tick; `desired`: as decided, or as the fleet is where nothing was."""

    current: int
    ready: int
    desired: int
    demand: Demand | None


class QueuesSeen(Collector):
    """The newest of each queue, told when somebody scrapes."""

    def __init__(self) -> None:
        self._seen: dict[Labels, QueueSeen] = {}

    def saw(self, labels: Labels, seen: QueueSeen) -> None:
        """Keep what was seen of the queue of `labels`."""
        self._seen[labels] = seen

    def forgot(self, labels: Labels) -> None:
        """An AstridQueue is gone."""
        self._seen.pop(labels, None)

    def collect(self) -> Iterator[Metric]:
        """All families, with a sample for each queue of which it is known."""
        seen = list(self._seen.items())
        yield from _fleets(seen)
        known = [(labels, each.demand) for labels, each in seen if each.demand is not None]
        yield from _demands(known)
        yield from _ended(known)
        yield _waited(known)


def _fleets(seen: list[tuple[Labels, QueueSeen]]) -> Iterator[Metric]:
    """How many members there are, of which kind. The sizes are in counts of members."""
    desired = GaugeMetricFamily("astrid_queue_desired_workers", "Members that were decided", labels=QUEUE)
    current = GaugeMetricFamily("astrid_queue_current_workers", "Members that are there", labels=QUEUE)
    ready = GaugeMetricFamily("astrid_queue_ready_workers", "Members that fetch messages", labels=QUEUE)
    for labels, each in seen:
        desired.add_metric(labels, each.desired)
        current.add_metric(labels, each.current)
        ready.add_metric(labels, each.ready)
    yield from (desired, current, ready)


def _demands(known: list[tuple[Labels, Demand]]) -> Iterator[Metric]:
    """What waits, and for how long."""
    depth = GaugeMetricFamily("astrid_queue_depth", "Messages, by where they are", labels=(*QUEUE, "state"))
    oldest = GaugeMetricFamily(
        "astrid_queue_oldest_message_age_seconds", "Age of the head of the queue", labels=QUEUE
    )
    orphans = GaugeMetricFamily(
        "astrid_queue_orphans", "Messages held by processes that are gone", labels=QUEUE
    )
    for labels, demand in known:
        depth.add_metric((*labels, "ready"), demand.ready)
        depth.add_metric((*labels, "unacked"), demand.running)
        depth.add_metric((*labels, "delayed"), demand.delayed)
        depth.add_metric((*labels, "dead"), demand.dead)
        if demand.oldest_seconds is not None:
            oldest.add_metric(labels, demand.oldest_seconds)
        if demand.orphans is not None:
            orphans.add_metric(labels, demand.orphans)
    yield from (depth, oldest, orphans)


def _ended(known: list[tuple[Labels, Demand]]) -> Iterator[Metric]:
    """Tasks that ended, in the workers' own counts: these outlive this process."""
    ends = CounterMetricFamily(
        "astrid_messages", "Tasks that ended, by how; each retry counts", labels=(*QUEUE, "outcome")
    )
    took = SummaryMetricFamily("astrid_message_duration_seconds", "What they took together", labels=QUEUE)
    for labels, demand in known:
        if demand.finished is None or demand.task_seconds is None:
            continue
        failed = demand.failed or 0
        ends.add_metric((*labels, "finished"), demand.finished - failed)
        ends.add_metric((*labels, "failed"), failed)
        took.add_metric(labels, count_value=demand.finished, sum_value=demand.task_seconds)
    yield from (ends, took)


def _waited(known: list[tuple[Labels, Demand]]) -> Metric:
    """How long messages waited, in the workers' own counts."""
    waited = HistogramMetricFamily(
        "astrid_message_wait_seconds",
        "From being sent, or from the ETA, to the start of the task; each start counts",
        labels=QUEUE,
    )
    for labels, demand in known:
        if demand.waits and (waits := waits_of(demand.waits)) is not None:
            waited.add_metric(labels, [*zip(WAIT_BOUNDS, waits.up_to(), strict=True)], waits.seconds)
    return waited
