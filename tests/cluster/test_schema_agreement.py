"""The CRD and the operator's own reading judge every object alike, on a real API server."""

from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, note, settings

from astrid_operator.astrid_queue import InvalidSpec, parse_astrid_queue, with_defaults
from cluster.api_client import Api, ApiFailure
from support.drawn_queues import manifests

pytestmark = pytest.mark.cluster

Json = Any


def _operator_says(manifest: Json) -> tuple[bool, str]:
    try:
        parse_astrid_queue(manifest)
    except InvalidSpec as error:
        return False, str(error)
    return True, ""


def _server_says(api: Api, manifest: Json) -> tuple[bool, str, Json]:
    try:
        stored = api.create(manifest, dryRun="All", fieldValidation="Strict")
    except ApiFailure as failure:
        if failure.code not in (400, 422):
            raise
        return False, str(failure), None
    return True, "", stored


@pytest.mark.usefixtures("crd")
@settings(
    max_examples=250,
    deadline=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate, Phase.shrink],
    suppress_health_check=list(HealthCheck),
)
@given(manifest=manifests())
def test_server_and_operator_agree_about_objects_drawn_at_random(api: Api, crd: Json, manifest: Json) -> None:
    """What the API server takes the operator takes, with the same defaults; what one refuses both refuse."""
    is_sound, complaint = _operator_says(manifest)
    is_taken, refusal, stored = _server_says(api, manifest)
    note(f"operator: {complaint or 'sound'}")
    note(f"server: {refusal or 'taken'}")

    assert is_sound == is_taken
    if is_taken:
        assert stored["spec"] == with_defaults(manifest)["spec"]
