"""A small synchronous client of the Kubernetes API for tests: raw dicts in, raw dicts out.

Owns addressing (by plural resource name, found by discovery), patch types and watches; retries nothing and caches
nothing but the resource table. It shares no code with what it tests.
"""

import json
import ssl
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

import httpx

Object = dict[str, Any]
Objects = list[Object]
PatchType = Literal["merge", "json", "strategic", "apply"]

_CONTENT_TYPES: dict[str, str] = {
    "merge": "application/merge-patch+json",
    "json": "application/json-patch+json",
    "strategic": "application/strategic-merge-patch+json",
    "apply": "application/apply-patch+yaml",
}
_DISCOVERY = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"


class ApiFailure(Exception):  # noqa: N818 - an answer of the server, with its code
    """An answer that is not a success: HTTP code, Kubernetes' reason word, its message and the whole Status."""

    def __init__(self, code: int, body: Object) -> None:
        self.code = code
        self.reason: str = body.get("reason", "")
        self.message: str = body.get("message", "")
        self.body = body
        super().__init__(f"{code} {self.reason}: {self.message}")


@dataclass(frozen=True, slots=True)
class Resource:
    """Where a kind of object is found: `/api/v1` or `/apis/<group>/<version>`, and its plural."""

    root: str
    plural: str
    kind: str
    is_namespaced: bool

    @property
    def api_version(self) -> str:
        return self.root.removeprefix("/apis/").removeprefix("/api/")

    def path(self, namespace: str | None, name: str | None = None, subresource: str | None = None) -> str:
        scope = f"/namespaces/{namespace}" if self.is_namespaced and namespace is not None else ""
        tail = "".join(f"/{part}" for part in (name, subresource) if part)
        return f"{self.root}{scope}/{self.plural}{tail}"


class Api:
    """One connection pool with one user's certificate. Usable as a context manager.

    Resources are named by plural (`deployments`, `astridqueues`); a manifest is addressed by its own
    `apiVersion` and `kind`, and by `namespace` where it names none itself.
    """

    def __init__(self, server: str, authority: Path, certificate: Path, key: Path) -> None:
        context = ssl.create_default_context(cafile=str(authority))
        context.load_cert_chain(certificate, key)
        self._http = httpx.Client(base_url=server, verify=context, trust_env=False, timeout=30)
        self._resources: list[Resource] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    # ------------------------------------------------------------------ single objects

    def get(
        self, resource: str, name: str, namespace: str | None = None, subresource: str | None = None
    ) -> Object:
        return self.request("GET", self._path(resource, namespace, name, subresource))

    def find(self, resource: str, name: str, namespace: str | None = None) -> Object | None:
        """As `get`, but None where there is no such object."""
        try:
            return self.get(resource, name, namespace)
        except ApiFailure as failure:
            if failure.code == 404:
                return None
            raise

    def create(self, manifest: Object, namespace: str | None = None, **query: str) -> Object:
        return self.request(
            "POST", self._path_of(manifest, namespace, with_name=False), body=manifest, query=query
        )

    def replace(
        self, manifest: Object, namespace: str | None = None, subresource: str | None = None
    ) -> Object:
        return self.request("PUT", self._path_of(manifest, namespace, subresource=subresource), body=manifest)

    def apply(
        self,
        manifest: Object,
        namespace: str | None = None,
        *,
        field_manager: str = "astrid-test",
        force: bool = True,
        subresource: str | None = None,
        dry_run: bool = False,
    ) -> Object:
        """Server-side apply."""
        query = {"fieldManager": field_manager, "force": str(force).lower()}
        if dry_run:
            query["dryRun"] = "All"
        path = self._path_of(manifest, namespace, subresource=subresource)
        return self.request("PATCH", path, body=manifest, query=query, content_type=_CONTENT_TYPES["apply"])

    def patch(
        self,
        resource: str,
        name: str,
        namespace: str | None,
        body: Object | Objects,
        *,
        kind: PatchType = "merge",
        subresource: str | None = None,
        **query: str,
    ) -> Object:
        path = self._path(resource, namespace, name, subresource)
        return self.request("PATCH", path, body=body, query=query, content_type=_CONTENT_TYPES[kind])

    def delete(
        self,
        resource: str,
        name: str,
        namespace: str | None = None,
        *,
        grace_seconds: int | None = None,
        propagation: Literal["Background", "Foreground", "Orphan"] = "Background",
        missing_ok: bool = True,
    ) -> None:
        options: Object = {"propagationPolicy": propagation}
        if grace_seconds is not None:
            options["gracePeriodSeconds"] = grace_seconds
        try:
            self.request("DELETE", self._path(resource, namespace, name), body=options)
        except ApiFailure as failure:
            if failure.code != 404 or not missing_ok:
                raise

    def scale(self, resource: str, name: str, namespace: str, replicas: int) -> Object:
        """What `kubectl scale` does: a merge patch on `/scale`."""
        return self.patch(resource, name, namespace, {"spec": {"replicas": replicas}}, subresource="scale")

    # ------------------------------------------------------------------ many objects

    def list(
        self, resource: str, namespace: str | None = None, *, labels: str = "", fields: str = ""
    ) -> Objects:
        return self.list_with_version(resource, namespace, labels=labels, fields=fields)[0]

    def list_with_version(
        self, resource: str, namespace: str | None = None, *, labels: str = "", fields: str = ""
    ) -> tuple[Objects, str]:
        """The objects, and the `resourceVersion` that a watch may go on from."""
        path = self._path(resource, namespace)
        answer = self.request("GET", path, query=_selectors(labels, fields))
        return answer["items"] or [], answer["metadata"]["resourceVersion"]

    def watch(
        self,
        resource: str,
        namespace: str | None = None,
        *,
        since: str | None = None,
        labels: str = "",
        fields: str = "",
        timeout_s: float = 30,
    ) -> Iterator[tuple[str, Object]]:
        """(type, object) as they come, until `timeout_s` is over; without `since`, what is there comes first.

        An ERROR event is raised as ApiFailure (410: the version is too old).
        """
        query = {"watch": "1", "timeoutSeconds": str(max(1, round(timeout_s))), **_selectors(labels, fields)}
        if since is not None:
            query["resourceVersion"] = since
        deadline = time.monotonic() + timeout_s
        with self._http.stream(
            "GET", self._path(resource, namespace), params=query, timeout=timeout_s + 5
        ) as answer:
            if answer.status_code >= 400:
                answer.read()
                raise ApiFailure(answer.status_code, _document(answer))
            for line in answer.iter_lines():
                event = json.loads(line)
                if event["type"] == "ERROR":
                    raise ApiFailure(event["object"].get("code", 500), event["object"])
                yield event["type"], event["object"]
                if time.monotonic() > deadline:
                    return

    # ------------------------------------------------------------------ bare requests

    def answers(self, path: str, timeout_s: float = 5) -> bool:
        """True when a GET of `path` succeeds; a server that is not there is False."""
        try:
            return self._http.get(path, timeout=timeout_s).status_code == 200
        except httpx.HTTPError:
            return False

    def text(self, path: str) -> str:
        """The body of a GET that is not JSON (`/metrics`)."""
        answer = self._http.get(path)
        if answer.status_code >= 400:
            raise ApiFailure(answer.status_code, _document(answer))
        return answer.text

    def request(
        self,
        method: str,
        path: str,
        *,
        body: Object | Objects | None = None,
        query: dict[str, str] | None = None,
        content_type: str = "application/json",
    ) -> Object:
        """One request by its path; raises ApiFailure for what is not a success."""
        content = None if body is None else json.dumps(body)
        headers = {"Content-Type": content_type, "Accept": "application/json"}
        answer = self._http.request(method, path, params=query, content=content, headers=headers)
        if answer.status_code >= 400:
            raise ApiFailure(answer.status_code, _document(answer))
        return _document(answer)

    # ------------------------------------------------------------------ addressing

    def resource(self, plural: str) -> Resource:
        """The resource of that plural name; a name that is not known yet is looked up again."""
        return self._find_resource(plural, lambda each: each.plural == plural)

    def _path(
        self, plural: str, namespace: str | None, name: str | None = None, subresource: str | None = None
    ) -> str:
        return self.resource(plural).path(namespace, name, subresource)

    def _path_of(
        self,
        manifest: Object,
        namespace: str | None,
        *,
        with_name: bool = True,
        subresource: str | None = None,
    ) -> str:
        version, kind = manifest["apiVersion"], manifest["kind"]
        found = self._find_resource(
            f"{version} {kind}", lambda each: (each.api_version, each.kind) == (version, kind)
        )
        metadata = manifest["metadata"]
        namespace = metadata.get("namespace", namespace)
        return found.path(namespace, metadata["name"] if with_name else None, subresource)

    def _find_resource(self, what: str, matches: Any) -> Resource:
        for attempt in (1, 2):
            found = next((each for each in self._resources if matches(each)), None)
            if found is not None:
                return found
            if attempt == 1:
                self._discover()
        raise ApiFailure(404, {"reason": "NotFound", "message": f"the server knows no resource {what}"})

    def _discover(self) -> None:
        resources: list[Resource] = []
        for entrance in ("/api", "/apis"):
            answer = self._http.get(entrance, headers={"Accept": _DISCOVERY})
            answer.raise_for_status()
            for group in answer.json()["items"]:
                resources += _resources_of_group(entrance, group)
        self._resources = resources


def _resources_of_group(entrance: str, group: Object) -> Iterator[Resource]:
    prefix = "/".join(part for part in (entrance, group["metadata"].get("name", "")) if part)
    for version in group["versions"]:
        for each in version.get("resources", []):
            kind = each["responseKind"]["kind"]
            yield Resource(
                f"{prefix}/{version['version']}", each["resource"], kind, each["scope"] == "Namespaced"
            )


def _selectors(labels: str, fields: str) -> dict[str, str]:
    return {name: value for name, value in (("labelSelector", labels), ("fieldSelector", fields)) if value}


def _document(answer: httpx.Response) -> Object:
    try:
        document: Object = answer.json()
    except ValueError:
        document = {"message": answer.text[:2000]}
    return document
