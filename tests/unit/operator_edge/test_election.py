"""The Lease has a thread of its own: a loop that is busy keeps it, a loop that hangs gives it up."""

import asyncio
import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from kubernetes.aio import client
from structlog.testing import capture_logs

from astrid_operator.election import Election
from astrid_operator.errors import LeadershipLost, NoCluster
from astrid_operator.leadership import Leadership, LeaseTimes
from support.waiting import wait_in_loop

TIMES = LeaseTimes(lease=0.6, renew=0.4, retry=0.05)


class Answer:
    """Of the API server."""

    def __init__(self, status: int, document: dict[str, Any]) -> None:
        self.status, self.headers = status, {}
        self._document = document

    async def read(self) -> bytes:
        return json.dumps(self._document).encode()


class OneLease(client.ApiClient):
    """An API server that holds one Lease and keeps its promise on versions; notes what it was asked."""

    def __init__(self) -> None:
        super().__init__(client.Configuration(host="https://server"))
        self.lease: dict[str, Any] = {"metadata": {"name": "lease", "resourceVersion": "1"}, "spec": {}}
        self.asked: list[str] = []
        self.is_away = self.is_closed = False
        self.forbidden: set[str] = set()

    async def call_api(self, method: str, url: str, *, body: Any = None, **_: Any) -> Any:  # type: ignore[override]
        self.asked.append(method)
        if self.is_away:
            raise ConnectionRefusedError
        if method in self.forbidden:
            raise LookupError(method)
        if method == "PATCH":
            if body["metadata"]["resourceVersion"] != self.lease["metadata"]["resourceVersion"]:
                return Answer(409, {"kind": "Status", "message": "it was changed", "code": 409})
            self.write(body["spec"])
        return Answer(200, self.lease)

    def write(self, spec: dict[str, Any]) -> None:
        version = str(int(self.lease["metadata"]["resourceVersion"]) + 1)
        self.lease = {
            "metadata": {"name": "lease", "resourceVersion": version},
            "spec": {**self.lease["spec"], **spec},
        }

    async def close(self) -> None:
        self.is_closed = True


def election(server: OneLease, unfit: Callable[[], str] = lambda: "") -> Election:
    async def connect() -> client.ApiClient:
        return server

    return Election(connect, lambda api: Leadership(api, "ns", "lease", "me", TIMES), unfit)


def test_a_loop_that_is_busy_for_longer_than_the_lease_keeps_it() -> None:
    """A thousand decisions in one go are no reason to be deposed."""

    async def busy() -> bool:
        server = OneLease()
        part = election(server)
        await part.acquired()
        time.sleep(2 * TIMES.lease)  # noqa: ASYNC251 - the loop does nothing else meanwhile
        leads = part.is_leader
        await part.end()
        return leads

    assert asyncio.run(busy())


def test_a_loop_that_hangs_gives_the_lease_up_at_once() -> None:
    """Else a leader that decides nothing would keep everybody else out; who stands by need not wait."""

    async def hang() -> OneLease:
        server, reason = OneLease(), ""
        part = election(server, lambda: reason)
        await part.acquired()
        reason = "nothing was decided for 20 s"
        with pytest.raises(LeadershipLost, match="nothing was decided for 20 s"):
            await asyncio.wait_for(part.lost(), 5)
        assert not part.is_leader
        return server

    server = asyncio.run(hang())
    assert server.lease["spec"]["holderIdentity"] == ""
    assert server.is_closed


def test_an_api_server_that_was_away_is_no_reason_to_end() -> None:
    """Nothing may be written until the Lease is renewed; where nobody else took it, all goes on."""

    async def away() -> list[bool]:
        server = OneLease()
        part = election(server)
        await part.acquired()
        server.is_away = True
        led = [part.is_leader]
        await wait_in_loop(lambda: not part.is_leader, 5, "the Lease to be given up", every_s=0.01)
        led.append(part.is_leader)
        server.is_away = False
        await wait_in_loop(lambda: part.is_leader, 5, "the Lease to be had again", every_s=0.01)
        led.append(part.is_leader)
        await part.end()
        return led

    assert asyncio.run(away()) == [True, False, True]


@pytest.mark.parametrize(
    ("found", "why"),
    [
        ({"holderIdentity": "other", "leaseDurationSeconds": 1000, "renewTime": "now"}, "held by other"),
        ({"holderIdentity": "", "leaseTransitions": 5}, "was another's meanwhile"),
    ],
    ids=["somebody else answers now", "another led meanwhile and has gone"],
)
def test_who_was_deposed_ends(found: dict[str, Any], why: str) -> None:
    """It was away for too long: what it remembers is no longer what was done last."""

    async def deposed() -> OneLease:
        server = OneLease()
        part = election(server)
        await part.acquired()
        server.is_away = True
        await wait_in_loop(lambda: not part.is_leader, 5, "the Lease to be given up", every_s=0.01)
        server.write(found)
        server.is_away = False
        with pytest.raises(LeadershipLost, match=why):
            await asyncio.wait_for(part.lost(), 5)
        assert not part.is_leader
        return server

    assert asyncio.run(deposed()).lease["spec"]["holderIdentity"] == found["holderIdentity"]


def test_who_stands_by_comes_when_the_lease_runs_out() -> None:
    """And not a whole pause between two tries later."""

    async def take_over() -> float:
        server = OneLease()
        server.write({"holderIdentity": "other", "leaseDurationSeconds": 1, "renewTime": "now"})
        times = LeaseTimes(lease=1.0, renew=0.9, retry=0.7)
        leadership = Leadership(server, "ns", "lease", "me", times)
        began = time.monotonic()
        await asyncio.wait_for(leadership.acquire(), 5)
        return time.monotonic() - began

    assert 1.0 <= asyncio.run(take_over()) < 1.35


def test_at_the_end_the_lease_is_given_back() -> None:
    """And one who has not begun has nothing to end."""

    async def end() -> OneLease:
        server = OneLease()
        part = election(server)
        await part.end()
        assert not server.asked
        await part.acquired()
        assert server.lease["spec"]["holderIdentity"] == "me"
        await part.end()
        return server

    server = asyncio.run(end())
    assert server.lease["spec"]["holderIdentity"] == ""
    assert server.is_closed


def test_what_fails_at_the_end_is_told_with_its_traceback() -> None:
    """Nobody waits for the part any more: without a line of the log it would never be known."""

    async def end() -> LookupError:
        server = OneLease()
        part = election(server)
        await part.acquired()
        server.forbidden = {"GET"}  # to renew takes none
        with capture_logs() as said:
            await part.end()
        (line,) = said
        assert (line["event"], line["identity"]) == ("Part in the election ended unexpectedly", "me")
        return line["exc_info"]

    assert asyncio.run(end()).args == ("GET",)


def test_who_stands_by_can_be_ended() -> None:
    """While another holds the Lease, which it keeps."""

    async def stand_by() -> OneLease:
        server = OneLease()
        server.write({"holderIdentity": "other", "leaseDurationSeconds": 1000, "renewTime": "now"})
        part = election(server)
        waiting = asyncio.create_task(part.acquired())
        await wait_in_loop(lambda: "GET" in server.asked, 5, "the Lease to be read", every_s=0.01)
        waiting.cancel()
        await part.end()
        return server

    server = asyncio.run(stand_by())
    assert server.lease["spec"]["holderIdentity"] == "other"
    assert server.is_closed


def test_without_a_cluster_nobody_is_elected() -> None:
    """What forbids to go on is raised where it is waited for."""

    async def alone() -> None:
        async def connect() -> client.ApiClient:
            message = "No cluster is known"
            raise NoCluster(message)

        part = Election(connect, lambda api: Leadership(api, "ns", "lease", "me", TIMES), lambda: "")
        await part.acquired()

    with pytest.raises(NoCluster):
        asyncio.run(alone())


def test_what_is_ours_is_renewed_without_reading_it() -> None:
    """One request per renewal; where somebody else wrote to the Lease, it is read again."""

    async def renew() -> tuple[list[str], str]:
        server = OneLease()
        leadership = Leadership(server, "ns", "lease", "me", TIMES)
        await leadership.acquire()
        holding = asyncio.create_task(leadership.hold())
        await wait_in_loop(lambda: len(server.asked) >= 5, 5, "some renewals", every_s=0.01)
        before = list(server.asked)
        server.write({"strategy": "written by another"})
        await wait_in_loop(
            lambda: "GET" in server.asked[len(before) :] and server.asked[-1] == "PATCH",
            *(5, "it to be read and renewed again"),
            every_s=0.01,
        )
        assert leadership.is_leader
        holding.cancel()
        return before, server.lease["spec"]["holderIdentity"]

    asked, holder = asyncio.run(renew())
    assert asked[:2] == ["GET", "PATCH"]
    assert set(asked[2:]) == {"PATCH"}
    assert holder == "me"
