"""A Dramatiq application whose workers are members of a fleet: it says what it does, and leaves when it is asked.

Serves the queue that `WORKER_QUEUE` names; each task writes into Redis when it begins and ends, and in which pod.
"""

import os
import time

import dramatiq
from dramatiq.brokers.redis import RedisBroker

QUEUE = os.environ["WORKER_QUEUE"]

broker = RedisBroker(url=os.environ["REDIS_URL"])
dramatiq.set_broker(broker)

import astrid_workers.middleware.enlist  # noqa: E402, F401 - works on the broker that is set


@dramatiq.actor(queue_name=QUEUE, actor_name="work", max_retries=0)
def work(seconds: float, mark: str) -> None:
    """Take `seconds`."""
    pod = os.environ["POD_NAME"]
    broker.client.rpush(f"diary:{QUEUE}", f"begin {mark} {pod}")
    time.sleep(seconds)  # the task itself
    broker.client.rpush(f"diary:{QUEUE}", f"end {mark} {pod}")
