"""Arguments of `astrid-operator local`."""

import argparse
from pathlib import Path

from astrid_operator.arguments.count import count_of
from astrid_operator.arguments.filename import STDIN
from astrid_operator.cores import cores

#: Where members' logs and what is remembered of them go, relative to the working directory.
DEFAULT_FOLDER = Path("out/astrid/local")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the verb."""
    add = parser.add_argument
    add("-f", "--filename", action="append", type=_watchable, required=True, metavar="FILE",
        help="YAML file or folder with AstridQueues; may be repeated; edits act at once")  # fmt: skip
    add("--capacity", type=count_of("slots"), default=cores(), metavar="N",
        help="slots: worker processes there may be, shared by priority (default: the cores)")  # fmt: skip
    add("--folder", type=Path, default=DEFAULT_FOLDER, help="logs of the workers (default: %(default)s)")
    add("--status-file", type=Path, metavar="PATH", help="written anew every second, as JSON")
    add("--json", "--log-json", dest="json", action="store_true",
        help="a line of JSON for every change instead of the table")  # fmt: skip
    add("--dry-run", "--once", dest="dry_run", action="store_true",
        help="say what would be done now, do nothing, and end")  # fmt: skip


def _watchable(text: str) -> str:
    if text == STDIN:
        raise argparse.ArgumentTypeError("standard input cannot be watched for edits, name a file or folder")
    return text
