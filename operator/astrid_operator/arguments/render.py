"""Arguments of `astrid-operator render`."""

import argparse

from astrid_operator.arguments.filename import add_filename


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the verb."""
    add_filename(parser)
    parser.add_argument(
        "--image",
        metavar="IMAGE",
        help="image of workers whose AstridQueue names none (default: the setting)",
    )
