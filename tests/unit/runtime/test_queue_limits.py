"""The limits of a task are those of the queue that its message came through, whoever else runs its actor."""

import threading

import dramatiq
import pytest
from dramatiq import Message
from dramatiq.brokers.stub import StubBroker
from dramatiq.middleware import Middleware

from astrid_workers.queue_limits import QueueLimits

LIMITS = {"patient": {"max_retries": 3}, "hasty": {"max_retries": 0}}
SECONDS = 10


class Seen(Middleware):
    """What an actor's options say once its task has ended, where retries are decided."""

    def __init__(self) -> None:
        self.limits: dict[str, int | None] = {}

    def after_process_message(self, broker, message, *, result=None, exception=None) -> None:
        options = broker.get_actor(message.actor_name).options
        self.limits[message.args[0]] = options.get("max_retries")


@pytest.fixture
def seen() -> Seen:
    return Seen()


@pytest.fixture
def broker(seen):
    made = StubBroker(middleware=[QueueLimits(LIMITS.__getitem__), seen])
    made.add_middleware(dramatiq.middleware.Retries())
    for queue in LIMITS:
        made.declare_queue(queue)
    yield made
    made.close()


def test_one_actor_on_two_queues_at_once_has_the_limits_of_each(broker, seen) -> None:
    """The patient task begins, the hasty one begins and ends, then the patient one ends."""
    has_begun, may_end = threading.Event(), threading.Event()

    @dramatiq.actor(broker=broker, queue_name="hasty")
    def work(name: str) -> None:
        if name == "patient":
            has_begun.set()
            assert may_end.wait(SECONDS)

    worker = dramatiq.Worker(broker, worker_timeout=50, worker_threads=2)
    worker.start()
    try:
        broker.enqueue(Message("patient", "work", ("patient",), {}, {}))
        assert has_begun.wait(SECONDS)
        broker.enqueue(Message("hasty", "work", ("hasty",), {}, {}))
        broker.join("hasty", timeout=SECONDS * 1000)
        may_end.set()
        broker.join("patient", timeout=SECONDS * 1000)
    finally:
        worker.stop()
    assert seen.limits == {"patient": 3, "hasty": 0}


def test_between_messages_an_actor_has_the_limits_that_it_was_declared_with(broker) -> None:
    """Its own queue's; what else it was declared with stands."""

    @dramatiq.actor(broker=broker, queue_name="hasty", min_backoff=7)
    def work() -> None:
        """Nothing."""

    assert work.options.get("max_retries") == 0
    assert work.options.get("min_backoff") == 7
    assert work.options.get("time_limit", 5) == 5
