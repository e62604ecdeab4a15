"""Three queues and eight devices on a made-up node: shared by class and evenly, moved without breaking off a task."""

from collections.abc import Iterator
from typing import Any

import pytest

from cluster.api_client import Api
from cluster.astrid_objects import Fleet, make_fleet
from cluster.conftest import StartOperator, new_process_pods
from cluster.control_plane import ControlPlane
from cluster.diary import DIARY_APP, Diary, let_pods_know
from cluster.process_pods import ProcessPods
from support.redis_server import RedisServer
from support.waiting import wait_until

CHIP = "example.com/chip"
DEVICES = 8
TASK_S = 6.0


@pytest.fixture
def node(control_plane: ControlPlane) -> Iterator[ProcessPods]:
    """A node with eight devices of a kind that nobody has heard of."""
    with new_process_pods(control_plane, capacity={CHIP: str(DEVICES)}) as pods:
        yield pods


def uses_chips(**spec: Any) -> dict[str, Any]:
    """An AstridQueue whose pods take a device each."""
    scaling = {
        "maxReplicas": DEVICES,
        "expectedTaskSeconds": TASK_S,
        "targetDrainSeconds": 5,
        "idleSeconds": 5,
    }
    return DIARY_APP | {"gpu": {"count": 1, "resourceName": CHIP}, "scaling": scaling, **spec}


def holding(api: Api, namespace: str) -> int:
    """Pods that hold a device or wait for one, those that leave too."""
    return len(api.list("pods", namespace))


def jain(parts: list[int]) -> float:
    """1: all have the same; 1/n: one has all."""
    return sum(parts) ** 2 / (len(parts) * sum(each**2 for each in parts)) if any(parts) else 0.0


@pytest.mark.usefixtures("crd")
def test_devices_go_to_the_first_class_and_evenly_to_the_rest(
    start_operator: StartOperator,
    api: Api,
    namespace: str,
    redis_server: RedisServer,
    node: ProcessPods,
) -> None:
    """Two equals share; a higher class that comes later is served soon, and nobody's task is broken off for it."""
    let_pods_know(api, namespace, redis_server)
    lease = {"ASTRID_OPERATOR_LEASE_NAMESPACE": namespace}
    start_operator(env={"REDIS_URL": redis_server.url(), **lease})
    fleets = {name: make_fleet(api, namespace, name, **uses_chips(priority=5)) for name in ("one", "two")}
    fleets["first"] = make_fleet(api, namespace, "first", **uses_chips(priority=1))
    diaries = {name: Diary(redis_server, name) for name in fleets}
    most = 0

    def sizes() -> list[int]:
        nonlocal most
        most = max(most, holding(api, namespace))
        return [fleets[name].replicas for name in ("one", "two")]

    for name in ("one", "two"):
        for number in range(40):
            diaries[name].send(TASK_S, f"{name}-{number}")
    wait_until(lambda: sum(sizes()) == DEVICES and jain(sizes()) >= 0.95, 90, "an even share")
    wait_until(lambda: diaries["one"].marks("end") and diaries["two"].marks("end"), 90, "both to work")

    for number in range(2):
        diaries["first"].send(TASK_S, f"first-{number}")
    told = wait_until(
        lambda: _limited(fleets["first"]), 30, "the first class to be told who holds what it needs"
    )
    assert set(told["heldBy"]) == {f"{namespace}/one", f"{namespace}/two"}
    wait_until(
        lambda: sizes() and len(diaries["first"].marks("begin")) == 2, 120, "the first class to be served"
    )

    for diary in diaries.values():
        diary.wait_until_done(timeout_s=240)
    for fleet in fleets.values():
        wait_until(lambda fleet=fleet: sizes() and fleet.replicas == 0, 120, "the fleets to go to zero")
    for diary in diaries.values():
        diary.check_each_ran_once()
        diary.close()
    assert most <= DEVICES
    assert not any(run.was_killed for run in node.of(namespace))


def _limited(fleet: Fleet) -> dict[str, Any]:
    gpu: dict[str, Any] = fleet.queue.get("status", {}).get("gpu", {})
    return gpu if gpu.get("heldBy") else {}
