"""Sizes go first; nothing else waits for ever, and nobody is left waiting when a size fails."""

import asyncio

import pytest

from astrid_operator import write_lanes
from astrid_operator.write_lanes import OTHERS_AMONG_SIZES, SIZES_AT_A_TIME, WRITES_AT_A_TIME, WriteLanes
from support.waiting import wait_in_loop


class Server:
    """Answers when it is told to, and notes in which order it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.answers = asyncio.Event()

    async def take(self, what: str) -> None:
        self.asked.append(what)
        await self.answers.wait()


async def settle() -> None:
    """Let every task run as far as it can."""
    for _ in range(20):
        await asyncio.sleep(0)  # a go of the loop, not time


def test_what_is_told_waits_until_every_size_is_written() -> None:
    """A status between two sizes costs a fleet its place: all sizes of a burst go ahead, however many."""

    async def burst() -> list[str]:
        lanes, server = WriteLanes(), Server()

        async def one(number: int) -> None:
            async with lanes.size():
                await server.take(f"size {number}")
            async with lanes.other():
                await server.take(f"status {number}")

        count = 2 * SIZES_AT_A_TIME
        tasks = [asyncio.create_task(one(number)) for number in range(count)]
        await settle()
        assert len(server.asked) == SIZES_AT_A_TIME
        server.answers.set()
        await asyncio.gather(*tasks)
        return server.asked

    asked = asyncio.run(burst())
    kinds = [each.split()[0] for each in asked]

    assert kinds == ["size"] * (2 * SIZES_AT_A_TIME) + ["status"] * (2 * SIZES_AT_A_TIME)


def test_without_sizes_the_others_have_a_limit_of_their_own() -> None:
    """A small API server is not flooded."""

    async def flood() -> int:
        lanes, server = WriteLanes(), Server()

        async def one() -> None:
            async with lanes.other():
                await server.take("status")

        tasks = [asyncio.create_task(one()) for _ in range(3 * WRITES_AT_A_TIME)]
        await settle()
        at_once = len(server.asked)
        server.answers.set()
        await asyncio.gather(*tasks)
        return at_once

    assert asyncio.run(flood()) == WRITES_AT_A_TIME


def test_a_size_that_hangs_holds_others_back_for_a_while_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fleets that change without a pause must not keep new ones from being made."""
    monkeypatch.setattr(write_lanes, "LONGEST_YIELD_SECONDS", 0.05)

    async def hang() -> list[str]:
        lanes, server = WriteLanes(), Server()

        async def size() -> None:
            async with lanes.size():
                await server.take("size")

        async def other() -> None:
            async with lanes.other():
                server.asked.append("manifest")

        hanging = asyncio.create_task(size())
        await settle()
        await asyncio.wait_for(other(), 5)
        server.answers.set()
        await hanging
        return server.asked

    assert asyncio.run(hang()) == ["size", "manifest"]


def test_where_sizes_take_long_few_others_go_among_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand sizes share the API server with two statuses at a time and not with sixteen."""
    monkeypatch.setattr(write_lanes, "LONGEST_YIELD_SECONDS", 0.02)

    async def crowd() -> tuple[list[str], list[str]]:
        lanes, sizes, others = WriteLanes(), Server(), Server()

        async def size() -> None:
            async with lanes.size():
                await sizes.take("size")

        async def other() -> None:
            async with lanes.other():
                await others.take("status")

        tasks = [asyncio.create_task(each()) for each in [size, *[other] * WRITES_AT_A_TIME]]
        await wait_in_loop(
            lambda: len(others.asked) >= OTHERS_AMONG_SIZES, 5, "the first others to go", every_s=0.01
        )
        await asyncio.sleep(0.1)  # five times as long as others wait: who could come has come
        among = list(others.asked)
        others.answers.set()
        sizes.answers.set()
        await asyncio.gather(*tasks)
        return among, others.asked

    among, at_last = asyncio.run(crowd())
    assert len(among) == OTHERS_AMONG_SIZES
    assert len(at_last) == WRITES_AT_A_TIME


def test_a_size_that_fails_or_is_given_up_holds_nobody_back() -> None:
    """A fleet that is gone while its size is written must not be waited for."""

    async def fail() -> str:
        lanes = WriteLanes()

        async def refused() -> None:
            async with lanes.size():
                raise ValueError("refused")

        async def hangs() -> None:
            async with lanes.size():
                await asyncio.Event().wait()

        with pytest.raises(ValueError, match="refused"):
            await refused()
        hanging = asyncio.create_task(hangs())
        await settle()
        hanging.cancel()
        async with asyncio.timeout(1), lanes.other():
            return "told"

    assert asyncio.run(fail()) == "told"
