"""What is kept of an object is enough for everybody who reads it, and is not the whole."""

import copy
import json
from typing import Any

import pytest

from astrid_operator.fleet_view import FIELD_MANAGER, REPLICAS_MANAGER, is_half_created, replicas_are_held
from astrid_operator.kinds import Kind
from astrid_operator.trimming import trimmed


def managed(manager: str, operation: str = "Apply", *, replicas: bool = True) -> dict[str, Any]:
    fields: dict[str, Any] = (
        {"f:replicas": {}, "f:template": {"f:spec": {}}} if replicas else {"f:template": {}}
    )
    return {
        "manager": manager,
        "operation": operation,
        "apiVersion": "apps/v1",
        "fieldsV1": {"f:spec": fields},
    }


@pytest.mark.parametrize(
    ("managers", "what"),
    [
        ([managed(FIELD_MANAGER)], "applied with its size, nothing after that"),
        (
            [managed(FIELD_MANAGER), managed(REPLICAS_MANAGER)],
            "its size is held, the manifest not applied again",
        ),
        ([managed(FIELD_MANAGER, replicas=False), managed(REPLICAS_MANAGER)], "made to the end"),
        ([managed(FIELD_MANAGER, replicas=False)], "somebody took the size over"),
        ([managed(FIELD_MANAGER, "Update"), managed("kubectl")], "somebody scaled it"),
        ([], "managers are not shown"),
    ],
)
def test_how_far_a_creation_came_is_still_told(managers: list[dict[str, Any]], what: str) -> None:
    """A fleet that is taken for finished too early loses its size, and one taken for half made is applied for ever."""
    whole = {"metadata": {"name": "q", "managedFields": managers}, "spec": {"replicas": 3}}
    kept = trimmed(Kind.DEPLOYMENT, whole)

    assert (is_half_created(kept), replicas_are_held(kept)) == (
        is_half_created(whole),
        replicas_are_held(whole),
    ), what


@pytest.mark.parametrize("kind", [Kind.ASTRID_QUEUE, Kind.DEPLOYMENT, Kind.BUDGET, Kind.QUOTA])
def test_spec_and_status_stay_as_they_are_and_bookkeeping_goes(kind: Kind) -> None:
    """Manifests are compared by spec, labels, annotations and owners: those may not differ from the server's."""
    whole: dict[str, Any] = {
        "metadata": {
            "name": "q",
            "labels": {"a": "b"},
            "annotations": {"mine": "1"},
            "ownerReferences": [{"uid": "u"}],
            "managedFields": [managed("kubectl", "Update")],
        },
        "spec": {"list": [{"name": "x"}, 3, None], "replicas": 0},
        "status": {"conditions": [{"type": "Ready"}]},
    }
    before = copy.deepcopy(whole)
    kept = trimmed(kind, whole)
    expected = copy.deepcopy(whole)
    del expected["metadata"]["managedFields"]

    assert kept == expected
    assert whole == before


def test_names_of_fields_are_held_once() -> None:
    """Thousands of objects share them; a parser makes them anew for each."""
    one, other = (trimmed(Kind.BUDGET, json.loads('{"spec": {"minAvailableNow": 1}}')) for _ in range(2))
    (name,), (same_name,) = one["spec"], other["spec"]

    assert name is same_name


def test_a_copy_that_kubectl_left_is_not_kept_twice() -> None:
    """`kubectl apply` leaves the whole object in an annotation."""
    annotations = {"kubectl.kubernetes.io/last-applied-configuration": "{}", "mine": "1"}
    kept = trimmed(Kind.ASTRID_QUEUE, {"metadata": {"annotations": annotations}})

    assert kept["metadata"]["annotations"] == {"mine": "1"}
