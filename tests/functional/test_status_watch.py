"""`astrid status --watch`: it looks again and again, also while the server is away."""

import itertools
import json
import os
import signal
import subprocess
import sys
from datetime import datetime

import pytest

from astrid_workers.__main__ import main
from support.redis_server import RedisServer, valkey_binary


@pytest.fixture
def watching():
    """Start the command; it is interrupted at the end, whatever happens."""
    started = []

    def start(redis_url, *arguments):
        process = subprocess.Popen(
            [sys.executable, "-m", "astrid_workers", "status", "--watch", *arguments],
            env={**os.environ, "REDIS_URL": redis_url, "REDIS_RESULT_URL": redis_url},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # a suite that was started in the background ignores interrupts, and would hand that on
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_it_looks_again_until_it_is_interrupted(watching, redis_url):
    """A line a look with --json, no sooner after the one before than --every says; Ctrl-C ends it well."""
    process = watching(redis_url, "--every", "0.3", "--json", "--queues", "differencing")
    looks = [json.loads(process.stdout.readline()) for _ in range(4)]
    assert all([row["queue"] for row in look["queues"]] == ["differencing"] for look in looks)
    times = [datetime.fromisoformat(look["at"]).timestamp() for look in looks]
    assert min(b - a for a, b in itertools.pairwise(times)) >= 0.29
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 0
    assert process.stderr.read() == ""


def test_a_server_that_goes_and_comes_is_said_and_seen_again(watching):
    """An outage is a line, not the end."""
    server = RedisServer(valkey_binary())
    server.start()
    try:
        process = watching(server.url(), "--every", "0.1", "--json", "--queues", "differencing")
        assert "queues" in json.loads(process.stdout.readline())
        server.stop()
        while "error" not in json.loads(process.stdout.readline()):
            pass
        server.start()
        while "queues" not in json.loads(process.stdout.readline()):
            pass
    finally:
        server.stop()


def test_people_get_a_table(watching, redis_url):
    """Without --json the same as a table."""
    process = watching(redis_url, "--every", "0.1", "--queues", "differencing")
    seen = ""
    while "differencing" not in seen:
        line = process.stdout.readline()
        assert line, process.stderr.read()
        seen += line
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 0


@pytest.mark.parametrize("every", ["0", "-1", "nan", "1e9"])
def test_a_pause_that_makes_no_sense_is_refused(every, capsys):
    """Status 2, with the value and what was expected."""
    assert main(["status", f"--every={every}"]) == 2
    assert "expected seconds above 0 and at most 86400" in capsys.readouterr().err
