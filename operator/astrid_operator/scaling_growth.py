"""The rows of rules that ask for members, each with the numbers behind it.

Owns how much capacity the known demand justifies. Never says when a fleet may shrink (`scaling_holds.py`),
and knows no floor, ceiling or pause (`scaling.py`).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

from astrid_operator.astrid_queue import AstridQueueSpec
from astrid_operator.fleet import FleetState
from astrid_operator.scaling_memory import is_idle
from astrid_operator.scaling_values import Demand, Reason, ScalingMemory
from astrid_operator.values import value

#: Two decisions lie about this far apart; what comes sooner than that is due now.
TICK_SECONDS = 1.0

#: Time until a new member is useful where none was measured yet, for one thing alone: to be there in time for
#: a delayed message. A pod whose image is on its node takes about this long.
UNMEASURED_START_SECONDS = 4.0

#: Seconds for which fewer members must have been enough before idle ones leave a queue that has work.
SURPLUS_SECONDS = 30.0

#: Spare capacity beside a steady load, in square roots of that load (Halfin and Whitt's staffing rule).
SPARE_ROOTS = 1.0


@value
class Wanted:
    """A size, the rule that asks for it, and what writes why, in words that follow "N wanted: "."""

    replicas: int
    reason: Reason
    why: Callable[[], str]

    @property
    def message(self) -> str:
        """The whole sentence."""
        return f"{self.replicas} wanted: {self.why()}"


@dataclass(slots=True)
class Situation:
    """What every rule of Auto looks at; demand is known. Only its memory changes while a decision is made."""

    policy: AstridQueueSpec
    demand: Demand
    fleet: FleetState
    memory: ScalingMemory
    now: float
    #: Tasks that one member runs at a time.
    slots: int = field(init=False)
    #: Messages to do.
    work: int = field(init=False)
    #: Time of one task: measured, else expected, else None.
    task_seconds: float | None = field(init=False)
    #: Time until a new member is useful; 0 where it was not measured.
    start_seconds: float = field(init=False)
    #: Seconds that a member must have been idle before it may leave. A device is kept at least as long as it
    #: takes to get one.
    idle_seconds: float = field(init=False)
    #: For how long fewer members must have been enough before what is beyond them may leave.
    surplus_seconds: float = field(init=False)
    #: Nothing waits, runs or is due, and no member says that it is busy.
    is_idle: bool = field(init=False)

    def __post_init__(self) -> None:
        policy, demand = self.policy, self.demand
        self.slots = policy.slots
        self.work = demand.work
        self.task_seconds = demand.service_seconds or policy.scaling.expected_task_seconds
        self.start_seconds = demand.start_seconds or 0.0
        self.idle_seconds = policy.scaling.idle_seconds
        if policy.gpu.count:
            self.idle_seconds = max(self.idle_seconds, self.start_seconds)
        self.surplus_seconds = max(SURPLUS_SECONDS, 2 * self.start_seconds, self.idle_seconds)
        self.is_idle = is_idle(demand)

    @property
    def wake_seconds(self) -> float:
        """How long before its time a delayed message needs a member to be asked for."""
        measured = self.demand.start_seconds
        return (UNMEASURED_START_SECONDS if measured is None else measured) + TICK_SECONDS

    @property
    def slots_of_use(self) -> int:
        """Members beyond this would have nothing to do."""
        return math.ceil(self.work / self.slots)


def wanted_by_demand(it: Situation) -> Wanted:
    """What the demand alone justifies: the row that asks for most, within what is of use."""
    if it.work == 0:
        return _by_delayed(it) or Wanted(0, Reason.IDLE, lambda: _nothing(it))
    most = _by_drain_time(it)
    for row in FURTHER_GROWTH:
        wanted = row(it)
        if wanted is not None and wanted.replicas > most.replicas:
            most = wanted
    of_use = it.slots_of_use
    if not 1 <= most.replicas <= of_use:
        most = Wanted(of_use if most.replicas > 1 else 1, most.reason, most.why)
    return _worth_it(it, most)


def older_at(it: Situation, wanted: Wanted) -> float | None:
    """When the age of the oldest message alone would ask for more than `wanted`; None: never.

    `wanted` is what is asked for now, floor and ceiling included.
    """
    age, limit, ready = it.demand.oldest_seconds, it.policy.scaling.max_queue_age_seconds, it.fleet.ready
    if age is None or not ready or wanted.reason is Reason.NOT_WORTH_IT:
        return None
    if wanted.replicas >= min(it.slots_of_use, it.policy.scaling.max_replicas):
        return None
    # at the limit itself nothing is asked for yet: it must be passed
    return max(it.now - age + limit * max(1.0, wanted.replicas / ready), math.nextafter(it.now, math.inf))


def lull_seconds(it: Situation) -> float:
    """Until one more message comes, by the faster of the rates that are known, or is due; 0: one waits."""
    demand = it.demand
    fast, slow = demand.arrivals_per_s_fast, demand.arrivals_per_s_slow
    if demand.ready or demand.due or slow is None:
        return 0.0
    rate = max(fast or 0.0, slow)
    return min(1 / rate if rate else math.inf, math.inf if (due := demand.next_due_seconds) is None else due)


def drain_members(work: int, task_seconds: float, slots: int, target_seconds: float) -> int:
    """Members of `slots` threads that finish so many messages within that time."""
    return math.ceil(work * task_seconds / (slots * target_seconds))


def rate_members(per_s: float, task_seconds: float, slots: int) -> int:
    """Members of `slots` threads that keep up with so many messages per second, with some to spare."""
    load = per_s * task_seconds / slots
    return math.ceil(load + SPARE_ROOTS * math.sqrt(load))


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


def _by_drain_time(it: Situation) -> Wanted:
    """All work should be done within `targetDrainSeconds`."""
    each = it.task_seconds
    if each is None:
        return Wanted(it.slots_of_use, Reason.BACKLOG, lambda: _one_each(it))
    members = drain_members(it.work, each, it.slots, it.policy.scaling.target_drain_seconds)
    return Wanted(members, Reason.BACKLOG, lambda: _drained_in_time(it, each))


def _one_each(it: Situation) -> str:
    return f"{messages(it.work)} ÷ {_threads(it.slots)}, one each while the task time is not known"


def _drained_in_time(it: Situation, each: float) -> str:
    within = it.policy.scaling.target_drain_seconds
    return f"{messages(it.work)} × {seconds(each)} ÷ {_threads(it.slots)} within {within} s"


def _by_arrival_rate(it: Situation) -> Wanted | None:
    """What arrives must be kept up with, with the square root of the load to spare."""
    rate, each = _arrivals_per_s(it), it.task_seconds
    if rate is None or each is None:
        return None
    return Wanted(rate_members(rate, each, it.slots), Reason.ARRIVAL_RATE, lambda: _kept_up(it, rate, each))


def _kept_up(it: Situation, rate: float, each: float) -> str:
    load = rate * each / it.slots
    return (
        f"{number(rate)} messages/s × {seconds(each)} ÷ {_threads(it.slots)} "
        f"is the load of {number(load)}, and its square root to spare"
    )


def _by_queue_age(it: Situation) -> Wanted | None:
    """A message that waits too long shows that the estimates are wrong: grow in proportion."""
    age, limit, ready = it.demand.oldest_seconds, it.policy.scaling.max_queue_age_seconds, it.fleet.ready
    if age is None or age <= limit or not ready:
        return None
    return Wanted(math.ceil(ready * age / limit), Reason.QUEUE_AGE, lambda: _too_old(it, age))


def _too_old(it: Situation, age: float) -> str:
    limit, ready = it.policy.scaling.max_queue_age_seconds, it.fleet.ready
    return f"the oldest message waits for {seconds(age)}, {limit} s are allowed, and {ready} are ready"


#: Rows beside the drain time; of equals, the earlier one is named.
FURTHER_GROWTH: tuple[Callable[[Situation], Wanted | None], ...] = (_by_arrival_rate, _by_queue_age)


def _by_delayed(it: Situation) -> Wanted | None:
    """Only a living worker moves a delayed message to its queue: one is needed in time, and worth keeping."""
    demand, due_in = it.demand, it.demand.next_due_seconds
    if not demand.delayed:
        return None
    delayed = messages(demand.delayed)
    if demand.due is None:
        return Wanted(1, Reason.DELAYED, lambda: f"{delayed} delayed, until when is not known")
    if demand.delayed_unread and it.fleet.desired:
        return Wanted(1, Reason.DELAYED, lambda: f"{delayed} delayed, until when is still being read")
    if due_in is None or due_in > _delay_horizon(it):
        return None
    return Wanted(1, Reason.DELAYED, lambda: f"{delayed} delayed, the next is due in {seconds(due_in)}")


def _delay_horizon(it: Situation) -> float:
    """How soon a message must be due to be worth a member: staying a while is cheaper than coming back.

    Who would be asked for again at once stays anyhow, also where idle members may not.
    """
    if it.fleet.desired:
        return max(it.wake_seconds, 2 * (it.start_seconds + it.idle_seconds))
    return it.wake_seconds


def _worth_it(it: Situation, wanted: Wanted) -> Wanted:
    """No new members where those that are there will be done before a new one could help."""
    fleet, each = it.fleet, it.task_seconds
    if wanted.replicas <= fleet.desired or each is None:
        return wanted
    useful = min(fleet.desired, fleet.ready + fleet.starting)
    if not useful:
        return wanted
    done_in = it.work * each / (it.slots * useful)
    if done_in >= it.start_seconds + TICK_SECONDS:
        return wanted
    return Wanted(fleet.desired, Reason.NOT_WORTH_IT, lambda: _done_before(it, done_in, wanted))


def _done_before(it: Situation, done_in: float, wanted: Wanted) -> str:
    return (
        f"those there are done in {seconds(done_in)}, and a new one starts in "
        f"{seconds(it.start_seconds)}; else {wanted.message}"
    )


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
