"""AstridQueues for tests, by the few fields that a test is about."""

from typing import Any

from astrid_operator.astrid_queue import AstridQueue, AstridQueueSpec, parse_astrid_queue

Json = Any


def manifest(name: str = "differencing", **spec: Json) -> Json:
    """A manifest of that name; `spec` in wire form."""
    return {
        "apiVersion": "astrid.dev/v1alpha1",
        "kind": "AstridQueue",
        "metadata": {"name": name, "namespace": "sky", "uid": "u-1", "generation": 4},
        "spec": spec,
    }


def queue(name: str = "differencing", **spec: Json) -> AstridQueue:
    """The parsed AstridQueue."""
    return parse_astrid_queue(manifest(name, **spec))


def policy(name: str = "differencing", **spec: Json) -> AstridQueueSpec:
    """Its spec alone."""
    return queue(name, **spec).spec
