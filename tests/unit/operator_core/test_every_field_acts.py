"""Each field of a spec does something: another value of it changes what is made or what is decided.

What a change does in detail is tested where it is done; here no field may stand in the schema for nothing.
"""

import copy
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from astrid_operator.astrid_queue import AstridQueue, QueueKey
from astrid_operator.budget import Claim, grants
from astrid_operator.desired import OperatorDefaults, desired_deployment
from astrid_operator.fleet import FleetState
from astrid_operator.local_slots import LocalSlots
from astrid_operator.scaling import Demand, DemandReading, Reason, ScalingDecision, ScalingMemory, decide
from support.queue_documents import queue

Json = Any

ROOT = Path(__file__).resolve().parents[3]
CRD = yaml.safe_load((ROOT / "crds/astridqueues.astrid.dev.yaml").read_text())
NOW = 1000.0
OLD = ScalingMemory(started_at=0.0)

#: Whole fields: nothing is left of one that is not given.
TOLERATION = {
    "key": "gpu",
    "operator": "Equal",
    "value": "yes",
    "effect": "NoExecute",
    "tolerationSeconds": 60,
}
SPREAD = {
    "maxSkew": 1,
    "topologyKey": "zone",
    "whenUnsatisfiable": "DoNotSchedule",
    "minDomains": 2,
    "nodeAffinityPolicy": "Honor",
    "nodeTaintsPolicy": "Honor",
}
VARIABLE = {"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k", "optional": False}}}
MAPPED = {"name": "A", "valueFrom": {"configMapKeyRef": {"name": "s", "key": "k", "optional": False}}}
CLAIM = {"claimName": "frames", "mountPath": "/in", "readOnly": False}
SECRETS = {"prefix": "A_", "secretRef": {"name": "s", "optional": False}}
MAPS = {"prefix": "A_", "configMapRef": {"name": "s", "optional": False}}
PLAIN: Json = {"app": "shop.tasks"}

#: path of a field → a spec, and another value of that field in it (`[]` steps into the one item of a list).
CHANGES: dict[str, tuple[Json, Json]] = {
    "queueName": (PLAIN | {"queueName": "a"}, "b"),
    "workerType": (PLAIN | {"workerType": "a"}, "b"),
    "app": (PLAIN, "shop.other"),
    "middleware.configMapRef.name": (PLAIN | {"middleware": {"configMapRef": {"name": "a"}}}, "b"),
    "image": ({"image": "a:1"}, "a:2"),
    "imagePullPolicy": ({"imagePullPolicy": "IfNotPresent"}, "Always"),
    "imagePullSecrets[].name": ({"imagePullSecrets": [{"name": "a"}]}, "b"),
    "enabled": ({"enabled": True}, False),
    "paused": ({"paused": "None"}, "All"),
    "priority": ({"priority": 1}, 9),
    "maxRetries": ({"maxRetries": 1}, 2),
    "retryDelaySeconds": ({"retryDelaySeconds": 1}, 2),
    "maxRetryDelaySeconds": ({"maxRetryDelaySeconds": 100}, 200),
    "timeoutSeconds": ({"timeoutSeconds": 100}, 200),
    "concurrency": ({"concurrency": 1}, 2),
    "processes": ({"processes": 1}, 2),
    "prefetch": ({"prefetch": 1}, 2),
    "replicas": ({"replicas": 1}, 3),
    "scaling.mode": ({"replicas": 1, "scaling": {"mode": "Auto"}}, "Manual"),
    "scaling.minReplicas": ({"scaling": {"minReplicas": 0}}, 2),
    "scaling.maxReplicas": ({"scaling": {"maxReplicas": 10}}, 3),
    "scaling.targetDrainSeconds": (
        {"scaling": {"expectedTaskSeconds": 6, "maxReplicas": 99, "targetDrainSeconds": 60}},
        600,
    ),
    "scaling.maxQueueAgeSeconds": (
        {"scaling": {"expectedTaskSeconds": 0.001, "maxReplicas": 99, "maxQueueAgeSeconds": 120}},
        600,
    ),
    "scaling.idleSeconds": ({"scaling": {"idleSeconds": 60}}, 10),
    "scaling.expectedTaskSeconds": ({"scaling": {"expectedTaskSeconds": 1}}, 2),
    "scaling.unschedulableSeconds": ({"scaling": {"unschedulableSeconds": 300, "maxReplicas": 99}}, 100),
    "scaling.weight": ({"priority": 1, "scaling": {"weight": 1}}, 9),
    "gpu.count": ({"gpu": {"count": 1}}, 2),
    "gpu.resourceName": ({"gpu": {"count": 1, "resourceName": "amd.com/gpu"}}, "nvidia.com/gpu"),
    "resources.requests": ({"resources": {"requests": {"cpu": 1}}}, {"cpu": 2}),
    "resources.limits": ({"resources": {"limits": {"cpu": 1}}}, {"cpu": 2}),
    "nodeSelector": ({"nodeSelector": {"disk": "ssd"}}, {"disk": "hdd"}),
    "tolerations[].key": ({"tolerations": [TOLERATION]}, "tpu"),
    "tolerations[].operator": ({"tolerations": [{"key": "gpu", "operator": "Equal"}]}, "Exists"),
    "tolerations[].value": ({"tolerations": [TOLERATION]}, "no"),
    "tolerations[].effect": ({"tolerations": [{"key": "gpu", "effect": "NoExecute"}]}, "NoSchedule"),
    "tolerations[].tolerationSeconds": ({"tolerations": [TOLERATION]}, 61),
    "affinity.nodeAffinity": ({"affinity": {"nodeAffinity": {"x": 1}}}, {"x": 2}),
    "affinity.podAffinity": ({"affinity": {"podAffinity": {"x": 1}}}, {"x": 2}),
    "affinity.podAntiAffinity": ({"affinity": {"podAntiAffinity": {"x": 1}}}, {"x": 2}),
    "topologySpreadConstraints[].maxSkew": ({"topologySpreadConstraints": [SPREAD]}, 2),
    "topologySpreadConstraints[].topologyKey": ({"topologySpreadConstraints": [SPREAD]}, "node"),
    "topologySpreadConstraints[].whenUnsatisfiable": (
        {"topologySpreadConstraints": [{"topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}]},
        "ScheduleAnyway",
    ),
    "topologySpreadConstraints[].minDomains": ({"topologySpreadConstraints": [SPREAD]}, 3),
    "topologySpreadConstraints[].nodeAffinityPolicy": ({"topologySpreadConstraints": [SPREAD]}, "Ignore"),
    "topologySpreadConstraints[].nodeTaintsPolicy": ({"topologySpreadConstraints": [SPREAD]}, "Ignore"),
    "priorityClassName": ({"priorityClassName": "night"}, "day"),
    "podLabels": ({"podLabels": {"team": "a"}}, {"team": "b"}),
    "podAnnotations": ({"podAnnotations": {"team": "a"}}, {"team": "b"}),
    "runAsUser": ({"runAsUser": 1000}, 1001),
    "env[].name": ({"env": [{"name": "A", "value": "1"}]}, "B"),
    "env[].value": ({"env": [{"name": "A", "value": "1"}]}, "2"),
    "env[].valueFrom.secretKeyRef.name": ({"env": [VARIABLE]}, "t"),
    "env[].valueFrom.secretKeyRef.key": ({"env": [VARIABLE]}, "l"),
    "env[].valueFrom.secretKeyRef.optional": ({"env": [VARIABLE]}, True),
    "env[].valueFrom.configMapKeyRef.name": ({"env": [MAPPED]}, "t"),
    "env[].valueFrom.configMapKeyRef.key": ({"env": [MAPPED]}, "l"),
    "env[].valueFrom.configMapKeyRef.optional": ({"env": [MAPPED]}, True),
    "envFrom[].prefix": ({"envFrom": [SECRETS]}, "B_"),
    "envFrom[].secretRef.name": ({"envFrom": [SECRETS]}, "t"),
    "envFrom[].secretRef.optional": ({"envFrom": [SECRETS]}, True),
    "envFrom[].configMapRef.name": ({"envFrom": [MAPS]}, "t"),
    "envFrom[].configMapRef.optional": ({"envFrom": [MAPS]}, True),
    "volumeClaims[].claimName": ({"volumeClaims": [CLAIM]}, "flats"),
    "volumeClaims[].mountPath": ({"volumeClaims": [CLAIM]}, "/out"),
    "volumeClaims[].readOnly": ({"volumeClaims": [CLAIM]}, True),
    "broker.secretRef.name": ({"broker": {"secretRef": {"name": "a"}}}, "b"),
    "broker.secretRef.key": ({"broker": {"secretRef": {"key": "a"}}}, "b"),
    "broker.namespace": ({"broker": {"namespace": "a"}}, "b"),
}

#: What neither the manifests nor a decision depend on: it is about how a fleet ends.
ELSEWHERE = {"deletionPolicy"}


def fleet(members: int, **more: Any) -> FleetState:
    return FleetState(exists=True, desired=members, current=members, ready=members, **more)


#: Situations in which a scaling field shows: what is read, the fleet, and what is remembered.
SITUATIONS: tuple[tuple[Demand, FleetState, ScalingMemory], ...] = (
    (Demand(ready=480), FleetState(), OLD),
    (Demand(ready=480), fleet(5), OLD),
    (Demand(ready=40, oldest_seconds=300), fleet(2), OLD),
    (Demand(), fleet(5), replace(OLD, at=NOW, demand=Demand(), idle_seconds=30)),
    (Demand(ready=480), fleet(12, unscheduled=8, unschedulable_since=NOW - 200), OLD),
)


def decided(one: AstridQueue) -> list[ScalingDecision]:
    """What is decided for it in each situation."""
    return [
        decide(one.spec, DemandReading(NOW, demand, "", NOW), members, memory, NOW)[0]
        for demand, members, memory in SITUATIONS
    ]


class Nobody:
    """No fleets besides those that are asked for."""

    def keys(self) -> set[QueueKey]:
        return set()

    def slots_of(self, key: QueueKey) -> int:
        raise KeyError(key)


def granted(one: AstridQueue) -> int:
    """Members that it gets beside another queue of priority 1 and weight 1, where both want all ten slots."""
    other = queue("other", app="shop.tasks", priority=1)
    wish = ScalingDecision(10, Reason.BACKLOG, "", wanted=10)
    slots = LocalSlots(10, Nobody())
    return slots({each.key: (each, FleetState(), wish) for each in (one, other)})[one.key].replicas


def effects(spec: Json) -> tuple[Json, ...]:
    """All that follows from a spec: the fleet's manifest, its sizes, and its part of what is short."""
    one = queue(**spec)
    return desired_deployment(one, OperatorDefaults("worker:1")), decided(one), granted(one)


def changed(spec: Json, path: str, value: Json) -> Json:
    """`spec` with another value at `path`."""
    made = copy.deepcopy(spec)
    *way, last = path.replace("[]", ".0").split(".")
    place = made
    for step in way:
        place = place[int(step)] if step.isdigit() else place.setdefault(step, {})
    place[last] = value
    return made


def leaves(schema: Json, path: str = "") -> Iterator[str]:
    """Paths of the fields that have no fields of their own."""
    inner, mark = (schema["items"], "[]") if "items" in schema else (schema, "")
    if "properties" not in inner:
        yield path + mark
    for name, each in inner.get("properties", {}).items():
        yield from leaves(each, f"{path}{mark}.{name}".lstrip("."))


def test_the_table_has_every_field() -> None:
    """A new field of the schema needs a row here: it must do something."""
    spec = CRD["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]

    assert set(CHANGES) | ELSEWHERE == set(leaves(spec))


@pytest.mark.parametrize("path", CHANGES, ids=CHANGES.keys())
def test_another_value_has_another_effect(path: str) -> None:
    """No field is only parsed: a change of it reaches the manifest, a decision or the sharing of slots."""
    spec, value = CHANGES[path]

    assert effects(spec) != effects(changed(spec, path, value))


def test_weight_shares_and_priority_comes_first() -> None:
    """Of ten slots that two queues want for themselves: alike, by weight, or all to the first class."""
    assert granted(queue(app="shop.tasks", priority=1)) == 5
    assert granted(queue(app="shop.tasks", priority=1, scaling={"weight": 3})) == 8
    assert granted(queue(app="shop.tasks", priority=2)) == 0


def test_gpus_are_the_same_sum() -> None:
    """A class gets its devices before the next; whoever wants more than there are is told who holds them."""
    first = Claim(QueueKey("sky", "detection"), 1, decided=2, wanted=2, current=2, slots_each=2)
    late = Claim(QueueKey("sky", "archive"), 5, decided=2, wanted=2, current=0)
    found = grants([first, late], 5, "GPU")

    assert (found[first.key].members, found[late.key].members) == (2, 1)
    assert found[late.key].why == "5 GPUs in all, held by detection 4"
