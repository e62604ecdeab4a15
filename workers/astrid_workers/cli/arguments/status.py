"""Arguments of `astrid status`."""

import argparse


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("--watch", action="store_true", help="go on showing it until Ctrl-C")
    parser.add_argument("--every", type=float, default=1.0, metavar="SECONDS", help="between two looks")
    parser.add_argument("--json", action="store_true", help="one JSON object a look, one line each")
    parser.add_argument("--queues", nargs="+", metavar="QUEUE", help="default: all known ones")
