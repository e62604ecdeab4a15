"""Who of one fleet has said its first word in Redis, and what the fleet is if nobody is ready before that.

Owns when a member begins to fetch: a pod without a probe is ready for the API server before its worker has
imported anything. Only where members speak; elsewhere the word of the API server stands. When a word was
heard first is told on the operator's own clock. Pure: no clock, no client.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from astrid_operator.fleet import FleetState, Member, MemberPhase
from astrid_operator.presence import MemberSaid

#: Seconds that a pod that is ready may need until it says something: it is still starting.
FIRST_WORD_SECONDS = 60.0
#: Seconds of silence of all that are ready after which a fleet is taken for one that does not speak: longer
#: than imports take.
NO_WORD_SECONDS = 300.0

#: One life of a pod's worker: the pod's uid, and how often its container was restarted.
Life = tuple[str, int]


@dataclass(frozen=True, slots=True)
class _Word:
    """What is remembered of a member that has spoken."""

    life: Life
    #: When it was heard first.
    at: float
    #: Its processes by name, those that were heard last before others.
    processes: tuple[str, ...] = ()


class FirstWords:
    """One fleet's; times are monotonic seconds."""

    def __init__(self, *, are_expected: bool) -> None:
        """`are_expected`: its members speak unless it turns out that they do not."""
        self._are_expected = are_expected
        self._words: dict[str, _Word] = {}
        #: Since when it was heard without a break what members say; None: it cannot be now.
        self._heard_since: float | None = None
        self._was_ever_heard = False

    def heard(
        self, said: Mapping[str, MemberSaid], lives: Mapping[str, Life], now: float, processes: int = 1
    ) -> None:
        """Take in what was said, be it by members or by others; `lives` are those of all members there are.

        Each has so many `processes`; one that is silent is remembered as long as no other takes its place.
        Who speaks and did not a moment ago says its first word. Who speaks already when hearing begins is
        believed for how long it has fetched: seconds between two times of the server's, so that no other
        clock matters.
        """
        before, self._words = self._words, {}
        for name, life in lives.items():
            known, heard = before.get(name), said.get(name)
            if known is not None and known.life != life:
                known = None
            if known is None and heard is not None:
                up_seconds = 0.0 if self._heard_since is not None else heard.up_seconds or 0.0
                known = _Word(life, now - up_seconds)
            if known is not None and heard is not None:
                known = replace(known, processes=_newest(known.processes, heard, processes))
            if known is not None:
                self._words[name] = known
        self._are_expected |= bool(self._words)
        self._was_ever_heard = True
        self._heard_since = now if self._heard_since is None else self._heard_since

    def deaf(self) -> None:
        """Nobody can be heard now: who is silent may speak."""
        self._heard_since = None

    def has_spoken(self, name: str) -> bool:
        """The member said something in its present life."""
        return name in self._words

    def anyone_has_spoken(self) -> bool:
        """A member that is there did."""
        return bool(self._words)

    def processes(self, name: str) -> tuple[str, ...]:
        """What the processes of a member are called, those that are silent now too; empty: it never spoke."""
        word = self._words.get(name)
        return () if word is None else word.processes

    def as_heard(self, state: FleetState, now: float) -> FleetState:
        """`state` where who is ready and said nothing yet is still starting, for `FIRST_WORD_SECONDS`.

        Unchanged where members do not speak, or where it was never to be had what they say.
        """
        self._mind_silence(state, now)
        if not (self._are_expected and self._was_ever_heard):
            return state
        members = tuple(
            self._as_heard(each, now) if each.phase is MemberPhase.READY else each for each in state.members
        )
        unheard = sum(each.is_silent and each.phase is MemberPhase.STARTING for each in members)
        return replace(state, members=members, ready=state.ready - unheard, starting=state.starting + unheard)

    def _mind_silence(self, state: FleetState, now: float) -> None:
        """Members do not speak where all had time to and none did, while they could have been heard."""
        ready = [each for each in state.members if each.phase is MemberPhase.READY]
        if self._words or not ready or self._heard_since is None:
            return
        quiet_since = max(self._heard_since, *(each.since for each in ready))
        if now - quiet_since > NO_WORD_SECONDS:
            self._are_expected = False

    def _as_heard(self, member: Member, now: float) -> Member:
        word = self._words.get(member.name)
        if word is not None:
            return replace(member, since=word.at)
        if now - member.since > FIRST_WORD_SECONDS:
            return replace(member, is_silent=True)
        since = member.since if member.placed_since is None else member.placed_since
        return replace(member, phase=MemberPhase.STARTING, since=since, is_silent=True)


def _newest(known: tuple[str, ...], heard: MemberSaid, count: int) -> tuple[str, ...]:
    speaking = tuple(each.name for each in heard.processes)
    silent = [name for name in known if name not in speaking]
    return (*speaking, *silent[: max(0, count - len(speaking))])
