"""What is remembered of the members of a local fleet, and what can be told from it.

Owns plain values: a member from its start to its end, and a fleet as it was last asked to be. Starts, asks
and ends nothing.
"""

import asyncio
from dataclasses import dataclass, field

from astrid_operator.astrid_queue import QueueKey
from astrid_operator.fleet import MemberPhase
from astrid_operator.local_environment import Template
from astrid_operator.member_process import MemberProcess
from astrid_operator.presence import MemberSaid
from astrid_operator.retirement import Candidate

#: Seconds after which a member of a foreign application counts as ready: it cannot say so. Ours do.
FOREIGN_READY_SECONDS = 3.0


@dataclass
class LocalMember:
    """One process, from its start until it is gone. Times are monotonic seconds."""

    process: MemberProcess
    #: Wakes the fleet at its end; held here, since the event loop itself would forget it.
    watch: asyncio.Task[int]
    template: Template
    started_at: float
    phase: MemberPhase = MemberPhase.STARTING
    since: float = 0.0
    said: MemberSaid | None = None
    killed_at: float | None = None

    @property
    def name(self) -> str:
        return self.process.name

    @property
    def is_leaving(self) -> bool:
        return self.phase is MemberPhase.DRAINING

    def becomes(self, phase: MemberPhase, now: float) -> None:
        if phase is not self.phase:
            self.phase, self.since = phase, now


@dataclass
class LocalFleet:
    """The members of one queue, and what they shall be."""

    key: QueueKey
    template: Template
    is_ours: bool
    slots_each: int
    desired: int = 0
    members: list[LocalMember] = field(default_factory=list)
    started: int = 0
    failures: int = 0
    next_start_at: float = 0.0
    unhealthy: str = ""
    is_removed: bool = False

    @property
    def staying(self) -> list[LocalMember]:
        return [each for each in self.members if not each.is_leaving]

    @property
    def outdated(self) -> list[LocalMember]:
        return [each for each in self.staying if each.template != self.template]


def candidate_of(member: LocalMember, template: Template) -> Candidate:
    """The member as one that might leave; `template` is what members are made by now."""
    said = member.said
    return Candidate(
        name=member.name,
        phase=member.phase,
        is_outdated=member.template != template,
        is_busy=None if said is None else said.busy > 0,
        idle_seconds=None if said is None else said.idle_seconds,
        task_seconds=None if said is None else said.task_seconds,
    )


def is_up(fleet: LocalFleet, member: LocalMember, now: float) -> bool:
    """It works, as far as can be told."""
    unsaid = not fleet.is_ours and now - member.started_at > FOREIGN_READY_SECONDS
    return member.said is not None or unsaid


def exit_words(code: int | None) -> str:
    """How a process ended."""
    return f"signal {-code}" if code is not None and code < 0 else f"exit status {code}"
