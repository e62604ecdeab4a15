"""What the API server's answers mean to us.

Owns the translation of HTTP statuses and network failures into the operator's own errors. Never sends a
request, never decides whether to try again.
"""

import json
from collections.abc import Awaitable, Mapping
from typing import Any, Protocol

import aiohttp

from astrid_operator.errors import (
    ApiBusy,
    ApiUnreachable,
    Conflict,
    FleetRefused,
    NotAllowed,
    ObjectGone,
    OperatorError,
    QuotaExceeded,
    StillLeaving,
)

#: Seconds to wait after a 429 that does not say how long.
DEFAULT_RETRY_AFTER_SECONDS = 1.0


class Response(Protocol):
    """The part of an HTTP response that is read here."""

    @property
    def status(self) -> int: ...

    @property
    def headers(self) -> Mapping[str, str]: ...

    async def read(self) -> bytes: ...


async def answer(call: Awaitable[Response]) -> dict[str, Any]:
    """The JSON object that `call` is answered with; raises what `failure` makes of any other answer."""
    try:
        response = await call
        body = await response.read()
    except TimeoutError as error:
        message = "the API server did not answer in time"
        raise ApiUnreachable(message) from error
    except (aiohttp.ClientError, OSError) as error:
        message = f"the API server cannot be reached: {type(error).__name__}"
        raise ApiUnreachable(message) from error
    document = _document(body)
    if response.status >= 400:
        raise failure(response.status, document, response.headers)
    return document


def failure(status: int, document: Mapping[str, Any], headers: Mapping[str, str]) -> OperatorError:
    """The error that an answer of `status` with a Status object as `document` stands for."""
    sentence = str(document.get("message") or f"the API server answered {status}")
    if status == 403:
        return _forbidden(sentence, document)
    if status == 404:
        return _not_found(sentence, document)
    if status == 409:
        return Conflict(sentence)
    if status in (400, 413, 415, 422):
        return FleetRefused(sentence)
    if status == 401:
        return ApiBusy("the API server does not accept our credentials now")
    return ApiBusy(sentence, _retry_after(status, document, headers))


def _forbidden(sentence: str, document: Mapping[str, Any]) -> OperatorError:
    if "exceeded quota" in sentence or "failed quota" in sentence:
        return QuotaExceeded(sentence)
    causes = (document.get("details") or {}).get("causes") or []
    if any(cause.get("reason") == "NamespaceTerminating" for cause in causes):
        return StillLeaving(sentence)
    return NotAllowed(sentence)


def _not_found(sentence: str, document: Mapping[str, Any]) -> OperatorError:
    """A write into a missing namespace is told from one to a missing object."""
    if (document.get("details") or {}).get("kind") == "namespaces":
        return StillLeaving(sentence)
    return ObjectGone(sentence)


def _retry_after(status: int, document: Mapping[str, Any], headers: Mapping[str, str]) -> float | None:
    asked = headers.get("Retry-After") or (document.get("details") or {}).get("retryAfterSeconds")
    try:
        return max(0.0, float(asked)) if asked is not None else _default_pause(status)
    except (TypeError, ValueError):
        return _default_pause(status)


def _default_pause(status: int) -> float | None:
    return DEFAULT_RETRY_AFTER_SECONDS if status == 429 else None


def _document(body: bytes) -> dict[str, Any]:
    try:
        document = json.loads(body)
    except ValueError:
        return {"message": body[:200].decode("utf-8", "replace")}
    return document if isinstance(document, dict) else {}
