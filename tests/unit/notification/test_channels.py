"""How alerts leave, against a real HTTP server."""

import pytest
import structlog
from structlog.testing import capture_logs

from astrid_workers.errors import DeliveryRefused, ServiceUnavailable, SettingRejected
from astrid_workers.notification.channels import LogChannel, WebhookChannel, channel
from astrid_workers.settings import CHANNELS, NotificationSettings
from support.webhook_receiver import WebhookReceiver

PACKET = {"schema": "astrid.alert/1", "severity": "high", "detection": {"score": 31.5}}


@pytest.fixture
def receiver():
    """A webhook's other end."""
    with WebhookReceiver() as one:
        yield one


@pytest.mark.parametrize("status", [200, 202, 204])
def test_any_2xx_is_delivered(receiver, status):
    """The receipt says what was answered; the body and the idempotency key arrive."""
    receiver.status = status

    receipt = WebhookChannel(receiver.url, 5).deliver(PACKET, "key-1")

    assert f"HTTP {status}" == receipt.answer
    ((path, headers, body),) = receiver.requests
    assert path == "/hooks/secret-token?key=abc"
    assert (headers["Idempotency-Key"], headers["Content-Type"]) == ("key-1", "application/json")
    assert body == PACKET


@pytest.mark.parametrize("status", [400, 401, 404, 410, 422])
def test_a_refusal_by_the_receiver_is_for_good(receiver, status):
    """Repeating the same request would be refused again."""
    receiver.status = status

    with pytest.raises(DeliveryRefused, match=f"answered HTTP {status}"):
        WebhookChannel(receiver.url, 5).deliver(PACKET, "k")


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503])
def test_a_busy_receiver_may_take_it_later(receiver, status):
    """Too early, too many and broken servers are worth a retry."""
    receiver.status = status

    with pytest.raises(ServiceUnavailable, match=f"answered HTTP {status}"):
        WebhookChannel(receiver.url, 5).deliver(PACKET, "k")


def test_a_redirect_is_refused_and_not_followed(receiver):
    """An alert goes to the address that was configured and to no other."""
    receiver.status, receiver.headers = 302, {"Location": receiver.url}

    with pytest.raises(DeliveryRefused, match="HTTP 302"):
        WebhookChannel(receiver.url, 5).deliver(PACKET, "k")
    assert len(receiver.requests) == 1


def test_a_silent_receiver_may_answer_later(receiver):
    """A time-out is a transient failure and says so."""
    receiver.silent.set()

    with pytest.raises(ServiceUnavailable, match="did not answer: ReadTimeout"):
        WebhookChannel(receiver.url, 0.2).deliver(PACKET, "k")


def test_nobody_listening_is_transient(receiver):
    """A receiver that is being restarted is back soon."""
    receiver.go_away()

    with pytest.raises(ServiceUnavailable, match="did not answer: ConnectError"):
        WebhookChannel(receiver.url, 2).deliver(PACKET, "k")


@pytest.mark.parametrize("status", [404, 500])
def test_no_sentence_holds_the_secret_part_of_the_address(receiver, status):
    """Paths and queries of webhooks are credentials."""
    receiver.status = status

    with pytest.raises((DeliveryRefused, ServiceUnavailable)) as caught:
        WebhookChannel(receiver.url, 5).deliver(PACKET, "k")
    assert "secret-token" not in str(caught.value)
    assert "secret-token" not in repr(WebhookChannel(receiver.url, 5))


@pytest.mark.parametrize("url", ["ftp://example.org/x", "example.org/hook", "http://"])
def test_an_address_that_is_none_is_a_setting_to_mend(url):
    """A retry cannot help; the sentence names the variable."""
    with pytest.raises(SettingRejected, match="ASTRID_WEBHOOK_URL"):
        WebhookChannel(url, 1).deliver(PACKET, "k")


def test_the_log_channel_writes_the_whole_packet():
    """One warning with the packet and the key."""
    structlog.reset_defaults()
    with capture_logs() as lines:
        assert LogChannel().deliver(PACKET, "k").answer == "written"

    assert lines == [
        {"event": "alert was raised", "log_level": "warning", "idempotency_key": "k", "alert": PACKET}
    ]


def test_an_unknown_channel_is_refused_with_those_there_are():
    """`carrier-pigeon` is not a channel; log and webhook are."""
    with pytest.raises(SettingRejected, match="there are: log, webhook"):
        channel("carrier-pigeon", NotificationSettings())


def test_a_webhook_without_an_address_says_what_is_missing():
    """The variable is named."""
    with pytest.raises(SettingRejected, match="ASTRID_WEBHOOK_URL"):
        channel("webhook", NotificationSettings())


def test_every_channel_can_be_had():
    """The list of names and the channels themselves agree."""
    settings = NotificationSettings(webhook_url="http://example.org/")

    assert [LogChannel, WebhookChannel] == [type(channel(name, settings)) for name in CHANNELS]


def test_channels_are_listed_once_in_the_order_given(monkeypatch):
    """Spaces, repeats and empty parts of the setting do no harm."""
    monkeypatch.setenv("ASTRID_NOTIFICATION_CHANNELS", " webhook, log,,webhook ")

    assert NotificationSettings().channel_names == ("webhook", "log")
