"""The pods of each fleet as members: what they said, who was asked to leave, and what is written on them.

Owns what is remembered of pods from tick to tick, and how pods and presence become candidates and hints. Asks
nobody and writes nothing (`pod_retirement.py` does); what matters is found again after a restart: requests to
leave in Redis, marks on the pods.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from astrid_operator.astrid_queue import QueueKey
from astrid_operator.desired import CONTAINER
from astrid_operator.first_words import FIRST_WORD_SECONDS, FirstWords, Life
from astrid_operator.fleet import FleetState, Member, MemberPhase
from astrid_operator.kinds import Kind
from astrid_operator.node_hints import Work, changes, hints, is_left_alone, is_marked
from astrid_operator.presence import MemberSaid, member_of
from astrid_operator.retirement import Candidate
from astrid_operator.scaling_values import MembersSeen
from astrid_operator.seen import Seen
from astrid_operator.spec_schema import OUR_APP


@dataclass(slots=True)
class _Memory:
    words: FirstWords
    #: What members say of themselves, and which processes are asked to leave.
    said: Mapping[str, MemberSaid] = field(default_factory=dict)
    asked: frozenset[str] = frozenset()
    #: Since when each pod is busy without a break, and was asked to leave.
    busy_since: dict[str, float] = field(default_factory=dict)
    asked_since: dict[str, float] = field(default_factory=dict)


class PodMembers:
    """What is known of the members of every fleet beyond what the API server says."""

    def __init__(self, seen: Seen, clock: Callable[[], float]) -> None:
        self._seen = seen
        self._clock = clock
        self._memories: dict[QueueKey, _Memory] = {}

    def heard(self, key: QueueKey, said: Mapping[str, MemberSaid] | None) -> None:
        """Take in what members said; None: nobody could be heard, and only who ever spoke is still known."""
        memory = self._memory(key)
        if said is None:
            memory.words.deaf()
            self._memories[key] = _Memory(memory.words)
            return
        memory.said = said
        lives = {pod["metadata"]["name"]: _life(pod) for pod in self._seen.pods(key)}
        memory.words.heard(said, lives, self._clock(), self._processes(key))
        busy = (name for name, each in said.items() if each.busy)
        memory.busy_since = _since(memory.busy_since, busy, self._clock())
        self.heard_asked(key, memory.asked)

    def heard_asked(self, key: QueueKey, processes: frozenset[str]) -> None:
        """Take in which processes are asked to leave."""
        memory = self._memory(key)
        memory.asked = processes
        memory.asked_since = _since(memory.asked_since, map(member_of, processes), self._clock())

    def asks(self, key: QueueKey) -> bool:
        """Somebody of the queue may have been asked to leave."""
        memory = self._memories.get(key)
        if memory is None:
            return False
        return bool(memory.asked) or any(each.draining for each in memory.said.values())

    def forget(self, key: QueueKey) -> None:
        """Nothing is known of `key`."""
        self._memories.pop(key, None)

    def as_heard(self, key: QueueKey, state: FleetState) -> FleetState:
        """`state` where members that speak are ready from their first word on."""
        memory = self._memories.get(key)
        return state if memory is None else memory.words.as_heard(state, self._clock())

    def speaks(self, key: QueueKey) -> bool:
        """A pod of the fleet says something of itself, or did: members can be asked to leave.

        Workers that somebody started by hand speak in the same place, and are none of ours.
        """
        memory = self._memories.get(key)
        return memory is not None and memory.words.anyone_has_spoken()

    def seen(self, key: QueueKey, members: Iterable[Member], running: int) -> MembersSeen | None:
        """What the ready ones do; None where none of them speaks.

        Who is silent counts as busy as long as any message is held by somebody, unless it has only begun and
        never spoke.
        """
        ready = [each for each in members if each.phase is MemberPhase.READY]
        said = {each.name: found for each in ready if (found := self._said(key, each.name)) is not None}
        if ready and not said:
            return None
        now = self._clock()
        silent = [
            each
            for each in ready
            if each.name not in said
            and (now - each.since > FIRST_WORD_SECONDS or self._has_spoken(key, each.name))
        ]
        idle = tuple(each.idle_seconds for each in said.values() if each.idle_seconds is not None)
        busy = len(said) - len(idle) + (len(silent) if running else 0)
        return MembersSeen(busy, idle, sum(name in said for name in self.stopped(key)))

    def candidates(self, key: QueueKey, members: Iterable[Member], quiet: Collection[str]) -> list[Candidate]:
        """Everyone who might leave; `quiet`: those who hold nothing more."""
        asked = self.asked(key)
        return [
            Candidate(
                name=each.name,
                phase=each.phase,
                is_busy=self._is_busy(key, each, said := self._said(key, each.name)),
                idle_seconds=None if said is None else said.idle_seconds,
                task_seconds=None if said is None else said.task_seconds,
                is_asked=each.name in asked,
                is_quiet=each.name in quiet,
                is_marked=is_marked(self._annotations(key, each.name)),
                is_silent=each.is_silent,
            )
            for each in members
        ]

    def asks_anyone(self, key: QueueKey) -> bool:
        """A process of the queue is asked to leave, be it gone or not."""
        memory = self._memories.get(key)
        return memory is not None and bool(memory.asked)

    def marked(self, key: QueueKey) -> set[str]:
        """Pods that are to go before others."""
        pods = self._seen.pods(key)
        return {pod["metadata"]["name"] for pod in pods if is_marked(_annotations(pod))}

    def asked(self, key: QueueKey) -> Mapping[str, float]:
        """Members that were asked to leave, and since when that is known."""
        memory = self._memories.get(key)
        return {} if memory is None else memory.asked_since

    def stopped(self, key: QueueKey) -> dict[str, tuple[str, ...]]:
        """Members that were asked and say that they have stopped → their processes by Dramatiq's names."""
        found = {}
        for name in self.asked(key):
            said = self._said(key, name)
            if said is not None and said.has_stopped and all(each.broker_id for each in said.processes):
                found[name] = tuple(each.broker_id for each in said.processes)
        return found

    def processes(self, key: QueueKey, names: Iterable[str]) -> tuple[str, ...]:
        """What the processes of members are called where they are asked to leave, the silent ones too."""
        memory, chosen = self._memories.get(key), set(names)
        if memory is None:
            return ()
        known = [process for name in sorted(chosen) for process in memory.words.processes(name)]
        asked = [process for process in sorted(memory.asked) if member_of(process) in chosen]
        return tuple(dict.fromkeys(known + asked))

    def strays(self, key: QueueKey) -> frozenset[str]:
        """Processes that are asked to leave and are gone: their pod is, or others run in their place.

        One that is only silent may work, and would fetch again if the request were taken back.
        """
        memory = self._memories.get(key)
        if memory is None:
            return frozenset()
        speaking = {process.name for each in memory.said.values() for process in each.processes}
        return frozenset(name for name in memory.asked - speaking if self._is_gone(key, name))

    def hints(
        self, key: QueueKey, state: FleetState, leaving: Collection[str]
    ) -> dict[str, dict[str, str | None]]:
        """Pod → what to change of its annotations; only pods that the API server has for ready.

        Of others it ends those first that are not, whatever is written on them.
        """
        found = {}
        for each in state.members:
            if each.phase is MemberPhase.READY or each.is_silent:
                annotations, work = self._annotations(key, each.name), self._work(key, each.name)
                wanted = hints(annotations, work, leaves=each.name in leaving, rolls=not state.settled)
                found[each.name] = changes(annotations, wanted)
        return {name: change for name, change in found.items() if change}

    def left_alone(self, key: QueueKey) -> bool:
        """Some pod carries the word that it is not to be disturbed."""
        return any(is_left_alone(_annotations(pod)) for pod in self._seen.pods(key) if not _is_leaving(pod))

    def _work(self, key: QueueKey, name: str) -> Work:
        memory, said = self._memories.get(key), self._said(key, name)
        if memory is None or said is None:
            return Work()
        since = memory.busy_since.get(name)
        return Work(None if since is None else self._clock() - since, said.idle_seconds)

    def _said(self, key: QueueKey, name: str) -> MemberSaid | None:
        """What a member says, if all of its processes do."""
        memory = self._memories.get(key)
        said = memory.said.get(name) if memory is not None else None
        return said if said is not None and len(said.processes) >= self._processes(key) else None

    def _is_busy(self, key: QueueKey, member: Member, said: MemberSaid | None) -> bool | None:
        """Whether it runs a message; None: it never said. Who has spoken and is silent may run one."""
        if said is not None:
            return said.busy > 0
        is_ready = member.phase is MemberPhase.READY
        return True if is_ready and self._has_spoken(key, member.name) else None

    def _has_spoken(self, key: QueueKey, name: str) -> bool:
        """It did to this operator, or to the one before that asked it to leave."""
        memory = self._memories.get(key)
        return memory is not None and (memory.words.has_spoken(name) or name in memory.asked_since)

    def _is_gone(self, key: QueueKey, process: str) -> bool:
        """A process that does not speak is no more."""
        name = member_of(process)
        return self._seen.pod(key, name) is None or self._said(key, name) is not None

    def _memory(self, key: QueueKey) -> _Memory:
        if key not in self._memories:
            is_ours = self._spec(key).get("app", OUR_APP) == OUR_APP
            self._memories[key] = _Memory(FirstWords(are_expected=is_ours))
        return self._memories[key]

    def _processes(self, key: QueueKey) -> int:
        return int(self._spec(key).get("processes") or 1)

    def _spec(self, key: QueueKey) -> Mapping[str, Any]:
        queue = self._seen.get(Kind.ASTRID_QUEUE, key) or {}
        return queue.get("spec") or {}

    def _annotations(self, key: QueueKey, name: str) -> Mapping[str, str]:
        pod = self._seen.pod(key, name)
        return {} if pod is None else _annotations(pod)


def _annotations(pod: Mapping[str, Any]) -> Mapping[str, str]:
    return (pod.get("metadata") or {}).get("annotations") or {}


def _is_leaving(pod: Mapping[str, Any]) -> bool:
    return bool((pod.get("metadata") or {}).get("deletionTimestamp"))


def _life(pod: Mapping[str, Any]) -> Life:
    containers = (pod.get("status") or {}).get("containerStatuses") or ()
    restarts = (int(each.get("restartCount") or 0) for each in containers if each.get("name") == CONTAINER)
    return str(pod["metadata"].get("uid") or ""), sum(restarts)


def _since(before: Mapping[str, float], names: Iterable[str], now: float) -> dict[str, float]:
    return {name: before.get(name, now) for name in names}
