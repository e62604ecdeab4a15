"""Arguments of `astrid reference`, of both of its ways."""

import argparse
from pathlib import Path

from astrid_workers.defaults import CLIP_SIGMA, MOST_STACKED, ONTO, SURVEY

EXAMPLES = """
examples:
  astrid reference night1.fits night2.fits night3.fits --out reference.fits
  astrid reference archive/*.fits --out reference.fits --onto best
  astrid run tonight.fits reference.fits --out found/
  astrid reference --from-observations --field 150.1,2.2 --filter r

writes reference.fits (SCI, VAR, MASK, COVERAGE; its grade in the header) and reference.json beside it
exit status: 0 done, 1 failed, 2 input it cannot use, 3 nothing to do
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.epilog = EXAMPLES
    add = parser.add_argument
    add("frames", type=Path, nargs="*", metavar="FRAME.fits", help="frames of one field, filter and unit")
    add("--out", type=Path, metavar="FILE.fits", help="where the reference goes")
    add(
        "--onto",
        choices=("first", "best"),
        default=ONTO,
        help="whose pixel grid it takes (default %(default)s)",
    )
    add(
        "--clip",
        type=float,
        default=CLIP_SIGMA,
        metavar="SIGMA",
        help="outliers against the median (default %(default)g)",
    )
    add("--bias", type=Path, metavar="FILE", help="bias frame for all frames")
    add("--dark", type=Path, metavar="FILE", help="dark frame for all frames, scaled by exposure")
    add("--flat", type=Path, metavar="FILE", help="flat field for all frames")
    add("--json", action="store_true", help="print the content of the JSON file on standard output")
    _configure_from_observations(parser.add_argument_group("from the observations of the pipeline"))


def _configure_from_observations(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add(
        "--from-observations", action="store_true", help="stack what the database has of a field, register it"
    )
    add("--field", metavar="RA,DEC", help="a position on the field, in degrees")
    add("--filter", metavar="BAND", help="filter band, as the observations have it (default: those without)")
    add("--survey", metavar="NAME", default=SURVEY, help="survey they belong to (default: %(default)s)")
    add("--most", type=int, default=MOST_STACKED, metavar="N", help="most frames (default %(default)s)")
