"""A Dramatiq application that knows nothing of Astrid: what fleets must be able to run as it is.

Its actors write down, in Redis, when a task begins and ends, in which process and with how many threads.
"""

import os
import sys
import time

import dramatiq
import redis
from dramatiq.brokers.redis import RedisBroker

#: List in Redis: "begin <mark> <pid> <threads>" and "end <mark> <pid> <threads>", in order.
DIARY = "foreign:diary"

broker = RedisBroker(url=os.environ["REDIS_URL"])
dramatiq.set_broker(broker)
diary = redis.Redis.from_url(os.environ["REDIS_URL"])


def _nap(seconds: float, mark: str) -> None:
    threads = sys.argv[sys.argv.index("--threads") + 1]
    diary.rpush(DIARY, f"begin {mark} {os.getpid()} {threads}")
    time.sleep(seconds)  # the task itself
    diary.rpush(DIARY, f"end {mark} {os.getpid()} {threads}")


@dramatiq.actor(queue_name="naps", max_retries=0)
def nap(seconds: float, mark: str) -> None:
    """Take `seconds`."""
    _nap(seconds, mark)


@dramatiq.actor(queue_name="late", max_retries=0)
def late_nap(seconds: float, mark: str) -> None:
    """Take `seconds`, on another queue."""
    _nap(seconds, mark)
