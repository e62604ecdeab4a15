"""A cluster with a node, and Astrid installed on it from the manifests."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e.node import Cluster, open_cluster, say
from support.required import required

ROOT = Path(__file__).resolve().parents[2]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything here is e2e, and takes its time."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.e2e)
            item.add_marker(pytest.mark.timeout(5400))


@pytest.fixture(scope="session")
def cluster() -> Cluster:
    """kubectl on a cluster whose node has our images."""
    return open_cluster()


@pytest.fixture(scope="session")
def real_frames() -> Path:
    """The folder with real pairs of frames."""
    folder = os.environ.get("ASTRID_TEST_DATA")
    if not folder or not Path(folder, "eso085_pair").is_dir():
        required(
            "real frames", "set ASTRID_TEST_DATA to the folder that holds eso085_pair and jwst_nircam_a2744"
        )
    return Path(folder)


@pytest.fixture(scope="session")
def installed(cluster: Cluster) -> Iterator[Cluster]:
    """The operator under its own rights, Redis, PostgreSQL, a volume and a migrated schema; taken away at the end."""
    say("installing")
    cluster.try_run("delete", "namespace", "astrid", "--wait=true", timeout_s=180)
    cluster.run("apply", "-f", str(ROOT / "crds"))
    cluster.run("wait", "--for=condition=Established", "crd/astridqueues.astrid.dev", "--timeout=60s")
    cluster.run("apply", "-k", str(ROOT / "manifests/base"))
    cluster.run(
        "label", "--overwrite", "namespace", "astrid", "pod-security.kubernetes.io/enforce=restricted"
    )
    _create_secrets(cluster)
    _provide_volume(cluster)
    cluster.try_run("-n", "astrid", "delete", "job", "astrid-db-upgrade")
    cluster.run("apply", "-k", str(ROOT / "manifests/dev"))
    for deployment in ("redis", "postgres", "astrid-operator"):
        cluster.run(
            "-n", "astrid", "rollout", "status", f"deployment/{deployment}", "--timeout=180s", timeout_s=200
        )
    cluster.run(
        "-n",
        "astrid",
        "wait",
        "--for=condition=Complete",
        "job/astrid-db-upgrade",
        "--timeout=180s",
        timeout_s=200,
    )
    yield cluster
    if not os.environ.get("ASTRID_E2E_KEEP"):
        cluster.try_run("delete", "namespace", "astrid", "--wait=false")


def _create_secrets(cluster: Cluster) -> None:
    """Run the script that the README names, with this cluster's kubectl under that name."""
    import subprocess
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        shim = Path(folder, "kubectl")
        shim.write_text(f'#!/bin/sh\nexec {" ".join(cluster.kubectl)} "$@"\n')
        shim.chmod(0o755)
        environment = {**cluster.environment, "PATH": f"{folder}:{os.environ['PATH']}"}
        subprocess.run(
            ["sh", str(ROOT / "manifests/dev/create-secrets.sh"), "astrid"], env=environment, check=True
        )


def _provide_volume(cluster: Cluster) -> None:
    """A static volume where the cluster has no class that makes one."""
    if cluster.get("storageclass")["items"]:
        return
    cluster.try_run("delete", "persistentvolume", "astrid-e2e-artifacts", timeout_s=60)
    cluster.run("apply", "-f", str(Path(__file__).parent / "static-volume.yaml"))
    cluster.run(
        "-n",
        "astrid-e2e-volume",
        "wait",
        "--for=condition=Complete",
        "job/prepare",
        "--timeout=120s",
        timeout_s=140,
    )
