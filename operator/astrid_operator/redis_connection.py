"""Connections to a broker, whatever its address says: one server, with or without TLS, or Sentinels.

Owns the words of an address and of what goes wrong with it. A Sentinel address names the Sentinels and the
service that they watch, as in `redis+sentinel://user:password@s1:26379,s2:26379/service/0`; user, password
and database are those of the servers, `?sentinel_username=…&sentinel_password=…` those of the Sentinels, and
`rediss+sentinel://` speaks TLS with all. Every connection gives up instead of waiting, and is never tried
again by itself: whoever asks once a second is a better judge. Nothing here connects before its first command.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias
from urllib.parse import SplitResult, parse_qsl, urlencode, urlsplit

import redis
import redis.asyncio
import redis.asyncio.sentinel
import redis.sentinel
from redis import exceptions as redis_errors
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.connection import parse_url
from redis.retry import Retry

AnyRedis: TypeAlias = "redis.Redis | redis.asyncio.Redis"

#: Address schemes: those of redis-py, and those for Sentinels.
SENTINEL_SCHEMES = ("redis+sentinel://", "rediss+sentinel://")
SCHEMES = ("redis://", "rediss://", "unix://", *SENTINEL_SCHEMES)

#: Why an address falls apart. What urllib says of it is not shown: that repeats half a password.
RESERVED = (
    "it cannot be taken apart; reserved characters in a user name, password or option must be percent-encoded"
    " (/ as %2F, ? as %3F, # as %23, @ as %40)"
)

SERVER_PORT, SENTINEL_PORT = 6379, 26379
#: Longest that one Sentinel is waited for, in seconds: the next one knows as much.
SENTINEL_SECONDS = 0.5

#: Longest that the end of a connection is waited for, in seconds.
GOODBYE_SECONDS = 1.0

#: What an error of redis-py means, the first that fits. Its own text is not shown: that may hold anything.
_TROUBLES: tuple[tuple[type[Exception], str], ...] = (
    (redis_errors.BusyLoadingError, "Loading: it is still reading its data set"),
    (redis_errors.AuthenticationError, "NotAuthenticated: it refuses the credentials"),
    (redis_errors.AuthorizationError, "NotAuthorised: its user may not do this"),
    (redis_errors.NoPermissionError, "NotAuthorised: its user may not do this"),
    (redis_errors.ReadOnlyError, "ReadOnly: it is a replica"),
    (redis_errors.MasterDownError, "MasterDown: it is a replica without its master"),
    (redis_errors.MaxConnectionsError, "TooManyConnections"),
    (redis_errors.OutOfMemoryError, "OutOfMemory"),
    (redis_errors.TimeoutError, "TimedOut: it did not answer in time"),
    (TimeoutError, "TimedOut: it did not answer in time"),
    (redis.sentinel.MasterNotFoundError, "NoMaster: no Sentinel names one"),
    (redis.asyncio.sentinel.MasterNotFoundError, "NoMaster: no Sentinel names one"),
    (redis_errors.ConnectionError, "Unreachable: no connection"),
    (OSError, "Unreachable: no connection"),
    (ValueError, "BadAddress: its address cannot be understood"),
    (redis_errors.ResponseError, "Refused: it answers with an error"),
)


def trouble_of(error: Exception) -> str:
    """One word and a few more for why a Redis could not be read."""
    words = next((words for kind, words in _TROUBLES if isinstance(error, kind)), type(error).__name__)
    return f"{words} ({error})" if type(error) is redis_errors.ResponseError else words


class Place(NamedTuple):
    """One database, however its address is spelled; with Sentinels, as one of them knows it."""

    scheme: str
    host: str
    port: int
    #: Service that a Sentinel watches; empty: the server itself is at `host`.
    service: str
    database: int


@dataclass(frozen=True, slots=True)
class SentinelAddress:
    """Where the present server of a service is asked for."""

    sentinels: tuple[tuple[str, int], ...]
    service: str
    #: What redis-py is told of the servers, and of the Sentinels.
    server_arguments: dict[str, Any]
    sentinel_arguments: dict[str, Any]


def sentinel_address(url: str) -> SentinelAddress | None:
    """The Sentinels that `url` names; None where it names a server.

    Raises ValueError with a sentence that repeats nothing of `url`.
    """
    split = _taken_apart(url)
    if not url.startswith(SENTINEL_SCHEMES):
        return None
    credentials, at, hosts = split.netloc.rpartition("@")
    service, _, database = split.path.strip("/").partition("/")
    if not service:
        message = "a Sentinel address names the service too: redis+sentinel://host:26379/service"
        raise ValueError(message)
    options = dict(parse_qsl(split.query))
    own = {name: options.pop(f"sentinel_{name}", None) for name in ("username", "password")}
    scheme = split.scheme.partition("+")[0]
    server = parse_url(  # type: ignore[no-untyped-call]
        f"{scheme}://{credentials}{at}server/{database}?{urlencode(options)}"
    )
    arguments = {
        name: value for name, value in server.items() if name not in ("host", "port", "connection_class")
    }
    secure = {name: value for name, value in arguments.items() if name.startswith("ssl")}
    if scheme == "rediss":
        secure["ssl"] = True
    return SentinelAddress(
        sentinels=tuple(_host_and_port(each) for each in hosts.split(",") if each),
        service=service,
        server_arguments={**arguments, **secure},
        sentinel_arguments={**{name: value for name, value in own.items() if value}, **secure},
    )


def places(url: str) -> frozenset[Place]:
    """Where `url` leads, without who asks and how; addresses that share a place lead to one database.

    A server is one place, and a service is one for each of its Sentinels. Raises ValueError where `url` is no
    address.
    """
    scheme = url.partition("://")[0]
    if (address := sentinel_address(url)) is not None:
        database = int(address.server_arguments.get("db", 0))
        return frozenset(
            Place(scheme, host, port, address.service, database) for host, port in address.sentinels
        )
    server = parse_url(url)  # type: ignore[no-untyped-call]
    database = int(server.get("db", 0))
    if scheme == "unix":
        return frozenset({Place(scheme, server.get("path", ""), 0, "", database)})
    host = server.get("host", "localhost").lower()
    return frozenset({Place(scheme, host, int(server.get("port", SERVER_PORT)), "", database)})


def connection(url: str, *, timeout_seconds: float, name: str) -> "redis.asyncio.Redis":
    """A client for `url`, called `name` on the server; raises ValueError where it is no address."""
    arguments = _arguments(timeout_seconds, AsyncRetry(NoBackoff(), 0))
    address = sentinel_address(url)
    if address is None:
        return redis.asyncio.from_url(url, client_name=name, **arguments)
    asking = {**arguments, **_short(timeout_seconds), **address.sentinel_arguments}
    serving = {**arguments, "client_name": name, **address.server_arguments}
    sentinel = redis.asyncio.sentinel.Sentinel(  # type: ignore[no-untyped-call]
        address.sentinels, sentinel_kwargs=asking
    )
    client: redis.asyncio.Redis = sentinel.master_for(address.service, **serving)
    return client


def blocking_connection(url: str, *, timeout_seconds: float, name: str) -> redis.Redis:
    """The same for code that waits."""
    arguments = _arguments(timeout_seconds, Retry(NoBackoff(), 0))
    address = sentinel_address(url)
    if address is None:
        return redis.Redis.from_url(url, client_name=name, **arguments)
    asking = {**arguments, **_short(timeout_seconds), **address.sentinel_arguments}
    serving = {**arguments, "client_name": name, **address.server_arguments}
    sentinel = redis.sentinel.Sentinel(  # type: ignore[no-untyped-call]
        address.sentinels, sentinel_kwargs=asking
    )
    client: redis.Redis = sentinel.master_for(address.service, **serving)  # type: ignore[no-untyped-call]
    return client


def check_address(url: str, connect: Callable[..., AnyRedis] = connection) -> None:
    """Raises ValueError, with a sentence that repeats no secret of `url`, where `connect` cannot use it.

    That takes a connection, which is not opened: redis-py looks at options no earlier.
    """
    if not url.startswith(SCHEMES):
        message = f"expected one of {', '.join(SCHEMES)}"
        raise ValueError(message)
    sentinel_address(url)
    if not _is_usable(url, connect):
        message = f"redis-py cannot use {_unusable_option(url, connect)}"
        raise ValueError(message)


async def leave(client: "redis.asyncio.Redis") -> None:
    """The same, given up after `GOODBYE_SECONDS`."""
    with suppress(TimeoutError):
        async with asyncio.timeout(GOODBYE_SECONDS):
            await disconnect(client)


async def disconnect(client: "redis.asyncio.Redis") -> None:
    """End a client's connections, those to Sentinels too, whatever state they are in."""
    sentinel = getattr(client.connection_pool, "sentinel_manager", None)
    for each in (client, *(sentinel.sentinels if sentinel is not None else ())):
        with suppress(redis_errors.RedisError, OSError):
            await each.aclose()


def _is_usable(url: str, connect: Callable[..., AnyRedis]) -> bool:
    try:
        connect(url, timeout_seconds=1.0, name="astrid-operator").connection_pool.make_connection()
    except (TypeError, AttributeError, ValueError, redis_errors.RedisError):  # of a name, or of a value
        return False
    return True


def _unusable_option(url: str, connect: Callable[..., AnyRedis]) -> str:
    """Which option of `url` fails by itself, as a phrase."""
    place, _, options = url.partition("?")
    for name, value in parse_qsl(options):
        if "password" in name or not name.isidentifier():
            break  # what follows may be a piece of a password
        if not _is_usable(f"{place}?{urlencode({name: value})}", connect):
            return f"its option {name}"
    return "one of its options"


def _arguments(timeout_seconds: float, retry: Any) -> dict[str, Any]:
    return {
        "socket_timeout": timeout_seconds,
        "socket_connect_timeout": timeout_seconds,
        "retry": retry,
        "decode_responses": False,
    }


def _short(timeout_seconds: float) -> dict[str, float]:
    seconds = min(timeout_seconds, SENTINEL_SECONDS)
    return {"socket_timeout": seconds, "socket_connect_timeout": seconds}


def _taken_apart(url: str) -> SplitResult:
    """The parts of `url`. With an `@` behind it, what seems to be the host is a piece of user or password."""
    try:
        split = urlsplit(url)
        if not url.startswith(SENTINEL_SCHEMES):
            _ = split.port  # raises where it is no number
    except ValueError:
        raise ValueError(RESERVED) from None
    if "@" in f"{split.path}{split.query}{split.fragment}":
        raise ValueError(RESERVED)
    return split


def _host_and_port(text: str) -> tuple[str, int]:
    """Raises ValueError where the port is no number, without repeating it: it may be half a password."""
    split = urlsplit(f"//{text}")
    try:
        return split.hostname or "localhost", split.port or SENTINEL_PORT
    except ValueError:
        message = "the port of a Sentinel is no number"
        raise ValueError(message) from None
