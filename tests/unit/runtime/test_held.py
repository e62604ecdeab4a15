"""What a process says at once: that it has stopped, and that the last it ran since then is settled."""

import dramatiq
import pytest
from dramatiq.brokers.stub import StubBroker

from astrid_workers.middleware.held import FULL_PAUSE_MS, Held


def taken(held: Held, mark: str) -> dramatiq.MessageProxy:
    """A message that begins to run here."""
    options = {"redis_message_id": mark}
    proxy = dramatiq.MessageProxy(dramatiq.Message("sky", "work", (), {}, options, message_id=mark))
    held.before_process_message(StubBroker(), proxy)
    return proxy


@pytest.mark.parametrize("ending", ["after_ack", "after_nack"])
def test_the_end_of_the_last_task_is_told_at_once_by_who_was_asked_to_leave(ending: str) -> None:
    """Its device lies idle until it is told; not before Redis knows that nothing is held."""
    held, broker = Held(), StubBroker()
    first, last = taken(held, "one"), taken(held, "two")
    held.stop_fetching("drain")
    held.changed.clear()

    held.after_process_message(broker, first)
    getattr(held, ending)(broker, first)
    held.after_process_message(broker, last)
    assert not held.changed.is_set()

    getattr(held, ending)(broker, last)
    assert held.changed.is_set()


def test_who_fetches_on_tells_of_no_end() -> None:
    """Short tasks would make a word each."""
    held, broker = Held(), StubBroker()
    only = taken(held, "one")
    held.after_process_message(broker, only)
    held.after_ack(broker, only)
    assert not held.changed.is_set()


class Consumer:
    """What Dramatiq's consumer of Redis has of it."""

    timeout = 1000
    prefetch = 1


class Thread:
    """A consumer's thread, or one that works."""

    def __init__(self, prefetch: int = 1) -> None:
        self.prefetch, self.worker_timeout, self.timeout = prefetch, 1000, 1.0
        self.consumer = Consumer()


class Worker:
    """A worker of one thread, with one queue and its delayed messages."""

    def __init__(self) -> None:
        self.consumers = {"sky": Thread(), "sky.DQ": Thread(prefetch=1000)}
        self.workers, self.worker_timeout = [Thread()], 1000


def test_who_holds_as_much_as_it_may_looks_often_whether_it_may_take_more() -> None:
    """It asks Redis nothing meanwhile; with free hands it asks no more often than ever."""
    held, broker, worker = Held(), StubBroker(), Worker()
    held.worker = worker  # type: ignore[assignment]
    sky, delayed = worker.consumers["sky"].consumer, worker.consumers["sky.DQ"].consumer

    only = taken(held, "one")
    assert (sky.timeout, delayed.timeout) == (FULL_PAUSE_MS, 1000)

    held.after_process_message(broker, only)
    assert sky.timeout == FULL_PAUSE_MS, "it may take nothing before Redis knows that this one has ended"

    held.after_ack(broker, only)
    assert (sky.timeout, delayed.timeout) == (1000, 1000)


def test_threads_of_who_takes_nothing_more_are_soon_ended() -> None:
    """Dramatiq joins them one after the other, each after its own pause; who stays after all asks as ever."""
    held, worker = Held(), Worker()
    held.worker = worker  # type: ignore[assignment]
    consumers = [each.consumer for each in worker.consumers.values()]

    held.stop_fetching("drain")
    assert [each.timeout for each in consumers] == [FULL_PAUSE_MS, FULL_PAUSE_MS]
    assert worker.workers[0].timeout == FULL_PAUSE_MS / 1000

    held.resume_fetching("drain")
    assert [each.timeout for each in consumers] == [1000, 1000]
    assert worker.workers[0].timeout == 1.0
