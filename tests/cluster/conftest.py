"""Fixtures of the cluster tests: one real control plane for the session, a namespace for each test.

Owns what starts and ends them. Without binaries and without a way to build them the tests are skipped loudly,
and fail where `CI=true`.
"""

import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.api_client import Api, ApiFailure
from cluster.binaries import ControlPlaneMissing, find_or_build
from cluster.control_plane import ControlPlane, free_ports
from cluster.operator_process import OperatorProcess
from cluster.process_pods import ProcessPods
from support.required import required
from support.waiting import wait_until

REPOSITORY = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent

_found: dict[str, Path | str] = {}


@pytest.hookimpl(trylast=True)
def pytest_collection_finish(session: pytest.Session) -> None:
    """Find or build the programs before the first test, outside any test's own time limit."""
    wanted = any(HERE in item.path.parents for item in session.items)
    if not wanted or session.config.option.collectonly:
        return
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")

    def say(line: str) -> None:
        if reporter is not None:
            reporter.ensure_newline()
            reporter.write_line(f"control plane: {line}", yellow=True)

    try:
        _found["binaries"] = find_or_build(say)
    except ControlPlaneMissing as missing:
        _found["missing"] = str(missing)
        say(f"the cluster tests cannot run: {missing}")


@pytest.fixture(scope="session")
def control_plane(request: pytest.FixtureRequest) -> Iterator[ControlPlane]:
    """The cluster of this session. Its logs stay, and their place is printed, when a test failed."""
    if "binaries" not in _found:
        required("a Kubernetes control plane", str(_found.get("missing")))
    cluster = ControlPlane(Path(_found["binaries"])).start()
    yield cluster
    failed = request.session.testsfailed > 0
    if failed:
        print(f"\ncontrol plane logs: {cluster.logs}")
    cluster.stop(keep_folder=failed)


@pytest.fixture(scope="session")
def kubeconfig(control_plane: ControlPlane) -> Path:
    """The administrator's kubeconfig."""
    return control_plane.kubeconfig


@pytest.fixture(scope="session")
def api(control_plane: ControlPlane) -> Iterator[Api]:
    """A client with all rights."""
    with control_plane.api() as client:
        yield client


@pytest.fixture
def make_namespace(api: Api) -> Iterator[Callable[[], str]]:
    """Makes namespaces whose default service account is there; they go at the end, and nobody waits for it."""
    names: list[str] = []

    def make() -> str:
        name = f"test-{secrets.token_hex(4)}"
        api.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
        names.append(name)
        what = f"the default service account of {name}"
        wait_until(lambda: api.find("serviceaccounts", "default", name), 30, what)
        return name

    yield make
    for name in names:
        api.delete("namespaces", name)


@pytest.fixture
def namespace(make_namespace: Callable[[], str]) -> str:
    """A fresh namespace."""
    return make_namespace()


@pytest.fixture(scope="session")
def crd(api: Api) -> dict[str, Any]:
    """The AstridQueue definition of `crds/`, applied, established and served; its manifest."""
    paths = sorted((REPOSITORY / "crds").glob("*.yaml"))
    assert paths, "crds/ holds no definition"
    (manifest,) = (_established(api, path) for path in paths)
    return manifest


def _established(api: Api, path: Path) -> dict[str, Any]:
    manifest: dict[str, Any] = yaml.safe_load(path.read_text())
    api.apply(manifest)
    name, plural = manifest["metadata"]["name"], manifest["spec"]["names"]["plural"]
    wait_until(lambda: _is_established(api, name), 30, f"{path.name} to be Established")
    wait_until(lambda: _is_served(api, plural), 30, f"{path.name} to be served")
    return manifest


def _is_established(api: Api, name: str) -> bool:
    found = api.get("customresourcedefinitions", name)
    conditions = {each["type"]: each["status"] for each in found.get("status", {}).get("conditions") or []}
    assert conditions.get("NamesAccepted") != "False", found["status"]
    return conditions.get("Established") == "True"


def _is_served(api: Api, plural: str) -> bool:
    try:
        api.list(plural)
    except ApiFailure as failure:
        if failure.code in (404, 429):  # not known yet; its storage is being set up
            return False
        raise
    return True


StartOperator = Callable[..., OperatorProcess]


@pytest.fixture
def start_operator(
    crd: dict[str, Any], kubeconfig: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[StartOperator]:
    """Starts operators: `start_operator("--namespace", ns, env={"REDIS_URL": …}, kubeconfig=…, wait=True)`.

    Each gets free ports for metrics and probes. At the end they are stopped, and their logs are part of the
    report when the test failed.
    """
    started: list[OperatorProcess] = []

    def start(
        *arguments: str,
        env: Mapping[str, str] | None = None,
        kubeconfig: Path = kubeconfig,
        wait: bool = True,
    ) -> OperatorProcess:
        log = tmp_path / f"operator-{len(started)}.log"
        metrics_port, probes_port = free_ports(2)
        operator = OperatorProcess.start(
            kubeconfig, log, arguments=arguments, env=env or {}, ports=(metrics_port, probes_port)
        )
        started.append(operator)
        return operator.wait_until_healthy() if wait else operator

    yield start
    for operator in started:
        operator.process.stop()
        print(operator.process.tail(200))  # pytest shows it where the test failed


@pytest.fixture
def operator(
    start_operator: StartOperator, namespace: str, request: pytest.FixtureRequest
) -> OperatorProcess:
    """A healthy operator that serves this test's namespace, with the Redis of `redis_url` where that is asked for."""
    env = {"REDIS_URL": request.getfixturevalue("redis_url")} if "redis_url" in request.fixturenames else {}
    return start_operator("--namespace", namespace, env=env)


@pytest.fixture
def process_pods(control_plane: ControlPlane) -> Iterator[ProcessPods]:
    """A node whose pods run as processes at once; make a ProcessPods of your own for other settings."""
    pods = new_process_pods(control_plane)
    with pods:
        yield pods
    shutil.rmtree(pods.folder, ignore_errors=True)


def new_process_pods(control_plane: ControlPlane, **settings: Any) -> ProcessPods:
    """A ProcessPods of this cluster with a node name of its own; not started."""
    return ProcessPods(
        control_plane.server, control_plane.keys, node=f"node-{secrets.token_hex(3)}", **settings
    )
