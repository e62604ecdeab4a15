"""The Deployment and the PodDisruptionBudget: what a pod is told, how it is confined, what makes it roll."""

from typing import Any

import pytest

from astrid_operator.astrid_queue import parse_astrid_queue
from astrid_operator.desired import (
    OperatorDefaults,
    desired_deployment,
    desired_pdb,
    selector_labels,
    selector_string,
)
from astrid_operator.rules import RESERVED_VARIABLES
from support.queue_documents import queue

Json = Any
DEFAULTS = OperatorDefaults(image="astrid-worker:9")


def deployment(name: str = "differencing", **spec: Any) -> Json:
    return desired_deployment(queue(name, **spec), DEFAULTS)


def pod(**spec: Any) -> Json:
    return deployment(**spec)["spec"]["template"]["spec"]


def container(**spec: Any) -> Json:
    (only,) = pod(**spec)["containers"]
    return only


def variables(**spec: Any) -> dict[str, Json]:
    """name → value, or where it comes from."""
    return {each["name"]: each.get("value", each.get("valueFrom")) for each in container(**spec)["env"]}


def test_no_replicas_in_the_manifest() -> None:
    """They are /scale's; a manifest that held them would undo every scaling."""
    assert "replicas" not in deployment()["spec"]


def test_children_belong_to_their_astridqueue() -> None:
    """Deleting the object deletes them; nobody else's controller takes them."""
    for child in (deployment(), desired_pdb(queue())):
        assert (child["metadata"]["name"], child["metadata"]["namespace"]) == ("differencing", "sky")
        assert child["metadata"]["ownerReferences"] == [
            {
                "apiVersion": "astrid.dev/v1alpha1",
                "kind": "AstridQueue",
                "name": "differencing",
                "uid": "u-1",
                "controller": True,
                "blockOwnerDeletion": True,
            }
        ]


def test_selector_finds_the_pods_of_this_fleet_alone() -> None:
    """Deployment, budget and /scale select by the same two labels, which every pod bears."""
    labels = selector_labels(queue().key)
    template = deployment(podLabels={"team": "transients"})["spec"]["template"]["metadata"]["labels"]

    assert (
        deployment()["spec"]["selector"]
        == desired_pdb(queue())["spec"]["selector"]
        == {"matchLabels": labels}
    )
    assert labels.items() <= template.items()
    assert template["team"] == "transients"
    assert selector_string(queue().key) == ",".join(f"{name}={value}" for name, value in labels.items())
    assert selector_labels(queue("detection").key) != labels


def test_pod_passes_the_restricted_standard() -> None:
    """Non-root, no privileges, no token, read-only root with a bounded scratch folder."""
    spec = pod()

    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert spec["automountServiceAccountToken"] is False
    assert "serviceAccountName" not in spec
    assert container()["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
    }
    assert spec["volumes"] == [{"name": "tmp", "emptyDir": {"sizeLimit": "4Gi"}}]
    assert variables()["HOME"] == container()["volumeMounts"][0]["mountPath"] == "/tmp"


def test_workers_of_ours_are_started_with_every_number_given() -> None:
    """Dramatiq's own defaults come from the node's cores and must never act."""
    assert container(concurrency=2, processes=3, timeoutSeconds=900)["command"] == [
        "python",
        "-m",
        "astrid_workers.start_workers",
        "--worker-types",
        "differencing",
        "--queues",
        "differencing",
        "--processes",
        "3",
        "--threads",
        "2",
        "--worker-shutdown-timeout",
        "930000",
    ]


def test_a_foreign_application_is_started_by_dramatiq_itself() -> None:
    """Nothing in its image needs to know of Astrid."""
    command = container(app="shop.tasks", queueName="emails")["command"]

    assert command[:6] == ["python", "-m", "dramatiq", "shop.tasks", "--queues", "emails"]


def test_a_foreign_application_is_joined_by_the_middleware_of_a_config_map() -> None:
    """The files are mounted as a package, read-only, and it is named after the application; no right is needed."""
    made = pod(app="shop.tasks", queueName="emails", middleware={"configMapRef": {"name": "theirs"}})
    (worker,) = made["containers"]

    assert worker["command"][2:10] == [
        "dramatiq",
        "shop.tasks",
        "fleet_middleware.enlist",
        "--path",
        ".",
        "/opt/astrid",
        "--queues",
        "emails",
    ]
    assert made["volumes"][1:] == [{"name": "middleware", "configMap": {"name": "theirs"}}]
    assert worker["volumeMounts"][1:] == [
        {"name": "middleware", "mountPath": "/opt/astrid/fleet_middleware", "readOnly": True}
    ]


def test_middleware_leaves_the_path_of_the_image_and_of_the_spec() -> None:
    """A PYTHONPATH of ours would replace the one by which the image finds its own modules."""
    carried = {"app": "shop.tasks", "middleware": {"configMapRef": {"name": "m"}}}

    assert variables(**carried) == variables(app="shop.tasks")
    assert variables(**carried, env=[{"name": "PYTHONPATH", "value": "/srv"}])["PYTHONPATH"] == "/srv"


def test_a_pod_has_time_to_end_its_task() -> None:
    """Grace is beyond Dramatiq's own patience, which is beyond the task's time."""
    assert pod(timeoutSeconds=900)["terminationGracePeriodSeconds"] == 960


def test_environment_is_what_workers_read() -> None:
    """Each setting of the spec reaches its variable in the unit that the variable has."""
    told = variables(
        maxRetries=2,
        retryDelaySeconds=4,
        maxRetryDelaySeconds=40,
        timeoutSeconds=90,
        concurrency=2,
        prefetch=6,
        broker={"namespace": "sky"},
        resources={"limits": {"memory": "1G"}},
        processes=2,
    )

    assert {name: told[name] for name in told if isinstance(told[name], str)} == {
        "HOME": "/tmp",
        "WORKER_TYPE": "differencing",
        "WORKER_QUEUE": "differencing",
        "WORKER_MAX_RETRIES": "2",
        "WORKER_RETRY_DELAY": "4000",
        "WORKER_MAX_RETRY_DELAY": "40000",
        "WORKER_TIMEOUT": "90",
        "WORKER_MAX_MEMORY": "450",
        "WORKER_MAX_CPU": "100",
        "WORKER_CONCURRENCY": "2",
        "WORKER_PROCESSES": "2",
        "WORKER_PREFETCH": "6",
        "WORKER_NAMESPACE": "sky",
        "dramatiq_queue_prefetch": "6",
        "dramatiq_delay_queue_prefetch": "200",
    }


def test_addresses_come_from_the_secret_alone() -> None:
    """No address with a password stands in a manifest; results may have their own."""
    told = variables(broker={"secretRef": {"name": "other", "key": "address"}})

    assert told["REDIS_URL"] == {"secretKeyRef": {"name": "other", "key": "address"}}
    assert told["REDIS_RESULT_URL"] == {
        "secretKeyRef": {"name": "other", "key": "result-url", "optional": True}
    }
    assert told["POD_NAME"] == {"fieldRef": {"fieldPath": "metadata.name"}}
    assert told["POD_UID"] == {"fieldRef": {"fieldPath": "metadata.uid"}}


def test_reserved_variables_are_those_that_are_set() -> None:
    """What a user may not name is what the operator names: no more and no less."""
    assert sorted(variables(resources={"limits": {"memory": "1Gi"}})) == list(RESERVED_VARIABLES)


def test_memory_bound_is_left_out_without_a_limit() -> None:
    """A number that nobody gave is not made up."""
    assert "WORKER_MAX_MEMORY" not in variables()


def test_own_variables_come_after_the_operators() -> None:
    """By value and by reference; whole Secrets and ConfigMaps cannot override what the operator sets."""
    own = {"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}
    source = {"configMapRef": {"name": "astrid-workers"}}
    made = container(env=[own], envFrom=[source])

    assert made["env"][-1] == own
    assert made["envFrom"] == [source]


def test_gpus_are_limits_and_requests_and_old_pods_go_first() -> None:
    """There may be no device to spare for a surge."""
    made = deployment(gpu={"count": 2}, resources={"requests": {"cpu": 1}})

    assert made["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": 0, "maxUnavailable": 1}
    (worker,) = made["spec"]["template"]["spec"]["containers"]
    assert worker["resources"] == {
        "requests": {"cpu": 1, "nvidia.com/gpu": "2"},
        "limits": {"nvidia.com/gpu": "2"},
    }
    assert deployment()["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": "25%", "maxUnavailable": 0}


def test_one_claim_mounted_twice_is_one_volume() -> None:
    """Kubernetes wants volume names unique, and a claim that can be attached once is."""
    claims = [
        {"claimName": "frames", "mountPath": "/in", "readOnly": True},
        {"claimName": "frames", "mountPath": "/out"},
        {"claimName": "flats", "mountPath": "/flats"},
    ]
    made = pod(volumeClaims=claims)

    assert [each["persistentVolumeClaim"]["claimName"] for each in made["volumes"][1:]] == ["frames", "flats"]
    assert made["containers"][0]["volumeMounts"][1:] == [
        {"name": "claim-0", "mountPath": "/in", "readOnly": True},
        {"name": "claim-0", "mountPath": "/out", "readOnly": False},
        {"name": "claim-1", "mountPath": "/flats", "readOnly": False},
    ]


def test_spread_counts_the_fleets_own_pods() -> None:
    """A constraint without a selector would spread nothing."""
    (constraint,) = pod(topologySpreadConstraints=[{"topologyKey": "zone"}])["topologySpreadConstraints"]

    assert constraint["labelSelector"] == {"matchLabels": selector_labels(queue().key)}


def test_placement_passes_through() -> None:
    """Node selector, tolerations, affinity, priority class, user and pull secrets reach the pod as given."""
    given = {
        "nodeSelector": {"disk": "ssd"},
        "tolerations": [{"key": "gpu", "operator": "Exists"}],
        "affinity": {"nodeAffinity": {"x": 1}},
        "priorityClassName": "night",
        "imagePullSecrets": [{"name": "pull"}],
    }
    made = pod(**given, runAsUser=1234)

    assert {name: made[name] for name in given} == given
    assert made["securityContext"]["runAsUser"] == 1234


@pytest.mark.parametrize(
    "change",
    [
        {"priority": 1},
        {"paused": "All"},
        {"enabled": False},
        {"replicas": 3},
        {"scaling": {"maxReplicas": 99, "idleSeconds": 5, "expectedTaskSeconds": 1}},
        {"deletionPolicy": "Drain"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_scaling_and_priority_do_not_roll(change: dict[str, Any]) -> None:
    """They act without a restart: the whole manifest stays as it is."""
    assert deployment(**change) == deployment()


@pytest.mark.parametrize(
    "change",
    [
        {"maxRetries": 9},
        {"retryDelaySeconds": 9},
        {"timeoutSeconds": 9},
        {"concurrency": 9},
        {"processes": 9},
        {"prefetch": 9},
        {"image": "other:1"},
        {"gpu": {"count": 1}},
        {"resources": {"limits": {"cpu": 1}}},
        {"broker": {"namespace": "other"}},
        {"env": [{"name": "A", "value": "1"}]},
        {"podAnnotations": {"a": "1"}},
    ],
    ids=lambda change: next(iter(change)),
)
def test_settings_of_the_worker_roll(change: dict[str, Any]) -> None:
    """A changed template is what makes a Deployment roll."""
    assert deployment(**change)["spec"]["template"] != deployment()["spec"]["template"]


def test_another_config_map_of_middleware_rolls() -> None:
    """New files come under a new name: running workers keep what they loaded."""
    old, new = (
        deployment(app="shop.tasks", middleware={"configMapRef": {"name": name}}) for name in ("m-1", "m-2")
    )

    assert old["spec"]["template"] != new["spec"]["template"]


def test_image_is_the_queues_or_the_operators() -> None:
    """An AstridQueue that names none gets the default."""
    assert container()["image"] == "astrid-worker:9"
    assert container(image="mine:1")["image"] == "mine:1"


def test_a_queue_that_no_server_has_seen_has_no_owner() -> None:
    """An owner reference without a uid would be refused; files have none."""
    document = {
        "apiVersion": "astrid.dev/v1alpha1",
        "kind": "AstridQueue",
        "metadata": {"name": "detection"},
        "spec": {},
    }
    assert "ownerReferences" not in desired_deployment(parse_astrid_queue(document), DEFAULTS)["metadata"]


def test_disruption_budget_leaves_most_of_the_fleet() -> None:
    """A drained node takes a quarter at a time, and never waits for pods that are broken anyway."""
    spec = desired_pdb(queue())["spec"]

    assert spec["maxUnavailable"] == "25%"
    assert spec["unhealthyPodEvictionPolicy"] == "AlwaysAllow"


def test_disruption_budget_shields_a_gpu_that_works() -> None:
    """No eviction takes a GPU's pod while one of the fleet works for long; without GPUs nothing changes."""
    with_gpu, without = queue(gpu={"count": 1}), queue()

    assert desired_pdb(with_gpu, works=True)["spec"]["maxUnavailable"] == 0
    assert desired_pdb(with_gpu)["spec"]["maxUnavailable"] == "25%"
    assert desired_pdb(without, works=True) == desired_pdb(without)
