"""What `astrid-operator simulate` reads, refuses and prints."""

import json
import re
from pathlib import Path

import pytest
import yaml

from astrid_operator.__main__ import main
from astrid_operator.simulation_load import Arrival
from astrid_operator.simulation_trace import LoadRejected, read_trace
from support.queue_documents import manifest


@pytest.fixture
def spec(tmp_path: Path) -> str:
    """A file with one AstridQueue, `differencing`."""
    path = tmp_path / "queues.yaml"
    path.write_text(yaml.safe_dump(manifest(concurrency=2, scaling={"maxReplicas": 4})))
    return str(path)


def trace(folder: Path, text: str) -> Path:
    path = folder / "night.csv"
    path.write_text(text)
    return path


def read(folder: Path, text: str) -> dict[str, list[Arrival]]:
    """What a trace with that text holds, for the one queue `q`."""
    return {queue: load.arrivals() for queue, load in read_trace(trace(folder, text), ["q"]).items()}


@pytest.mark.parametrize(
    "text",
    [
        "enqueued,queue,seconds\n105,q,2\n100,q,3.5\n",
        "100,q,3.5\n\n105,q,2\n",
        "2026-11-25T20:00:00Z,q,3.5\n2026-11-25T20:00:05+00:00,q,2\n",
    ],
)
def test_a_trace_counts_from_its_first_message(tmp_path: Path, text: str) -> None:
    """Seconds or dates, with a header or without, in any order."""
    assert read(tmp_path, text) == {"q": [Arrival(0.0, 3.5), Arrival(5.0, 2.0)]}


def test_messages_of_one_moment_keep_the_order_of_the_file(tmp_path: Path) -> None:
    """First in, first out: as they were recorded, also where other lines are not in order of time."""
    text = "100,q,9\n100,q,1\n105,q,2\n"

    assert read(tmp_path, text) == {"q": [Arrival(0.0, 9.0), Arrival(0.0, 1.0), Arrival(5.0, 2.0)]}
    assert read(tmp_path, text + "102,q,4\n")["q"][:3] == [
        Arrival(0.0, 9.0),
        Arrival(0.0, 1.0),
        Arrival(2.0, 4.0),
    ]


def test_a_recorded_night_and_a_drawn_burst_come_together(
    spec: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A burst at the start is worked off before what was recorded for later."""
    recorded = str(trace(tmp_path, "0,differencing,1\n3000,differencing,1\n"))

    assert main(["simulate", "-f", spec, "--trace", recorded, "--burst", "20,5", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["total"]["finished"] == 22
    assert told["queues"][0]["drained_at"] > 3000


@pytest.mark.parametrize(
    "text",
    [
        "enqueued,queue,seconds,delay\n100,q,3.5,600\n105,q,2,0\n105,q,2,\n105,q,2\n",
        "100,q,3.5,6e2\n105,q,2\n105,q,2,0.0\n105,q,2, \n",
    ],
)
def test_a_trace_may_say_how_long_each_message_is_delayed(tmp_path: Path, text: str) -> None:
    """A fourth cell is the delay in seconds; empty, zero or missing, there is none."""
    assert read(tmp_path, text) == {"q": [Arrival(0.0, 3.5, 600.0), *[Arrival(5.0, 2.0)] * 3]}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("1,q,2\n2,other,2\n", "line 2: no spec serves queue 'other', only q"),
        ("1,q,2\n2,q\n", "line 2: has 2 cells, must have 3 or 4: enqueue time, queue, seconds[, delay]"),
        ("1,q,2,3,4\n", "line 1: has 5 cells, must have 3 or 4"),
        (
            "1,q,2\n2,q,2,-1\n",
            "line 2: '-1' in the 4th column is no delay, must be empty or 0 to 604800 seconds",
        ),
        ("1,q,2,soon\n", "line 1: 'soon' in the 4th column is no delay"),
        ("1,q,2,inf\n", "line 1: 'inf' in the 4th column is no delay"),
        ("1,q,2,604801\n", "line 1: '604801' in the 4th column is no delay"),
        ("1,q,2,2026-11-25T20:00:00Z\n", "in the 4th column is no delay"),
        ("1,q,2\nsoon,q,2\n", "line 2: 'soon' is no time"),
        ("1,q,-2\n", "line 1: '-2' is no duration"),
        ("1,q,nan\n", "line 1: 'nan' is no duration"),
        ("1,q,9e9\n", "line 1: '9e9' is no duration"),
        ("", "holds no message"),
    ],
)
def test_a_trace_that_makes_no_sense_is_refused_with_its_line(tmp_path: Path, text: str, says: str) -> None:
    """The sentence says which line, and what was expected there."""
    with pytest.raises(LoadRejected, match=re.escape(says)):
        read_trace(trace(tmp_path, text), ["q"])


def test_the_numbers_are_printed_for_people_and_for_programs(
    spec: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The table names waits and pod-hours; JSON holds every change of size; all is done and nothing was cut."""
    asked = ["simulate", "-f", spec, "--burst", "differencing:40,5", "--seed", "3"]

    assert main(asked) == 0
    assert "40 of 40 messages finished" in capsys.readouterr().out
    assert main([*asked, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["total"]["finished"], told["total"]["interrupted"]) == (40, 0)
    assert told["queues"][0]["resizes"][0]["to"] == 4


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "no load: give --trace"),
        (["--burst", "other:1,1"], "no spec serves queue 'other'"),
        (["--trace", "/nowhere.csv"], "/nowhere.csv: No such file"),
    ],
)
def test_a_load_that_cannot_be_used_is_one_sentence(
    spec: str, arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit status 2, and no traceback."""
    assert main(["simulate", "-f", spec, *arguments]) == 2
    assert says in capsys.readouterr().err


def test_a_fleet_that_may_not_work_is_not_called_done(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Messages that nobody serves are said, and the exit status tells."""
    path = tmp_path / "off.yaml"
    path.write_text(yaml.safe_dump(manifest(enabled=False)))

    assert main(["simulate", "-f", str(path), "--burst", "3,1"]) == 1
    assert "3 NEVER FINISHED" in capsys.readouterr().out


def test_help_teaches_with_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    """A user sizes a night from --help alone."""
    with pytest.raises(SystemExit):
        main(["simulate", "--help"])
    text = capsys.readouterr().out

    assert "--capacity 4" in text
    assert "enqueue time, queue, seconds of work" in text
    assert "7.9,600" in text
    assert "--fail 0.1" in text
