"""One AstridQueue: what was gathered of it, what is decided, and how that is carried out and told.

Knows `Fleet` and `Reporter` and no client, no broker and no clock of its own. Decisions are those of
`scaling` and `conditions`; here is only their order, and what a failure of the world means for the next try.
"""

from collections.abc import Awaitable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from astrid_operator.astrid_queue import AstridQueue
from astrid_operator.back_off import LONGEST_RETRY_SECONDS
from astrid_operator.conditions import Trouble
from astrid_operator.errors import ObjectGone, PersonMustAct, TryAgain
from astrid_operator.fleet import Fleet, FleetState, Reporter, Subject
from astrid_operator.retirement import spare
from astrid_operator.scaling import DemandReading, Reason, ScalingDecision
from astrid_operator.status import desired_status
from astrid_operator.transitions import events_between

Status = Mapping[str, Any]

T = TypeVar("T")

#: Least seconds between two tries of what only a person can mend; an edit is tried at once.
STALLED_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Gathered:
    """All that a decision and a status are made of."""

    queue: AstridQueue
    fleet: FleetState
    reading: DemandReading
    #: Status as it stands with whoever reads it; None: there is none yet.
    previous: Status | None
    #: Why a person must act, before anything was tried; None: nobody must.
    trouble: Trouble | None = None
    #: Its fleet is left as it is: another AstridQueue serves the queue.
    is_hands_off: bool = False


@dataclass(frozen=True, slots=True)
class Failure:
    """Why something was not written, and bounds of the pause before the next try, in seconds."""

    message: str
    #: A person must act; None: trying again may help.
    stalled: Trouble | None = None
    least_seconds: float | None = None
    longest_seconds: float = LONGEST_RETRY_SECONDS


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of carrying out a decision: of the workload's shape, and of its size, each by itself.

    None of a failure: it went well, or was not tried.
    """

    shape: Failure | None = None
    sizing: Failure | None = None
    #: The size that was set; None: it was left as it was.
    size: int | None = None

    @property
    def failure(self) -> Failure | None:
        """The one that a person must act on first."""
        failed = [each for each in (self.shape, self.sizing) if each is not None]
        return min(failed, key=lambda each: each.stalled is None, default=None)

    @property
    def stalled(self) -> Trouble | None:
        """A person must act; None: not that anybody knows."""
        return None if self.failure is None else self.failure.stalled

    @property
    def retrying(self) -> str:
        """Why the same is to be tried again; empty: it went well, or a person must act."""
        return "" if self.failure is None or self.stalled else self.failure.message

    @property
    def went_well(self) -> bool:
        """Nothing is left to be tried again."""
        return self.failure is None

    def after(self, before: "Outcome", *, shaped: bool) -> "Outcome":
        """What is known now; unless it was `shaped`, what was wrong with the shape `before` still is."""
        return self if shaped else replace(self, shape=before.shape)

    @property
    def word(self) -> str:
        """For counting."""
        if self.went_well:
            return "done"
        return "stalled" if self.stalled else "retry"


#: Why a fleet is smaller for which no busy member leaves: nobody but demand asks for it.
_ONLY_THE_IDLE = (Reason.SURPLUS,)


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do now for one AstridQueue."""

    decision: ScalingDecision | None
    #: Compare the workload with what it should be, and create it where it is missing.
    shape: bool = False
    #: Members to ask for; None: leave the size alone.
    scale_to: int | None = None
    #: Ask for them before the workload is compared: an operator that takes over has as many to compare as
    #: there are queues, and work waits.
    grows_first: bool = False
    #: Members that may stay: look after them, and let those go that are too many; None: nobody needs care.
    tend_to: int | None = None

    @property
    def grows(self) -> bool:
        """More members are asked for."""
        return self.scale_to is not None

    @property
    def is_sized(self) -> bool:
        """Members are asked for, or to leave."""
        return self.scale_to is not None or self.tend_to is not None

    @property
    def is_empty(self) -> bool:
        """Nothing is to be written but, perhaps, the status."""
        return not self.shape and not self.is_sized


def plan(gathered: Gathered, decision: ScalingDecision | None, *, shape: bool) -> Plan:
    """What `decision` needs: nothing where the fleet has its size and nobody asked to look at its shape."""
    shape = shape or gathered.queue.deletion_requested_at is not None
    if gathered.is_hands_off:
        return Plan(decision, shape and gathered.queue.deletion_requested_at is not None)
    if decision is None or not gathered.fleet.exists:
        return Plan(decision, shape)
    change = decision.replicas - gathered.fleet.desired
    tends = change < 0 or (change == 0 and gathered.fleet.needs_care)
    return Plan(
        decision,
        shape,
        scale_to=decision.replicas if change > 0 else None,
        grows_first=shape and change > 0 and gathered.fleet.is_inherited,
        tend_to=decision.replicas if tends else None,
    )


async def carry_out(fleet: Fleet, queue: AstridQueue, todo: Plan) -> Outcome:
    """Do what `todo` says. Never raises what the world is to blame for: that is the outcome.

    A fleet whose new shape was not written is sized all the same: what runs is its last good one.
    """
    size: int | None = None
    shape: Failure | None = None
    sizing: Failure | None = None
    if todo.grows_first:
        size, sizing = await _tried(_resize(fleet, queue, todo))
    if todo.shape:
        _, shape = await _tried(fleet.ensure(queue, todo.decision.replicas if todo.decision else 0))
    if not todo.grows_first:
        size, sizing = await _tried(_resize(fleet, queue, todo))
    return Outcome(shape, sizing, size)


async def _tried(work: Awaitable[T]) -> tuple[T | None, Failure | None]:
    """What `work` gave, and why it did not."""
    try:
        return await work, None
    except PersonMustAct as error:
        return None, Failure(str(error), Trouble(error.reason, str(error)), STALLED_SECONDS)
    except TryAgain as error:
        return None, Failure(str(error), None, error.after_seconds, error.longest_seconds)
    except ObjectGone as error:
        return None, Failure(f"It vanished while it was written to: {error}")


async def _resize(fleet: Fleet, queue: AstridQueue, todo: Plan) -> int | None:
    """The size that was set, or None."""
    if todo.scale_to is not None and (await fleet.observe(queue.key)).desired != todo.scale_to:
        await fleet.scale_to(queue.key, todo.scale_to)
        return todo.scale_to
    if todo.tend_to is not None and todo.decision is not None:
        return await fleet.tend(
            queue,
            todo.tend_to,
            whoever=todo.decision.reason not in _ONLY_THE_IDLE,
            spare=spare(todo.decision.task_seconds, queue.spec.slots),
        )
    return None


def status_of(gathered: Gathered, decision: ScalingDecision | None, outcome: Outcome, now_iso: str) -> Status:
    """The status that tells what was gathered, decided and done."""
    return desired_status(
        gathered.queue,
        gathered.fleet,
        gathered.reading,
        decision,
        gathered.previous,
        now_iso,
        stalled=gathered.trouble or outcome.stalled,
        retrying=outcome.retrying,
    )


async def report(reporter: Reporter, subject: Subject, previous: Status | None, new: Status) -> None:
    """Write `new`, and an event for each transition that led to it; raises TryAgain where that failed."""
    await reporter.status(subject, new)
    for event in events_between(previous, new):
        await reporter.event(subject, event.kind, event.reason, event.message)
