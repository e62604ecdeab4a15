"""What an API server does with watches that nobody reads for a while: it keeps what they are to be told."""

import asyncio
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from astrid_operator import handlers
from astrid_operator.kinds import QUEUE_LABEL, Kind
from astrid_operator.kubernetes_connection import credentials
from cluster.api_client import Api, Object
from support.waiting import wait_until

DEPLOYMENTS, EDITS = 10, 40
#: What each edit adds to what the watch must be told, in bytes: some megabytes in all, more than a socket holds.
PADDING = 10_000


class Watches:
    """Watches of a namespace in a thread of their own, as the operator has them; not read while held."""

    def __init__(self, namespace: str) -> None:
        self.versions: dict[str, str] = {}
        self.may_read = threading.Event()
        self.may_read.set()
        self.is_held = threading.Event()
        self._namespace = namespace
        self._ended = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))

    def __enter__(self) -> "Watches":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.may_read.set()
        self._ended.set()
        self._thread.join()

    async def _run(self) -> None:
        where, what = [self._namespace], [Kind.DEPLOYMENT]
        watching = asyncio.create_task(handlers.watch(where, what, self._told, credentials, self._wait))
        await asyncio.to_thread(self._ended.wait)
        watching.cancel()
        with suppress(asyncio.CancelledError):
            await watching

    def _told(self, kind: Kind, event: dict[str, Any]) -> None:
        if kind is Kind.DEPLOYMENT:
            metadata = event["object"]["metadata"]
            self.versions[metadata["name"]] = metadata["resourceVersion"]

    def _wait(self) -> None:
        if not self.may_read.is_set():
            self.is_held.set()
            self.may_read.wait(60)


def _deployment(name: str) -> Object:
    labels = {"app": name}
    spec = {"containers": [{"name": "worker", "image": "example/worker:1"}]}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "labels": {QUEUE_LABEL: name}},
        "spec": {
            "replicas": 0,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": spec},
        },
    }


def _versions(api: Api, namespace: str) -> dict[str, str]:
    found = (each["metadata"] for each in api.list("deployments", namespace))
    return {each["name"]: each["resourceVersion"] for each in found}


@pytest.mark.usefixtures("crd")
def test_what_was_not_read_for_a_while_is_told_afterwards(
    api: Api, namespace: str, kubeconfig: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Megabytes of events on watches that are held: the last version of each object comes all the same."""
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
    names = [f"d{number}" for number in range(DEPLOYMENTS)]
    for name in names:
        api.create(_deployment(name), namespace)
    with Watches(namespace) as watches:
        wait_until(lambda: set(watches.versions) == set(names), 30, "every Deployment to be told")
        watches.may_read.clear()
        for number in range(EDITS):
            body = {"metadata": {"annotations": {"edit": f"{number} {'x' * PADDING}"}}}
            for name in names:
                api.patch("deployments", name, namespace, body)
        assert watches.is_held.is_set()
        assert watches.versions != _versions(api, namespace)
        watches.may_read.set()

        wait_until(lambda: watches.versions == _versions(api, namespace), 30, "what was not read to be told")
