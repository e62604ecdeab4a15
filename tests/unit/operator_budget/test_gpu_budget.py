"""Devices are counted from quotas, nodes and pods, whatever they are called, and shared among their queues."""

from dataclasses import replace
from typing import Any

import pytest
from structlog.testing import capture_logs

from astrid_operator.astrid_queue import AstridQueue, QueueKey, parse_astrid_queue
from astrid_operator.fleet import FleetState, Member, MemberPhase
from astrid_operator.gpu_budget import GpuBudget
from astrid_operator.gpu_supply import by_quota, held_by, on_nodes
from astrid_operator.kinds import Kind
from astrid_operator.scaling import DemandReading, MembersSeen, Reason, ScalingDecision
from astrid_operator.seen import Seen
from astrid_operator.status import desired_status

GPU, CHIP = "nvidia.com/gpu", "example.com/chip"


def node(name: str, count: int | str, *, resource: str = GPU, closed: bool = False) -> dict[str, Any]:
    """A node with devices; a closed one takes no new pods."""
    return {
        "metadata": {"name": name, "uid": name, "resourceVersion": "1"},
        "spec": {"unschedulable": closed or None},
        "status": {"allocatable": {"cpu": "64", resource: str(count)}},
    }


def pod(
    queue: str, number: int, count: int = 1, *, on: str | None = "n1", phase: str = "Running", **more: Any
) -> dict[str, Any]:
    """A worker pod that holds devices."""
    resource = more.pop("resource", GPU)
    metadata = {
        "name": f"{queue}-{number}",
        "namespace": more.pop("namespace", "sky"),
        "uid": f"{queue}-{number}",
        "resourceVersion": "1",
        "labels": {"astrid.dev/queue": queue},
    }
    containers = [{"resources": {"limits": {resource: str(count), "memory": "1Gi"}}}]
    return {
        "metadata": metadata,
        "spec": {"nodeName": on, "containers": containers},
        "status": {"phase": phase},
    }


def quota(hard: int | str, used: int | str, *, resource: str = GPU, name: str = "gpus") -> dict[str, Any]:
    """A ResourceQuota of the namespace."""
    key = f"requests.{resource}"
    return {
        "metadata": {"name": name, "namespace": "sky", "uid": name, "resourceVersion": "1"},
        "status": {"hard": {key: str(hard)}, "used": {key: str(used)}},
    }


NODES = [
    ("the devices of all nodes are there for fleets", [node("n1", 4), node("n2", 4)], [], 8),
    ("a node that takes no new pods counts for what it already runs",
     [node("n1", 4, closed=True), node("n2", 4)], [pod("a", 1), pod("a", 2)], 6),
    ("a pod that has ended holds nothing", [node("n1", 4, closed=True), node("n2", 1)], [pod("a", 1, phase="Succeeded")], 1),
    ("devices of another name do not count", [node("n1", 4, resource=CHIP), node("n2", 1)], [], 1),
    ("where no node has any they may come with the first pod", [node("n1", 4, resource=CHIP)], [], None),
    ("where no node is known nothing bounds", [], [], None),
    ("devices may be counted in powers of ten", [node("n1", "1e1")], [], 10),
    ("a node whose devices cannot be read has none", [node("n1", "many"), node("n2", 2)], [], 2),
]  # fmt: skip


@pytest.mark.parametrize(
    ("nodes", "pods", "expected"), [row[1:] for row in NODES], ids=[row[0] for row in NODES]
)
def test_nodes_supply_as_the_table_says(nodes, pods, expected) -> None:
    """Each row is a sentence about a pool of nodes."""
    assert on_nodes(nodes, pods, GPU) == expected


QUOTAS = [
    ("a quota bounds what fleets hold", [quota(4, 0)], 0, 4),
    ("what fleets hold themselves is theirs to share", [quota(4, 3)], 3, 4),
    ("what others hold is not", [quota(4, 3)], 1, 2),
    ("the narrowest of several quotas holds", [quota(4, 0), quota(2, 0, name="b")], 0, 2),
    ("a quota of zero leaves nothing", [quota(0, 0)], 0, 0),
    ("a quota of something else bounds nothing", [quota(4, 0, resource=CHIP)], 0, None),
    ("a count that lags behind does not go below zero", [quota(4, 1)], 3, 4),
    ("no quota, no bound", [], 0, None),
    ("a quota may be written in powers of ten", [quota("1e1", "20e-1")], 0, 8),
    ("a quota that cannot be read bounds nothing", [quota("many", 0)], 0, None),
    ("nor does one whose use cannot be read; the others do", [quota(1, "some"), quota(3, 0, name="b")], 0, 3),
]  # fmt: skip


@pytest.mark.parametrize(
    ("quotas", "ours", "expected"), [row[1:] for row in QUOTAS], ids=[row[0] for row in QUOTAS]
)
def test_quotas_supply_as_the_table_says(quotas, ours, expected) -> None:
    """Each row is a sentence about one namespace."""
    assert by_quota(quotas, ours, GPU) == expected


def test_a_pod_holds_what_its_containers_may_use() -> None:
    """Whether it has a place yet or not."""
    assert held_by(pod("a", 1, 2, on=None, phase="Pending"), GPU) == 2
    assert held_by(pod("a", 1, 2), CHIP) == 0


def test_a_pod_whose_devices_cannot_be_read_holds_none() -> None:
    """Nothing is known of it, and the others are shared all the same."""
    unreadable = pod("a", 1)
    unreadable["spec"]["containers"][0]["resources"]["limits"][GPU] = "many"
    said: list[str] = []

    assert held_by(unreadable, GPU, said.append) == 0
    assert said == ["Pod sky/a-1, nvidia.com/gpu: 'many' is not a quantity"]


class Cluster:
    """Nodes, pods, quotas and queues as watches told of them."""

    def __init__(self, *, nodes_grow: bool = False) -> None:
        self.seen, self.now = Seen(), 1000.0
        self.busy: dict[QueueKey, int] = {}
        self.idle_seconds, self.stopped = 500.0, 0
        self.asked: dict[QueueKey, tuple[AstridQueue, FleetState, ScalingDecision]] = {}
        self.budget = GpuBudget(self.seen, self._members, lambda: self.now, nodes_grow=nodes_grow)

    def _members(self, key: QueueKey) -> MembersSeen:
        fleet = self.asked[key][1]
        busy = self.busy.get(key, 0)
        return MembersSeen(busy, tuple(self.idle_seconds for _ in range(fleet.ready - busy)), self.stopped)

    def queue(
        self, name: str, wants: int, *, has: int = 0, busy: int = 0, namespace: str = "sky", **spec: Any
    ) -> QueueKey:
        """A queue that wants members, and has some that have been there for long."""
        document = {
            "apiVersion": "astrid.dev/v1alpha1",
            "kind": "AstridQueue",
            "metadata": {"name": name, "namespace": namespace},
            "spec": {"app": "sky.tasks", "gpu": {"count": 1}, **spec},
        }
        one = parse_astrid_queue(document)
        members = tuple(Member(f"{name}-{at}", MemberPhase.READY, 0.0) for at in range(has))
        fleet = FleetState(exists=True, desired=has, current=has, ready=has, members=members)
        self.asked[one.key] = (one, fleet, ScalingDecision(wants, Reason.BACKLOG, "why", wanted=wants))
        self.busy[one.key] = busy
        resource = one.spec.gpu.resource_name
        for at in range(has):
            self.seen.put(Kind.POD, pod(name, at, one.spec.gpu.count, resource=resource, namespace=namespace))
        return one.key

    def node(self, *args: Any, **kwargs: Any) -> None:
        """A node is there."""
        self.seen.put(Kind.NODE, node(*args, **kwargs))

    def granted(self, after_seconds: float = 0.0) -> dict[str, int]:
        """What each gets, `after_seconds` after the first look."""
        self.budget(self.asked)
        self.now += after_seconds
        return {key.name: decision.replicas for key, decision in self.budget(self.asked).items()}


def test_devices_are_shared_among_the_queues_that_use_them() -> None:
    """The first class first, then evenly; who uses none is not touched."""
    cluster = Cluster()
    cluster.node("n1", 8)
    cluster.queue("first", 4, priority=1)
    cluster.queue("a", 9)
    cluster.queue("b", 9)
    cluster.queue("plain", 50, gpu={"count": 0}, scaling={"maxReplicas": 50})
    assert cluster.granted() == {"first": 4, "a": 2, "b": 2, "plain": 50}


def test_each_kind_of_device_is_a_pool_of_its_own() -> None:
    """Any resource name will do."""
    cluster = Cluster()
    cluster.node("n1", 1)
    cluster.node("n2", 3, resource=CHIP)
    cluster.queue("gpus", 5)
    cluster.queue("chips", 5, gpu={"count": 1, "resourceName": CHIP})
    assert cluster.granted() == {"gpus": 1, "chips": 3}


def test_a_quota_bounds_its_namespace_and_nodes_bound_all() -> None:
    """What a quota withholds from one namespace is left to the others."""
    cluster = Cluster()
    cluster.node("n1", 6)
    cluster.seen.put(Kind.QUOTA, quota(2, 0))
    cluster.queue("here", 9)
    cluster.queue("there", 9, namespace="sea")
    assert cluster.granted() == {"here": 2, "there": 4}


def test_what_pods_of_deleted_queues_hold_is_not_given_twice() -> None:
    """Draining pods still hold, whoever's they were."""
    cluster = Cluster()
    cluster.node("n1", 3)
    cluster.seen.put(Kind.POD, pod("deleted", 1, 2))
    cluster.queue("a", 9)
    assert cluster.granted() == {"a": 1}


def test_a_pod_of_several_devices_takes_several() -> None:
    """Whole pods only."""
    cluster = Cluster()
    cluster.node("n1", 5)
    cluster.queue("big", 9, gpu={"count": 2})
    assert cluster.granted() == {"big": 2}


def test_where_nodes_grow_only_quotas_bound() -> None:
    """What nodes have now says nothing of what they could have."""
    cluster = Cluster(nodes_grow=True)
    cluster.node("n1", 1)
    cluster.queue("a", 9)
    assert cluster.granted() == {"a": 9}


def test_a_working_pod_gives_way_to_a_higher_class_after_a_while() -> None:
    """Three set-ups of patience; then it is asked, and finishes what it runs."""
    cluster = Cluster()
    cluster.node("n1", 2)
    cluster.queue("low", 2, has=2, busy=2, priority=9)
    cluster.queue("high", 2, priority=1)
    assert cluster.granted(after_seconds=4) == {"low": 2, "high": 0}
    assert cluster.granted(after_seconds=20) == {"low": 0, "high": 0}


def test_who_was_given_a_part_goes_on_pressing_for_the_rest() -> None:
    """A pod that was asked to leave is not let stay only because another one has come meanwhile."""
    cluster = Cluster()
    cluster.node("n1", 3)
    cluster.queue("low", 3, has=3, busy=3, priority=9)
    cluster.queue("high", 2, priority=1)
    assert cluster.granted(after_seconds=20) == {"low": 1, "high": 0}
    cluster.queue("low", 3, has=2, busy=2, priority=9)
    assert cluster.granted() == {"low": 1, "high": 1}
    cluster.queue("high", 2, has=1, busy=1, priority=1)
    assert cluster.granted() == {"low": 1, "high": 1}


def test_a_higher_class_whose_tasks_are_long_is_given_way_at_once() -> None:
    """One of its tasks takes longer than a start: there is nothing to wait for."""
    cluster = Cluster()
    cluster.node("n1", 2)
    cluster.queue("low", 2, has=2, busy=2, priority=9)
    high = cluster.queue("high", 2, priority=1)
    one, fleet, decision = cluster.asked[high]
    cluster.asked[high] = (one, fleet, replace(decision, task_seconds=60.0))
    assert cluster.granted() == {"low": 0, "high": 0}


def test_an_idle_pod_gives_way_sooner() -> None:
    """After the time that a start takes, and no more of them than are waited for."""
    cluster = Cluster()
    cluster.node("n1", 2)
    low = cluster.queue("low", 2, has=2)
    one, fleet, decision = cluster.asked[low]
    cluster.asked[low] = (one, fleet, replace(decision, wanted=0))
    cluster.queue("high", 1, priority=1)
    assert cluster.granted(after_seconds=4) == {"low": 2, "high": 0}
    assert cluster.granted(after_seconds=2) == {"low": 1, "high": 0}


def lull(cluster: Cluster, key: QueueKey, seconds: float) -> None:
    """Nothing waits in the queue, and messages come so far apart."""
    one, fleet, decision = cluster.asked[key]
    cluster.asked[key] = (one, fleet, replace(decision, lull_seconds=seconds))


def test_who_runs_its_last_is_asked_before_it_is_done() -> None:
    """Nothing waits there, and it would be back before anything comes; who needs it waits as for an idle one."""
    cluster = Cluster()
    cluster.node("n1", 2)
    high = cluster.queue("high", 2, has=2, busy=2, priority=1)
    cluster.queue("low", 2, priority=9)
    lull(cluster, high, 60.0)
    assert cluster.granted(after_seconds=4) == {"high": 2, "low": 0}
    assert cluster.granted(after_seconds=2) == {"high": 0, "low": 0}
    lull(cluster, high, 0.0)
    assert cluster.granted() == {"high": 2, "low": 0}


def test_what_members_that_leave_still_run_needs_no_others() -> None:
    """Three tasks run and nothing waits: of two members that stay none is added, to be asked to leave at once."""
    cluster = Cluster()
    cluster.node("n1", 4)
    high = cluster.queue("high", 3, has=2, busy=2, priority=1)
    one, fleet, decision = cluster.asked[high]
    cluster.asked[high] = (one, replace(fleet, draining=1), decision)
    cluster.queue("low", 9, priority=9)
    lull(cluster, high, 60.0)
    assert cluster.granted() == {"high": 2, "low": 1}


def test_who_would_be_missed_soon_is_not_lent() -> None:
    """There and back takes two starts: for less than that nobody goes, and idle ones are kept for one start."""
    cluster = Cluster()
    cluster.node("n1", 2)
    high = cluster.queue("high", 2, has=2, busy=2, priority=1)
    cluster.queue("low", 2, priority=9)
    lull(cluster, high, 9.0)
    assert cluster.granted(after_seconds=30) == {"high": 2, "low": 0}


def test_in_a_lull_an_idle_pod_goes_at_once() -> None:
    """It has been idle for a second, and would have stayed for five."""
    cluster = Cluster()
    cluster.node("n1", 2)
    high = cluster.queue("high", 2, has=2, priority=1)
    one, fleet, decision = cluster.asked[high]
    cluster.asked[high] = (one, fleet, replace(decision, wanted=0))
    cluster.idle_seconds = 1.0
    cluster.queue("low", 2, priority=9)
    assert cluster.granted(after_seconds=30) == {"high": 2, "low": 0}
    lull(cluster, high, 60.0)
    assert cluster.granted() == {"high": 0, "low": 0}


def test_who_stopped_when_it_was_asked_is_not_told_to_stay() -> None:
    """Idle for a moment only, it is still one of those that may leave."""
    cluster = Cluster()
    cluster.node("n1", 2)
    cluster.queue("low", 2, has=2, priority=9)
    cluster.queue("high", 2, priority=1)
    cluster.idle_seconds, cluster.stopped = 0.2, 2
    assert cluster.granted(after_seconds=30) == {"low": 0, "high": 0}


def test_a_device_that_was_granted_is_given_to_nobody_else_before_its_pod_is_seen() -> None:
    """Whoever was late is not any more, and another may be now: the pod is on its way all the same."""
    cluster = Cluster()
    cluster.node("n1", 3)
    cluster.queue("b", 9, has=1, busy=1)
    cluster.queue("a", 9, has=1, busy=1)
    assert cluster.granted() == {"b": 2, "a": 1}
    key = cluster.queue("b", 9, has=1, busy=1, priority=6)
    assert cluster.granted() == {"b": 2, "a": 1}
    cluster.now += 10
    assert cluster.granted() == {"b": 1, "a": 2}, f"the pod of {key} never came"


def test_who_has_its_share_is_not_late_however_much_more_it_wants() -> None:
    """Ten minutes with half of all: a higher class that comes then is still a higher class."""
    cluster = Cluster()
    cluster.node("n1", 2)
    cluster.queue("a", 9, has=1, busy=1)
    cluster.queue("b", 9, has=1, busy=1)
    for _ in range(10):
        assert cluster.granted(after_seconds=60) == {"a": 1, "b": 1}
    high = cluster.queue("high", 2, priority=1)
    one, fleet, decision = cluster.asked[high]
    cluster.asked[high] = (one, fleet, replace(decision, task_seconds=60.0))
    assert cluster.granted() == {"a": 0, "b": 0, "high": 0}


def test_who_has_nothing_at_all_is_late_in_the_end() -> None:
    """A higher class wants everything; each time that the wait was too long once more counts for a class."""
    cluster = Cluster()
    cluster.node("n1", 2)
    cluster.queue("high", 9, has=2, busy=2, priority=4)
    cluster.queue("low", 9, priority=5)
    for _ in range(3):
        assert cluster.granted(after_seconds=60) == {"high": 2, "low": 0}
    assert cluster.granted(after_seconds=60) == {"high": 1, "low": 0}


def test_who_had_the_odd_device_leaves_the_next_one_to_its_equal() -> None:
    """Three devices among two equals: over time neither has more."""
    cluster = Cluster()
    cluster.node("n1", 3)
    cluster.queue("a", 9, has=2, busy=2)
    cluster.queue("b", 9, has=1, busy=1)
    assert cluster.granted(after_seconds=60) == {"a": 2, "b": 1}
    cluster.queue("a", 9, has=1, busy=1)
    cluster.seen.drop(Kind.POD, pod("a", 1))
    assert cluster.granted() == {"a": 1, "b": 2}


def test_what_cannot_be_read_is_said_once_with_its_name() -> None:
    """And not at each of the ticks that look at it."""
    cluster = Cluster()
    cluster.node("n1", "many")
    cluster.seen.put(Kind.QUOTA, quota("few", 0))
    cluster.queue("a", 3)
    with capture_logs() as said:
        assert cluster.granted(after_seconds=60) == {"a": 3}

    assert [(line["log_level"], line["trouble"]) for line in said] == [
        ("warning", "ResourceQuota sky/gpus, requests.nvidia.com/gpu: 'few' is not a quantity"),
        ("warning", "Node n1, nvidia.com/gpu: 'many' is not a quantity"),
    ]


def test_a_pool_whose_sharing_fails_holds_its_own_fleets_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are granted nothing, so that they stay; the failure is logged with its traceback, now and then."""

    def broken(quotas: Any, *rest: Any) -> int | None:
        if quotas:
            raise ZeroDivisionError
        return by_quota(quotas, *rest)

    monkeypatch.setattr("astrid_operator.gpu_budget.by_quota", broken)
    cluster = Cluster()
    cluster.node("n1", 6)
    cluster.node("n2", 1, resource=CHIP)
    cluster.seen.put(Kind.QUOTA, quota(4, 0, resource="example.com/other"))
    cluster.queue("here", 9, has=2)
    cluster.queue("there", 9, namespace="sea")
    cluster.queue("chips", 9, namespace="sea", gpu={"count": 1, "resourceName": CHIP})
    cluster.queue("plain", 1, gpu={"count": 0})
    with capture_logs() as said:
        assert cluster.granted(after_seconds=30) == {"there": 4, "chips": 1, "plain": 1}
        cluster.now += 30
        cluster.granted()

    assert [(line["event"], line["resource"], line["namespace"]) for line in said] == [
        ("Sharing failed unexpectedly", GPU, "sky")
    ] * 2
    assert all(line["exc_info"] for line in said)


def test_the_status_says_what_is_wanted_granted_and_held_by_whom() -> None:
    """The answer to: why do my GPUs not work for me?"""
    cluster = Cluster()
    cluster.node("n1", 2)
    cluster.queue("low", 2, has=2, busy=2)
    high = cluster.queue("high", 3, priority=1)
    decision = cluster.budget(cluster.asked)[high]
    queue, fleet, _ = cluster.asked[high]
    status = desired_status(queue, fleet, DemandReading(0.0, None), decision, None, "2026-01-01T00:00:00Z")
    assert decision.reason is Reason.SCALE_LIMITED
    assert decision.message == "0 of 3 granted: waiting for GPUs to be given back, held by low 2; why"
    assert status["gpu"] == {"wanted": 3, "granted": 0, "heldBy": ["sky/low"]}
