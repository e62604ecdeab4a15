"""Which members of a fleet leave, and by which steps.

Owns the order and the steps, and nothing else: how many leave is decided elsewhere, and whoever has the
members carries the steps out. Pure. The same holds wherever members can be chosen one by one.

    unscheduled -> starting -> longest idle; never a busy one
    ask (it fetches nothing more) -> it holds nothing -> mark -> a smaller size, by exactly as many

Level-triggered: each step follows from what is there now, so that one that was broken off is made up for at
the next look, and who was asked and is needed after all is told so.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from operator import attrgetter

from astrid_operator.fleet import MemberPhase
from astrid_operator.values import value


@value
class Candidate:
    """One member that might leave."""

    name: str
    phase: MemberPhase
    #: Runs an older manifest than the present one.
    is_outdated: bool = False
    #: Whether it runs a message, as one may that spoke and is silent; None: it never said.
    is_busy: bool | None = None
    #: Seconds since it last had one; None: it has one, or does not say.
    idle_seconds: float | None = None
    #: It was asked to leave.
    is_asked: bool = False
    #: It was asked, fetches nothing more and holds no message: it can go.
    is_quiet: bool = False
    #: Whoever ends members knows that this one goes first.
    is_marked: bool = False
    #: Seconds for which it has run the one that it took last; None: it has none, or does not say.
    task_seconds: float | None = None
    #: It has not said a word yet where the others do, and whoever ends members has it for ready.
    is_silent: bool = False


@dataclass(frozen=True, slots=True)
class Step:
    """What to do now for a smaller fleet; names of members."""

    #: Size to ask for: never more than before, and lower only by those that can go.
    replicas: int
    #: Ask them to leave: they finish what they run, and take nothing more.
    ask: tuple[str, ...] = ()
    #: They were asked and stay after all.
    release: tuple[str, ...] = ()
    #: They can go now: whoever ends members must take these.
    go: tuple[str, ...] = ()
    #: They were marked and stay after all.
    unmark: tuple[str, ...] = ()


#: Seconds of a task for each member that is asked beyond those that must leave. From when enough have stopped
#: until the others know that they stay, two to three seconds pass; hardly one of these should stop in them.
SECONDS_OF_TASK_PER_SPARE = 4.0

#: The less a member is worth, the sooner it goes.
_WORTH = {
    MemberPhase.FAILED: 0,
    MemberPhase.UNSCHEDULED: 1,
    MemberPhase.STARTING: 2,
    MemberPhase.READY: 3,
    MemberPhase.DRAINING: 4,
}

_BUSY = {False: 0, None: 1, True: 2}


def leaving_order(members: Iterable[Candidate]) -> list[Candidate]:
    """Those that do no work yet, then the longest idle, then those that do not say, and the busy ones last.

    Of the busy ones, those that began their newest task first, as they will be done soonest.
    Who was chosen before goes before who was not, so that the choice stays; among equals an outdated one goes
    first, and the newest name before an older one.
    """
    by_name = sorted(members, key=_name, reverse=True)
    return sorted(by_name, key=_reluctance)


def next_step(
    members: Sequence[Candidate], desired: int, target: int, *, whoever: bool = False, spare: int = 0
) -> Step:
    """The next step from `desired` members towards `target`; where that is no fewer, only what takes back.

    Members that are gone on purpose already are passed over. A busy member, or one that does not say, is
    chosen only if `whoever` says that so many must leave whatever they do: then the busy ones finish first,
    and who does not say is taken as it is. Nobody knows which of the busy ones will be done first: up to
    `spare` more are asked than must leave, and those that are done first go; the others then stay.
    """
    there = [each for each in members if each.phase not in (MemberPhase.DRAINING, MemberPhase.FAILED)]
    goal = min(target, desired)
    willing = [each for each in there if whoever or _does_no_work(each)]
    order, surplus = leaving_order(willing), max(0, len(there) - goal)
    chosen = order[:surplus]
    if any(each.is_busy for each in chosen):
        chosen += [each for each in order[surplus:] if each.is_busy][:spare]
    staying = {each.name for each in there} - {each.name for each in chosen}
    go = [each for each in chosen[:surplus] if can_go(each)]
    return Step(
        replicas=min(desired, max(goal, len(there) - len(go))),
        ask=_names(each for each in chosen if not each.is_asked and _can_be_asked(each)),
        release=_names(each for each in there if each.is_asked and each.name in staying),
        go=_names(go),
        unmark=_names(each for each in there if each.is_marked and each.name in staying),
    )


def spare(task_seconds: float | None, slots: int) -> int:
    """How many more may be asked than must leave, where a task takes so long; None: not known.

    None of members of several threads: those that are done early wait for the last one, all of them in vain.
    """
    return 0 if task_seconds is None or slots > 1 else int(task_seconds / SECONDS_OF_TASK_PER_SPARE)


def to_leave(
    members: Iterable[Candidate], desired: int, *, may_surge: bool, already_leaving: bool
) -> set[str]:
    """Names of those who leave now: the surplus, and in a roll-out an outdated one whose place is taken.

    `may_surge`: there is room for one more, so a successor is ready before an outdated one goes. Without, one
    goes first, and the next when its successor is ready.
    """
    order = leaving_order(members)
    outdated = [each for each in order if each.is_outdated]
    surplus = len(order) - desired
    if not outdated or desired == 0:
        return {each.name for each in order[: max(0, surplus)]}
    successors = [each for each in order if not each.is_outdated]
    successors_ready = all(each.phase is MemberPhase.READY for each in successors)
    if surplus > 0:
        count = surplus if successors_ready else surplus - 1
    else:
        goes_first = surplus == 0 and successors_ready and not may_surge and not already_leaving
        count = 1 if goes_first else 0
    return {each.name for each in [*outdated, *successors][:count]}


def can_go(member: Candidate) -> bool:
    """It may be ended now: nobody can lose by it what could have been asked for."""
    return member.is_quiet or not _can_be_asked(member)


def _can_be_asked(member: Candidate) -> bool:
    """It fetches messages, and reads what it is told."""
    return member.phase is MemberPhase.READY and member.is_busy is not None


def _does_no_work(member: Candidate) -> bool:
    return member.phase is not MemberPhase.READY or member.is_busy is False


_name = attrgetter("name")


def _names(members: Iterable[Candidate]) -> tuple[str, ...]:
    return tuple(each.name for each in members)


def _reluctance(member: Candidate) -> tuple[int, bool, bool, int, bool, bool, float, float]:
    return (
        _WORTH[member.phase],
        member.is_silent,
        not member.is_marked,
        _BUSY[member.is_busy],
        not member.is_asked,
        not member.is_outdated,
        -(member.idle_seconds or 0.0),
        -(member.task_seconds or 0.0),
    )
