"""The CRD and the operator's own reading judge every object alike, on a real API server."""

from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, assume, given, note, settings

from astrid_operator.astrid_queue import InvalidSpec, check_change, parse_astrid_queue, with_defaults
from astrid_operator.desired import OperatorDefaults, desired_deployment, desired_pdb
from cluster.api_client import Api, ApiFailure
from support.drawn_queues import manifests
from support.queue_documents import manifest

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("crd")]

Json = Any

DRAWN = settings(
    max_examples=250,
    deadline=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate, Phase.shrink],
    suppress_health_check=list(HealthCheck),
)


def _operator_says(document: Json) -> str:
    """Its complaint; empty where it takes the object."""
    try:
        parse_astrid_queue(document)
    except InvalidSpec as error:
        return str(error)
    return ""


def _server_says(api: Api, document: Json, namespace: str = "default") -> tuple[str, Json]:
    """Its refusal, or else the object as it would be stored."""
    try:
        return "", api.create(document, namespace, dryRun="All", fieldValidation="Strict")
    except ApiFailure as failure:
        if failure.code not in (400, 422):
            raise
        return str(failure), None


@DRAWN
@given(document=manifests())
def test_server_and_operator_agree_about_objects_drawn_at_random(api: Api, document: Json) -> None:
    """What the API server takes the operator takes, with the same defaults; what one refuses both refuse."""
    complaint = _operator_says(document)
    refusal, stored = _server_says(api, document)
    note(f"operator: {complaint or 'sound'}")
    note(f"server: {refusal or 'taken'}")

    assert bool(complaint) == bool(refusal)
    if not refusal:
        assert stored["spec"] == with_defaults(document)["spec"]


@settings(DRAWN, max_examples=100)
@given(document=manifests())
def test_what_is_taken_becomes_objects_that_the_server_takes(api: Api, document: Json) -> None:
    """A spec that passes never fails later, when its Deployment and its budget are written."""
    assume(not _operator_says(document))
    assume("affinity" not in document["spec"])  # passed through, and judged by the server alone
    queue = parse_astrid_queue(document)

    for child in (desired_deployment(queue, OperatorDefaults("worker:1")), desired_pdb(queue)):
        assert _server_says(api, child)[0] == ""


#: A spec that breaks one rule → the field that the server names.
BROKEN_RULES: dict[str, dict[str, Any]] = {
    "spec.replicas": {"replicas": 11},
    "spec.retryDelaySeconds": {"retryDelaySeconds": 400},
    "spec.prefetch": {"concurrency": 2, "prefetch": 1},
    "spec.scaling.minReplicas": {"scaling": {"minReplicas": 11}},
    "spec.scaling.expectedTaskSeconds": {"scaling": {"expectedTaskSeconds": 301}},
    "spec.queueName": {"queueName": "x.DQ", "workerType": "detection"},
    "spec.workerType": {"workerType": "calibration"},
    "spec.resources": {"resources": {"limits": {"nvidia.com/gpu": 1}}},
    "spec.resources.requests": {"resources": {"requests": {"cpu": 2}, "limits": {"cpu": "1999m"}}},
    "spec.resources.limits": {"resources": {"limits": {"example.org/lens": "0.5"}}},
    "spec.env[0].name": {"env": [{"name": "REDIS_URL", "value": "x"}]},
    "spec.env[0]": {"env": [{"name": "A"}]},
    "spec.envFrom[0]": {"envFrom": [{"prefix": "A"}]},
    "spec.volumeClaims[0].mountPath": {"volumeClaims": [{"claimName": "a", "mountPath": "/a/../b"}]},
    "spec.middleware": {"middleware": {"configMapRef": {"name": "m"}}},
    "spec.volumeClaims": {
        "app": "shop.tasks",
        "middleware": {"configMapRef": {"name": "m"}},
        "volumeClaims": [{"claimName": "a", "mountPath": "/opt/astrid"}],
    },
    "spec.podLabels": {"podLabels": {"astrid.dev/x": "1"}},
    "spec.podAnnotations": {"podAnnotations": {"app.kubernetes.io/x": "1"}},
    "spec.nodeSelector": {"nodeSelector": {"-x": "1"}},
    "spec.tolerations[0].operator": {"tolerations": [{"value": "x"}]},
    "spec.tolerations[0].value": {"tolerations": [{"operator": "Exists", "value": "x"}]},
    "spec.tolerations[0].effect": {"tolerations": [{"operator": "Exists", "tolerationSeconds": 1}]},
    "spec.topologySpreadConstraints[0].whenUnsatisfiable": {
        "topologySpreadConstraints": [{"topologyKey": "zone", "minDomains": 2}]
    },
}


@pytest.mark.parametrize(("field", "spec"), BROKEN_RULES.items(), ids=BROKEN_RULES.keys())
def test_both_say_the_same_sentence_of_the_same_field(api: Api, field: str, spec: dict[str, Any]) -> None:
    """Whether kubectl or the operator answers, a person reads one thing."""
    with pytest.raises(InvalidSpec) as complaint:
        parse_astrid_queue(manifest(**spec))
    refusal, _ = _server_says(api, {**manifest(**spec), "metadata": {"name": "differencing"}})

    assert complaint.value.path == field
    assert f"{field}: " in refusal
    assert complaint.value.expected in refusal


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"queueName": "a"}, {"queueName": "b"}),
        ({"queueName": None}, {"queueName": "b"}),
        ({"queueName": "a"}, {"queueName": None}),
    ],
    ids=["changed", "set", "unset"],
)
def test_queue_name_is_kept_for_life(api: Api, namespace: str, before: Json, after: Json) -> None:
    """The server refuses each way of changing it, and the operator says the same of files."""
    old, new = ({**manifest(app="shop.tasks", **fields)} for fields in (before, after))
    for document in (old, new):
        document["metadata"] = {"name": "emails", "namespace": namespace}
    api.create(old)

    with pytest.raises(ApiFailure, match="must stay as it was created"):
        api.patch("astridqueues", "emails", namespace, {"spec": after})
    with pytest.raises(InvalidSpec, match="must stay as it was created"):
        check_change(old, new)
    api.patch("astridqueues", "emails", namespace, {"spec": {"priority": 1}})


def test_scale_is_bounded_by_the_ceiling(api: Api, namespace: str) -> None:
    """`kubectl scale` prints the rule's sentence, and one within bounds is taken."""
    document = {**manifest(), "metadata": {"name": "detection", "namespace": namespace}}
    api.create(document)

    with pytest.raises(ApiFailure, match=r"must be at most scaling\.maxReplicas"):
        api.scale("astridqueues", "detection", namespace, 11)
    api.scale("astridqueues", "detection", namespace, 10)
    assert api.get("astridqueues", "detection", namespace)["spec"]["replicas"] == 10


def test_a_worker_pod_passes_the_restricted_standard(api: Api, namespace: str) -> None:
    """Pod Security admission takes the pod that a full spec becomes."""
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    api.patch("namespaces", namespace, None, {"metadata": {"labels": labels}})
    queue = parse_astrid_queue(
        manifest(
            app="shop.tasks",
            middleware={"configMapRef": {"name": "m"}},
            gpu={"count": 1},
            volumeClaims=[{"claimName": "a", "mountPath": "/data"}],
            env=[{"name": "A", "value": "1"}],
        )
    )
    template = desired_deployment(queue, OperatorDefaults("worker:1"))["spec"]["template"]
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "probe"}, "spec": template["spec"]}

    assert _server_says(api, pod, namespace)[0] == ""
    pod["spec"] = {**template["spec"], "hostNetwork": True}
    with pytest.raises(ApiFailure, match="violates PodSecurity"):
        api.create(pod, namespace, dryRun="All")
