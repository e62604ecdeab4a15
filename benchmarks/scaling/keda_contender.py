"""KEDA as it runs: two processes beside the rig's control plane, started by a tool that the user names.

Owns the use of that tool by its verbs, and the Deployments and ScaledObjects of a trial. Holds no line of
KEDA, no manifest of it and no way of making one: without `ASTRID_KEDA_RIG` there is no such contender.
"""

import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import yaml
from rig import KEDA_RIG, Rig, keda_or_why_not, say

from cluster.api_client import Api, Object
from support.waiting import wait_until

#: Client limits that are no limit here; the defaults are 20 requests per second, 30 at once.
RAISED = "--kube-api-qps=500 --kube-api-burst=1000"

#: Members are never there, so a pod that fits nowhere must not be what is measured.
PATIENT = {"unschedulableSeconds": 86400}


class Contender(Protocol):
    """Makes fleets of Deployments named as their queues, sizes them, and takes them away."""

    @property
    def name(self) -> str: ...

    def make(self, names: Sequence[str], most: int) -> None: ...
    def have_begun(self, names: Sequence[str]) -> bool: ...
    def forget(self, names: Sequence[str]) -> None: ...
    def pids(self) -> dict[str, int]: ...


@dataclass(frozen=True, slots=True)
class Ours:
    """AstridQueues; the rig's operator runs."""

    rig: Rig
    name: str = "astrid"
    scaling: Mapping[str, Any] = field(default_factory=dict)

    def make(self, names: Sequence[str], most: int) -> None:
        """One AstridQueue each."""
        self.rig.make_queues(names, scaling={**PATIENT, "maxReplicas": most, **self.scaling})

    def have_begun(self, names: Sequence[str]) -> bool:
        """Every Deployment exists."""
        return all(self.rig.sizes.now(name) is not None for name in names)

    def forget(self, names: Sequence[str]) -> None:
        """Delete them, and wait until they are gone."""
        self.rig.for_each(names, lambda api, name: api.delete("astridqueues", name, self.rig.namespace))
        wait_until_gone(self.rig.api, "astridqueues", self.rig.namespace, names)

    def pids(self) -> dict[str, int]:
        """The operator's process."""
        assert self.rig.operator is not None
        return {"operator": self.rig.operator.process.pid}


@dataclass(frozen=True, slots=True)
class Keda:
    """ScaledObjects over plain Deployments, of a profile of the tool with `changes` to their spec."""

    rig: Rig
    tool: "KedaTool"
    profile: str
    name: str
    changes: Mapping[str, Any] = field(default_factory=dict)

    def make(self, names: Sequence[str], most: int) -> None:
        """A Deployment of no member, and its ScaledObject."""
        self.rig.for_each(names, self._make_deployment)
        self.scale(names, most)

    def scale(self, names: Sequence[str], most: int) -> None:
        """A ScaledObject for each Deployment of that name."""

        def make(api: Api, name: str) -> None:
            api.create(self._scaled_object(name, most), self.rig.namespace)

        self.rig.for_each(names, make)

    def have_begun(self, names: Sequence[str]) -> bool:
        """Every one has its HPA: before that KEDA does not scale it past one."""
        scalers = self.rig.api.list("horizontalpodautoscalers", self.rig.namespace)
        targets = {each["spec"]["scaleTargetRef"]["name"] for each in scalers}
        return targets.issuperset(names)

    def forget(self, names: Sequence[str]) -> None:
        """Delete all, while KEDA runs, which takes its finalizers off."""
        self.rig.for_each(names, lambda api, name: api.delete("scaledobjects", name, self.rig.namespace))
        wait_until_gone(self.rig.api, "scaledobjects", self.rig.namespace, names)
        self.rig.for_each(names, lambda api, name: api.delete("deployments", name, self.rig.namespace))

    def pids(self) -> dict[str, int]:
        """KEDA's processes."""
        return self.tool.pids()

    def _make_deployment(self, api: Api, name: str) -> None:
        labels = {"app": name}
        pod = {"containers": [{"name": "worker", "image": "worker:1"}]}
        spec = {
            "replicas": 0,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": pod},
        }
        body = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": spec}
        api.create(body, self.rig.namespace)

    def _scaled_object(self, name: str, most: int) -> Object:
        rendered = self.tool.render(self.profile, name, self.rig.namespace, most)
        return {**rendered, "spec": {**rendered["spec"], **self.changes}}


class KedaTool:
    """The program that `ASTRID_KEDA_RIG` names, told where this rig's API server and Redis are."""

    def __init__(self, rig: Rig) -> None:
        self._program = keda_tool()
        self._rig = rig
        self._env = {**os.environ, "KUBECTL": str(rig.plane.binaries / "kubectl")}

    @property
    def version(self) -> str:
        return self._run("version").strip()

    @contextmanager
    def runs(self, *, is_raised: bool = False) -> Iterator["KedaTool"]:
        """Installed and running inside the `with`; with `is_raised` its client's limits are lifted."""
        kubeconfig = f"--kubeconfig={self._rig.plane.kubeconfig}".split("=")
        self._env["KEDA_RIG_OPERATOR_ARGS"] = RAISED if is_raised else ""
        self._run("install", *kubeconfig)
        try:
            self._run("start", *kubeconfig, "--redis", f"127.0.0.1:{self._rig.redis.port}")
            say(f"KEDA {self.version} runs, client limits {'raised' if is_raised else 'as they come'}")
            yield self
        finally:
            self._run("stop")

    def render(self, profile: str, name: str, namespace: str, most: int) -> Object:
        """A ScaledObject for the Deployment and queue of that name."""
        address = f"redis=127.0.0.1:{self._rig.redis.port}"
        values = (f"name={name}", f"namespace={namespace}", f"maxReplicas={most}", address)
        rendered: Object = yaml.safe_load(self._run("render", profile, *values))
        return rendered

    def pids(self) -> dict[str, int]:
        """Process ids by part; fails when one is gone."""
        rows = (line.split() for line in self._run("pids").splitlines())
        return {name: int(pid) for name, pid in rows}

    def _run(self, *words: str) -> str:
        done = subprocess.run(
            [self._program, *words], env=self._env, text=True, capture_output=True, timeout=300, check=False
        )
        if done.returncode != 0:
            raise KedaFailed(f"{words[0]} ended with {done.returncode}: {done.stderr[-2000:]}")
        return done.stdout


class KedaFailed(Exception):  # noqa: N818 - named for what it is
    """The tool did not do what it was asked for; the sentence carries its last words."""


def keda_tool() -> Path:
    """The tool. Ends the program with a sentence where none can be run: then there is nobody to measure."""
    named = os.environ.get(KEDA_RIG)
    if not named:
        raise SystemExit(keda_or_why_not())
    if not os.access(named, os.X_OK):
        raise SystemExit(f"{KEDA_RIG}={named} is no program")
    return Path(named).resolve()


def wait_until_gone(api: Api, resource: str, namespace: str, names: Sequence[str]) -> None:
    """Until no object of these names is left."""
    expected = set(names)

    def gone() -> bool:
        left = {each["metadata"]["name"] for each in api.list(resource, namespace)}
        return left.isdisjoint(expected)

    wait_until(gone, 180, f"{len(names)} {resource} to be gone", every_s=0.5)
