"""AstridQueues and their fleets as the cluster tests see them, and a Redis queue filled as Dramatiq fills it.

Owns the words of these tests; knows the API server's objects and Dramatiq's keys, and nothing of the operator's code.
"""

import json
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis
import yaml

from cluster.api_client import Api, Object
from support.waiting import wait_until

SAMPLES = Path(__file__).resolve().parents[2] / "manifests" / "samples"

#: Seconds within which the operator answers an edit on a busy machine.
SOON_S = 20.0


def astrid_queue(name: str, **spec: Any) -> Object:
    """A manifest; a foreign application unless `app` says otherwise, so that any queue name will do."""
    spec = {"app": "sky.tasks", **spec}
    return {
        "apiVersion": "astrid.dev/v1alpha1",
        "kind": "AstridQueue",
        "metadata": {"name": name},
        "spec": spec,
    }


def samples() -> list[Object]:
    """The six queues of the project."""
    return [each for path in sorted(SAMPLES.glob("*.yaml")) for each in yaml.safe_load_all(path.read_text())]


@dataclass(frozen=True, slots=True)
class Fleet:
    """One AstridQueue of a namespace and what belongs to it."""

    api: Api
    namespace: str
    name: str

    @property
    def queue(self) -> Object:
        return self.api.get("astridqueues", self.name, self.namespace)

    @property
    def deployment(self) -> Object:
        return self.api.get("deployments", self.name, self.namespace)

    @property
    def replicas(self) -> int:
        """The size that was asked for."""
        return int(self.deployment["spec"]["replicas"])

    @property
    def exists(self) -> bool:
        return self.api.find("deployments", self.name, self.namespace) is not None

    def edit(self, **spec: Any) -> Object:
        """Merge `spec` into the AstridQueue's."""
        return self.api.patch("astridqueues", self.name, self.namespace, {"spec": spec})

    def condition(self, kind: str) -> Object:
        """One condition; empty while it is not written."""
        conditions = self.queue.get("status", {}).get("conditions", [])
        return next((each for each in conditions if each["type"] == kind), {})

    def wait_for(self, kind: str, status: str, reason: str = "", timeout_s: float = SOON_S) -> Object:
        """The condition `kind` once it has `status` and, if given, `reason`."""

        def found() -> Object:
            now = self.condition(kind)
            return now if now.get("status") == status and reason in ("", now.get("reason")) else {}

        return wait_until(found, timeout_s, f"{self.name}: {kind} to be {status} {reason}")

    def wait_for_replicas(self, replicas: int, timeout_s: float = SOON_S) -> None:
        wait_until(
            lambda: self.exists and self.replicas == replicas,
            timeout_s,
            f"{self.name} to have {replicas} replicas",
        )

    def wait_until_made(self) -> "Fleet":
        """The fleet is there, fully created, and the status tells of the present spec."""

        def made() -> bool:
            queue = self.queue
            observed = queue.get("status", {}).get("observedGeneration")
            return (
                observed == queue["metadata"]["generation"]
                and self.exists
                and ("astrid-operator", "") not in managers_of_replicas(self.deployment)
                and self.condition("Reconciling")["reason"] != "Creating"
            )

        wait_until(made, SOON_S, f"{self.name} to be made")
        return self


def make_fleet(api: Api, namespace: str, name: str, **spec: Any) -> Fleet:
    """Create an AstridQueue and wait for its fleet."""
    api.create(astrid_queue(name, **spec), namespace)
    return Fleet(api, namespace, name).wait_until_made()


def push(client: "redis.Redis", queue: str, count: int, prefix: str = "dramatiq") -> None:
    """Enqueue `count` messages in one transaction, as Dramatiq keeps them."""
    with client.pipeline(transaction=True) as pipeline:
        for _ in range(count):
            message_id = str(uuid.uuid4())
            message = {"queue_name": queue, "options": {}, "message_timestamp": int(time.time() * 1000)}
            pipeline.hset(f"{prefix}:{queue}.msgs", message_id, json.dumps(message))
            pipeline.rpush(f"{prefix}:{queue}", message_id)
        pipeline.execute()


def drop(client: "redis.Redis", queue: str, prefix: str = "dramatiq") -> None:
    """Empty a queue, as if all had been worked off."""
    client.delete(f"{prefix}:{queue}", f"{prefix}:{queue}.msgs")


def managers_of_replicas(deployment: Mapping[str, Any]) -> set[tuple[str, str]]:
    """(manager, subresource) of everyone who owns `spec.replicas`."""
    return {
        (entry["manager"], entry.get("subresource", ""))
        for entry in deployment["metadata"]["managedFields"]
        if "f:replicas" in entry.get("fieldsV1", {}).get("f:spec", {})
    }
