"""How much the operator says, and in which form."""

import json
import subprocess
import sys

import pytest

SAYS = """
import structlog
from astrid_operator.logs import set_up_logs
set_up_logs({level!r}, {form!r})
log = structlog.get_logger("one")
log.debug("Looked", queue="a")
log.info("Scaled", queue="a")
log.error("Broke", queue="a")
"""


def said(level: str, form: str) -> list[str]:
    """The lines on standard error of a process of its own: what is set up holds for a whole process."""
    code = SAYS.format(level=level, form=form)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == ""
    return done.stderr.splitlines()


@pytest.mark.parametrize(
    ("level", "events"),
    [("debug", ["Looked", "Scaled", "Broke"]), ("info", ["Scaled", "Broke"]), ("error", ["Broke"])],
)
def test_no_less_is_said_than_the_level_asks_for(level: str, events: list[str]) -> None:
    """From the level on, all of it, and nothing below."""
    assert [json.loads(line)["event"] for line in said(level, "json")] == events


def test_a_line_is_json_or_for_people() -> None:
    """One object to a line with level, time and what it is about; for people the same words without braces."""
    (line,) = said("error", "json")
    record = json.loads(line)
    assert (record["event"], record["level"], record["queue"], record["logger"]) == (
        "Broke",
        "error",
        "a",
        "one",
    )
    assert record["timestamp"].endswith("Z")

    (line,) = said("error", "console")
    assert "Broke" in line
    assert "queue=a" in line
    assert not line.startswith("{")
