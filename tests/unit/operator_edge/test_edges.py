"""The operator's small edges: answers of the API server, brokers, claims, the allowance, events and settings."""

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import aiohttp
import pytest
from structlog.testing import capture_logs

from astrid_operator import errors
from astrid_operator.__main__ import main
from astrid_operator.allowance import SAVED_WRITES, Allowance, Waiting
from astrid_operator.astrid_queue import QueueKey
from astrid_operator.brokers import BrokerAddress, Brokers
from astrid_operator.errors import BrokerNotConfigured, InvalidSpec, OperatorError
from astrid_operator.informer import Informer
from astrid_operator.kinds import OPTIONAL, Kind
from astrid_operator.kubernetes_answers import answer, failure
from astrid_operator.leadership import LeaseTimes
from astrid_operator.redis_address import redacted
from astrid_operator.seen import Seen
from astrid_operator.settings import OperatorSettings
from astrid_operator.transitions import events_between
from support.waiting import wait_in_loop

ENDING = {"details": {"causes": [{"reason": "NamespaceTerminating"}]}}

ANSWERS: dict[str, tuple[int, dict[str, Any], type[OperatorError]]] = {
    "refused": (422, {"message": "is invalid"}, errors.FleetRefused),
    "bad request": (400, {}, errors.FleetRefused),
    "over quota": (403, {"message": "forbidden: exceeded quota: pods"}, errors.QuotaExceeded),
    "namespace ends": (403, {"message": "is forbidden", **ENDING}, errors.StillLeaving),
    "no right": (403, {"message": "cannot patch resource"}, errors.NotAllowed),
    "object gone": (404, {"details": {"kind": "deployments"}}, errors.ObjectGone),
    "namespace gone": (404, {"details": {"kind": "namespaces"}}, errors.StillLeaving),
    "conflict": (409, {}, errors.Conflict),
    "too many": (429, {}, errors.ApiBusy),
    "broken": (500, {}, errors.ApiBusy),
    "away": (503, {}, errors.ApiBusy),
    "old version": (410, {}, errors.ApiBusy),
    "credentials expired": (401, {}, errors.ApiBusy),
}


@pytest.mark.parametrize("case", sorted(ANSWERS))
def test_each_answer_has_one_meaning(case: str) -> None:
    """What a person must mend is told from what time mends, by class."""
    status, document, expected = ANSWERS[case]

    assert type(failure(status, document, {})) is expected


@pytest.mark.parametrize(
    ("headers", "details", "seconds"),
    [
        ({"Retry-After": "7"}, {}, 7.0),
        ({}, {"retryAfterSeconds": 3}, 3.0),
        ({"Retry-After": "soon"}, {}, 1.0),
    ],
)
def test_retry_after_is_honoured(headers: dict[str, str], details: dict[str, Any], seconds: float) -> None:
    """From the header, else from the Status object, else a second."""
    found = failure(429, {"details": details}, headers)

    assert isinstance(found, errors.TryAgain)
    assert found.after_seconds == seconds


@pytest.mark.parametrize(
    "error", [TimeoutError(), aiohttp.ClientConnectionError("refused"), ConnectionResetError()]
)
def test_a_silent_server_is_unreachable(error: Exception) -> None:
    """Network failures of every kind are one word."""

    async def call() -> Any:
        raise error

    with pytest.raises(errors.ApiUnreachable):
        asyncio.run(answer(call()))


def test_an_answer_that_is_no_json_is_quoted() -> None:
    """A proxy's page does not become a traceback."""

    class Page:
        status = 502
        headers: ClassVar[dict[str, str]] = {}

        async def read(self) -> bytes:
            return b"<html>bad gateway</html>"

    async def call() -> Any:
        return Page()

    with pytest.raises(errors.ApiBusy, match="bad gateway"):
        asyncio.run(answer(call()))


@pytest.fixture
def mounted(tmp_path: Path) -> Path:
    """A folder of mounted brokers."""
    folder = tmp_path / "brokers" / "sky" / "own"
    folder.mkdir(parents=True)
    (folder / "url").write_text("rediss://user:secret@own:6380/2\n")
    (folder / "odd").write_text("http://example")
    return tmp_path / "brokers"


def test_a_mounted_broker_comes_before_the_operators_own(mounted: Path) -> None:
    """By namespace, Secret and key; the default name falls back to REDIS_URL, others do not."""
    brokers = Brokers(mounted, "redis://default:6379/0")

    assert brokers.address("sky", "own", "url").url == "rediss://user:secret@own:6380/2"
    assert brokers.address("sky").url == "redis://default:6379/0"
    with pytest.raises(BrokerNotConfigured, match="sky/other/url is not mounted"):
        brokers.address("sky", "other", "url")
    with pytest.raises(BrokerNotConfigured, match="REDIS_URL"):
        Brokers(mounted, None).address("sky")
    with pytest.raises(BrokerNotConfigured, match="no Redis address"):
        brokers.address("sky", "own", "odd")


def test_a_password_that_is_not_encoded_is_refused_and_not_shown(mounted: Path) -> None:
    """Whatever tells of it ends in a condition and an event."""
    (mounted / "sky/own/url").write_text("redis://:S3cr/etKq9+Zw==@redis.infra:6379/0")

    with pytest.raises(BrokerNotConfigured, match=r"sky/own/url .* must be percent-encoded") as refused:
        Brokers(mounted, None).address("sky", "own", "url")
    assert not any(piece in str(refused.value) for piece in ("S3cr", "etKq9", "redis.infra"))


def test_an_option_that_redis_does_not_know_is_refused(mounted: Path) -> None:
    """Where the address is checked, and not by every reader in its own way."""
    (mounted / "sky/own/url").write_text("redis://:secret@host/0?ssl_cert_reqs=none")

    with pytest.raises(BrokerNotConfigured) as refused:
        Brokers(mounted, None).address("sky", "own", "url")
    assert str(refused.value) == (
        "File sky/own/url of the mounted brokers holds no Redis address: "
        "redis-py cannot use its option ssl_cert_reqs"
    )


@pytest.mark.parametrize(
    "names", [("..", "own", "url"), ("sky", "../sky/own", "url"), ("sky", "own", "..data")]
)
def test_a_name_cannot_lead_out_of_the_folder(mounted: Path, names: tuple[str, str, str]) -> None:
    """Whoever writes an AstridQueue does not choose files of the operator."""
    with pytest.raises(BrokerNotConfigured):
        Brokers(mounted, None).address(*names)


def test_a_password_is_in_no_text_form() -> None:
    """Logs, conditions and reprs show where, never who."""
    address = BrokerAddress("redis://user:secret@host:6379/0?password=secret")

    assert str(address) == "redis://***@host:6379/0"
    assert "secret" not in repr(address)
    assert redacted("no address") == "(address withheld)"
    assert redacted("redis://host/0") == "redis://host/0"


def test_the_allowance_serves_the_oldest_and_most_changed_first() -> None:
    """So many a second on average, a few saved up, and nobody twice."""
    allowance = Allowance(0.5, now=0.0)
    waiting = [
        Waiting("small", 100, 0.01),
        Waiting("old", 500, 0.5),
        Waiting("new", 1, 1.0),
        Waiting("big", 300, 1.0),
    ]

    assert allowance.grant(waiting, 0.0) == ["big", "old", "small"]
    assert allowance.grant(waiting, 1.0) == []
    assert allowance.grant(waiting, 2.0) == ["big"]
    assert len(allowance.grant(waiting * 5, 1e6)) == SAVED_WRITES
    assert Allowance(0.0, now=0.0).grant(waiting, 1e9) == []


class Lists:
    """An API server of one object of a kind whose version grows with every list; it fails, or refuses kinds."""

    def __init__(self, failures: Sequence[OperatorError] = (), kind: Kind = Kind.DEPLOYMENT) -> None:
        self.failures = list(failures)
        self.refused: set[Kind] = set()
        self.kind = kind
        self.version = 0

    async def list_objects(self, kind: Kind, namespace: str | None) -> list[dict[str, Any]]:
        if self.failures:
            raise self.failures.pop(0)
        if kind in self.refused:
            raise errors.NotAllowed(f"{kind} is forbidden")
        if kind is not self.kind:
            return []
        self.version += 1
        labels = {"astrid.dev/queue": "q"}
        metadata = {"name": "q", "namespace": namespace or "sky", "uid": "u", "labels": labels}
        return [{"metadata": {**metadata, "resourceVersion": str(self.version)}}]


def test_a_watch_that_never_tells_what_lists_tell_is_not_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The silent death of a watch ends in a failing probe; what it missed is acted on all the same."""
    changed: list[QueueKey] = []

    async def scenario() -> bool:
        informer = Informer(Lists([errors.ApiBusy("later")]), Seen(), (), changed.append)  # type: ignore[arg-type]
        monkeypatch.setattr("astrid_operator.informer.RETRY_SECONDS", 0.0)
        await informer.begin()
        assert informer.is_trusted
        assert informer.waiting_for == ""
        running = asyncio.create_task(informer.run(0.01))

        await wait_in_loop(lambda: not informer.is_trusted, 10, "the watch to be doubted", every_s=0.01)
        running.cancel()
        return informer.is_trusted

    assert not asyncio.run(scenario())
    assert set(changed) == {QueueKey("sky", "q")}


def test_the_first_list_is_waited_for_and_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the definition the operator says which command is missing."""
    waits: list[str] = []

    async def scenario() -> None:
        informer = Informer(Lists([errors.ObjectGone("no matches")]), Seen(), ("sky",), lambda _: None)  # type: ignore[arg-type]

        async def pause(_: float) -> None:
            waits.append(informer.waiting_for)

        monkeypatch.setattr("astrid_operator.informer.asyncio.sleep", pause)
        await informer.begin()

    asyncio.run(scenario())
    assert len(waits) == 1
    assert "kubectl apply -f crds/" in waits[0]


def begun(lists: Lists, seen: Seen, *namespaces: str) -> Informer:
    """An informer after its first list."""
    informer = Informer(lists, seen, namespaces, lambda _: None)  # type: ignore[arg-type]

    async def begin() -> None:
        async with asyncio.timeout(10):
            await informer.begin()

    asyncio.run(begin())
    return informer


def test_what_only_tells_of_supply_may_be_refused() -> None:
    """It is said once which rule is missing; nothing is watched that would be refused, and all else is."""
    lists = Lists()
    lists.refused = {Kind.NODE, Kind.QUOTA}
    with capture_logs() as said:
        informer = begun(lists, Seen())
        asyncio.run(informer.compare())

    assert informer.waiting_for == ""
    assert set(informer.watched) == set(Kind) - lists.refused
    assert [line["missing_rule"] for line in said] == [
        'apiGroups: [""], resources: [resourcequotas], verbs: [list, watch]',
        'apiGroups: [""], resources: [nodes], verbs: [list, watch]',
    ]


def test_everything_is_watched_that_may_be_seen_where_the_operator_looks() -> None:
    """Nodes belong to no namespace, and who serves some only may not see them."""
    assert set(begun(Lists(), Seen()).watched) == set(Kind)
    assert set(begun(Lists(), Seen(), "sky", "sea").watched) == set(Kind) - {Kind.NODE}


@pytest.mark.parametrize("needed", [kind for kind in Kind if kind not in OPTIONAL])
def test_what_is_needed_is_waited_for(needed: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without it nothing can be decided; it goes on once the right is given."""
    lists, waits = Lists(), []
    lists.refused = {needed}

    async def scenario() -> None:
        informer = Informer(lists, Seen(), (), lambda _: None)  # type: ignore[arg-type]

        async def pause(_: float) -> None:
            waits.append(informer.waiting_for)
            lists.refused.clear()

        monkeypatch.setattr("astrid_operator.informer.asyncio.sleep", pause)
        await informer.begin()
        assert needed in informer.watched

    asyncio.run(scenario())
    assert waits == [f"the API server: {needed} is forbidden"]


def test_a_right_that_is_given_later_is_used_by_the_slow_lists() -> None:
    """No watch tells of that kind then, and nobody doubts the watches for it."""
    lists, seen = Lists(kind=Kind.NODE), Seen()
    lists.refused = {Kind.NODE}
    informer = begun(lists, seen)
    assert not seen.all(Kind.NODE)

    lists.refused.clear()
    asyncio.run(informer.compare())
    assert len(seen.all(Kind.NODE)) == 1
    assert seen.missed() == 0


def test_what_was_known_of_a_kind_stays_when_its_list_is_refused() -> None:
    """A right that is taken away ends the watches; until then what they tell holds."""
    lists, seen = Lists(kind=Kind.NODE), Seen()
    informer = begun(lists, seen)
    lists.refused = {Kind.NODE}
    asyncio.run(informer.compare())

    assert len(seen.all(Kind.NODE)) == 1


def condition(kind: str, status: str, reason: str = "R") -> dict[str, str]:
    return {"type": kind, "status": status, "reason": reason, "message": f"about {reason}"}


def test_events_tell_transitions_once() -> None:
    """A change of size, a stall, an outage and its end are news; the same again is not."""
    scaled = {"lastScale": {"from": 0, "to": 5, "reason": "Backlog", "message": "5 wanted", "at": "t"}}
    down = {"conditions": [condition("BrokerReachable", "False", "BrokerUnreachable")]}
    up = {"conditions": [condition("BrokerReachable", "True", "DemandRead")]}
    stalled = {"conditions": [condition("Stalled", "True", "QueueTaken")]}

    (event,) = events_between({}, scaled)
    assert (event.kind, event.reason) == ("Normal", "Backlog")
    assert event.message == "Scaled from 0 to 5: 5 wanted"
    assert events_between(scaled, scaled) == []
    assert [each.reason for each in events_between(None, stalled)] == ["QueueTaken"]
    assert events_between(stalled, stalled) == []
    assert [each.reason for each in events_between(up, down)] == ["BrokerUnreachable"]
    assert [each.reason for each in events_between(down, up)] == ["BrokerRecovered"]
    assert events_between(None, up) == []


def test_settings_come_from_the_environment_and_hide_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    """What start-up prints is what is in force, without credentials."""
    monkeypatch.setenv("ASTRID_OPERATOR_NAMESPACES", "a, b,")
    monkeypatch.setenv("ASTRID_OPERATOR_TICK_SECONDS", "0.5")
    monkeypatch.setenv("REDIS_URL", "redis://:secret@host:6379/0")
    settings = OperatorSettings()
    shown = json.dumps(settings.effective())

    assert settings.namespaces == ("a", "b")
    assert settings.home_namespace == "a"
    assert '"tick_seconds": 0.5' in shown
    assert "redis://***@host:6379/0" in shown
    assert "secret" not in shown + repr(settings)


@pytest.mark.parametrize("times", [(10, 10, 2), (15, 10, 10), (5, 10, 2)])
def test_lease_times_that_could_elect_two_are_refused(times: tuple[float, float, float]) -> None:
    """A leader must give up before a follower may begin."""
    with pytest.raises(ValueError, match="must grow"):
        LeaseTimes(*times)


def test_a_field_that_holds_nonsense_is_named_with_its_path() -> None:
    """The sentence of a stalled condition says which field, what was expected and what is there."""
    error = InvalidSpec("spec.maxRetries", "x" * 500, "must be a whole number")

    assert str(error).startswith("spec.maxRetries is ")
    assert "must be a whole number" in str(error)
    assert len(str(error)) < 150


def test_help_lists_the_verbs_without_loading_them(capsys: pytest.CaptureFixture[str]) -> None:
    """One line for each verb; an unknown one is status 2 and names the valid ones."""
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    lines = capsys.readouterr().out.splitlines()

    assert ended.value.code == 0
    for verb in ("run", "local", "render"):
        assert sum(line.split()[:1] == [verb] for line in lines) == 1
    with pytest.raises(SystemExit) as ended:
        main(["fly"])
    assert ended.value.code == 2
    assert "'run'" in capsys.readouterr().err
