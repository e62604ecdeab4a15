"""The Deployment and the PodDisruptionBudget that an AstridQueue asks for, as manifests.

Owns what a worker pod is told, how it is confined and what makes it roll. Pure. Never holds replicas, which
are `/scale`'s, nor any field of scaling or priority in the pod template, so that these act without a restart.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from astrid_operator.astrid_queue import API_VERSION, KIND, AstridQueue, AstridQueueSpec, QueueKey
from astrid_operator.quantity import quantity
from astrid_operator.scaling import GRACE_SECONDS
from astrid_operator.spec_schema import MIDDLEWARE_FOLDER

Json = Any

CONTAINER = "worker"

#: Seconds beyond `timeoutSeconds` after which Dramatiq gives up waiting: before the pod's own grace is over.
SHUTDOWN_SECONDS = 30

#: Part of `limits.memory` above which a process is replaced after its task, before the kernel kills it.
MEMORY_FRACTION = 0.9

#: Delayed messages that a process may hold, in threads: Dramatiq's own 1000 would strand many when it dies.
DELAYED_PER_THREAD = 100

#: Module that makes the workers of any Dramatiq application members of the fleet, and where it is found.
ENLIST = f"{PurePosixPath(MIDDLEWARE_FOLDER).name}.enlist"
MIDDLEWARE_PATH = str(PurePosixPath(MIDDLEWARE_FOLDER).parent)


@dataclass(frozen=True, slots=True)
class OperatorDefaults:
    """What an AstridQueue leaves to the operator."""

    image: str
    #: Size of the scratch folder `/tmp`, the only place where a worker may write beside its volume claims.
    tmp_size_limit: str = "4Gi"
    #: Percent of the cores it sees that numeric libraries of one pod may use; its CPU limit bounds it anyway.
    max_cpu_percent: int = 100
    #: Group that may write to volume claims: that of the worker image's user.
    fs_group: int = 10001


def selector_labels(key: QueueKey) -> dict[str, str]:
    """Labels by which the fleet of `key` is found; never change, since a Deployment's selector cannot."""
    return {"app.kubernetes.io/name": "astrid-worker", "astrid.dev/queue": key.name}


def selector_string(key: QueueKey) -> str:
    """`selector_labels` as `/scale` and `kubectl -l` write them."""
    return ",".join(f"{name}={value}" for name, value in selector_labels(key).items())


def desired_deployment(queue: AstridQueue, defaults: OperatorDefaults) -> dict[str, Json]:
    """The Deployment, without replicas."""
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": _metadata(queue),
        "spec": {
            "selector": {"matchLabels": selector_labels(queue.key)},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": _rolling_update(queue.spec)},
            "revisionHistoryLimit": 3,
            "template": _template(queue, defaults),
        },
    }


def max_unavailable(queue: AstridQueue, *, works: bool) -> Json:
    """Pods that evictions may take at a time: none of a GPU's while one of them has worked for long."""
    return 0 if works and queue.spec.gpu.count else "25%"


def desired_pdb(queue: AstridQueue, *, works: bool = False) -> dict[str, Json]:
    """The PodDisruptionBudget: evictions take a quarter of the fleet at a time, broken pods always.

    `works`: some pod of the fleet has worked for a while without a break.
    """
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": _metadata(queue),
        "spec": {
            "selector": {"matchLabels": selector_labels(queue.key)},
            "maxUnavailable": max_unavailable(queue, works=works),
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
        },
    }


def worker_command(spec: AstridQueueSpec) -> list[str]:
    """The command line of one member, `python` first."""
    program = (
        ["astrid_workers.start_workers", "--worker-types", spec.worker_type]
        if spec.is_ours
        else ["dramatiq", spec.app, *_enlisting(spec)]
    )
    return [
        "python",
        "-m",
        *program,
        "--queues",
        spec.queue_name,
        "--processes",
        str(spec.processes),
        "--threads",
        str(spec.concurrency),
        "--worker-shutdown-timeout",
        str((spec.timeout_seconds + SHUTDOWN_SECONDS) * 1000),
    ]


def _enlisting(spec: AstridQueueSpec) -> list[str]:
    """What carries the middleware into an application that knows nothing of it.

    By Dramatiq's own path, as PYTHONPATH would replace that of the image; `.` is its default.
    """
    return [ENLIST, "--path", ".", MIDDLEWARE_PATH] if spec.middleware else []


def worker_settings(spec: AstridQueueSpec, defaults: OperatorDefaults) -> dict[str, str]:
    """The plain variables of one member; those that name a Secret or the pod itself come beside them."""
    settings = {
        "HOME": "/tmp",  # noqa: S108 (the pod's own scratch folder)
        "WORKER_CONCURRENCY": spec.concurrency,
        "WORKER_MAX_CPU": defaults.max_cpu_percent,
        "WORKER_MAX_RETRIES": spec.max_retries,
        "WORKER_MAX_RETRY_DELAY": spec.max_retry_delay_seconds * 1000,
        "WORKER_NAMESPACE": spec.broker.namespace,
        "WORKER_PREFETCH": spec.prefetch,
        "WORKER_PROCESSES": spec.processes,
        "WORKER_QUEUE": spec.queue_name,
        "WORKER_RETRY_DELAY": spec.retry_delay_seconds * 1000,
        "WORKER_TIMEOUT": spec.timeout_seconds,
        "WORKER_TYPE": spec.worker_type,
        "dramatiq_delay_queue_prefetch": DELAYED_PER_THREAD * spec.concurrency,
        "dramatiq_queue_prefetch": spec.prefetch,
    }
    megabytes = _megabytes_per_process(spec)
    if megabytes is not None:
        settings["WORKER_MAX_MEMORY"] = megabytes
    return {name: str(value) for name, value in settings.items()}


def _metadata(queue: AstridQueue) -> dict[str, Json]:
    return _without_empty(
        {
            "name": queue.key.name,
            "namespace": queue.key.namespace,
            "labels": _labels(queue.key),
            "ownerReferences": [_owner(queue)] if queue.uid else [],
        }
    )


def _labels(key: QueueKey) -> dict[str, str]:
    return {
        **selector_labels(key),
        "app.kubernetes.io/component": "worker",
        "app.kubernetes.io/managed-by": "astrid-operator",
        "app.kubernetes.io/part-of": "astrid",
    }


def _owner(queue: AstridQueue) -> dict[str, Json]:
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "name": queue.key.name,
        "uid": queue.uid,
        "controller": True,
        "blockOwnerDeletion": True,
    }


def _rolling_update(spec: AstridQueueSpec) -> dict[str, Json]:
    """New before old; with GPUs old before new, since there may be none to spare."""
    if spec.gpu.count:
        return {"maxSurge": 0, "maxUnavailable": 1}
    return {"maxSurge": "25%", "maxUnavailable": 0}


def _template(queue: AstridQueue, defaults: OperatorDefaults) -> dict[str, Json]:
    spec = queue.spec
    return {
        "metadata": _without_empty(
            {
                "labels": {**spec.pod.labels, **_labels(queue.key)},
                "annotations": {**spec.pod.annotations, "astrid.dev/queue-name": spec.queue_name},
            }
        ),
        "spec": _pod_spec(queue, defaults),
    }


def _pod_spec(queue: AstridQueue, defaults: OperatorDefaults) -> dict[str, Json]:
    spec, pod = queue.spec, queue.spec.pod
    return _without_empty(
        {
            "containers": [_container(spec, defaults)],
            "volumes": _volumes(spec, defaults),
            "securityContext": _pod_security(spec, defaults),
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "terminationGracePeriodSeconds": spec.timeout_seconds + GRACE_SECONDS,
            "imagePullSecrets": list(pod.image_pull_secrets),
            "nodeSelector": pod.node_selector,
            "tolerations": list(pod.tolerations),
            "affinity": pod.affinity,
            "topologySpreadConstraints": [
                {**each, "labelSelector": {"matchLabels": selector_labels(queue.key)}}
                for each in pod.topology_spread_constraints
            ],
            "priorityClassName": pod.priority_class_name,
        }
    )


def _pod_security(spec: AstridQueueSpec, defaults: OperatorDefaults) -> dict[str, Json]:
    """Pod Security "restricted"."""
    return _without_empty(
        {
            "runAsNonRoot": True,
            "runAsUser": spec.pod.run_as_user,
            "fsGroup": defaults.fs_group,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        }
    )


def _container(spec: AstridQueueSpec, defaults: OperatorDefaults) -> dict[str, Json]:
    """The worker. It has no probes: it serves nothing, and one that is busy in C code is not one to kill."""
    return _without_empty(
        {
            "name": CONTAINER,
            "image": spec.image or defaults.image,
            "imagePullPolicy": spec.image_pull_policy,
            "command": worker_command(spec),
            "env": [*_environment(spec, defaults), *spec.pod.env],
            "envFrom": list(spec.pod.env_from),
            "resources": _resources(spec),
            "volumeMounts": _mounts(spec),
            "securityContext": {
                "allowPrivilegeEscalation": False,
                "capabilities": {"drop": ["ALL"]},
                "readOnlyRootFilesystem": True,
            },
        }
    )


def _environment(spec: AstridQueueSpec, defaults: OperatorDefaults) -> list[dict[str, Json]]:
    secret = {"name": spec.broker.secret_name}
    addresses = {
        "REDIS_URL": {"secretKeyRef": {**secret, "key": spec.broker.secret_key}},
        "REDIS_RESULT_URL": {"secretKeyRef": {**secret, "key": "result-url", "optional": True}},
        "POD_NAME": {"fieldRef": {"fieldPath": "metadata.name"}},
        "POD_UID": {"fieldRef": {"fieldPath": "metadata.uid"}},
    }
    return [
        *({"name": name, "valueFrom": source} for name, source in addresses.items()),
        *({"name": name, "value": value} for name, value in worker_settings(spec, defaults).items()),
    ]


def _megabytes_per_process(spec: AstridQueueSpec) -> int | None:
    limit = spec.pod.resources.get("limits", {}).get("memory")
    if limit is None:
        return None
    return max(1, int(float(quantity(limit)) * MEMORY_FRACTION / spec.processes / 1e6))


def _resources(spec: AstridQueueSpec) -> dict[str, Json]:
    devices = {spec.gpu.resource_name: str(spec.gpu.count)} if spec.gpu.count else {}
    return _without_empty(
        {part: {**spec.pod.resources.get(part, {}), **devices} for part in ("requests", "limits")}
    )


def _volumes(spec: AstridQueueSpec, defaults: OperatorDefaults) -> list[dict[str, Json]]:
    return [
        {"name": "tmp", "emptyDir": {"sizeLimit": defaults.tmp_size_limit}},
        *([{"name": "middleware", "configMap": {"name": spec.middleware}}] if spec.middleware else []),
        *(
            {"name": volume, "persistentVolumeClaim": {"claimName": claim}}
            for claim, volume in _volume_names(spec).items()
        ),
    ]


def _mounts(spec: AstridQueueSpec) -> list[dict[str, Json]]:
    names = _volume_names(spec)
    return [
        {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 (the pod's own scratch folder)
        *(
            [{"name": "middleware", "mountPath": MIDDLEWARE_FOLDER, "readOnly": True}]
            if spec.middleware
            else []
        ),
        *(
            {"name": names[each.claim_name], "mountPath": each.mount_path, "readOnly": each.read_only}
            for each in spec.pod.volume_claims
        ),
    ]


def _volume_names(spec: AstridQueueSpec) -> dict[str, str]:
    """claim → name of its volume: one volume for each claim, however often it is mounted."""
    claims = dict.fromkeys(each.claim_name for each in spec.pod.volume_claims)
    return {claim: f"claim-{index}" for index, claim in enumerate(claims)}


def _without_empty(manifest: Mapping[str, Json]) -> dict[str, Json]:
    return {name: value for name, value in manifest.items() if value is not None and value not in ({}, [])}
