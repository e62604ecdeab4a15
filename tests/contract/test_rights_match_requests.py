"""What the operator's role allows is what the operator asks the API server for: nothing is missing, nothing is spare."""

import re
from pathlib import Path

import yaml

from astrid_operator.handlers import RESOURCES
from astrid_operator.seen import Kind

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ("kubernetes_api.py", "leadership.py")

#: Client method → (group, resource). A method that is not here fails the test: say what it asks for.
RESOURCE_OF = {
    "deployment": ("apps", "deployments"),
    "deployment_scale": ("apps", "deployments/scale"),
    "pod_disruption_budget": ("policy", "poddisruptionbudgets"),
    "pod": ("", "pods"),
    "event": ("", "events"),
    "node": ("", "nodes"),
    "resource_quota": ("", "resourcequotas"),
    "lease": ("coordination.k8s.io", "leases"),
    "custom_object": ("astrid.dev", "astridqueues"),
    "custom_object_status": ("astrid.dev", "astridqueues/status"),
}
VERBS = {"read": "get", "list": "list", "create": "create", "patch": "patch"}

#: Rights that no request shows: server-side apply of an object that is not there needs `create`, and an owner reference
#: that blocks deletion needs `update` on the owner's finalizers where an admission plugin checks that.
IMPLIED = {
    ("apps", "deployments", "create"),
    ("policy", "poddisruptionbudgets", "create"),
    ("astrid.dev", "astridqueues/finalizers", "update"),
}
#: kopf's own, where all namespaces are served.
DISCOVERY = {("apiextensions.k8s.io", "customresourcedefinitions", verb) for verb in ("list", "watch")}


def _asked() -> set[tuple[str, str, str]]:
    """(group, resource, verb) of every request in the two modules that have a client, and of the watches."""
    found = set(IMPLIED | DISCOVERY)
    for name in SOURCES:
        text = (ROOT / "operator" / "astrid_operator" / name).read_text()
        for verb, what in re.findall(r"\.(\w+?)_(\w+?)_without_preload_content", text):
            noun = (
                what.removeprefix("namespaced_").removeprefix("cluster_").removesuffix("_for_all_namespaces")
            )
            found.add((*RESOURCE_OF[noun], VERBS[verb]))
    for kind in Kind:
        group, _, plural = RESOURCES[kind]
        found |= {(group, plural, "list"), (group, plural, "watch")}
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
