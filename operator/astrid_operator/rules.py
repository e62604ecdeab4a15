"""The rules between the fields of an AstridQueue, each with the sentence that a person reads.

Owns the table RULES and what may not change later. Every entry stands in the CRD as a CEL rule at the same
place with the same sentence: the API server refuses first, and this table holds for objects that came
another way (older servers, local files). Works on documents that `schema.py` has read.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from astrid_operator.errors import InvalidSpec
from astrid_operator.quantity import quantity
from astrid_operator.spec_schema import (
    MIDDLEWARE_FOLDER,
    OUR_APP,
    QUALIFIED_NAME,
    RESOURCE_NAME,
    WORKER_TYPES,
)

Json = Any

#: Longest name of an AstridQueue: its Deployment's pods add up to eleven characters to it.
MAX_NAME_LENGTH = 52

#: What the operator tells every worker; `env` may not name it (`envFrom` cannot override it either).
RESERVED_VARIABLES = (
    "HOME",
    "POD_NAME",
    "POD_UID",
    "REDIS_RESULT_URL",
    "REDIS_URL",
    "WORKER_CONCURRENCY",
    "WORKER_MAX_CPU",
    "WORKER_MAX_MEMORY",
    "WORKER_MAX_RETRIES",
    "WORKER_MAX_RETRY_DELAY",
    "WORKER_NAMESPACE",
    "WORKER_PREFETCH",
    "WORKER_PROCESSES",
    "WORKER_QUEUE",
    "WORKER_RETRY_DELAY",
    "WORKER_TIMEOUT",
    "WORKER_TYPE",
    "dramatiq_delay_queue_prefetch",
    "dramatiq_queue_prefetch",
)

#: Prefixes of label and annotation keys that only the operator sets.
RESERVED_PREFIXES = ("app.kubernetes.io/", "astrid.dev/")


@dataclass(frozen=True, slots=True)
class Rule:
    """`holds` is asked of every node at `at`; a fault is shown at `field` of that node (empty: the node)."""

    at: str
    field: str
    sentence: str
    holds: Callable[[Json], bool]


def check(document: Json) -> None:
    """Raise InvalidSpec for the first rule that `document` (metadata and spec, defaults filled in) breaks."""
    for rule in RULES:
        for path, node in _nodes(document, rule.at):
            if not rule.holds(node):
                raise InvalidSpec(*_place(path, node, rule.field), rule.sentence)


def check_change(before: Json, after: Json) -> None:
    """Raise InvalidSpec where `after` changes what an AstridQueue keeps for life (both with defaults)."""
    if before["spec"].get("queueName") != after["spec"].get("queueName"):
        raise InvalidSpec("spec.queueName", after["spec"].get("queueName"), QUEUE_NAME_IS_KEPT)


def _nodes(node: Json, at: str, path: str = "") -> Iterator[tuple[str, Json]]:
    """(path, node) of everything in the document that `at` leads to; `[]` stands for each item."""
    if not at:
        yield path, node
        return
    step, _, rest = at.partition(".")
    name = step.removesuffix("[]")
    if name not in node:
        return
    here = f"{path}.{name}" if path else name
    if step.endswith("[]"):
        for index, item in enumerate(node[name]):
            yield from _nodes(item, rest, f"{here}[{index}]")
    else:
        yield from _nodes(node[name], rest, here)


def _place(path: str, node: Json, field: str) -> tuple[str, Json]:
    for step in field.split(".") if field else ():
        path, node = f"{path}.{step}" if path else step, node.get(step)
    return path, node


def _worker_type(document: Json) -> str:
    spec = document["spec"]
    return str(spec.get("workerType", spec.get("queueName", document["metadata"]["name"])))


def _requests_within_limits(resources: Json) -> bool:
    limits = resources.get("limits", {})
    return all(
        quantity(amount) <= quantity(limits[name])
        for name, amount in resources.get("requests", {}).items()
        if name in limits
    )


def _devices_are_limited(resources: Json) -> bool:
    limits = resources.get("limits", {})
    return all(
        name in limits and quantity(amount) == quantity(limits[name])
        for name, amount in resources.get("requests", {}).items()
        if "/" in name
    )


def _is_plain_whole(amount: int | str) -> bool:
    return bool(re.fullmatch("[0-9]{1,9}", str(amount)))


def _are_resources(names: Mapping[str, Json]) -> bool:
    return all(re.fullmatch(RESOURCE_NAME, name) for name in names)


def _names_gpu(spec: Json) -> bool:
    name, resources = spec["gpu"]["resourceName"], spec.get("resources", {})
    return name in resources.get("limits", {}) or name in resources.get("requests", {})


def _leave_the_middleware_alone(spec: Json) -> bool:
    """No claim is mounted at its folder, above or below it."""
    folder = f"{MIDDLEWARE_FOLDER}/"
    mounts = [f"{each['mountPath']}/" for each in spec.get("volumeClaims", ())]
    return "middleware" not in spec or not any(
        folder.startswith(mount) or mount.startswith(folder) for mount in mounts
    )


def _are_qualified(keys: Mapping[str, Json]) -> bool:
    return all(_is_qualified(key) for key in keys)


def _is_qualified(key: str) -> bool:
    return key.find("/") <= 253 and bool(re.fullmatch(QUALIFIED_NAME, key))


def _are_free(keys: Mapping[str, Json]) -> bool:
    return not any(key.startswith(RESERVED_PREFIXES) for key in keys)


def _has_one_of(*names: str) -> Callable[[Json], bool]:
    return lambda node: sum(name in node for name in names) == 1


QUEUE_NAME_IS_KEPT = "must stay as it was created; make another AstridQueue for another queue"
_QUALIFIED = "must have keys of the form [prefix/]name, name at most 63 characters"
_RESOURCES = "must name cpu, memory, ephemeral-storage or resources of the form domain/name"
_FREE = "must leave keys under app.kubernetes.io/ and astrid.dev/ to the operator"

RULES: tuple[Rule, ...] = (
    Rule(
        "",
        "metadata.name",
        f"must be at most {MAX_NAME_LENGTH} characters, since pods add to it",
        lambda it: len(it["metadata"]["name"]) <= MAX_NAME_LENGTH,
    ),
    Rule(
        "",
        "metadata.name",
        "must begin with a letter where queueName is not set, since it names the queue",
        lambda it: "queueName" in it["spec"] or bool(re.match("[a-z]", it["metadata"]["name"])),
    ),
    Rule(
        "",
        "spec.workerType",
        f"must be one of {', '.join(WORKER_TYPES)} where app is {OUR_APP}; left out, it is the queue's name",
        lambda it: it["spec"]["app"] != OUR_APP or _worker_type(it) in WORKER_TYPES,
    ),
    Rule(
        "spec",
        "middleware",
        f"must be left out where app is {OUR_APP}, whose workers have it already",
        lambda it: "middleware" not in it or it["app"] != OUR_APP,
    ),
    Rule(
        "spec",
        "queueName",
        "must not end in .DQ or .XQ, which Dramatiq keeps for delayed and dead messages",
        lambda it: not it.get("queueName", "").endswith((".DQ", ".XQ")),
    ),
    Rule(
        "spec",
        "replicas",
        "must be at most scaling.maxReplicas",
        lambda it: it["replicas"] <= it["scaling"]["maxReplicas"],
    ),
    Rule(
        "spec",
        "retryDelaySeconds",
        "must be at most maxRetryDelaySeconds",
        lambda it: it["retryDelaySeconds"] <= it["maxRetryDelaySeconds"],
    ),
    Rule(
        "spec",
        "prefetch",
        "must be at least concurrency, or threads would stand idle",
        lambda it: it.get("prefetch", it["concurrency"]) >= it["concurrency"],
    ),
    Rule(
        "spec",
        "scaling.expectedTaskSeconds",
        "must be at most timeoutSeconds, after which a task is ended",
        lambda it: it["scaling"].get("expectedTaskSeconds", 0) <= it["timeoutSeconds"],
    ),
    Rule(
        "spec",
        "resources",
        "must not name gpu.resourceName: gpu.count sets it",
        lambda it: not _names_gpu(it),
    ),
    Rule(
        "spec.scaling",
        "minReplicas",
        "must be at most maxReplicas",
        lambda it: it["minReplicas"] <= it["maxReplicas"],
    ),
    Rule("spec.resources", "requests", "must be at most the limit of the same name", _requests_within_limits),
    Rule("spec.resources", "requests", _RESOURCES, lambda it: _are_resources(it.get("requests", {}))),
    Rule("spec.resources", "limits", _RESOURCES, lambda it: _are_resources(it.get("limits", {}))),
    Rule(
        "spec.resources",
        "limits",
        "must be plain whole numbers for resources of the form domain/name",
        lambda it: all(
            _is_plain_whole(amount) for name, amount in it.get("limits", {}).items() if "/" in name
        ),
    ),
    Rule(
        "spec.resources",
        "requests",
        "must equal the limit for resources of the form domain/name",
        _devices_are_limited,
    ),
    Rule("spec.nodeSelector", "", _QUALIFIED, _are_qualified),
    Rule("spec.podLabels", "", _QUALIFIED, _are_qualified),
    Rule("spec.podLabels", "", _FREE, _are_free),
    Rule("spec.podAnnotations", "", _QUALIFIED, _are_qualified),
    Rule("spec.podAnnotations", "", _FREE, _are_free),
    Rule(
        "spec.tolerations[]",
        "value",
        "must be left out where operator is Exists",
        lambda it: it["operator"] != "Exists" or not it.get("value"),
    ),
    Rule(
        "spec.tolerations[]",
        "operator",
        "must be Exists where key is left out",
        lambda it: bool(it.get("key")) or it["operator"] == "Exists",
    ),
    Rule(
        "spec.tolerations[]",
        "effect",
        "must be NoExecute where tolerationSeconds is given",
        lambda it: "tolerationSeconds" not in it or it.get("effect") == "NoExecute",
    ),
    Rule(
        "spec.topologySpreadConstraints[]",
        "whenUnsatisfiable",
        "must be DoNotSchedule where minDomains is given",
        lambda it: "minDomains" not in it or it["whenUnsatisfiable"] == "DoNotSchedule",
    ),
    Rule("spec.env[]", "", "must have either value or valueFrom", _has_one_of("value", "valueFrom")),
    Rule(
        "spec.env[]",
        "name",
        "must not be a variable that the operator sets itself",
        lambda it: it["name"] not in RESERVED_VARIABLES,
    ),
    Rule(
        "spec.env[].valueFrom",
        "",
        "must have either secretKeyRef or configMapKeyRef",
        _has_one_of("secretKeyRef", "configMapKeyRef"),
    ),
    Rule(
        "spec.envFrom[]",
        "",
        "must have either secretRef or configMapRef",
        _has_one_of("secretRef", "configMapRef"),
    ),
    Rule(
        "spec",
        "volumeClaims",
        f"must be mounted neither above nor below {MIDDLEWARE_FOLDER}, where middleware is",
        _leave_the_middleware_alone,
    ),
    Rule(
        "spec.volumeClaims[]",
        "mountPath",
        "must be neither /tmp, which every worker has, nor lead through ..",
        lambda it: it["mountPath"] != "/tmp" and ".." not in it["mountPath"].split("/"),  # noqa: S108
    ),
)
