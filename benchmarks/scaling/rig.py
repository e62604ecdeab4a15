"""What the scaling benchmarks run on: a real control plane, a real Redis and the operator as its own process.

Owns their start and end, the watch that notes when a size was asked for, and the counters that are read
before and after. It measures and never judges. The parts are those of the cluster tests, imported by path.
"""

import json
import os
import platform
import re
import secrets
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))

import httpx
import psutil
import yaml

from cluster.api_client import ApiFailure, Object
from cluster.binaries import ControlPlaneMissing, find_or_build
from cluster.control_plane import ControlPlane, free_ports
from cluster.operator_process import OperatorProcess
from support.redis_server import RedisServer, valkey_binary
from support.waiting import wait_until

REPOSITORY = Path(__file__).resolve().parents[2]
RESULTS = REPOSITORY / "benchmarks" / "results"

#: Where the tool that builds and starts KEDA is named; without it KEDA is no contender, and that is said.
KEDA_RIG = "ASTRID_KEDA_RIG"

#: A Lease for operators whose latency is measured on a machine that is too busy to renew a usual one: seconds
#: that it lasts, within which it is renewed, and between two tries.
PATIENT_LEASE = {
    "ASTRID_OPERATOR_LEASE_SECONDS": "90",
    "ASTRID_OPERATOR_LEASE_RENEW_SECONDS": "60",
    "ASTRID_OPERATOR_LEASE_RETRY_SECONDS": "5",
}

#: Writes to the store in a second of a calm cluster: Leases are renewed.
CALM_WRITES_PER_S = 2.0

#: Requests that are sent side by side while objects are made or edited.
HANDS = 8

_REQUESTS = re.compile(r"^apiserver_request_total\{(?P<labels>.*)\} (?P<value>\S+)$", re.MULTILINE)
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
_READS = frozenset({"GET", "LIST", "WATCH", "CONNECT"})

#: What only the operator writes while the benchmark itself writes nothing. Events are counted apart: the
#: controllers write some too.
_OPERATORS = re.compile(r"^\S+ (astridqueues/status|deployments/scale|deployments|poddisruptionbudgets)$")


R = TypeVar("R", bound="Rig")


@dataclass
class Sizes:
    """Every size that each Deployment was seen with: (monotonic seconds, replicas). One thread writes it."""

    seen: defaultdict[str, list[tuple[float, int]]] = field(default_factory=lambda: defaultdict(list))

    def saw(self, name: str, replicas: int) -> None:
        history = self.seen[name]
        if not history or history[-1][1] != replicas:
            history.append((time.monotonic(), replicas))

    def wait(self, names: Iterable[str], least: int, since: float, timeout_s: float) -> dict[str, float]:
        """Seconds from `since` until each had `least` replicas; those that never had are not in it.

        The times are those of the watch; looking whether all are there yet is kept rare and cheap.
        """
        deadline = time.monotonic() + timeout_s
        left = set(names)
        found: dict[str, float] = {}
        while True:
            for name in list(left):
                at = self._reached(name, least, since)
                if at is not None:
                    found[name] = at
                    left.discard(name)
            if not left or time.monotonic() >= deadline:
                return found
            time.sleep(0.1)

    def writes_since(self, name: str, since: float) -> list[int]:
        """Sizes in the order in which they were set."""
        return [replicas for at, replicas in self.seen[name] if at >= since]

    def _reached(self, name: str, least: int, since: float) -> float | None:
        return next(
            (at - since for at, replicas in self.seen[name] if at >= since and replicas >= least), None
        )

    def now(self, name: str) -> int | None:
        history = self.seen[name]
        return history[-1][1] if history else None


class Rig:
    """Everything that a benchmark runs on; usable as a context manager."""

    def __init__(self) -> None:
        self.namespace = f"bench-{secrets.token_hex(3)}"
        self.plane = ControlPlane(find_or_build(say))
        self.redis = RedisServer(valkey_binary())
        self.sizes = Sizes()
        self.operator: OperatorProcess | None = None
        self._ended = threading.Event()

    def __enter__(self) -> "Rig":
        self.plane.start()
        self.redis.start()
        self.api = self.plane.api()
        self.api.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self.namespace}})
        self._install()
        self._watching = threading.Thread(target=self._watch, name="sizes", daemon=True)
        self._watching.start()
        say(f"control plane up after {self.plane.seconds_to_ready:.0f} s")
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        if self.operator is not None:
            self.operator.process.stop()
        self.api.close()
        self.redis.close()
        self.plane.stop()

    def start_operator(self, *, sees_nodes: bool = False, **settings: str) -> OperatorProcess:
        """The operator, healthy, with its log beside the control plane's.

        It serves the rig's namespace alone, unless it is to see what nodes have.
        """
        env = {"REDIS_URL": self.redis.url(), "ASTRID_OPERATOR_LOG_LEVEL": "warning", **settings}
        env.setdefault("ASTRID_OPERATOR_LEASE_NAMESPACE", self.namespace)
        self.operator = OperatorProcess.start(
            self.plane.kubeconfig,
            self.plane.logs / f"operator-{secrets.token_hex(2)}.log",
            arguments=() if sees_nodes else ("--namespace", self.namespace),
            env=env,
            ports=free_ports(2),
        ).wait_until_healthy()
        return self.operator

    # ------------------------------------------------------------------ objects

    def make_queues(self, names: Sequence[str], **spec: Any) -> None:
        """Create an AstridQueue of each name."""
        self.for_each(names, lambda api, name: api.create(queue_manifest(name, **spec), self.namespace))

    def edit_queues(self, names: Sequence[str], **spec: Any) -> None:
        self.for_each(
            names, lambda api, name: api.patch("astridqueues", name, self.namespace, {"spec": spec})
        )

    def for_each(self, names: Sequence[str], act: Any) -> None:
        """`act(api, name)` for all names, with `HANDS` clients of their own."""

        def some(share: Sequence[str]) -> None:
            with self.plane.api() as api:
                for name in share:
                    act(api, name)

        with ThreadPoolExecutor(HANDS) as pool:
            list(pool.map(some, [names[hand::HANDS] for hand in range(HANDS)]))

    def empty(self, names: Sequence[str]) -> None:
        """Bring fleets and queues to nothing: switched off, emptied, switched on again."""
        self.edit_queues(names, enabled=False)
        self.wait_for_sizes(names, 0)
        self.redis.empty()
        self.edit_queues(names, enabled=True)

    def wait_for_sizes(self, names: Sequence[str], replicas: int, timeout_s: float = 600) -> None:
        def all_have_it() -> bool:
            if self.operator is not None and not self.operator.process.is_alive:
                raise AssertionError(f"the operator ended\n{self.operator.process.tail()}")
            return all(self.sizes.now(name) == replicas for name in names)

        wait_until(all_have_it, timeout_s, f"{len(names)} fleets to have {replicas} members")

    def _install(self) -> None:
        for path in sorted((REPOSITORY / "crds").glob("*.yaml")):
            self.api.apply(yaml.safe_load(path.read_text()))

        def is_served() -> bool:
            try:
                self.api.list("astridqueues")
            except ApiFailure:
                return False
            return True

        wait_until(is_served, 60, "AstridQueues to be served")

    def _watch(self) -> None:
        with self.plane.api() as api:
            while not self._ended.is_set():
                try:
                    for _, deployment in api.watch("deployments", self.namespace, timeout_s=3600):
                        self.sizes.saw(deployment["metadata"]["name"], deployment["spec"]["replicas"])
                except (ApiFailure, httpx.HTTPError):
                    self._ended.wait(0.1)

    # ------------------------------------------------------------------ load

    def push(self, names: Sequence[str], count: int) -> float:
        """Enqueue `count` messages on each, all in one pipeline; when that was done (monotonic)."""
        with self.redis.client.pipeline(transaction=False) as pipeline:
            for name in names:
                ids = [secrets.token_hex(8) for _ in range(count)]
                pipeline.hset(f"dramatiq:{name}.msgs", mapping=dict.fromkeys(ids, message_body(name)))
                pipeline.rpush(f"dramatiq:{name}", *ids)
            pipeline.execute()
        return time.monotonic()

    # ------------------------------------------------------------------ counters

    def requests(self) -> Counter[str]:
        """Requests that the API server has served so far, by "VERB resource/subresource"."""
        counted: Counter[str] = Counter()
        for match in _REQUESTS.finditer(self.api.text("/metrics")):
            labels = dict(_LABEL.findall(match["labels"]))
            subresource = f"/{labels['subresource']}" if labels.get("subresource") else ""
            counted[f"{labels['verb']} {labels['resource']}{subresource}"] += int(float(match["value"]))
        return counted

    def wait_until_quiet(self, seconds: float = 3.0, timeout_s: float = 180) -> None:
        """Wait until the operator has written nothing for so long: what a trial before left is all told."""
        written, since = -1, time.monotonic()
        deadline = since + timeout_s
        while time.monotonic() < deadline:
            now = sum(count for key, count in self.requests().items() if _OPERATORS.match(key))
            if now != written:
                written, since = now, time.monotonic()
            elif time.monotonic() - since >= seconds:
                return
            time.sleep(0.5)
        say("the operator was not quiet before a trial")

    def quiet_after(self, since: float, before: Counter[str], timeout_s: float = 180) -> dict[str, Any]:
        """When the operator began to write no more than once a second, and what it had written by then.

        `since`: monotonic seconds; `before`: the requests until then.
        """
        looks = [(time.monotonic(), before)]
        while looks[-1][0] - since < timeout_s:
            time.sleep(1)
            looks.append((time.monotonic(), self.requests()))
            lately = next(each for each in looks if looks[-1][0] - each[0] < 5.5)
            if looks[-1][0] - lately[0] > 4 and _mine(looks[-1][1] - lately[1]) <= 5:
                break
        at, counted = lately
        writes = {key: n for key, n in sorted((counted - before).items()) if _OPERATORS.match(key)}
        return {"quiet_after_s": round(at - since, 1), "writes_until_then": writes}

    def wait_until_calm(self, seconds: float = 3.0, timeout_s: float = 180) -> None:
        """Wait until hardly anybody writes but Leases, for so long: controllers have caught up too.

        Every write makes the store's revision one higher; to ask for that costs the API server nothing, where
        its counters are two megabytes of text.
        """
        before, since = self._revision(), time.monotonic()
        deadline = since + timeout_s
        while time.monotonic() < deadline:
            time.sleep(seconds)
            now, at = self._revision(), time.monotonic()
            if now - before <= CALM_WRITES_PER_S * (at - since):
                return
            before, since = now, at
        say("the cluster was not calm before a trial")

    def _revision(self) -> int:
        return int(self.api.list_with_version("namespaces")[1])

    def usage(self) -> "Usage":
        """Of the operator's process until now."""
        assert self.operator is not None
        process = psutil.Process(self.operator.process.pid)
        cpu = process.cpu_times()
        return Usage(time.monotonic(), cpu.user + cpu.system, process.memory_info().rss)


@dataclass(frozen=True, slots=True)
class Usage:
    """CPU seconds so far, and resident bytes now."""

    at: float
    cpu_seconds: float
    rss_bytes: int


@dataclass
class Stretch:
    """What happened between the two ends of a measured stretch of time."""

    seconds: float = 0.0
    writes: dict[str, int] = field(default_factory=dict)
    reads: dict[str, int] = field(default_factory=dict)
    operator_writes_per_s: float = 0.0
    event_writes_per_s: float = 0.0
    lease_writes_per_s: float = 0.0
    operator_cores: float = 0.0
    operator_rss_mb: float = 0.0
    load_average: float = 0.0


@contextmanager
def stretch(rig: Rig) -> Iterator[Stretch]:
    """Counters of the API server and of the operator's process over the time inside the `with`."""
    found = Stretch()
    before, usage = rig.requests(), rig.usage()
    yield found
    after, later = rig.requests(), rig.usage()
    found.seconds = later.at - usage.at
    difference = after - before
    found.writes = {key: count for key, count in sorted(difference.items()) if key.split()[0] not in _READS}
    found.reads = {key: count for key, count in sorted(difference.items()) if key.split()[0] in _READS}
    found.operator_writes_per_s = _mine(found.writes) / found.seconds
    found.event_writes_per_s = _written(found, "events")
    found.lease_writes_per_s = _written(found, "leases")
    found.operator_cores = (later.cpu_seconds - usage.cpu_seconds) / found.seconds
    found.operator_rss_mb = later.rss_bytes / 1e6
    found.load_average = os.getloadavg()[0]


def _mine(requests: Mapping[str, int]) -> int:
    return sum(count for key, count in requests.items() if _OPERATORS.match(key))


def _written(found: Stretch, resource: str) -> float:
    return sum(n for key, n in found.writes.items() if key.split()[1] == resource) / found.seconds


def queue_manifest(name: str, **spec: Any) -> Object:
    """An AstridQueue of a foreign application, so that any queue name will do."""
    return {
        "apiVersion": "astrid.dev/v1alpha1",
        "kind": "AstridQueue",
        "metadata": {"name": name},
        "spec": {"app": "sky.tasks", **spec},
    }


def message_body(queue: str) -> str:
    return json.dumps({"queue_name": queue, "options": {}, "message_timestamp": int(time.time() * 1000)})


# ---------------------------------------------------------------------- numbers and files


def spread(values: Sequence[float]) -> dict[str, float | int | None]:
    """n, min, p50, p95 and max; percentiles by nearest rank."""
    ordered = sorted(values)
    if not ordered:
        return {"n": 0, "min": None, "p50": None, "p95": None, "max": None}

    def rank(percent: int) -> float:
        return round(ordered[max(0, -(-percent * len(ordered) // 100) - 1)], 3)

    return {
        "n": len(ordered),
        "min": round(ordered[0], 3),
        "p50": rank(50),
        "p95": rank(95),
        "max": round(ordered[-1], 3),
    }


def machine() -> dict[str, Any]:
    """Where a result was measured, and how busy that was."""
    return {
        "cores": os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "python": platform.python_version(),
        "load_average": [round(each, 2) for each in os.getloadavg()],
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def save(name: str, result: dict[str, Any]) -> Path:
    """Write a result with the machine's facts; the path."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps({"machine": machine(), **result}, indent=1) + "\n")
    return path


def keda_or_why_not() -> str:
    """A sentence on whether KEDA takes part."""
    tool = os.environ.get(KEDA_RIG)
    if not tool:
        return f"KEDA takes no part: {KEDA_RIG} names no tool that starts it"
    return f"KEDA takes part by {tool}"


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def rig_or_exit(make: Callable[[], R] = Rig) -> R:  # type: ignore[assignment]
    """A rig; ends the program with a sentence where there is no control plane to be had."""
    try:
        return make()
    except ControlPlaneMissing as missing:
        sys.exit(str(missing))
