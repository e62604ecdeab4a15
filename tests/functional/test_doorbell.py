"""The bell on a real server: a first message rings it, nothing else does, and a dead broker mutes itself alone."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from structlog.testing import capture_logs

from astrid_operator import doorbell
from astrid_operator.brokers import BrokerAddress
from astrid_operator.claims import BrokerQueue
from astrid_operator.doorbell import Doorbell
from astrid_operator.dramatiq_keys import DramatiqQueue
from support.redis_server import RedisServer
from support.waiting import wait_until

Ring = Callable[[Doorbell], Awaitable[None]]


def queue(server: RedisServer, name: str) -> BrokerQueue:
    return BrokerQueue(BrokerAddress(server.url()), DramatiqQueue("dramatiq", name))


def put(server: RedisServer, name: str, message: str = "m1") -> None:
    server.client.hset(f"dramatiq:{name}.msgs", message, "{}")
    server.client.rpush(f"dramatiq:{name}", message)


def play(scenario: Ring) -> None:
    """Run `scenario` with a bell of its own."""

    async def go() -> None:
        bell = Doorbell()
        try:
            async with asyncio.timeout(20):
                await scenario(bell)
        finally:
            await bell.close()

    asyncio.run(go())


async def questions(server: RedisServer, more: int) -> None:
    """Return once the server was asked so often from now on."""

    def asked() -> int:
        return int(server.client.info("commandstats").get("cmdstat_exists", {}).get("calls", 0))

    least = asked() + more
    await asyncio.to_thread(wait_until, lambda: asked() >= least, 10, f"{more} further questions")


def is_rung(bell: Doorbell) -> bool:
    return bell._rung.is_set()


def test_a_first_message_rings(redis_server: RedisServer) -> None:
    """Of many queues that sleep one gets a message; one that came before anybody listened counts as well."""

    async def scenario(bell: Doorbell) -> None:
        asleep = [queue(redis_server, f"q{number}") for number in range(50)]
        bell.listen(asleep)
        await questions(redis_server, 2)
        assert not is_rung(bell)
        put(redis_server, "q17")
        await bell.rung()

        bell.listen(asleep)
        assert not is_rung(bell)
        await bell.rung()

    play(scenario)


def test_only_those_that_sleep_are_listened_for(redis_server: RedisServer) -> None:
    """A queue that is awake rings no bell, be it that it never slept or that it woke."""

    async def scenario(bell: Doorbell) -> None:
        put(redis_server, "awake")
        bell.listen([queue(redis_server, "asleep"), queue(redis_server, "waking")])
        await questions(redis_server, 1)
        put(redis_server, "waking")
        bell.listen([queue(redis_server, "asleep")])
        await questions(redis_server, 3)
        assert not is_rung(bell)

        bell.listen([])
        put(redis_server, "asleep")
        await asyncio.gather(*bell._listening.values())
        assert not is_rung(bell)

    play(scenario)


def test_delayed_messages_do_not_ring(redis_server: RedisServer) -> None:
    """Somebody else knows when these are due."""

    async def scenario(bell: Doorbell) -> None:
        bell.listen([queue(redis_server, "q")])
        redis_server.client.hset("dramatiq:q.DQ.msgs", "m1", "{}")
        await questions(redis_server, 3)
        assert not is_rung(bell)

    play(scenario)


def test_a_broker_that_is_gone_holds_up_no_other(
    redis_server: RedisServer, other_server: RedisServer
) -> None:
    """One refuses connections and one is frozen: the bell rings for the third, and for the first when it is back."""

    async def scenario(bell: Doorbell) -> None:
        frozen = queue(other_server, "frozen")
        nobody = BrokerQueue(BrokerAddress("redis://127.0.0.1:9/0"), DramatiqQueue("dramatiq", "q"))
        other_server.freeze()
        try:
            bell.listen([nobody, frozen, queue(redis_server, "q")])
            put(redis_server, "q")
            await bell.rung()
            await asyncio.gather(*bell._listening.values())
        finally:
            other_server.thaw()
        put(other_server, "frozen")
        bell.listen([frozen])
        await bell.rung()

    play(scenario)


def test_an_unforeseen_error_is_told_once_and_ends_no_bell(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each tick listens again; what was logged once is not logged each second."""

    def unforeseen(*_: Any, **__: Any) -> Any:
        raise TypeError

    async def scenario(bell: Doorbell) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(doorbell, "connection", unforeseen)
            for _ in range(2):
                bell.listen([queue(redis_server, "q")])
                await asyncio.wait(bell._listening.values())
        put(redis_server, "q")
        bell.listen([queue(redis_server, "q")])
        await bell.rung()

    with capture_logs() as said:
        play(scenario)

    assert [(each["event"], each["exc_info"]) for each in said] == [("Not listened to Redis", True)]
