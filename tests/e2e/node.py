"""A Kubernetes cluster with a real node, and a way to put images on it.

Owns kubectl and the images; never a test's expectations. Three ways in: `ASTRID_NODE_TOOL` (a command with the verbs `up`,
`kubeconfig`, `build-image`, `load` and `base-image`), `pytest-kind`'s kind where Docker runs, or a kubeconfig in
`ASTRID_E2E_KUBECONFIG` to a cluster that already has the images.
"""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.required import required
from support.waiting import wait_until

ROOT = Path(__file__).resolve().parents[2]
IMAGES = Path(__file__).resolve().parent / "images"

#: Seconds that one build or one copy of an image may take.
IMAGE_TIMEOUT_S = 1200


def say(sentence: str) -> None:
    """Progress of a long test, at once and past pytest's capture."""
    print(f"[e2e {time.strftime('%H:%M:%S')}] {sentence}", file=sys.__stderr__, flush=True)


def _run(
    command: list[str], timeout_s: float = IMAGE_TIMEOUT_S, **options: Any
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False, **options)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return done


@dataclass(frozen=True, slots=True)
class Image:
    """What a pod names, and what it is built from."""

    name: str
    dockerfile: Path
    target: str | None = None
    #: Which base the node tool gives it.
    base: str = "python:3.11-slim"
    context: Path = ROOT


#: Ours, and what the development manifests name and a registry would bring elsewhere.
OURS = (
    Image("astrid-operator:0.1.0", ROOT / "Dockerfile.operator"),
    Image("astrid-worker:0.1.0", ROOT / "Dockerfile.worker", target="lean"),
)
POSTGRES = Image("postgres:16", IMAGES / "Dockerfile.postgres", base="debian:bookworm-slim", context=IMAGES)


class Cluster:
    """kubectl with one kubeconfig."""

    def __init__(self, kubectl: list[str], kubeconfig: Path) -> None:
        self.kubectl = kubectl
        self.environment = {**os.environ, "KUBECONFIG": str(kubeconfig)}

    def run(self, *arguments: str, timeout_s: float = 120, stdin: bytes | None = None) -> str:
        """Standard output of kubectl; a failure is the test's."""
        done = subprocess.run(
            [*self.kubectl, *arguments],
            input=stdin,
            capture_output=True,
            timeout=timeout_s,
            check=False,
            env=self.environment,
        )
        assert done.returncode == 0, (
            f"kubectl {' '.join(arguments)}\n{done.stdout.decode()[-3000:]}\n{done.stderr.decode()[-3000:]}"
        )
        return done.stdout.decode()

    def try_run(self, *arguments: str, timeout_s: float = 120) -> str | None:
        """Standard output, or None where kubectl failed."""
        done = subprocess.run(
            [*self.kubectl, *arguments],
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
            env=self.environment,
        )
        return done.stdout if done.returncode == 0 else None

    def get(self, *arguments: str) -> dict[str, Any]:
        """`kubectl get -o json`."""
        value: dict[str, Any] = json.loads(self.run("get", *arguments, "-o", "json"))
        return value

    def wait_gone(self, kind: str, name: str, timeout_s: float = 120) -> None:
        """Wait until an object is no more."""
        wait_until(
            lambda: self.try_run("get", kind, name) is None, timeout_s, f"{kind}/{name} is gone", every_s=0.5
        )


def _with_node_tool(tool: str) -> Cluster:
    say("starting a node (built first where this machine has not built it yet)")
    _run([tool, "up"], timeout_s=3600)
    kubeconfig = Path(_run([tool, "kubeconfig"]).stdout.strip())
    for base in ("python", "redis"):
        _run([tool, "base-image", base])
    for image in (*OURS, POSTGRES):
        say(f"building {image.name}")
        target = ["--target", image.target] if image.target else []
        _run(
            [
                *(tool, "build-image", "-f", str(image.dockerfile), "-t", f"localhost/{image.name}", *target),
                *("--build-arg", f"BASE_IMAGE=localhost/astrid-base/{image.base}", str(image.context)),
            ]
        )
        _run([tool, "load", f"localhost/{image.name}", "--name", f"docker.io/library/{image.name}"])
    _run([tool, "load", "localhost/astrid-base/redis:7", "--name", "docker.io/library/redis:7"])
    return Cluster([tool, "kubectl"], kubeconfig)


def _with_kind() -> Cluster:
    import pytest_kind

    kind = pytest_kind.KindCluster("astrid-e2e")
    kind.create()
    for image in OURS:
        say(f"building {image.name}")
        target = ["--target", image.target] if image.target else []
        _run(["docker", "build", "-f", str(image.dockerfile), "-t", image.name, *target, str(ROOT)])
        kind.load_docker_image(image.name)
    return Cluster([str(kind.kubectl_path)], Path(kind.kubeconfig_path))


def open_cluster() -> Cluster:
    """The cluster that this machine offers; skips (fails with CI=true) where there is none."""
    if tool := os.environ.get("ASTRID_NODE_TOOL"):
        return _with_node_tool(tool)
    if kubeconfig := os.environ.get("ASTRID_E2E_KUBECONFIG"):
        return Cluster(["kubectl"], Path(kubeconfig))
    if _docker_runs() and importlib.util.find_spec("pytest_kind") is not None:
        return _with_kind()
    required(
        "a Kubernetes node",
        "set ASTRID_NODE_TOOL, or ASTRID_E2E_KUBECONFIG, or run Docker with pytest-kind installed",
    )
    raise AssertionError


def _docker_runs() -> bool:
    docker = shutil.which("docker")
    return (
        docker is not None
        and subprocess.run([docker, "info"], capture_output=True, check=False).returncode == 0
    )
