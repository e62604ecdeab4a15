"""The status: five conditions, coarse numbers, and when it is worth a write."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from astrid_operator.conditions import Trouble
from astrid_operator.fleet import FleetState
from astrid_operator.scaling import Demand, DemandReading, Reason, ScalingDecision
from astrid_operator.status import (
    Urgency,
    amount_of_change,
    coarse,
    desired_status,
    invalid_status,
    urgency,
)
from support.queue_documents import queue

ROOT = Path(__file__).resolve().parents[3]
T0 = "2026-03-04T05:06:07Z"
T1 = "2026-03-04T05:06:57Z"

Json = Any


def fleet(members: int = 3, **more: Any) -> FleetState:
    return FleetState(**{"exists": True, "desired": members, "current": members, "ready": members, **more})


def decided(replicas: int = 3, reason: Reason = Reason.BACKLOG, **more: Any) -> ScalingDecision:
    return ScalingDecision(replicas, reason, f"{replicas} because", wanted=replicas, **more)


READ = DemandReading(100.0, Demand(ready=480, running=12), "", 100.0)


def unread(seconds: float | None) -> DemandReading:
    return DemandReading(100.0, None, "refused", None if seconds is None else 100.0 - seconds)


def status(
    seen: FleetState | None = None,
    decision: ScalingDecision | None = None,
    reading: DemandReading = READ,
    previous: Json = None,
    now: str = T0,
    spec: dict[str, Any] | None = None,
    **more: Any,
) -> Json:
    return desired_status(
        queue(**(spec or {})), seen or fleet(), reading, decision or decided(), previous, now, **more
    )


def conditions(of: Json) -> dict[str, tuple[str, str]]:
    return {each["type"]: (each["status"], each["reason"]) for each in of["conditions"]}


def condition(of: Json, kind: str) -> Json:
    return next(each for each in of["conditions"] if each["type"] == kind)


MANUAL = {"replicas": 3, "scaling": {"mode": "Manual"}}

#: What is seen → the conditions that say it.
TABLE: dict[str, tuple[Json, dict[str, tuple[str, str]]]] = {
    "a fleet of its size": (
        status(),
        {
            "Ready": ("True", "AtSize"),
            "Reconciling": ("False", "Applied"),
            "Stalled": ("False", "AsExpected"),
            "ScalingActive": ("True", "Auto"),
            "BrokerReachable": ("True", "DemandRead"),
        },
    ),
    "nobody and nothing to do": (
        status(fleet(0), decided(0, Reason.IDLE)),
        {"Ready": ("True", "Idle"), "Reconciling": ("False", "Applied")},
    ),
    "disabled": (
        status(fleet(0), decided(0, Reason.DISABLED), spec={"enabled": False}),
        {"Ready": ("True", "Disabled"), "ScalingActive": ("False", "Disabled")},
    ),
    "disabled and still leaving": (
        status(fleet(3), decided(0, Reason.DISABLED), spec={"enabled": False}),
        {"Ready": ("False", "Progressing"), "Reconciling": ("True", "Scaling")},
    ),
    "paused": (
        status(decision=decided(3, Reason.PAUSED), spec={"paused": "All"}),
        {"Ready": ("True", "Paused"), "ScalingActive": ("False", "Paused")},
    ),
    "paused in one direction": (
        status(decision=decided(3, Reason.PAUSED), spec={"paused": "ScaleIn"}),
        {"Ready": ("True", "AtSize"), "ScalingActive": ("True", "Auto")},
    ),
    "manual": (
        status(decision=decided(3, Reason.MANUAL), spec=MANUAL),
        {"Ready": ("True", "AtSize"), "ScalingActive": ("False", "Manual")},
    ),
    "manual and paused in one direction": (
        status(decision=decided(3, Reason.PAUSED), spec={**MANUAL, "paused": "ScaleIn"}),
        {"ScalingActive": ("False", "Manual")},
    ),
    "growing": (
        status(fleet(1), decided(3)),
        {"Ready": ("False", "Progressing"), "Reconciling": ("True", "Scaling")},
    ),
    "rolling out": (
        status(fleet(settled=False, updated=1)),
        {"Ready": ("False", "Progressing"), "Reconciling": ("True", "RollingOut")},
    ),
    "not created yet": (
        status(FleetState(), decided(0, Reason.IDLE)),
        {"Ready": ("False", "Progressing"), "Reconciling": ("True", "Creating")},
    ),
    "a write that failed": (
        status(retrying="the server is busy"),
        {"Ready": ("True", "AtSize"), "Reconciling": ("True", "Retrying")},
    ),
    "members that do not come up": (
        status(fleet(3, ready=1, unhealthy="ImagePullBackOff: no such image")),
        {"Ready": ("False", "WorkersUnhealthy"), "Stalled": ("False", "AsExpected")},
    ),
    "members that a quota forbids": (
        status(fleet(1, desired=3, quota_exceeded="exceeded quota: pods 1")),
        {"Ready": ("False", "QuotaExceeded"), "Stalled": ("True", "QuotaExceeded")},
    ),
    "a person must act": (
        status(stalled=Trouble("QueueTaken", "served by sky/older")),
        {
            "Ready": ("False", "QueueTaken"),
            "Reconciling": ("False", "QueueTaken"),
            "Stalled": ("True", "QueueTaken"),
        },
    ),
    "a broker that answers late is reachable still": (
        status(reading=unread(9), decision=decided(3, Reason.BROKER_UNREACHABLE)),
        {
            "Ready": ("True", "AtSize"),
            "ScalingActive": ("True", "Auto"),
            "BrokerReachable": ("True", "DemandRead"),
        },
    ),
    "a broker that does not answer": (
        status(reading=unread(50), decision=decided(3, Reason.BROKER_UNREACHABLE)),
        {
            "Ready": ("False", "BrokerUnreachable"),
            "ScalingActive": ("False", "BrokerUnreachable"),
            "BrokerReachable": ("False", "BrokerUnreachable"),
            "Stalled": ("False", "AsExpected"),
        },
    ),
    "a broker that was not asked yet": (
        status(reading=unread(None), decision=decided(3, Reason.BROKER_UNREACHABLE)),
        {"Ready": ("True", "AtSize"), "BrokerReachable": ("Unknown", "NotReadYet")},
    ),
    "demand that is not trusted yet": (
        status(decision=decided(3, Reason.NOT_TRUSTED_YET)),
        {"Ready": ("True", "AtSize"), "ScalingActive": ("False", "NotTrustedYet")},
    ),
}


@pytest.mark.parametrize(("told", "expected"), TABLE.values(), ids=TABLE.keys())
def test_the_conditions_tell_what_is(told: Json, expected: dict[str, tuple[str, str]]) -> None:
    """Each row of the table of conditions."""
    assert expected.items() <= conditions(told).items()


@pytest.mark.parametrize("told", [row[0] for row in TABLE.values()], ids=TABLE.keys())
def test_all_five_are_written_on_first_sight_with_generation_reason_and_sentence(told: Json) -> None:
    """Absent would mean unknown; a reader never has to guess which generation is spoken of."""
    assert list(conditions(told)) == ["Ready", "Reconciling", "Stalled", "ScalingActive", "BrokerReachable"]
    for each in told["conditions"]:
        assert each["observedGeneration"] == told["observedGeneration"] == 4
        assert each["lastTransitionTime"] == T0
        assert each["reason"][0].isupper()
        assert each["reason"].isalnum()
        assert each["message"]


@pytest.mark.parametrize("told", [row[0] for row in TABLE.values()], ids=TABLE.keys())
def test_every_field_of_a_status_is_in_the_schema(told: Json) -> None:
    """What the API server does not know it drops in silence."""
    crd = yaml.safe_load((ROOT / "crds/astridqueues.astrid.dev.yaml").read_text())
    schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["status"]

    assert list(_unknown(told, schema)) == []


def _unknown(value: Json, schema: Json, path: str = "status") -> Any:
    if isinstance(value, dict):
        for name, each in value.items():
            if name not in schema.get("properties", {}):
                yield f"{path}.{name}"
            else:
                yield from _unknown(each, schema["properties"][name], f"{path}.{name}")
    if isinstance(value, list):
        for each in value:
            yield from _unknown(each, schema["items"], f"{path}[]")


def test_transition_time_moves_only_with_the_status() -> None:
    """Another reason or sentence is no transition."""
    first = status(fleet(1), decided(3))
    second = status(fleet(1, ready=0, unhealthy="CrashLoopBackOff"), decided(3), previous=first, now=T1)
    third = status(previous=second, now="2026-03-04T06:00:00Z")

    times = [condition(each, "Ready")["lastTransitionTime"] for each in (first, second, third)]
    assert times == [T0, T0, "2026-03-04T06:00:00Z"]
    assert condition(second, "Ready")["reason"] == "WorkersUnhealthy"


def test_an_outage_says_since_when_and_does_not_change_its_sentence() -> None:
    """A sentence that counts seconds would be news every second."""
    first = status(reading=unread(50), decision=decided(3, Reason.BROKER_UNREACHABLE), now=T1)
    later = status(
        reading=unread(53),
        decision=decided(3, Reason.BROKER_UNREACHABLE),
        previous=first,
        now="2026-03-04T05:07:01Z",
    )

    assert condition(first, "BrokerReachable")["message"] == f"Demand was not read since {T0}: refused"
    assert condition(later, "BrokerReachable") == condition(first, "BrokerReachable")


def test_a_broker_that_never_answers_is_called_unreachable_after_ten_seconds() -> None:
    """Not asked yet is unknown; not answered is false."""
    frozen = decided(3, Reason.BROKER_UNREACHABLE)
    first = status(reading=unread(None), decision=frozen)
    soon = status(reading=unread(None), decision=frozen, previous=first, now="2026-03-04T05:06:16Z")
    late = status(reading=unread(None), decision=frozen, previous=soon, now="2026-03-04T05:06:17Z")

    assert [conditions(each)["BrokerReachable"][0] for each in (first, soon, late)] == [
        "Unknown",
        "Unknown",
        "False",
    ]
    assert condition(late, "BrokerReachable")["message"] == "Demand was never read: refused"


def test_a_restarted_operator_does_not_call_a_good_broker_unreachable() -> None:
    """That it has not asked yet says nothing about a broker that was reachable before."""
    told = status(
        reading=unread(None), decision=decided(3, Reason.BROKER_UNREACHABLE), previous=status(), now=T1
    )

    assert conditions(told)["BrokerReachable"] == ("Unknown", "NotReadYet")


def test_numbers_are_coarse_and_stay_as_known_while_demand_is_not() -> None:
    """The status is for people; what is not read is not made up."""
    first = status(reading=DemandReading(1.0, Demand(ready=12_345, running=99, oldest_seconds=7.4), "", 1.0))
    second = status(reading=unread(1), previous=first, now=T1)

    assert first["demand"] == {
        "ready": 12_000,
        "running": 99,
        "delayed": 0,
        "dead": 0,
        "oldestSeconds": 7,
        "observedAt": T0,
    }
    assert second["demand"] == first["demand"]


@pytest.mark.parametrize(
    ("exact", "told"), [(0, 0), (99, 99), (101, 100), (149, 150), (1_999, 2_000), (99.6, 100)]
)
def test_coarse_keeps_two_digits(exact: float, told: int) -> None:
    """Small numbers are exact: one message that waits is never told as none."""
    assert coarse(exact) == told


def test_last_scale_is_noted_once_with_reason_and_numbers() -> None:
    """From, to, why and when; seeing the same change again is no new one."""
    first = status(fleet(1), decided(3))
    again = status(fleet(1), decided(3), previous=first, now=T1)
    after = status(fleet(3), decided(3), previous=again, now=T1)

    assert first["lastScale"] == {"from": 1, "to": 3, "reason": "Backlog", "message": "3 because", "at": T0}
    assert first["lastScale"] == again["lastScale"] == after["lastScale"]


def test_scale_reads_replicas_and_a_selector_string() -> None:
    """An HPA needs the selector serialised."""
    told = status(fleet(2, ready=1), decided(3))

    assert (told["replicas"], told["readyReplicas"], told["desiredReplicas"]) == (2, 1, 3)
    assert told["selector"] == "app.kubernetes.io/name=astrid-worker,astrid.dev/queue=differencing"


def test_gpus_are_told_where_any_are_asked_for() -> None:
    """Wanted and granted are devices, not members."""
    held = replace(decided(1, Reason.SCALE_LIMITED), wanted=3)

    assert status(decision=held, spec={"gpu": {"count": 2}})["gpu"] == {"wanted": 6, "granted": 2}
    assert "gpu" not in status()


def test_an_object_that_cannot_be_read_keeps_what_was_known() -> None:
    """Stalled with the path; numbers, scaling and broker as they were."""
    before = status()
    told = invalid_status(5, Trouble("InvalidSpec", "spec.replicas is 20: must be at most"), before, T1)

    assert conditions(told)["Stalled"] == ("True", "InvalidSpec")
    assert conditions(told)["Ready"] == ("False", "InvalidSpec")
    assert conditions(told)["BrokerReachable"] == ("True", "DemandRead")
    assert (told["demand"], told["observedGeneration"]) == (before["demand"], 5)
    assert (
        conditions(invalid_status(1, Trouble("InvalidSpec", "x"), None, T1))["ScalingActive"][0] == "Unknown"
    )


@pytest.mark.parametrize(
    ("before", "after", "when"),
    [
        (None, status(), Urgency.NOW),
        (status(), status(now=T1), Urgency.NEVER),
        (status(), status(fleet(1), decided(3)), Urgency.NOW),
        (status(fleet(1), decided(3)), status(fleet(2, desired=3), decided(3)), Urgency.SOON),
        ({name: each for name, each in status().items() if name != "demand"}, status(), Urgency.SOON),
        (status(), status(reading=DemandReading(1.0, Demand(ready=481, running=12), "", 1.0)), Urgency.NEVER),
        (status(), status(reading=DemandReading(1.0, Demand(ready=500, running=12), "", 1.0)), Urgency.LATER),
        (status(), status(decision=ScalingDecision(3, Reason.QUEUE_AGE, "x", wanted=3)), Urgency.NEVER),
        (status(), status(decision=decided(3, Reason.NOT_TRUSTED_YET)), Urgency.NOW),
    ],
    ids=[
        "first sight",
        "the same again",
        "another size",
        "a member came",
        "demand is known at last",
        "noise",
        "demand moved",
        "another sentence",
        "another condition",
    ],
)
def test_a_decision_is_written_at_once_and_mere_numbers_by_the_allowance(
    before: Json, after: Json, when: Urgency
) -> None:
    """What a person waits for is not held back; what only moves is."""
    assert urgency(before, desired_again(before, after)) is when


def desired_again(before: Json, after: Json) -> Json:
    """`after` with the times that it would have had on top of `before`."""
    if before is None:
        return after
    kept = {"lastScale": before["lastScale"]} if "lastScale" in before else {}
    return {**after, **kept}


def test_change_is_measured_by_the_largest_relative_step() -> None:
    """Who moved most is refreshed first."""
    few = status(reading=DemandReading(1.0, Demand(ready=10), "", 1.0))
    many = status(reading=DemandReading(1.0, Demand(ready=40), "", 1.0))

    assert amount_of_change(few, few) == 0
    assert amount_of_change(few, many) == pytest.approx(0.75)
