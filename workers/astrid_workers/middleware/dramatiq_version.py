"""Refuses, by being imported, a Dramatiq whose insides are not those that the middleware reaches into.

An older one would start all the same, and what a worker gives back would be in nobody's hands.
"""

import dramatiq

#: The first with such insides, and the first that may have others.
SINCE, BEFORE = (2, 2), (3,)


def check(version: str) -> None:
    """Raise RuntimeError where Dramatiq `version` is not known to serve."""
    numbers = tuple(int(part) for part in version.split(".")[:2])
    if not SINCE <= numbers < BEFORE:
        raise RuntimeError(f"the fleet's middleware needs Dramatiq 2.2 or later, before 3; this is {version}")


check(dramatiq.__version__)
