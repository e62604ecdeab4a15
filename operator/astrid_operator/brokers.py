"""Which Redis serves an AstridQueue.

Owns the way from `spec.broker` to an address: a file mounted for it, else `REDIS_URL`. Never connects, never
reads a Secret through the API, and never shows an address with its password.
"""

from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from time import monotonic

from astrid_operator.errors import BrokerNotConfigured
from astrid_operator.redis_address import redacted
from astrid_operator.redis_connection import Place, check_address, places

#: The broker of an AstridQueue that names none: the default of `spec.broker.secretRef`.
DEFAULT_SECRET, DEFAULT_KEY = "astrid-redis", "url"

#: Seconds for which a mounted address is believed before its file is read again.
REREAD_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class BrokerAddress:
    """One Redis endpoint. Its text form is fit for logs; `url` is not."""

    url: str = field(repr=False)

    def __str__(self) -> str:
        return redacted(self.url)

    @property
    def places(self) -> frozenset[Place]:
        """Where it leads: two addresses of one database have one in common."""
        return _places(self.url)


class Brokers:
    """Addresses of brokers by what AstridQueues call them."""

    def __init__(self, brokers_dir: Path, default_url: str | None) -> None:
        self._dir = brokers_dir
        self._default = default_url
        self._read: dict[tuple[str, str, str], tuple[float, str | None]] = {}

    def address(self, namespace: str, secret: str = DEFAULT_SECRET, key: str = DEFAULT_KEY) -> BrokerAddress:
        """The Redis that an AstridQueue in `namespace` means by `secret` and `key`.

        Raises BrokerNotConfigured where it names a broker that is not mounted or that is no Redis address.
        """
        mounted = self._mounted(namespace, secret, key)
        if mounted is not None:
            return _checked(mounted, f"File {namespace}/{secret}/{key} of the mounted brokers")
        if (secret, key) == (DEFAULT_SECRET, DEFAULT_KEY):
            if self._default:
                return _checked(self._default, "REDIS_URL of the operator")
            message = f"Neither REDIS_URL nor the broker {namespace}/{secret}/{key} is known to the operator"
            raise BrokerNotConfigured(message)
        message = f"Broker {namespace}/{secret}/{key} is not mounted into the operator"
        raise BrokerNotConfigured(message)

    def _mounted(self, namespace: str, secret: str, key: str) -> str | None:
        """Text of the mounted file; None where there is none. A name cannot lead out of the folder."""
        named = (namespace, secret, key)
        read_at, text = self._read.get(named, (float("-inf"), None))
        if monotonic() - read_at > REREAD_SECONDS:
            is_name = all(part and not part.startswith(".") and "/" not in part for part in named)
            text = _text_of(self._dir.joinpath(*named)) if is_name else None
            self._read[named] = (monotonic(), text)
        return text


def _text_of(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8").strip()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, UnicodeDecodeError) as error:
        message = f"Mounted broker address {'/'.join(path.parts[-3:])} cannot be read: {type(error).__name__}"
        raise BrokerNotConfigured(message) from error


def _checked(url: str, origin: str) -> BrokerAddress:
    if trouble := _trouble(url):
        message = f"{origin} holds no Redis address: {trouble}"
        raise BrokerNotConfigured(message)
    return BrokerAddress(url)


@lru_cache(maxsize=1024)
def _trouble(url: str) -> str:
    """Why `url` cannot be used; empty: it can. Every queue asks once a tick, so an answer is kept."""
    try:
        check_address(url)
    except ValueError as error:
        return str(error)
    return ""


@lru_cache(maxsize=1024)
def _places(url: str) -> frozenset[Place]:
    return places(url)
