"""Every verb but `run` works where neither kopf nor the Kubernetes client is installed."""

import subprocess
import sys

import pytest

PROGRAM = """
import sys
sys.modules["kopf"] = sys.modules["kubernetes"] = None
from astrid_operator.__main__ import main
sys.exit(main())
"""


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["local", "-f", "none.yaml"], "none.yaml: No such file"),
        (["simulate", "-f", "none.yaml", "--burst", "1,1"], "none.yaml: No such file"),
        (["render", "-f", "none.yaml"], "none.yaml: No such file"),
        (
            ["dead", "list", "--queue", "q", "--redis-url", "http://none"],
            "--redis-url or REDIS_URL holds no Redis address: expected one of",
        ),
    ],
    ids=lambda each: each[0],
)
def test_a_verb_needs_no_kubernetes(words: list[str], sentence: str) -> None:
    """The verb loads with both hidden, and says what it was given is no use."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *words], capture_output=True, text=True, check=False
    )

    assert done.returncode == 2
    assert done.stderr.startswith(sentence)
    assert done.stderr.count("\n") == 1


def test_hiding_really_hides() -> None:
    """The guard above can fail: `run` needs them."""
    done = subprocess.run([sys.executable, "-c", PROGRAM, "run"], capture_output=True, text=True, check=False)

    assert done.returncode == 1
    assert "ModuleNotFoundError" in done.stderr
