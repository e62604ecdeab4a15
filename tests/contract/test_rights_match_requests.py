"""What the operator's role allows is what the operator asks the API server for: nothing is missing, nothing is spare."""

import asyncio
import inspect
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml
from kubernetes.aio import client

from astrid_operator.astrid_queue import QueueKey
from astrid_operator.kinds import Kind
from astrid_operator.kubernetes_api import KubernetesApi
from astrid_operator.kubernetes_requests import RESOURCES
from astrid_operator.leadership import Leadership, LeaseTimes

ROOT = Path(__file__).resolve().parents[2]

KEY = QueueKey("ns", "q")
LIVE: dict[str, Any] = {"metadata": {"name": "q", "namespace": "ns", "uid": "u", "resourceVersion": "1"}}

#: Every request of the operator with arguments to ask it with; one that is not here fails the test.
REQUESTS: dict[str, list[tuple[Any, ...]]] = {
    "read_deployment": [(KEY,)],
    "read_budget": [(KEY,)],
    "apply_deployment": [(KEY, LIVE)],
    "apply_budget": [(KEY, LIVE)],
    "scale_deployment": [(KEY, 1)],
    "patch_finalizers": [(KEY, LIVE, [])],
    "apply_status": [(KEY, LIVE)],
    "annotate_pod": [(LIVE, {})],
    "create_event": [("ns", LIVE)],
    "list_objects": [(kind, scope) for kind in Kind for scope in (None, "ns")],
}

#: Rights that no request shows: server-side apply of an object that is not there needs `create`, and an owner reference
#: that blocks deletion needs `update` on the owner's finalizers where an admission plugin checks that.
IMPLIED = {
    ("apps", "deployments", "create"),
    ("policy", "poddisruptionbudgets", "create"),
    ("astrid.dev", "astridqueues/finalizers", "update"),
}
#: kopf's own, where all namespaces are served.
DISCOVERY = {("apiextensions.k8s.io", "customresourcedefinitions", verb) for verb in ("list", "watch")}


@dataclass
class Answer:
    """What the API server says to everything; `status` 404 makes a Lease be created."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)

    async def read(self) -> bytes:
        return json.dumps(LIVE).encode()


class Recorder(client.ApiClient):
    """A client that notes what is asked for, and sends nothing."""

    def __init__(self) -> None:
        super().__init__(client.Configuration(host="https://server"))
        self.asked: set[tuple[str, str, str]] = set()

    async def call_api(self, method: str, url: str, **_: Any) -> Any:  # type: ignore[override] # sends nothing
        self.asked.add(_right(method, urlsplit(url).path))
        return Answer(404 if method == "GET" and "/leases/" in url else 200)


def _right(method: str, path: str) -> tuple[str, str, str]:
    """(group, resource with its subresource, verb) that RBAC must allow for a request."""
    entrance, *parts = path.strip("/").split("/")
    group = parts.pop(0) if entrance == "apis" else ""
    _version, *parts = parts
    if parts[0] == "namespaces":
        parts = parts[2:]
    resource, name, *subresource = [*parts, ""][: max(2, len(parts))]
    verb = {"GET": "get" if name else "list", "POST": "create", "PATCH": "patch"}[method]
    return group, "/".join((resource, *subresource)), verb


async def _ask_everything() -> set[tuple[str, str, str]]:
    recorder = Recorder()
    api = KubernetesApi(recorder, lambda: True)
    asking = {name for name, each in inspect.getmembers(api, inspect.iscoroutinefunction) if name[0] != "_"}
    assert asking == set(REQUESTS)
    for name, all_arguments in REQUESTS.items():
        for arguments in all_arguments:
            await getattr(api, name)(*arguments)
    await Leadership(recorder, "ns", "lease", "me", LeaseTimes()).acquire()
    await recorder.close()  # type: ignore[no-untyped-call]
    return recorder.asked


def _asked() -> set[tuple[str, str, str]]:
    """(group, resource, verb) of every request that is made, and of the watches."""
    found = IMPLIED | DISCOVERY | asyncio.run(_ask_everything())
    for each in RESOURCES.values():
        found |= {(each.group, each.plural, "list"), (each.group, each.plural, "watch")}
    return found


def _rules() -> list[dict[str, list[str]]]:
    documents = yaml.safe_load_all((ROOT / "manifests" / "base" / "rbac.yaml").read_text())
    return [rule for each in documents for rule in each.get("rules", ())]


def _allowed() -> set[tuple[str, str, str]]:
    return {
        (group, resource, verb)
        for rule in _rules()
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def test_every_request_is_allowed_and_every_right_is_used() -> None:
    """Least privilege in both directions: a verb that nobody needs is as wrong as one that is missing."""
    assert _allowed() == _asked()


def test_no_rule_is_a_wildcard_or_opens_more_than_fleets() -> None:
    """No stars, no Secrets, nothing by which more rights could be had."""
    for rule in _rules():
        assert "*" not in (*rule["apiGroups"], *rule["resources"], *rule["verbs"])
        assert not {"secrets", "configmaps", "serviceaccounts", "pods/exec", "roles"} & set(rule["resources"])
        assert not {"escalate", "bind", "impersonate", "delete"} & set(rule["verbs"])


def test_every_rule_says_why() -> None:
    """A reviewer reads the reason above each rule."""
    lines = (ROOT / "manifests" / "base" / "rbac.yaml").read_text().splitlines()
    starts = [index for index, line in enumerate(lines) if line.lstrip().startswith("- apiGroups")]

    assert starts
    previous_is_commented = False
    for index in starts:
        is_commented = lines[index - 1].lstrip().startswith("#")
        assert is_commented or previous_is_commented, lines[index]
        previous_is_commented = is_commented
