"""A size is written whatever it was before: what that means to others who write the same Deployment."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from astrid_operator.astrid_queue import QueueKey
from astrid_operator.errors import ObjectGone
from astrid_operator.kubernetes_api import KubernetesApi
from astrid_operator.kubernetes_connection import connect
from cluster.api_client import Api, Object

WRITES = 20


@pytest.fixture(autouse=True)
def as_admin(kubeconfig: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Code of the operator that runs in this process talks to the test's cluster."""
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig))


def _deployment() -> Object:
    labels = {"app": "sized"}
    spec = {"containers": [{"name": "worker", "image": "example/worker:1"}]}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "sized"},
        "spec": {
            "replicas": 0,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": spec},
        },
    }


def _run(act: Callable[[KubernetesApi], Awaitable[None]]) -> None:
    async def run() -> None:
        client = await connect()
        try:
            await act(KubernetesApi(client, lambda: True))
        finally:
            await client.close()  # type: ignore[no-untyped-call]

    asyncio.run(run())


def test_sizes_and_what_others_write_meanwhile_are_both_kept(api: Api, namespace: str) -> None:
    """Two who write the same object at once, neither with a version: no write fails, and none is lost."""
    api.create(_deployment(), namespace)

    def annotate() -> None:
        for number in range(WRITES):
            body: dict[str, Any] = {"metadata": {"annotations": {f"n{number}": "there"}}}
            api.patch("deployments", "sized", namespace, body)

    async def act(ours: KubernetesApi) -> None:
        others = asyncio.create_task(asyncio.to_thread(annotate))
        for size in range(1, WRITES + 1):
            scale = await ours.scale_deployment(QueueKey(namespace, "sized"), size)
            assert scale["spec"]["replicas"] == size
        await others

    _run(act)
    found = api.get("deployments", "sized", namespace)

    assert found["spec"]["replicas"] == WRITES
    assert {f"n{number}" for number in range(WRITES)} <= set(found["metadata"]["annotations"])


def test_whoever_writes_a_size_last_wins(api: Api, namespace: str) -> None:
    """`kubectl scale` beside us: our next size is taken, not refused as a conflict, and is the only field of ours."""
    api.create(_deployment(), namespace)

    async def act(ours: KubernetesApi) -> None:
        for size in (3, 5):
            await asyncio.to_thread(api.scale, "deployments", "sized", namespace, 7)
            await ours.scale_deployment(QueueKey(namespace, "sized"), size)

    _run(act)
    found = api.get("deployments", "sized", namespace)
    held = [each for each in found["metadata"]["managedFields"] if each["manager"] == "astrid-operator"]

    assert found["spec"]["replicas"] == 5
    assert [each["fieldsV1"] for each in held] == [{"f:spec": {"f:replicas": {}}}]


def test_a_deployment_that_is_gone_is_not_made_by_its_size(api: Api, namespace: str) -> None:
    """A size for what is not there is refused as such."""

    async def act(ours: KubernetesApi) -> None:
        with pytest.raises(ObjectGone):
            await ours.scale_deployment(QueueKey(namespace, "sized"), 3)

    _run(act)

    assert api.find("deployments", "sized", namespace) is None
