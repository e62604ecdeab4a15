"""The ways out of Astrid for an alert: a log line and a webhook.

Owns how a channel delivers once and which refusals a retry can help; never reads a row and never remembers
what was delivered. Delivery is at least once: a receiver tells repeats by the Idempotency-Key header.
"""

from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import urlsplit

import httpx
import structlog

from astrid_workers.errors import DeliveryRefused, ServiceUnavailable, SettingRejected
from astrid_workers.settings import NotificationSettings

log = structlog.get_logger(__name__)

#: Statuses below 500 after which the same request may succeed: Request Timeout, Too Early, Too Many Requests.
_RETRY_HELPS = frozenset({408, 425, 429})


@dataclass(frozen=True, slots=True)
class Receipt:
    """That a channel took the packet, and what its other end answered."""

    #: One short phrase: "written", "HTTP 204".
    answer: str


class Channel(Protocol):
    """One way out."""

    def deliver(self, packet: dict[str, Any], idempotency_key: str) -> Receipt:
        """Deliver one packet.

        Raises PermanentFailure when a retry is useless, ServiceUnavailable when it may help.
        """


class LogChannel:
    """Writes the alert to the worker's log, where every deployment has something that reads it."""

    def deliver(self, packet: dict[str, Any], idempotency_key: str) -> Receipt:
        """One warning with the whole packet as a fact."""
        log.warning("alert was raised", idempotency_key=idempotency_key, alert=packet)
        return Receipt("written")


@dataclass(frozen=True, slots=True, repr=False)
class WebhookChannel:
    """Posts the alert as JSON to one address; follows no redirect and reads no body of an answer."""

    url: str
    #: Seconds to connect, and again to answer.
    timeout_s: float

    def deliver(self, packet: dict[str, Any], idempotency_key: str) -> Receipt:
        """One POST; 2xx is delivered."""
        headers = {"Idempotency-Key": idempotency_key, "User-Agent": "astrid"}
        return _judge(self._post(packet, headers), _host(self.url))

    def _post(self, packet: dict[str, Any], headers: dict[str, str]) -> int:
        try:
            with httpx.stream(
                "POST",
                self.url,
                json=packet,
                headers=headers,
                timeout=self.timeout_s,
                follow_redirects=False,
            ) as response:
                return response.status_code
        except (httpx.InvalidURL, httpx.UnsupportedProtocol):
            message = "the webhook's address (ASTRID_WEBHOOK_URL) is not an http or https address"
            raise SettingRejected(message) from None
        except httpx.TransportError as error:
            message = f"the webhook at {_host(self.url)} did not answer: {type(error).__name__}"
            raise ServiceUnavailable(message) from error


def _judge(status: int, host: str) -> Receipt:
    """2xx is delivered; 408, 425, 429 and 5xx may help later; all else, redirects too, is refused for
    good.
    """
    if httpx.codes.is_success(status):
        return Receipt(f"HTTP {status}")
    message = f"the webhook at {host} answered HTTP {status}"
    if status in _RETRY_HELPS or httpx.codes.is_server_error(status):
        raise ServiceUnavailable(message, http_status=status)
    raise DeliveryRefused(message, http_status=status)


def _host(url: str) -> str:
    """Host and port only: paths and queries of webhooks are often secrets."""
    return urlsplit(url).netloc.rpartition("@")[2] or "its address"


def channel(name: str, settings: NotificationSettings) -> Channel:
    """The channel with that name; SettingRejected says what is missing for it."""
    if (missing := settings.missing_for(name)) is not None:
        message = f"the channel {name!r} cannot be used: {missing}"
        raise SettingRejected(message)
    if name == "webhook":
        assert settings.webhook_url is not None
        return WebhookChannel(settings.webhook_url.get_secret_value(), settings.webhook_timeout_seconds)
    return LogChannel()
