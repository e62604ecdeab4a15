"""What a worker process says of itself in Redis, every two seconds.

Owns its own field in `presence:<queue>` of each queue that it consumes, and its heartbeat in Dramatiq's
set: a worker whose prefetch window is full sends no command of its own, and after a minute of silence
another would run its messages a second time. Times are the server's (`TIME`), so that clocks of machines
do not matter. Beats in a thread of its own; while Redis is away it goes on trying, and while C code keeps
the interpreter from this thread another process says its last words again (`stand_in`). Never reads or
decides what other processes do, but for removing records that are a minute old.
"""

import json
import logging
import os
import threading
import time
from typing import Any

import redis
from dramatiq.middleware import Middleware

from .counters import Counters
from .fleet_keys import (
    BEAT_EVERY_S,
    REMOVED_AFTER_S,
    acks_key,
    drain_key,
    heartbeats_key,
    pod_name,
    presence_key,
    process_name,
    side_client,
)
from .held import Held
from .own_process import cpu_seconds, rss_bytes
from .stand_in import StandIn

#: Beats between two looks for records that others left behind.
LOOK_FOR_OLD_EVERY = 15

_log = logging.getLogger(__name__)


class Presence(Middleware):
    """Says that this process lives, what it does, and since when it does nothing."""

    def __init__(
        self, held: Held, counters: Counters, stand_in: StandIn, *, version: str | None = None
    ) -> None:
        self._held, self._counters, self._stand_in = held, counters, stand_in
        self._version = version
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._cpu_at = time.monotonic()
        self._cpu = cpu_seconds()
        self._cpu_percent: float | None = None
        self._beats = 0

    def after_worker_boot(self, broker: Any, worker: Any) -> None:
        self._broker, self._threads = broker, worker.worker_threads
        self._fetches_since = time.monotonic()  # all that is imported is by now
        self._client = side_client(broker)
        self._thread = threading.Thread(target=self._beat_until_stopped, name="presence", daemon=True)
        self._thread.start()

    def after_worker_shutdown(self, _broker: Any, _worker: Any) -> None:
        self._stopping.set()
        self._held.changed.set()
        if self._thread is not None:
            self._thread.join(BEAT_EVERY_S)
        try:
            self._leave()
        except redis.RedisError as error:
            _log.warning("Left without saying so, as Redis does not answer: %s", error)

    def _beat_until_stopped(self) -> None:
        silent_since: float | None = None
        while not self._stopping.is_set():
            self._held.changed.clear()
            try:
                self._stand_in.heard()
                self.beat()
            except redis.RedisError as error:
                if silent_since is None:
                    _log.warning("Presence waits for Redis: %s", error)
                silent_since = silent_since or time.monotonic()
            except Exception:  # noqa: BLE001 - the beats must go on
                _log.exception("Presence of %s failed", process_name(self._broker))
            else:
                if silent_since is not None:
                    _log.info("Redis answers again after %.0f s", time.monotonic() - silent_since)
                silent_since = None
            self._held.changed.wait(BEAT_EVERY_S)

    def beat(self) -> None:
        """Write one record per queue, and the heartbeat."""
        now = self._now()
        self._beats += 1
        self._measure_cpu()
        namespace, process = self._broker.namespace, process_name(self._broker)
        with self._client.pipeline(transaction=False) as pipe:
            for queue in self._held.queues():
                pipe.hset(presence_key(namespace, queue), process, json.dumps(self.record(queue, now)))
            pipe.zadd(heartbeats_key(namespace), {self._broker.broker_id: int(now * 1000)}, gt=True)
            pipe.execute()
        if self._beats % LOOK_FOR_OLD_EVERY == 1:
            self._remove_old(now)

    def record(self, queue: str, now: float) -> dict[str, Any]:
        """What this process says of itself on `queue`; `now` is the server's time in seconds."""
        idle = self._held.idle_seconds()
        running = [one for one in self._held.running() if one.queue == queue]
        newest = max((one.since for one in running), default=None)
        actors = self._broker.actors.values()
        return {
            "pod": pod_name(),
            "pod_uid": os.environ.get("POD_UID") or None,
            "pid": os.getpid(),
            "broker_id": self._broker.broker_id,
            "threads": self._threads,
            "busy": len(running),
            "task_since": None if newest is None else round(now - (time.monotonic() - newest), 3),
            "idle_since": None if idle is None else round(now - idle, 3),
            "started": round(now - (time.monotonic() - self._fetches_since), 3),
            "actors": sum(actor.queue_name == queue for actor in actors),
            **self._counters.of_this_process(queue),
            "rss_bytes": rss_bytes(),
            "cpu_seconds": round(cpu_seconds(), 3),
            "cpu_percent": self._cpu_percent,
            "draining": not self._held.fetching,
            "version": self._version,
            "beat": now,
        }

    def _measure_cpu(self) -> None:
        """Percent of one core since the last beat."""
        at, used = time.monotonic(), cpu_seconds()
        self._cpu_percent = round(100 * (used - self._cpu) / max(at - self._cpu_at, 1e-3), 1)
        self._cpu_at, self._cpu = at, used

    def _now(self) -> float:
        seconds, microseconds = self._client.time()
        return round(float(seconds) + float(microseconds) / 1e6, 3)

    def _remove_old(self, now: float) -> None:
        for queue in self._held.queues():
            key = presence_key(self._broker.namespace, queue)
            old = [name for name, text in self._client.hgetall(key).items() if _is_old(text, now)]
            if old:
                self._client.hdel(key, *old)
                self._client.srem(drain_key(self._broker.namespace, queue), *old)

    def _leave(self) -> None:
        """Take back all that was said, the heartbeat too unless Dramatiq has something of ours to recover."""
        namespace, process = self._broker.namespace, process_name(self._broker)
        queues = self._held.queues()
        holding = any(
            self._client.exists(acks_key(self._broker, name))
            for queue in queues
            for name in (queue, f"{queue}.DQ")
        )
        with self._client.pipeline() as pipe:
            for queue in queues:
                pipe.hdel(presence_key(namespace, queue), process)
                pipe.srem(drain_key(namespace, queue), process)
            if not holding:
                pipe.zrem(heartbeats_key(namespace), self._broker.broker_id)
            pipe.execute()


def _is_old(text: bytes, now: float) -> bool:
    """Whether a record is a minute old, or nothing that we could have written."""
    try:
        beat = json.loads(text)["beat"]
        return not isinstance(beat, int | float) or now - beat > REMOVED_AFTER_S
    except (ValueError, TypeError, KeyError):
        return True
