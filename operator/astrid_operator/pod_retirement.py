"""Carries out the steps by which pods leave a fleet, and keeps what is written on pods up to date.

Owns the order of one look: ask, see what is still held, mark; the smaller size itself is written by whoever
called, and afterwards it is verified here which pods went. Level-triggered: nothing but a count is remembered
between two looks, so that an operator may die between any two requests.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import structlog

from astrid_operator.astrid_queue import AstridQueue, QueueKey
from astrid_operator.errors import Conflict, NotAsked, ObjectGone
from astrid_operator.fleet import FleetState, Member, MemberPhase
from astrid_operator.kinds import Kind
from astrid_operator.pod_members import PodMembers
from astrid_operator.quiesce import Conversation
from astrid_operator.retirement import Step, next_step
from astrid_operator.scaling import GRACE_SECONDS
from astrid_operator.seen import Seen

log = structlog.get_logger(__name__)

#: Seconds for which a broker must have taken no request before members that must leave do so unasked.
MUTE_SECONDS = 15.0

#: Told of each pod that left after a size was lowered: its AstridQueue, and whether it had been chosen.
Retired = Callable[[QueueKey, bool], None]


class PodWriter(Protocol):
    """Who writes on pods; `kubernetes_api.KubernetesApi` does."""

    def annotate_pod(
        self, pod: Mapping[str, Any], annotations: Mapping[str, str | None]
    ) -> Awaitable[dict[str, Any]]: ...


@dataclass(slots=True)
class _Watched:
    """Pods that were chosen when a size was lowered, and those that have been seen to leave."""

    chosen: set[str] = field(default_factory=set)
    left: set[str] = field(default_factory=set)


class PodRetirement:
    """Lets pods leave one by one; `members` holds what they say."""

    def __init__(
        self,
        api: PodWriter,
        seen: Seen,
        members: PodMembers,
        conversation: Conversation,
        clock: Callable[[], float],
        retired: Retired,
    ) -> None:
        self._api = api
        self._seen = seen
        self._members = members
        self._conversation = conversation
        self._clock = clock
        self._retired = retired
        self._watched: dict[QueueKey, _Watched] = {}
        #: Since when the broker of a queue takes no request.
        self._mute_since: dict[QueueKey, float] = {}

    def needs_care(self, key: QueueKey, state: FleetState) -> bool:
        """Somebody is asked to leave, or a pod carries what it should not."""
        if self._members.asks_anyone(key):
            return True
        return bool(self._members.hints(key, state, _pending(state, self._members.marked(key))))

    async def look(
        self, queue: AstridQueue, state: FleetState, replicas: int, *, whoever: bool, spare: int = 0
    ) -> Step:
        """One step towards `replicas`: all of it but the smaller size, which may be written now.

        Where nobody can be asked for long, so many leave as must, by the grace of their pods alone.
        """
        try:
            step = await self._look(queue, state, replicas, whoever=whoever, spare=spare)
        except NotAsked as error:
            since = self._mute_since.setdefault(queue.key, self._clock())
            if not whoever or self._clock() - since < MUTE_SECONDS:
                raise
            log.warning("Members leave unasked", queue=str(queue.key), error=str(error))
            return Step(min(replicas, state.desired))
        self._mute_since.pop(queue.key, None)
        return step

    async def _look(
        self, queue: AstridQueue, state: FleetState, replicas: int, *, whoever: bool, spare: int
    ) -> Step:
        key = queue.key
        strays = self._members.strays(key)
        if strays:
            await self._conversation.release(key, strays)
        may_choose = whoever or replicas == 0 or state.settled
        step = next_step(
            self._members.candidates(key, state.members, await self._quiet(queue)),
            state.desired,
            replicas if may_choose else state.desired,
            whoever=whoever or not self._members.speaks(key),
            spare=spare,
        )
        await self._tell(key, step)
        await self._write_hints(key, state, step.go if replicas else ())
        return step

    def lowered(self, key: QueueKey, step: Step, members: Collection[Member]) -> None:
        """The size was lowered: those of `step` should go, and nobody else."""
        watched = self._watched.setdefault(key, _Watched())
        watched.chosen |= set(step.go)
        watched.left |= _leaving(members)

    def saw(self, key: QueueKey, members: Collection[Member]) -> None:
        """Compare who leaves with who was chosen, once for each."""
        watched = self._watched.get(key)
        if watched is None:
            return
        there = {each.name for each in members}
        left = (_leaving(members) | (watched.chosen - there)) - watched.left
        for name in left:
            self._count(key, name, as_chosen=name in watched.chosen)
        watched.chosen -= left
        watched.left = (watched.left | left) & there
        if not watched.chosen:
            del self._watched[key]

    def forget(self, key: QueueKey) -> None:
        """Its AstridQueue is gone."""
        self._watched.pop(key, None)
        self._mute_since.pop(key, None)
        self._members.forget(key)

    def _count(self, key: QueueKey, name: str, *, as_chosen: bool) -> None:
        self._retired(key, as_chosen)
        if not as_chosen:
            log.warning("Another pod left than the one that was chosen", queue=str(key), pod=name)

    async def _quiet(self, queue: AstridQueue) -> set[str]:
        """Members that were asked and hold nothing any more, or have had all the time that a pod has."""
        key, limit = queue.key, queue.spec.timeout_seconds + GRACE_SECONDS
        stopped = self._members.stopped(key)
        held: Counter[str] = Counter()
        if stopped:
            ids = [each for ids in stopped.values() for each in ids]
            held.update(await self._conversation.held_by(key, ids))
        quiet = {name for name, ids in stopped.items() if not any(held[each] for each in ids)}
        late = {name for name, since in self._members.asked(key).items() if self._clock() - since > limit}
        return quiet | late

    async def _tell(self, key: QueueKey, step: Step) -> None:
        if step.release:
            await self._conversation.release(key, self._members.processes(key, step.release))
        if step.ask or self._members.asks_anyone(key):
            await self._conversation.ask(key, self._members.processes(key, step.ask))
        if step.ask or step.release or step.go:
            log.info("Members asked to leave", queue=str(key), asked=step.ask, stay=step.release, go=step.go)

    async def _write_hints(self, key: QueueKey, state: FleetState, leaving: Collection[str]) -> None:
        hints = self._members.hints(key, state, leaving)
        await asyncio.gather(*(self._annotate(key, name, change) for name, change in hints.items()))

    async def _annotate(self, key: QueueKey, name: str, change: Mapping[str, str | None]) -> None:
        pod = self._seen.pod(key, name)
        if pod is None:
            return
        try:
            self._seen.put(Kind.POD, await self._api.annotate_pod(pod, change))
        except (ObjectGone, Conflict):
            log.debug("Pod not annotated: it is gone", queue=str(key), pod=name)


def _leaving(members: Collection[Member]) -> set[str]:
    return {each.name for each in members if each.phase is MemberPhase.DRAINING}


def _pending(state: FleetState, marked: Collection[str]) -> Collection[str]:
    """Those of `marked` that were let go and are not ended yet: there are more pods than asked for."""
    return marked if state.current > state.desired else ()
