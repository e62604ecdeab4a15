"""Arguments of `astrid submit`."""

import argparse
from pathlib import Path

from astrid_workers.defaults import HOME, SURVEY

_DESCRIPTION = """\
Files are FITS (.fits .fit .fts, also .gz .fz .bz2 .xz), folders are searched for them in depth, and a .csv
table has a header row with some of: path fits_url survey_id observation_id ra dec observation_time
filter_band exposure_time pixel_scale airmass seeing is_reference mask_url noise_url bias_frame dark_frame
flat_frame.

Position, time, filter and exposure are read from the header; a table wins over the header, an option over
both. Files under ASTRID_INPUT_ROOTS are sent by their path, others are put into the artifact store first.
References go first. What is in the database with its image, or was sent from here before, is skipped."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.description = _DESCRIPTION
    parser.add_argument(
        "paths", nargs="+", type=Path, metavar="PATH", help="a FITS file, a folder or a .csv table"
    )
    parser.add_argument("--survey", metavar="NAME", help=f"survey they belong to (default: {SURVEY})")
    parser.add_argument("--id", metavar="ID", help="external id, for one file (default: its name)")
    parser.add_argument("--reference", action="store_true", default=None, help="declare them references")
    parser.add_argument("--ra", type=float, metavar="DEG", help="right ascension of the centre")
    parser.add_argument("--dec", type=float, metavar="DEG", help="declination of the centre")
    parser.add_argument("--time", metavar="ISO", help="start of the exposure, UTC unless it has a zone")
    parser.add_argument("--filter", metavar="BAND", help="filter band")
    parser.add_argument("--exposure", type=float, metavar="S", help="exposure time in seconds")
    for kind in ("bias", "dark", "flat"):
        parser.add_argument(f"--{kind}", metavar="FILE", help=f"master {kind} frame for all of them")
    parser.add_argument(
        "--journal",
        type=Path,
        default=HOME / "submitted.jsonl",
        metavar="FILE",
        help="what was sent from here (default: %(default)s)",
    )
    parser.add_argument("--again", action="store_true", help="send also what was sent before")
    parser.add_argument("--dry-run", action="store_true", help="say what would be sent, and send nothing")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
