"""Waiting on a condition with a deadline: the only way in which these tests let time pass."""

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")


def wait_until(condition: Callable[[], T], timeout_s: float, what: str, *, every_s: float = 0.05) -> T:
    """Return the first truthy value of `condition`, or fail with `what` after `timeout_s` seconds."""
    deadline = time.monotonic() + timeout_s
    pause = threading.Event()
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            message = f"waited {timeout_s:g} s in vain: {what}"
            raise AssertionError(message)
        pause.wait(every_s)


async def wait_for_answer(
    ask: Callable[[], Awaitable[T | None]], timeout_s: float, what: str, *, every_s: float = 0.05
) -> T:
    """The same where asking takes a while: the first answer that is none of None, False and empty."""
    deadline = time.monotonic() + timeout_s
    while True:
        answer = await ask()
        if answer:
            return answer
        if time.monotonic() > deadline:
            message = f"waited {timeout_s:g} s in vain: {what}"
            raise AssertionError(message)
        await asyncio.sleep(every_s)


async def wait_in_loop(
    condition: Callable[[], T], timeout_s: float, what: str, *, every_s: float = 0.05
) -> T:
    """`wait_until` in an event loop that goes on meanwhile."""

    async def ask() -> T:
        return condition()

    return await wait_for_answer(ask, timeout_s, what, every_s=every_s)
