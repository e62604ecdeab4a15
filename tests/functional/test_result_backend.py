"""Results in Redis, as long as somebody waits for them."""

import threading

import dramatiq
import pytest
import redis
from dramatiq.results import ResultTimeout
from dramatiq.results.backends import RedisBackend

from astrid_workers import result_backend
from astrid_workers.result_backend import PatientResults


@pytest.fixture
def message():
    return dramatiq.Message("q", "work", (), {}, {})


@pytest.fixture
def impatient(redis_url, monkeypatch):
    """Results through a client that gives up on a silent server after 1.5 s."""
    monkeypatch.setattr(result_backend, "LONGEST_WAIT_MS", 1000)
    client = redis.Redis.from_url(redis_url, socket_timeout=1.5)
    yield PatientResults(client=client, encoder=dramatiq.JSONEncoder())
    client.close()


def test_a_result_is_waited_for_longer_than_the_server_may_be_silent(impatient, message, redis_url):
    """`get_result` waits for its whole timeout, and what Dramatiq's own backend wrote is what it finds."""
    writer = RedisBackend(url=redis_url, encoder=dramatiq.JSONEncoder())
    later = threading.Timer(2.5, writer.store_result, (message, {"status": "done"}, 60_000))
    later.start()
    assert impatient.get_result(message, block=True, timeout=20_000) == {"status": "done"}
    later.join()


def test_a_wait_ends_when_it_should(impatient, message):
    """Nothing came within the timeout: ResultTimeout, not an error of the client."""
    with pytest.raises(ResultTimeout):
        impatient.get_result(message, block=True, timeout=2_200)
