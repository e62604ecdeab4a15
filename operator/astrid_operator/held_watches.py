"""When the watches wait: what they tell of a burst is read once most of its sizes are written.

Owns for how long, and how seldom. Each size has a dozen events after it, of the Deployment, its pods and its
disruption budget; to read them among the sizes takes the time in which the next ones would be sent. Nothing
is lost by it: the API server keeps what is not read yet. Knows no watch and no API server.
"""

import time
from collections.abc import Callable

#: Sizes that are still to be written from which the watches wait: as many as are under way at a time.
CROWD = 16
#: Longest that they wait, in seconds: a pause or a deletion that somebody asks for is seen later by no more.
LONGEST_WAIT_SECONDS = 2.0
#: Seconds of reading between two waits, so that waits never add up, whatever has come in the meantime.
LEAST_READING_SECONDS = 10.0
#: How often it is looked whether enough is written, in seconds.
LOOK_SECONDS = 0.02


def is_to_wait(sizes_wanted: int, waited_seconds: float, read_seconds: float) -> bool:
    """Whether the watches wait (on), for `waited_seconds` so far and after `read_seconds` of reading."""
    is_crowded, is_patient = sizes_wanted > CROWD, waited_seconds < LONGEST_WAIT_SECONDS
    return is_crowded and is_patient and read_seconds >= LEAST_READING_SECONDS


class HeldWatches:
    """Holds the thread that reads the watches; `sizes_wanted` is asked from there."""

    def __init__(
        self,
        sizes_wanted: Callable[[], int],
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._sizes_wanted = sizes_wanted
        self._clock = clock
        self._sleep = sleep
        #: Since when they read.
        self._reading_since = float("-inf")

    def wait(self) -> None:
        """Return when what comes next is to be read: the thread that calls this reads nothing meanwhile."""
        began = self._clock()
        read, waited = began - self._reading_since, 0.0
        while is_to_wait(self._sizes_wanted(), waited, read):
            self._sleep(LOOK_SECONDS)
            waited = self._clock() - began
        if waited:
            self._reading_since = self._clock()
