"""A pod template becomes a command and an environment of this machine."""

import sys

import pytest

from astrid_operator.astrid_queue import QueueKey, parse_astrid_queue
from astrid_operator.desired import OperatorDefaults, desired_deployment
from astrid_operator.local_environment import Template, template_of

KEY = QueueKey("night", "differencing")
MACHINE = {"REDIS_URL": "redis://here/0", "PATH": "/bin", "HOME": "/home/me"}


def nothing_mounted(_namespace: str, _name: str, _key: str) -> str | None:
    """No file stands in for any Secret."""
    return None


def template(env: list[dict], **machine: str) -> Template:
    """The template of a pod with this `env`."""
    spec = {"containers": [{"command": ["python", "-c", "$(WORD)", "$$(WORD)"], "env": env}]}
    return template_of(KEY, spec, MACHINE | machine, nothing_mounted)


def secret(name: str, *, optional: bool = False) -> dict:
    """A variable that comes from a Secret."""
    reference = {"name": "vault", "key": name.lower(), "optional": optional}
    return {"name": name, "valueFrom": {"secretKeyRef": reference}}


def test_a_secret_resolves_to_the_variable_of_the_same_name() -> None:
    """On one machine its own variables stand in for Secrets."""
    found = template([secret("TOKEN")], TOKEN="t")
    assert dict(found.environment)["TOKEN"] == "t"
    assert found.missing == ()


def test_what_nobody_holds_is_named_and_left_out() -> None:
    """A reference that resolves to nothing is said, an optional one is not."""
    found = template([secret("TOKEN"), secret("EXTRA", optional=True)])
    assert found.missing == ("TOKEN (secret vault/token)",)
    assert not {"TOKEN", "EXTRA"} & dict(found.environment).keys()


def test_a_mounted_file_wins_over_the_variable() -> None:
    """A queue with a broker of its own must not get the machine's."""
    spec = {"containers": [{"command": ["x"], "env": [secret("REDIS_URL")]}]}
    found = template_of(
        KEY, spec, MACHINE, lambda *where: "redis://own" if where[1:] == ("vault", "redis_url") else None
    )
    assert dict(found.environment)["REDIS_URL"] == "redis://own"


def test_the_interpreter_and_the_home_are_this_machines() -> None:
    """A container's `python` and file system are not there."""
    found = template([{"name": "HOME", "value": "/tmp"}, {"name": "WORD", "value": "hi"}])
    assert found.command == (sys.executable, "-c", "hi", "$(WORD)")
    assert found.environment_of("m-1", "u", MACHINE)["HOME"] == "/home/me"


def test_middleware_of_a_config_map_is_that_of_the_package_here() -> None:
    """Nothing is mounted on one machine, and the workers' package has the same files."""
    carried = {"app": "shop.tasks", "middleware": {"configMapRef": {"name": "m"}}}
    command = _of_spec(carried).command
    assert command[1:8] == (
        "-m",
        "dramatiq",
        "shop.tasks",
        "astrid_workers.middleware.enlist",
        "--path",
        ".",
        ".",
    )
    assert _of_spec({"app": "shop.tasks"}).command[4] == "--queues"


def test_each_member_has_a_name_of_its_own() -> None:
    """Presence and logs tell members apart, while their templates are equal."""
    env = [{"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]
    found = template(env)
    assert found.environment_of("m-1", "u", {})["POD_NAME"] == "m-1"
    assert found == template(env)


@pytest.mark.parametrize(
    ("change", "rolls"),
    [
        ({"concurrency": 3}, True),
        ({"maxRetries": 9}, True),
        ({"timeoutSeconds": 9}, True),
        ({"priority": 1}, False),
        ({"scaling": {"maxReplicas": 3, "idleSeconds": 1}}, False),
        ({"paused": "All"}, False),
    ],
)
def test_what_a_member_is_told_decides_whether_it_is_replaced(change: dict, rolls: bool) -> None:
    """Retries, concurrency and time limits roll; priority and scaling act without a restart."""
    assert (_of_spec({}) != _of_spec(change)) is rolls


def _of_spec(spec: dict) -> Template:
    manifest = {
        "apiVersion": "astrid.dev/v1alpha1",
        "kind": "AstridQueue",
        "metadata": {"name": "differencing", "namespace": "night"},
        "spec": spec,
    }
    queue = parse_astrid_queue(manifest)
    pod = desired_deployment(queue, OperatorDefaults(image="x"))["spec"]["template"]["spec"]
    return template_of(queue.key, pod, MACHINE, nothing_mounted)


def test_a_real_template_needs_only_the_broker() -> None:
    """Nothing else that the operator sets is unknown on one machine."""
    found = _of_spec({})
    assert found.missing == ()
    assert dict(found.environment)["REDIS_URL"] == "redis://here/0"
    assert found.command[:3] == (sys.executable, "-m", "astrid_workers.start_workers")
