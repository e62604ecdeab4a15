"""A delayed message at zero: somebody is there when its time comes, and nobody before."""

import time
from datetime import datetime
from pathlib import Path

import dramatiq
import redis
from dramatiq.brokers.redis import RedisBroker

from astrid_operator.scaling_growth import UNMEASURED_START_SECONDS
from support.foreign_app import DIARY
from support.local_operator import LocalOperator
from support.waiting import wait_until

#: How far from its time a delayed message may begin, in seconds.
TOLERANCE_S = 2.0
FOREIGN = {"app": "support.foreign_app", "timeoutSeconds": 60}


def delayed_nap(broker: RedisBroker, mark: str, delay_s: float) -> float:
    """Send a task that is due in `delay_s`; when that is, by this machine's clock."""
    message = dramatiq.Message(queue_name="naps", actor_name="nap", args=(0.0, mark), kwargs={}, options={})
    return float(broker.enqueue(message, delay=int(delay_s * 1000)).options["eta"]) / 1000


def begins(client: redis.Redis, mark: str) -> bool:
    return any(line.startswith(f"begin {mark} ") for line in client.lrange(DIARY, 0, -1))


def test_a_delayed_message_runs_at_its_time_and_no_member_is_there_before(
    tmp_path: Path, redis_url: str
) -> None:
    """A plain application's retry begins within two seconds of its ETA; till shortly before, nobody is there."""
    local = LocalOperator(tmp_path / "local", redis_url)
    broker = RedisBroker(url=redis_url)
    broker.declare_queue("naps")
    client = redis.Redis.from_url(redis_url, decode_responses=True)
    try:
        local.write("naps", **FOREIGN, scaling={"idleSeconds": 1, "expectedTaskSeconds": 1})
        local.start()
        local.wait_status("naps", desired=0, members=0, reason="Idle")
        due_at = delayed_nap(broker, "late", 12.0)
        local.wait_status("naps", members=0, delayed=1, reason="Idle")
        wait_until(lambda: begins(client, "late"), 20, "the delayed task to begin")
        late_s = time.time() - due_at
        woken_at = [datetime.fromisoformat(row["at"]).timestamp() for row in local.output if row["desired"]]
    finally:
        local.close()
        broker.close()
        client.close()
    assert abs(late_s) <= TOLERANCE_S
    assert woken_at[0] > due_at - UNMEASURED_START_SECONDS - TOLERANCE_S
