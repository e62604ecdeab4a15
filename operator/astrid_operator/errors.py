"""What can go wrong in the operator, one screen.

Owns the exceptions that cross a module's border; numbers and names travel as fields, the message is one
sentence. Never holds an address with a password, and knows no client: others' errors are translated where
they occur.
"""

import json
from typing import Any

#: Most of a value that a sentence repeats.
_SHOWN_CHARACTERS = 80


class OperatorError(Exception):
    """Root of all that the operator raises on purpose."""


class PersonMustAct(OperatorError):  # noqa: N818 - named for what it asks
    """Trying again does not help; `reason` is the word that the condition `Stalled` shows."""

    reason = "Stalled"


class InvalidSpec(PersonMustAct):
    """A field of an AstridQueue holds nonsense. The last good fleet is left as it is.

    `expected` goes on from the value: "must be from 1 to 10000".
    """

    reason = "InvalidSpec"

    def __init__(self, path: str, value: Any, expected: str) -> None:
        super().__init__(f"{path} is {_shown(value)}: {expected}")
        self.path = path
        self.value = value
        self.expected = expected


class QueueTaken(PersonMustAct):
    """An older AstridQueue serves the same Dramatiq queue on the same broker."""

    reason = "QueueTaken"

    def __init__(self, queue_name: str, owner: str) -> None:
        super().__init__(f"Queue {queue_name!r} is served by the older AstridQueue {owner}")
        self.queue_name = queue_name
        self.owner = owner


class BrokerNotConfigured(PersonMustAct):
    """The broker that an AstridQueue names is not mounted into the operator."""

    reason = "BrokerNotConfigured"


class FleetRefused(PersonMustAct):
    """The API server refuses what the spec asks for; the sentence is the server's own."""

    reason = "InvalidSpec"


class QuotaExceeded(PersonMustAct):
    """A quota forbids what the spec asks for; the sentence is the server's own."""

    reason = "QuotaExceeded"


class NameTaken(PersonMustAct):
    """An object of the AstridQueue's name exists already and belongs to somebody else."""

    reason = "NameTaken"


class NotAllowed(PersonMustAct):
    """The operator's own role lacks a right."""

    reason = "NotAllowed"


class TryAgain(OperatorError):  # noqa: N818 - named for what it asks
    """The world was not ready for a write; the same write may succeed later.

    `after_seconds` is the least time to wait that the other side asked for, None where it did not;
    `longest_seconds` the longest that it makes sense to wait, however often it failed.
    """

    longest_seconds = 30.0

    def __init__(self, message: str, after_seconds: float | None = None) -> None:
        super().__init__(message)
        self.after_seconds = after_seconds


class Conflict(TryAgain):
    """Somebody else wrote in between (409)."""


class StillLeaving(TryAgain):
    """What was deleted is not gone yet: its namespace ends, or an older owner's object is being collected."""


class ApiBusy(TryAgain):
    """The API server answered 429 or a 5xx."""


class ApiUnreachable(TryAgain):
    """The API server did not answer at all."""

    longest_seconds = 5.0


class NotLeading(TryAgain):
    """The Lease was not renewed in time: until it is, nothing may be written, and nobody is asked."""

    longest_seconds = 5.0


class NotAsked(TryAgain):
    """A broker did not take what its workers are asked."""


class ObjectGone(OperatorError):  # noqa: N818 - named for what happened
    """The object is not there (404): nothing to write to."""


class NoCluster(OperatorError):  # noqa: N818 - named for what is missing
    """Neither the environment nor a file says which cluster to serve."""


class WatchesEnded(OperatorError):  # noqa: N818 - named for what happened
    """The informer gave up: without it nothing more would be learned."""


class LeadershipLost(OperatorError):  # noqa: N818 - named for what happened
    """Another process holds the Lease, or this one is not fit to: it must end."""


def _shown(value: Any) -> str:
    """`value` as a person would write it in YAML, in at most one line."""
    if value is None:
        return "not given"
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}…"
