"""A real Kubernetes control plane as plain processes on loopback: etcd, API server, controllers and scheduler.

Owns their start, their health and their end; state lives in one temporary folder. There is no kubelet: pods stay
pending unless `process_pods` runs them. By hand: `python tests/cluster/control_plane.py build | up`.
"""

import argparse
import json
import os
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

if __package__ in (None, ""):  # run by its path
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from cluster.api_client import Api, ApiFailure
from cluster.binaries import ControlPlaneMissing, find_or_build
from cluster.certificates import Authority, base64_of, write_kubeconfig
from cluster.owned_process import OwnedProcess
from support.waiting import wait_until

HOST = "127.0.0.1"
SERVICE_RANGE = "10.96.0.0/16"
#: The controllers that need a kubelet or a cloud, or would judge our made-up nodes, stay out.
CONTROLLERS = "*,-node-lifecycle-controller,-node-ipam-controller,-cloud-node-lifecycle-controller"
#: The name under which the API server hands requests on to servers behind it (APIServices).
FRONT_PROXY = "front-proxy-client"


class ControlPlane:
    """One cluster without nodes. `start` returns when it serves; `stop` ends what it started, and only that."""

    def __init__(self, binaries: Path, folder: Path | None = None) -> None:
        self.binaries = binaries
        self.folder = Path(tempfile.mkdtemp(prefix="astrid-control-plane-")) if folder is None else folder
        self.logs = self.folder / "logs"
        self.keys = self.folder / "keys"
        self.components: dict[str, OwnedProcess] = {}
        self.seconds_to_ready: float | None = None
        self.server = ""

    # ------------------------------------------------------------------ start and stop

    def start(self) -> "ControlPlane":
        """Start every part and wait until the API server is ready and namespaces get their service accounts."""
        begin = time.monotonic()
        try:
            self._start()
        except BaseException:
            self.stop(keep_folder=True)
            raise
        self.seconds_to_ready = time.monotonic() - begin
        return self

    def stop(self, *, keep_folder: bool = False) -> None:
        """End the parts in the opposite order of their start; the folder goes unless it is to be kept."""
        for component in reversed(self.components.values()):
            component.stop(grace_s=5)
        if not keep_folder:
            shutil.rmtree(self.folder, ignore_errors=True)

    def restart(self, name: str) -> None:
        """End one part by SIGKILL and start it again with the same command line, as a crash would look."""
        old = self.components[name]
        old.kill()
        self.components[name] = OwnedProcess.start(name, old.command, old.log, _clean_environment())
        if name in ("etcd", "kube-apiserver"):
            self._wait("the API server to be ready again", self._is_ready)

    # ------------------------------------------------------------------ who may come in

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig."""
        return self.folder / "admin.kubeconfig"

    def api(self) -> Api:
        """A client of its own with the administrator's rights."""
        return Api(self.server, self.keys / "ca.crt", self.keys / "admin.crt", self.keys / "admin.key")

    def kubeconfig_of_user(self, user: str, groups: tuple[str, ...] = ()) -> Path:
        """A kubeconfig of a user made up on the spot, with what RBAC gives to that name and those groups."""
        name = "user-" + "".join(letter if letter.isalnum() else "-" for letter in user)
        self._authority.issue(name, user, organisations=groups)
        return self._write_kubeconfig(name)

    def kubeconfig_of_service_account(self, namespace: str, name: str) -> Path:
        """A kubeconfig with a real token of a service account: what a pod under it may do, and no more."""
        request = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {"expirationSeconds": 7200},
        }
        with self.api() as api:
            path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{name}/token"
            token = api.request("POST", path, body=request)["status"]["token"]
        path = self.folder / f"{namespace}-{name}.kubeconfig"
        return write_kubeconfig(path, self.server, self.keys / "ca.crt", {"token": token}, namespace)

    # ------------------------------------------------------------------ parts

    def _start(self) -> None:
        for folder in (self.logs, self.keys, self.folder / "etcd"):
            folder.mkdir(parents=True, mode=0o700)
        api_port, etcd_port, peer_port, controllers_port, scheduler_port = free_ports(5)
        self.server = f"https://{HOST}:{api_port}"
        self._make_keys()
        self._spawn("etcd", self._etcd_flags(etcd_port, peer_port))
        self._spawn("kube-apiserver", self._api_server_flags(api_port, etcd_port))
        self._wait("the API server to be ready", self._is_ready)
        self._spawn("kube-controller-manager", self._controller_flags(controllers_port))
        self._spawn("kube-scheduler", self._client_flags("scheduler", scheduler_port))
        self._wait("the default service account", self._has_default_service_account)
        self._wait("the scheduler", lambda: _answers(scheduler_port))

    def _make_keys(self) -> None:
        self._authority = Authority(self.keys)
        names = ("kubernetes", "kubernetes.default", "kubernetes.default.svc", "localhost", HOST, "10.96.0.1")
        self._authority.issue("apiserver", "kube-apiserver", names=names)
        self._authority.key_pair("service-accounts")
        # its own authority: what it signs may speak for any user, to servers behind the API server
        (self.keys / "front-proxy").mkdir(mode=0o700)
        Authority(self.keys / "front-proxy").issue(FRONT_PROXY, FRONT_PROXY)
        for name, user, groups in (
            ("admin", "astrid-test-admin", ("system:masters",)),
            ("controller-manager", "system:kube-controller-manager", ()),
            ("scheduler", "system:kube-scheduler", ()),
        ):
            self._authority.issue(name, user, organisations=groups)
            self._write_kubeconfig(name)

    def _write_kubeconfig(self, name: str) -> Path:
        user = {
            "client-certificate-data": base64_of(self.keys / f"{name}.crt"),
            "client-key-data": base64_of(self.keys / f"{name}.key"),
        }
        return write_kubeconfig(self.folder / f"{name}.kubeconfig", self.server, self.keys / "ca.crt", user)

    def _etcd_flags(self, port: int, peer_port: int) -> list[str]:
        here, peer = f"http://{HOST}:{port}", f"http://{HOST}:{peer_port}"
        return [
            "--name=etcd",
            f"--data-dir={self.folder}/etcd",
            "--log-level=warn",
            f"--listen-client-urls={here}",
            f"--advertise-client-urls={here}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=etcd={peer}",
            "--unsafe-no-fsync",  # nothing here outlives the test run
        ]

    def _api_server_flags(self, port: int, etcd_port: int) -> list[str]:
        return [
            f"--etcd-servers=http://{HOST}:{etcd_port}",
            f"--bind-address={HOST}",
            f"--secure-port={port}",
            f"--service-cluster-ip-range={SERVICE_RANGE}",
            "--endpoint-reconciler-type=none",  # a loopback address may not be an endpoint
            "--authorization-mode=RBAC",
            f"--client-ca-file={self.keys}/ca.crt",
            f"--tls-cert-file={self.keys}/apiserver.crt",
            f"--tls-private-key-file={self.keys}/apiserver.key",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={self.keys}/service-accounts.pub",
            f"--service-account-signing-key-file={self.keys}/service-accounts.key",
            *self._aggregation_flags(),
            "--profiling=false",
        ]

    def _aggregation_flags(self) -> list[str]:
        """What lets another server serve an API group, as external metrics need."""
        folder = self.keys / "front-proxy"
        return [
            f"--requestheader-client-ca-file={folder}/ca.crt",
            f"--requestheader-allowed-names={FRONT_PROXY}",
            "--requestheader-username-headers=X-Remote-User",
            "--requestheader-group-headers=X-Remote-Group",
            "--requestheader-extra-headers-prefix=X-Remote-Extra-",
            f"--proxy-client-cert-file={folder}/{FRONT_PROXY}.crt",
            f"--proxy-client-key-file={folder}/{FRONT_PROXY}.key",
        ]

    def _controller_flags(self, port: int) -> list[str]:
        return [
            *self._client_flags("controller-manager", port),
            f"--controllers={CONTROLLERS}",
            "--use-service-account-credentials=true",
            f"--service-account-private-key-file={self.keys}/service-accounts.key",
            f"--root-ca-file={self.keys}/ca.crt",
            f"--flex-volume-plugin-dir={self.folder}/volume-plugins",
        ]

    def _client_flags(self, name: str, port: int) -> list[str]:
        kubeconfig = self.folder / f"{name}.kubeconfig"
        return [
            f"--kubeconfig={kubeconfig}",
            f"--authentication-kubeconfig={kubeconfig}",
            f"--authorization-kubeconfig={kubeconfig}",
            f"--bind-address={HOST}",
            f"--secure-port={port}",
            "--leader-elect=false",
            "--profiling=false",
            "--kube-api-qps=200",  # the defaults cost seconds at start
            "--kube-api-burst=400",
        ]

    def _spawn(self, name: str, flags: list[str]) -> None:
        log = self.logs / f"{name}.log"
        command = [self.binaries / name, *flags]
        self.components[name] = OwnedProcess.start(name, command, log, _clean_environment())

    # ------------------------------------------------------------------ health

    def _wait(self, what: str, condition: Callable[[], bool], timeout_s: float = 120) -> None:
        def met() -> bool:
            for component in self.components.values():
                assert component.is_alive, (
                    f"{component.name} ended with {component.exit_code}\n{component.tail()}"
                )
            return condition()

        try:
            wait_until(met, timeout_s, what)
        except AssertionError as failure:
            tails = "\n".join(component.tail(8) for component in self.components.values())
            raise AssertionError(f"{failure}\n{tails}") from None

    def _is_ready(self) -> bool:
        with self.api() as api:
            return api.answers("/readyz")

    def _has_default_service_account(self) -> bool:
        with self.api() as api:
            try:
                return api.get("serviceaccounts", "default", "default") is not None
            except ApiFailure:
                return False


def free_ports(count: int) -> list[int]:
    """Ports of the loopback interface that nobody listens on now; all different."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind((HOST, 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) == 0


def _clean_environment() -> Mapping[str, str]:
    return {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": os.environ.get("HOME", "/"), "LANG": "C.UTF-8"}


# ---------------------------------------------------------------------- by hand


def main() -> int:
    """`build`: find or build the programs and print their folder. `up`: run a cluster until it is interrupted."""
    parser = argparse.ArgumentParser(description="A Kubernetes control plane without nodes, for tests.")
    parser.add_argument("verb", choices=["build", "up"])
    verb = parser.parse_args().verb
    try:
        binaries = find_or_build(lambda line: print(line, file=sys.stderr, flush=True))
    except ControlPlaneMissing as missing:
        print(missing, file=sys.stderr)
        return 1
    if verb == "build":
        print(binaries)
        return 0
    return _run_until_interrupted(ControlPlane(binaries))


def _run_until_interrupted(cluster: ControlPlane) -> int:
    interrupted = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: interrupted.set())
    cluster.start()
    facts = {"kubeconfig": str(cluster.kubeconfig), "server": cluster.server, "logs": str(cluster.logs)}
    print(json.dumps({**facts, "seconds": round(cluster.seconds_to_ready or 0, 1)}), flush=True)
    interrupted.wait()
    cluster.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
