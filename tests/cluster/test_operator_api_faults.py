"""An API server that refuses, hurries, breaks and falls silent: no fleet shrinks, nobody exits, and all is right again."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from cluster.api_client import Api
from cluster.astrid_objects import Fleet, make_fleet, push
from cluster.conftest import StartOperator
from cluster.control_plane import ControlPlane
from cluster.fault_proxy import FaultProxy
from cluster.operator_process import OperatorProcess
from support.redis_server import RedisServer
from support.waiting import wait_until

#: Seconds after which everything is right again although each of the first writes failed: two back-offs of at most
#: 2 s, a Retry-After of one, and a busy machine.
RIGHT_AGAIN_S = 30.0
#: Seconds between two complete lists in these tests.
RESYNC_S = 3.0

#: Kinds that an operator of one namespace watches.
WATCHES = 5

SIZES = r"/deployments/burst/scale"


@dataclass
class World:
    """A fleet of five with five messages, behind a proxy; `sizes` are all that were seen."""

    proxy: FaultProxy
    operator: OperatorProcess
    fleet: Fleet
    redis: RedisServer
    sizes: list[int] = field(default_factory=list)

    def push(self, count: int) -> None:
        push(self.redis.client, "burst", count)

    def wait_for_size(self, size: int, timeout_s: float = RIGHT_AGAIN_S) -> None:
        """Fails where the operator ended or any size was smaller than one before."""

        def reached() -> bool:
            assert self.operator.process.is_alive, self.operator.process.tail()
            self.sizes.append(self.fleet.replicas)
            return self.sizes[-1] == size

        wait_until(reached, timeout_s, f"the fleet to have {size} members")
        assert self.sizes == sorted(self.sizes)


@pytest.fixture
def world(
    start_operator: StartOperator,
    control_plane: ControlPlane,
    api: Api,
    namespace: str,
    redis_server: RedisServer,
    tmp_path: Path,
) -> Iterator[World]:
    """An operator that comes to the API server by a proxy without faults yet."""
    with FaultProxy(control_plane) as proxy:
        operator = start_operator(
            "--namespace",
            namespace,
            env={"REDIS_URL": redis_server.url(), "ASTRID_OPERATOR_RESYNC_SECONDS": f"{RESYNC_S}"},
            kubeconfig=proxy.kubeconfig(tmp_path / "faulty.kubeconfig"),
        )
        fleet = make_fleet(
            api, namespace, "burst", scaling={"maxReplicas": 20, "expectedTaskSeconds": 60, "idleSeconds": 0}
        )
        wait_until(lambda: proxy.watches >= WATCHES, RIGHT_AGAIN_S, "every kind to be watched")
        world = World(proxy, operator, fleet, redis_server)
        world.push(5)
        world.wait_for_size(5)
        yield world
        operator.process.stop()


@pytest.mark.parametrize(
    ("status", "headers"),
    [(409, {}), (429, {"Retry-After": "1"}), (429, {}), (500, {}), (503, {})],
    ids=["conflict", "too many, wait 1 s", "too many", "internal error", "unavailable"],
)
def test_a_size_that_is_refused_is_written_again(world: World, status: int, headers: dict[str, str]) -> None:
    """What may succeed later is tried later; the fleet keeps its size until then."""
    fault = world.proxy.answer("PATCH", SIZES, status, times=2, headers=headers)
    world.push(7)
    world.wait_for_size(12)

    assert fault.answered == 2


@pytest.mark.parametrize("status", [409, 429, 500])
def test_statuses_that_fail_hold_no_size_back(world: World, status: int) -> None:
    """Telling is one thing, acting another; what could not be told is told later."""
    fault = world.proxy.answer("PATCH", r"/astridqueues/burst/status", status, times=3)
    world.push(7)
    world.wait_for_size(12, timeout_s=10)
    wait_until(lambda: world.fleet.queue["status"]["desiredReplicas"] == 12, RIGHT_AGAIN_S, "it to be told")

    assert fault.answered == 3


@pytest.mark.parametrize("status", [409, 429, 500])
def test_a_lease_that_fails_twice_costs_nothing(world: World, status: int) -> None:
    """Two renewals may fail before the Lease runs out."""
    fault = world.proxy.answer("PATCH", r"/leases/", status, times=2)
    wait_until(lambda: fault.answered == 2, RIGHT_AGAIN_S, "two renewals to fail")
    world.push(7)
    world.wait_for_size(12)

    assert "astrid_leader 1.0" in world.operator.metrics()


@pytest.mark.parametrize("status", [429, 500])
def test_lists_that_fail_empty_no_fleet(world: World, status: int) -> None:
    """A list that could not be had says nothing: nothing is taken for gone."""
    fault = world.proxy.answer("GET", r"/(pods|deployments|astridqueues)\?(?!.*watch)", status, times=4)
    wait_until(lambda: fault.answered >= 2, RIGHT_AGAIN_S, "lists to fail")
    world.push(7)
    world.wait_for_size(12)


def test_watches_whose_version_is_too_old_begin_anew(world: World) -> None:
    """410 in the stream of every watch, twice: all is listed again, and edits made meanwhile are not lost."""
    world.proxy.hold_watches()
    world.fleet.edit(scaling={"maxReplicas": 30})
    fault = world.proxy.answer("GET", r"watch=true", 410, times=12)
    world.proxy.end_watches()
    world.push(30)
    world.wait_for_size(30)

    assert fault.answered > 0


def test_watches_that_fall_silent_are_made_up_for_by_lists(world: World) -> None:
    """Half-open: no byte, no end. The slow list finds an edit, and sizes go on being written meanwhile."""
    world.proxy.hold_watches()
    world.push(3)
    world.wait_for_size(8)
    world.fleet.edit(scaling={"maxReplicas": 30})
    world.push(30)
    wait_until(lambda: world.proxy.held_watches > 0, RIGHT_AGAIN_S, "watches to be silent")

    world.wait_for_size(30, RESYNC_S + RIGHT_AGAIN_S)


def test_an_operator_whose_watches_were_silent_says_so(world: World) -> None:
    """Two lists in a row that each find what no watch told: `/healthz` fails, and whoever runs it starts it anew."""
    world.proxy.hold_watches()

    def unhealthy() -> bool:
        world.push(1)
        return not world.operator.answers("/healthz")

    wait_until(unhealthy, 6 * RESYNC_S + RIGHT_AGAIN_S, "the operator to distrust its watches", every_s=1.0)
    assert world.operator.process.is_alive
