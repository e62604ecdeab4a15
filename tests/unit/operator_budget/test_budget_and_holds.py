"""What keeps a fleet from being shrunk keeps others from taking its members too."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest

from astrid_operator.astrid_queue import AstridQueue, QueueKey
from astrid_operator.fleet import FleetState, Member, MemberPhase
from astrid_operator.records import Records
from astrid_operator.scaling import Demand, DemandReading, MembersSeen, ScalingMemory, decide
from astrid_operator.scaling_holds import GROW_ONLY_SECONDS
from astrid_operator.scaling_memory import TRUST_SECONDS
from astrid_operator.sharing import Sharing
from support.queue_documents import manifest, queue

GPUS = 4
BUSY = Demand(ready=100, running=GPUS, service_seconds=60.0, members=MembersSeen(GPUS, ()))
EMPTY = Demand(service_seconds=60.0, members=MembersSeen(0, (0.0,) * GPUS))
LONG_AGO = 0.0


@dataclass(frozen=True)
class Step:
    """What is read of the fleet that has all GPUs, for how long, and whether the first class wants them."""

    demand: Demand | None
    seconds: int
    server: str = "one"
    is_rivalled: bool = True


BEFORE = Step(BUSY, 1, is_rivalled=False)


def fleet(members: int) -> FleetState:
    """That many, ready for long."""
    names = (Member(f"m{number}", MemberPhase.READY, 0.0) for number in range(members))
    return FleetState(
        True, desired=members, current=members, ready=members, updated=members, members=tuple(names)
    )


def rivals(
    holder: AstridQueue, steps: list[Step], started_at: float, *, is_inherited: bool = True
) -> Iterator[tuple[float, int]]:
    """(seconds, members granted) of `holder`, which has all GPUs, tick by tick, beside a higher class that
    wants them all; it ends where one is taken.
    """
    rival = queue("early", app="sky.tasks", priority=1, gpu={"count": 1}, scaling={"maxReplicas": GPUS})
    now = 10_000.0
    memories = {each.key: ScalingMemory(started_at, is_inherited=is_inherited) for each in (holder, rival)}
    seen = MembersSeen(GPUS, ())
    sharing = Sharing("GPU", lambda _: 1, lambda _: seen, lambda: now)
    for step in steps:
        for _ in range(step.seconds):
            waits = replace(BUSY, ready=100 * step.is_rivalled, running=0, members=MembersSeen(0, ()))
            readings = {
                holder.key: DemandReading(now, step.demand, "", now, step.server),
                rival.key: DemandReading(now, waits, "", now, "another"),
            }
            asked = {}
            for each, size in ((holder, GPUS), (rival, 0)):
                decision, memories[each.key] = decide(
                    each.spec, readings[each.key], fleet(size), memories[each.key], now
                )
                asked[each.key] = (each, fleet(size), decision)
            granted = sharing.share(asked, GPUS, {})[holder.key].replicas
            yield now - 10_000.0, granted
            if granted < GPUS:
                return
            now += 1


@pytest.mark.parametrize(
    ("steps", "started_at", "paused", "least_seconds"),
    [
        ([Step(BUSY, 60)], 10_000.0, "None", GROW_ONLY_SECONDS),
        ([BEFORE, Step(None, 20), Step(BUSY, 90)], LONG_AGO, "None", 21 + TRUST_SECONDS),
        ([BEFORE, Step(None, 20), Step(EMPTY, 90, "two")], LONG_AGO, "None", 21 + TRUST_SECONDS),
        ([BEFORE, Step(BUSY, 90, "two")], LONG_AGO, "None", 1 + TRUST_SECONDS),
        ([Step(BUSY, 120)], LONG_AGO, "ScaleIn", 120),
    ],
    ids=[
        "an operator that has just begun only grows",
        "demand that is known again is not trusted at once",
        "nor is a broker that came back empty",
        "nor another server",
        "a person forbade to shrink",
    ],
)
def test_no_member_is_taken_for_a_higher_class(
    steps: list[Step], started_at: float, paused: str, least_seconds: float
) -> None:
    """All GPUs are held by the last class, and the first class wants them; then, but only then, they move."""
    spec = {"gpu": {"count": 1}, "scaling": {"maxReplicas": GPUS}, "priority": 9, "paused": paused}
    holder = queue("late", app="sky.tasks", **spec)

    granted = list(rivals(holder, steps, started_at))

    taken_at = next((at for at, members in granted if members < GPUS), None)
    if paused == "ScaleIn":
        assert taken_at is None
    else:
        assert taken_at is not None
        assert least_seconds <= taken_at <= least_seconds + 20


def test_members_move_where_nothing_forbids_it() -> None:
    """The same fleets without any hold: the test above would see it."""
    holder = queue("late", app="sky.tasks", priority=9, gpu={"count": 1}, scaling={"maxReplicas": GPUS})

    assert list(rivals(holder, [Step(BUSY, 30)], LONG_AGO))[-1][0] < 20
    assert list(rivals(holder, [Step(BUSY, 30)], 10_000.0, is_inherited=False))[-1][0] < 20


def test_a_fleet_with_a_size_in_its_status_is_inherited() -> None:
    """One that this operator makes itself is not."""
    records, fresh = Records(lambda: 5.0), manifest("fresh", app="sky.tasks")
    found = {**manifest("found", app="sky.tasks"), "status": {"desiredReplicas": 0}}
    keys = {name: QueueKey("sky", name) for name in ("fresh", "found")}
    records.update({keys["fresh"]: fresh, keys["found"]: found})
    assert not records[keys["fresh"]].memory.is_inherited
    assert records[keys["found"]].memory.is_inherited
