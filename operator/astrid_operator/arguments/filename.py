"""The argument `-f`: files and folders with AstridQueues."""

import argparse

#: In place of a file: standard input.
STDIN = "-"


def add_filename(parser: argparse.ArgumentParser) -> None:
    """Add `-f` for a verb that reads each file once."""
    parser.add_argument(
        "-f",
        "--filename",
        action="append",
        required=True,
        metavar="FILE",
        help=f"YAML file or folder with AstridQueues, {STDIN} for standard input; may be repeated",
    )
