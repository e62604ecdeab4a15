"""The requests that the operator makes of the API server: the module that writes to it.

Owns every request but the Lease's: raw documents in and out, failures as our own errors. Decides nothing, and
sends no write of a process that may have lost the Lease.
"""

from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any

from kubernetes.aio import client

from astrid_operator.astrid_queue import GROUP, PLURAL, VERSION, QueueKey
from astrid_operator.errors import LeadershipLost
from astrid_operator.fleet_view import FIELD_MANAGER
from astrid_operator.kubernetes_answers import Response, answer
from astrid_operator.seen import LABELLED, QUEUE_LABEL, Kind
from astrid_operator.write_lanes import WriteLanes

APPLY = "application/apply-patch+yaml"
MERGE = "application/merge-patch+json"

#: Seconds that one request may take.
REQUEST_SECONDS = 15.0
#: Objects per page of a list.
PAGE = 500

Manifest = Mapping[str, Any]


class KubernetesApi:
    """The requests that the operator makes: raw documents in and out, failures as our own errors."""

    def __init__(self, api: client.ApiClient, may_write: Callable[[], bool]) -> None:
        self._apps = client.AppsV1Api(api)
        self._policy = client.PolicyV1Api(api)
        self._core = client.CoreV1Api(api)
        self._custom = client.CustomObjectsApi(api)
        self._may_write = may_write
        self._lanes = WriteLanes()

    def check_leads(self) -> None:
        """Raise LeadershipLost where nothing may be written, be it here or to a broker."""
        if not self._may_write():
            message = "not the leader: nothing may be written"
            raise LeadershipLost(message)

    async def read_deployment(self, key: QueueKey) -> dict[str, Any]:
        read = self._apps.read_namespaced_deployment_without_preload_content
        return await answer(read(key.name, key.namespace, _request_timeout=REQUEST_SECONDS))

    async def read_budget(self, key: QueueKey) -> dict[str, Any]:
        read = self._policy.read_namespaced_pod_disruption_budget_without_preload_content
        return await answer(read(key.name, key.namespace, _request_timeout=REQUEST_SECONDS))

    async def apply_deployment(
        self, key: QueueKey, manifest: Manifest, manager: str = FIELD_MANAGER
    ) -> dict[str, Any]:
        patch = self._apps.patch_namespaced_deployment_without_preload_content
        return await self._write(patch, key.name, key.namespace, manifest, **_applied_by(manager))

    async def apply_budget(self, key: QueueKey, manifest: Manifest) -> dict[str, Any]:
        patch = self._policy.patch_namespaced_pod_disruption_budget_without_preload_content
        return await self._write(patch, key.name, key.namespace, manifest, **_applied_by(FIELD_MANAGER))

    async def scale_deployment(self, key: QueueKey, replicas: int) -> dict[str, Any]:
        patch = self._apps.patch_namespaced_deployment_scale_without_preload_content
        body = {"spec": {"replicas": replicas}}
        options: dict[str, Any] = {"field_manager": FIELD_MANAGER, "_content_type": MERGE}
        return await self._write(patch, key.name, key.namespace, body, lane=self._lanes.size(), **options)

    async def patch_finalizers(self, key: QueueKey, live: Manifest, names: list[str]) -> dict[str, Any]:
        """Set the finalizers of an AstridQueue that is still as `live` says; raises Conflict."""
        patch = self._custom.patch_namespaced_custom_object_without_preload_content
        path = (GROUP, VERSION, key.namespace, PLURAL, key.name)
        version = live["metadata"]["resourceVersion"]
        body = {"metadata": {"finalizers": names, "resourceVersion": version}}
        options: dict[str, Any] = {"field_manager": FIELD_MANAGER, "_content_type": MERGE}
        return await self._write(patch, *path, body, **options)

    async def apply_status(self, key: QueueKey, manifest: Manifest) -> dict[str, Any]:
        patch = self._custom.patch_namespaced_custom_object_status_without_preload_content
        path = (GROUP, VERSION, key.namespace, PLURAL, key.name)
        return await self._write(patch, *path, manifest, **_applied_by(FIELD_MANAGER))

    async def annotate_pod(self, pod: Manifest, annotations: Mapping[str, str | None]) -> dict[str, Any]:
        """Merge `annotations` (None removes) into those of `pod`, and of no successor of its name."""
        patch = self._core.patch_namespaced_pod_without_preload_content
        metadata = pod["metadata"]
        body = {"metadata": {"uid": metadata["uid"], "annotations": dict(annotations)}}
        options: dict[str, Any] = {"field_manager": FIELD_MANAGER, "_content_type": MERGE}
        return await self._write(patch, metadata["name"], metadata["namespace"], body, **options)

    async def create_event(self, namespace: str, event: client.CoreV1Event) -> dict[str, Any]:
        create = self._core.create_namespaced_event_without_preload_content
        return await self._write(create, namespace, event, field_manager=FIELD_MANAGER)

    async def list_objects(self, kind: Kind, namespace: str | None) -> list[dict[str, Any]]:
        """Every object of `kind` that is looked at, in one namespace or (None) in all."""
        path: tuple[str, ...] = () if namespace is None else (namespace,)
        options: dict[str, Any] = {"label_selector": QUEUE_LABEL} if kind in LABELLED else {}
        if kind is Kind.ASTRID_QUEUE:
            path = (GROUP, VERSION, *path, PLURAL)
        method = self._lister(kind, everywhere=namespace is None)
        found: list[dict[str, Any]] = []
        token: str | None = None
        while token is None or token:
            page = await answer(
                method(*path, **options, limit=PAGE, _continue=token, _request_timeout=REQUEST_SECONDS)
            )
            found += page.get("items") or []
            token = (page.get("metadata") or {}).get("continue") or ""
        return found

    def _lister(self, kind: Kind, *, everywhere: bool) -> Callable[..., Awaitable[Response]]:
        apps, core, policy, custom = self._apps, self._core, self._policy, self._custom
        if kind is Kind.ASTRID_QUEUE:
            if everywhere:
                return custom.list_cluster_custom_object_without_preload_content
            return custom.list_namespaced_custom_object_without_preload_content
        if kind is Kind.DEPLOYMENT:
            if everywhere:
                return apps.list_deployment_for_all_namespaces_without_preload_content
            return apps.list_namespaced_deployment_without_preload_content
        if kind is Kind.POD:
            if everywhere:
                return core.list_pod_for_all_namespaces_without_preload_content
            return core.list_namespaced_pod_without_preload_content
        if kind is Kind.NODE:
            return core.list_node_without_preload_content
        if kind is Kind.QUOTA:
            if everywhere:
                return core.list_resource_quota_for_all_namespaces_without_preload_content
            return core.list_namespaced_resource_quota_without_preload_content
        if everywhere:
            return policy.list_pod_disruption_budget_for_all_namespaces_without_preload_content
        return policy.list_namespaced_pod_disruption_budget_without_preload_content

    async def _write(
        self,
        method: Callable[..., Awaitable[Response]],
        *arguments: Any,
        lane: AbstractAsyncContextManager[None] | None = None,
        **options: Any,
    ) -> dict[str, Any]:
        """Every write passes here: none is made by a process that may have lost the Lease."""
        async with lane or self._lanes.other():
            self.check_leads()
            return await answer(method(*arguments, _request_timeout=REQUEST_SECONDS, **options))


def _applied_by(manager: str) -> dict[str, Any]:
    return {"field_manager": manager, "force": True, "_content_type": APPLY}
