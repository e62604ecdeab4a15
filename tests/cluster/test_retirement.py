"""Members leave without a task being broken off: real Dramatiq workers as pods, sized by a real operator."""

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

from cluster.api_client import Api, Object
from cluster.astrid_objects import Fleet, make_fleet
from cluster.conftest import StartOperator, new_process_pods
from cluster.control_plane import ControlPlane
from cluster.diary import DIARY_APP, Diary, let_pods_know
from cluster.operator_process import OperatorProcess
from cluster.process_pods import ProcessPods
from support.redis_server import RedisServer
from support.waiting import wait_until

#: Many members for few messages, which leave soon.
EAGER = {"maxReplicas": 4, "expectedTaskSeconds": 20, "targetDrainSeconds": 5, "idleSeconds": 3}

QUICK_LEASE: Mapping[str, str] = {
    "ASTRID_OPERATOR_LEASE_SECONDS": "4",
    "ASTRID_OPERATOR_LEASE_RENEW_SECONDS": "3",
    "ASTRID_OPERATOR_LEASE_RETRY_SECONDS": "0.5",
}

MakeDiary = Callable[[str], Diary]


@pytest.fixture
def make_diary(api: Api, namespace: str, redis_server: RedisServer) -> Iterator[MakeDiary]:
    """Makes the diary of a queue whose pods know this test's Redis."""
    let_pods_know(api, namespace, redis_server)
    made: list[Diary] = []

    def make(queue: str) -> Diary:
        made.append(Diary(redis_server, queue))
        return made[-1]

    yield make
    for each in made:
        each.close()


def live_pods(fleet: Fleet) -> list[Object]:
    """Pods that nobody has begun to end."""
    pods = fleet.api.list("pods", fleet.namespace, labels=f"astrid.dev/queue={fleet.name}")
    return [each for each in pods if not each["metadata"].get("deletionTimestamp")]


def live(fleet: Fleet) -> set[str]:
    """Their names."""
    return {each["metadata"]["name"] for each in live_pods(fleet)}


def retired(operator: OperatorProcess, fleet: Fleet) -> dict[str, int]:
    """Pods that left as they were chosen, and others, by the operator's own count."""
    found = {"chosen": 0, "other": 0}
    for line in operator.metrics().splitlines():
        if line.startswith("astrid_queue_retired_workers_total") and f'queue="{fleet.name}"' in line:
            which = line.split('which="')[1].split('"')[0]
            found[which] = int(float(line.split()[-1]))
    return found


@pytest.mark.usefixtures("crd")
def test_idle_members_leave_while_others_work_and_no_task_is_broken_off(
    start_operator: StartOperator,
    api: Api,
    namespace: str,
    redis_server: RedisServer,
    process_pods: ProcessPods,
    make_diary: MakeDiary,
) -> None:
    """200 tasks, a fleet that shrinks in between, and a task longer than idleSeconds: each runs exactly once."""
    operator = start_operator("--namespace", namespace, env={"REDIS_URL": redis_server.url()})
    fleet = make_fleet(api, namespace, "shrinks", **DIARY_APP, scaling=EAGER)
    diary = make_diary("shrinks")
    diary.send(70, "long")
    for number in range(120):
        diary.send(0.05, f"early-{number}")
    fleet.wait_for_replicas(4)
    busy = diary.pod_of("long")

    for number in range(80):
        diary.send(0.05, f"late-{number}")
        if fleet.replicas == 1:
            break
        time.sleep(0.5)  # the load itself: tasks that come while members leave
    fleet.wait_for_replicas(1, timeout_s=60)
    assert "long" not in diary.marks("end"), "it shrank only when nobody worked any more"
    wait_until(lambda: live(fleet) == {busy}, 30, "everybody but the busy one to leave")
    for number in range(len(diary.sent), 200):
        diary.send(0.05, f"last-{number}")

    diary.wait_until_done()
    fleet.wait_for_replicas(0, timeout_s=60)
    wait_until(lambda: not process_pods.alive(namespace), 60, "all pods to be gone")
    diary.check_each_ran_once()
    assert len(diary.sent) >= 200
    assert not any(run.was_killed for run in process_pods.of(namespace))
    assert [code for run in process_pods.of(namespace) for _, code in run.exits if code] == []
    found = wait_until(
        lambda: sum(retired(operator, fleet).values()) >= 4 and retired(operator, fleet), 20, "a count"
    )
    assert found["other"] == 0


@pytest.mark.usefixtures("crd")
def test_an_operator_that_dies_while_members_leave_leaves_nobody_asked(
    start_operator: StartOperator,
    api: Api,
    namespace: str,
    redis_server: RedisServer,
    process_pods: ProcessPods,
    make_diary: MakeDiary,
) -> None:
    """Asked to leave and then needed: the next operator takes it back, and the member works on."""
    env = {"REDIS_URL": redis_server.url(), **QUICK_LEASE}
    first = start_operator("--namespace", namespace, env=env)
    fleet = make_fleet(api, namespace, "survives", **DIARY_APP, scaling={"mode": "Manual"}, replicas=2)
    diary = make_diary("survives")
    presence, drain = "astrid:dramatiq:presence:survives", "astrid:dramatiq:drain:survives"
    wait_until(lambda: redis_server.client.hlen(presence) == 2, 60, "both members to speak")
    diary.send(40, "one")
    diary.send(40, "two")
    wait_until(lambda: len(diary.marks("begin")) == 2, 30, "both members to work")
    fleet.edit(replicas=1)
    wait_until(lambda: redis_server.client.scard(drain) == 1, 20, "one to be asked")
    first.process.kill()
    assert fleet.replicas == 2, "a busy member was taken"

    fleet.edit(replicas=2)
    start_operator("--namespace", namespace, env=env)
    wait_until(lambda: redis_server.client.scard(drain) == 0, 30, "the request to be taken back")
    pods = live(fleet)
    diary.wait_until_done()
    diary.send(5, "three")
    diary.send(5, "four")
    wait_until(
        lambda: {pod for mark, pod in diary.lines("begin") if mark in ("three", "four")} == pods, 30, "both"
    )
    diary.wait_until_done()
    diary.check_each_ran_once()
    assert live(fleet) == pods


@pytest.mark.usefixtures("crd")
def test_a_busy_member_that_must_leave_finishes_first(
    start_operator: StartOperator,
    api: Api,
    namespace: str,
    redis_server: RedisServer,
    process_pods: ProcessPods,
    make_diary: MakeDiary,
) -> None:
    """A person asks for fewer than are busy: the pod is not touched before its task has ended, and takes no other."""
    start_operator("--namespace", namespace, env={"REDIS_URL": redis_server.url()})
    fleet = make_fleet(api, namespace, "fewer", **DIARY_APP, scaling={"mode": "Manual"}, replicas=1)
    diary = make_diary("fewer")
    diary.send(12, "running")
    (pod,) = {diary.pod_of("running")}
    diary.send(0.1, "waiting")
    fleet.edit(replicas=0)
    fleet.wait_for_replicas(0, timeout_s=60)

    assert diary.marks("end") == ["running"], "the pod went before its task had ended, or took another"
    wait_until(lambda: not process_pods.alive(namespace), 60, "the pod to be gone")
    (run,) = [each for each in process_pods.of(namespace) if each.name == pod]
    assert run.asked_to_leave_at is not None
    assert not run.was_killed
    assert redis_server.client.hlen("dramatiq:fewer.msgs") == 1


ROLLING: dict[str, Any] = {"scaling": {"mode": "Manual"}, "replicas": 2}


@pytest.mark.usefixtures("crd")
def test_a_roll_breaks_off_no_task(
    start_operator: StartOperator,
    api: Api,
    namespace: str,
    redis_server: RedisServer,
    process_pods: ProcessPods,
    make_diary: MakeDiary,
) -> None:
    """New members come before old ones go, and these finish what they run within their grace."""
    start_operator("--namespace", namespace, env={"REDIS_URL": redis_server.url()})
    fleet = make_fleet(api, namespace, "rolls", **DIARY_APP, **ROLLING)
    diary = make_diary("rolls")
    diary.send(15, "long")
    for number in range(60):
        diary.send(0.2, f"short-{number}")
    diary.pod_of("long")
    old = live(fleet)
    fleet.edit(maxRetries=9)
    wait_until(lambda: not live(fleet) & old and len(live(fleet)) == 2, 90, "all members to be new")

    diary.wait_until_done()
    diary.check_each_ran_once()
    wait_until(
        lambda: {run.name for run in process_pods.alive(namespace)} == live(fleet), 60, "the old to end"
    )
    assert not any(run.was_killed for run in process_pods.of(namespace))


BUSY_HINTS = {
    "cluster-autoscaler.kubernetes.io/safe-to-evict": "false",
    "karpenter.sh/do-not-disrupt": "true",
    "controller.kubernetes.io/pod-deletion-cost": "1000",
}


@pytest.mark.usefixtures("crd")
def test_a_pod_that_works_for_long_is_shielded_until_it_rests(
    start_operator: StartOperator,
    api: Api,
    namespace: str,
    redis_server: RedisServer,
    control_plane: ControlPlane,
    make_diary: MakeDiary,
) -> None:
    """Node autoscalers, ReplicaSets and evictions are told once that a GPU's pod works, and once that it rests."""
    start_operator("--namespace", namespace, env={"REDIS_URL": redis_server.url()})
    with new_process_pods(control_plane, capacity={"nvidia.com/gpu": "1"}) as pods:
        spec = DIARY_APP | {"gpu": {"count": 1}, "scaling": {"mode": "Manual"}, "replicas": 1}
        fleet = make_fleet(api, namespace, "shielded", **spec)
        diary = make_diary("shielded")
        diary.send(45, "long")
        name = diary.pod_of("long")

        def hints() -> dict[str, str]:
            return api.get("pods", name, namespace)["metadata"].get("annotations", {})

        def most() -> Any:
            return api.get("poddisruptionbudgets", fleet.name, namespace)["spec"]["maxUnavailable"]

        assert most() == "25%"
        assert not BUSY_HINTS.items() & hints().items()
        wait_until(
            lambda: BUSY_HINTS.items() <= hints().items() and most() == 0, 45, "the pod to be shielded"
        )
        assert diary.marks("end") == []
        versions = set()
        while not diary.marks("end"):
            versions.add(api.get("pods", name, namespace)["metadata"]["resourceVersion"])
        assert len(versions) == 1, "written more than once"

        wait_until(
            lambda: not BUSY_HINTS.keys() & hints().keys() and most() == "25%", 60, "the shield to fall"
        )
        assert live(fleet) == {name}
        assert [run.name for run in pods.alive(namespace)] == [name]


@pytest.mark.usefixtures("crd")
def test_a_queue_that_is_deleted_by_drain_goes_when_its_tasks_have_ended(
    start_operator: StartOperator,
    api: Api,
    namespace: str,
    redis_server: RedisServer,
    process_pods: ProcessPods,
    make_diary: MakeDiary,
) -> None:
    """The object stays as long as a task runs, takes no new one, and leaves nothing behind."""
    start_operator("--namespace", namespace, env={"REDIS_URL": redis_server.url()})
    manual = {"scaling": {"mode": "Manual"}, "replicas": 1}
    fleet = make_fleet(api, namespace, "drains", **DIARY_APP, **manual, deletionPolicy="Drain")
    wait_until(lambda: fleet.queue["metadata"].get("finalizers") == ["astrid.dev/drain"], 20, "the finalizer")
    diary = make_diary("drains")
    diary.send(15, "running")
    diary.pod_of("running")
    diary.send(0.1, "waiting")
    api.delete("astridqueues", "drains", namespace)

    def is_gone() -> bool:
        return api.find("astridqueues", "drains", namespace) is None

    wait_until(lambda: is_gone() or diary.marks("end"), 60, "the task to end")
    assert diary.marks("end") == ["running"]
    wait_until(is_gone, 60, "the AstridQueue to go")
    wait_until(lambda: api.find("deployments", "drains", namespace) is None, 60, "the Deployment to go")
    assert diary.marks("begin") == diary.marks("end") == ["running"]
    assert not any(run.was_killed for run in process_pods.of(namespace))


@pytest.mark.usefixtures("crd")
def test_a_policy_that_is_taken_back_leaves_no_finalizer(
    start_operator: StartOperator, api: Api, namespace: str, redis_url: str
) -> None:
    """What the operator set it takes away; another's finalizer stays."""
    start_operator("--namespace", namespace, env={"REDIS_URL": redis_url})
    fleet = make_fleet(api, namespace, "changes", deletionPolicy="Drain")
    wait_until(lambda: fleet.queue["metadata"].get("finalizers"), 20, "the finalizer")
    both = {"metadata": {"finalizers": ["example.com/theirs", "astrid.dev/drain"]}}
    api.patch("astridqueues", "changes", namespace, both)
    fleet.edit(deletionPolicy="Delete")
    wait_until(
        lambda: fleet.queue["metadata"]["finalizers"] == ["example.com/theirs"], 20, "it to be taken away"
    )
    api.patch("astridqueues", "changes", namespace, {"metadata": {"finalizers": None}})
