"""What is kept of an object of the API server: there are thousands, and most of what they hold nobody reads.

Pure: an object in wire form in, a smaller one out, with names of fields shared among all objects. Never
changes what it is given, and never drops what `fleet_view`, `pod_members`, `gpu_supply` or a comparison of
manifests looks at.
"""

import sys
from collections.abc import Mapping
from typing import Any

from astrid_operator.fleet_view import is_half_created, replicas_are_held
from astrid_operator.kinds import Kind
from astrid_operator.node_hints import ANNOTATIONS

#: What `kubectl apply` leaves on an object: a copy of it.
_LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"

Manifest = Mapping[str, Any]


def trimmed(kind: Kind, manifest: Manifest) -> Manifest:
    """What is read here of an object of `kind`."""
    trim = {
        Kind.POD: _trimmed_pod,
        Kind.NODE: _trimmed_node,
        Kind.DEPLOYMENT: _trimmed_deployment,
        Kind.ASTRID_QUEUE: _trimmed_queue,
    }.get(kind, _without_managers)
    shared: Manifest = _shared(trim(manifest))
    return shared


def _without_managers(manifest: Manifest) -> Manifest:
    metadata = {**(manifest.get("metadata") or {})}
    metadata.pop("managedFields", None)
    return {**manifest, "metadata": metadata}


def _trimmed_queue(manifest: Manifest) -> Manifest:
    kept = _without_managers(manifest)
    annotations = kept["metadata"].get("annotations") or {}
    others = {name: value for name, value in annotations.items() if name != _LAST_APPLIED}
    return {**kept, "metadata": {**kept["metadata"], "annotations": others}}


def _trimmed_deployment(manifest: Manifest) -> Manifest:
    """Of its managers only those that may hold `spec.replicas`: they tell how far its creation came."""
    kept = _without_managers(manifest)
    if not (is_half_created(manifest) or replicas_are_held(manifest)):
        return kept
    managers = [
        {
            **{name: each.get(name) for name in ("manager", "operation", "subresource")},
            "fieldsV1": {"f:spec": {"f:replicas": {}}},
        }
        for each in manifest["metadata"]["managedFields"]
        if "f:replicas" in ((each.get("fieldsV1") or {}).get("f:spec") or {})
    ]
    return {**kept, "metadata": {**kept["metadata"], "managedFields": managers}}


def _trimmed_pod(manifest: Manifest) -> Manifest:
    metadata, status = manifest.get("metadata") or {}, manifest.get("status") or {}
    kept = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp", "deletionTimestamp", "labels")
    annotations = metadata.get("annotations") or {}
    hints = {name: annotations[name] for name in ANNOTATIONS if name in annotations}
    told = ("phase", "reason", "message", "conditions", "containerStatuses", "initContainerStatuses")
    return {
        "metadata": {field: metadata[field] for field in kept if field in metadata} | {"annotations": hints},
        "spec": _trimmed_pod_spec(manifest.get("spec") or {}),
        "status": {field: status[field] for field in told if field in status},
    }


def _trimmed_pod_spec(spec: Manifest) -> Manifest:
    """Where it is, and what its containers may use."""
    limits = (
        {"limits": (each.get("resources") or {}).get("limits") or {}} for each in spec.get("containers") or ()
    )
    return {"nodeName": spec.get("nodeName"), "containers": [{"resources": each} for each in limits]}


def _trimmed_node(manifest: Manifest) -> Manifest:
    metadata = manifest.get("metadata") or {}
    kept = ("name", "uid", "resourceVersion", "creationTimestamp")
    return {
        "metadata": {field: metadata[field] for field in kept if field in metadata},
        "spec": {"unschedulable": (manifest.get("spec") or {}).get("unschedulable")},
        "status": {"allocatable": (manifest.get("status") or {}).get("allocatable")},
    }


def _shared(value: Any) -> Any:
    """`value` with each name of a field held once: a parser makes them anew for every object."""
    if isinstance(value, Mapping):
        return {sys.intern(name): _shared(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_shared(each) for each in value]
    return value
