"""What this process holds: messages that run here, and messages that were fetched and not started.

Owns the list of running messages, the stop of fetching, and the return of what was not started to the
front of its queue. Never decides when (`drain`, `time_limit`, `memory_limit` do). The first middleware of
the list, so that a message is running from before all other middleware sees it until after.
"""

import contextlib
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from queue import Empty, PriorityQueue
from typing import Any

import dramatiq
from dramatiq.common import q_name
from dramatiq.middleware import Middleware
from dramatiq.worker import ConsumerThread, Worker

from .fleet_keys import acks_key, side_client

#: Returns messages to the front of their queue, as Dramatiq's own `requeue` returns them to the end.
#: KEYS: our unacknowledged ids, the queue's list, the hash of its bodies. ARGV: ids, the last to be
#: served first.
GIVE_BACK = """
local given = 0
for _, id in ipairs(ARGV) do
  if redis.call('SREM', KEYS[1], id) > 0 and redis.call('HEXISTS', KEYS[3], id) > 0 then
    redis.call('LPUSH', KEYS[2], id)
    given = given + 1
  end
end
return given
"""

#: Milliseconds between two looks of a thread that may take nothing.
FULL_PAUSE_MS = 50

#: Most ids that one call of the script returns.
GIVE_BACK_AT_ONCE = 1000


@dataclass(frozen=True, slots=True)
class Running:
    """One message being worked on."""

    message: dramatiq.MessageProxy
    thread_id: int
    #: Monotonic seconds.
    since: float = field(default_factory=time.monotonic)

    @property
    def queue(self) -> str:
        """The queue that it came from."""
        return q_name(self.message.queue_name)


class Held(Middleware):
    """Knows the worker of this process and what it holds."""

    def __init__(self) -> None:
        self.worker: Worker | None = None
        self._stopped_by: set[str] = set()
        #: Set when fetching stops or goes on, and when the last that ran after it stopped is settled.
        self.changed = threading.Event()
        self._idle_since = time.monotonic()
        self._running: dict[str, Running] = {}
        self._settling: dict[str, str] = {}
        self._given_up: defaultdict[str, list[str]] = defaultdict(list)
        self._strays: set[tuple[str, str]] = set()
        self._prefetch: dict[str, int] = {}
        self._lock = threading.Lock()
        self._giving = threading.Lock()

    # What runs

    def before_worker_boot(self, broker: Any, worker: Worker) -> None:
        self.worker = worker
        self._idle_since = time.monotonic()  # what was imported until now was no idleness
        self._client = side_client(broker)
        self._give_back = self._client.register_script(GIVE_BACK)

    def before_process_message(self, _broker: Any, message: dramatiq.MessageProxy) -> None:
        with self._lock:
            self._running[_redis_id(message)] = Running(message, threading.get_ident())
            self._set_pace()

    def after_process_message(self, _broker: Any, message: dramatiq.MessageProxy, **_: Any) -> None:  # type: ignore[override]
        self._end(message)

    def after_skip_message(self, _broker: Any, message: dramatiq.MessageProxy) -> None:
        self._end(message)

    def _end(self, message: dramatiq.MessageProxy) -> None:
        with self._lock:
            self._running.pop(_redis_id(message), None)
            self._settling[_redis_id(message)] = message.queue_name
            self._idle_since = time.monotonic()

    def after_ack(self, _broker: Any, message: dramatiq.MessageProxy) -> None:
        self._settled(message)

    def after_nack(self, _broker: Any, message: dramatiq.MessageProxy) -> None:
        self._settled(message)

    def _settled(self, message: dramatiq.MessageProxy) -> None:
        with self._lock:
            self._settling.pop(_redis_id(message), None)
            self._set_pace()
            is_last = not self._running and not self._settling
        if is_last and not self.fetching:
            self.changed.set()

    def running(self) -> list[Running]:
        """What is being worked on now."""
        with self._lock:
            return list(self._running.values())

    def idle_seconds(self) -> float | None:
        """Seconds since the last task ended (or the process began to fetch); None while one runs."""
        with self._lock:
            return None if self._running else time.monotonic() - self._idle_since

    def queues(self) -> list[str]:
        """The queues that this process consumes, without their delay queues."""
        return sorted({q_name(name) for name in self._consumers()})

    def _consumers(self) -> dict[str, ConsumerThread]:
        return dict(self.worker.consumers) if self.worker is not None else {}

    def dead_threads(self) -> list[str]:
        """Consumers and workers that ended though nobody stopped them: Dramatiq does not replace them."""
        threads: list[Any] = [*self._consumers().values(), *(self.worker.workers if self.worker else ())]
        return [thread.name for thread in threads if thread.running and not thread.is_alive()]

    # What has not started

    @property
    def fetching(self) -> bool:
        """Whether this process takes messages."""
        return not self._stopped_by

    def stop_fetching(self, by: str) -> None:
        """Fetch nothing more. The consumers live on, so that Dramatiq goes on settling what runs."""
        with self._lock:
            self._stopped_by.add(by)
            for name, thread in self._consumers().items():
                self._prefetch.setdefault(name, thread.prefetch)
                _set_prefetch(thread, 0)
            self._set_pace()
        self.changed.set()

    def resume_fetching(self, by: str) -> None:
        """Fetch again, once all who stopped it say so."""
        with self._lock:
            self._stopped_by.discard(by)
            if self.fetching:
                for name, thread in self._consumers().items():
                    _set_prefetch(thread, self._prefetch.pop(name, thread.prefetch))
            self._set_pace()
        self.changed.set()

    def _set_pace(self) -> None:
        """Let threads that may take nothing now look often whether they may, or are to end.

        They ask Redis nothing then, and would sleep through as much as a second of idle time otherwise.
        """
        running = Counter(one.queue for one in self._running.values())
        for name, thread in self._consumers().items():
            is_full = running[q_name(name)] >= thread.prefetch
            usual = thread.worker_timeout
            if thread.consumer is not None:
                thread.consumer.timeout = min(usual, FULL_PAUSE_MS) if is_full else usual  # type: ignore[attr-defined]
        if self.worker is not None:
            pause_ms = self.worker.worker_timeout if self.fetching else FULL_PAUSE_MS
            for worker in self.worker.workers:
                worker.timeout = pause_ms / 1000

    def give_back(self) -> int:
        """Return what was fetched and not started, and say how many.

        What Redis does not take now is tried again next time.
        """
        given = 0
        with self._giving:
            for queue, message_id in self._not_started():
                self._given_up[queue].append(message_id)
            for queue in list(self._given_up):
                given += self._return(queue, self._given_up[queue])
                del self._given_up[queue]
        return given

    def give_back_strays(self) -> int:
        """Return what Redis says we hold and we do not, twice in a row; how many.

        That is what a broken connection leaves: an answer that never came, delayed messages that Dramatiq
        forgot. Call it at long intervals: a message may be on its way between two of our lists for a
        moment.
        """
        seen = set(self._unknown_here())
        strays = seen & self._strays
        self._strays = seen - strays
        by_queue: defaultdict[str, list[str]] = defaultdict(list)
        for queue, message_id in sorted(strays):
            by_queue[queue].append(message_id)
        return sum(self._return(queue, ids) for queue, ids in by_queue.items())

    def forget_strays(self) -> None:
        """Start counting anew: Redis did not answer."""
        self._strays = set()

    def _unknown_here(self) -> Iterator[tuple[str, str]]:
        assert self.worker is not None
        for queue in self._consumers():
            members = self._client.smembers(acks_key(self.worker.broker, queue))  # type: ignore[arg-type]
            if members:
                known = self._known_ids()
                yield from ((queue, name) for name in (raw.decode() for raw in members) if name not in known)

    def _known_ids(self) -> set[str]:
        assert self.worker is not None
        with self._lock:
            known = {
                *self._running,
                *self._settling,
                *(name for ids in self._given_up.values() for name in ids),
            }
        waiting: list[PriorityQueue[Any]] = [self.worker.work_queue]
        for thread in self._consumers().values():
            waiting.append(thread.delay_queue)
            known.update(_redis_id(dramatiq.Message.decode(data)) for data in list(_cache(thread)) if data)
        for one in waiting:
            with one.mutex:
                known.update(_redis_id(item.message) for item in one.queue)
        return known

    def _not_started(self) -> Iterator[tuple[str, str]]:
        """Take (queue, id) of all that waits here, in the order in which it would have been served."""
        assert self.worker is not None
        consumers = self._consumers()
        for message in _taken(self.worker.work_queue):
            yield message.queue_name, _let_go(consumers[message.queue_name], message)
        for name, thread in consumers.items():
            yield from (
                (name, _redis_id(dramatiq.Message.decode(data))) for data in _taken_from_cache(thread)
            )
            yield from ((name, _let_go(thread, message)) for message in _taken(thread.delay_queue))

    def _return(self, queue: str, message_ids: list[str]) -> int:
        assert self.worker is not None
        broker: Any = self.worker.broker
        key = f"{broker.namespace}:{queue}"
        keys = [acks_key(broker, queue), key, f"{key}.msgs"]
        last_first = message_ids[::-1]
        parts = (
            last_first[at : at + GIVE_BACK_AT_ONCE] for at in range(0, len(last_first), GIVE_BACK_AT_ONCE)
        )
        return sum(int(self._give_back(keys=keys, args=part)) for part in parts)


def _redis_id(message: Any) -> str:
    return str(message.options.get("redis_message_id", message.message_id))


def _set_prefetch(thread: ConsumerThread, prefetch: int) -> None:
    thread.prefetch = prefetch
    if thread.consumer is not None:
        thread.consumer.prefetch = prefetch  # type: ignore[attr-defined]


def _cache(thread: ConsumerThread) -> list[bytes | None]:
    """Bodies that were fetched and not looked at: the consumer's own list, which it uses without a lock."""
    cache: list[bytes | None] = getattr(thread.consumer, "message_cache", [])
    return cache


def _taken_from_cache(thread: ConsumerThread) -> Iterator[bytes]:
    """Take one by one, so that each body goes either here or to the consumer."""
    cache = _cache(thread)
    with contextlib.suppress(IndexError):
        while True:
            if (data := cache.pop(0)) is not None:
                yield data


def _taken(waiting: PriorityQueue[Any]) -> Iterator[dramatiq.MessageProxy]:
    with contextlib.suppress(Empty):
        while True:
            item = waiting.get_nowait()
            waiting.task_done()
            yield item.message


def _let_go(thread: ConsumerThread, message: dramatiq.MessageProxy) -> str:
    """Count the message as no longer prefetched; its id in Redis."""
    if thread.consumer is not None:
        thread.consumer.queued_message_ids.discard(message.message_id)  # type: ignore[attr-defined]
    return _redis_id(message)
