"""What is shown and what is raised names only what the operator exports."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from astrid_operator.astrid_queue import QueueKey, parse_astrid_queue
from astrid_operator.fleet import FleetState
from astrid_operator.metrics import Metrics
from astrid_operator.reconcile import Gathered
from astrid_operator.scaling import Demand, DemandReading, Reason, ScalingDecision

MONITORING = Path(__file__).resolve().parents[2] / "manifests" / "monitoring"

#: A metric's name and what stands in its braces.
SELECTOR = re.compile(r"\b(astrid_\w+)(?:\{([^}]*)\})?")
#: Names that a result is grouped by.
GROUPED = re.compile(r"\bby \(([^)]*)\)")
MANIFEST = {
    "apiVersion": "astrid.dev/v1alpha1",
    "kind": "AstridQueue",
    "metadata": {"name": "q", "namespace": "sky", "uid": "1", "generation": 1},
    "spec": {"app": "sky.tasks"},
}


def exported() -> dict[str, set[str]]:
    """Sample → its labels, of an operator to which everything has happened."""
    metrics, key = Metrics(), QueueKey("sky", "q")
    known = {"orphans": 1, "oldest_seconds": 1.0, "finished": 3, "failed": 1, "task_seconds": 2.0}
    demand = Demand(ready=1, waits=b"1 1 0 0 0 0 0 0 0 0", **known)
    gathered = Gathered(
        parse_astrid_queue(MANIFEST), FleetState(exists=True), DemandReading(0, demand, ""), None
    )
    metrics.saw(gathered, None)
    metrics.scaled(key, ScalingDecision(1, Reason.BACKLOG, "1 wanted"), 0)
    metrics.retired(key, as_chosen=True)
    metrics.reclaimed(key, 1)
    metrics.promoted(key, 1)
    metrics.reconciled("done", 0.1)
    metrics.ticked(0.1, 1)
    metrics.watched("pods", 1.0)
    metrics.leads(is_leader=True)
    metrics.brokers({"redis://one": True})
    return {
        sample.name: set(sample.labels) for family in metrics.registry.collect() for sample in family.samples
    }


def alerts() -> list[dict[str, Any]]:
    """All rules."""
    document = yaml.safe_load((MONITORING / "alerts.yaml").read_text())
    return [rule for group in document["spec"]["groups"] for rule in group["rules"]]


def expressions() -> Iterator[tuple[str, str]]:
    """(where it stands, expression) of all rules, panels and variables."""
    yield from ((rule["alert"], rule["expr"]) for rule in alerts())
    board = json.loads((MONITORING / "astrid-fleets.json").read_text())
    for panel in board["panels"]:
        yield from ((panel["title"], target["expr"]) for target in panel["targets"])
    for variable in board["templating"]["list"]:
        yield f"variable {variable['name']}", variable["query"]


@pytest.mark.parametrize(("where", "expression"), list(expressions()), ids=lambda value: value[:40])
def test_every_expression_names_what_is_exported(where: str, expression: str) -> None:
    """Metrics and labels are there, and brackets close."""
    samples = exported()
    for name, selectors in SELECTOR.findall(expression):
        assert name in samples, where
        found = re.findall(r"(\w+)\s*(?:=~|!=|!~|=)", selectors)
        assert set(found) <= samples[name], where
    named = {name for name, _ in SELECTOR.findall(expression)}
    for names in GROUPED.findall(expression):
        assert set(names.replace(" ", "").split(",")) <= set().union(*(samples[name] for name in named)), (
            where
        )
    for opening, closing in ("()", "{}", "[]"):
        assert expression.count(opening) == expression.count(closing), where


def test_every_alert_says_what_is_wrong_and_what_to_do() -> None:
    """CamelCase and once, with a severity, a summary and a description; few are critical."""
    rules = alerts()
    names = [rule["alert"] for rule in rules]
    assert len(set(names)) == len(names)
    for rule in rules:
        assert re.fullmatch(r"Astrid([A-Z][a-z]+)+", rule["alert"])
        assert rule["labels"]["severity"] in {"critical", "warning", "info"}
        assert {"summary", "description"} <= rule["annotations"].keys()
    assert sum(rule["labels"]["severity"] == "critical" for rule in rules) <= 3


def test_what_a_person_needs_is_on_the_board() -> None:
    """Every sample about a queue is shown somewhere."""
    shown = {name for _, expression in expressions() for name, _ in SELECTOR.findall(expression)}
    of_queues = {name for name, labels in exported().items() if "queue" in labels}
    assert of_queues - shown <= {"astrid_message_wait_seconds_sum", "astrid_message_wait_seconds_count"}


def test_every_metric_is_in_the_table_of_the_status_page() -> None:
    """What is exported is told, and nothing else."""
    page = (MONITORING.parents[1] / "docs" / "status.md").read_text()
    section = page.split("\n## Metrics\n")[1].split("\n## ")[0]
    told = {name for line in section.splitlines() for name in re.findall(r"`(astrid_\w+)`", line)}
    assert told == {re.sub(r"_(bucket|sum|count)$", "", name) for name in exported()}


def test_the_folder_is_whole() -> None:
    """The kustomization names every file beside it, and the scrape finds the operator's port by its name."""
    told = yaml.safe_load((MONITORING / "kustomization.yaml").read_text())
    named = {*told["resources"], *(name for each in told["configMapGenerator"] for name in each["files"])}
    assert named == {path.name for path in MONITORING.iterdir()} - {"kustomization.yaml"}

    scrape = yaml.safe_load((MONITORING / "scrape.yaml").read_text())
    operator = yaml.safe_load_all((MONITORING.parent / "base" / "operator.yaml").read_text())
    (deployment,) = [each for each in operator if each["kind"] == "Deployment"]
    template = deployment["spec"]["template"]
    ports = {port["name"] for each in template["spec"]["containers"] for port in each.get("ports", ())}
    assert scrape["spec"]["podMetricsEndpoints"][0]["port"] in ports
    assert scrape["spec"]["selector"]["matchLabels"].items() <= template["metadata"]["labels"].items()
