"""Crashes, absences and rivals on a real control plane: whatever was interrupted ends as if it had not been."""

import asyncio
import secrets
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from astrid_operator.astrid_queue import parse_astrid_queue
from astrid_operator.desired import OperatorDefaults
from astrid_operator.errors import LeadershipLost, NotLeading
from astrid_operator.fleet_view import Moment
from astrid_operator.informer import Informer
from astrid_operator.kubernetes_api import KubernetesApi
from astrid_operator.kubernetes_connection import connect
from astrid_operator.kubernetes_fleet import KubernetesFleet
from astrid_operator.leadership import Leadership, LeaseTimes
from astrid_operator.seen import Seen
from cluster.api_client import Api, Object
from cluster.astrid_objects import SOON_S, Fleet, astrid_queue, make_fleet, managers_of_replicas, push
from cluster.conftest import StartOperator
from cluster.control_plane import ControlPlane
from support.redis_server import RedisServer
from support.waiting import wait_until


class Crashed(Exception):  # noqa: N818 - what the test does, not an error
    """The process ended here."""


def crash_after(writes: int) -> Callable[[], bool]:
    """Leave for so many writes, then the process is gone: what was in flight is never heard of again."""
    left = writes

    def may_write() -> bool:
        nonlocal left
        if left == 0:
            raise Crashed
        left -= 1
        return True

    return may_write


async def one_life(queue: Object, replicas: int, may_write: Callable[[], bool]) -> None:
    """One operator process that knows nothing but what it lists, makes one fleet, and perhaps does not live."""
    client = await connect()
    try:
        requests, seen = KubernetesApi(client, may_write), Seen()
        await Informer(requests, seen, (queue["metadata"]["namespace"],), lambda _: None).begin()
        fleet = KubernetesFleet(
            requests,
            seen,
            OperatorDefaults("example/worker:1"),
            lambda: Moment(monotonic(), datetime.now(UTC)),
        )
        await fleet.ensure(parse_astrid_queue(queue), replicas)
    finally:
        await client.close()


@pytest.fixture
def as_admin(kubeconfig: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Code of the operator that runs in this process talks to the test's cluster."""
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig))


@pytest.mark.parametrize("writes", [0, 1, 2, 3])
@pytest.mark.parametrize("replicas", [0, 3])
@pytest.mark.usefixtures("crd", "as_admin")
def test_a_creation_interrupted_after_any_write_converges(
    api: Api, namespace: str, writes: int, replicas: int
) -> None:
    """The size decided at creation survives a crash after each of the four writes, and ends with `/scale`'s owner.

    A naive apply without replicas gives 1; a repair that sends the manifest again without care drops the field.
    """
    queue = api.create(astrid_queue("made"), namespace)
    with pytest.raises(Crashed):
        asyncio.run(one_life(queue, replicas, crash_after(writes)))
    asyncio.run(one_life(queue, replicas if writes == 0 else 7, lambda: True))
    fleet = Fleet(api, namespace, "made")

    assert fleet.replicas == replicas
    assert managers_of_replicas(fleet.deployment) == {("astrid-operator-replicas", "")}
    assert api.get("poddisruptionbudgets", "made", namespace)["spec"]["maxUnavailable"] == "25%"


@pytest.mark.usefixtures("crd", "as_admin")
def test_a_half_made_fleet_keeps_its_size_through_an_edit(api: Api, namespace: str) -> None:
    """The last step of creation comes before any other apply, so that a dropped field vanishes and replicas stay."""
    queue = api.create(astrid_queue("made", env=[{"name": "OLD", "value": "1"}]), namespace)
    with pytest.raises(Crashed):
        asyncio.run(one_life(queue, 4, crash_after(2)))
    edited = api.patch("astridqueues", "made", namespace, {"spec": {"env": []}})
    asyncio.run(one_life(edited, 0, lambda: True))
    deployment = Fleet(api, namespace, "made").deployment

    assert deployment["spec"]["replicas"] == 4
    names = [each["name"] for each in deployment["spec"]["template"]["spec"]["containers"][0]["env"]]
    assert "OLD" not in names


@pytest.mark.usefixtures("crd", "as_admin")
def test_a_deposed_leader_writes_nothing(api: Api, namespace: str) -> None:
    """Every write asks first; one that may not is not sent."""
    queue = api.create(astrid_queue("made"), namespace)
    with pytest.raises(NotLeading):
        asyncio.run(one_life(queue, 0, lambda: False))

    assert api.find("deployments", "made", namespace) is None


def test_an_operator_killed_in_the_middle_is_right_again_and_never_shrinks(
    start_operator: StartOperator, api: Api, namespace: str, redis_server: RedisServer
) -> None:
    """SIGKILL mid-burst: the next one takes over, decides the same, and the fleet was never smaller meanwhile."""
    env = {"REDIS_URL": redis_server.url(), **QUICK_LEASE}
    first = start_operator("--namespace", namespace, env=env)
    fleet = make_fleet(api, namespace, "burst", scaling={"maxReplicas": 20, "expectedTaskSeconds": 60})
    push(redis_server.client, "burst", 5)
    fleet.wait_for_replicas(5)
    first.process.kill()
    push(redis_server.client, "burst", 7)
    sizes = [fleet.replicas]
    start_operator("--namespace", namespace, env=env, wait=False)

    def grown() -> bool:
        sizes.append(fleet.replicas)
        return sizes[-1] == 12

    wait_until(grown, 30, "the burst to be served by the next operator")
    assert sizes == sorted(sizes)


def test_a_restart_shrinks_nothing_although_the_queue_is_empty(
    start_operator: StartOperator, api: Api, namespace: str, redis_server: RedisServer
) -> None:
    """An operator that has just started has not seen how long a fleet was idle: it only grows at first."""
    env = {"REDIS_URL": redis_server.url(), **QUICK_LEASE}
    first = start_operator("--namespace", namespace, env=env)
    fleet = make_fleet(
        api, namespace, "idle", scaling={"maxReplicas": 5, "expectedTaskSeconds": 60, "idleSeconds": 0}
    )
    push(redis_server.client, "idle", 3)
    fleet.wait_for_replicas(3)
    first.process.stop()
    redis_server.client.flushall()
    second = start_operator("--namespace", namespace, env=env)
    wait_until(lambda: "astrid_leader 1.0" in second.metrics(), 30, "the second operator to lead")
    wait_until(lambda: _ticks(second.metrics()) > 5, 30, "a few ticks")

    assert fleet.replicas == 3


def test_a_lease_is_given_back_at_the_end(
    start_operator: StartOperator, api: Api, namespace: str, redis_url: str
) -> None:
    """A follower stands by, writes nothing, and takes over at once when the leader stops, not after 15 s."""
    env = {"REDIS_URL": redis_url, "ASTRID_OPERATOR_LEASE_NAME": "one-of-two"}
    env |= {"ASTRID_OPERATOR_LEASE_SECONDS": "15", "ASTRID_OPERATOR_LEASE_RENEW_SECONDS": "10"}
    first = start_operator("--namespace", namespace, env=env)
    second = start_operator("--namespace", namespace, env=env)
    wait_until(lambda: second.answers("/readyz"), 30, "the second to stand by")
    assert "astrid_leader 0.0" in second.metrics()
    wait_until(lambda: api.find("leases", "one-of-two", namespace), 30, "the first to hold the Lease")
    started = monotonic()
    first.process.stop()
    wait_until(lambda: "astrid_leader 1.0" in second.metrics(), 12, "the follower to lead")

    assert monotonic() - started < 10
    assert first.process.exit_code == 0


def test_a_leader_that_was_frozen_too_long_ends(
    start_operator: StartOperator, api: Api, namespace: str, redis_url: str
) -> None:
    """Frozen past its Lease, it finds another leader when it wakes: it exits, and that other one stays leader."""
    env = {"REDIS_URL": redis_url, **QUICK_LEASE}
    first = start_operator("--namespace", namespace, env=env)
    second = start_operator("--namespace", namespace, env=env)
    first.process.pause()
    wait_until(lambda: "astrid_leader 1.0" in second.metrics(), 30, "the other to take over")
    first.process.resume()
    wait_until(lambda: not first.process.is_alive, 20, "the deposed leader to end")

    assert first.process.exit_code == 1
    assert "astrid_leader 1.0" in second.metrics()


def test_a_namespace_can_be_deleted_while_the_operator_is_down(
    start_operator: StartOperator, api: Api, make_namespace: Callable[[], str], redis_url: str
) -> None:
    """No finalizer holds anything back."""
    namespace = make_namespace()
    operator = start_operator("--namespace", namespace, env={"REDIS_URL": redis_url})
    make_fleet(api, namespace, "gone")
    operator.process.stop()
    api.delete("namespaces", namespace)

    wait_until(lambda: api.find("namespaces", namespace) is None, 60, "the namespace to be gone")


def test_a_namespace_that_ends_does_not_disturb_the_others(
    start_operator: StartOperator, api: Api, make_namespace: Callable[[], str], redis_url: str
) -> None:
    """Writes into a namespace that is being deleted are no error, and other namespaces are served on."""
    ending, staying = make_namespace(), make_namespace()
    operator = start_operator("--namespace", staying, "--namespace", ending, env={"REDIS_URL": redis_url})
    make_fleet(api, ending, "gone")
    api.delete("namespaces", ending)
    make_fleet(api, staying, "stays")
    wait_until(lambda: api.find("namespaces", ending) is None, 60, "the namespace to be gone")

    assert operator.process.is_alive
    make_fleet(api, staying, "comes")


def test_nonsense_that_was_stored_before_the_rules_stalls_and_keeps_the_fleet(
    start_operator: StartOperator, api: Api, crd: Object, namespace: str, redis_url: str
) -> None:
    """An object that the present schema would refuse, but that is in etcd: told with its path, fleet untouched."""
    operator = start_operator("--namespace", namespace, env={"REDIS_URL": redis_url})
    fleet = make_fleet(api, namespace, "old", replicas=2, scaling={"mode": "Manual"})
    fleet.wait_for_replicas(2)
    before = fleet.deployment["spec"]
    with _without_rules(api, crd):
        wait_until(lambda: _is_accepted(fleet, replicas=11), SOON_S, "the lax schema to be served")
        stalled = fleet.wait_for("Stalled", "True", "InvalidSpec")
        assert "spec.replicas" in stalled["message"]
        assert fleet.deployment["spec"] == before

        operator.process.stop()
        start_operator("--namespace", namespace, env={"REDIS_URL": redis_url})
        fleet.edit(replicas=12)
        generation = fleet.queue["metadata"]["generation"]
        wait_until(
            lambda: fleet.queue["status"]["observedGeneration"] == generation,
            SOON_S,
            "the edit to be observed",
        )
        assert fleet.condition("Stalled")["status"] == "True"
        assert fleet.deployment["spec"] == before
        fleet.edit(replicas=2)
    fleet.wait_for("Stalled", "False")


def test_an_api_server_that_goes_and_comes_back_is_survived(
    start_operator: StartOperator,
    control_plane: ControlPlane,
    api: Api,
    namespace: str,
    redis_server: RedisServer,
) -> None:
    """Killed and started again: watches begin anew, and what was pushed meanwhile is answered."""
    operator = start_operator("--namespace", namespace, env={"REDIS_URL": redis_server.url()})
    fleet = make_fleet(api, namespace, "survivor", scaling={"expectedTaskSeconds": 60})
    push(redis_server.client, "survivor", 2)
    control_plane.restart("kube-apiserver")
    fleet.wait_for_replicas(2, timeout_s=60)

    make_fleet(api, namespace, "later")
    assert operator.process.is_alive


def test_without_the_definition_the_operator_waits_and_says_so(
    start_operator: StartOperator, api: Api, crd: Object, namespace: str, redis_url: str
) -> None:
    """Started before `kubectl apply -f crds/`: alive, not ready, and it begins by itself when that comes."""
    name = crd["metadata"]["name"]
    api.delete("customresourcedefinitions", name)
    wait_until(lambda: api.find("customresourcedefinitions", name) is None, 60, "the definition to go")
    try:
        operator = start_operator("--namespace", namespace, env={"REDIS_URL": redis_url}, wait=False)
        wait_until(lambda: "definition of AstridQueue" in operator.process.tail(50), 30, "it to say so")
        assert operator.answers("/healthz")
        assert not operator.answers("/readyz")
    finally:
        api.apply(crd)
        wait_until(lambda: _is_served(api), 30, "the definition to be served")
    wait_until(lambda: operator.answers("/readyz"), 30, "it to begin")
    make_fleet(api, namespace, "begun")


#: A Lease that is lost sooner than the 5 s of real life.
QUICK_LEASE: Mapping[str, str] = {
    "ASTRID_OPERATOR_LEASE_SECONDS": "4",
    "ASTRID_OPERATOR_LEASE_RENEW_SECONDS": "3",
    "ASTRID_OPERATOR_LEASE_RETRY_SECONDS": "0.5",
}


def test_clocks_that_differ_do_not_elect_two_leaders(as_admin: None, namespace: str) -> None:
    """A Lease whose times lie far in the past or future is judged by when it was seen to change, not by them."""

    async def scenario() -> None:
        client = await connect()
        try:
            times = LeaseTimes(lease=2.0, renew=1.5, retry=0.2)
            name = f"lease-{secrets.token_hex(3)}"
            first = Leadership(client, namespace, name, "first", times)
            second = Leadership(client, namespace, name, "second", times)
            await first.acquire()
            holding = asyncio.create_task(first.hold())
            taking = asyncio.create_task(second.acquire())
            done, _ = await asyncio.wait({holding, taking}, timeout=4)
            assert not done
            assert first.is_leader
            assert not second.is_leader

            holding.cancel()
            await asyncio.wait_for(taking, 6)
            assert second.is_leader
            assert not first.is_leader
            with pytest.raises(LeadershipLost):
                await asyncio.wait_for(first.hold(), 3)
        finally:
            await client.close()

    asyncio.run(scenario())


class _without_rules:  # noqa: N801 - reads as what it does
    """The definition without CEL rules and bounds, as an older release may have had it."""

    def __init__(self, api: Api, crd: Object) -> None:
        self._api = api
        self._crd = crd

    def __enter__(self) -> None:
        lax = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
        status = self._whole["properties"]["status"]
        self._patch({"type": "object", "properties": {"spec": lax, "status": status}})

    def __exit__(self, *_: object) -> None:
        self._patch(self._whole)

    @property
    def _whole(self) -> Object:
        schema: Object = self._crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
        return schema

    def _patch(self, schema: Object) -> None:
        name = self._crd["metadata"]["name"]
        patch = [{"op": "replace", "path": "/spec/versions/0/schema/openAPIV3Schema", "value": schema}]
        self._api.patch("customresourcedefinitions", name, None, patch, kind="json")


def _is_accepted(fleet: Fleet, **spec: Any) -> bool:
    from cluster.api_client import ApiFailure

    try:
        fleet.edit(**spec)
    except ApiFailure:
        return False
    return True


def _is_served(api: Api) -> bool:
    from cluster.api_client import ApiFailure

    try:
        api.list("astridqueues")
    except ApiFailure:
        return False
    return True


def _ticks(metrics: str) -> float:
    line = next(
        each for each in metrics.splitlines() if each.startswith("astrid_tick_duration_seconds_count")
    )
    return float(line.split()[1])
