"""One AstridQueue: what was gathered of it, what is decided, and how that is carried out and told.

Knows `Fleet` and `Reporter` and no client, no broker and no clock of its own. Decisions are those of
`scaling` and `conditions`; here is only their order, and what a failure of the world means for the next try.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from astrid_operator.astrid_queue import AstridQueue
from astrid_operator.conditions import Trouble
from astrid_operator.errors import ObjectGone, PersonMustAct, TryAgain
from astrid_operator.fleet import Fleet, FleetState, Reporter, Subject
from astrid_operator.retirement import spare
from astrid_operator.scaling import DemandReading, Reason, ScalingDecision
from astrid_operator.status import desired_status
from astrid_operator.transitions import events_between

Status = Mapping[str, Any]


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
class Outcome:
    """What became of carrying out a decision."""

    #: A person must act; None: not that anybody knows.
    stalled: Trouble | None = None
    #: Why the same is to be tried again; empty: it went well.
    retrying: str = ""
    #: Least pause before that, in seconds.
    after_seconds: float | None = None
    #: The size that was set; None: it was left as it was.
    size: int | None = None

    @property
    def went_well(self) -> bool:
        """Nothing is left to be tried again."""
        return self.stalled is None and not self.retrying

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
    def is_empty(self) -> bool:
        """Nothing is to be written but, perhaps, the status."""
        return not self.shape and self.scale_to is None and self.tend_to is None


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
    """Do what `todo` says. Never raises what the world is to blame for: that is the outcome."""
    size = None
    try:
        if todo.grows_first:
            size = await _resize(fleet, queue, todo)
        if todo.shape:
            await fleet.ensure(queue, todo.decision.replicas if todo.decision else 0)
        if not todo.grows_first:
            size = await _resize(fleet, queue, todo)
    except PersonMustAct as error:
        return Outcome(stalled=Trouble(error.reason, str(error)), size=size)
    except TryAgain as error:
        return Outcome(retrying=str(error), after_seconds=error.after_seconds, size=size)
    except ObjectGone as error:
        return Outcome(retrying=f"It vanished while it was written to: {error}", size=size)
    return Outcome(size=size)


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
