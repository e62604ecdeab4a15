"""Reading a file from somebody else's https server.

Owns that the address is checked after it is resolved and is the one connected to, that nothing is followed or
unpacked, and the caps on size and time. Never decides what the bytes are.
"""

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from ssl import SSLContext
from urllib.parse import SplitResult, urlsplit

import httpx

from astrid_workers.errors import ServiceUnavailable, SourceRefused
from astrid_workers.storage.addresses import is_public

#: Answers after which trying again may help, beside the 5xx.
_RETRYABLE_STATUS = frozenset({408, 425, 429})


def resolved(host: str, port: int) -> list[str]:
    """The addresses of `host`. Raises ServiceUnavailable where its name does not resolve."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
    except (OSError, UnicodeError) as error:
        msg = f"the name {host} does not resolve: {error}"
        raise ServiceUnavailable(msg, service="archive") from error
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


@dataclass(frozen=True, slots=True)
class HttpsReader:
    """Reads addresses within caps; the fields are exchanged in tests only."""

    max_bytes: int
    timeout_seconds: float
    resolve: Callable[[str, int], list[str]] = resolved
    is_allowed: Callable[[str], bool] = is_public
    tls: SSLContext = field(default_factory=httpx.create_ssl_context)
    clock: Callable[[], float] = time.monotonic

    def read(self, url: str) -> bytes:
        """All bytes that `url` answers with.

        Raises SourceRefused for an address that may not be read, a redirect, an answer that a retry would not
        change and a file above the cap; ServiceUnavailable for a server that does not answer in time.
        """
        parts = _split(url)
        shown = f"https://{parts.netloc}{parts.path}"
        deadline = self.clock() + self.timeout_seconds
        with self._answer(parts, shown) as answer:
            _check_answer(answer, shown)
            return self._body(answer, shown, deadline)

    @contextmanager
    def _answer(self, parts: SplitResult, shown: str) -> Iterator[httpx.Response]:
        host, port = str(parts.hostname), parts.port or 443
        address = self._address(host, port, shown)
        literal = f"[{address}]" if ":" in address else address
        target = parts._replace(netloc=f"{literal}:{port}", fragment="").geturl()
        timeout = httpx.Timeout(min(30.0, self.timeout_seconds))
        try:
            with (
                httpx.Client(
                    verify=self.tls, trust_env=False, follow_redirects=False, timeout=timeout
                ) as client,
                client.stream(
                    "GET",
                    target,
                    headers={"Host": parts.netloc, "Accept-Encoding": "identity"},
                    extensions={"sni_hostname": host},
                ) as answer,
            ):
                yield answer
        except httpx.InvalidURL as error:
            msg = f"{shown} is refused: {error}"
            raise SourceRefused(msg) from error
        except (httpx.TransportError, httpx.StreamError) as error:
            msg = f"{shown} does not answer: {error or type(error).__name__}"
            raise ServiceUnavailable(msg, service="archive") from error

    def _address(self, host: str, port: int, shown: str) -> str:
        """The address to connect to; one that is not allowed among several refuses them all."""
        addresses = self.resolve(host, port)
        for address in addresses:
            if not self.is_allowed(address):
                who = host if host == address else f"{host} is {address}, which"
                msg = f"{shown} is refused: {who} is not an address of the public internet"
                raise SourceRefused(msg)
        return addresses[0]

    def _body(self, answer: httpx.Response, shown: str, deadline: float) -> bytes:
        announced = _announced_bytes(answer)
        if announced is not None and announced > self.max_bytes:
            raise _too_large(shown, self.max_bytes)
        body = bytearray()
        # As it arrives: gathering chunks of a fixed size would put off the look at the clock.
        for chunk in answer.iter_raw():
            body += chunk
            if len(body) > self.max_bytes:
                raise _too_large(shown, self.max_bytes)
            if self.clock() > deadline:
                msg = f"{shown} took longer than {self.timeout_seconds:g} s for {len(body)} bytes"
                raise ServiceUnavailable(msg, service="archive", received_bytes=len(body))
        if announced is not None and len(body) != announced:
            msg = f"{shown} broke off after {len(body)} of {announced} bytes"
            raise ServiceUnavailable(msg, service="archive", received_bytes=len(body))
        return bytes(body)


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        msg = f"an https address is refused: {error}"
        raise SourceRefused(msg) from error
    if parts.scheme != "https" or not parts.hostname or port == 0 or not url.isascii():
        msg = "an https address is refused: expected https://HOST/PATH in ASCII"
        raise SourceRefused(msg)
    if "@" in parts.netloc:
        msg = f"the address on {parts.hostname} is refused: it has a user name in it"
        raise SourceRefused(msg)
    return parts


def _check_answer(answer: httpx.Response, shown: str) -> None:
    status = answer.status_code
    if answer.is_redirect or 300 <= status < 400:
        msg = f"{shown} is refused: it redirects (status {status}), give the final address"
        raise SourceRefused(msg)
    if status >= 500 or status in _RETRYABLE_STATUS:
        msg = f"{shown} answers with status {status}"
        raise ServiceUnavailable(msg, service="archive", status=status)
    if status != 200:
        msg = f"{shown} is refused: it answers with status {status}"
        raise SourceRefused(msg, status=status)
    encoding = answer.headers.get("Content-Encoding", "identity")
    if encoding != "identity":
        msg = f"{shown} is refused: it answers with content encoding {encoding}, which was not asked for"
        raise SourceRefused(msg)


def _announced_bytes(answer: httpx.Response) -> int | None:
    text = answer.headers.get("Content-Length", "")
    return int(text) if text.isascii() and text.isdigit() else None


def _too_large(shown: str, max_bytes: int) -> SourceRefused:
    msg = f"{shown} is refused: it has more than {max_bytes} bytes"
    return SourceRefused(msg, max_bytes=max_bytes)
