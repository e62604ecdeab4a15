"""A command line run in a process of its own, and what it has imported by then."""

import os
import subprocess
import sys
from collections.abc import Iterable

PROGRAM = """
import sys
from {package}.__main__ import main
try:
    status = main()
except SystemExit as ended:
    status = ended.code
print(status, *sorted({libraries} & set(sys.modules)))
"""


def ended(package: str, libraries: Iterable[str], *words: str, **variables: str) -> tuple[str, str, str]:
    """`<status> <imported libraries>`, and what was printed on standard output before it and on standard error."""
    program = PROGRAM.format(package=package, libraries=set(libraries))
    done = subprocess.run(
        [sys.executable, "-c", program, *words],
        capture_output=True, text=True, check=True, env={**os.environ, **variables},
    )  # fmt: skip
    said, _, ending = done.stdout.rstrip("\n").rpartition("\n")
    return ending, said, done.stderr
