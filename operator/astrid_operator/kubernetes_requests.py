"""One request to the API server: where a resource is found, and a document in and out.

Owns paths, headers and query strings. The client brings connections, TLS and credentials; its generated
methods are not used, as importing them costs 35 MB. Knows nothing of leadership.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import urlencode

from kubernetes.aio import client

from astrid_operator.astrid_queue import GROUP, PLURAL, VERSION
from astrid_operator.kinds import Kind
from astrid_operator.kubernetes_answers import answer

#: How a PATCH is meant; the API server tells it by the content type.
APPLY = "application/apply-patch+yaml"
MERGE = "application/merge-patch+json"


@dataclass(frozen=True, slots=True)
class Resource:
    """Where objects of one kind are found."""

    group: str
    version: str
    plural: str

    def path(self, namespace: str | None = None, *parts: str) -> str:
        """`parts` are a name and a subresource, as far as there are any; namespace None: all, or none."""
        root = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        scope = () if namespace is None else ("namespaces", namespace)
        return "/".join((root, *scope, self.plural, *parts))


#: What is watched.
RESOURCES: dict[Kind, Resource] = {
    Kind.ASTRID_QUEUE: Resource(GROUP, VERSION, PLURAL),
    Kind.DEPLOYMENT: Resource("apps", "v1", "deployments"),
    Kind.POD: Resource("", "v1", "pods"),
    Kind.BUDGET: Resource("policy", "v1", "poddisruptionbudgets"),
    Kind.QUOTA: Resource("", "v1", "resourcequotas"),
    Kind.NODE: Resource("", "v1", "nodes"),
}
EVENTS = Resource("", "v1", "events")
LEASES = Resource("coordination.k8s.io", "v1", "leases")


class KubernetesRequests:
    """Sends requests with the connections and credentials of `api`."""

    def __init__(self, api: client.ApiClient) -> None:
        self._api = api

    async def send(
        self,
        method: Literal["GET", "POST", "PATCH"],
        path: str,
        *,
        timeout_s: float,
        query: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        content_type: str = "application/json",
    ) -> dict[str, Any]:
        """The document in the answer; raises what `kubernetes_answers.failure` makes of any other answer.

        `timeout_s` is for the whole of it, connecting included.
        """
        headers = {"Accept": "application/json", "Content-Type": content_type, **self._api.default_headers}
        await self._api.update_params_for_auth(headers, [], ["BearerToken"], path, method, body)
        url = f"{self._api.configuration.host}{path}{'?' if query else ''}{urlencode(query or {})}"
        call = self._api.call_api(method, url, header_params=headers, body=body, _request_timeout=timeout_s)
        return await answer(call)
