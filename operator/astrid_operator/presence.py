"""What worker processes say of themselves in Redis: the other end of the workers' presence middleware.

Owns the name of the key and how much of what it holds is believed. Never writes; a record that is stale or
makes no sense is as good as none. Knowing nothing of a member is not knowing that it is idle.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from astrid_operator.dramatiq_keys import DramatiqQueue

#: Seconds without a beat after which a process counts as gone; it beats every two.
STALE_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class MemberSaid:
    """What the processes of one member say of themselves, all together."""

    #: Messages that they run.
    busy: int
    #: Seconds since the last of them had one; None while one is busy.
    idle_seconds: float | None
    #: One of them does not fetch any more.
    draining: bool


def presence_key(queue: DramatiqQueue) -> str:
    """Hash: process → JSON of what it says of itself."""
    return f"astrid:{queue.namespace}:presence:{queue.name}"


def members_said(records: Mapping[bytes, bytes], now: float) -> dict[str, MemberSaid]:
    """Member (its `POD_NAME`) → what is said of it; `now` is the server's time in seconds."""
    by_member: dict[str, list[MemberSaid]] = {}
    for text in records.values():
        found = _record(text, now)
        if found is not None:
            by_member.setdefault(found[0], []).append(found[1])
    return {member: _together(said) for member, said in by_member.items()}


def _record(text: bytes, now: float) -> tuple[str, MemberSaid] | None:
    """One process; None for a record that is stale or no record at all."""
    try:
        record: dict[str, Any] = json.loads(text)
        member, beat, busy = str(record["pod"]), float(record["beat"]), int(record["busy"])
        since = record.get("idle_since")
        idle_seconds = None if busy or since is None else max(0.0, now - float(since))
        draining = bool(record.get("draining"))
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
    return None if now - beat > STALE_SECONDS else (member, MemberSaid(busy, idle_seconds, draining))


def _together(said: list[MemberSaid]) -> MemberSaid:
    idle = [each.idle_seconds for each in said]
    known = [seconds for seconds in idle if seconds is not None]
    return MemberSaid(
        busy=sum(each.busy for each in said),
        idle_seconds=min(known) if len(known) == len(idle) else None,
        draining=any(each.draining for each in said),
    )
