"""What worker processes say of themselves in Redis: the other end of the workers' presence middleware.

Owns how much of it is believed. Never connects; a record that is stale
or makes no sense is as good as none. Knowing nothing of a member is not knowing that it is idle.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

#: Seconds without a beat after which a process counts as gone; it beats every two.
STALE_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class ProcessSaid:
    """One process of a member."""

    #: What it is called where it is asked to leave: its member, a colon, and what is its own.
    name: str
    #: What Dramatiq calls it; empty: it does not say.
    broker_id: str
    #: It does not fetch any more.
    draining: bool


@dataclass(frozen=True, slots=True)
class MemberSaid:
    """What the processes of one member say of themselves, all together."""

    #: Messages that they run.
    busy: int
    #: Seconds since the last of them had one; None while one is busy.
    idle_seconds: float | None
    #: One of them does not fetch any more.
    draining: bool
    processes: tuple[ProcessSaid, ...] = field(default=(), compare=False)
    #: Seconds for which they have run the message that they took last; None: they run none, or do not say.
    task_seconds: float | None = field(default=None, compare=False)
    #: Seconds since the first of them began to fetch; None: they do not say.
    up_seconds: float | None = field(default=None, compare=False)

    @property
    def has_stopped(self) -> bool:
        """None of them fetches any more, and none runs a message."""
        return not self.busy and all(each.draining for each in self.processes)


def member_of(process: str) -> str:
    """The member that a process is of, by what it is called where it is asked to leave."""
    return process.rpartition(":")[0]


def members_said(records: Mapping[bytes, bytes], now: float) -> dict[str, MemberSaid]:
    """Member (its `POD_NAME`) → what is said of it; `now` is the server's time in seconds."""
    by_member: dict[str, list[MemberSaid]] = {}
    for name, text in records.items():
        found = _record(name, text, now)
        if found is not None:
            by_member.setdefault(found[0], []).append(found[1])
    return {member: _together(said) for member, said in by_member.items()}


def _record(name: bytes, text: bytes, now: float) -> tuple[str, MemberSaid] | None:
    """One process; None for a record that is stale or no record at all, whatever it holds instead."""
    try:
        record: dict[str, Any] = json.loads(text)
        member, beat, busy = str(record["pod"]), float(record["beat"]), int(record["busy"])
        since = record.get("idle_since")
        idle_seconds = None if busy or since is None else max(0.0, now - float(since))
        task_since = record.get("task_since") if busy else None
        task_seconds = None if task_since is None else max(0.0, now - float(task_since))
        started = record.get("started")
        up_seconds = None if started is None else max(0.0, now - float(started))
        draining = bool(record.get("draining"))
        process = ProcessSaid(name.decode(), str(record.get("broker_id") or ""), draining)
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
        return None
    # A beat from the future is stale too, and so is one that is no number: both comparisons are false then.
    is_fresh = -STALE_SECONDS <= now - beat <= STALE_SECONDS
    said = MemberSaid(max(0, busy), idle_seconds, draining, (process,), task_seconds, up_seconds)
    return (member, said) if is_fresh else None


def _together(said: list[MemberSaid]) -> MemberSaid:
    idle = [each.idle_seconds for each in said]
    known = [seconds for seconds in idle if seconds is not None]
    return MemberSaid(
        busy=sum(each.busy for each in said),
        idle_seconds=min(known) if len(known) == len(idle) else None,
        draining=any(each.draining for each in said),
        task_seconds=min((each.task_seconds for each in said if each.task_seconds is not None), default=None),
        up_seconds=max((each.up_seconds for each in said if each.up_seconds is not None), default=None),
        processes=tuple(process for each in said for process in each.processes),
    )
