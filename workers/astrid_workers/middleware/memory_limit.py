"""A process that has grown too large is replaced, between two tasks.

Owns the comparison of resident memory with a limit after each task. It ends the process the way SIGTERM
does; whoever runs worker processes starts another. Never breaks a task off.
"""

import logging
import os
import signal
from typing import Any

import dramatiq
from dramatiq.middleware import Middleware

from .own_process import rss_bytes

#: Bytes of one MB.
MB = 1_000_000

_log = logging.getLogger(__name__)


class MemoryLimit(Middleware):
    """Asks this process to leave once its resident memory is above `limit_mb` after a task."""

    def __init__(self, limit_mb: int) -> None:
        self._limit_bytes = limit_mb * MB
        self._leaving = False

    def after_ack(self, _broker: Any, message: dramatiq.MessageProxy) -> None:
        self._compare(message)

    def after_nack(self, _broker: Any, message: dramatiq.MessageProxy) -> None:
        self._compare(message)

    def _compare(self, message: dramatiq.MessageProxy) -> None:
        resident = rss_bytes()
        if self._leaving or resident is None or resident <= self._limit_bytes:
            return
        self._leaving = True
        _log.warning(
            "Resident memory is %d MB after %s, above its limit of %d MB: it leaves, to be replaced",
            resident // MB,
            message.actor_name,
            self._limit_bytes // MB,
        )
        os.kill(os.getpid(), signal.SIGTERM)
