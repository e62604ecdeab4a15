"""Results of tasks in Redis, waited for as long as a caller wants.

Owns one thing: a client that gives up on a silent server after seconds would also give up on a result that
takes longer, so a long wait is made of short ones. How results are kept stays Dramatiq's, so that any client
of its own reads them.
"""

import time
from typing import Any

import dramatiq
from dramatiq.results import ResultTimeout
from dramatiq.results.backends import RedisBackend

#: Longest wait that is asked of the server at one time, in milliseconds; less than any client's patience.
LONGEST_WAIT_MS = 2_000


class PatientResults(RedisBackend):  # type: ignore[misc]
    """Dramatiq's results in Redis; `get_result` waits for its whole timeout."""

    def get_result(
        self, message: "dramatiq.Message[Any]", *, block: bool = False, timeout: int | None = None
    ) -> Any:
        """As Dramatiq's: the result; `timeout` is in milliseconds, 10 s unless given.

        Raises ResultMissing, ResultTimeout or ResultFailure.
        """
        if not block or timeout is None or timeout <= LONGEST_WAIT_MS:
            return super().get_result(message, block=block, timeout=timeout)
        ends_at = time.monotonic() + timeout / 1000
        while (left_ms := int((ends_at - time.monotonic()) * 1000)) > LONGEST_WAIT_MS:
            try:
                return super().get_result(message, block=True, timeout=LONGEST_WAIT_MS)
            except ResultTimeout:
                continue
        return super().get_result(message, block=True, timeout=max(1000, left_ms))
