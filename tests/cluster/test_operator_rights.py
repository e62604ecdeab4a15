"""The operator under the rights that the manifests give it, and under no others."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.api_client import Api, Object
from cluster.astrid_objects import Fleet, make_fleet, push
from cluster.conftest import StartOperator
from cluster.control_plane import ControlPlane
from support.redis_server import RedisServer
from support.waiting import wait_until

RBAC = Path(__file__).resolve().parents[2] / "manifests" / "base" / "rbac.yaml"


def _documents(namespace: str) -> list[Object]:
    """The rights of the manifests, for an operator that runs in `namespace`."""
    found = list(yaml.safe_load_all(RBAC.read_text()))
    for each in found:
        if not each["kind"].startswith("Cluster"):
            each["metadata"]["namespace"] = namespace
        for subject in each.get("subjects", ()):
            subject["namespace"] = namespace
    return found


@pytest.fixture
def apply(api: Api) -> Iterator[Any]:
    """Applies documents; those of the whole cluster go with the test."""
    applied: list[Object] = []

    def apply(documents: list[Object]) -> None:
        for each in documents:
            api.apply(each, each["metadata"].get("namespace"))
            applied.append(each)

    yield apply
    for each in applied:
        if each["kind"].startswith("Cluster"):
            api.delete(f"{each['kind'].lower()}s", each["metadata"]["name"])


def _works(fleet: Fleet, redis_server: RedisServer) -> None:
    """Creation, repair, size, status and events all take place."""
    push(redis_server.client, fleet.name, 2)
    fleet.wait_for_replicas(2)
    last = wait_until(lambda: fleet.queue["status"].get("lastScale"), 20, "the scaling to be told")
    wait_until(
        lambda: any(each["reason"] == last["reason"] for each in fleet.api.list("events", fleet.namespace)),
        20,
        "an event",
    )
    fleet.api.delete("poddisruptionbudgets", fleet.name, fleet.namespace)
    wait_until(
        lambda: fleet.api.find("poddisruptionbudgets", fleet.name, fleet.namespace),
        20,
        "the budget to come back",
    )


def test_rights_for_all_namespaces_are_enough(
    start_operator: StartOperator,
    control_plane: ControlPlane,
    api: Api,
    namespace: str,
    make_namespace: Any,
    apply: Any,
    redis_server: RedisServer,
) -> None:
    """As installed: one operator for every namespace, and nothing is refused."""
    apply(_documents(namespace))
    operator = start_operator(
        kubeconfig=control_plane.kubeconfig_of_service_account(namespace, "astrid-operator"),
        env={"REDIS_URL": redis_server.url(), "ASTRID_OPERATOR_LEASE_NAMESPACE": namespace},
    )
    _works(make_fleet(api, make_namespace(), "anywhere", scaling={"expectedTaskSeconds": 60}), redis_server)

    assert "forbidden" not in operator.process.text().lower()


def test_rights_to_see_supply_may_be_left_out(
    start_operator: StartOperator,
    control_plane: ControlPlane,
    api: Api,
    namespace: str,
    make_namespace: Any,
    apply: Any,
    redis_server: RedisServer,
) -> None:
    """Without nodes and quotas fleets are made and sized; which rules are missing is said, each once."""
    documents = _documents(namespace)
    for each in documents:
        if "rules" in each:
            each["rules"] = [
                rule for rule in each["rules"] if not {"nodes", "resourcequotas"} & set(rule["resources"])
            ]
    apply(documents)
    operator = start_operator(
        kubeconfig=control_plane.kubeconfig_of_service_account(namespace, "astrid-operator"),
        env={"REDIS_URL": redis_server.url(), "ASTRID_OPERATOR_LEASE_NAMESPACE": namespace},
    )
    _works(make_fleet(api, make_namespace(), "anywhere", scaling={"expectedTaskSeconds": 60}), redis_server)

    refusals = [line for line in operator.process.text().splitlines() if "forbidden" in line.lower()]
    assert len(refusals) == 2, refusals
    assert "resources: [resourcequotas]" in refusals[0]
    assert "resources: [nodes]" in refusals[1]


def test_rights_in_one_namespace_are_enough_for_it(
    start_operator: StartOperator,
    control_plane: ControlPlane,
    api: Api,
    namespace: str,
    apply: Any,
    redis_server: RedisServer,
) -> None:
    """The same ClusterRole bound by a RoleBinding: no right outside the namespace is needed."""
    documents = [each for each in _documents(namespace) if each["kind"] != "ClusterRoleBinding"]
    (cluster_role,) = (
        each
        for each in documents
        if each["kind"] == "ClusterRole" and each["metadata"]["name"] == "astrid-operator"
    )
    binding = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": {"name": "astrid-operator-fleets", "namespace": namespace},
        "roleRef": {
            "apiGroup": "rbac.authorization.k8s.io",
            "kind": "ClusterRole",
            "name": cluster_role["metadata"]["name"],
        },
        "subjects": [{"kind": "ServiceAccount", "name": "astrid-operator", "namespace": namespace}],
    }
    apply([*documents, binding])
    operator = start_operator(
        "--namespace",
        namespace,
        kubeconfig=control_plane.kubeconfig_of_service_account(namespace, "astrid-operator"),
        env={"REDIS_URL": redis_server.url()},
    )
    _works(make_fleet(api, namespace, "here", scaling={"expectedTaskSeconds": 60}), redis_server)

    assert "forbidden" not in operator.process.text().lower()
