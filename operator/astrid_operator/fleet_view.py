"""What a Deployment and its pods say of a fleet.

Pure: objects of the API server (wire form) in, a `FleetState` out. Knows no client, and no clock but the
moment it is given: wall time as the server writes it, and the monotonic time that belongs to it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from astrid_operator.fleet import FleetState, Member, MemberPhase

#: Field manager of everything that the operator applies.
FIELD_MANAGER = "astrid-operator"
#: Field manager that holds `spec.replicas` from creation until `/scale` takes over.
REPLICAS_MANAGER = "astrid-operator-replicas"

#: Reasons of a waiting container that do not pass by themselves.
UNHEALTHY_REASONS = frozenset(
    {
        "CrashLoopBackOff",
        "CreateContainerConfigError",
        "CreateContainerError",
        "ErrImagePull",
        "ErrImageNeverPull",
        "ImagePullBackOff",
        "InvalidImageName",
        "RunContainerError",
    }
)

Manifest = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Moment:
    """One instant on both clocks."""

    monotonic: float
    wall: datetime

    def monotonic_of(self, timestamp: str | None) -> float:
        """When `timestamp` (RFC 3339) was, on the monotonic clock; never later than this moment."""
        if not timestamp:
            return self.monotonic
        then = datetime.fromisoformat(timestamp)
        return self.monotonic - max(0.0, (self.wall - then.astimezone(UTC)).total_seconds())


def fleet_state(
    deployment: Manifest | None, pods: Iterable[Manifest], moment: Moment, shaped_at: int | None = None
) -> FleetState:
    """The fleet behind `deployment` and those of its `pods` that are known.

    `shaped_at` is the generation that the last change of its shape made; later ones only changed the size.
    None: not known, so that every generation counts.
    """
    if deployment is None or _metadata(deployment).get("deletionTimestamp"):
        return FleetState()
    members = tuple(sorted((member(pod, moment) for pod in pods), key=lambda each: each.name))
    status, spec = deployment.get("status") or {}, deployment.get("spec") or {}
    failure = _condition(status, "ReplicaFailure")
    sentence = str(failure.get("message") or "") if failure.get("status") == "True" else ""
    over_quota = sentence if "exceeded quota" in sentence or "failed quota" in sentence else ""
    return FleetState(
        exists=not is_half_created(deployment),
        desired=_replicas(spec),
        current=sum(each.phase not in (MemberPhase.DRAINING, MemberPhase.FAILED) for each in members),
        ready=_count(members, MemberPhase.READY),
        starting=_count(members, MemberPhase.STARTING),
        unscheduled=_count(members, MemberPhase.UNSCHEDULED),
        draining=_count(members, MemberPhase.DRAINING),
        updated=int(status.get("updatedReplicas") or 0),
        settled=_is_settled(deployment, shaped_at),
        unschedulable_since=_waiting_since(members),
        quota_exceeded=over_quota,
        unhealthy="" if over_quota else (_first_trouble(members) or sentence),
        selector=_selector(spec),
        members=members,
    )


def member(pod: Manifest, moment: Moment) -> Member:
    """One pod as a member of its fleet."""
    metadata, status = _metadata(pod), pod.get("status") or {}
    name, born = str(metadata.get("name")), moment.monotonic_of(metadata.get("creationTimestamp"))
    if metadata.get("deletionTimestamp"):
        return Member(name, MemberPhase.DRAINING, moment.monotonic_of(metadata.get("deletionTimestamp")))
    if status.get("phase") in ("Failed", "Succeeded"):
        return Member(name, MemberPhase.FAILED, born, _ending(status))
    ready, scheduled = _condition(status, "Ready"), _condition(status, "PodScheduled")
    placed = moment.monotonic_of(scheduled.get("lastTransitionTime")) if scheduled else born
    if ready.get("status") == "True":
        since = moment.monotonic_of(ready.get("lastTransitionTime"))
        return Member(name, MemberPhase.READY, since, placed_since=placed)
    if not (pod.get("spec") or {}).get("nodeName"):
        return Member(name, MemberPhase.UNSCHEDULED, placed, str(scheduled.get("message") or ""))
    return Member(name, MemberPhase.STARTING, placed, _waiting_message(status))


def is_half_created(deployment: Manifest) -> bool:
    """Creation was interrupted: the manifest as applied still holds `spec.replicas`."""
    return _owns_replicas(deployment, FIELD_MANAGER)


def replicas_are_held(deployment: Manifest) -> bool:
    """The second step of creation was done: `spec.replicas` survives when the manifest drops it."""
    return _owns_replicas(deployment, REPLICAS_MANAGER)


def _owns_replicas(deployment: Manifest, manager: str) -> bool:
    return any(
        entry.get("manager") == manager
        and entry.get("operation") == "Apply"
        and not entry.get("subresource")
        and "f:replicas" in ((entry.get("fieldsV1") or {}).get("f:spec") or {})
        for entry in _metadata(deployment).get("managedFields") or ()
    )


def _is_settled(deployment: Manifest, shaped_at: int | None) -> bool:
    status = deployment.get("status") or {}
    generation = int(_metadata(deployment).get("generation") or 0)
    seen = int(status.get("observedGeneration") or 0) >= min(generation, shaped_at or generation)
    return seen and int(status.get("updatedReplicas") or 0) >= int(status.get("replicas") or 0)


def _waiting_since(members: Iterable[Member]) -> float | None:
    return min((each.since for each in members if each.phase is MemberPhase.UNSCHEDULED), default=None)


def _first_trouble(members: Iterable[Member]) -> str:
    troubled = (each for each in members if each.phase is MemberPhase.STARTING and each.message)
    return next((f"{each.name}: {each.message}" for each in troubled), "")


def _waiting_message(status: Manifest) -> str:
    """Why a container of the pod does not run, where that does not pass by itself."""
    statuses = [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]
    for each in statuses:
        waiting = (each.get("state") or {}).get("waiting") or {}
        if waiting.get("reason") in UNHEALTHY_REASONS:
            said = str(waiting.get("message") or "").strip()
            return f"{waiting['reason']}: {said}" if said else str(waiting["reason"])
    return ""


def _ending(status: Manifest) -> str:
    parts = [str(status[part]) for part in ("reason", "message") if status.get(part)]
    return ": ".join(parts) or str(status["phase"])


def _selector(spec: Manifest) -> str:
    labels = (spec.get("selector") or {}).get("matchLabels") or {}
    return ",".join(f"{name}={value}" for name, value in sorted(labels.items()))


def _replicas(spec: Manifest) -> int:
    replicas = spec.get("replicas")
    return 1 if replicas is None else int(replicas)


def _count(members: Iterable[Member], phase: MemberPhase) -> int:
    return sum(each.phase is phase for each in members)


def _condition(status: Manifest, kind: str) -> Mapping[str, Any]:
    return next((each for each in status.get("conditions") or () if each.get("type") == kind), {})


def _metadata(manifest: Manifest) -> Mapping[str, Any]:
    return manifest.get("metadata") or {}
