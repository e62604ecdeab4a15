"""What an address of Redis says: one server, TLS, or Sentinels that know the present server of a service.

Owns the clients of the broker and of results, and what of an address is shown. A Sentinel address is written
as the operator reads it: `redis+sentinel://user:password@s1:26379,s2:26379/service/0`, where user, password
and database are those of the servers, `?sentinel_username=…&sentinel_password=…` those of the Sentinels, and
`rediss+sentinel://` speaks TLS with all. Never connects before the first command, never repeats a password.
"""

import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import SplitResult, parse_qsl, urlencode, urlsplit

import redis
from redis.backoff import NoBackoff
from redis.connection import parse_url
from redis.retry import Retry
from redis.sentinel import Sentinel

SCHEMES = ("redis", "rediss", "unix")
SENTINEL_SCHEMES = ("redis+sentinel", "rediss+sentinel")

#: Seconds that a connection may take, and one answer; and one Sentinel, as the next one knows as much.
CONNECT_TIMEOUT_S = 5.0
ANSWER_TIMEOUT_S = 15.0
SENTINEL_TIMEOUT_S = 1.0

SENTINEL_PORT = 26379

WITHHELD = "(address withheld)"

_HOST = r"(?:[\w.%-]*|\[[\w.:%]+\])(?::\d*)?"
#: Scheme, user and password, and what follows the last `@`, without options.
_SHOWN = tuple(
    re.compile(rf"({scheme}://)([^/?#]*@)?({place})(?:[?#][^@]*)?", re.IGNORECASE)
    for scheme, place in (
        ("rediss?", rf"{_HOST}(?:/\d*)?"),
        (r"rediss?\+sentinel", rf"{_HOST}(?:,{_HOST})*/[^/?#@\s]+(?:/\d*)?"),
        ("unix", r"/[^?#@\s]*"),
    )
)

#: Why an address falls apart. What urllib says of it is not shown: that repeats half a password.
RESERVED = (
    "it cannot be taken apart; reserved characters in a user name, password or option must be percent-encoded"
    " (/ as %2F, ? as %3F, # as %23, @ as %40)"
)


@dataclass(frozen=True, slots=True)
class SentinelAddress:
    """Where the present server of a service is asked for."""

    sentinels: tuple[tuple[str, int], ...]
    service: str
    #: What redis-py is told of the servers, and of the Sentinels.
    server_arguments: dict[str, Any]
    sentinel_arguments: dict[str, Any]


def redacted(url: str) -> str:
    """`url` without user, password and options, fit for logs, status and events.

    Nothing of it is shown where a part does not look like what should stand there: a password that is not
    encoded (`/`, `?` and `#` end the host) may be anywhere then.
    """
    for form in _SHOWN:
        if match := form.fullmatch(url):
            scheme, user, place = match.groups()
            return f"{scheme}{'***@' if user and user != '@' else ''}{place}"
    return WITHHELD


def sentinel_address(url: str) -> SentinelAddress | None:
    """The Sentinels that `url` names; None where it names a server.

    Raises ValueError with a sentence that repeats nothing of `url`.
    """
    split = _taken_apart(url)
    if split.scheme not in SENTINEL_SCHEMES:
        return None
    credentials, at, hosts = split.netloc.rpartition("@")
    service, _, database = split.path.strip("/").partition("/")
    if not service:
        raise ValueError("a Sentinel address names the service too: redis+sentinel://host:26379/service")
    options = dict(parse_qsl(split.query))
    own = {name: options.pop(f"sentinel_{name}", None) for name in ("username", "password")}
    scheme = split.scheme.partition("+")[0]
    server: dict[str, Any] = parse_url(  # type: ignore[no-untyped-call]
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


def redis_client(url: str) -> redis.Redis:
    """A client that gives up on a silent server instead of waiting for ever."""
    patience = {
        "socket_connect_timeout": CONNECT_TIMEOUT_S,
        "socket_timeout": ANSWER_TIMEOUT_S,
        "health_check_interval": 30,
    }
    address = sentinel_address(url)
    if address is None:
        return redis.Redis.from_url(url, **patience)
    asking = {
        "socket_connect_timeout": SENTINEL_TIMEOUT_S,
        "socket_timeout": SENTINEL_TIMEOUT_S,
        "retry": Retry(NoBackoff(), 0),
        **address.sentinel_arguments,
    }
    sentinel = Sentinel(  # type: ignore[no-untyped-call]
        address.sentinels, sentinel_kwargs=asking, **patience, **address.server_arguments
    )
    client: redis.Redis = sentinel.master_for(address.service)  # type: ignore[no-untyped-call]
    return client


def check_address(url: str) -> None:
    """Raises ValueError, with a sentence that repeats no secret of `url`, where no client can use it.

    That takes a connection, which is not opened: redis-py looks at options no earlier.
    """
    if url.partition("://")[0].lower() not in (*SCHEMES, *SENTINEL_SCHEMES):
        known = ", ".join(f"{scheme}://" for scheme in (*SCHEMES, *SENTINEL_SCHEMES))
        raise ValueError(f"expected one of {known}")
    sentinel_address(url)
    if not _is_usable(url):
        raise ValueError(f"redis-py cannot use {_unusable_option(url)}")


def _is_usable(url: str) -> bool:
    try:
        redis_client(url).connection_pool.make_connection()
    except (TypeError, AttributeError, ValueError, redis.RedisError):  # of a name, or of a value
        return False
    return True


def _unusable_option(url: str) -> str:
    """Which option of `url` fails by itself, as a phrase."""
    place, _, options = url.partition("?")
    for name, value in parse_qsl(options):
        if "password" in name or not name.isidentifier():
            break  # what follows may be a piece of a password
        if not _is_usable(f"{place}?{urlencode({name: value})}"):
            return f"its option {name}"
    return "one of its options"


def _taken_apart(url: str) -> SplitResult:
    """The parts of `url`. With an `@` behind it, what seems to be the host is a piece of user or password."""
    try:
        split = urlsplit(url)
        if split.scheme not in SENTINEL_SCHEMES:
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
        raise ValueError("the port of a Sentinel is no number") from None
