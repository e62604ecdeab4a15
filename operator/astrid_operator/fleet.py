"""What a fleet of workers is to the deciding loop: two protocols and the frozen values that cross them.

Owns the words `Fleet`, `Reporter`, `FleetState` and `Member`. Knows no client, no clock and no policy:
pods behind a Deployment, processes on one machine and a simulation are all the same to whoever decides.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    from astrid_operator.astrid_queue import AstridQueue, QueueKey

EventType = Literal["Normal", "Warning"]


class MemberPhase(StrEnum):
    """Where one worker pod or process stands in its life."""

    UNSCHEDULED = "unscheduled"  #: asked for; no node or slot has taken it yet
    STARTING = "starting"  #: has a place; does not fetch messages yet
    READY = "ready"  #: fetches messages
    DRAINING = "draining"  #: was asked to leave; finishes what it runs and still holds its place
    FAILED = "failed"  #: ended or cannot start; `Member.message` says why


@dataclass(frozen=True, slots=True)
class Member:
    """One worker pod or process of a fleet."""

    name: str
    phase: MemberPhase
    #: Monotonic seconds (the observer's clock) since when it is in this phase.
    since: float
    #: What is wrong with it, in a few words (`ImagePullBackOff: …`); empty when nothing is.
    message: str = ""
    #: Monotonic seconds since when it has a place; None: not told.
    placed_since: float | None = None
    #: It is taken for ready by whoever ends members, and has not said a word yet where the others do: since
    #: when it fetches, if it does, is not known.
    is_silent: bool = False


@dataclass(frozen=True, slots=True)
class FleetState:
    """One fleet as it was last seen. The default value is a fleet that does not exist."""

    #: The workload object is there and fully created; a half-created one is not there yet.
    exists: bool = False
    #: Members that were asked for: what `Fleet.scale_to` last set, or a person did.
    desired: int = 0
    #: Members there are, whatever their phase, those that are draining left out.
    current: int = 0
    #: Members that fetch messages.
    ready: int = 0
    #: Members that have a place but do not fetch messages yet: capacity already bought.
    starting: int = 0
    #: Members for which no place was found yet.
    unscheduled: int = 0
    #: Members that were asked to leave and still hold their place.
    draining: int = 0
    #: Members that run the present manifest; below `current` while a change rolls out.
    updated: int = 0
    #: All that was last ensured has been taken up by every member.
    settled: bool = True
    #: Monotonic seconds since when the oldest unscheduled member waits for a place; None: none waits.
    unschedulable_since: float | None = None
    #: Why members that are asked for cannot be made (the quota's own sentence); empty: they can.
    quota_exceeded: str = ""
    #: Why members that were made do not become ready (the first of their messages); empty: nothing known.
    unhealthy: str = ""
    #: Label selector of the members as one string, for `/scale`.
    selector: str = ""
    members: tuple[Member, ...] = ()
    #: It was there before this operator began, whole and ours, and was not compared with its AstridQueue yet.
    is_inherited: bool = False
    #: Members were asked to leave, or what is written on them is out of date: there is something to `tend`.
    needs_care: bool = False


class Fleet(Protocol):
    """The workers of all queues, made and sized. Every method may be repeated without harm.

    Failures that the loop should meet are the classes of `astrid_operator.errors`; anything else is a bug.
    """

    async def observe(self, key: QueueKey) -> FleetState:
        """What is known of the fleet now, without asking anybody: `FleetState()` where there is none."""

    async def ensure(self, queue: AstridQueue, replicas: int = 0) -> None:
        """Make the fleet be as `queue` describes it, all but its size.

        `replicas` is the size that a fleet is created with; one that exists keeps its own. Nothing is written
        where nothing differs.
        """

    async def scale_to(self, key: QueueKey, replicas: int) -> None:
        """Set the size of the fleet to `replicas` in one write, whoever has to leave for it."""

    async def tend(self, queue: AstridQueue, replicas: int, *, whoever: bool, spare: int = 0) -> int | None:
        """Take one step towards a fleet of at most `replicas` that no busy member has to leave for.

        The size that was set by it, or None. Called again and again while the fleet is larger, or while it
        needs care; whoever was asked to leave and is needed after all is told so. `whoever`: so many must
        leave also if they are busy, and then they finish first. `spare`: so many more may be asked, of whom
        those that are done first go.
        """

    async def remove(self, key: QueueKey) -> None:
        """Forget the fleet of `key`, whose AstridQueue is gone, and end what nobody else ends."""


class Subject(Protocol):
    """Of whom is reported: an `AstridQueue`, or one whose spec cannot be parsed."""

    @property
    def key(self) -> QueueKey: ...

    @property
    def uid(self) -> str: ...

    @property
    def generation(self) -> int: ...


class Reporter(Protocol):
    """Where a person reads what was seen and decided."""

    async def status(self, queue: Subject, status: Mapping[str, Any]) -> None:
        """Replace the status of `queue` by `status` (wire form)."""

    async def event(self, queue: Subject, kind: EventType, reason: str, message: str) -> None:
        """Tell of a transition once: `reason` in CamelCase, `message` a sentence."""
