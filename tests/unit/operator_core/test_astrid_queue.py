"""What an AstridQueue says, what it leaves to defaults, and how nonsense is refused."""

from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings

from astrid_operator.astrid_queue import InvalidSpec, check_change, key_of, parse_astrid_queue, with_defaults
from astrid_operator.quantity import quantity
from support.drawn_queues import manifests
from support.queue_documents import manifest, policy, queue

ROOT = Path(__file__).resolve().parents[3]

CARRIED = {"middleware": {"configMapRef": {"name": "m"}}}

#: What is wrong → (the spec that has it, the path and the sentence that a person reads).
BAD_SPECS: dict[str, tuple[dict[str, Any], str]] = {
    "too many replicas": ({"replicas": 11}, "spec.replicas is 11: must be at most scaling.maxReplicas"),
    "floor above ceiling": (
        {"scaling": {"minReplicas": 5, "maxReplicas": 3}},
        "spec.scaling.minReplicas is 5: must be at most maxReplicas",
    ),
    "a boolean for a number": ({"priority": True}, "spec.priority is true: must be a whole number"),
    "a word for a number": ({"maxRetries": "3"}, 'spec.maxRetries is "3": must be a whole number'),
    "out of bounds": ({"priority": 0}, "spec.priority is 0: must be from 1 to 1000"),
    "a misspelt field": (
        {"scaling": {"minReplica": 1}},
        "spec.scaling.minReplica is 1: must not be there, no such field; did you mean minReplicas?",
    ),
    "an unknown word": (
        {"paused": "yes"},
        'spec.paused is "yes": must be one of None, All, ScaleIn, ScaleOut',
    ),
    "retries that shrink": (
        {"retryDelaySeconds": 10, "maxRetryDelaySeconds": 5},
        "spec.retryDelaySeconds is 10: must be at most maxRetryDelaySeconds",
    ),
    "threads that starve": (
        {"concurrency": 4, "prefetch": 2},
        "spec.prefetch is 2: must be at least concurrency, or threads would stand idle",
    ),
    "a task that never ends in time": (
        {"timeoutSeconds": 60, "scaling": {"expectedTaskSeconds": 61}},
        "spec.scaling.expectedTaskSeconds is 61: must be at most timeoutSeconds, after which a task is ended",
    ),
    "a request above its limit": (
        {"resources": {"requests": {"memory": "2Gi"}, "limits": {"memory": "2G"}}},
        'spec.resources.requests is {"memory": "2Gi"}: must be at most the limit of the same name',
    ),
    "a GPU by the back door": (
        {"resources": {"limits": {"nvidia.com/gpu": 1}}},
        'spec.resources is {"limits": {"nvidia.com/gpu": 1}}: must not name gpu.resourceName: gpu.count sets it',
    ),
    "a variable of the operator's": (
        {"env": [{"name": "REDIS_URL", "value": "redis://elsewhere"}]},
        'spec.env[0].name is "REDIS_URL": must not be a variable that the operator sets itself',
    ),
    "a variable twice": (
        {"env": [{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]},
        'spec.env[1] is "A": must not repeat name',
    ),
    "a value from nowhere": (
        {"env": [{"name": "A"}]},
        'spec.env[0] is {"name": "A"}: must have either value or valueFrom',
    ),
    "two mounts at one place": (
        {"volumeClaims": [{"claimName": name, "mountPath": "/data"} for name in ("a", "b")]},
        'spec.volumeClaims[1] is "/data": must not repeat mountPath',
    ),
    "a mount over the scratch folder": (
        {"volumeClaims": [{"claimName": "a", "mountPath": "/tmp"}]},
        'spec.volumeClaims[0].mountPath is "/tmp": must be neither /tmp, which every worker has, nor lead through ..',
    ),
    "a mount over the middleware": (
        {"app": "shop.tasks", **CARRIED, "volumeClaims": [{"claimName": "a", "mountPath": "/opt/astrid"}]},
        (
            'spec.volumeClaims is [{"claimName": "a", "mountPath": "/opt/astrid", "readOnly": false}]: '
            "must be mounted neither above nor below /opt/astrid/fleet_middleware, where middleware is"
        ),
    ),
    "middleware for those who have it": (
        CARRIED,
        (
            'spec.middleware is {"configMapRef": {"name": "m"}}: '
            "must be left out where app is astrid_workers.app, whose workers have it already"
        ),
    ),
    "middleware from nowhere": (
        {"app": "shop.tasks", "middleware": {}},
        "spec.middleware.configMapRef is not given: must be given",
    ),
    "too many mounts": (
        {"volumeClaims": [{"claimName": "a", "mountPath": f"/{n}"} for n in range(9)]},
        "spec.volumeClaims is 9: must have at most 8 items",
    ),
    "a root user": ({"runAsUser": 0}, "spec.runAsUser is 0: must be from 1 to 2147483647"),
    "a label of the operator's": (
        {"podLabels": {"astrid.dev/queue": "other"}},
        (
            'spec.podLabels is {"astrid.dev/queue": "other"}: '
            "must leave keys under app.kubernetes.io/ and astrid.dev/ to the operator"
        ),
    ),
    "a queue of Dramatiq's own": (
        {"queueName": "detection.DQ", "workerType": "detection"},
        (
            'spec.queueName is "detection.DQ": '
            "must not end in .DQ or .XQ, which Dramatiq keeps for delayed and dead messages"
        ),
    ),
    "a stage that is none of ours": (
        {"workerType": "calibration"},
        (
            'spec.workerType is "calibration": must be one of observation_ingestion, preprocessing, differencing, '
            "detection, curation, notification where app is astrid_workers.app; left out, it is the queue's name"
        ),
    ),
    "an image with a blank": (
        {"image": "worker: latest"},
        'spec.image is "worker: latest": must match [A-Za-z0-9][A-Za-z0-9._:/@-]*',
    ),
}


@pytest.mark.parametrize(("spec", "sentence"), BAD_SPECS.values(), ids=BAD_SPECS.keys())
def test_nonsense_is_refused_with_path_value_and_expectation(spec: dict[str, Any], sentence: str) -> None:
    """A person reads which field is wrong, what it holds and what it should hold."""
    with pytest.raises(InvalidSpec) as refusal:
        parse_astrid_queue(manifest(**spec))

    assert str(refusal.value) == sentence
    assert refusal.value.path.startswith("spec.")


@pytest.mark.parametrize(
    "surface", ["serviceAccountName", "hostNetwork", "hostPath", "privileged", "volumes"]
)
def test_pod_surface_has_no_way_to_privilege(surface: str) -> None:
    """Whoever may create an AstridQueue gets no service account, host path or privilege through it."""
    with pytest.raises(InvalidSpec, match="no such field"):
        parse_astrid_queue(manifest(**{surface: "x"}))


def test_an_empty_spec_is_all_defaults() -> None:
    """Every default of the table holds, and name, type and prefetch are resolved."""
    spec = policy()

    assert (spec.queue_name, spec.worker_type, spec.prefetch) == ("differencing", "differencing", 1)
    assert (spec.priority, spec.max_retries, spec.timeout_seconds, spec.replicas) == (5, 3, 300, 0)
    assert (spec.scaling.min_replicas, spec.scaling.max_replicas, spec.scaling.idle_seconds) == (0, 10, 60)
    assert spec.scaling.expected_task_seconds is None
    assert (spec.broker.secret_name, spec.broker.secret_key, spec.broker.namespace) == (
        "astrid-redis",
        "url",
        "dramatiq",
    )
    assert spec.is_ours


def test_queue_name_may_have_what_object_names_cannot() -> None:
    """`observation_ingestion` is served by an object with a dash; the worker type follows the queue."""
    spec = policy("observation-ingestion", queueName="observation_ingestion")

    assert (spec.queue_name, spec.worker_type) == ("observation_ingestion", "observation_ingestion")


def test_a_foreign_application_may_have_any_worker_type() -> None:
    """The six stages bind only workers of ours."""
    assert policy("shop", app="shop.tasks").worker_type == "shop"


@pytest.mark.parametrize(
    ("path", "stands_in_the_way"),
    [
        ("/opt/astrid/fleet_middleware", True),
        ("/opt/astrid/fleet_middleware/below", True),
        ("/opt", True),
        ("/opt/astrid/fleet_middleware2", False),
        ("/opt/shop", False),
    ],
)
def test_claims_leave_the_folder_of_the_middleware_alone(path: str, stands_in_the_way: bool) -> None:
    """A claim over it would hide it, one below it could not be mounted; without middleware all are free."""
    spec = {"app": "shop.tasks", "volumeClaims": [{"claimName": "a", "mountPath": path}]}
    assert bool(_refusal(manifest(**spec, **CARRIED))) is stands_in_the_way
    assert not _refusal(manifest(**spec))


@pytest.mark.parametrize("name", [None, "", "Upper", "under_score", "a" * 53, "0queue"])
def test_a_name_that_cannot_serve_is_refused(name: str | None) -> None:
    """Pods bear the name with a suffix, and it is the queue's where queueName is not set."""
    document = manifest()
    document["metadata"]["name"] = name

    with pytest.raises(InvalidSpec, match=r"metadata\.name"):
        parse_astrid_queue(document)


@pytest.mark.parametrize(
    ("field", "value"), [("apiVersion", "astrid.dev/v1"), ("kind", "Queue"), ("spec", None), ("extra", 1)]
)
def test_another_document_is_refused(field: str, value: Any) -> None:
    """Only an AstridQueue of this version is read as one."""
    with pytest.raises(InvalidSpec, match=field):
        parse_astrid_queue({**manifest(), field: value})


def test_null_is_the_same_as_left_out() -> None:
    """As the API server has it: a null falls back to the default."""
    assert policy(priority=None, env=None, scaling={"idleSeconds": None}) == policy()


def test_key_is_namespace_and_name_and_falls_back_to_default() -> None:
    """A manifest without a namespace stands where kubectl would put it."""
    document = manifest()
    assert str(key_of(document)) == "sky/differencing"
    del document["metadata"]["namespace"]
    assert str(key_of(document)) == "default/differencing"


def test_floor_is_replicas_or_minimum_but_never_above_the_ceiling() -> None:
    """`/scale` raises the floor in Auto, and `maxReplicas` stays the ceiling."""
    assert policy(scaling={"minReplicas": 2}).floor == 2
    assert policy(replicas=4, scaling={"minReplicas": 2}).floor == 4


@pytest.mark.parametrize(
    ("before", "after"),
    [({"queueName": "a"}, {"queueName": "b"}), ({}, {"queueName": "b"}), ({"queueName": "a"}, {})],
)
def test_queue_name_is_kept_for_life(before: dict[str, Any], after: dict[str, Any]) -> None:
    """Changing, setting or unsetting it is refused: messages would be left behind."""
    foreign = {"app": "shop.tasks"}
    with pytest.raises(InvalidSpec, match="must stay as it was created"):
        check_change(manifest(**foreign, **before), manifest(**foreign, **after))
    check_change(manifest(**foreign, **before), manifest(**foreign, **before, priority=1))


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(document=manifests())
def test_a_spec_with_its_defaults_written_out_is_the_same_spec(document: Any) -> None:
    """What the API server stores is read as what the person wrote."""
    try:
        parsed = parse_astrid_queue(document)
    except InvalidSpec:
        assume(False)
    stored = with_defaults(document)

    assert parse_astrid_queue(stored) == parsed
    assert with_defaults(stored) == stored


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(document=manifests())
def test_whatever_is_given_is_parsed_or_refused(document: Any) -> None:
    """No document ends in anything but an AstridQueue or one sentence."""
    assert _refusal(document) == "" or ": must " in _refusal(document)


def _refusal(document: Any) -> str:
    try:
        parse_astrid_queue(document)
    except InvalidSpec as refusal:
        return str(refusal)
    return ""


#: What is written, and numerator and denominator of what it stands for.
QUANTITIES: list[tuple[int | str, int, int]] = [
    (2, 2, 1), ("500m", 1, 2), ("1.5", 3, 2), ("2k", 2000, 1), ("1E", 10**18, 1),
    ("1M", 10**6, 1), ("1G", 10**9, 1), ("1T", 10**12, 1), ("1P", 10**15, 1),
    ("3u", 3, 10**6), ("3n", 3, 10**9), ("0.1n", 1, 10**10),
    ("1Ki", 1024, 1), ("3Mi", 3 * 1024**2, 1), ("2Gi", 2 * 1024**3, 1), ("1Ti", 1024**4, 1), ("1Pi", 1024**5, 1),
    ("1.5Ei", 3 * 1024**6 // 2, 1),
    ("1e1", 10, 1), ("10E0", 10, 1), ("1e+3", 1000, 1), ("25e-1", 5, 2), ("2.5E2", 250, 1), ("1e003", 1000, 1),
    ("1E-2", 1, 100),
    ("+4", 4, 1), ("-4", -4, 1), ("-1.5Ki", -1536, 1), ("-1e2", -100, 1),
    ("4.", 4, 1), (".5", 1, 2), ("5.k", 5000, 1), ("007", 7, 1),
]  # fmt: skip


@pytest.mark.parametrize(("written", "above", "below"), QUANTITIES, ids=[str(row[0]) for row in QUANTITIES])
def test_quantity_reads_what_kubernetes_writes(written: int | str, above: int, below: int) -> None:
    """Signs, decimal and binary suffixes and decimal exponents; all of them are exact."""
    assert quantity(written) == Fraction(above, below)


@pytest.mark.parametrize(
    "written",
    ["", "k", ".", "-", "1.2.3", "1 ", " 1", "1\n", "1/2", "1_000", "٣", "1e", "1e1k", "1e1.5", "1K", "1ki", "1mi", "1ui",
     "1Em", "0x10", "inf", "NaN", "--1", "1e9999", "1e999999999"],
)  # fmt: skip
def test_what_is_no_quantity_is_refused_and_costs_nothing(written: str) -> None:
    """Also a number of a few characters that would take all memory to write out."""
    with pytest.raises(ValueError, match="is not a quantity"):
        quantity(written)


def test_values_cross_borders_frozen() -> None:
    """A parsed AstridQueue cannot be changed by whoever holds it."""
    with pytest.raises(AttributeError):
        queue().spec.priority = 1  # type: ignore[misc]
