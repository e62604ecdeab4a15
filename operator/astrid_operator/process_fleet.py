"""Fleets of worker processes on this machine: what pods are on a cluster.

Owns every member it started, until it is gone, and makes the fleets be as they were last asked to be: sized,
rolled to the present template, restarted with back-off where a member crashes. A member leaves by SIGTERM and
has the grace of its pod; only then is it killed. Never decides how many there shall be, and never touches a
process that it did not start.
"""

import asyncio
import contextlib
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import structlog

from astrid_operator.astrid_queue import AstridQueue, QueueKey
from astrid_operator.desired import OperatorDefaults, desired_deployment
from astrid_operator.fleet import FleetState, Member, MemberPhase
from astrid_operator.local_environment import Mounted, Template, template_of
from astrid_operator.local_member import LocalFleet, LocalMember, candidate_of, exit_words, is_up
from astrid_operator.member_folder import MemberFolder
from astrid_operator.member_process import MemberProcess
from astrid_operator.presence import MemberSaid
from astrid_operator.retirement import next_step, to_leave
from astrid_operator.scaling_values import MembersSeen

log = structlog.get_logger(__name__)

#: Seconds between two looks at all members; the end of one is noticed at once.
LOOK_SECONDS = 0.25
#: A member that ended before it was ready, or within so many seconds, failed at its start: the next one
#: waits.
EARLY_END_SECONDS = 10.0
#: Pause before the next start after such an end, in seconds: doubled each time, up to the second figure.
BACK_OFF_SECONDS = (1.0, 60.0)


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
        self._folder = MemberFolder(folder)
        self._folder_name = str(folder)
        self._capacity = capacity
        self._machine = dict(machine)
        self._mounted = mounted
        self._clock = clock
        self._defaults = OperatorDefaults(image="", max_cpu_percent=max(1, 100 // max(1, capacity)))
        self._fleets: dict[QueueKey, LocalFleet] = {}
        self._wake = asyncio.Event()
        self._all_gone = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    # ------------------------------------------------------------------ life

    async def __aenter__(self) -> "ProcessFleet":
        self._folder.take(self._clock())
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
        self._folder.leave()

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
            fleet = self._fleets[queue.key] = LocalFleet(queue.key, template, queue.spec.is_ours, 1, replicas)
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

    async def tend(
        self,
        queue: AstridQueue,
        replicas: int,
        *,
        whoever: bool,
        spare: int = 0,  # noqa: ARG002 - who was asked cannot be told to stay
    ) -> int | None:
        """Let the fleet have `replicas` members, or as many as do not leave since they are busy.

        Asking and going are one here: SIGTERM lets a member finish what it runs, and nobody hurries it.
        """
        fleet = self._fleets[queue.key]
        members = [candidate_of(each, fleet.template) for each in fleet.members]
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
                log.exception("Look at local members failed", folder=self._folder_name)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_SECONDS):
                    await self._wake.wait()

    async def _look(self) -> None:
        self._folder.end_leftovers(self._clock())
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

    def _take_note(self, fleet: LocalFleet) -> bool:
        """Notice who has ended, who is ready, and who has had all its grace."""
        now, before = self._clock(), len(fleet.members)
        for member in list(fleet.members):
            if member.process.exit_code is not None:
                fleet.members.remove(member)
                self._ended(fleet, member, now)
            elif member.is_leaving:
                self._mind_the_grace(member, now)
            elif member.phase is MemberPhase.STARTING and is_up(fleet, member, now):
                member.becomes(MemberPhase.READY, now)
                fleet.unhealthy = ""
        return len(fleet.members) != before

    def _ended(self, fleet: LocalFleet, member: LocalMember, now: float) -> None:
        member.process.kill()  # what is left below its first process
        self._folder.forget_old_logs(fleet.key, {each.process.log for each in fleet.members})
        code, lived = member.process.exit_code, now - member.started_at
        facts = {"member": member.name, "exit_code": code, "seconds": round(lived, 1)}
        if member.is_leaving:
            log.info("Member gone", **facts)
            return
        words, where = member.process.last_words(), member.process.log
        fleet.unhealthy = f"{member.name} ended with {exit_words(code)}: {words} (see {where})"
        log.warning("Member ended unasked", **facts, last_words=words, log=str(where))
        if member.phase is MemberPhase.READY and lived >= EARLY_END_SECONDS:
            fleet.failures = 0
            return
        first, longest = BACK_OFF_SECONDS
        fleet.next_start_at = now + min(longest, first * 2.0 ** min(fleet.failures, 16))
        fleet.failures += 1

    def _mind_the_grace(self, member: LocalMember, now: float) -> None:
        if now - member.since > member.template.grace_seconds and member.killed_at is None:
            member.killed_at = now
            grace = member.template.grace_seconds
            log.warning("Member killed after its grace", member=member.name, grace_seconds=grace)
            member.process.kill()

    def _let_go(self, fleet: LocalFleet) -> bool:
        """Ask those to leave that are too many, and of a roll-out the one whose place is taken."""
        now = self._clock()
        leaving = to_leave(
            [candidate_of(each, fleet.template) for each in fleet.staying],
            fleet.desired,
            may_surge=self._room_for(fleet) > 0,
            already_leaving=len(fleet.members) > len(fleet.staying),
        )
        for member in [each for each in fleet.staying if each.name in leaving]:
            member.becomes(MemberPhase.DRAINING, now)
            member.process.ask_to_leave()
            log.info("Member asked to leave", queue=str(fleet.key), member=member.name)
        return bool(leaving)

    async def _start_missing(self, fleet: LocalFleet) -> bool:
        surge = 1 if fleet.desired and fleet.outdated else 0
        missing = fleet.desired + surge - len(fleet.staying)
        count = min(missing, self._room_for(fleet))
        if count <= 0 or self._clock() < fleet.next_start_at:
            return False
        for _ in range(count):
            await self._start(fleet)
        return True

    def _room_for(self, fleet: LocalFleet) -> int:
        """Members of `fleet` that would fit beside all that there are; one that is too large fits alone."""
        slots_each = min(fleet.slots_each, max(1, self._capacity))
        return max(0, self._capacity - self.slots_held()) // slots_each

    async def _start(self, fleet: LocalFleet) -> None:
        fleet.started += 1
        uid = uuid.uuid4()
        name = f"{fleet.key.name}-{fleet.started}-{uid.hex[:5]}"
        environment = fleet.template.environment_of(name, str(uid), self._machine)
        path = self._folder.new_log(fleet.key, name)
        now = self._clock()
        try:
            process = await MemberProcess.start(name, fleet.template.command, environment, path)
        except OSError as error:
            fleet.unhealthy = f"{fleet.template.command[0]} cannot be started: {error.strerror}"
            fleet.next_start_at = now + BACK_OFF_SECONDS[1]
            return
        watch = asyncio.create_task(process.wait(), name=f"wait for {name}")
        watch.add_done_callback(lambda _: self._wake.set())
        fleet.members.append(LocalMember(process, watch, fleet.template, now, since=now))
        log.info("Member started", queue=str(fleet.key), member=name, pid=process.id.pid)

    def _write_down(self) -> None:
        self._folder.write_down(
            (member.process.id, member.template.grace_seconds)
            for fleet in self._fleets.values()
            for member in fleet.members
            if member.process.exit_code is None
        )
