"""Arguments of `astrid show`."""

import argparse


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("observation", metavar="OBSERVATION", help="its UUID, or its external id")
    parser.add_argument(
        "--most",
        type=int,
        default=10,
        metavar="N",
        help="most candidates and detections to list (default %(default)s)",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
