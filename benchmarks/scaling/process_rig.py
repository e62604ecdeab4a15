"""What the benchmarks with real workers run on: the rig, and a node whose pods are processes of this machine.

Owns the node, the fleets (an AstridQueue's, or a plain Deployment that a model of KEDA sizes) and what each
task wrote of itself. Interruptions and duplicates are counted from that, never guessed.
"""

import base64
import random
import secrets
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import dramatiq
import redis
from dramatiq.brokers.redis import RedisBroker
from keda_model import KedaDecider, Profile
from rig import Rig, queue_manifest, rig_or_exit, say

from astrid_operator.astrid_queue import parse_astrid_queue
from astrid_operator.fleet import FleetState
from astrid_operator.scaling import Demand, DemandReading
from cluster.api_client import Object
from cluster.process_pods import ProcessPods
from support.redis_server import RedisServer
from support.waiting import wait_until

HERE = Path(__file__).resolve().parent

#: Variables that a pod of the contender has: Dramatiq as it comes.
PLAIN = {"BENCH_PLAIN": "1"}

#: KEDA's strongest configuration, its 30 s divided by three as the times of these loads are; the HPA still
#: syncs every 15 s, which nobody can change.
EXPERT_SCALED = Profile("KEDA expert, scaled", 1, 10, 1, True, False, 10, None)
#: The same with the trigger that KEDA documents: the list, in which a message being worked on is not.
LIST_SCALED = Profile("KEDA list trigger, scaled", 1, 10, 1, False, False, 10, None)


class ProcessRig(Rig):
    """A rig with a node; `node` goes to `ProcessPods`."""

    def __init__(self, **node: Any) -> None:
        super().__init__()
        self._node = {"start_seconds": (0.5, 2.0), **node}
        self.other_servers: list[RedisServer] = []

    def __enter__(self) -> "ProcessRig":
        super().__enter__()
        try:
            self._begin()
        except BaseException:
            super().__exit__()
            raise
        return self

    def _begin(self) -> None:
        account = f"the default service account of {self.namespace}"
        wait_until(lambda: self.api.find("serviceaccounts", "default", self.namespace), 30, account)
        self.let_pods_know("astrid-redis", self.redis.url())
        self.brokers = self.plane.folder / "brokers"
        self.pods = ProcessPods(
            self.plane.server, self.plane.keys, node=f"node-{secrets.token_hex(3)}", **self._node
        ).start()

    def __exit__(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        trace: TracebackType | None = None,
    ) -> None:
        if kind is not None and self.operator is not None:
            say(self.operator.process.tail(60))
            for run in self.pods.of(self.namespace)[-3:]:
                say(f"--- {run.name}, exits {run.exits}\n{run.log()[-1500:]}")
        self.pods.stop()
        super().__exit__()
        for server in self.other_servers:
            server.close()

    # ------------------------------------------------------------------ fleets

    def let_pods_know(self, secret: str, url: str) -> None:
        """A Secret with a broker's address, for pods and for the operator."""
        data = {"url": base64.b64encode(url.encode()).decode()}
        body = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": secret}, "data": data}
        self.api.create(body, self.namespace)
        file = self.plane.folder / "brokers" / self.namespace / secret / "url"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(url)

    def start_operator(self, *, sees_nodes: bool = False, **settings: str) -> Any:
        brokers = {"ASTRID_OPERATOR_BROKERS_DIR": str(self.brokers)}
        return super().start_operator(sees_nodes=sees_nodes, **brokers, **settings)

    def make_fleet(self, name: str, *, env: dict[str, str] | None = None, **spec: Any) -> None:
        """An AstridQueue whose pods run `bench_app`, and wait for its Deployment."""
        variables = {**self.variables(), **(env or {})}
        listed = [{"name": each, "value": value} for each, value in variables.items()]
        spec = {"app": "bench_app", "timeoutSeconds": 600, "env": listed, **spec}
        self.api.create(queue_manifest(name, **spec), self.namespace)
        self.wait_for_sizes([name], int(spec.get("replicas", 0)))

    def make_deployment(self, name: str, replicas: int, **env: str) -> None:
        """A plain Deployment of `bench_app`: one process, one thread, nothing of Astrid; nobody sizes it."""
        variables = {**self.variables(), **PLAIN, "WORKER_QUEUE": name, "REDIS_URL": self.redis.url(), **env}
        listed: list[Object] = [{"name": each, "value": value} for each, value in variables.items()]
        listed.append({"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}})
        command = ["python", "-m", "dramatiq", "bench_app", "--queues", name]
        command += ["--processes", "1", "--threads", "1", "--worker-shutdown-timeout", "600000"]
        container = {"name": "worker", "image": "bench", "command": command, "env": listed}
        labels = {"app": name}
        template = {
            "metadata": {"labels": labels},
            "spec": {"containers": [container], "terminationGracePeriodSeconds": 660},
        }
        spec = {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template}
        body = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": spec}
        self.api.create(body, self.namespace)
        self.wait_for_sizes([name], replicas)

    def grow(self, name: str, replicas: int, *, is_queue: bool) -> None:
        """Give a fleet in Manual, or a plain Deployment, another size."""
        if is_queue:
            self.api.patch("astridqueues", name, self.namespace, {"spec": {"replicas": replicas}})
        else:
            self.api.scale("deployments", name, self.namespace, replicas)
        self.wait_for_sizes([name], replicas)

    def runs_of(self, name: str) -> list[Any]:
        """Every pod that a fleet ever had."""
        return [run for run in self.pods.of(self.namespace) if run.name.rsplit("-", 2)[0] == name]

    def alive(self, name: str) -> list[Any]:
        """Those that are not gone."""
        return [run for run in self.runs_of(name) if run.gone_at is None]

    def variables(self) -> dict[str, str]:
        """What `bench_app` needs wherever it runs."""
        return {"PYTHONPATH": str(HERE), "DIARY_URL": self.redis.url(1)}


def process_rig_or_exit(**node: Any) -> ProcessRig:
    """As `rig_or_exit`."""
    return rig_or_exit(lambda: ProcessRig(**node))


class Diary:
    """Sends tasks to one queue and counts what became of them."""

    def __init__(
        self,
        rig: ProcessRig,
        queue: str,
        server: RedisServer | None = None,
        client: "redis.Redis | None" = None,
    ) -> None:
        self.queue = queue
        self.server = server or rig.redis
        self._notes = redis.Redis.from_url(rig.redis.url(1))
        self.broker = RedisBroker(client=client or redis.Redis.from_url(self.server.url()))
        self.broker.declare_queue(queue)
        self.sent: dict[str, float] = {}
        self.due: dict[str, float] = {}

    def send(self, seconds: float, mark: str, *, delay_s: float | None = None) -> None:
        """Enqueue one task."""
        message = dramatiq.Message(self.queue, "work", (seconds, mark), {}, {})
        delay_ms = None if delay_s is None else int(delay_s * 1000)
        enqueued = self.broker.enqueue(message, delay=delay_ms)
        self.sent[mark] = time.time()
        if delay_ms is not None:
            self.due[mark] = enqueued.options["eta"] / 1000

    def times(self, word: str) -> dict[str, list[float]]:
        """Mark → when it began or ended, each time."""
        found: defaultdict[str, list[float]] = defaultdict(list)
        for line in self._notes.lrange(f"diary:{self.queue}", 0, -1):
            said, mark, _, at = line.decode().split()
            if said == word:
                found[mark].append(float(at))
        return found

    def by_pod(self) -> dict[str, list[tuple[float, float]]]:
        """Pod → when each of its tasks began and ended, in order; infinity: not yet."""
        found: defaultdict[str, dict[str, tuple[float, float]]] = defaultdict(dict)
        for line in self._notes.lrange(f"diary:{self.queue}", 0, -1):
            said, mark, pod, at = line.decode().split()
            begin = float(at) if said == "begin" else found[pod][mark][0]
            found[pod][mark] = (begin, float("inf") if said == "begin" else float(at))
        return {pod: sorted(tasks.values()) for pod, tasks in found.items()}

    def wait_until_done(self, timeout_s: float) -> bool:
        """Whether everything that was sent has ended within that time."""
        deadline = time.monotonic() + timeout_s
        while not self.sent.keys() <= self.times("end").keys():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.5)  # polling, until the deadline
        return True

    def count(self) -> dict[str, int]:
        """What became of the tasks: begun more often than once, broken off, never ended."""
        begun = {mark: len(times) for mark, times in self.times("begin").items()}
        ended = {mark: len(times) for mark, times in self.times("end").items()}
        return {
            "tasks": len(self.sent),
            "never_ended": sum(mark not in ended for mark in self.sent),
            "broken_off": sum(max(0, begun.get(mark, 0) - ended.get(mark, 0)) for mark in self.sent),
            "ended_twice": sum(count > 1 for count in ended.values()),
            "begun_again": sum(count - 1 for count in begun.values()),
        }

    def held(self) -> int:
        """Messages that were sent and are not done."""
        return int(self.server.client.hlen(f"dramatiq:{self.queue}.msgs"))


class KedaThread(threading.Thread):
    """Sizes a plain Deployment as the model of KEDA says, once a second, in real time."""

    def __init__(
        self, rig: ProcessRig, diary: Diary, *, most: int, seed: int, profile: Profile = EXPERT_SCALED
    ) -> None:
        name = diary.queue
        super().__init__(name=f"keda {name}", daemon=True)
        self._rig, self._fleet, self._diary = rig, name, diary
        manifest = queue_manifest(name, app="bench_app", scaling={"maxReplicas": most})
        manifest["metadata"] |= {"namespace": rig.namespace, "uid": "u", "generation": 1}
        manifest["metadata"]["creationTimestamp"] = "2026-01-01T00:00:00Z"
        policy = parse_astrid_queue(manifest).spec
        self._decider = KedaDecider(profile, policy, random.Random(seed))
        self._ended = threading.Event()

    def run(self) -> None:
        size = 0
        with self._rig.plane.api() as api:
            while not self._ended.wait(1.0):
                ready = self._diary.server.client.llen(f"dramatiq:{self._diary.queue}")
                demand = Demand(ready=ready, running=max(0, self._diary.held() - ready))
                now = time.monotonic()
                fleet = FleetState(exists=True, desired=size, current=size, ready=size)
                wanted = self._decider.decide(DemandReading(now, demand), fleet, now).replicas
                if wanted != size:
                    api.scale("deployments", self._fleet, self._rig.namespace, wanted)
                    size = wanted

    def stop(self) -> None:
        """End it."""
        self._ended.set()
        self.join(10)


class PodLog(threading.Thread):
    """Notes how many pods of a fleet there are, a few times a second."""

    def __init__(self, rig: ProcessRig, name: str) -> None:
        super().__init__(daemon=True)
        self.seen: list[tuple[float, int]] = []
        self._look: Callable[[], int] = lambda: len(rig.alive(name))
        self._ended = threading.Event()

    def run(self) -> None:
        while not self._ended.wait(0.2):
            self.seen.append((time.time(), self._look()))

    def stop(self) -> list[tuple[float, int]]:
        """End it; what was seen."""
        self._ended.set()
        self.join(5)
        return self.seen


def shrinks(sizes: Sequence[tuple[float, int]], since: float, until: float) -> list[tuple[float, int]]:
    """(seconds after `since`, new size) of each smaller size within that time (monotonic seconds)."""
    found, before = [], None
    for at, size in sizes:
        if before is not None and size < before and since <= at <= until:
            found.append((round(at - since, 1), size))
        before = size
    return found


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print rows for a person."""
    cells = [[str(each) for each in row] for row in (head, *rows)]
    widths = [max(len(row[at]) for row in cells) for at in range(len(head))]
    for row in cells:
        print(
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip(), flush=True
        )
