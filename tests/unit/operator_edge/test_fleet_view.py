"""What a Deployment and its pods say of a fleet, as a table of situations."""

from datetime import UTC, datetime
from typing import Any

import pytest

from astrid_operator.fleet import FleetState, MemberPhase
from astrid_operator.fleet_view import Moment, fleet_state, is_half_created, member, replicas_are_held

NOW = Moment(1000.0, datetime(2026, 1, 1, 12, 0, 0, tzinfo=UTC))
A_MINUTE_AGO = "2026-01-01T11:59:00Z"


def deployment(**parts: Any) -> dict[str, Any]:
    found: dict[str, Any] = {
        "metadata": {"name": "q", "generation": 2, "managedFields": []},
        "spec": {"replicas": 3, "selector": {"matchLabels": {"b": "2", "a": "1"}}},
        "status": {"observedGeneration": 2, "replicas": 3, "updatedReplicas": 3},
    }
    for part, values in parts.items():
        found[part] |= values
    return found


def pod(name: str = "p", node: str | None = "n1", **parts: Any) -> dict[str, Any]:
    found: dict[str, Any] = {
        "metadata": {"name": name, "creationTimestamp": A_MINUTE_AGO},
        "spec": {"nodeName": node},
        "status": {"phase": "Running", "conditions": []},
    }
    for part, values in parts.items():
        found[part] |= values
    return found


def condition(kind: str, status: str, **more: str) -> dict[str, Any]:
    return {"conditions": [{"type": kind, "status": status, "lastTransitionTime": A_MINUTE_AGO, **more}]}


def owner(
    manager: str, *, replicas: bool = True, operation: str = "Apply", subresource: str = ""
) -> dict[str, Any]:
    spec = {"f:replicas": {}} if replicas else {"f:template": {}}
    return {
        "manager": manager,
        "operation": operation,
        "subresource": subresource,
        "fieldsV1": {"f:spec": spec},
    }


WAITING = {
    "containerStatuses": [{"state": {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}}]
}
CREATING = {"containerStatuses": [{"state": {"waiting": {"reason": "ContainerCreating"}}}]}

PHASES: dict[str, tuple[dict[str, Any], MemberPhase, str]] = {
    "ready": (pod(status=condition("Ready", "True")), MemberPhase.READY, ""),
    "has a node, not ready": (pod(status=condition("Ready", "False")), MemberPhase.STARTING, ""),
    "still being made": (pod(status=CREATING), MemberPhase.STARTING, ""),
    "image missing": (pod(status=WAITING), MemberPhase.STARTING, "ImagePullBackOff: no such image"),
    "no node": (pod(node=None), MemberPhase.UNSCHEDULED, ""),
    "fits nowhere": (
        pod(node=None, status=condition("PodScheduled", "False", message="0/3 nodes")),
        MemberPhase.UNSCHEDULED,
        "0/3 nodes",
    ),
    "asked to leave, still ready": (
        pod(metadata={"deletionTimestamp": A_MINUTE_AGO}, status=condition("Ready", "True")),
        MemberPhase.DRAINING,
        "",
    ),
    "evicted": (pod(status={"phase": "Failed", "reason": "Evicted"}), MemberPhase.FAILED, "Evicted"),
}


@pytest.mark.parametrize("situation", sorted(PHASES))
def test_a_pod_is_one_kind_of_member(situation: str) -> None:
    """Each situation of a pod is one phase, with what is wrong in words."""
    manifest, phase, message = PHASES[situation]
    found = member(manifest, NOW)

    assert (found.phase, found.message) == (phase, message)
    assert found.since == pytest.approx(940.0) or phase is MemberPhase.DRAINING


def test_members_are_counted_by_phase() -> None:
    """Those that leave or have failed hold no capacity; those that start are capacity already bought."""
    pods = [manifest for manifest, _, _ in PHASES.values()]
    for index, each in enumerate(pods):
        each["metadata"]["name"] = f"p{index}"
    state = fleet_state(deployment(), pods, NOW)

    assert (state.ready, state.starting, state.unscheduled, state.draining) == (1, 3, 2, 1)
    assert state.current == 6
    assert state.unschedulable_since == pytest.approx(940.0)
    assert "no such image" in state.unhealthy
    assert state.selector == "a=1,b=2"


def test_a_deployment_that_is_not_there_or_leaves_is_no_fleet() -> None:
    """Unknown and leaving are the same to whoever sizes."""
    leaving = deployment(metadata={"deletionTimestamp": A_MINUTE_AGO})

    assert fleet_state(None, [], NOW) == FleetState()
    assert fleet_state(leaving, [], NOW) == FleetState()


def test_a_half_created_deployment_does_not_count_as_there() -> None:
    """While the applied manifest holds replicas, `/scale` must not be used."""
    half = deployment(metadata={"managedFields": [owner("astrid-operator")]})
    held = deployment(
        metadata={"managedFields": [owner("astrid-operator"), owner("astrid-operator-replicas")]}
    )
    whole = deployment(
        metadata={
            "managedFields": [
                owner("astrid-operator", replicas=False),
                owner("astrid-operator", operation="Update", subresource="scale"),
            ]
        }
    )

    assert (is_half_created(half), replicas_are_held(half)) == (True, False)
    assert (is_half_created(held), replicas_are_held(held)) == (True, True)
    assert not is_half_created(whole)
    assert not fleet_state(half, [], NOW).exists
    assert fleet_state(whole, [], NOW).exists


def test_a_change_that_is_not_taken_up_is_not_settled() -> None:
    """Neither before the controller saw it, nor while old pods are left."""
    unseen = deployment(metadata={"generation": 3})
    rolling = deployment(status={"updatedReplicas": 1})

    assert fleet_state(deployment(), [], NOW).settled
    assert not fleet_state(unseen, [], NOW).settled
    assert not fleet_state(rolling, [], NOW).settled


def test_a_change_of_size_alone_is_no_roll_out() -> None:
    """A generation that only `/scale` made need not be seen for the shape to be taken up."""
    scaled = deployment(metadata={"generation": 3})

    assert fleet_state(scaled, [], NOW, shaped_at=2).settled
    assert not fleet_state(scaled, [], NOW, shaped_at=3).settled


def test_a_quota_is_told_from_other_failures() -> None:
    """A quota is a person's to raise; a pod that the server refuses is the fleet's ill health."""
    quota = deployment(status=condition("ReplicaFailure", "True", message="exceeded quota: pods"))
    other = deployment(
        status=condition("ReplicaFailure", "True", message='violates PodSecurity "restricted"')
    )

    assert fleet_state(quota, [], NOW).quota_exceeded == "exceeded quota: pods"
    assert fleet_state(quota, [], NOW).unhealthy == ""
    assert fleet_state(other, [], NOW).quota_exceeded == ""
    assert "PodSecurity" in fleet_state(other, [], NOW).unhealthy


def test_a_clock_that_runs_ahead_does_not_put_a_member_into_the_future() -> None:
    """A server's time later than ours means now."""
    assert NOW.monotonic_of("2026-01-01T13:00:00Z") == 1000.0
    assert NOW.monotonic_of(None) == 1000.0
