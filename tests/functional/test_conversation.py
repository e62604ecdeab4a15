"""Asking workers to leave, on a real server: requests lapse, can be taken back, and nobody waits for a dead broker."""

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from astrid_operator.astrid_queue import QueueKey
from astrid_operator.brokers import BrokerAddress
from astrid_operator.claims import BrokerQueue
from astrid_operator.dramatiq_keys import DramatiqQueue
from astrid_operator.errors import NotAsked
from astrid_operator.quiesce import ASKED_SECONDS, Conversation
from support.redis_server import RedisServer, valkey_binary
from support.waiting import wait_in_loop

KEY = QueueKey("sky", "q")
DRAIN = "astrid:dramatiq:drain:q"

Scenario = Callable[[Conversation], Coroutine[Any, Any, Any]]


def talk(url: str, scenario: Scenario) -> Any:
    """Run `scenario` with a conversation of its own."""

    async def go() -> Any:
        conversation = Conversation()
        conversation.know({KEY: BrokerQueue(BrokerAddress(url), DramatiqQueue("dramatiq", "q"))})
        try:
            return await scenario(conversation)
        finally:
            await conversation.close()

    return asyncio.run(go())


def test_a_request_stands_in_redis_and_lapses(redis_server: RedisServer) -> None:
    """A worker is asked by its name; without an operator that repeats it the request is void after a minute."""

    async def scenario(conversation: Conversation) -> None:
        await conversation.ask(KEY, ["pod-a:1", "pod-b:2"])
        assert await conversation.asked([KEY]) == {KEY: {"pod-a:1", "pod-b:2"}}
        assert 0 < redis_server.client.ttl(DRAIN) <= ASKED_SECONDS

        redis_server.client.expire(DRAIN, 5)
        await conversation.ask(KEY, [])
        assert redis_server.client.ttl(DRAIN) > 5

    talk(redis_server.url(), scenario)


def test_a_request_can_be_taken_back(redis_server: RedisServer) -> None:
    """One of two stays asked; where there is nobody to tell, nothing is sent that the server would refuse."""

    async def scenario(conversation: Conversation) -> None:
        await conversation.ask(KEY, ["pod-a:1", "pod-b:2"])
        await conversation.release(KEY, ["pod-a:1"])
        assert await conversation.asked([KEY]) == {KEY: {"pod-b:2"}}
        await conversation.release(KEY, [])
        assert await conversation.asked([KEY]) == {KEY: {"pod-b:2"}}

    talk(redis_server.url(), scenario)


def test_what_a_process_holds_is_dramatiqs_own_account(redis_server: RedisServer) -> None:
    """Unacknowledged messages of the queue and of its delayed ones, of each process by itself."""
    redis_server.client.sadd("dramatiq:__acks__.one.q", "m1", "m2")
    redis_server.client.sadd("dramatiq:__acks__.one.q.DQ", "m3")
    redis_server.client.sadd("dramatiq:__acks__.two.other", "m4")

    async def scenario(conversation: Conversation) -> None:
        assert await conversation.held_by(KEY, ["one", "two"]) == {"one": 3, "two": 0}
        assert await conversation.held_by(KEY, []) == {}

    talk(redis_server.url(), scenario)


def test_a_broker_that_does_not_take_requests_is_an_error_in_good_time() -> None:
    """A frozen server, and a key of a wrong type: no answer is no permission."""
    server = RedisServer(valkey_binary())
    server.start()

    async def scenario(conversation: Conversation) -> None:
        server.client.set(DRAIN, "nonsense")
        with pytest.raises(NotAsked):
            await conversation.ask(KEY, ["pod-a:1"])
        assert await conversation.asked([KEY]) == {}
        server.client.delete(DRAIN)
        server.freeze()
        began = time.monotonic()
        with pytest.raises(NotAsked):
            await conversation.held_by(KEY, ["one"])
        assert await conversation.asked([KEY]) == {}
        assert time.monotonic() - began < 5
        server.thaw()
        await conversation.ask(KEY, ["pod-a:1"])
        assert await conversation.asked([KEY]) == {KEY: {"pod-a:1"}}

    try:
        talk(server.url(), scenario)
    finally:
        server.close()


def test_a_connection_ends_when_no_queue_names_its_address_any_more(redis_server: RedisServer) -> None:
    """A password that is rotated makes another address; the one before is left."""

    def known_by(database: int) -> dict[QueueKey, BrokerQueue]:
        address = BrokerAddress(redis_server.url(database))
        return {KEY: BrokerQueue(address, DramatiqQueue("dramatiq", "q"))}

    def databases() -> list[str]:
        clients = redis_server.client.client_list()
        return [each["db"] for each in clients if each["name"] == "astrid-operator-requests"]

    async def scenario(conversation: Conversation) -> None:
        for database in (1, 2):
            conversation.know(known_by(database))
            await conversation.ask(KEY, ["pod-a:1"])
        await wait_in_loop(lambda: databases() == ["2"], 5, "the first connection to end")

    talk(redis_server.url(), scenario)


def test_a_queue_whose_broker_is_not_known_cannot_be_asked() -> None:
    """Said by name, and tried again."""

    async def scenario() -> None:
        with pytest.raises(NotAsked, match="sky/q"):
            await Conversation().ask(KEY, ["pod-a:1"])

    asyncio.run(scenario())
