"""Sentinels in place of an address: operator and workers find the server that serves now, and again after it fell."""

import asyncio
import json
import random
from pathlib import Path

import dramatiq
from dramatiq.brokers.redis import RedisBroker

from astrid_operator.astrid_queue import QueueKey
from astrid_operator.brokers import BrokerAddress
from astrid_operator.claims import BrokerQueue
from astrid_operator.demand import DemandReader
from astrid_operator.dramatiq_keys import DramatiqQueue
from astrid_workers.middleware.stand_in import connection_of
from astrid_workers.middleware.stand_in_process import Connection, client
from astrid_workers.redis_address import redis_client
from support.local_operator import LocalOperator
from support.sentinels import WatchedService
from support.waiting import wait_for_answer, wait_until

TASKS = 40
MEMBERS = 2


def test_a_failover_in_the_midst_of_work_loses_no_message_and_shrinks_no_fleet(tmp_path: Path) -> None:
    """The server is killed while messages wait, run and are delayed; the replica serves, and all of them end."""
    diary = tmp_path / "diary"
    diary.touch()

    def ended() -> set[str]:
        return {line.split()[1] for line in diary.read_text().splitlines() if line.startswith("end ")}

    with WatchedService() as service:
        broker = RedisBroker(client=redis_client(service.url))
        broker.declare_queue("watched")
        local = LocalOperator(tmp_path / "local", service.url)
        env = [{"name": "DIARY_FILE", "value": str(diary)}]
        scaling = {"maxReplicas": MEMBERS, "expectedTaskSeconds": 10, "idleSeconds": 5}
        local.write("watched", app="support.sentinel_app", env=env, scaling=scaling)
        try:
            for number in range(TASKS):
                message = dramatiq.Message("watched", "work", (0.4, f"task-{number}"), {}, {})
                broker.enqueue(message, delay=15_000 if number % 4 == 0 else None)
            # what the replica has is what nobody may lose
            assert broker.client.wait(1, 5000) == 1
            local.start(capacity=MEMBERS)
            wait_until(lambda: len(ended()) >= 4, 90, "the work to begin")
            local.wait_status("watched", desired=MEMBERS)
            told_before = len(local.output)

            service.first.stop()
            wait_until(lambda: service.serving() == service.second.port, 30, "the replica to be named")
            wait_until(lambda: len(ended()) == TASKS, 120, "every task to end")
            sizes = [row["desired"] for row in local.output[told_before:]]
            assert min([MEMBERS, *sizes]) == MEMBERS, sizes
            local.wait_status("watched", timeout_s=120, desired=0, members=0)
        finally:
            local.close()
            broker.close()


def test_who_stands_in_for_a_worker_asks_the_sentinels_too() -> None:
    """It connects by what it was told, to the server that serves now."""
    with WatchedService() as service:
        pool = redis_client(service.url).connection_pool
        beside = client(Connection(*json.loads(json.dumps(connection_of(pool)))))
        assert beside.info("server")["tcp_port"] == service.first.port
        beside.close()


def test_the_operator_tells_of_a_service_without_a_server_and_sees_another_after_it() -> None:
    """While no Sentinel names a server that answers, demand is not known; then another server's name is told."""
    key = QueueKey("sky", "q")

    async def scenario(service: WatchedService) -> None:
        loop = asyncio.get_running_loop()
        reader = DemandReader(loop.time, random.Random(1), timeout_seconds=1.0)
        claim = {key: BrokerQueue(BrokerAddress(service.url), DramatiqQueue("dramatiq", "q"))}

        async def reading(known: bool) -> tuple[str | None, str]:
            async def read() -> tuple[str | None, str] | None:
                found = (await reader.read(claim))[key]
                return (found.server, found.trouble) if (found.demand is not None) is known else None

            return await wait_for_answer(read, 30, f"demand to be known: {known}", every_s=0.1)

        try:
            before, _ = await reading(known=True)
            service.first.stop()
            _, trouble = await reading(known=False)
            assert "127.0.0.1" in trouble
            after, _ = await reading(known=True)
            assert before is not None
            assert after not in (None, before)
        finally:
            await reader.close()

    with WatchedService() as service:
        asyncio.run(scenario(service))
