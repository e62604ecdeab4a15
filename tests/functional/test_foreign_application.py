"""An application that knows nothing of Astrid, made a member of the fleet by the pod that an AstridQueue becomes."""

import asyncio
import base64
import json
import subprocess
import time
from pathlib import Path
from typing import Any

import dramatiq
import redis
from dramatiq.brokers.redis import RedisBroker

import astrid_workers.middleware
from astrid_operator.desired import OperatorDefaults, desired_deployment
from astrid_operator.dramatiq_keys import DramatiqQueue
from astrid_operator.presence import MemberSaid, members_said
from cluster.container_environment import command_of, environment_of
from support.queue_documents import queue
from support.waiting import wait_until

Json = Any

APPLICATION = """
import os, threading, dramatiq
from dramatiq.brokers.redis import RedisBroker
broker = RedisBroker(url=os.environ["REDIS_URL"])
dramatiq.set_broker(broker)

@dramatiq.actor(queue_name="theirs", max_retries=0)
def work(name):
    broker.client.rpush("seen", f"start {name}")
    while not broker.client.exists("release"):
        threading.Event().wait(0.05)
    broker.client.rpush("seen", f"end {name}")

@dramatiq.actor(queue_name="theirs", max_retries=0)
def broken(name):
    raise RuntimeError(f"{name} is broken")
"""

#: One that hands its broker to its actors and sets none.
WITHOUT_A_BROKER = """
import os, dramatiq
from dramatiq.brokers.redis import RedisBroker
broker = RedisBroker(url=os.environ["REDIS_URL"])

@dramatiq.actor(queue_name="theirs", broker=broker)
def work():
    pass
"""

#: Puts every package of ours out of reach of an interpreter.
WITHOUT_ASTRID = (
    "import sys\nfor name in ('astrid_workers', 'astrid_operator', 'structlog'): sys.modules[name] = None\n"
)

KEYS = DramatiqQueue("dramatiq", "theirs")


class TheirPod:
    """The pod of an AstridQueue for an image with one module; `folder` is the root of its file system."""

    def __init__(
        self, folder: Path, redis_url: str, application: str, app: str = "their_application"
    ) -> None:
        spec = {"app": app, "prefetch": 3, "middleware": {"configMapRef": {"name": "astrid-middleware"}}}
        template = desired_deployment(queue("theirs", **spec), OperatorDefaults("worker:1"))["spec"][
            "template"
        ]
        named = {**template["metadata"], "name": "their-pod", "uid": "u-1", "namespace": "sky"}
        self._pod = {**template, "metadata": named}
        (self._container,) = template["spec"]["containers"]
        self._folder, self._redis_url = folder, redis_url
        self._image = folder / "srv"
        self._image.mkdir(parents=True)
        (self._image / "their_application.py").write_text(application)
        (self._image / "sitecustomize.py").write_text(WITHOUT_ASTRID)

    def start(self) -> subprocess.Popen[bytes]:
        """Its container, as a kubelet would start it, but that its absolute paths lie below `folder`."""
        self._mount()
        resolved = asyncio.run(environment_of(self._pod, self._container, self._find))
        command = [
            f"{self._folder}{part}" if part.startswith("/") else part
            for part in command_of(self._container, resolved)
        ]
        environment = {"PYTHONPATH": str(self._image), **resolved}
        with self.log_path.open("wb") as log:
            return subprocess.Popen(command, env=environment, cwd=self._folder, stdout=log, stderr=log)

    @property
    def log_path(self) -> Path:
        return self._folder / "log"

    def _mount(self) -> None:
        """Each ConfigMap in its folder as kubelets have it: links to files behind a link that can be exchanged."""
        maps = {
            each["name"]: each["configMap"]["name"]
            for each in self._pod["spec"]["volumes"]
            if "configMap" in each
        }
        for mount in self._container["volumeMounts"]:
            if mount["name"] in maps:
                folder = Path(f"{self._folder}{mount['mountPath']}")
                _lay_out(folder, config_map(maps[mount["name"]]))

    async def _find(self, resource: str, _namespace: str, name: str) -> Json | None:
        if (resource, name) == ("secrets", "astrid-redis"):
            return {"data": {"url": base64.b64encode(self._redis_url.encode())}}
        return None


def config_map(name: str) -> dict[str, str]:
    """What `kubectl create configmap --from-file` of the middleware's folder holds: each file under its own name."""
    assert name == "astrid-middleware"
    folder = Path(astrid_workers.middleware.__file__).parent
    return {path.name: path.read_text() for path in folder.iterdir() if path.is_file()}


def _lay_out(folder: Path, data: dict[str, str]) -> None:
    version = folder / "..2026_01_01_00_00_00.1"
    version.mkdir(parents=True)
    (folder / "..data").symlink_to(version.name)
    for name, text in data.items():
        (version / name).write_text(text)
        (folder / name).symlink_to(f"..data/{name}")
    for each in (version, folder):
        each.chmod(0o555)


def test_a_config_map_takes_all_files_of_the_middleware() -> None:
    """Kubernetes takes a mebibyte, and names of letters, digits, dots, dashes and underscores."""
    data = config_map("astrid-middleware")

    assert "enlist.py" in data
    assert sum(map(len, data.values())) < 2**18  # kubectl apply keeps a second copy in an annotation
    assert all(name.replace(".", "").replace("_", "").isalnum() for name in data)


def test_foreign_application_joins_the_fleet(tmp_path: Path, redis_url: str) -> None:
    """Presence, counters, reasons of dead letters and draining work without a line of the application changed."""
    pod = TheirPod(tmp_path / "root", redis_url, APPLICATION)
    process = pod.start()
    try:
        with redis.Redis.from_url(redis_url) as client:
            _follow(client, process, pod.log_path)
    finally:
        process.kill()
        process.wait()
        print(pod.log_path.read_text())  # shown by pytest where the test failed


def _follow(client: redis.Redis, process: subprocess.Popen[bytes], log: Path) -> None:
    sender = RedisBroker(client=client, middleware=[])

    def enqueue(actor: str, name: str) -> None:
        sender.enqueue(dramatiq.Message("theirs", actor, (name,), {}, {}))

    def said() -> MemberSaid | None:
        return members_said(client.hgetall(KEYS.presence), time.time()).get("their-pod")

    def waiting() -> int:
        return client.llen("dramatiq:theirs")

    wait_until(said, 30, f"presence of their worker:\n{log.read_text()}")
    enqueue("broken", "it")
    wait_until(lambda: client.zcard("dramatiq:theirs.XQ"), 15, "the dead letter")
    (body,) = client.hvals("dramatiq:theirs.XQ.msgs")
    assert json.loads(body)["options"]["dead_sentence"] == "it is broken"

    for name in "abc":
        enqueue("work", name)
    wait_until(lambda: said().busy == 1 and not waiting(), 10, "work")
    (one,) = said().processes
    client.sadd(KEYS.drain, one.name)
    wait_until(lambda: said().draining and waiting() == 2, 10, "the operator's request to be heard")
    assert said().busy == 1
    client.srem(KEYS.drain, one.name)
    wait_until(lambda: not said().draining and not waiting(), 10, "fetching again")

    process.terminate()
    wait_until(lambda: waiting() == 2, 3, "what was not started to be given back")
    client.set("release", 1)
    assert process.wait(20) == 0
    assert client.lrange("seen", 0, -1) == [b"start a", b"end a"]
    assert client.hgetall(KEYS.presence) == {}
    counted = {name.decode(): float(number) for name, number in client.hgetall(KEYS.counters).items()}
    assert counted["finished"] == 1
    waits = sum(number for name, number in counted.items() if name.startswith("waited_"))
    assert waits == counted["started"]


def test_an_application_that_sets_no_broker_is_told_so(tmp_path: Path, redis_url: str) -> None:
    """Dramatiq would make up a broker that no actor uses, and the fleet would hear nothing, for no reason seen."""
    pod = TheirPod(tmp_path / "root", redis_url, WITHOUT_A_BROKER, "their_application:broker")
    process = pod.start()
    try:
        assert process.wait(30) != 0
    finally:
        process.kill()
    assert "no broker is set: the application must call dramatiq.set_broker" in pod.log_path.read_text()
