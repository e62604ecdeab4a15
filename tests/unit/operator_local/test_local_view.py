"""A person and a program see the same fleet."""

import io
import json
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from astrid_operator.astrid_queue import QueueKey
from astrid_operator.local_view import (
    JsonLines,
    Row,
    Snapshot,
    missing_warning,
    table,
    view_for,
    write_status,
)

ROW = Row("naps", "default", "naps", 4, 1, 0, 2, 3, 2, 1, 5, 9, "ScaleLimited", "5 of 9 granted: slots")
SNAPSHOT = Snapshot("2026-01-01T00:00:00.000Z", 1.0, 5, 4, (ROW,))


def shown(*rows: Row) -> list[dict]:
    """The lines for one snapshot after the other."""
    output = io.StringIO()
    with JsonLines(output) as lines:
        for row in rows:
            lines.show(replace(SNAPSHOT, rows=(row,)))
    return [json.loads(line) for line in output.getvalue().splitlines()]


def test_a_line_is_written_for_every_change_of_the_fleet() -> None:
    """And none where nothing changed."""
    lines = shown(ROW, ROW, replace(ROW, members=4))
    assert [line["members"] for line in lines] == [3, 4]


def test_messages_that_come_and_go_alone_are_no_news() -> None:
    """A busy queue would write a line a second."""
    assert len(shown(ROW, replace(ROW, ready=5, running=0, message="other numbers"))) == 1


def test_the_table_says_what_was_not_read_as_a_dash() -> None:
    """Unknown is not zero."""
    console = Console(file=io.StringIO(), width=140, record=True)
    console.print(table(replace(SNAPSHOT, rows=(replace(ROW, ready=None),), note="x.yaml: is not YAML")))
    text = console.export_text()
    assert "–" in text
    assert "2/3 −1" in text
    assert "4 of 5 slots held; x.yaml: is not YAML" in text


def test_the_status_file_is_replaced_in_one_step(tmp_path: Path) -> None:
    """A reader never finds half of it, and nothing is left beside it."""
    path = tmp_path / "deep" / "status.json"
    write_status(path, SNAPSHOT)
    document = json.loads(path.read_text())
    assert document["queues"][0] | {"queue": "naps", "members": 3, "ready": 4} == document["queues"][0]
    assert (document["capacity"], document["slots_held"]) == (5, 4)
    assert [each.name for each in path.parent.iterdir()] == ["status.json"]


def test_without_a_terminal_there_are_lines() -> None:
    """A pipe gets no escape codes."""
    assert isinstance(view_for(io.StringIO(), as_json=False), JsonLines)


def test_a_missing_variable_is_named_with_its_users() -> None:
    """One sentence for all."""
    missing = {
        QueueKey("n", "b"): ("TOKEN (secret v/t)",),
        QueueKey("n", "a"): ("TOKEN (secret v/t)", "KEY (secret v/k)"),
    }
    assert missing_warning(missing).endswith(": TOKEN (secret v/t) for n/a, n/b; KEY (secret v/k) for n/a")
    assert missing_warning({}) == ""
