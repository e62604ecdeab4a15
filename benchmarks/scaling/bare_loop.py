"""The floor: how soon the API server takes the same sizes from a loop that does nothing else.

Owns Deployments that nobody sizes but this loop, and one write of `/scale` for each of them, all at once,
over connections that are open already. No watch, no Redis, no decision, no status: what a controller takes
longer than this is its own. They are copies of a fleet's Deployment, applied as that is: with each size the
API server reads who holds which of its fields, and a bare container has hardly any.
"""

import asyncio
import json
import ssl
import time
from collections.abc import Sequence
from typing import Any

import aiohttp
from rig import Rig

#: Writes under way at a time: what the operator allows itself.
AT_A_TIME = 16
#: How a size can be written; the operator's way first.
VERBS = ("patch", "put")


class BareLoop:
    """`count` copies of the Deployment `model`, without a label that the operator looks for."""

    def __init__(self, rig: Rig, prefix: str, count: int, model: str) -> None:
        self._rig = rig
        self.names = [f"{prefix}{number:04d}" for number in range(count)]
        live = rig.api.get("deployments", model, rig.namespace)
        rig.for_each(self.names, lambda api, name: api.apply(_copy(live, name), rig.namespace))
        rig.wait_for_sizes(self.names, 0)

    def burst(self, replicas: int, verb: str = VERBS[0], timeout_s: float = 60) -> list[float]:
        """Seconds until the watch showed each at `replicas`, written by `verb`."""
        began = asyncio.run(self._scale(replicas, verb))
        return list(self._rig.sizes.wait(self.names, replicas, began, timeout_s).values())

    def back_to_zero(self) -> None:
        """Return when no member is wanted any more."""
        asyncio.run(self._scale(0))
        self._rig.wait_for_sizes(self.names, 0)

    async def _scale(self, replicas: int, verb: str = VERBS[0]) -> float:
        """When the first write was sent (monotonic); returns after the last was answered."""
        keys = self._rig.plane.keys
        tls = ssl.create_default_context(cafile=str(keys / "ca.crt"))
        tls.load_cert_chain(keys / "admin.crt", keys / "admin.key")
        connector = aiohttp.TCPConnector(limit=AT_A_TIME, ssl=tls)
        async with aiohttp.ClientSession(self._rig.plane.server, connector=connector) as session:
            await asyncio.gather(*(_open(session) for _ in range(AT_A_TIME)))
            began = time.monotonic()
            await asyncio.gather(*(self._scale_one(session, name, replicas, verb) for name in self.names))
        return began

    async def _scale_one(self, session: aiohttp.ClientSession, name: str, replicas: int, verb: str) -> None:
        namespace = self._rig.namespace
        path = f"/apis/apps/v1/namespaces/{namespace}/deployments/{name}/scale"
        whole = {
            "apiVersion": "autoscaling/v1",
            "kind": "Scale",
            "metadata": {"name": name, "namespace": namespace},
        }
        body = json.dumps((whole if verb == "put" else {}) | {"spec": {"replicas": replicas}})
        kind = "application/json" if verb == "put" else "application/merge-patch+json"
        headers = {"Content-Type": kind}
        async with session.request(verb.upper(), path, data=body, headers=headers) as answer:
            answer.raise_for_status()
            await answer.read()


async def _open(session: aiohttp.ClientSession) -> None:
    async with session.get("/version") as answer:
        await answer.read()


def _copy(live: dict[str, Any], name: str) -> dict[str, Any]:
    """The Deployment `live` at zero, under another name and with labels of its own."""
    labels, template = {"app": name}, live["spec"]["template"]
    metadata = {**template["metadata"], "labels": labels}
    spec = {
        **live["spec"],
        "replicas": 0,
        "selector": {"matchLabels": labels},
        "template": {**template, "metadata": metadata},
    }
    metadata = {"name": name}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": spec}


def ratio(ours: float | int | None, floor: float | int | None) -> float | None:
    """How many times as long; None where either is not known."""
    return round(ours / floor, 2) if ours is not None and floor else None


def pooled(trials: Sequence[Sequence[float]]) -> list[float]:
    """All values of all trials."""
    return [each for trial in trials for each in trial]
