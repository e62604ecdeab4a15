"""`astrid-operator local`: real processes of this machine, sized from a real Redis."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import dramatiq
import psutil
import pytest
import redis
from dramatiq.brokers.redis import RedisBroker

from support.foreign_app import DIARY
from support.local_operator import LocalOperator
from support.redis_server import RedisServer
from support.waiting import wait_until

#: What every foreign queue here has: quick decisions, short ends.
FOREIGN = {"app": "support.foreign_app", "timeoutSeconds": 60}


class Sender:
    """Sends to the foreign application without loading it, and reads its diary."""

    def __init__(self, url: str) -> None:
        self.broker = RedisBroker(url=url)
        self.client = redis.Redis.from_url(url, decode_responses=True)

    def nap(self, seconds: float, mark: str, *, actor: str = "nap", queue: str = "naps") -> None:
        """Send one task."""
        self.broker.declare_queue(queue)
        message = dramatiq.Message(
            queue_name=queue, actor_name=actor, args=(seconds, mark), kwargs={}, options={}
        )
        self.broker.enqueue(message)

    def diary(self, word: str) -> list[str]:
        """Marks of the tasks that began or ended, in order."""
        lines = (line.split() for line in self.client.lrange(DIARY, 0, -1))
        return [line[1] for line in lines if line[0] == word]

    def threads(self, mark: str) -> str:
        """Threads of the worker that ran a task."""
        lines = (line.split() for line in self.client.lrange(DIARY, 0, -1))
        return next(line[3] for line in lines if line[1] == mark)

    def wait(self, word: str, *marks: str, timeout_s: float = 30) -> None:
        """Wait until all of `marks` began or ended."""
        wait_until(
            lambda: set(marks) <= set(self.diary(word)),
            timeout_s,
            f"{marks} to {word}, got {self.diary(word)}",
        )

    def close(self) -> None:
        """End the connections."""
        self.broker.close()
        self.client.close()


@pytest.fixture
def sender(redis_url: str) -> Iterator[Sender]:
    """Sends to the session's server."""
    sender = Sender(redis_url)
    yield sender
    sender.close()


@pytest.fixture
def local(tmp_path: Path, redis_url: str) -> Iterator[LocalOperator]:
    """A local fleet that is not started yet."""
    local = LocalOperator(tmp_path / "local", redis_url)
    yield local
    local.close()


def test_a_fleet_comes_from_zero_and_goes_back_and_no_task_is_run_twice(
    local: LocalOperator, sender: Sender
) -> None:
    """Messages bring members, idleness removes them, and a task longer than idleSeconds finishes once."""
    local.write(
        "naps", **FOREIGN, scaling={"idleSeconds": 1, "expectedTaskSeconds": 10, "targetDrainSeconds": 5}
    )
    local.start()
    local.wait_status("naps", desired=0, members=0, reason="Idle")
    sender.nap(0.1, "short")
    sender.nap(34, "long")
    local.wait_status("naps", members_ready=2)
    sender.wait("end", "short")
    assert sender.diary("end") == ["short"]
    sender.wait("end", "long", timeout_s=60)
    local.wait_status("naps", members=0, members_leaving=0, desired=0)
    assert sorted(sender.diary("begin")) == sorted(sender.diary("end")) == ["long", "short"]
    assert sender.client.hlen("dramatiq:naps.msgs") == 0


def test_our_own_workers_say_when_they_are_ready_and_are_replaced_when_killed(
    local: LocalOperator, sender: Sender
) -> None:
    """Presence is read from real workers, and SIGKILL to a member brings another in its place."""
    local.write("health", queueName="default", workerType="curation", scaling={"minReplicas": 1})
    local.start(capacity=1)
    local.wait_status("health", timeout_s=60, members_ready=1, members=1)
    said = sender.client.hgetall("astrid:dramatiq:presence:default")
    assert len(said) == 1
    (pid,) = local.member_pids()
    below = psutil.Process(pid).children(recursive=True)
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: local.member_pids() not in ([], [pid]), 30, "another member")
    _, alive = psutil.wait_procs(below, timeout=10)
    assert alive == []
    local.wait_status("health", timeout_s=60, members_ready=1)
    assert "ended unasked" in local.log


def test_a_foreign_application_with_middleware_gets_that_of_this_machine(
    local: LocalOperator, sender: Sender
) -> None:
    """No ConfigMap is mounted here; its members say who is busy all the same."""
    carried = {"middleware": {"configMapRef": {"name": "astrid-middleware"}}}
    local.write("naps", **FOREIGN, **carried, scaling={"minReplicas": 1})
    local.start()
    presence = "astrid:dramatiq:presence:naps"
    wait_until(lambda: sender.client.hlen(presence), 30, f"presence of a member:\n{local.log}")
    local.wait_status("naps", members_ready=1)
    sender.nap(0.1, "one")
    sender.wait("end", "one")


def test_an_edit_of_concurrency_rolls_without_a_gap(local: LocalOperator, sender: Sender) -> None:
    """The successor is ready before the old member leaves, and what that was running finishes once."""
    local.write("naps", **FOREIGN, scaling={"minReplicas": 1})
    local.start()
    local.wait_status("naps", members_ready=1)
    sender.nap(6, "before")
    sender.wait("begin", "before")
    local.write("naps", **FOREIGN, concurrency=2, scaling={"minReplicas": 1})
    local.wait_status("naps", members_leaving=1, members_ready=1)
    sender.nap(0.1, "after")
    sender.wait("end", "before", "after")
    local.wait_status("naps", members=1, members_leaving=0)
    assert (sender.threads("before"), sender.threads("after")) == ("1", "2")
    assert sender.diary("begin") == ["before", "after"]
    ready = [row["members_ready"] for row in local.output]
    assert 0 not in ready[ready.index(1) :]


def test_a_roll_out_that_cannot_start_leaves_the_old_member_working(
    local: LocalOperator, sender: Sender
) -> None:
    """The successor is tried again with growing pauses, and what is wrong with it is said."""
    local.write("naps", **FOREIGN, scaling={"minReplicas": 1})
    local.start()
    local.wait_status("naps", members_ready=1)
    local.write("naps", **{**FOREIGN, "app": "support.no_such_app"}, scaling={"minReplicas": 1})
    wait_until(lambda: local.log.count("ended unasked") >= 2, 30, "the successor to fail twice")
    sender.nap(0.1, "still")
    sender.wait("end", "still")
    row = local.wait_status("naps", members_ready=1)
    assert "no_such_app" in row["unhealthy"]
    assert "ended with exit status 2" in row["unhealthy"]


def test_an_edit_of_scaling_touches_no_member(local: LocalOperator) -> None:
    """Scaling fields act without a restart."""
    local.write("naps", **FOREIGN, scaling={"minReplicas": 1})
    local.start()
    local.wait_status("naps", members_ready=1)
    before = local.member_pids()
    local.write("naps", **FOREIGN, priority=1, scaling={"minReplicas": 2})
    local.wait_status("naps", members_ready=2)
    assert set(before) < set(local.member_pids())


def test_slots_go_to_the_first_class_and_no_task_is_lost_for_it(local: LocalOperator, sender: Sender) -> None:
    """With one slot the late queue gives way between two tasks, waits, and goes on; what is withheld is said."""
    scaling = {"idleSeconds": 30, "expectedTaskSeconds": 1}
    local.write("naps", **FOREIGN, priority=1, scaling=scaling)
    local.write("late", **FOREIGN, priority=9, scaling=scaling)
    late = [f"l{number}" for number in range(1, 10)]
    for mark in late:
        sender.nap(3, mark, actor="late_nap", queue="late")
    local.start(capacity=1)
    sender.wait("begin", "l1")
    sender.nap(0.5, "early")
    row = local.wait_status("naps", reason="ScaleLimited", desired=0)
    assert "held by late 1" in row["message"]
    sender.wait("end", "early", *late, timeout_s=120)
    order = sender.diary("end")
    assert sorted(order) == ["early", *late]
    assert order.index("early") < order.index("l9")
    assert sender.diary("begin") == order


def test_a_paused_fleet_is_left_alone_and_an_edit_that_makes_no_sense_too(
    local: LocalOperator, sender: Sender
) -> None:
    """paused: All changes nothing whatever waits; nonsense keeps the last good spec and is said."""
    local.write("naps", **FOREIGN, paused="All", scaling={"expectedTaskSeconds": 1})
    sender.nap(0.1, "first")
    local.start()
    local.wait_status("naps", ready=1, members=0, reason="Paused")
    (local.queues / "naps.yaml").write_text("spec: [")
    wait_until(lambda: "is not YAML" in local.log, 10, "the file to be refused")
    local.write("naps", **FOREIGN, concurrency="many")
    wait_until(lambda: "spec.concurrency" in local.log, 10, "the field to be refused")
    assert local.status("naps")["reason"] == "Paused"
    local.write("naps", **FOREIGN, scaling={"expectedTaskSeconds": 1})
    sender.wait("end", "first")


def test_an_unreadable_redis_freezes_the_fleet(tmp_path: Path, redis_server: RedisServer) -> None:
    """Unknown is not zero: members stay, and the reason is said."""
    local = LocalOperator(tmp_path / "local", redis_server.url())
    try:
        local.write("naps", **FOREIGN, scaling={"minReplicas": 1, "idleSeconds": 1})
        local.start()
        local.wait_status("naps", members_ready=1)
        redis_server.freeze()
        local.wait_status("naps", reason="BrokerUnreachable", members=1, ready=None)
        redis_server.thaw()
        local.wait_status("naps", ready=0, members=1)
    finally:
        redis_server.thaw()
        local.close()


def test_members_leave_when_their_operator_is_killed(local: LocalOperator) -> None:
    """No member outlives its operator, however that ends; the next one starts in the same folder."""
    local.write("naps", **FOREIGN, scaling={"minReplicas": 2})
    local.start()
    local.wait_status("naps", members_ready=2)
    members = [psutil.Process(pid) for pid in local.member_pids()]
    everybody = [each for member in members for each in (member, *member.children(recursive=True))]
    local.kill()
    _, alive = psutil.wait_procs(everybody, timeout=20)
    assert alive == []
    local.start()
    local.wait_status("naps", members_ready=2)


def test_an_interrupt_drains(local: LocalOperator, sender: Sender) -> None:
    """Ctrl-C lets a running task finish, gives back what waits, and ends with 0."""
    local.write("naps", **FOREIGN, scaling={"expectedTaskSeconds": 1, "maxReplicas": 1})
    local.start()
    sender.nap(4, "running")
    sender.wait("begin", "running")
    sender.nap(4, "waiting")
    local.interrupt()
    assert local.wait(30) == 0
    assert sender.diary("end") == ["running"] or sender.diary("end") == ["running", "waiting"]
    assert sender.client.hlen("dramatiq:naps.msgs") == 2 - len(sender.diary("end"))
    assert sender.client.llen("dramatiq:naps") == 2 - len(sender.diary("end"))


def test_a_dry_run_says_what_it_would_do_and_does_nothing(local: LocalOperator, sender: Sender) -> None:
    """--dry-run starts no process."""
    local.write("naps", **FOREIGN, scaling={"expectedTaskSeconds": 1, "targetDrainSeconds": 1})
    for number in range(3):
        sender.nap(1, str(number))
    local.start("--dry-run", capacity=2)
    assert local.wait(30) == 0
    (row,) = local.output
    assert (row["desired"], row["wanted"], row["reason"], row["members"]) == (2, 3, "ScaleLimited", 0)
    assert sender.diary("begin") == []


def test_one_folder_serves_one_fleet(local: LocalOperator, tmp_path: Path) -> None:
    """A second fleet in the same folder is refused with a sentence and status 2."""
    local.write("naps", **FOREIGN)
    local.start()
    local.wait_status("naps", members=0)
    other = LocalOperator(tmp_path / "other", "redis://127.0.0.1:1/0")
    other.write("naps", **FOREIGN)
    other.state = local.state
    other.start()
    assert other.wait(30) == 2
    assert f"another local fleet runs in {local.state}" in other.log


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ({"concurrency": "many"}, 'spec.concurrency is "many"'),
        ({}, "Neither REDIS_URL nor the broker default/astrid-redis/url is known to the operator"),
    ],
)
def test_what_cannot_run_is_refused_in_one_sentence(tmp_path: Path, spec: dict, sentence: str) -> None:
    """Status 2, and the file and field, or what is missing."""
    local = LocalOperator(tmp_path / "local", None)
    local.write("naps", **FOREIGN, **spec)
    local.start()
    assert local.wait(30) == 2
    assert sentence in local.log
    assert len(local.log.splitlines()) == 1


def test_variables_that_nobody_holds_are_named_once(local: LocalOperator) -> None:
    """References to Secrets resolve from the environment; what it lacks is said in one warning."""
    reference = {"secretKeyRef": {"name": "vault", "key": "token"}}
    env = [{"name": "ARCHIVE_TOKEN", "valueFrom": reference}]
    local.write("naps", **FOREIGN, env=env, scaling={"minReplicas": 1})
    local.write("late", **FOREIGN, env=env)
    local.start()
    local.wait_status("naps", members_ready=1)
    warnings = [line for line in local.log.splitlines() if "ARCHIVE_TOKEN" in line]
    assert len(warnings) == 1
    assert "ARCHIVE_TOKEN (secret vault/token) for default/late, default/naps" in warnings[0]
