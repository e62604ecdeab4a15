"""The Dramatiq application that the benchmarks run in pods: each task writes when it begins and ends.

With `BENCH_PLAIN` it is Dramatiq as it comes, without Astrid's middleware: the contender. What tasks write
goes to `DIARY_URL`, which is none of the servers that a benchmark breaks. `BENCH_MAINTENANCE` is how many of
a million commands clean up after others, 1,000 in Dramatiq as it comes.
"""

import os
import time

import dramatiq
import redis
from dramatiq.brokers.redis import RedisBroker

from astrid_workers.redis_address import redis_client

QUEUE = os.environ["WORKER_QUEUE"]

diary = redis.Redis.from_url(os.environ["DIARY_URL"])
url = os.environ["REDIS_URL"]
broker = RedisBroker(
    client=redis_client(url) if "+sentinel" in url else redis.Redis.from_url(url),
    maintenance_chance=int(os.environ.get("BENCH_MAINTENANCE", "1000")),
)
dramatiq.set_broker(broker)

if not os.environ.get("BENCH_PLAIN"):
    import astrid_workers.middleware.enlist  # noqa: F401 - works on the broker that is set


@dramatiq.actor(queue_name=QUEUE, actor_name="work", max_retries=3, time_limit=3_600_000)
def work(seconds: float, mark: str) -> None:
    """Take `seconds`."""
    pod = os.environ.get("POD_NAME", "?")
    diary.rpush(f"diary:{QUEUE}", f"begin {mark} {pod} {time.time()}")
    time.sleep(seconds)  # the task itself
    diary.rpush(f"diary:{QUEUE}", f"end {mark} {pod} {time.time()}")
