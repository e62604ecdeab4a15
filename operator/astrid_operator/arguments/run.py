"""Arguments of `astrid-operator run`."""

import argparse
from typing import get_args

from astrid_operator.defaults import LOG_FORMAT, LOG_LEVEL, LogFormat, LogLevel


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the verb. A flag that is left out is None: its variable decides."""
    parser.add_argument(
        "--namespace",
        action="append",
        metavar="NS",
        help="serve this namespace only; may be repeated (default: all)",
    )
    parser.add_argument(
        "--log-level",
        choices=get_args(LogLevel),
        help=f"least that is logged (default: {LOG_LEVEL})",
    )
    parser.add_argument(
        "--log-format",
        choices=get_args(LogFormat),
        help=f"a line of JSON per event, or lines for people (default: {LOG_FORMAT})",
    )
    parser.epilog = (
        "Talks to the cluster of KUBECONFIG, or to its own; a flag wins over its variable ASTRID_OPERATOR_…. "
        "REDIS_URL is the Redis of every AstridQueue that names none. Exit status: 0 stopped, 1 cannot go on."
    )
