"""One operator on a real control plane: fleets come, are kept, edited and go as their AstridQueues say."""

import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cluster.api_client import Api, ApiFailure, Object
from cluster.astrid_objects import (
    SOON_S,
    Fleet,
    astrid_queue,
    drop,
    make_fleet,
    managers_of_replicas,
    push,
    samples,
)
from cluster.control_plane import free_ports
from cluster.operator_process import OperatorProcess
from support.redis_server import RedisServer, valkey_binary
from support.waiting import wait_until


@dataclass(frozen=True, slots=True)
class Served:
    """A namespace that an operator serves, and the Redis that it reads."""

    api: Api
    namespace: str
    redis: RedisServer
    operator: OperatorProcess

    def fleet(self, **spec: Any) -> Fleet:
        """A new AstridQueue of a name of its own, with its fleet."""
        return make_fleet(self.api, self.namespace, f"q-{secrets.token_hex(3)}", **spec)

    def versions(self) -> dict[str, str]:
        """The version of everything that the operator may write here, the Lease apart."""
        kinds = ("astridqueues", "deployments", "poddisruptionbudgets", "events")
        return {
            f"{kind}/{each['metadata']['name']}": each["metadata"]["resourceVersion"]
            for kind in kinds
            for each in self.api.list(kind, self.namespace)
        }


@pytest.fixture(scope="module")
def served(
    api: Api, crd: Object, kubeconfig: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    """One operator for all tests of this file, each of which uses queues of its own."""
    namespace = f"fleets-{secrets.token_hex(3)}"
    api.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
    server = RedisServer(valkey_binary())
    server.start()
    log = tmp_path_factory.mktemp("operator") / "operator.log"
    operator = OperatorProcess.start(
        kubeconfig,
        log,
        arguments=("--namespace", namespace),
        env={"REDIS_URL": server.url()},
        ports=free_ports(2),
    ).wait_until_healthy()
    yield Served(api, namespace, server, operator)
    operator.process.stop()
    server.close()
    api.delete("namespaces", namespace)


def test_the_six_samples_appear_at_zero(served: Served) -> None:
    """Applying the project's own queues makes six fleets without a member, each of which says so."""
    for sample in samples():
        served.api.apply(sample, served.namespace)
    fleets = [Fleet(served.api, served.namespace, each["metadata"]["name"]) for each in samples()]

    assert len(fleets) == 6
    for fleet in fleets:
        fleet.wait_until_made()
        assert fleet.replicas == 0
        assert fleet.wait_for("Ready", "True")["reason"] == "Idle"
        assert {each["type"] for each in fleet.queue["status"]["conditions"]} == {
            "Ready",
            "Reconciling",
            "Stalled",
            "ScalingActive",
            "BrokerReachable",
        }
        assert all(each["observedGeneration"] == 1 for each in fleet.queue["status"]["conditions"])


def test_nothing_is_written_while_nothing_changes(served: Served) -> None:
    """Steady state: no object gets a new version, however many ticks pass."""
    fleets = [served.fleet() for _ in range(3)]
    wait_until(lambda: all("demand" in each.queue["status"] for each in fleets), 60, "all to be told")
    before = served.versions()
    ticks = _ticks(served.operator)
    wait_until(lambda: _ticks(served.operator) >= ticks + 8, 60, "eight more ticks")

    assert served.versions() == before


def test_a_push_raises_replicas_within_two_seconds_in_one_write(served: Served) -> None:
    """From zero to all that is wanted at the next tick; the generation counts the writes of the spec.

    The median of three, so that one hiccup of a busy machine is not taken for the rule.
    """
    seconds = []
    for _ in range(3):
        fleet = served.fleet(scaling={"maxReplicas": 50, "expectedTaskSeconds": 6})
        assert fleet.deployment["metadata"]["generation"] == 1
        push(served.redis.client, fleet.name, 300)
        pushed_at = time.monotonic()
        fleet.wait_for_replicas(30)
        seconds.append(time.monotonic() - pushed_at)
        assert fleet.deployment["metadata"]["generation"] == 2
        last = wait_until(lambda fleet=fleet: fleet.queue["status"].get("lastScale"), SOON_S, "it to be told")
        assert (last["from"], last["to"]) == (0, 30)
        wait_until(
            lambda fleet=fleet, last=last: last["reason"] in _reasons(served, fleet), SOON_S, "an event"
        )

    assert sorted(seconds)[1] <= 2, seconds


def test_replicas_belong_to_scale_alone(served: Served) -> None:
    """After creation the manifest never holds the size: an apply of the shape cannot undo a decision."""
    fleet = served.fleet(scaling={"mode": "Manual"})
    created = managers_of_replicas(fleet.deployment)
    fleet.edit(replicas=3)
    fleet.wait_for_replicas(3)
    fleet.edit(maxRetries=9)
    wait_until(lambda: _environment(fleet)["WORKER_MAX_RETRIES"] == "9", SOON_S, "the edit to arrive")

    assert created == {("astrid-operator-replicas", "")}
    assert managers_of_replicas(fleet.deployment) == {("astrid-operator", "scale")}
    assert fleet.replicas == 3


def test_scale_is_a_floor_in_auto_and_says_so(served: Served) -> None:
    """`kubectl scale` is honoured at once, demand may still ask for more, and more than the maximum is refused."""
    fleet = served.fleet(scaling={"maxReplicas": 5, "expectedTaskSeconds": 60})
    served.api.scale("astridqueues", fleet.name, served.namespace, 2)
    fleet.wait_for_replicas(2)
    last = wait_until(lambda: fleet.queue["status"].get("lastScale"), SOON_S, "the scaling to be told")
    push(served.redis.client, fleet.name, 4)
    fleet.wait_for_replicas(4)

    assert last["reason"] == "Floor"
    assert "floor" in last["message"]
    with pytest.raises(ApiFailure, match="replicas"):
        served.api.scale("astridqueues", fleet.name, served.namespace, 6)


def test_scale_can_be_read_back(served: Served) -> None:
    """`/scale` of the AstridQueue has the replicas and a selector string, so that an HPA can use it."""
    fleet = served.fleet(replicas=1)
    fleet.wait_for_replicas(1)
    scale = served.api.get("astridqueues", fleet.name, served.namespace, "scale")

    assert scale["spec"]["replicas"] == 1
    assert f"astrid.dev/queue={fleet.name}" in scale["status"]["selector"]


def test_manual_is_exactly_that_many(served: Served) -> None:
    """In Manual mode demand is not looked at, up or down."""
    fleet = served.fleet(replicas=2, scaling={"mode": "Manual"})
    fleet.wait_for_replicas(2)
    push(served.redis.client, fleet.name, 500)
    _ticks_pass(served.operator, 3)
    assert fleet.replicas == 2
    assert fleet.condition("ScalingActive")["reason"] == "Manual"

    served.api.scale("astridqueues", fleet.name, served.namespace, 0)
    fleet.wait_for_replicas(0)


def test_pause_holds_the_size_and_its_end_lets_go(served: Served) -> None:
    """`paused: All` freezes, `ScaleOut` forbids growth only; the field is looked at every tick."""
    fleet = served.fleet(paused="All", scaling={"expectedTaskSeconds": 60})
    push(served.redis.client, fleet.name, 3)
    _ticks_pass(served.operator, 3)
    assert fleet.replicas == 0
    assert fleet.wait_for("Ready", "True")["reason"] == "Paused"

    fleet.edit(paused="ScaleOut")
    _ticks_pass(served.operator, 3)
    assert fleet.replicas == 0

    fleet.edit(paused="None")
    fleet.wait_for_replicas(3)


def test_disabled_goes_to_zero_whatever_waits(served: Served) -> None:
    """`enabled: false` beats demand, and the end of it brings the fleet back."""
    fleet = served.fleet(scaling={"expectedTaskSeconds": 60})
    push(served.redis.client, fleet.name, 2)
    fleet.wait_for_replicas(2)
    fleet.edit(enabled=False)
    fleet.wait_for_replicas(0)
    wait_until(lambda: fleet.condition("ScalingActive").get("reason") == "Disabled", SOON_S, "Disabled")

    fleet.edit(enabled=True)
    fleet.wait_for_replicas(2)


ROLLS: dict[str, Any] = {
    "maxRetries": 7,
    "retryDelaySeconds": 9,
    "concurrency": 3,
    "timeoutSeconds": 77,
    "image": "example/other:2",
    "gpu": {"count": 1},
    "resources": {"limits": {"memory": "1Gi"}},
    "env": [{"name": "MY_SETTING", "value": "on"}],
}
ACTS_AT_ONCE: dict[str, Any] = {
    "priority": 1,
    "scaling": {"maxReplicas": 4, "targetDrainSeconds": 30, "idleSeconds": 7, "minReplicas": 0},
}


@pytest.mark.parametrize("field", sorted(ROLLS))
def test_an_edit_of_what_a_worker_is_told_rolls(served: Served, field: str) -> None:
    """The pod template changes, so the Deployment replaces its pods; its size does not change."""
    fleet = served.fleet(scaling={"mode": "Manual"}, replicas=1)
    fleet.wait_for_replicas(1)
    before = fleet.deployment["spec"]["template"]
    fleet.edit(**{field: ROLLS[field]})
    wait_until(lambda: fleet.deployment["spec"]["template"] != before, SOON_S, f"{field} to reach the pods")

    assert fleet.replicas == 1


@pytest.mark.parametrize("field", sorted(ACTS_AT_ONCE))
def test_an_edit_of_priority_or_scaling_restarts_nobody(served: Served, field: str) -> None:
    """What the operator alone needs to know never reaches the pod template."""
    fleet = served.fleet()
    before = fleet.deployment["metadata"]["generation"]
    fleet.edit(**{field: ACTS_AT_ONCE[field]})
    generation = fleet.queue["metadata"]["generation"]
    wait_until(
        lambda: fleet.queue["status"]["observedGeneration"] == generation, SOON_S, "the edit to be observed"
    )

    assert fleet.deployment["metadata"]["generation"] == before


def test_a_gpu_fleet_rolls_old_before_new(served: Served) -> None:
    """With GPUs there may be none to spare for a surge; without, none may be missing."""
    plain, gpu = served.fleet(), served.fleet(gpu={"count": 1})

    assert plain.deployment["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
    assert gpu.deployment["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": 0, "maxUnavailable": 1}
    container = gpu.deployment["spec"]["template"]["spec"]["containers"][0]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"


def _another_image(deployment: Object) -> Object:
    name = deployment["spec"]["template"]["spec"]["containers"][0]["name"]
    return {"spec": {"template": {"spec": {"containers": [{"name": name, "image": "example/other:1"}]}}}}


DRIFTS: dict[str, Callable[[Object], Object]] = {
    "image": _another_image,
    "label": lambda _: {"metadata": {"labels": {"astrid.dev/queue": None}}},
    "owner": lambda _: {"metadata": {"ownerReferences": None}},
    "grace": lambda _: {"spec": {"template": {"spec": {"terminationGracePeriodSeconds": 1}}}},
}


@pytest.mark.parametrize("what", sorted(DRIFTS))
def test_a_change_by_hand_is_taken_back(served: Served, what: str) -> None:
    """Drift repair: what the operator sets is what it stays, whoever changes it."""
    fleet = served.fleet()
    good = _shape(fleet.deployment)
    change = DRIFTS[what](fleet.deployment)
    served.api.patch("deployments", fleet.name, served.namespace, change, kind="strategic")
    assert _shape(fleet.deployment) != good
    wait_until(lambda: _shape(fleet.deployment) == good, SOON_S, f"{what} to be repaired")


def test_a_size_by_hand_is_taken_back(served: Served) -> None:
    """Whoever scales the Deployment itself goes round the AstridQueue, and loses."""
    fleet = served.fleet(replicas=1, scaling={"mode": "Manual"})
    fleet.wait_for_replicas(1)
    served.api.scale("deployments", fleet.name, served.namespace, 9)
    fleet.wait_for_replicas(1)


@pytest.mark.parametrize("kind", ["deployments", "poddisruptionbudgets"])
def test_a_child_deleted_by_hand_comes_back(served: Served, kind: str) -> None:
    """With another uid, under the same name, and at the size that was decided."""
    fleet = served.fleet(replicas=2, scaling={"mode": "Manual"})
    fleet.wait_for_replicas(2)
    uid = served.api.get(kind, fleet.name, served.namespace)["metadata"]["uid"]
    served.api.delete(kind, fleet.name, served.namespace)

    def is_back() -> bool:
        found = served.api.find(kind, fleet.name, served.namespace)
        return found is not None and found["metadata"]["uid"] != uid

    wait_until(is_back, SOON_S, f"{kind} to come back")
    fleet.wait_for_replicas(2)


def test_children_are_owned_and_go_with_their_owner(served: Served) -> None:
    """Owner references and the garbage collector do the work: no finalizer is ever set."""
    fleet = served.fleet()
    queue = fleet.queue
    owner = fleet.deployment["metadata"]["ownerReferences"][0]
    assert (owner["uid"], owner["controller"]) == (queue["metadata"]["uid"], True)
    assert "finalizers" not in queue["metadata"]
    assert not any("kopf" in each for each in queue["metadata"].get("annotations", {}))

    served.api.delete("astridqueues", fleet.name, served.namespace)
    for kind in ("astridqueues", "deployments", "poddisruptionbudgets"):
        wait_until(
            lambda kind=kind: served.api.find(kind, fleet.name, served.namespace) is None, 60, f"{kind} to go"
        )


def test_a_queue_made_again_gets_a_fleet_of_its_own(served: Served) -> None:
    """Deleted and made again at once: the old fleet is not adopted, the new one has the new owner."""
    fleet = served.fleet(replicas=1, scaling={"mode": "Manual"})
    old = fleet.deployment["metadata"]["uid"]
    served.api.delete("astridqueues", fleet.name, served.namespace)
    made = served.api.create(astrid_queue(fleet.name, scaling={"mode": "Manual"}), served.namespace)

    def is_new() -> bool:
        found = served.api.find("deployments", fleet.name, served.namespace)
        return (
            found is not None
            and found["metadata"]["uid"] != old
            and found["metadata"]["ownerReferences"][0]["uid"] == made["metadata"]["uid"]
        )

    wait_until(is_new, 60, "a new Deployment")
    fleet.wait_for_replicas(0)


def test_somebody_elses_deployment_is_left_alone(served: Served) -> None:
    """A Deployment of the same name that is not ours is never taken over; a person is told."""
    name = f"theirs-{secrets.token_hex(3)}"
    labels = {"app": name}
    template = {
        "metadata": {"labels": labels},
        "spec": {"containers": [{"name": "x", "image": "example/x:1"}]},
    }
    theirs = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {"replicas": 0, "selector": {"matchLabels": labels}, "template": template},
    }
    before = served.api.create(theirs, served.namespace)
    served.api.create(astrid_queue(name), served.namespace)
    fleet = Fleet(served.api, served.namespace, name)
    stalled = fleet.wait_for("Stalled", "True", "NameTaken")

    assert "nobody" in stalled["message"]
    assert fleet.deployment["spec"] == before["spec"]


def test_what_the_api_server_refuses_is_told_in_its_words(served: Served) -> None:
    """A pod that cannot be made from the spec: Stalled with the server's sentence; the last good fleet stays."""
    fleet = served.fleet(replicas=1, scaling={"mode": "Manual"})
    fleet.wait_for_replicas(1)
    good = fleet.deployment["spec"]["template"]
    term = {"matchExpressions": [{"key": "disk", "operator": "Sometimes"}]}
    rule = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}
    fleet.edit(affinity={"nodeAffinity": rule})
    stalled = fleet.wait_for("Stalled", "True", "InvalidSpec")

    assert "Sometimes" in stalled["message"]
    assert fleet.deployment["spec"]["template"] == good

    fleet.edit(affinity=None)
    fleet.wait_for("Stalled", "False")


def test_a_quota_is_named(served: Served, make_namespace: Callable[[], str]) -> None:
    """Pods that a quota forbids: Stalled with QuotaExceeded and the quota's own sentence, until there is room."""
    quota = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "small"},
        "spec": {"hard": {"count/deployments.apps": "0"}},
    }
    served.api.create(quota, served.namespace)
    try:
        _wait_until_quota_counts(served)
        name = f"q-{secrets.token_hex(3)}"
        served.api.create(astrid_queue(name), served.namespace)
        fleet = Fleet(served.api, served.namespace, name)
        stalled = fleet.wait_for("Stalled", "True", "QuotaExceeded")
        assert "exceeded quota" in stalled["message"]
    finally:
        served.api.delete("resourcequotas", "small", served.namespace)
    fleet.wait_for("Stalled", "False", timeout_s=60)
    wait_until(lambda: fleet.exists, SOON_S, "the Deployment")


def test_pods_that_fit_nowhere_are_told_and_withdrawn_but_one(served: Served) -> None:
    """No node takes them: the condition says so, none is asked for beyond what was wanted, and one waits on."""
    fleet = served.fleet(
        nodeSelector={"kubernetes.io/hostname": "nowhere"},
        scaling={"expectedTaskSeconds": 60, "unschedulableSeconds": 10},
    )
    push(served.redis.client, fleet.name, 4)
    fleet.wait_for_replicas(4)
    wait_until(lambda: "4 without a place" in fleet.condition("Ready")["message"], SOON_S, "it to be told")

    def withdrawn() -> bool:
        last = fleet.queue["status"]["lastScale"]
        assert last["to"] <= 4
        return (last["from"], last["to"], last["reason"]) == (4, 1, "NoRoom")

    wait_until(withdrawn, 60, "the others to be withdrawn")
    assert "more fitted nowhere for 10 s" in fleet.queue["status"]["lastScale"]["message"]


def test_an_unreadable_redis_freezes_the_fleet_and_says_so(served: Served) -> None:
    """Unknown is not zero: nothing shrinks, the condition says since when, and work goes on when it is back."""
    fleet = served.fleet(scaling={"expectedTaskSeconds": 60, "idleSeconds": 0})
    push(served.redis.client, fleet.name, 3)
    fleet.wait_for_replicas(3)
    served.redis.freeze()
    try:
        unreachable = fleet.wait_for("BrokerReachable", "False", timeout_s=40)
        assert "TimedOut" in unreachable["message"]
        assert fleet.replicas == 3
        assert fleet.wait_for("ScalingActive", "False", "BrokerUnreachable")
    finally:
        served.redis.thaw()
    fleet.wait_for("BrokerReachable", "True", timeout_s=40)
    drop(served.redis.client, fleet.name)
    _ticks_pass(served.operator, 3)

    assert fleet.replicas == 3, "an empty queue right after an outage is not believed"


def test_metrics_tell_the_same_as_the_status(served: Served) -> None:
    """Depth and desired size by queue, and the reason as a label."""
    fleet = served.fleet(scaling={"expectedTaskSeconds": 60})
    push(served.redis.client, fleet.name, 2)
    fleet.wait_for_replicas(2)
    last = wait_until(lambda: fleet.queue["status"].get("lastScale"), SOON_S, "the scaling to be told")
    labels = f'namespace="{served.namespace}",queue="{fleet.name}"'
    text = served.operator.metrics()

    assert f'astrid_queue_depth{{{labels},state="ready"}} 2.0' in text
    assert f"astrid_queue_desired_workers{{{labels}}} 2.0" in text
    assert f'reason="{last["reason"]}"' in text
    assert "astrid_leader 1.0" in text


def _shape(deployment: Object) -> tuple[Any, ...]:
    """What must not drift: template, owner and our label."""
    metadata = deployment["metadata"]
    owners = [each["uid"] for each in metadata.get("ownerReferences", [])]
    return deployment["spec"]["template"], owners, metadata["labels"].get("astrid.dev/queue")


def _environment(fleet: Fleet) -> dict[str, Any]:
    container = fleet.deployment["spec"]["template"]["spec"]["containers"][0]
    return {each["name"]: each.get("value") for each in container["env"]}


def _reasons(served: Served, fleet: Fleet) -> set[str]:
    """Reasons of the events about one AstridQueue."""
    events = served.api.list("events", served.namespace, fields=f"involvedObject.name={fleet.name}")
    return {each["reason"] for each in events if each["involvedObject"]["kind"] == "AstridQueue"}


def _ticks(operator: OperatorProcess) -> int:
    lines = operator.metrics().splitlines()
    line = next(each for each in lines if each.startswith("astrid_tick_duration_seconds_count"))
    return int(float(line.split()[1]))


def _ticks_pass(operator: OperatorProcess, count: int) -> None:
    """Wait until the operator has decided `count` more times."""
    until = _ticks(operator) + count
    wait_until(lambda: _ticks(operator) >= until, 60, f"{count} more ticks")


def _wait_until_quota_counts(served: Served) -> None:
    def counts() -> bool:
        quota = served.api.get("resourcequotas", "small", served.namespace)
        return bool(quota.get("status", {}).get("hard"))

    wait_until(counts, SOON_S, "the quota to be counted")
