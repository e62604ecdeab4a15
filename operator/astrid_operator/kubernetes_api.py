"""The requests that the operator makes of the API server: the module that writes to it.

Owns every request but the Lease's: raw documents in and out, failures as our own errors. Decides nothing, and
sends no write of a process that may have lost the Lease.
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, Literal

from kubernetes.aio import client

from astrid_operator.astrid_queue import QueueKey
from astrid_operator.errors import NotLeading
from astrid_operator.fleet_view import FIELD_MANAGER
from astrid_operator.kinds import LABELLED, QUEUE_LABEL, Kind
from astrid_operator.kubernetes_requests import APPLY, EVENTS, MERGE, RESOURCES, KubernetesRequests
from astrid_operator.write_lanes import WriteLanes

#: Seconds that one request may take.
REQUEST_SECONDS = 15.0
#: Objects per page of a list.
PAGE = 500

Manifest = Mapping[str, Any]


class KubernetesApi:
    """The requests that the operator makes: raw documents in and out, failures as our own errors."""

    def __init__(self, api: client.ApiClient, may_write: Callable[[], bool]) -> None:
        self._requests = KubernetesRequests(api)
        self._may_write = may_write
        self._lanes = WriteLanes()

    def check_leads(self) -> None:
        """Raise NotLeading where nothing may be written, be it here or to a broker."""
        if not self._may_write():
            message = "the Lease is not renewed: nothing may be written"
            raise NotLeading(message)

    @property
    def sizes_wanted(self) -> int:
        """Sizes that are still to be written, or under way. Any thread may ask."""
        return self._lanes.sizes_wanted

    async def read_deployment(self, key: QueueKey) -> dict[str, Any]:
        return await self._read(_path(Kind.DEPLOYMENT, key))

    async def read_budget(self, key: QueueKey) -> dict[str, Any]:
        return await self._read(_path(Kind.BUDGET, key))

    async def apply_deployment(
        self, key: QueueKey, manifest: Manifest, manager: str = FIELD_MANAGER
    ) -> dict[str, Any]:
        return await self._apply(_path(Kind.DEPLOYMENT, key), manifest, manager)

    async def apply_budget(self, key: QueueKey, manifest: Manifest) -> dict[str, Any]:
        return await self._apply(_path(Kind.BUDGET, key), manifest)

    async def scale_deployment(self, key: QueueKey, replicas: int) -> dict[str, Any]:
        path, body = _path(Kind.DEPLOYMENT, key, "scale"), {"spec": {"replicas": replicas}}
        return await self._merge(path, body, self._lanes.size())

    async def patch_finalizers(self, key: QueueKey, live: Manifest, names: list[str]) -> dict[str, Any]:
        """Set the finalizers of an AstridQueue that is still as `live` says; raises Conflict."""
        version = live["metadata"]["resourceVersion"]
        body = {"metadata": {"finalizers": names, "resourceVersion": version}}
        return await self._merge(_path(Kind.ASTRID_QUEUE, key), body)

    async def apply_status(self, key: QueueKey, manifest: Manifest) -> dict[str, Any]:
        return await self._apply(_path(Kind.ASTRID_QUEUE, key, "status"), manifest)

    async def annotate_pod(self, pod: Manifest, annotations: Mapping[str, str | None]) -> dict[str, Any]:
        """Merge `annotations` (None removes) into those of `pod`, and of no successor of its name."""
        metadata = pod["metadata"]
        path = RESOURCES[Kind.POD].path(metadata["namespace"], metadata["name"])
        return await self._merge(
            path, {"metadata": {"uid": metadata["uid"], "annotations": dict(annotations)}}
        )

    async def create_event(self, namespace: str, event: Manifest) -> dict[str, Any]:
        return await self._write(
            "POST", EVENTS.path(namespace), {"fieldManager": FIELD_MANAGER}, event, "application/json"
        )

    async def list_objects(self, kind: Kind, namespace: str | None) -> list[dict[str, Any]]:
        """Every object of `kind` that is looked at, in one namespace or (None) in all."""
        query = {"limit": str(PAGE)} | ({"labelSelector": QUEUE_LABEL} if kind in LABELLED else {})
        found: list[dict[str, Any]] = []
        while True:
            page = await self._read(RESOURCES[kind].path(namespace), query)
            found += page.get("items") or []
            token = (page.get("metadata") or {}).get("continue")
            if not token:
                return found
            query["continue"] = token

    async def _read(self, path: str, query: Mapping[str, str] | None = None) -> dict[str, Any]:
        return await self._requests.send("GET", path, query=query, timeout_s=REQUEST_SECONDS)

    async def _apply(self, path: str, manifest: Manifest, manager: str = FIELD_MANAGER) -> dict[str, Any]:
        query = {"fieldManager": manager, "force": "true"}
        return await self._write("PATCH", path, query, manifest, APPLY)

    async def _merge(
        self, path: str, body: Manifest, lane: AbstractAsyncContextManager[None] | None = None
    ) -> dict[str, Any]:
        return await self._write("PATCH", path, {"fieldManager": FIELD_MANAGER}, body, MERGE, lane)

    async def _write(
        self,
        method: Literal["POST", "PATCH"],
        path: str,
        query: Mapping[str, str],
        body: Manifest,
        content_type: str,
        lane: AbstractAsyncContextManager[None] | None = None,
    ) -> dict[str, Any]:
        """Every write passes here: none is made by a process that may have lost the Lease."""
        async with lane or self._lanes.other():
            self.check_leads()
            return await self._requests.send(
                method, path, query=query, body=body, content_type=content_type, timeout_s=REQUEST_SECONDS
            )


def _path(kind: Kind, key: QueueKey, *subresource: str) -> str:
    return RESOURCES[kind].path(key.namespace, key.name, *subresource)
