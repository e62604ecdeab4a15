"""How far a simulation is: for who watches a terminal, and for nobody else."""

import io
import sys
from pathlib import Path

import pytest
import yaml

from astrid_operator.__main__ import main
from astrid_operator.progress_line import ProgressLine, said
from support.queue_documents import manifest


class Terminal(io.StringIO):
    """What somebody looks at."""

    def isatty(self) -> bool:
        return True


def lines(terminal: io.StringIO) -> list[str]:
    """What was shown, one after the other."""
    return terminal.getvalue().split("\r\x1b[K")[1:]


@pytest.mark.parametrize(
    ("done", "seconds", "line"),
    [
        (0, 9.0, "messages: 0 of 2,000 (0%)"),
        (500, 1.0, "messages: 500 of 2,000 (25%)"),
        (500, 10.0, "messages: 500 of 2,000 (25%), about 30 s left"),
        (2000, 40.0, "messages: 2,000 of 2,000 (100%), about 0 s left"),
    ],
)
def test_what_is_said(done: int, seconds: float, line: str) -> None:
    """What is left is foretold by the pace so far, once there is one."""
    assert said("messages", done, 2000, seconds) == line


def test_it_is_written_now_and_then_and_wiped_at_the_end() -> None:
    """Not for every message: five times a second at most."""
    terminal, now = Terminal(), 100.0
    with ProgressLine(terminal, "messages", 1000, lambda: now) as progress:
        for _ in range(10):
            now += 0.0625
            progress.more(100)
    assert lines(terminal) == ["messages: 400 of 1,000 (40%)", "messages: 800 of 1,000 (80%)", ""]


@pytest.mark.parametrize(("output", "total"), [(io.StringIO(), 10), (Terminal(), 0)])
def test_nothing_is_written_to_a_file_or_of_no_work(output: io.StringIO, total: int) -> None:
    """A log has no use for it, and nothing has no share."""
    now = 0.0
    with ProgressLine(output, "messages", total, lambda: now) as progress:
        now += 9
        progress.more(5)
    assert output.getvalue() == ""


@pytest.mark.parametrize("how", [["--jobs", "1"], ["--jobs", "2"], ["--capacity", "3"]])
def test_a_simulation_says_how_far_it_is(
    tmp_path: Path, how: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Alone, side by side and sharing slots: in the end of all messages, and the answer is not touched."""
    path = tmp_path / "queues.yaml"
    names = ("differencing", "detection")
    path.write_text(yaml.safe_dump_all(manifest(name) for name in names))
    told: list[int] = []
    monkeypatch.setattr(ProgressLine, "more", lambda _self, count: told.append(count))
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)

    assert main(["simulate", "-f", str(path), "--burst", "20100,0.01", *how]) == 0
    assert sum(told) == 40_200
    assert len(told) >= 2
    assert "40200 of 40200 messages finished" in capsys.readouterr().out
    assert lines(terminal) == [""]
