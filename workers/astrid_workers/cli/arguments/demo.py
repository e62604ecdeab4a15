"""Arguments of `astrid demo`."""

import argparse
from pathlib import Path

from astrid_workers.pipeline import Stage


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    add = parser.add_argument
    add(
        "--observations",
        type=int,
        default=12,
        metavar="N",
        help="science frames to submit (default %(default)s)",
    )
    add(
        "--queues",
        type=Path,
        default=Path("manifests/samples"),
        help="AstridQueue files, or a folder of them",
    )
    add("--out", type=Path, default=Path("out/demo"), help="folder for everything (default %(default)s)")
    add("--seed", type=int, default=1, help="seed of the simulated night (default %(default)s)")
    add(
        "--capacity",
        type=int,
        default=None,
        help=f"most worker processes (default: {len(Stage)} + 1 per core)",
    )
    add("--redis-url", default=None, help="redis://host:port of a server to use instead of starting one")
    add(
        "--timeout-seconds",
        type=float,
        default=600.0,
        help="give up after so long (default %(default)g)",
    )
