"""The floor: how soon the API server takes the same sizes from a loop that does nothing else.

Owns Deployments that nobody sizes but this loop, of the same shape as a fleet's, and one write of `/scale`
for each of them, all at once, over connections that are open already. No watch, no Redis, no decision, no
status: what a controller takes longer than this is its own.
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


class BareLoop:
    """`count` Deployments beside those of the operator, which carry no label that it looks for."""

    def __init__(self, rig: Rig, prefix: str, count: int) -> None:
        self._rig = rig
        self.names = [f"{prefix}{number:04d}" for number in range(count)]
        rig.for_each(self.names, lambda api, name: api.create(_deployment(name), rig.namespace))
        rig.wait_for_sizes(self.names, 0)

    def trial(self, replicas: int, timeout_s: float = 60) -> list[float]:
        """Seconds until the watch showed each at `replicas`, and back to zero members afterwards."""
        self._rig.wait_until_calm()
        began = asyncio.run(self._scale(replicas))
        reached = self._rig.sizes.wait(self.names, replicas, began, timeout_s)
        self._rig.wait_until_calm()
        asyncio.run(self._scale(0))
        self._rig.wait_for_sizes(self.names, 0)
        return list(reached.values())

    async def _scale(self, replicas: int) -> float:
        """When the first write was sent (monotonic); returns after the last was answered."""
        keys = self._rig.plane.keys
        tls = ssl.create_default_context(cafile=str(keys / "ca.crt"))
        tls.load_cert_chain(keys / "admin.crt", keys / "admin.key")
        connector = aiohttp.TCPConnector(limit=AT_A_TIME, ssl=tls)
        async with aiohttp.ClientSession(self._rig.plane.server, connector=connector) as session:
            await asyncio.gather(*(_open(session) for _ in range(AT_A_TIME)))
            began = time.monotonic()
            await asyncio.gather(*(self._scale_one(session, name, replicas) for name in self.names))
        return began

    async def _scale_one(self, session: aiohttp.ClientSession, name: str, replicas: int) -> None:
        path = f"/apis/apps/v1/namespaces/{self._rig.namespace}/deployments/{name}/scale"
        headers = {"Content-Type": "application/merge-patch+json"}
        body = json.dumps({"spec": {"replicas": replicas}})
        async with session.patch(path, data=body, headers=headers) as answer:
            answer.raise_for_status()
            await answer.read()


async def _open(session: aiohttp.ClientSession) -> None:
    async with session.get("/version") as answer:
        await answer.read()


def _deployment(name: str) -> dict[str, Any]:
    labels = {"app": name}
    container = {
        "name": "worker",
        "image": "example/worker:1",
        "resources": {"requests": {"cpu": "500m", "memory": "512Mi"}},
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {
            "replicas": 0,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
        },
    }


def ratio(ours: float | int | None, floor: float | int | None) -> float | None:
    """How many times as long; None where either is not known."""
    return round(ours / floor, 2) if ours is not None and floor else None


def pooled(trials: Sequence[Sequence[float]]) -> list[float]:
    """All values of all trials."""
    return [each for trial in trials for each in trial]
