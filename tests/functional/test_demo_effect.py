"""What the flags of `astrid demo` do, as a process of its own against a real server."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from astrid_workers.demo.night import write_field
from support.waiting import wait_until

SAMPLES = Path(__file__).resolve().parents[2] / "manifests/samples"


def demo(folder, redis_url, *arguments):
    """The command, started in `folder`; a group of its own, so that nothing of it can be left."""
    server = redis_url.rsplit("/", 1)[0]
    return subprocess.Popen(
        [
            sys.executable,
            "-m",
            "astrid_workers",
            "demo",
            "--queues",
            str(SAMPLES),
            "--redis-url",
            server,
            *arguments,
        ],
        cwd=folder,
        env={**os.environ, "CI": ""},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def ended(process):
    """What it printed and said, and its status; whatever happens, nothing of it is left."""
    try:
        return *process.communicate(timeout=60), process.returncode
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def test_the_night_is_what_the_flags_ask_for(tmp_path, redis_url, redis_client):
    """So many observations of that seed, in that folder, on that server, by no more workers than allowed."""
    flags = (
        "--observations",
        "1",
        "--seed",
        "5",
        "--out",
        "night",
        "--capacity",
        "2",
        "--timeout-seconds",
        "300",
    )
    process = demo(tmp_path, redis_url, *flags)
    members = [0]

    def is_over():
        with contextlib.suppress(FileNotFoundError, json.JSONDecodeError):
            status = json.loads((tmp_path / "night/fleet.json").read_text())
            members.append(sum(row["members"] for row in status["queues"]))
        return process.poll() is not None

    try:
        wait_until(is_over, 320, "the demonstration to end")
    finally:
        printed, said, status = ended(process)
    assert status == 0, said
    assert "1 of 1" in printed
    assert 1 <= max(members) <= 2
    assert redis_client.keys("astrid:*")
    write_field(0, seed=5, folder=tmp_path / "again")
    frames = sorted((tmp_path / "night/frames").iterdir())
    assert [path.name for path in frames] == ["field-000-reference.fits", "field-000-science.fits"]
    for path in frames:
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes()
    assert (tmp_path / "night/report.html").exists()


def test_it_gives_up_when_it_was_told_to(tmp_path, redis_url):
    """A second is not enough for a night: status 1, with the reason and where to look."""
    process = demo(tmp_path, redis_url, "--observations", "1", "--out", "night", "--timeout-seconds", "1")
    try:
        wait_until(lambda: process.poll() is not None, 120, "the demonstration to give up")
    finally:
        _, said, status = ended(process)
    assert status == 1
    assert "astrid demo: not done after 1 s; see " in said
