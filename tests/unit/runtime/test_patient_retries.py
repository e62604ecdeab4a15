"""What becomes of a task that failed: a retry spent, a wait for a service, or Redis asked again."""

import dramatiq
import pytest
import redis
from dramatiq.brokers.stub import StubBroker

from astrid_workers.broker import service_away
from astrid_workers.errors import ServiceUnavailable
from astrid_workers.middleware import retries
from astrid_workers.middleware.retries import PATIENCE_MS, PatientRetries

DATABASE_AWAY = ServiceUnavailable("the database does not answer", service="database")


class Enqueued(StubBroker):
    """Notes what is enqueued; `refusals` are raised first, one each."""

    def __init__(self):
        super().__init__(middleware=[])
        self.noted, self.refusals = [], []

    def enqueue(self, message, *, delay=None):
        if self.refusals:
            raise self.refusals.pop(0)
        self.noted.append((dict(message.options), delay))


@pytest.fixture
def broker():
    made = Enqueued()
    dramatiq.actor(lambda: None, broker=made, actor_name="work", queue_name="q")
    made.get_actor("work").options.update(max_retries=1, min_backoff=1000, max_backoff=300_000)
    return made


@pytest.fixture
def message():
    return dramatiq.MessageProxy(dramatiq.Message("q", "work", (), {}, {}))


def fail(broker, message, error):
    PatientRetries(service_away).after_process_message(broker, message, exception=error)


def test_a_task_waits_for_the_database_and_spends_no_retry(broker, message):
    """However often a service of the fleet is away, the message is delayed, at most by half a minute."""
    for _ in range(20):
        fail(broker, message, DATABASE_AWAY)
    assert not message.failed
    options, delay_ms = broker.noted[-1]
    assert options["waits"] == 20
    assert "retries" not in options
    assert 10_000 <= delay_ms <= 30_000
    assert broker.noted[0][1] <= 2_000


def test_what_only_one_task_needs_spends_its_retries(broker, message):
    """An archive or a webhook that is away is the task's affair: after its retries it is dead."""
    for _ in range(2):
        fail(broker, message, ServiceUnavailable("the archive does not answer", service="archive"))
    assert message.failed
    assert [options["retries"] for options, _ in broker.noted] == [1]


def test_patience_ends_after_a_week(broker, message):
    """A service that never comes back makes dead letters at last, so that somebody sees them."""
    fail(broker, message, DATABASE_AWAY)
    message.options["waiting_since"] -= PATIENCE_MS + 1000
    fail(broker, message, DATABASE_AWAY)
    fail(broker, message, DATABASE_AWAY)
    assert message.failed


@pytest.mark.parametrize(
    "refusal",
    [
        redis.ConnectionError("gone"),
        redis.exceptions.OutOfMemoryError("full"),
        redis.ReadOnlyError("a replica"),
    ],
    ids=["away", "full", "replica"],
)
def test_a_retry_waits_for_redis_and_counts_once(broker, message, refusal, monkeypatch):
    """A Redis that takes nothing just now, for whatever reason, loses no retry."""
    monkeypatch.setattr(retries, "AGAIN_S", 0.0)
    broker.refusals = [refusal, refusal]
    fail(broker, message, RuntimeError("once"))
    assert [options["retries"] for options, _ in broker.noted] == [1]
