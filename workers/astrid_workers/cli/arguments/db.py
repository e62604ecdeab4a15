"""Arguments of `astrid db`."""

import argparse


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    actions = {
        "upgrade": "bring the schema to what this version needs; of several at once, one does it",
        "current": "where the schema is; exit status 1 unless this version can work with it",
        "history": "all migrations, and which are applied",
    }
    verbs = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    for action, line in actions.items():
        verb = verbs.add_parser(action, help=line, description=line)
        verb.add_argument("--json", action="store_true", help="one JSON object on standard output")
