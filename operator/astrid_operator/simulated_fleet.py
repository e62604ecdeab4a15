"""The members of one fleet in a simulation: what pods are on a cluster, and processes on one machine.

Owns who is there, what each runs and since when it is idle, to the event. Members that leave are chosen by
the same function as everywhere (`retirement.leaving_order`). Has no clock and no heap of events: the time is
an argument, and what happens later is told to whoever asks (`simulation.py`).
"""

import random
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

from astrid_operator.fleet import FleetState, Member, MemberPhase
from astrid_operator.retirement import Candidate, leaving_order, next_step
from astrid_operator.scaling_values import MembersSeen

LeavingOrder = Callable[[Iterable[Candidate]], list[Candidate]]

#: Starts of members from which the time of the next one is foretold.
STARTS_KEPT = 20


@dataclass(slots=True, eq=False)
class SimulatedMember:
    """One worker: `slots` threads that each run one message at a time."""

    number: int
    asked_at: float
    ready_at: float
    phase: MemberPhase = MemberPhase.STARTING
    #: Messages that it runs, by their numbers.
    running: set[int] = field(default_factory=set)
    idle_since: float = 0.0
    #: When it took its newest message.
    took_at: float = 0.0
    #: Place in the list of those with a free thread; -1: it is not in it.
    place: int = -1
    #: It was asked to leave: it takes nothing more.
    is_asked: bool = False
    name: str = field(init=False)

    def __post_init__(self) -> None:
        self.name = f"member-{self.number:06d}"


@dataclass(frozen=True, slots=True)
class Change:
    """What a change of size set going: members that start, that leave, and those of these that still work."""

    started: Sequence[SimulatedMember] = ()
    gone: Sequence[SimulatedMember] = ()
    draining: Sequence[SimulatedMember] = ()


class SimulatedFleet:
    """One queue's members. Times are seconds of the simulation and never go back."""

    def __init__(
        self,
        slots: int,
        start_seconds: Callable[[], float],
        rng: random.Random,
        order: LeavingOrder = leaving_order,
    ) -> None:
        self.slots = slots
        self.desired = 0
        self.members: dict[int, SimulatedMember] = {}
        self.draining: dict[int, SimulatedMember] = {}
        #: Seconds for which members held their place, from asking for them until they were gone.
        self.member_seconds = 0.0
        #: Seconds for which members could have worked.
        self.ready_seconds = 0.0
        self.most = 0
        self._start_seconds = start_seconds
        self._rng = rng
        self._order = order
        self._free: list[SimulatedMember] = []
        self._starts: deque[float] = deque(maxlen=STARTS_KEPT)
        self._usual_start: float | None = None
        self._asked = 0
        self._has_asked = False
        self._ready = 0
        #: States as they were told, by their numbers: most come again and again.
        self._states: dict[tuple[int, int, int, int], FleetState] = {}

    # ---------------------------------------------------------------------------- what is seen

    def state(self) -> FleetState:
        """What the deciding code is told."""
        counts = (self.desired, len(self.members), self._ready, len(self.draining))
        known = self._states.get(counts)
        if known is None:
            known = self._states[counts] = _state(*counts)
        return known

    def state_with_members(self) -> FleetState:
        """The same with every member, as sharing wants to see them."""
        return replace(self.state(), members=tuple(map(_member, self.members.values())))

    def seen(self, now: float) -> MembersSeen:
        """What the members say of themselves."""
        free, stopped = self._free, 0
        if self._has_asked:
            free = [*free, *[each for each in self._asked_to_leave() if not each.running]]
            stopped = len(free) - len(self._free)
        idle = tuple([now - each.idle_since for each in free if not each.running])
        return MembersSeen(self._ready - len(idle), idle, stopped)

    def usual_start_seconds(self) -> float | None:
        """Three of four recent members started within this; None: none has started yet."""
        return self._usual_start

    def has_free_thread(self) -> bool:
        """A message would be taken at once."""
        return bool(self._free)

    def has_ready_member(self) -> bool:
        """Somebody is there who takes messages, delayed ones too."""
        return self._ready > 0

    # ---------------------------------------------------------------------------- sizes

    def scale_to(self, replicas: int, now: float) -> Change:
        """Ask for `replicas` members: new ones start, surplus ones leave, busy ones when they are done."""
        self.desired = replicas
        surplus = len(self.members) - replicas
        if surplus > 0:
            return self._retire(surplus, now)
        started = [self._start(now) for _ in range(-surplus)]
        self.most = max(self.most, len(self.members) + len(self.draining))
        return Change(started=started)

    def step_towards(self, replicas: int, now: float, spare: int) -> Change:
        """One step to fewer members as pods take it: ask, and let those go that hold nothing any more.

        With the size that there is already, who was asked stays. Who leaves holds its place until `kill`.
        """
        by_name = {each.name: each for each in self.members.values()}
        candidates = [_candidate(each, now) for each in by_name.values()]
        step = next_step(candidates, self.desired, replicas, whoever=True, spare=spare)
        for name in step.release:
            by_name[name].is_asked = False
            self._is_free_again(by_name[name])
        self._has_asked |= bool(step.ask)
        for name in step.ask:
            by_name[name].is_asked = True
            self._not_free(by_name[name])
        leaving = [by_name[name] for name in step.go]
        self.desired = step.replicas
        for member in leaving:
            self._leave(member, now, at_once=False)
        return Change(draining=leaving)

    def asks(self) -> bool:
        """Somebody is asked to leave."""
        return self._has_asked and bool(self._asked_to_leave())

    def _asked_to_leave(self) -> list[SimulatedMember]:
        return [each for each in self.members.values() if each.is_asked]

    def _start(self, now: float) -> SimulatedMember:
        self._asked += 1
        member = SimulatedMember(self._asked, now, now + self._start_seconds())
        self.members[member.number] = member
        return member

    def _retire(self, count: int, now: float) -> Change:
        by_name = {each.name: each for each in self.members.values()}
        order = self._order([_candidate(each, now) for each in by_name.values()])
        leaving = [by_name[each.name] for each in order[:count]]
        for member in leaving:
            self._leave(member, now)
        still_busy = [each for each in leaving if each.running]
        return Change(gone=[each for each in leaving if not each.running], draining=still_busy)

    def _leave(self, member: SimulatedMember, now: float, *, at_once: bool = True) -> None:
        del self.members[member.number]
        self._not_free(member)
        if member.phase is MemberPhase.READY:
            self._ready -= 1
        was_starting, member.phase = member.phase is MemberPhase.STARTING, MemberPhase.DRAINING
        if member.running or not at_once:
            self.draining[member.number] = member
        else:
            self._gone(member, now, was_ready=not was_starting)

    def _gone(self, member: SimulatedMember, now: float, *, was_ready: bool) -> None:
        member.phase = MemberPhase.FAILED
        self.draining.pop(member.number, None)
        self.member_seconds += now - member.asked_at
        if was_ready:
            self.ready_seconds += now - member.ready_at

    def close(self, now: float) -> None:
        """Count the time of those who are still there; the simulation is over."""
        for member in [*self.members.values(), *self.draining.values()]:
            self.member_seconds += now - member.asked_at
            self.ready_seconds += max(0.0, now - member.ready_at)

    # ---------------------------------------------------------------------------- work

    def ready(self, member: SimulatedMember, now: float) -> bool:
        """Its start is over; False where it was withdrawn meanwhile."""
        if member.phase is not MemberPhase.STARTING:
            return False
        member.phase, member.idle_since = MemberPhase.READY, now
        self._ready += 1
        self._starts.append(now - member.asked_at)
        self._usual_start = sorted(self._starts)[(3 * len(self._starts)) // 4]
        self._is_free(member)
        return True

    def take(self, message: int, now: float) -> SimulatedMember:
        """Any member with a free thread begins `message`: whoever asks the broker first, which is chance."""
        free = self._free
        member = free[int(self._rng.random() * len(free))] if len(free) > 1 else free[0]
        member.running.add(message)
        member.took_at = now
        if len(member.running) == self.slots:
            self._not_free(member)
        return member

    def finish(self, member: SimulatedMember, message: int, now: float) -> bool:
        """`member` ends `message`; whether it left with that."""
        running = member.running
        running.discard(message)
        if not running:
            member.idle_since = now
        if member.phase is MemberPhase.READY:
            self._is_free_again(member)
            return False
        if running:
            return False
        self._gone(member, now, was_ready=True)
        return True

    def kill(self, member: SimulatedMember, now: float) -> list[int]:
        """The grace of a leaving member is over: the messages that it ran; none if it has left."""
        if member.phase is not MemberPhase.DRAINING:
            return []
        interrupted = sorted(member.running)
        member.running.clear()
        self._gone(member, now, was_ready=True)
        return interrupted

    def _is_free_again(self, member: SimulatedMember) -> None:
        """It may take more, unless it may not."""
        if member.place < 0 and not member.is_asked and len(member.running) < self.slots:
            self._is_free(member)

    def _is_free(self, member: SimulatedMember) -> None:
        member.place = len(self._free)
        self._free.append(member)

    def _not_free(self, member: SimulatedMember) -> None:
        if member.place < 0:
            return
        last = self._free.pop()
        if last is not member:
            self._free[member.place] = last
            last.place = member.place
        member.place = -1


def _state(desired: int, current: int, ready: int, draining: int) -> FleetState:
    return FleetState(
        exists=True,
        desired=desired,
        current=current,
        ready=ready,
        starting=current - ready,
        draining=draining,
        updated=current,
    )


def _member(member: SimulatedMember) -> Member:
    is_ready = member.phase is MemberPhase.READY
    return Member(member.name, member.phase, member.ready_at if is_ready else member.asked_at)


def _candidate(member: SimulatedMember, now: float) -> Candidate:
    is_busy = bool(member.running)
    is_idle = not is_busy and member.phase is MemberPhase.READY
    return Candidate(
        member.name,
        member.phase,
        is_busy=is_busy,
        idle_seconds=now - member.idle_since if is_idle else None,
        is_asked=member.is_asked,
        is_quiet=member.is_asked and not is_busy,
        task_seconds=now - member.took_at if is_busy else None,
    )
