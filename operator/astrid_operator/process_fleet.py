"""Fleets of worker processes on this machine: what pods are on a cluster.

Owns every member it started, until it is gone, and makes the fleets be as they were last asked to be: sized,
rolled to the present template, restarted with back-off where a member crashes. A member leaves by SIGTERM and
has the grace of its pod; only then is it killed. Never decides how many there shall be, and never touches a
process that it did not start.
"""

import asyncio
import contextlib
import fcntl
import json
import os
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from signal import SIGKILL, SIGTERM
from typing import Any

import structlog

from astrid_operator.astrid_queue import AstridQueue, QueueKey
from astrid_operator.desired import OperatorDefaults, desired_deployment
from astrid_operator.fleet import FleetState, Member, MemberPhase
from astrid_operator.local_environment import Mounted, Template, template_of
from astrid_operator.member_process import MemberProcess, ProcessId, signal_session
from astrid_operator.presence import MemberSaid
from astrid_operator.retirement import Candidate, leaving_order, next_step
from astrid_operator.scaling_values import MembersSeen

log = structlog.get_logger(__name__)

#: Seconds between two looks at all members; the end of one is noticed at once.
LOOK_SECONDS = 0.25
#: Seconds after which a member of a foreign application counts as ready: it cannot say so. Ours do.
FOREIGN_READY_SECONDS = 3.0
#: A member that ended before it was ready, or within so many seconds, failed at its start: the next one
#: waits.
EARLY_END_SECONDS = 10.0
#: Pause before the next start after such an end, in seconds: doubled each time, up to the second figure.
BACK_OFF_SECONDS = (1.0, 60.0)
#: Logs kept of members of one queue that are gone.
LOGS_KEPT = 20


class FolderTaken(Exception):  # noqa: N818 - named for what it is
    """Another local fleet uses this folder."""


@dataclass
class _Member:
    process: MemberProcess
    #: Wakes the fleet at its end; held here, since the event loop itself would forget it.
    watch: asyncio.Task[int]
    template: Template
    started_at: float
    phase: MemberPhase = MemberPhase.STARTING
    since: float = 0.0
    said: MemberSaid | None = None
    killed_at: float | None = None

    @property
    def name(self) -> str:
        return self.process.name

    @property
    def is_leaving(self) -> bool:
        return self.phase is MemberPhase.DRAINING

    def becomes(self, phase: MemberPhase, now: float) -> None:
        if phase is not self.phase:
            self.phase, self.since = phase, now


@dataclass
class _Fleet:
    key: QueueKey
    template: Template
    is_ours: bool
    slots_each: int
    desired: int = 0
    members: list[_Member] = field(default_factory=list)
    started: int = 0
    failures: int = 0
    next_start_at: float = 0.0
    unhealthy: str = ""
    is_removed: bool = False

    @property
    def staying(self) -> list[_Member]:
        return [each for each in self.members if not each.is_leaving]

    @property
    def outdated(self) -> list[_Member]:
        return [each for each in self.staying if each.template != self.template]


class ProcessFleet:
    """Implements `fleet.Fleet` with processes. Use it as an async context manager, in one event loop.

    `folder` holds logs and what is written down of members; two fleets never share one. `capacity`: slots
    that a roll-out may use for the new member beside the old. `machine`: this machine's variables.
    """

    def __init__(
        self,
        folder: Path,
        *,
        capacity: int,
        machine: Mapping[str, str],
        mounted: Mounted = lambda _namespace, _name, _key: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._folder = folder
        self._capacity = capacity
        self._machine = dict(machine)
        self._mounted = mounted
        self._clock = clock
        self._defaults = OperatorDefaults(image="", max_cpu_percent=max(1, 100 // max(1, capacity)))
        self._fleets: dict[QueueKey, _Fleet] = {}
        self._leftovers: dict[ProcessId, float] = {}
        self._wake = asyncio.Event()
        self._all_gone = asyncio.Event()
        self._lock: contextlib.ExitStack = contextlib.ExitStack()
        self._task: asyncio.Task[None] | None = None

    # ------------------------------------------------------------------ life

    async def __aenter__(self) -> "ProcessFleet":
        self._folder.mkdir(parents=True, exist_ok=True)
        self._take_folder()
        self._find_leftovers()
        self._task = asyncio.create_task(self._keep_looking(), name="process fleet")
        return self

    async def __aexit__(self, *_: object) -> None:
        """Kill what is still there; `drain` before lets it finish."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        await self.kill()
        self._write_down()
        self._lock.close()

    async def drain(self) -> None:
        """Ask every member to leave and return when all are gone."""
        for fleet in self._fleets.values():
            fleet.desired = 0
        self._all_gone.clear()
        self._wake.set()
        await self._all_gone.wait()

    async def kill(self) -> None:
        """End every member at once; what they held is recovered by whoever comes later."""
        members = [member for fleet in self._fleets.values() for member in fleet.members]
        for member in members:
            member.process.kill()
        await asyncio.gather(*(member.process.wait() for member in members))

    # ------------------------------------------------------------------ the protocol

    async def observe(self, key: QueueKey) -> FleetState:
        """What is known of the fleet now."""
        fleet = self._fleets.get(key)
        if fleet is None or fleet.is_removed:
            return FleetState()
        staying = fleet.staying
        return FleetState(
            exists=True,
            desired=fleet.desired,
            current=len(staying),
            ready=sum(each.phase is MemberPhase.READY for each in staying),
            starting=sum(each.phase is MemberPhase.STARTING for each in staying),
            draining=len(fleet.members) - len(staying),
            updated=len(staying) - len(fleet.outdated),
            settled=not fleet.outdated,
            unhealthy=fleet.unhealthy,
            members=tuple(Member(each.name, each.phase, each.since) for each in fleet.members),
        )

    async def ensure(self, queue: AstridQueue, replicas: int = 0) -> None:
        """Let the members of `queue` be started as it describes; others of it are replaced one by one."""
        template = self._template(queue)
        fleet = self._fleets.get(queue.key)
        if fleet is None:
            fleet = self._fleets[queue.key] = _Fleet(queue.key, template, queue.spec.is_ours, 1, replicas)
        elif fleet.is_removed:
            fleet.is_removed, fleet.desired = False, replicas
        if fleet.template != template:
            fleet.template, fleet.failures, fleet.next_start_at, fleet.unhealthy = template, 0, 0.0, ""
        fleet.is_ours, fleet.slots_each = queue.spec.is_ours, queue.spec.processes
        self._wake.set()

    async def scale_to(self, key: QueueKey, replicas: int) -> None:
        """Let the fleet have `replicas` members."""
        self._fleets[key].desired = replicas
        self._wake.set()

    async def tend(self, queue: AstridQueue, replicas: int, *, whoever: bool) -> int | None:
        """Let the fleet have `replicas` members, or as many as do not leave since they are busy.

        Asking and going are one here: SIGTERM lets a member finish what it runs, and nobody hurries it.
        """
        fleet = self._fleets[queue.key]
        members = [_candidate(each, fleet.template) for each in fleet.members]
        speaks = any(each.is_busy is not None for each in members)
        quiet = [replace(each, is_quiet=whoever or each.is_busy is False) for each in members]
        step = next_step(quiet, fleet.desired, replicas, whoever=whoever or not speaks)
        if step.replicas >= fleet.desired:
            return None
        await self.scale_to(queue.key, step.replicas)
        return step.replicas

    async def remove(self, key: QueueKey) -> None:
        """Let every member leave; the fleet is forgotten at once, its members when they are gone."""
        if key in self._fleets:
            fleet = self._fleets[key]
            fleet.desired, fleet.is_removed = 0, True
            self._wake.set()

    # ------------------------------------------------------------------ what local.py asks and tells

    def keys(self) -> set[QueueKey]:
        """Every fleet there is, those whose members still leave too."""
        return set(self._fleets)

    def slots_of(self, key: QueueKey) -> int:
        """Slots that the members of a queue hold, those that leave too, also where its fleet is forgotten."""
        fleet = self._fleets.get(key)
        return 0 if fleet is None else len(fleet.members) * fleet.slots_each

    def slots_held(self) -> int:
        """Slots that all members hold together."""
        return sum(self.slots_of(key) for key in self._fleets)

    def seen(self, key: QueueKey, running: int = 0) -> MembersSeen | None:  # noqa: ARG002 - see `Listener`
        """What the ready members say they do; None where one of them says nothing."""
        fleet = self._fleets.get(key)
        ready = [each for each in fleet.staying if each.phase is MemberPhase.READY] if fleet else []
        said = [each.said for each in ready if each.said is not None]
        if len(said) < len(ready):
            return None
        idle = tuple(each.idle_seconds for each in said if each.idle_seconds is not None)
        return MembersSeen(busy=sum(each.busy > 0 for each in said), idle_seconds=idle)

    def missing(self) -> dict[QueueKey, tuple[str, ...]]:
        """Variables that no member gets, since nobody here knows their value."""
        return {key: fleet.template.missing for key, fleet in self._fleets.items() if fleet.template.missing}

    def heard(self, key: QueueKey, said: Mapping[str, MemberSaid] | None) -> None:
        """Take in what the members of a queue say of themselves; who is not in it said nothing.

        None: nobody could be heard just now, so that what was said last stands.
        """
        fleet = self._fleets.get(key)
        if fleet is None or said is None:
            return
        for member in fleet.members:
            member.said = said.get(member.name)

    def _template(self, queue: AstridQueue) -> Template:
        pod = desired_deployment(queue, self._defaults)["spec"]["template"]["spec"]
        return template_of(queue.key, pod, self._machine, self._mounted)

    # ------------------------------------------------------------------ making it so

    async def _keep_looking(self) -> None:
        while True:
            self._wake.clear()
            try:
                await self._look()
            except Exception:
                log.exception("Look at local members failed", folder=str(self._folder))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_SECONDS):
                    await self._wake.wait()

    async def _look(self) -> None:
        self._end_leftovers()
        changed = False
        for key, fleet in list(self._fleets.items()):
            changed |= self._take_note(fleet)
            changed |= self._let_go(fleet)
            changed |= await self._start_missing(fleet)
            if fleet.is_removed and not fleet.members:
                del self._fleets[key]
        self._note_whether_all_are_gone()
        if changed:
            self._write_down()

    def _note_whether_all_are_gone(self) -> None:
        if any(fleet.members or fleet.desired for fleet in self._fleets.values()):
            self._all_gone.clear()
        else:
            self._all_gone.set()

    def _take_note(self, fleet: _Fleet) -> bool:
        """Notice who has ended, who is ready, and who has had all its grace."""
        now, before = self._clock(), len(fleet.members)
        for member in list(fleet.members):
            if member.process.exit_code is not None:
                fleet.members.remove(member)
                self._ended(fleet, member, now)
            elif member.is_leaving:
                self._mind_the_grace(member, now)
            elif member.phase is MemberPhase.STARTING and _is_up(fleet, member, now):
                member.becomes(MemberPhase.READY, now)
                fleet.unhealthy = ""
        return len(fleet.members) != before

    def _ended(self, fleet: _Fleet, member: _Member, now: float) -> None:
        member.process.kill()  # what is left below its first process
        self._forget_old_logs(fleet)
        code, lived = member.process.exit_code, now - member.started_at
        facts = {"member": member.name, "exit_code": code, "seconds": round(lived, 1)}
        if member.is_leaving:
            log.info("Member gone", **facts)
            return
        words, where = member.process.last_words(), member.process.log
        fleet.unhealthy = f"{member.name} ended with {_exit_words(code)}: {words} (see {where})"
        log.warning("Member ended unasked", **facts, last_words=words, log=str(where))
        if member.phase is MemberPhase.READY and lived >= EARLY_END_SECONDS:
            fleet.failures = 0
            return
        first, longest = BACK_OFF_SECONDS
        fleet.next_start_at = now + min(longest, first * 2.0 ** min(fleet.failures, 16))
        fleet.failures += 1

    def _mind_the_grace(self, member: _Member, now: float) -> None:
        if now - member.since > member.template.grace_seconds and member.killed_at is None:
            member.killed_at = now
            grace = member.template.grace_seconds
            log.warning("Member killed after its grace", member=member.name, grace_seconds=grace)
            member.process.kill()

    def _let_go(self, fleet: _Fleet) -> bool:
        """Ask those to leave that are too many, and of a roll-out the one whose place is taken."""
        now = self._clock()
        leaving = to_leave(
            [_candidate(each, fleet.template) for each in fleet.staying],
            fleet.desired,
            may_surge=self._room_for(fleet) > 0,
            already_leaving=len(fleet.members) > len(fleet.staying),
        )
        for member in [each for each in fleet.staying if each.name in leaving]:
            member.becomes(MemberPhase.DRAINING, now)
            member.process.ask_to_leave()
            log.info("Member asked to leave", queue=str(fleet.key), member=member.name)
        return bool(leaving)

    async def _start_missing(self, fleet: _Fleet) -> bool:
        surge = 1 if fleet.desired and fleet.outdated else 0
        missing = fleet.desired + surge - len(fleet.staying)
        count = min(missing, self._room_for(fleet))
        if count <= 0 or self._clock() < fleet.next_start_at:
            return False
        for _ in range(count):
            await self._start(fleet)
        return True

    def _room_for(self, fleet: _Fleet) -> int:
        """Members of `fleet` that would fit beside all that there are; one that is too large fits alone."""
        slots_each = min(fleet.slots_each, max(1, self._capacity))
        return max(0, self._capacity - self.slots_held()) // slots_each

    async def _start(self, fleet: _Fleet) -> None:
        fleet.started += 1
        uid = uuid.uuid4()
        name = f"{fleet.key.name}-{fleet.started}-{uid.hex[:5]}"
        environment = fleet.template.environment_of(name, str(uid), self._machine)
        path = self._logs_of(fleet.key) / f"{name}.log"
        path.parent.mkdir(parents=True, exist_ok=True)
        now = self._clock()
        try:
            process = await MemberProcess.start(name, fleet.template.command, environment, path)
        except OSError as error:
            fleet.unhealthy = f"{fleet.template.command[0]} cannot be started: {error.strerror}"
            fleet.next_start_at = now + BACK_OFF_SECONDS[1]
            return
        watch = asyncio.create_task(process.wait(), name=f"wait for {name}")
        watch.add_done_callback(lambda _: self._wake.set())
        fleet.members.append(_Member(process, watch, fleet.template, now, since=now))
        log.info("Member started", queue=str(fleet.key), member=name, pid=process.id.pid)

    # ------------------------------------------------------------------ the folder

    def _take_folder(self) -> None:
        lock = self._lock.enter_context((self._folder / "lock").open("w"))
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._lock.close()
            raise FolderTaken(f"another local fleet runs in {self._folder}") from None

    @property
    def _notes(self) -> Path:
        return self._folder / "members.json"

    def _write_down(self) -> None:
        members = [
            {**member.process.id.as_json(), "grace": member.template.grace_seconds}
            for fleet in self._fleets.values()
            for member in fleet.members
            if member.process.exit_code is None
        ]
        new = self._notes.with_suffix(".new")
        new.write_text(json.dumps(members))
        new.replace(self._notes)

    def _find_leftovers(self) -> None:
        """Members of an earlier run that was killed: they have their grace, then they are killed."""
        try:
            noted = [_noted(each) for each in json.loads(self._notes.read_text())]
        except (OSError, ValueError, TypeError, KeyError):
            return
        now = self._clock()
        self._leftovers = {identity: now + grace for identity, grace in noted if identity.is_alive}
        for identity in self._leftovers:
            log.warning("Member of an earlier run still ends", pid=identity.pid)
            with contextlib.suppress(ProcessLookupError):
                os.kill(identity.pid, SIGTERM)

    def _end_leftovers(self) -> None:
        now = self._clock()
        for identity, deadline in list(self._leftovers.items()):
            if not identity.is_alive:
                del self._leftovers[identity]
            elif now > deadline:
                signal_session(identity.pid, SIGKILL)

    def _logs_of(self, key: QueueKey) -> Path:
        return self._folder / "logs" / key.namespace / key.name

    def _forget_old_logs(self, fleet: _Fleet) -> None:
        alive = {member.process.log for member in fleet.members}
        gone = [path for path in self._logs_of(fleet.key).glob("*.log") if path not in alive]
        gone.sort(key=lambda path: path.stat().st_mtime)
        for path in gone[:-LOGS_KEPT]:
            path.unlink(missing_ok=True)


def _is_up(fleet: _Fleet, member: _Member, now: float) -> bool:
    unsaid = not fleet.is_ours and now - member.started_at > FOREIGN_READY_SECONDS
    return member.said is not None or unsaid


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


def _candidate(member: _Member, template: Template) -> Candidate:
    said = member.said
    return Candidate(
        name=member.name,
        phase=member.phase,
        is_outdated=member.template != template,
        is_busy=None if said is None else said.busy > 0,
        idle_seconds=None if said is None else said.idle_seconds,
    )


def _noted(entry: Mapping[str, Any]) -> tuple[ProcessId, float]:
    return ProcessId(int(entry["pid"]), str(entry["started"])), float(entry["grace"])


def _exit_words(code: int | None) -> str:
    return f"signal {-code}" if code is not None and code < 0 else f"exit status {code}"
