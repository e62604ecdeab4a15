"""Every flag of `astrid-operator simulate` changes what comes out, in the way that --help says."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from astrid_operator.__main__ import main
from support.queue_documents import manifest

LOAD = ("--poisson", "0.5,10", "--for", "20m", "--seed", "1")
Json = dict[str, Any]


@pytest.fixture
def spec(tmp_path: Path) -> str:
    """Two AstridQueues, the second of them with a GPU a worker."""
    documents = [
        manifest(scaling={"maxReplicas": 8}),
        manifest("detection", scaling={"maxReplicas": 8}, gpu={"count": 1}),
    ]
    path = tmp_path / "queues.yaml"
    path.write_text(yaml.safe_dump_all(documents))
    return str(path)


@pytest.fixture
def told(spec: str, capsys: pytest.CaptureFixture[str]):
    """What the verb says as JSON, by its arguments."""

    def tell(*arguments: str) -> Json:
        main(["simulate", "-f", spec, *arguments, "--json"])
        answer: Json = json.loads(capsys.readouterr().out)
        return answer

    return tell


def messages(answer: Json) -> dict[str, int]:
    return {each["name"].split("/")[1]: each["messages"] for each in answer["queues"]}


def largest(answer: Json) -> dict[str, int]:
    return {each["name"].split("/")[1]: each["most_members"] for each in answer["queues"]}


def test_the_load_is_what_the_flags_draw(told, tmp_path) -> None:
    """--trace, --poisson, --burst and --diurnal add up; --for bounds the drawing, --seed draws another."""
    (tmp_path / "night.csv").write_text("0,detection,2\n5,detection,2\n")
    assert messages(told("--trace", str(tmp_path / "night.csv"))) == {"differencing": 0, "detection": 2}
    assert messages(told("--burst", "7,1", "--burst", "detection:2,1")) == {"differencing": 7, "detection": 9}
    hour, half = (sum(messages(told(*LOAD[:2], "--for", length)).values()) for length in ("1h", "30m"))
    assert hour == pytest.approx(2 * 1800, rel=0.1)
    assert half == pytest.approx(hour / 2, rel=0.15)
    night = sum(messages(told("--diurnal", "differencing:0.5,1", "--for", "1h")).values())
    assert 0.2 * 1800 < night < 0.9 * 1800
    assert told(*LOAD) == told(*LOAD)
    assert messages(told(*LOAD)) != messages(told(*LOAD[:-1], "2"))


def test_workers_cost_what_the_flags_say(told) -> None:
    """--start-seconds makes messages wait, --capacity and --gpus bound the fleets, the latter only the one with GPUs."""
    burst = ("--burst", "40,10")
    quick, slow = told(*burst, "--start-seconds", "0"), told(*burst, "--start-seconds", "100,120")
    assert slow["total"]["waits"]["p50"] > quick["total"]["waits"]["p50"] + 60
    free, few, devices = told(*burst), told(*burst, "--capacity", "3"), told(*burst, "--gpus", "2")
    assert min(largest(free).values()) > 3
    assert max(largest(few).values()) <= 3
    assert largest(devices)["detection"] == 2
    assert largest(devices)["differencing"] == largest(free)["differencing"]


def test_without_presence_the_fleet_shrinks_by_the_careful_rules(told) -> None:
    """Nobody says who is idle, so nobody leaves while messages are about."""
    load = ("--poisson", "differencing:0.4,20", "--burst", "differencing:60,20", "--for", "20m")
    careful, known = told(*load, "--without-presence"), told(*load)
    assert careful["total"]["pod_seconds"] > known["total"]["pod_seconds"]
    assert careful["total"]["interrupted"] == 0


def test_failures_are_retried_as_the_spec_says_or_end_in_the_dead_letters(
    spec: str, told, capsys: pytest.CaptureFixture[str]
) -> None:
    """--fail lets that share of attempts fail, by --seed; what ends in the dead letters has ended, and status is 0."""
    load = ("--burst", "differencing:400,5", "--start-seconds", "3")
    half, again, other = (told(*load, "--fail", "0.5", "--seed", seed)["total"] for seed in ("1", "1", "2"))
    assert half == again
    assert half["delays"] != other["delays"]
    assert half["finished"] + half["delays"]["dead"] == 400
    # three retries of the spec: 0.5 + 0.25 + 0.125 of all are made, 0.0625 die
    assert half["delays"]["retried"] == pytest.approx(350, rel=0.15)
    assert half["delays"]["dead"] == pytest.approx(25, rel=0.5)
    assert main(["simulate", "-f", spec, *load, "--fail", "0.5"]) == 0
    assert "dead letters" in capsys.readouterr().out


def test_where_nothing_fails_and_nothing_is_delayed_nothing_else_changes(told, tmp_path: Path) -> None:
    """--fail 0 and a column of no delays give what comes out without them, to the last digit and key."""
    assert told(*LOAD, "--fail", "0") == told(*LOAD)
    assert "delays" not in told(*LOAD)["total"]
    lines = [f"{number * 3},differencing,{5 + number % 7}" for number in range(60)]
    (tmp_path / "three.csv").write_text("\n".join(lines))
    (tmp_path / "four.csv").write_text("\n".join(f"{line},0" for line in lines))
    three, four = (told("--trace", str(tmp_path / name)) for name in ("three.csv", "four.csv"))
    assert three == four


def test_a_delayed_message_of_a_trace_waits_from_its_time(told, tmp_path: Path) -> None:
    """A fleet at zero is woken for it, and it costs nothing before."""
    (tmp_path / "night.csv").write_text("0,differencing,5,1800\n")
    answer = told("--trace", str(tmp_path / "night.csv"), "--start-seconds", "3")
    assert answer["total"]["waits"]["max"] <= 2
    assert answer["queues"][0]["resizes"][0]["at"] == 1795
    assert answer["total"]["delays"] == {"delayed": 1, "retried": 0, "dead": 0}


def test_jobs_change_nothing_but_the_time(told, monkeypatch: pytest.MonkeyPatch) -> None:
    """Queues that share nothing come out alike on one process and on two."""
    monkeypatch.setattr("astrid_operator.simulate.WORTH_A_PROCESS", 1)
    for more in ((), ("--fail", "0.2")):
        assert told(*LOAD, *more, "--jobs", "1") == told(*LOAD, *more, "--jobs", "2")


def test_what_is_printed_is_what_was_asked_for(
    spec: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """--rows bounds the table, --picture writes a PNG and says where."""
    picture = tmp_path / "night.png"
    assert main(["simulate", "-f", spec, "--burst", "5,1", "--rows", "1", "--picture", str(picture)]) == 0
    printed = capsys.readouterr().out
    assert ("differencing" in printed) + ("detection" in printed) == 1
    assert f"picture: {picture}" in printed
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--poisson", "1"], "'1' is not RATE,SECONDS[,SIGMA]"),
        (["--poisson", "0,1"], "must be above 0, above 0 and at most a week, and 0 to 3"),
        (["--burst", "1.5,1"], "1.5 is no number of messages"),
        (["--diurnal", "nan,1"], "must be above 0"),
        (["--burst", "1,1", "--for", "40d"], "'40d' is no time, must be above 0 and at most 30d"),
        (["--burst", "1,1", "--start-seconds", "9,3"], "'9,3' is not LEAST[,MOST] in seconds"),
        (["--burst", "1,1", "--fail", "2"], "argument --fail: '2' is no share, must be 0 to 1"),
        (["--burst", "1,1", "--fail", "nan"], "'nan' is no share, must be 0 to 1"),
        (["--burst", "1,1", "--fail", "a tenth"], "'a tenth' is no share, must be 0 to 1"),
        (["--burst", "1,1", "--capacity", "0"], "--capacity"),
        (["--burst", "1,1", "--gpus", "-1"], "--gpus"),
        (["--burst", "1,1", "--jobs", "none"], "--jobs"),
        (["--burst", "1,1", "--seed", "x"], "--seed"),
    ],
)
def test_a_flag_that_makes_no_sense_is_said(
    spec: str, arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit status 2, with the value and what was expected."""
    with pytest.raises(SystemExit, match="2"):
        main(["simulate", "-f", spec, *arguments])
    assert says in capsys.readouterr().err
