"""What a fleet is taken for between two of its objects' changes."""

import asyncio
import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest

from astrid_operator.astrid_queue import QueueKey
from astrid_operator.desired import OperatorDefaults
from astrid_operator.fleet import FleetState, MemberPhase
from astrid_operator.fleet_view import Moment, fleet_state
from astrid_operator.kinds import QUEUE_LABEL, Kind
from astrid_operator.kubernetes_api import KubernetesApi
from astrid_operator.kubernetes_fleet import KubernetesFleet
from astrid_operator.presence import MemberSaid, ProcessSaid
from astrid_operator.scaling import MembersSeen
from astrid_operator.seen import Seen
from astrid_operator.start_times import StartTimes

KEY = QueueKey("sky", "q")
BEGIN = datetime(2026, 1, 1, 12, tzinfo=UTC)


class Cluster:
    """Objects that change, told as a watch tells them, and a fleet that is observed."""

    def __init__(self, rng: random.Random) -> None:
        self.rng, self.seconds, self.version = rng, 0.0, 10
        self.seen = Seen()
        self.fleet = KubernetesFleet(
            cast("KubernetesApi", None), self.seen, OperatorDefaults("example/worker:1"), self.moment
        )

    def moment(self) -> Moment:
        return Moment(1000.0 + self.seconds, BEGIN + timedelta(seconds=self.seconds))

    def tell(self, kind: Kind, name: str, *, spec: Any, status: Any, event: str = "MODIFIED") -> None:
        self.version += 1
        metadata = {
            "name": name,
            "namespace": KEY.namespace,
            "uid": f"{kind.value}-{name}",
            "labels": {QUEUE_LABEL: KEY.name},
            "resourceVersion": str(self.version),
            "generation": self.version,
            "creationTimestamp": "2026-01-01T11:59:00Z",
        }
        self.seen.take(
            kind, {"type": event, "object": {"metadata": metadata, "spec": spec, "status": status}}
        )

    def deployment(self, event: str = "MODIFIED") -> None:
        status = {"observedGeneration": self.version + self.rng.randint(0, 1), "updatedReplicas": 1}
        spec = {"replicas": self.rng.randint(0, 5)}
        self.tell(Kind.DEPLOYMENT, KEY.name, spec=spec, status=status, event=event)

    def pod(self) -> None:
        ready = {"type": "Ready", "status": self.rng.choice(("True", "False"))}
        self.tell(
            Kind.POD,
            f"p{self.rng.randint(0, 3)}",
            spec={"nodeName": self.rng.choice(("n", None))},
            status={"phase": "Running", "conditions": [ready]},
            event=self.rng.choice(("MODIFIED", "MODIFIED", "DELETED")),
        )

    def rescaled(self) -> None:
        self.version += 1
        self.seen.rescaled(KEY, self.rng.randint(0, 5), str(self.version))

    def nothing(self) -> None:
        """A second in which nobody is told anything."""

    def afresh(self) -> FleetState:
        """The same without anything that is remembered; since when a member is what it is does not matter."""
        return without_times(
            fleet_state(self.seen.get(Kind.DEPLOYMENT, KEY), self.seen.pods(KEY), self.moment())
        )


def without_times(state: FleetState) -> FleetState:
    members = tuple(replace(each, since=0.0) for each in state.members)
    return replace(state, members=members, unschedulable_since=None, needs_care=False)


@pytest.mark.parametrize("seed", range(5))
def test_every_change_is_seen(seed: int) -> None:
    """Whatever a watch or an own write told last, the fleet is what its newest objects say."""

    async def go() -> None:
        cluster = Cluster(random.Random(seed))
        acts = (cluster.deployment, cluster.pod, cluster.pod, cluster.rescaled, cluster.nothing)
        for _ in range(200):
            cluster.rng.choice(acts)()
            cluster.seconds += 1
            assert without_times(await cluster.fleet.observe(KEY)) == cluster.afresh()
        cluster.deployment(event="DELETED")
        assert await cluster.fleet.observe(KEY) == FleetState()

    asyncio.run(go())


def test_a_member_keeps_its_time_while_nothing_is_told() -> None:
    """Since when it is what it is does not move with the clock, and an hour changes nothing else."""

    async def go() -> None:
        cluster = Cluster(random.Random(1))
        cluster.deployment()
        cluster.tell(Kind.POD, "p", spec={"nodeName": "n"}, status={"phase": "Running"})
        first = await cluster.fleet.observe(KEY)
        cluster.seconds += 3600
        assert await cluster.fleet.observe(KEY) == first
        assert [each.since for each in first.members] == [940.0]

    asyncio.run(go())


class SpeakingPod:
    """A pod of Astrid's own stages that is ready two seconds after it was asked for, and imports for long."""

    def __init__(self) -> None:
        self.cluster, self.starts = Cluster(random.Random(1)), StartTimes()
        self.cluster.deployment()

    def stands(self, seconds: float, *, ready: bool, speaks: bool) -> FleetState:
        """What the fleet is so many seconds after noon; the pod was asked for at noon."""
        self.cluster.seconds = seconds
        conditions = [
            {"type": "PodScheduled", "status": "True", "lastTransitionTime": "2026-01-01T12:00:00Z"},
            {
                "type": "Ready",
                "status": str(ready),
                "lastTransitionTime": f"2026-01-01T12:00:{'02' if ready else '00'}Z",
            },
        ]
        self.cluster.tell(
            Kind.POD,
            "p",
            spec={"nodeName": "n"},
            status={"phase": "Running", "conditions": conditions},
        )
        said = {"p": MemberSaid(0, 1.0, False, (ProcessSaid("p:1", "1", False),))} if speaks else {}
        self.cluster.fleet.heard(KEY, said)
        state = asyncio.run(self.cluster.fleet.observe(KEY))
        self.starts.saw(state.members)
        return state


def test_a_member_that_speaks_is_ready_from_its_first_word_on() -> None:
    """A container without a probe is ready before its worker has imported anything; it is capacity bought."""
    pod = SpeakingPod()
    for seconds, ready in ((1, False), (3, True), (29, True)):
        state = pod.stands(seconds, ready=ready, speaks=False)
        assert (state.ready, state.starting, state.current) == (0, 1, 1)
        assert pod.cluster.fleet.seen(KEY, running=1) == MembersSeen(0, ())
    state = pod.stands(30, ready=True, speaks=True)
    assert (state.ready, state.starting, state.current) == (1, 0, 1)
    assert pod.starts.usual_seconds() == 30.0


def test_a_member_that_never_speaks_is_ready_after_a_minute_and_no_start_is_learned() -> None:
    """A worker that hangs is a person's to see, not a start of a minute; its word may still come."""
    pod = SpeakingPod()
    pod.stands(1, ready=False, speaks=False)
    for seconds, phase in ((61, MemberPhase.STARTING), (63, MemberPhase.READY)):
        assert pod.stands(seconds, ready=True, speaks=False).members[0].phase is phase
    assert pod.starts.usual_seconds() is None
    pod.stands(80, ready=True, speaks=True)
    assert pod.starts.usual_seconds() == 80.0


def test_a_start_that_is_over_when_the_operator_begins_is_not_learned() -> None:
    """Another operator watched it; hours of a member's life are no start."""
    pod = SpeakingPod()
    for seconds in (7200, 7201):
        pod.stands(seconds, ready=True, speaks=True)
    assert pod.starts.usual_seconds() is None
