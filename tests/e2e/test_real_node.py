"""The whole path on a real node: images, manifests, rights, and real frames through real pods."""

import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from e2e.node import Cluster, say
from support.waiting import wait_until

ROOT = Path(__file__).resolve().parents[2]
QUEUES = {
    "observation-ingestion": "observation_ingestion",
    "preprocessing": "preprocessing",
    "differencing": "differencing",
    "detection": "detection",
    "curation": "curation",
    "notification": "notification",
}

#: survey, field centre, (reference, science) files; the ESO pair has no WCS, so the position is given.
PAIRS = {
    "eso085": ("98.0", "-55.0", "eso085_pair/eso085_004.fit", "eso085_pair/eso085_005.fit"),
    "a2744": ("3.58", "-30.40", "jwst_nircam_a2744/ref.fits", "jwst_nircam_a2744/sci.fits"),
}


@pytest.fixture(scope="module")
def samples(installed: Cluster) -> Cluster:
    """The six sample queues, their Deployments there and at zero."""
    installed.run("-n", "astrid", "apply", "-f", str(ROOT / "manifests/samples"))
    wait_until(lambda: set(_replicas(installed)) >= set(QUEUES), 60, "six Deployments appear", every_s=0.5)
    return installed


def _replicas(cluster: Cluster) -> dict[str, int]:
    items = cluster.get("-n", "astrid", "deployments")["items"]
    return {item["metadata"]["name"]: int(item["spec"].get("replicas", 1)) for item in items}


def _client(cluster: Cluster, *command: str, stdin: bytes | None = None) -> str:
    flags = ["-i"] if stdin is not None else []
    return cluster.run(
        "-n", "astrid", "exec", *flags, "astrid-client", "--", *command, stdin=stdin, timeout_s=180
    )


@pytest.fixture(scope="module")
def client(samples: Cluster, real_frames: Path) -> Cluster:
    """A client pod, with the real frames where the workers may read them."""
    samples.try_run("-n", "astrid", "delete", "pod", "astrid-client", "--wait=true")
    samples.run("apply", "-f", str(Path(__file__).parent / "client.yaml"))
    samples.run(
        "-n", "astrid", "wait", "--for=condition=Ready", "pod/astrid-client", "--timeout=120s", timeout_s=140
    )
    _client(samples, "mkdir", "-p", "/artifacts/inbox")
    for _, _, *files in PAIRS.values():
        for name in files:
            body = (real_frames / name).read_bytes()
            _client(samples, "sh", "-c", f"cat > /artifacts/inbox/{Path(name).name}", stdin=body)
    return samples


def test_samples_start_at_zero_and_say_so(samples: Cluster) -> None:
    """Six AstridQueues give six Deployments at zero, and each object says that it is ready and idle."""
    replicas = _replicas(samples)
    rows = wait_until(lambda: _all_ready(samples), 60, "every AstridQueue is Ready", every_s=0.5)

    assert {name: replicas[name] for name in QUEUES} == dict.fromkeys(QUEUES, 0)
    assert {row["status"]["replicas"] for row in rows} == {0}


def _all_ready(cluster: Cluster) -> list[dict[str, Any]] | None:
    items = cluster.get("-n", "astrid", "astridqueues")["items"]
    ready = [
        item
        for item in items
        if any(
            c["type"] == "Ready" and c["status"] == "True"
            for c in item.get("status", {}).get("conditions", [])
        )
    ]
    return items if len(ready) == len(QUEUES) else None


def test_real_frames_go_from_ingestion_to_curation_in_pods_that_come_from_zero_and_go_back(
    client: Cluster,
) -> None:
    """Two real pairs end curated, carried by pods of every stage; then every fleet is at zero again."""
    seen: dict[str, int] = dict.fromkeys(QUEUES, 0)
    stop = threading.Event()
    watcher = threading.Thread(target=_watch_replicas, args=(client, seen, stop), daemon=True)
    watcher.start()
    began = time.monotonic()
    for survey, (ra, dec, reference, science) in PAIRS.items():
        position = ["--survey", survey, "--ra", ra, "--dec", dec, "--time", "2022-11-07T00:00:00Z", "--json"]
        _client(
            client, "astrid", "submit", f"/artifacts/inbox/{Path(reference).name}", "--reference", *position
        )
        _client(client, "astrid", "submit", f"/artifacts/inbox/{Path(science).name}", *position)
    shown: dict[str, dict[str, Any]] = {}
    for survey, (_, _, _, science) in PAIRS.items():
        say(f"waiting for {survey}")
        shown[survey] = wait_until(
            lambda external=Path(science).stem: _curated(client, external),
            900,
            f"{survey} is curated",
            every_s=3,
        )
    took = time.monotonic() - began
    wait_until(
        lambda: not any(_replicas(client)[name] for name in QUEUES), 300, "every fleet is at zero", every_s=2
    )
    stop.set()
    watcher.join(timeout=30)
    say(f"two real pairs took {took:.0f} s; most replicas seen: {seen}")

    assert min(seen[name] for name in list(QUEUES)[:5]) >= 1
    for survey, observation in shown.items():
        assert observation["status"] == "curated", (survey, observation)


def _watch_replicas(cluster: Cluster, seen: dict[str, int], stop: threading.Event) -> None:
    while not stop.wait(0.5):
        for name, replicas in _replicas(cluster).items():
            if name in seen:
                seen[name] = max(seen[name], replicas)


def _curated(cluster: Cluster, external_id: str) -> dict[str, Any] | None:
    flags = ("-n", "astrid", "exec", "astrid-client", "--", "astrid", "show", external_id, "--json")
    text = cluster.try_run(*flags)
    if not text:
        return None
    observation: dict[str, Any] = json.loads(text)["observation"]
    return observation if observation["status"] in {"curated", "failed"} else None


def test_nobody_restarted_and_nothing_was_refused(client: Cluster) -> None:
    """No container of ours restarted, and the operator was never refused a right that it needs."""
    pods = client.get("-n", "astrid", "pods", "-l", "app.kubernetes.io/part-of=astrid")["items"]
    restarts = {
        pod["metadata"]["name"]: status["restartCount"]
        for pod in pods
        for status in pod["status"].get("containerStatuses", [])
        # The upgrade of the schema is tried again until the database is there.
        if status["restartCount"] and not pod["metadata"]["name"].startswith("astrid-db-upgrade")
    }
    log = client.run("-n", "astrid", "logs", "deployment/astrid-operator", "--tail=-1")

    assert restarts == {}
    assert "forbidden" not in log.lower()


def test_scale_is_honoured_by_a_running_worker(client: Cluster) -> None:
    """`kubectl scale` gives a floor that real pods fill, and zero empties it."""
    client.run("-n", "astrid", "scale", "astridqueue/notification", "--replicas=1")
    wait_until(
        lambda: _status(client, "notification").get("readyReplicas") == 1, 120, "one pod is ready", every_s=1
    )
    client.run("-n", "astrid", "scale", "astridqueue/notification", "--replicas=0")
    wait_until(lambda: _replicas(client)["notification"] == 0, 180, "it is at zero again", every_s=1)


def _status(cluster: Cluster, name: str) -> dict[str, Any]:
    status: dict[str, Any] = cluster.get("-n", "astrid", "astridqueue", name).get("status", {})
    return status
