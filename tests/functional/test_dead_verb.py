"""`astrid-operator dead` against dead letters of real Dramatiq: looked at, sent again, deleted."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dramatiq
import pytest
import redis
from dramatiq.brokers.redis import RedisBroker

TESTS = Path(__file__).resolve().parents[1]
Dead = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def dead(redis_url: str) -> Dead:
    """Runs the verb on queue `q`, with kopf and the Kubernetes client out of reach."""
    hidden = "import sys; sys.modules.update(kopf=None, kubernetes=None); import runpy; sys.argv[0] = 'it';"

    def run(*words: str, queue: str = "q", **more: Any) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", f"{hidden} runpy.run_module('astrid_operator', run_name='__main__')"]
        command += ["dead", words[0], "--queue", queue, *words[1:]]
        environment = {"PATH": "", "REDIS_URL": redis_url, **more}
        return subprocess.run(
            command, capture_output=True, text=True, check=False, env=environment, stdin=subprocess.DEVNULL
        )

    return run


def bury(url: str, *, args: tuple[Any, ...] = (1, "a"), why: str = "no such star", **options: Any) -> str:
    """Let a message die as a worker does; its name among Redis's keys."""
    broker = RedisBroker(url=url)
    broker.declare_queue("q")
    message = dramatiq.Message(
        queue_name="q",
        actor_name="classify",
        args=args,
        kwargs={"deep": {"x": []}},
        options={"retries": 3, "traceback": f"Traceback\nValueError: {why}", **options},
    )
    broker.enqueue(message)
    consumer = broker.consume("q")
    found = next(consumer)
    assert found is not None
    consumer.nack(found)
    broker.close()
    return str(found.options["redis_message_id"])


def body(client: redis.Redis, key: str, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(client.hget(key, name) or "{}")
    return found


def test_the_list_says_what_died_why_and_when(dead: Dead, redis_url: str) -> None:
    """A row each: age, actor, arguments as a call has them, the sentence or else the error itself."""
    plain, ours = bury(redis_url), bury(redis_url, dead_sentence="frame has no WCS; give one")
    done = dead("list")
    assert done.returncode == 0, done.stderr
    lines = {line.split()[0]: line for line in done.stdout.splitlines()}
    assert "ValueError: no such star" in lines[plain]
    assert "frame has no WCS" in lines[ours]
    assert '1, "a", deep={"x": []}' in lines[plain]
    told = json.loads(dead("list", "--json").stdout)
    assert told["total"] == 2
    assert {each["dead_sentence"] for each in told["letters"]} == {
        "ValueError: no such star",
        "frame has no WCS; give one",
    }
    assert all(0 <= each["age_seconds"] < 60 for each in told["letters"])


def test_an_empty_queue_is_said_to_be_empty(dead: Dead) -> None:
    """No table, no error."""
    done = dead("list", queue="other")
    assert (done.returncode, done.stdout) == (0, "other has no dead letters\n")


def test_show_tells_everything_of_one_that_is_named_by_its_beginning(dead: Dead, redis_url: str) -> None:
    """The whole traceback, and a sentence for what is no dead letter."""
    name = bury(redis_url)
    done = dead("show", name[:13], "nobody")
    assert done.returncode == 1
    assert "Traceback\nValueError: no such star" in done.stdout
    assert done.stderr == "nobody is no dead letter of q\n"


def test_a_message_that_is_sent_again_has_all_its_retries_before_it(
    dead: Dead, redis_url: str, redis_client: Any
) -> None:
    """Retries, ETA and reasons are forgotten, its starts too; arguments stay to the letter; it is due at once."""
    name = bury(redis_url, dead_sentence="why", dead_at="then", eta=9_000_000_000_000, keep="this")
    message_id = body(redis_client, "dramatiq:q.XQ.msgs", name)["message_id"]
    redis_client.hset("astrid:dramatiq:starts:q", message_id, 4)

    done = dead("requeue", name)

    assert (done.returncode, done.stdout) == (0, "Sent 1 dead letter of q again\n")
    again = body(redis_client, "dramatiq:q.msgs", name)
    assert redis_client.lrange("dramatiq:q", 0, -1) == [name]
    assert (again["args"], again["kwargs"]) == ([1, "a"], {"deep": {"x": []}})
    assert again["options"].pop("requeue_timestamp") > 0
    assert again["options"] == {"keep": "this", "redis_message_id": name}
    assert redis_client.exists("dramatiq:q.XQ", "dramatiq:q.XQ.msgs", "astrid:dramatiq:starts:q") == 0


def test_a_worker_runs_what_was_sent_again(dead: Dead, redis_url: str, redis_client: Any) -> None:
    """Dramatiq itself takes the message, and acknowledges it."""
    name = bury(redis_url)
    assert dead("requeue", "--all", "--yes").returncode == 0
    broker = RedisBroker(url=redis_url)
    consumer = broker.consume("q")
    found = next(consumer)
    assert found is not None
    assert found.options["redis_message_id"] == name
    consumer.ack(found)
    broker.close()
    assert redis_client.hlen("dramatiq:q.msgs") == 0


def test_all_of_them_go_only_when_a_person_says_so(dead: Dead, redis_url: str, redis_client: Any) -> None:
    """Without a terminal and without --yes nothing happens; a dry run counts; --yes does it."""
    for _ in range(3):
        bury(redis_url)
    refused = dead("purge", "--all")
    assert (refused.returncode, redis_client.zcard("dramatiq:q.XQ")) == (2, 3)
    assert "--yes" in refused.stderr
    dry = dead("purge", "--all", "--dry-run")
    assert (dry.returncode, dry.stdout) == (0, "Would delete 3 dead letters of q for good\n")
    assert redis_client.zcard("dramatiq:q.XQ") == 3
    done = dead("purge", "--all", "--yes", "--json")
    assert json.loads(done.stdout) == {"queue": "q", "asked": 3, "done": 3, "dry_run": False, "trouble": []}
    assert redis_client.keys("dramatiq:q*") == []


def test_one_is_deleted_and_the_others_stay(dead: Dead, redis_url: str, redis_client: Any) -> None:
    """Naming it is saying so."""
    name, other = bury(redis_url), bury(redis_url)
    assert dead("purge", name).returncode == 0
    assert redis_client.zrange("dramatiq:q.XQ", 0, -1) == [other]
    assert redis_client.hkeys("dramatiq:q.XQ.msgs") == [other]


def test_what_dramatiq_did_not_write_is_shown_and_never_sent(dead: Dead, redis_client: Any) -> None:
    """Other encoders, lost bodies, control characters: listed, named in a sentence, left where they are."""
    strange = {
        "pickled": b"\x80\x04.",
        "list": b"[]",
        "escape": b'{"actor_name": "\\u001b[31m", "options": 7}',
    }
    redis_client.zadd("dramatiq:q.XQ", {**dict.fromkeys(strange, 1.0), "bodiless": 2.0, "timeless": 1e300})
    redis_client.hset("dramatiq:q.XQ.msgs", mapping=strange)
    listed = dead("list")
    assert listed.returncode == 0, listed.stderr
    assert "\x1b" not in listed.stdout
    assert {*strange, "bodiless", "timeless"} <= {line.split()[0] for line in listed.stdout.splitlines()}
    done = dead("requeue", "--all", "--yes")
    assert done.returncode == 1
    assert "Sent 1 dead letter" in done.stdout
    assert "bodiless has no body any more" in done.stderr
    assert "pickled is no JSON" in done.stderr
    assert redis_client.zcard("dramatiq:q.XQ") == 4


@pytest.mark.parametrize(
    ("words", "environment", "sentence"),
    [
        (("list",), {"REDIS_URL": ""}, "No Redis is named"),
        (("list",), {"REDIS_URL": "redis://user:hidden@127.0.0.1:1/0"}, "Unreachable"),
        (("list",), {"REDIS_URL": "ftp://x"}, "holds no Redis address"),
        (("requeue",), {}, "say --all"),
        (("purge", "x", "--all"), {}, "say --all"),
    ],
)
def test_what_cannot_be_done_is_a_sentence_and_status_2(
    dead: Dead, words: tuple[str, ...], environment: dict[str, str], sentence: str
) -> None:
    """No traceback, and no password."""
    done = dead(*words, **environment)
    assert done.returncode == 2
    assert sentence in done.stderr
    assert done.stderr.count("\n") == 1
    assert "hidden" not in done.stderr
