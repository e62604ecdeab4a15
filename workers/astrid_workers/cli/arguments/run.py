"""Arguments of `astrid run`."""

import argparse
from pathlib import Path

from astrid_workers.defaults import ALGORITHM, INJECTION_SEED, THRESHOLD_SIGMA

#: Ways to subtract that a person may ask for, here or in a configuration file.
ALGORITHMS = ("auto", "zogy", "classic", "none")
EXAMPLES = """
examples:
  astrid run night.fits reference.fits --out found/
  astrid run raw.fits reference.fits --bias bias.fits --flat flat.fits --out found/ --threshold 6
  astrid run sci.fits ref.fits --noise sci.noise.fits --reference-noise ref.noise.fits --out found/ --json

  astrid run night.fits reference.fits --out found/ --inject 200      (how deep is my frame?)
  astrid run night.fits reference.fits --out found/ --forced positions.csv

writes to DIR: candidates.ecsv, report.html, report.json, difference.fits with variance.fits and mask.fits,
score.fits (and forced.ecsv)
exit status: 0 done, 1 failed, 2 input it cannot use, 3 nothing to do
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.epilog = EXAMPLES
    add = parser.add_argument
    add("science", type=Path, metavar="SCIENCE.fits", help="the new frame")
    add("reference", type=Path, metavar="REFERENCE.fits", help="the earlier frame of the same field")
    add(
        "--out",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder for the results; made if it is not there",
    )
    add("--bias", type=Path, metavar="FILE", help="bias frame for the science frame")
    add("--dark", type=Path, metavar="FILE", help="dark frame for the science frame, scaled by exposure")
    add("--flat", type=Path, metavar="FILE", help="flat field for the science frame")
    add("--mask", type=Path, metavar="FILE", help="bad pixels of the science frame: anything but 0")
    add("--reference-mask", type=Path, metavar="FILE", help="the same of the reference")
    add("--noise", type=Path, metavar="FILE", help="1-sigma noise of the science frame, in its unit")
    add("--reference-noise", type=Path, metavar="FILE", help="1-sigma noise of the reference, in its unit")
    add(
        "--threshold",
        type=float,
        metavar="SIGMA",
        help=f"|score| from which a peak is a candidate (default {THRESHOLD_SIGMA:g})",
    )
    add(
        "--algorithm",
        choices=ALGORITHMS,
        help=f"how to subtract (default {ALGORITHM}: chosen by what is measured)",
    )
    add(
        "--inject",
        type=int,
        metavar="N",
        help="put N sources of known flux into the science frame and report how many come back, how deep",
    )
    add(
        "--inject-seed",
        type=int,
        default=INJECTION_SEED,
        metavar="SEED",
        help="seed of the injections (default %(default)s)",
    )
    add(
        "--forced",
        type=Path,
        metavar="FILE.csv",
        help="measure at these positions (heading x,y or ra_deg,dec_deg; x, y from 0) into forced.ecsv",
    )
    add(
        "--config",
        type=Path,
        metavar="FILE",
        help="TOML file with threshold, algorithm or other options of the subtraction; the command line wins",
    )
    add("--json", action="store_true", help="print report.json's content on standard output")
