"""The rows of rules that ask for members, each with the numbers behind it.

Owns how much capacity the known demand justifies. Never says when a fleet may shrink (`scaling_holds.py`),
and knows no floor, ceiling or pause (`scaling.py`).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from astrid_operator.astrid_queue import AstridQueueSpec
from astrid_operator.fleet import FleetState
from astrid_operator.scaling_values import Demand, Reason, ScalingMemory

#: Two decisions lie about this far apart; what comes sooner than that is due now.
TICK_SECONDS = 1.0

#: Spare capacity beside a steady load, in square roots of that load (Halfin and Whitt's staffing rule).
SPARE_ROOTS = 1.0


@dataclass(frozen=True, slots=True)
class Wanted:
    """A size, the rule that asks for it, and why, in words that follow "N wanted: "."""

    replicas: int
    reason: Reason
    why: str

    @property
    def message(self) -> str:
        """The whole sentence."""
        return f"{self.replicas} wanted: {self.why}"


@dataclass(frozen=True, slots=True)
class Situation:
    """What every rule of Auto looks at; demand is known."""

    policy: AstridQueueSpec
    demand: Demand
    fleet: FleetState
    memory: ScalingMemory
    now: float

    def remembering(self, memory: ScalingMemory) -> "Situation":
        """The same with that memory."""
        return self if memory is self.memory else replace(self, memory=memory)

    @property
    def task_seconds(self) -> float | None:
        """Time of one task: measured, else expected, else None."""
        return self.demand.service_seconds or self.policy.scaling.expected_task_seconds

    @property
    def start_seconds(self) -> float:
        """Time until a new member is useful; 0 where it was not measured."""
        return self.demand.start_seconds or 0.0


def wanted_by_demand(it: Situation) -> Wanted:
    """What the demand alone justifies: the row that asks for most, within what is of use."""
    if it.demand.work == 0:
        return _by_delayed(it) or Wanted(0, Reason.IDLE, _nothing(it))
    asked = [wanted for row in GROWTH if (wanted := row(it)) is not None]
    most = max(asked, key=lambda wanted: wanted.replicas)
    slots_of_use = math.ceil(it.demand.work / it.policy.slots)
    return _worth_it(it, Wanted(max(1, min(most.replicas, slots_of_use)), most.reason, most.why))


def seconds(amount: float) -> str:
    """`amount` as a person reads it."""
    return f"{number(amount)} s"


def number(amount: float) -> str:
    """`amount` with two digits that mean something: 0.25, 6.1, 480."""
    if amount >= 10:
        return f"{amount:.0f}"
    return f"{amount:.1f}" if amount >= 1 else f"{amount:.2g}"


def messages(count: int) -> str:
    """`count` with its noun."""
    return "1 message" if count == 1 else f"{count} messages"


def _by_drain_time(it: Situation) -> Wanted | None:
    """All work should be done within `targetDrainSeconds`."""
    work, slots, target = it.demand.work, it.policy.slots, it.policy.scaling.target_drain_seconds
    if it.task_seconds is None:
        why = f"{messages(work)} ÷ {_threads(slots)}, one each while the task time is not known"
        return Wanted(math.ceil(work / slots), Reason.BACKLOG, why)
    why = f"{messages(work)} × {seconds(it.task_seconds)} ÷ {_threads(slots)} within {target} s"
    return Wanted(math.ceil(work * it.task_seconds / (slots * target)), Reason.BACKLOG, why)


def _by_arrival_rate(it: Situation) -> Wanted | None:
    """What arrives must be kept up with, with the square root of the load to spare."""
    rate = _arrivals_per_s(it)
    if rate is None or it.task_seconds is None:
        return None
    load = rate * it.task_seconds / it.policy.slots
    why = (
        f"{number(rate)} messages/s × {seconds(it.task_seconds)} ÷ {_threads(it.policy.slots)} "
        f"is the load of {number(load)}, and its square root to spare"
    )
    return Wanted(math.ceil(load + SPARE_ROOTS * math.sqrt(load)), Reason.ARRIVAL_RATE, why)


def _by_queue_age(it: Situation) -> Wanted | None:
    """A message that waits too long shows that the estimates are wrong: grow in proportion."""
    age, limit = it.demand.oldest_seconds, it.policy.scaling.max_queue_age_seconds
    if age is None or age <= limit or not it.fleet.ready:
        return None
    why = (
        f"the oldest message waits for {seconds(age)}, {limit} s are allowed, and {it.fleet.ready} are ready"
    )
    return Wanted(math.ceil(it.fleet.ready * age / limit), Reason.QUEUE_AGE, why)


GROWTH: tuple[Callable[[Situation], Wanted | None], ...] = (_by_drain_time, _by_arrival_rate, _by_queue_age)


def _by_delayed(it: Situation) -> Wanted | None:
    """Only a living worker moves a delayed message to its queue: one is needed in time, and worth keeping."""
    demand = it.demand
    if not demand.delayed:
        return None
    delayed = f"{messages(demand.delayed)} delayed"
    if demand.due is None:
        return Wanted(1, Reason.DELAYED, f"{delayed}, until when is not known")
    if demand.delayed_unread and it.fleet.desired:
        return Wanted(1, Reason.DELAYED, f"{delayed}, until when is still being read")
    if demand.next_due_seconds is None or demand.next_due_seconds > _delay_horizon(it):
        return None
    return Wanted(1, Reason.DELAYED, f"{delayed}, the next is due in {seconds(demand.next_due_seconds)}")


def _delay_horizon(it: Situation) -> float:
    """How soon a message must be due to be worth a member: staying a while is cheaper than coming back."""
    if it.fleet.desired:
        return 2 * (it.start_seconds + it.policy.scaling.idle_seconds)
    return it.start_seconds + TICK_SECONDS


def _worth_it(it: Situation, wanted: Wanted) -> Wanted:
    """No new members where those that are there will be done before a new one could help."""
    useful = min(it.fleet.desired, it.fleet.ready + it.fleet.starting)
    if wanted.replicas <= it.fleet.desired or not useful or it.task_seconds is None:
        return wanted
    done_in = it.demand.work * it.task_seconds / (it.policy.slots * useful)
    if done_in >= it.start_seconds + TICK_SECONDS:
        return wanted
    why = (
        f"those there are done in {seconds(done_in)}, and a new one starts in {seconds(it.start_seconds)}; "
        f"else {wanted.message}"
    )
    return Wanted(it.fleet.desired, Reason.NOT_WORTH_IT, why)


def _arrivals_per_s(it: Situation) -> float | None:
    fast, slow = it.demand.arrivals_per_s_fast, it.demand.arrivals_per_s_slow
    if it.now < it.memory.burst_until:
        return fast
    return slow if slow is not None else fast


def _nothing(it: Situation) -> str:
    if not it.demand.delayed:
        return "nothing waits and nothing runs"
    due = it.demand.next_due_seconds
    when = "none is due soon" if due is None else f"the next is due in {seconds(due)}"
    return f"nothing waits and nothing runs; {messages(it.demand.delayed)} delayed, {when}"


def _threads(slots: int) -> str:
    return "1 thread" if slots == 1 else f"{slots} threads"
