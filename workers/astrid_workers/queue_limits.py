"""Retries, back-off and time limit of a task: those of the queue that its message came through.

Owns what an actor's options say while a message runs. One actor may serve two queues at once, each in threads
of its own: what its options say is told apart by thread. Never reads a setting itself, and never touches a
message, whose own options go before an actor's.
"""

import threading
from collections.abc import Callable, Mapping
from typing import Any

import dramatiq
from dramatiq.middleware import Middleware

#: The limits of a queue by its name, under Dramatiq's names of actor options.
LimitsOf = Callable[[str], Mapping[str, int]]


class _Running(threading.local):
    """Limits of the queue whose message the present thread runs; none between messages."""

    limits: Mapping[str, int] = {}


class _OptionsByThread(dict[str, Any]):
    """An actor's options, of which `get` answers the limits of what the present thread runs."""

    def __init__(self, options: Mapping[str, Any], running: _Running) -> None:
        super().__init__(options)
        self._running = running

    def get(self, key: str, default: Any = None) -> Any:
        """As the running message's queue says it; else as the actor was declared."""
        found = self._running.limits.get(key)
        return super().get(key, default) if found is None else found


class QueueLimits(Middleware):
    """Gives an actor the limits of the queue, anew for every message; goes before who asks for them."""

    def __init__(self, limits_of: LimitsOf) -> None:
        self._limits_of = limits_of
        self._running = _Running()

    def after_declare_actor(self, _broker: dramatiq.Broker, actor: dramatiq.Actor[..., Any]) -> None:
        declared = {**actor.options, **self._limits_of(actor.queue_name)}
        actor.options = _OptionsByThread(declared, self._running)

    def before_process_message(self, _broker: dramatiq.Broker, message: dramatiq.MessageProxy) -> None:
        self._running.limits = self._limits_of(message.queue_name)

    def after_process_message(self, _broker: Any, _message: dramatiq.MessageProxy, **_: Any) -> None:  # type: ignore[override]
        self._running.limits = {}

    def after_skip_message(self, _broker: dramatiq.Broker, _message: dramatiq.MessageProxy) -> None:
        self._running.limits = {}
