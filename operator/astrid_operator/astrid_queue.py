"""An AstridQueue, parsed once and trusted from then on.

Owns the values that the rest of the operator reads, with every default resolved. Never asks a server, and
never lets nonsense through: `parse_astrid_queue` raises InvalidSpec with the field's path.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple

from astrid_operator import rules
from astrid_operator.errors import InvalidSpec
from astrid_operator.schema import Text
from astrid_operator.spec_schema import OBJECT_NAME, OUR_APP, SPEC

__all__ = ["AstridQueue", "AstridQueueSpec", "InvalidSpec", "QueueKey", "parse_astrid_queue"]

GROUP = "astrid.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
KIND = "AstridQueue"
PLURAL = "astridqueues"

#: Namespace of a manifest that names none: what kubectl uses too.
DEFAULT_NAMESPACE = "default"

Json = Any

_TOP_FIELDS = ("apiVersion", "kind", "metadata", "spec", "status")


class QueueKey(NamedTuple):
    """Where an AstridQueue stands: what the work queue, the fleets and the memories are keyed by.

    A tuple, as each tick looks up thousands of keys: it is hashed and compared without a line of Python.
    """

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


class Paused(StrEnum):
    """What the operator leaves alone."""

    NONE = "None"
    ALL = "All"
    SCALE_IN = "ScaleIn"
    SCALE_OUT = "ScaleOut"


class ScalingMode(StrEnum):
    """Who decides replicas."""

    AUTO = "Auto"
    MANUAL = "Manual"


class DeletionPolicy(StrEnum):
    """What happens to running tasks when the AstridQueue is deleted."""

    DELETE = "Delete"
    DRAIN = "Drain"


@dataclass(frozen=True, slots=True)
class ScalingSpec:
    """`spec.scaling`."""

    mode: ScalingMode
    min_replicas: int
    max_replicas: int
    target_drain_seconds: int
    max_queue_age_seconds: int
    idle_seconds: int
    #: None: nobody has guessed.
    expected_task_seconds: float | None
    unschedulable_seconds: int
    weight: int


@dataclass(frozen=True, slots=True)
class GpuSpec:
    """`spec.gpu`, per pod."""

    count: int
    resource_name: str


@dataclass(frozen=True, slots=True)
class BrokerRef:
    """`spec.broker`: the Secret with the Redis address, and Dramatiq's prefix of all keys."""

    secret_name: str
    secret_key: str
    namespace: str


@dataclass(frozen=True, slots=True)
class VolumeClaim:
    """An existing PersistentVolumeClaim of the same namespace and where it is mounted."""

    claim_name: str
    mount_path: str
    read_only: bool


@dataclass(frozen=True, slots=True)
class PodSurface:
    """The parts of the pod that pass through as Kubernetes writes them. Read only."""

    resources: Mapping[str, Mapping[str, int | str]]
    node_selector: Mapping[str, str]
    tolerations: Sequence[Mapping[str, Json]]
    affinity: Mapping[str, Json]
    topology_spread_constraints: Sequence[Mapping[str, Json]]
    priority_class_name: str | None
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    run_as_user: int | None
    image_pull_secrets: Sequence[Mapping[str, str]]
    env: Sequence[Mapping[str, Json]]
    env_from: Sequence[Mapping[str, Json]]
    volume_claims: tuple[VolumeClaim, ...]


@dataclass(frozen=True, slots=True)
class AstridQueueSpec:
    """`spec`, with every default resolved: the queue's name, the worker type and the prefetch too."""

    queue_name: str
    worker_type: str
    app: str
    #: ConfigMap of the same namespace with the files of the fleet's middleware; None: it is not carried.
    middleware: str | None
    #: None: the operator's default.
    image: str | None
    image_pull_policy: str
    enabled: bool
    paused: Paused
    priority: int
    max_retries: int
    retry_delay_seconds: int
    max_retry_delay_seconds: int
    timeout_seconds: int
    concurrency: int
    processes: int
    prefetch: int
    replicas: int
    scaling: ScalingSpec
    gpu: GpuSpec
    broker: BrokerRef
    pod: PodSurface
    deletion_policy: DeletionPolicy
    #: Tasks that one member runs at a time.
    slots: int = field(init=False)
    #: Fewest members in Auto: `minReplicas`, or `replicas` where `/scale` asked for more.
    floor: int = field(init=False)

    def __post_init__(self) -> None:
        floor = min(max(self.scaling.min_replicas, self.replicas), self.scaling.max_replicas)
        object.__setattr__(self, "slots", self.concurrency * self.processes)
        object.__setattr__(self, "floor", floor)

    @property
    def is_ours(self) -> bool:
        """The pods run Astrid's own stages, not somebody else's Dramatiq application."""
        return self.app == OUR_APP


@dataclass(frozen=True, slots=True)
class AstridQueue:
    """One AstridQueue as read from the API server or a file."""

    key: QueueKey
    #: Empty for an object that no server has seen.
    uid: str
    generation: int
    #: RFC 3339 as the server writes it (so that it sorts by time); empty for an object no server has seen.
    created_at: str
    #: When deletion was asked for; None: it was not.
    deletion_requested_at: str | None
    finalizers: tuple[str, ...]
    spec: AstridQueueSpec


def parse_astrid_queue(manifest: Mapping[str, Json]) -> AstridQueue:
    """The AstridQueue in `manifest` (wire form); raises InvalidSpec for the first fault."""
    document = with_defaults(manifest)
    rules.check(document)
    metadata, spec = document["metadata"], document["spec"]
    return AstridQueue(
        key=key_of(manifest),
        uid=metadata.get("uid", ""),
        generation=metadata.get("generation", 0),
        created_at=metadata.get("creationTimestamp") or "",
        deletion_requested_at=metadata.get("deletionTimestamp"),
        finalizers=tuple(metadata.get("finalizers") or ()),
        spec=_spec(spec, metadata["name"]),
    )


def check_change(before: Mapping[str, Json], after: Mapping[str, Json]) -> None:
    """Raise InvalidSpec where manifest `after` changes what `before` has fixed for life."""
    rules.check_change(with_defaults(before), with_defaults(after))


def key_of(manifest: Mapping[str, Json]) -> QueueKey:
    """Namespace and name; raises InvalidSpec where the name is missing or no name at all."""
    metadata = manifest.get("metadata")
    if not isinstance(metadata, Mapping):
        raise InvalidSpec("metadata", metadata, "must be given")
    name = Text(253, min_length=1, pattern=OBJECT_NAME).read(metadata.get("name"), "metadata.name")
    return QueueKey(metadata.get("namespace") or DEFAULT_NAMESPACE, name)


def with_defaults(manifest: Mapping[str, Json]) -> dict[str, Json]:
    """`manifest` with the schema's defaults, as the API server stores it; raises InvalidSpec."""
    _refuse_other_kinds(manifest)
    key_of(manifest)
    if "spec" not in manifest:
        raise InvalidSpec("spec", None, "must be given")
    return {**manifest, "spec": SPEC.read(manifest["spec"], "spec")}


def _refuse_other_kinds(manifest: Mapping[str, Json]) -> None:
    for name in manifest:
        if name not in _TOP_FIELDS:
            raise InvalidSpec(name, manifest[name], "must not be there, no such field")
    for name, expected in (("apiVersion", API_VERSION), ("kind", KIND)):
        if manifest.get(name) != expected:
            raise InvalidSpec(name, manifest.get(name), f"must be {expected}")


def _spec(spec: Mapping[str, Json], name: str) -> AstridQueueSpec:
    queue_name = spec.get("queueName", name)
    return AstridQueueSpec(
        queue_name=queue_name,
        worker_type=spec.get("workerType", queue_name),
        app=spec["app"],
        middleware=spec["middleware"]["configMapRef"]["name"] if "middleware" in spec else None,
        image=spec.get("image"),
        image_pull_policy=spec["imagePullPolicy"],
        enabled=spec["enabled"],
        paused=Paused(spec["paused"]),
        priority=spec["priority"],
        max_retries=spec["maxRetries"],
        retry_delay_seconds=spec["retryDelaySeconds"],
        max_retry_delay_seconds=spec["maxRetryDelaySeconds"],
        timeout_seconds=spec["timeoutSeconds"],
        concurrency=spec["concurrency"],
        processes=spec["processes"],
        prefetch=spec.get("prefetch", spec["concurrency"]),
        replicas=spec["replicas"],
        scaling=_scaling(spec["scaling"]),
        gpu=GpuSpec(spec["gpu"]["count"], spec["gpu"]["resourceName"]),
        broker=_broker(spec["broker"]),
        pod=_pod(spec),
        deletion_policy=DeletionPolicy(spec["deletionPolicy"]),
    )


def _scaling(scaling: Mapping[str, Json]) -> ScalingSpec:
    return ScalingSpec(
        mode=ScalingMode(scaling["mode"]),
        min_replicas=scaling["minReplicas"],
        max_replicas=scaling["maxReplicas"],
        target_drain_seconds=scaling["targetDrainSeconds"],
        max_queue_age_seconds=scaling["maxQueueAgeSeconds"],
        idle_seconds=scaling["idleSeconds"],
        expected_task_seconds=scaling.get("expectedTaskSeconds"),
        unschedulable_seconds=scaling["unschedulableSeconds"],
        weight=scaling["weight"],
    )


def _broker(broker: Mapping[str, Json]) -> BrokerRef:
    secret = broker["secretRef"]
    return BrokerRef(secret["name"], secret["key"], broker["namespace"])


def _pod(spec: Mapping[str, Json]) -> PodSurface:
    return PodSurface(
        resources=spec.get("resources", {}),
        node_selector=spec.get("nodeSelector", {}),
        tolerations=tuple(spec.get("tolerations", ())),
        affinity=spec.get("affinity", {}),
        topology_spread_constraints=tuple(spec.get("topologySpreadConstraints", ())),
        priority_class_name=spec.get("priorityClassName"),
        labels=spec.get("podLabels", {}),
        annotations=spec.get("podAnnotations", {}),
        run_as_user=spec.get("runAsUser"),
        image_pull_secrets=tuple(spec.get("imagePullSecrets", ())),
        env=tuple(spec.get("env", ())),
        env_from=tuple(spec.get("envFrom", ())),
        volume_claims=tuple(
            VolumeClaim(each["claimName"], each["mountPath"], each["readOnly"])
            for each in spec.get("volumeClaims", ())
        ),
    )
