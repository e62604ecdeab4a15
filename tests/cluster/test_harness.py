"""The cluster tests' own parts do what the other tests take for granted."""

import json
import signal
import time
from pathlib import Path
from typing import Any

import httpx
import yaml

from cluster.api_client import Api
from cluster.control_plane import FRONT_PROXY, ControlPlane
from cluster.process_pods import ProcessPods
from support.waiting import wait_until

#: Says so on SIGTERM, works on for 0.2 s, and goes.
POLITE = """
import signal, sys, time, os
def leave(*_):
    print("leaving", flush=True); time.sleep(0.2); print("left", flush=True); sys.exit(0)
signal.signal(signal.SIGTERM, leave)
print("started", os.environ.get("GREETING"), sys.argv[1:], flush=True)
while True: time.sleep(0.05)
"""
#: Goes on whatever it is told. To sleep is all the work that either of the two has.
STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('started', flush=True)\nwhile True: time.sleep(0.05)"


def _deployment(name: str, script: str, replicas: int, **pod: Any) -> dict[str, Any]:
    container = {"name": "work", "image": "example/work:1", "command": ["python", "-c", script]}
    container |= pod.pop("container", {})
    labels = {"app": name}
    spec = {"containers": [container], "terminationGracePeriodSeconds": 1, **pod}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": spec},
        },
    }


def _ready_replicas(api: Api, namespace: str, name: str) -> int:
    return api.get("deployments", name, namespace)["status"].get("readyReplicas", 0)


def test_the_api_server_calls_itself_by_its_version(api: Api) -> None:
    """Without the linker flags feature gates and CEL libraries go wrong."""
    version = api.request("GET", "/version")
    assert (version["gitVersion"], version["major"], version["minor"]) == ("v1.36.3", "1", "36")


def test_owned_objects_are_collected(api: Api, namespace: str) -> None:
    """The garbage collector runs, so tests may rely on owner references."""
    owner = api.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "owner"}}, namespace)
    reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner["metadata"]["uid"]}
    child = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "child", "ownerReferences": [reference]},
    }
    api.create(child, namespace)
    api.delete("configmaps", "owner", namespace)
    wait_until(lambda: api.find("configmaps", "child", namespace) is None, 30, "the child to be collected")


def test_servers_behind_the_api_server_can_tell_who_asks(api: Api, control_plane: ControlPlane) -> None:
    """The aggregation layer is on, with an authority that signs nobody else's certificate."""
    told = api.get("configmaps", "extension-apiserver-authentication", "kube-system")["data"]
    assert json.loads(told["requestheader-allowed-names"]) == [FRONT_PROXY]
    assert told["requestheader-client-ca-file"] == (control_plane.keys / "front-proxy/ca.crt").read_text()
    assert told["requestheader-client-ca-file"] != told["client-ca-file"]


def test_rights_are_those_of_the_user(control_plane: ControlPlane, namespace: str) -> None:
    """A kubeconfig of a service account carries a real token, and RBAC gives it nothing by itself."""
    config = yaml.safe_load(control_plane.kubeconfig_of_service_account(namespace, "default").read_text())
    token = config["users"][0]["user"]["token"]
    path = f"{control_plane.server}/api/v1/namespaces/{namespace}/pods"
    answer = httpx.get(path, headers={"Authorization": f"Bearer {token}"}, verify=False, trust_env=False)
    assert answer.status_code == 403
    assert f"system:serviceaccount:{namespace}:default" in answer.json()["message"]


def test_pods_run_as_processes_with_their_environment(
    api: Api, namespace: str, process_pods: ProcessPods
) -> None:
    """Secrets, ConfigMaps, the downward API and $(NAME) reach the process as a kubelet would give them."""
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "words"},
        "stringData": {"word": "hello"},
    }
    env = [
        {"name": "WORD", "valueFrom": {"secretKeyRef": {"name": "words", "key": "word"}}},
        {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        {"name": "GREETING", "value": "$(WORD) from $(POD_NAME)"},
    ]
    container = {"env": env, "args": ["$(WORD)", "$$(WORD)"]}
    api.create(_deployment("work", POLITE, 1, container=container), namespace)
    wait_until(lambda: process_pods.of(namespace), 30, "a pod to be bound")
    (run,) = process_pods.of(namespace)
    waiting = wait_until(
        lambda: _waiting_reason(api, namespace, run.name), 30, "the pod to wait for its Secret"
    )
    assert waiting == "CreateContainerConfigError"
    api.create(secret, namespace)
    wait_until(lambda: _ready_replicas(api, namespace, "work") == 1, 30, "the pod to be ready")
    wait_until(lambda: "started" in run.log(), 10, "the process to say something")
    assert f"started hello from {run.name} ['hello', '$(WORD)']" in run.log()


def _waiting_reason(api: Api, namespace: str, pod: str) -> str | None:
    statuses = api.get("pods", pod, namespace)["status"].get("containerStatuses", [])
    return statuses[0]["state"].get("waiting", {}).get("reason") if statuses else None


def test_a_deleted_pod_gets_sigterm_and_its_grace(
    api: Api, namespace: str, process_pods: ProcessPods
) -> None:
    """A process that leaves in time is not killed, and one that does not is."""
    api.create(_deployment("polite", POLITE, 1, terminationGracePeriodSeconds=30), namespace)
    api.create(_deployment("stubborn", STUBBORN, 1), namespace)
    wait_until(
        lambda: [run for run in process_pods.of(namespace) if "started" in run.log()][1:],
        30,
        "both to have started",
    )
    for name in ("polite", "stubborn"):
        api.scale("deployments", name, namespace, 0)
    wait_until(lambda: not process_pods.alive(namespace), 30, "both pods to be gone")
    wait_until(lambda: not api.list("pods", namespace), 10, "the pods to be removed")
    polite, stubborn = sorted(process_pods.of(namespace), key=lambda run: run.name)
    assert (polite.exits, polite.was_killed) == ([("work", 0)], False)
    assert "left" in polite.log()
    assert (stubborn.exits, stubborn.was_killed) == ([("work", 128 + signal.SIGKILL)], True)
    assert stubborn.gone_at - stubborn.asked_to_leave_at >= 1


def test_a_process_that_dies_is_started_again(api: Api, namespace: str, process_pods: ProcessPods) -> None:
    """Exit codes become container statuses, and restarts are counted."""
    api.create(_deployment("work", POLITE, 1), namespace)
    wait_until(lambda: _ready_replicas(api, namespace, "work") == 1, 30, "the pod to be ready")
    (run,) = process_pods.of(namespace)
    process_pods.kill(run.name)

    def restarted() -> dict[str, Any] | None:
        (status,) = api.get("pods", run.name, namespace)["status"]["containerStatuses"]
        return status if status["restartCount"] and status["ready"] else None

    status = wait_until(restarted, 30, "the container to run again")
    assert status["lastState"]["terminated"]["exitCode"] == 137
    assert run.exits == [("work", 137)]


def test_a_pod_that_fits_nowhere_is_unschedulable(
    api: Api, namespace: str, process_pods: ProcessPods
) -> None:
    """The scheduler adds up what the made-up node has, so GPUs can be short."""
    limits = {"limits": {"nvidia.com/gpu": "1"}}
    api.create(_deployment("work", POLITE, 1, container={"resources": limits}), namespace)

    def unschedulable() -> bool:
        conditions = [
            each for pod in api.list("pods", namespace) for each in pod["status"].get("conditions", [])
        ]
        return any(each.get("reason") == "Unschedulable" for each in conditions)

    wait_until(unschedulable, 30, "the pod to be unschedulable")
    assert not process_pods.of(namespace)


def test_a_paused_api_server_is_there_again(api: Api, control_plane: ControlPlane, namespace: str) -> None:
    """SIGSTOP and SIGCONT are how tests freeze the API server."""
    component = control_plane.components["kube-apiserver"]
    component.pause()
    try:
        assert not api.answers("/readyz", timeout_s=1)
    finally:
        component.resume()
    wait_until(lambda: api.answers("/readyz"), 30, "the API server to answer again")


def test_logs_are_kept_where_they_can_be_read(control_plane: ControlPlane) -> None:
    """A failure needs the words of every component."""
    names = {path.stem for path in Path(control_plane.logs).glob("*.log")}
    assert names == {"etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"}
    assert time.monotonic() > (control_plane.seconds_to_ready or 0) > 0
