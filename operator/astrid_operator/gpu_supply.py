"""How many devices of one kind there are for fleets: what quotas allow, and what nodes have.

Owns how ResourceQuotas, Nodes and pods are read for that; any resource name will do. Pure: objects of the API
server (wire form) in, numbers out. None: nothing is known, so that nothing bounds. An amount that cannot be
read is not known either: such a quota bounds nothing, and no device of such a node or pod counts.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from astrid_operator.quantity import quantity

Manifest = Mapping[str, Any]

#: Is told, in a sentence, which object holds an amount that cannot be read.
Unread = Callable[[str], None]


def _to_nobody(_: str) -> None:
    pass


def held_by(pod: Manifest, resource: str, unread: Unread = _to_nobody) -> int:
    """Devices that `pod` holds, or will hold when it finds a place; none once it has ended."""
    if (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed"):
        return 0
    containers = (pod.get("spec") or {}).get("containers") or ()
    try:
        return sum(_count((each.get("resources") or {}).get("limits"), resource) for each in containers)
    except ValueError as error:
        unread(_sentence("Pod", pod, resource, error))
        return 0


def on_nodes(
    nodes: Iterable[Manifest], pods: Iterable[Manifest], resource: str, unread: Unread = _to_nobody
) -> int | None:
    """Devices of all nodes; a node that takes no new pods counts for those of `pods` that it has.

    None where no node has any: they may come with the first pod that asks.
    """
    open_, closed = 0, {}
    for node in nodes:
        count = _allocatable(node, resource, unread)
        if (node.get("spec") or {}).get("unschedulable"):
            closed[node["metadata"]["name"]] = count
        else:
            open_ += count
    kept = 0
    for pod in pods:
        if (pod.get("spec") or {}).get("nodeName") in closed:
            kept += held_by(pod, resource, unread)
    total = open_ + min(kept, sum(closed.values()))
    return total or None


def by_quota(quotas: Iterable[Manifest], ours: int, resource: str, unread: Unread = _to_nobody) -> int | None:
    """Devices that the quotas of one namespace leave to fleets; None: no quota counts them.

    Fleets hold `ours` now; what is used beyond that, others hold.
    """
    name = f"requests.{resource}"
    left = []
    for each in quotas:
        status, spec = each.get("status") or {}, each.get("spec") or {}
        hard = status.get("hard") or spec.get("hard") or {}
        if name not in hard:
            continue
        try:
            others = max(0, _count(status.get("used"), name) - ours)
            left.append(max(0, _count(hard, name) - others))
        except ValueError as error:
            unread(_sentence("ResourceQuota", each, name, error))
    return min(left, default=None)


def _allocatable(node: Manifest, resource: str, unread: Unread) -> int:
    try:
        return _count((node.get("status") or {}).get("allocatable"), resource)
    except ValueError as error:
        unread(_sentence("Node", node, resource, error))
        return 0


def _count(amounts: Mapping[str, Any] | None, name: str) -> int:
    """Whole devices; raises ValueError where the amount cannot be read."""
    value = (amounts or {}).get(name)
    return 0 if value is None else int(quantity(value))


def _sentence(kind: str, manifest: Manifest, name: str, error: ValueError) -> str:
    metadata = manifest.get("metadata") or {}
    where = "/".join(part for part in (metadata.get("namespace"), metadata.get("name")) if part)
    return f"{kind} {where}, {name}: {error}"
