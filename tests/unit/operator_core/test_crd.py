"""The CRD file: described, bounded, and the same as what the operator reads."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from astrid_operator import rules
from astrid_operator import schema as kinds
from astrid_operator.spec_schema import SPEC

ROOT = Path(__file__).resolve().parents[3]
CRD = yaml.safe_load((ROOT / "crds/astridqueues.astrid.dev.yaml").read_text())
VERSION = CRD["spec"]["versions"][0]
SCHEMA = VERSION["schema"]["openAPIV3Schema"]
Json = Any

RULE_KEYS = ("x-kubernetes-validations", "description")


def _openapi(kind: kinds.Kind) -> Json:
    """The schema that says what `kind` reads."""
    schema = _bare(kind)
    if kind.default_value() is not None and kind is not SPEC:
        schema["default"] = kind.default_value()
    return schema


def _bare(kind: kinds.Kind) -> Json:
    match kind:
        case kinds.Flag():
            return {"type": "boolean"}
        case kinds.Whole(minimum, maximum):
            return {"type": "integer", "minimum": minimum, "maximum": maximum}
        case kinds.Number(minimum, maximum):
            return {"type": "number", "minimum": minimum, "maximum": maximum}
        case kinds.Choice(words):
            return {"type": "string", "enum": list(words)}
        case kinds.Text(max_length, min_length, pattern):
            bounds = {"minLength": min_length} if min_length else {}
            form = {"pattern": f"^{pattern}$"} if pattern else {}
            return {"type": "string", "maxLength": max_length, **bounds, **form}
        case kinds.WholeOrText(minimum, maximum, pattern, max_length):
            bounds = {"minimum": minimum, "maximum": maximum, "maxLength": max_length}
            return {"x-kubernetes-int-or-string": True, "pattern": f"^{pattern}$", **bounds}
        case kinds.Anything(most):
            return {"type": "object", "maxProperties": most, "x-kubernetes-preserve-unknown-fields": True}
        case kinds.MapOf(values, most):
            return {"type": "object", "maxProperties": most, "additionalProperties": _openapi(values)}
        case kinds.ListOf(items, most, keys):
            listed = (
                {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": list(keys)} if keys else {}
            )
            atomic = {} if keys else {"x-kubernetes-list-type": "atomic"}
            return {"type": "array", "maxItems": most, "items": _openapi(items), **listed, **atomic}
        case kinds.Object(fields, required):
            needed = {"required": list(required)} if required else {}
            return {"type": "object", "properties": {n: _openapi(f) for n, f in fields.items()}, **needed}
    raise AssertionError(kind)


def _without(node: Json, *names: str) -> Json:
    """`node` without those schema keywords; properties that bear such a name stay."""
    if isinstance(node, list):
        return [_without(each, *names) for each in node]
    if not isinstance(node, dict):
        return node
    return {
        key: {name: _without(each, *names) for name, each in value.items()}
        if key == "properties"
        else _without(value, *names)
        for key, value in node.items()
        if key not in names
    }


def _nodes(node: Json, path: str) -> Iterator[tuple[str, Json]]:
    yield path, node
    for name, each in node.get("properties", {}).items():
        yield from _nodes(each, f"{path}.{name}".lstrip("."))
    if "items" in node:
        yield from _nodes(node["items"], f"{path}[]")
    if isinstance(node.get("additionalProperties"), dict):
        yield from _nodes(node["additionalProperties"], f"{path}{{}}")


NODES = dict(_nodes(SCHEMA, ""))


def test_every_field_bound_and_default_is_what_the_operator_reads() -> None:
    """One schema, two readers: types, bounds, patterns, keys, required fields and defaults agree."""
    assert _without(NODES["spec"], *RULE_KEYS) == _openapi(SPEC)


def test_every_rule_has_the_same_sentence_at_the_same_place() -> None:
    """What kubectl prints and what the operator says of the same fault is one sentence."""
    there = {
        (path, each.get("fieldPath", "").lstrip("."), each["message"])
        for path, node in NODES.items()
        for each in node.get("x-kubernetes-validations", ())
    }
    here = {
        (rule.at, "" if rule.field.startswith("metadata") else rule.field, rule.sentence)
        for rule in rules.RULES
    }

    assert there - here == {("spec", "queueName", rules.QUEUE_NAME_IS_KEPT)}
    assert here - there == set()


def test_reserved_variables_stand_in_the_rule_in_full() -> None:
    """The API server refuses exactly the variables that the operator sets."""
    (rule,) = (
        each["rule"]
        for each in NODES["spec.env[]"]["x-kubernetes-validations"]
        if each.get("fieldPath") == ".name"
    )

    assert re.findall(r"'(\w+)'", rule) == list(rules.RESERVED_VARIABLES)


@pytest.mark.parametrize("path", [path for path in NODES if path and path != "metadata"])
def test_every_field_is_described(path: str) -> None:
    """`kubectl explain` answers for each field, in a sentence."""
    description = NODES[path].get("description", "")

    assert description.endswith(".")
    assert len(description) > 8


@pytest.mark.parametrize("path", [path for path in NODES if path.startswith("spec")])
def test_whatever_a_rule_may_touch_is_bounded(path: str) -> None:
    """The API server refuses rules over anything without a bound; and no object grows without end."""
    node = NODES[path]
    bound = {"array": "maxItems", "string": "maxLength"}.get(node.get("type", ""))
    if bound and "enum" not in node:
        assert bound in node
    if "additionalProperties" in node or node.get("x-kubernetes-preserve-unknown-fields"):
        assert "maxProperties" in node


def test_every_list_says_how_it_is_merged() -> None:
    """Server-side apply of a list without a type replaces it as a whole, silently."""
    assert [
        path
        for path, node in NODES.items()
        if node.get("type") == "array" and "x-kubernetes-list-type" not in node
    ] == []


def test_scale_status_and_columns_are_there() -> None:
    """kubectl scale, an HPA and `kubectl get aq` find what they need."""
    assert VERSION["subresources"] == {
        "status": {},
        "scale": {
            "specReplicasPath": ".spec.replicas",
            "statusReplicasPath": ".status.replicas",
            "labelSelectorPath": ".status.selector",
        },
    }
    plain = [each["name"] for each in VERSION["additionalPrinterColumns"] if not each.get("priority")]
    assert plain == ["Ready", "Desired", "Current", "Waiting", "Mode", "GPU", "Reason", "Age"]


def test_printer_columns_read_fields_that_exist() -> None:
    """A column never stays empty because of a misspelt path."""
    paths = {
        re.sub(r"\[\?.*?\]", "[]", each["jsonPath"]).lstrip(".")
        for each in VERSION["additionalPrinterColumns"]
    }

    assert paths - NODES.keys() == {"metadata.creationTimestamp"}


def test_file_is_small_enough_for_a_plain_apply() -> None:
    """kubectl keeps a copy in an annotation, which has at most 262144 bytes."""
    assert len((ROOT / "crds/astridqueues.astrid.dev.yaml").read_bytes()) < 200_000
