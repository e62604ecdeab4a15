"""A Dramatiq application behind Sentinels, with the fleet's middleware: its tasks write into the file `DIARY_FILE`.

The file, and not Redis: what a server knew that then fell is exactly what is asked about.
"""

import os
import time

import dramatiq
from dramatiq.brokers.redis import RedisBroker

from astrid_workers.redis_address import redis_client

broker = RedisBroker(client=redis_client(os.environ["REDIS_URL"]))
dramatiq.set_broker(broker)

import astrid_workers.middleware.enlist  # noqa: E402, F401 - works on the broker that is set


def _note(line: str) -> None:
    with open(os.environ["DIARY_FILE"], "a", encoding="utf-8") as diary:  # noqa: PTH123 - append is atomic
        diary.write(f"{line}\n")


@dramatiq.actor(queue_name=os.environ["WORKER_QUEUE"], actor_name="work", max_retries=3)
def work(seconds: float, mark: str) -> None:
    """Take `seconds`."""
    _note(f"begin {mark}")
    time.sleep(seconds)  # the task itself
    _note(f"end {mark}")
