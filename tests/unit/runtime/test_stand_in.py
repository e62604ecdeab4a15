"""Who stands in for a process: when it speaks, what it says, and how it connects."""

import json
import math
import threading
import time
from typing import Any

import dramatiq
import pytest
import redis
from dramatiq.brokers.redis import RedisBroker
from dramatiq.brokers.stub import StubBroker
from redis.credentials import UsernamePasswordCredentialProvider

from astrid_workers.middleware import stand_in
from astrid_workers.middleware.held import Held
from astrid_workers.middleware.stand_in import HandOnError, StandIn, connection_of
from astrid_workers.middleware.stand_in_process import SETTLING_S, client, must_speak, said_again
from astrid_workers.middleware.time_limit import WATCHDOG_S, TimeLimit
from astrid_workers.redis_address import redis_client
from support.waiting import wait_until

NOW = 1000.0


@pytest.mark.parametrize(
    ("sentence", "heard_ago", "until", "speaks"),
    [
        ("A process that beats speaks for itself", 2.0, NOW + 600, False),
        ("one that missed a beat is spoken for", 4.0, NOW + 600, True),
        ("for as long as its task may take", 599.0, NOW + 1, True),
        ("and no longer", 601.0, NOW - 1, False),
        ("for ever where a task has no limit", 1e6, math.inf, True),
        ("A result may be on its way though nothing runs", SETTLING_S - 1, 0.0, True),
        ("but not for long", SETTLING_S + 1, 0.0, False),
    ],
)
def test_it_speaks_where_silence_is_in_order(
    sentence: str, heard_ago: float, until: float, speaks: bool
) -> None:
    """A process that hangs for good is given up; one whose task may be silent is not."""
    assert must_speak(NOW, NOW - heard_ago, until, 2.0) is speaks, sentence


def test_the_last_words_are_said_again_with_their_age() -> None:
    """What is not known anew stays as the process said it; since when it is silent does not move."""
    said = {"pod": "p", "busy": 2, "task_since": 5.0, "idle_since": None, "draining": True, "beat": 100.0}

    once = said_again(json.dumps(said).encode(), holds=True, now=104.0)
    assert json.loads(once) == {**said, "beat": 104.0, "silent_since": 100.0}

    twice = said_again(once.encode(), holds=False, now=106.0)
    assert json.loads(twice) == {**said, "beat": 106.0, "silent_since": 100.0}


def test_who_holds_a_message_is_not_said_to_be_idle() -> None:
    """A task that began after the last beat is not in the last words; whoever is idle may be asked to leave."""
    said = {"busy": 0, "idle_since": 90.0, "task_since": None, "beat": 100.0}

    holding = json.loads(said_again(json.dumps(said).encode(), holds=True, now=104.0))
    assert (holding["busy"], holding["idle_since"], holding["task_since"]) == (1, None, None)

    free = json.loads(said_again(json.dumps(said).encode(), holds=False, now=104.0))
    assert (free["busy"], free["idle_since"]) == (0, 90.0)


@pytest.mark.parametrize("text", [None, b"", b"[]", b"1", b"{}", b'{"beat": 1}', b"\xff", b'{"busy": 0}'])
def test_nothing_is_invented(text: bytes | None) -> None:
    """No record, or none that the process could have written: none is made in its place."""
    assert said_again(text, holds=True, now=104.0) is None


ADDRESSES = [
    "redis://user:secret@there:7000/3?health_check_interval=7",
    "rediss://there:7000/0?ssl_ca_certs=/ca.pem&ssl_cert_reqs=required",
    "unix:///run/redis.sock?db=2",
    "redis+sentinel://user:secret@s1:26379,s2:26380/sky/2?sentinel_password=hidden",
    "rediss+sentinel://s1/sky?ssl_ca_certs=/ca.pem",
]
#: What says to where, as whom and how a connection goes.
TELLING = ("host", "port", "path", "db", "username", "password", "health_check_interval", "ssl_ca_certs")


def telling(pool: Any) -> tuple[Any, ...]:
    """What matters of a pool, of its Sentinels too."""
    sentinels = getattr(getattr(pool, "sentinel_manager", None), "sentinels", [])
    arguments = [pool.connection_kwargs.get(name) for name in TELLING]
    service = getattr(pool, "service_name", None)
    return pool.connection_class, arguments, service, [telling(one.connection_pool) for one in sentinels]


@pytest.mark.parametrize("address", ADDRESSES)
def test_it_connects_as_the_broker_does(address: str) -> None:
    """One server, TLS, a socket, Sentinels: the same place by the same names, through what JSON can carry."""
    pool = redis_client(address).connection_pool

    handed_on = json.loads(json.dumps(connection_of(pool)))
    theirs = client(stand_in.Connection(*handed_on)).connection_pool

    assert telling(theirs) == telling(pool)
    assert theirs.connection_kwargs["socket_timeout"] == stand_in.SIDE_TIMEOUT_S


@pytest.mark.parametrize(
    "arguments",
    [
        {"credential_provider": UsernamePasswordCredentialProvider("user", "secret")},
        {"redis_connect_func": print},
        {"password": b"secret"},
    ],
)
def test_what_cannot_be_handed_on_is_said_and_hinders_nothing(
    arguments: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    """An object of the application's own: the worker works without anybody who stands in for it."""
    pool = redis.ConnectionPool(host="there", **arguments)
    with pytest.raises(HandOnError):
        connection_of(pool)

    absent = StandIn()
    absent.before_worker_boot(RedisBroker(client=redis.Redis(connection_pool=pool)), None)
    absent.heard()
    absent.after_worker_shutdown(None, None)
    assert f"its connections are made with {next(iter(arguments))}" in caplog.text
    assert "secret" not in caplog.text


class Listener(StandIn):
    """Notes what it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.until = -1.0

    def may_be_silent_until(self, moment: float) -> None:
        self.until = moment


@pytest.mark.parametrize(
    ("limit_ms", "seconds"), [(600_000, 600 + 10 + WATCHDOG_S), (float("inf"), math.inf)]
)
def test_silence_is_in_order_until_the_watchdog_acts(limit_ms: float, seconds: float) -> None:
    """From before a task begins until it has ended, it may be silent as long as it may take."""
    broker, told = StubBroker(middleware=[]), Listener()
    limit = TimeLimit(Held(), told, time_limit=limit_ms)
    broker.actor_options |= limit.actor_options
    dramatiq.actor(broker=broker, actor_name="work")(threading.Event().wait)
    message = dramatiq.MessageProxy(dramatiq.Message("default", "work", (), {}, {}))
    try:
        limit.before_process_message(broker, message)
        assert told.until == pytest.approx(time.monotonic() + seconds, abs=5)

        limit.after_process_message(broker, message)
        limit.after_worker_boot(broker, None)
        wait_until(lambda: told.until == 0.0, 10, "the end to be told")
    finally:
        limit.after_worker_shutdown(broker, None)
