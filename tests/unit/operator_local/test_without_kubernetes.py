"""`local` runs where neither kopf nor the Kubernetes client is installed."""

import subprocess
import sys

PROGRAM = """
import sys
sys.modules["kopf"] = sys.modules["kubernetes"] = None
from astrid_operator.__main__ import main
sys.exit(main(["local", "--help"]))
"""


def test_local_needs_no_kubernetes() -> None:
    """The verb loads, and explains itself, with both hidden."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "--capacity" in done.stdout
